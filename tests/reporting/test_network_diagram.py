"""The diagram of the network, drawn from a list of layers."""

import pytest
from PIL import Image

from brainseg.config import Network
from brainseg.models import manifest as described
from brainseg.models import networks
from brainseg.models.manifest import Layer, Manifest
from brainseg.reporting import network_diagram
from tests.support import run_files, small_run

LAYERS = [Layer.model_validate(layer) for layer in small_run.layers()]
MANIFEST = Manifest.model_validate(run_files.manifest())


def test_blocks_of_a_small_unet():
    """Three blocks: down at 48, bottom at 24, up at 48, which the bottom and the first block feed."""
    down, bottom, up = network_diagram.group_layers(LAYERS)
    assert [b.size for b in (down, bottom, up)] == [(48, 48), (24, 24), (48, 48)]
    assert [b.channels for b in (down, bottom, up)] == [4, 8, 4]
    assert [b.convolutions for b in (down, bottom, up)] == [1, 1, 2]
    assert (down.sources, bottom.sources, up.sources) == ([], [0], [1, 0])


def test_nothing_is_lost():
    drawn = network_diagram.group_layers(LAYERS)
    assert sum(b.parameters for b in drawn) == sum(layer.parameters for layer in LAYERS) == 833
    assert [layer.name for b in drawn for layer in b.layers] == [layer.name for layer in LAYERS]


def test_order_of_side_branches_does_not_matter():
    """Keras lists layers by depth; the first block may come back between later ones."""
    late = Layer(name="side", type="Conv2D", shape=[48, 48, 4], parameters=7, inputs=["down"])
    drawn = network_diagram.group_layers([*LAYERS[:4], late, *LAYERS[4:]])
    assert [layer.name for layer in drawn[0].layers] == ["image", "down", "side"]
    assert len(drawn) == 3


@pytest.mark.parametrize("kept", [9, 2, 1])
def test_drawn_the_same_each_time(kept, tmp_path):
    network = MANIFEST.model_copy(update={"layers": LAYERS[:kept]})
    network_diagram.draw_network(network, tmp_path / "a.png", 50)
    network_diagram.draw_network(network, tmp_path / "b.png", 50)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == round(network_diagram.WIDTH * 50)


@pytest.mark.parametrize("name", networks.KNOWN)
def test_every_network_is_drawn_whole(name, tmp_path):
    """Gates, deep supervision, volumes: each layer is in one block with its resolution."""
    params = Network(
        name=name, context=1, scaling="gain", filters=4, depth=2, norm="batch", dropout=0.1, upsampling="resize", stem=2
    )  # fmt: skip
    network = networks.build(params, 32, 3)
    drawn = network_diagram.group_layers(described.layers(network))
    assert sum(b.parameters for b in drawn) == network.count_params()
    assert {b.size for b in drawn} == {(32, 32), (16, 16), (8, 8), (4, 4)}
    model = MANIFEST.model_copy(update={"layers": described.layers(network)})
    network_diagram.draw_network(model, tmp_path / "network.png", 50)
    with Image.open(tmp_path / "network.png") as image:
        assert image.width == round(network_diagram.WIDTH * 50)


@pytest.mark.parametrize(("number", "text"), [(833, "833"), (1000, "1 k"), (452_000, "452 k"), (56_600_000, "56.6 M")])
def test_counts_are_short(number, text):
    assert network_diagram._format_count(number) == text
