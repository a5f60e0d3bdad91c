"""The peer in PyTorch is the same network: equal weights give equal outputs. Skipped if PyTorch is not installed."""

import numpy as np
import pytest

from brainseg import config
from brainseg.config import Network
from brainseg.models import networks
from tests.support.toy_pipeline import PROJECT

torch = pytest.importorskip("torch")


@pytest.fixture
def torch_unet(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    import torch_unet

    return torch_unet


def drawn(shape: tuple[int, ...], name: str, random: np.random.Generator) -> np.ndarray:
    """Weights unlike initial ones, so that a weight in the wrong place changes the output."""
    low, high = (0.5, 1.5) if name in ("gamma", "moving_variance") else (-0.5, 0.5)
    return random.uniform(low, high, shape).astype("float32")


def fill(network, peer, random) -> None:
    """Set the same weights in both. Layers are in order of computation; Keras' kernels are (H, W, in, out)."""
    modules = [
        m for m in peer.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.BatchNorm2d)
    ]
    names = {id(module): name for name, module in peer.named_modules()}
    modules.sort(key=lambda module: order(names[id(module)], len(peer.up)))
    for layer, module in zip([layer for layer in network.layers if layer.weights], modules, strict=True):
        for variable in layer.weights:
            values = drawn(variable.shape, variable.name, random)
            variable.assign(values)
            into = {
                "kernel": "weight", "gamma": "weight", "beta": "bias",
                "moving_mean": "running_mean", "moving_variance": "running_var",
            }.get(variable.name, variable.name)  # fmt: skip
            tensor = torch.from_numpy(values.transpose(3, 2, 0, 1) if values.ndim == 4 else values)
            getattr(module, into).data.copy_(tensor)


def order(name: str, depth: int) -> tuple:
    """A sort key: the order in which modules of the peer compute. In the decoder the coarsest level is first."""
    part, *rest = name.split(".")
    level, place = (int(rest[0]), tuple(int(number) for number in rest[1:])) if rest else (0, ())
    return {
        "stem": (0, level), "down": (1, level, *place),
        "reduce": (2, depth - level, 0), "up": (2, depth - level, 1, *place), "answer": (3,),
    }[part]  # fmt: skip


@pytest.mark.parametrize("scaling", ["full", "gain"])
@pytest.mark.parametrize("stem", [0, 2, 4])
def test_the_same_weights_give_the_same_answers(torch_unet, stem, scaling):
    params = Network(
        name="unet", context=0, scaling=scaling, filters=4, depth=2, norm="batch", dropout=0.1, upsampling="resize",
        stem=stem,
    )  # fmt: skip
    random = np.random.default_rng(5)
    network, peer = networks.build(params, 64, 3), torch_unet.UNet(params, 3)
    fill(network, peer, random)
    assert network.count_params() == sum(t.numel() for t in peer.state_dict().values() if t.is_floating_point())
    images = random.integers(0, 256, (2, 64, 64, 3), np.uint8)
    images[1] //= 40  # a slice without a head
    with torch.inference_mode():
        answer = peer.eval()(torch.from_numpy(images).permute(0, 3, 1, 2).float())[:, 0].numpy()
    ours = network.predict_on_batch(images)[..., 0]
    assert ours.std() > 0.01
    np.testing.assert_allclose(answer, ours, atol=1e-4 * np.abs(ours).max())


def test_the_peer_is_augmented_alike_by_batch_and_by_opencv(torch_unet):
    off = dict.fromkeys(config.Augmentation.model_fields, 0.0)
    moved = {"window": 0.75, "rotation": 20, "translation": 0.06, "zoom": 0.2, "shear": 6, "flip_horizontal": 0.5}
    params = config.Augmentation(**{**off, **moved})
    y, x = np.mgrid[:64, :64] / 64
    image = np.stack([128 + 100 * np.sin(4 * y + k) * np.cos(5 * x) for k in range(3)], -1).astype("uint8")
    images, masks = np.repeat(image[None], 16, 0), np.repeat(((y - 0.45) ** 2 + (x - 0.55) ** 2 < 0.06)[None], 16, 0)
    masks = masks[..., None].astype("uint8")
    torch.manual_seed(2)
    by_opencv = torch_unet.augment_by_opencv(params, images, masks, seed=1)
    torch.manual_seed(2)
    given = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in (images, masks))
    by_batch = [array.permute(0, 2, 3, 1).numpy() for array in torch_unet.augment(params, *given)]
    inside = np.abs(by_opencv[0] - by_batch[0])[:, 2:-2, 2:-2]
    assert np.median(inside) < 0.6 and np.quantile(inside, 0.99) < 4
    assert (by_opencv[1] != by_batch[1]).mean() < 0.01
