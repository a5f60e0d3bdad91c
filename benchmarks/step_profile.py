"""How the time of a training step is spent, and which share of the machine's bfloat16 peak it reaches.

    python benchmarks/step_profile.py
    python benchmarks/step_profile.py --recipe best --set train.engine=jax

On a processor it lists TensorFlow's operations, which run one after the other; on a GPU with JAX the kernels, and the
share of time without any. The peak is measured in the same run, with a matrix product. It needs the slices of
`dvc repro split`.
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
from training import REAL

from brainseg import config, errors
from brainseg.data import dataset
from brainseg.models import backend

SIDES = {"gpu": 8192, "cpu": 2048}  # of the matrices whose product measures the peak
KINDS = {  # of kernels, by parts of their names; the first kind that fits counts
    "convolutions": ("conv", "cudnn", "xmma", "cutlass", "nhwc", "gemm", "winograd", "dgrad", "wgrad"),
    "copies": ("memcpy", "memset", "copy", "transpose"),
    "reductions": ("reduce",),
    "elementwise": ("fusion", "add", "multiply", "select", "convert", "wrapped"),
}
LONGEST = 20  # kernels or operations that are listed
Event = tuple[int, int, str]  # start and end in nanoseconds, name


def main() -> None:
    options = _options()
    raw = config.merge(config.read_yaml(Path("params.yaml")), folds.overrides(options.recipe, options.set))
    params = config.check(raw, Path("params.yaml"))
    t = params.train
    running = backend.start(t.engine, device=t.device, precision=t.precision, threads=t.threads)
    print(running, flush=True)
    report = {"running": str(running), "recipe": options.recipe, "set": options.set}
    report |= measure(params, dataset.load(*REAL, params.split.unit), running.device, options.steps)
    print(json.dumps(report, indent=2))


def measure(params: config.Params, data: dataset.Dataset, device: str, steps: int) -> dict:
    """Time ``steps`` compiled steps, then profile as many."""
    from brainseg.training import trainer
    from brainseg.training.batches import Batches

    batches = Batches(data, params)
    model = trainer.build(params, *data.images.shape[2:], len(batches))
    with tempfile.TemporaryDirectory() as folder:
        first, seconds, wall = _epochs(model, batches, steps, folder)
        events = list(_events(Path(folder), device))
    size = params.train.batch_size
    work = 3 * forward_flops(model.network, params, data.images.shape[1])  # backward costs twice as much as forward
    peak = product_flops(SIDES[device])
    return {
        "compilation_s": round(first - seconds, 1),
        "images_per_s": round(steps * size / seconds, 1),
        "step_ms": round(1e3 * seconds / steps, 3),
        "gflop_an_image": round(work / 1e9, 2),
        "peak_gflop_per_s": round(peak / 1e9),
        "share_of_peak": round(steps * size / seconds * work / peak, 4),
        "profile": by_kernel(events, wall) if device == "gpu" else by_operation(events, steps),
    }


def _epochs(model, batches, steps: int, folder: str) -> tuple[float, float, float]:
    """Seconds of three epochs of ``steps`` steps: with compilation, without it, and with a trace in ``folder``.

    All are in one call of ``fit``: on JAX a second call fails if weights are averaged (Keras 3.15).
    """
    import keras

    marks: list[float] = []
    trace = _tracer(folder)

    def begin(epoch: int, logs: dict) -> None:
        if epoch == 2:
            trace.__enter__()
        marks.append(time.perf_counter())

    def end(epoch: int, logs: dict) -> None:
        marks.append(time.perf_counter())
        if epoch == 2:
            trace.__exit__(None, None, None)

    around = keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)
    batches.order = batches.order[: steps * batches.params.batch_size]
    model.fit(backend.stream(batches), epochs=3, shuffle=False, verbose=0, callbacks=[around])
    return tuple(np.diff(marks)[::2])


def _tracer(folder: str):
    if backend.jit_compile():
        import jax

        return jax.profiler.trace(folder)
    import tensorflow as tf

    return tf.profiler.experimental.Profile(folder)


def forward_flops(network, params: config.Params, side: int) -> float:
    """Floating-point operations of all convolutions for one training window; multiply and add count as two."""
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
    """Shapes of input and output of each layer for one window."""
    import keras

    taps = {layer.name: (layer.input, layer.output) for layer in network.layers if not isinstance(layer.input, list)}
    model = keras.Model(network.input, taps)
    return model.compute_output_shape((1, window, window, network.input_shape[-1]))


def product_flops(side: int) -> float:
    """Floating-point operations a second of a bfloat16 product of two random matrices, median of ten."""
    import keras

    one, other = (keras.random.normal((side, side), dtype="bfloat16") for _ in range(2))
    times = []
    for _ in range(11):
        start = time.perf_counter()
        float(keras.ops.cast(keras.ops.matmul(one, other)[0, 0], "float32"))
        times.append(time.perf_counter() - start)
    return 2 * side**3 / float(np.median(times[1:]))


def _events(folder: Path, device: str) -> Iterator[Event]:
    """The kernels on the streams of a GPU, or the operations on the processor."""
    from jax.profiler import ProfileData

    (path,) = folder.rglob("*.xplane.pb")
    plane_name, line_name = ("/device:GPU", "Stream") if device == "gpu" else ("/host:CPU", "")
    for plane in ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            if plane.name.startswith(plane_name) and line.name.startswith(line_name):
                yield from ((int(e.start_ns), int(e.start_ns + e.duration_ns), e.name) for e in line.events)


def by_operation(events: list[Event], steps: int) -> dict[str, float]:
    """Milliseconds a step of each kind of TensorFlow operation, the longest first. Events have names NAME:KIND."""
    kinds: Counter = Counter()
    for begin, end, name in events:
        if ":" in name and (kind := name.rsplit(":", 1)[1]).isidentifier():
            kinds[kind] += end - begin
    return {kind: round(ns / 1e6 / steps, 2) for kind, ns in kinds.most_common(LONGEST)}


def by_kernel(events: list[Event], wall: float) -> dict:
    """The shares of ``wall`` seconds in which the GPU was idle, and in which each kind of kernel ran."""
    busy, until = 0, 0
    kinds: Counter = Counter()
    names: Counter = Counter()
    for begin, end, name in sorted(events):
        busy += max(0, end - max(begin, until))
        until = max(until, end)
        kinds[_kind(name)] += end - begin
        names[name] += end - begin
    return {
        "idle": round(1 - busy / 1e9 / wall, 3),
        "kernels": len(events),
        "kinds": {kind: round(ns / 1e9 / wall, 3) for kind, ns in kinds.most_common()},
        "longest": {name[:80]: round(ns / 1e9 / wall, 3) for name, ns in names.most_common(LONGEST)},
    }


def _kind(name: str) -> str:
    return next((kind for kind, words in KINDS.items() if any(word in name.lower() for word in words)), "other")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe")
    parser.add_argument("--set", nargs="*", default=[], metavar="BLOCK.KEY=VALUE")
    parser.add_argument("--steps", type=int, default=40)
    return parser.parse_args()


if __name__ == "__main__":
    errors.run(main)
