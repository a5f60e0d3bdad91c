"""How well a recipe's training uses an accelerator: images a second, share of its bf16 peak, where the time goes.

    python benchmarks/accelerator.py --recipe best --set train.engine=jax

On JAX, whose profiler says when each kernel ran. The peak is that of a matrix product of this card in this run.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import folds
import numpy as np

from brainseg import config, dataset, engine, errors, revision

REAL = Path("data/processed"), Path("data/splits/split.csv")
SIDE = 8192  # of the matrices whose product is the peak
KINDS = {  # of kernels, by what their names hold; the first that fits
    "convolutions": ("conv", "cudnn", "xmma", "cutlass", "nhwc", "gemm", "winograd", "dgrad", "wgrad"),
    "copies": ("memcpy", "memset", "copy", "transpose"),
    "reductions": ("reduce",),
    "elementwise": ("fusion", "add", "multiply", "select", "convert", "wrapped"),
}
Span = tuple[int, int, str]  # nanoseconds of begin and end, name


def main() -> None:
    options = _options()
    raw = revision.merged(config.read_yaml(Path("params.yaml")), folds.overrides(options.recipe, options.set))
    params = config.check(raw, Path("params.yaml"))
    t = params.train
    running = engine.start(t.engine, device=t.device, precision=t.precision, threads=t.threads)
    print(running, flush=True)
    report = {"running": str(running), "recipe": options.recipe, "set": options.set}
    report |= measured(params, dataset.load(*REAL, params.split.unit), options.steps)
    print(json.dumps(report, indent=2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")


def measured(params: config.Params, data: dataset.Dataset, steps: int) -> dict:
    """Time ``steps`` steps once they are compiled, then look into as many."""
    import jax

    from brainseg import training

    batches = training.Batches(data, params)
    model = training.build(params, *data.images.shape[2:], len(batches))
    with tempfile.TemporaryDirectory() as folder:
        first, seconds, wall = _epochs(model, batches, steps, folder)
        spans = sorted(_spans(Path(folder)))
    size = params.train.batch_size
    work = 3 * forward_flops(model.network, params, data.images.shape[1])  # a step back costs twice a step forward
    peak = product_flops()
    return {
        "device": str(jax.devices()[0].device_kind),
        "compilation_s": round(first - seconds, 1),
        "images_per_s": round(steps * size / seconds, 1),
        "step_ms": round(1e3 * seconds / steps, 3),
        "gflop_an_image": round(work / 1e9, 2),
        "peak_tflop_per_s": round(peak / 1e12, 1),
        "share_of_peak": round(steps * size / seconds * work / peak, 4),
        "profile": shares(spans, wall),
    }


def _epochs(model, batches, steps: int, folder: str) -> tuple[float, float, float]:
    """Seconds of three epochs of ``steps`` steps: compiled in the first, as it is, and with a trace in ``folder``.

    In one call of ``fit``: on JAX a second one fails where weights are averaged (Keras 3.15).
    """
    import jax
    import keras

    marks: list[float] = []

    def begin(epoch: int, logs: dict) -> None:
        batches.start(epoch)
        if epoch == 2:
            jax.profiler.start_trace(folder)
        marks.append(time.perf_counter())

    def end(epoch: int, logs: dict) -> None:
        marks.append(time.perf_counter())
        if epoch == 2:
            jax.profiler.stop_trace()

    around = keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)
    settings = {"epochs": 3, "steps_per_epoch": steps, "shuffle": False, "verbose": 0, "callbacks": [around]}
    model.fit(engine.streamed(batches), **settings)
    return tuple(np.diff(marks)[::2])


def forward_flops(network, params: config.Params, side: int) -> float:
    """Operations of an image's convolutions, a multiplication and an addition each, on the window trained on."""
    import keras

    window = round(params.augmentation.window * side) or side
    flops = 0.0
    shapes = _shapes(network, window)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv3D | keras.layers.Conv2DTranspose):
            given, made = shapes[layer.name]
            pixels = given if isinstance(layer, keras.layers.Conv2DTranspose) else made
            flops += 2 * float(np.prod(layer.kernel.shape)) * float(np.prod(pixels[1:-1]))
    return flops


def _shapes(network, window: int) -> dict[str, tuple]:
    """Shapes of what goes into each layer and comes out of it, for one window."""
    import keras

    taps = [(layer.input, layer.output) for layer in network.layers if not isinstance(layer.input, list)]
    names = [layer.name for layer in network.layers if not isinstance(layer.input, list)]
    model = keras.Model(network.input, taps)
    found = model.compute_output_shape((1, window, window, network.input_shape[-1]))
    return dict(zip(names, found, strict=True))


def product_flops() -> float:
    """Operations a second of a bf16 product of two random matrices, median of ten."""
    import jax
    from jax import numpy as jnp

    side = SIDE if jax.default_backend() == "gpu" else SIDE // 8
    one, other = (jax.random.normal(jax.random.key(k), (side, side), jnp.bfloat16) for k in (0, 1))
    multiply = jax.jit(jnp.matmul)
    multiply(one, other).block_until_ready()
    times = []
    for _ in range(10):
        start = time.perf_counter()
        multiply(one, other).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / float(np.median(times))


def _spans(folder: Path) -> Iterator[Span]:
    """When each kernel ran on the accelerator; streams of a device run side by side."""
    import jax

    (path,) = folder.rglob("*.xplane.pb")
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if line.name.startswith("Stream"):
                yield from ((int(e.start_ns), int(e.start_ns + e.duration_ns), e.name) for e in line.events)


def shares(spans: list[Span], wall: float) -> dict:
    """Of ``wall`` seconds: how long the accelerator had nothing to do, and how long each kind of kernel took."""
    busy, until = 0, 0
    kinds: Counter = Counter()
    names: Counter = Counter()
    for begin, end, name in spans:
        busy += max(0, end - max(begin, until))
        until = max(until, end)
        kinds[_kind(name)] += end - begin
        names[name] += end - begin
    return {
        "idle": round(1 - busy / 1e9 / wall, 3),
        "kernels": len(spans),
        "kinds": {kind: round(ns / 1e9 / wall, 3) for kind, ns in kinds.most_common()},
        "longest": {name[:80]: round(ns / 1e9 / wall, 3) for name, ns in names.most_common(15)},
    }


def _kind(name: str) -> str:
    return next((kind for kind, words in KINDS.items() if any(word in name.lower() for word in words)), "other")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe")
    parser.add_argument("--set", nargs="*", default=[], metavar="BLOCK.KEY=VALUE")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("accelerator.json"))
    return parser.parse_args()


if __name__ == "__main__":
    errors.run(main)
