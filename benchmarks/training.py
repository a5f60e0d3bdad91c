"""Training compared with PyTorch and with the older Keras recipe: images a second, seconds to a Dice, memory.

Each run is a new process; the sides take turns. They use the slices and the split of `dvc repro split`. Without them,
or with QUICK=1, they use phantoms, and nothing is recorded. Loading, augmentation, step and averaging are included.
PyTorch is optional (`pip install torch==2.13.0`); without it its rows are left out. It computes in the precision and
augments in the way that a short trial finds faster on this machine. The older recipe runs as TensorFlow decides.
"""

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import results
from alone import alone, peak_mebibytes

from brainseg import config, errors
from brainseg.commands.speed import MEASURED
from brainseg.data import archive, dataset, preprocessing, splitting
from brainseg.data.phantom import cohort
from brainseg.models import backend

Mark = Callable[[], None]  # called after each step
Where = tuple[Path, Path]  # the folder of processed slices, and split.csv
REAL = Path("data/processed"), Path("data/splits/split.csv")
WARM_UP = 8  # steps that compile and fill caches
LOOK = 4  # steps of the trial that finds PyTorch's fastest way and precision
WAYS = {"torch": "by batch", "opencv": "by OpenCV in its loader"}  # of PyTorch's augmentation, see torch_unet
FEW = 12  # timed steps on phantoms, whose epochs are short
DICE = 0.80


def main() -> None:
    options = _options()
    quick = os.environ.get("QUICK", "0") not in ("", "0")
    real = all(path.exists() for path in REAL) and not quick
    with tempfile.TemporaryDirectory() as folder:
        where = REAL if real else phantoms(Path(folder))
        peer = fastest_pytorch(where) if _has_torch() else None
        rows = speed(where, options.runs, options.steps if real else FEW, peer)
        if real and options.dice:
            rows += time_to_dice(where, options.dice, peer)
    results.show(rows)
    if real:
        results.save(rows)


def speed(where: Where, runs: int, steps: int, peer: partial | None) -> list[results.Row]:
    """Images a second of the pipeline and of the peers, in turn; peak of memory of the pipeline."""
    sides: dict[str, Callable] = {"ours": ours, "legacy_keras": legacy_keras}
    if peer:
        sides["pytorch"] = peer
    found: dict[str, list[float]] = {name: [] for name in sides}
    peaks = []
    for number in range(runs):
        for name, side in sides.items():
            rate, peak = alone(throughput, side, where, steps)
            found[name].append(rate)
            peaks += [peak] if name == "ours" else []
        said = ", ".join(f"{name} {rates[-1]:.1f}" for name, rates in found.items())
        print(f"run {number + 1}: {said} images/s", flush=True)
    rows = []
    for name in [name for name in sides if name != "ours"]:
        note = f"ours {_our_precision()}; {describe_peer(sides[name])}"
        rows.append(results.row(f"train_vs_{name}", found["ours"], found[name], "images/s", True, note))
    return [*rows, results.absolute("train_rss_mib", peaks, "MiB", higher_is_better=False)]


def fastest_pytorch(where: Where) -> partial:
    """Try each way of augmentation and each precision for a few steps; return the fastest."""
    sides = [partial(pytorch, way=way, precision=p) for way in WAYS for p in ("float32", "bfloat16")]
    rates = [alone(throughput, side, where, LOOK)[0] for side in sides]
    for side, rate in zip(sides, rates, strict=True):
        print(f"{describe_peer(side)}: {rate:.1f} images/s in a short trial", flush=True)
    return sides[int(np.argmax(rates))]


def describe_peer(side: Any) -> str:
    """How a peer computes, in words."""
    if side is legacy_keras:
        return "the older recipe float32, oneDNN as TensorFlow decides"
    settings = side.keywords
    return f"PyTorch {settings['precision']}, augmented {WAYS[settings['way']]}"


def _our_precision() -> str:
    """The precision of the pipeline on this machine."""
    precision = config.load("train").train.precision
    return backend.native_precision("tensorflow", "cpu") if precision == "auto" else precision


def load_params() -> config.Params:
    """The parameters of the pipeline with the plain U-Net, which the peers implement too."""
    return config.load().model_copy(update={"network": MEASURED})


def throughput(side: Callable, where: Where, steps: int) -> tuple[float, float]:
    """Images a second over ``steps`` steps after the warm-up, and the process's peak of memory in MiB."""
    data, params = dataset.load(*where, "patient"), load_params()
    marks: list[float] = []
    side(data, params, lambda: marks.append(time.perf_counter()), WARM_UP + steps)
    timed = min(steps, len(marks) - WARM_UP)
    if timed < 1:
        what = f"{len(marks)} batches an epoch are too few: {WARM_UP} warm up, and the others are timed"
        raise errors.DataError("params.yaml", what, "lower train.batch_size, or use more slices")
    return timed * params.train.batch_size / (marks[-1] - marks[-1 - timed]), peak_mebibytes()


def ours(data: dataset.Dataset, params: config.Params, mark: Mark, steps: int) -> None:
    """The model and the batches of the pipeline."""
    _start(params)
    from brainseg.training import trainer
    from brainseg.training.batches import Batches

    batches = Batches(data, params)
    _fit(trainer.build(params, *data.images.shape[2:], len(batches)), batches, mark, steps)


def legacy_keras(data: dataset.Dataset, params: config.Params, mark: Mark, steps: int) -> None:
    """The older recipe with the same network: float32, Keras' own layers, OpenCV for each slice, fed by Keras."""
    from opencv_batches import Batches

    off = config.Augmentation(**dict.fromkeys(config.Augmentation.model_fields, 0.0))
    train = params.train.model_copy(update={"precision": "float32", "ema": 0.0})
    plain = params.model_copy(update={"train": train, "augmentation": off})
    os.environ["KERAS_BACKEND"] = "tensorflow"
    backend.batch_normalisation = lambda *arguments: None  # Keras' own layer instead of the fused kernel
    from brainseg.training import trainer

    batches = Batches(data, params)
    _fit(trainer.build(plain, *data.images.shape[2:], len(batches)), batches, mark, steps, lambda given: given)


def _start(params: config.Params) -> None:
    t = params.train
    backend.start(t.engine, device=t.device, precision=t.precision, threads=t.threads)


def _fit(model, batches, mark: Mark, steps: int, feed: Callable = backend.stream) -> None:
    import keras

    batches.order = batches.order[: steps * batches.params.batch_size]
    each = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: mark())
    model.fit(feed(batches), shuffle=False, verbose=0, callbacks=[each])


def pytorch(data: dataset.Dataset, params: config.Params, mark: Mark, steps: int, way: str, precision: str) -> None:
    """See torch_unet."""
    import torch_unet

    trainer = torch_unet.Trainer(data, params, way, precision)
    for _, _ in zip(range(steps), trainer.epoch(0), strict=False):
        mark()


def time_to_dice(where: Where, runs: int, peer: partial | None) -> list[results.Row]:
    """Seconds from the first batch, compilation included, until the mean Dice of ``fixed_split`` is 0.80."""
    sides: dict[str, Callable] = {"ours": our_seconds}
    if peer:
        sides["pytorch"] = partial(pytorch_seconds, **peer.keywords)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            found[name].append(alone(side, where))
            print(f"{name}: volume Dice {DICE} after {found[name][-1]:.0f} s", flush=True)  # inf: never
    for name in [name for name, seconds in found.items() if np.isinf(seconds).any()]:
        print(f"{name}: volume Dice {DICE} was not reached in every run: no row of it")
        del found[name]
    if "ours" not in found:
        return []
    rows = [results.absolute("time_to_dice80_s", found["ours"], "s", higher_is_better=False)]
    if "pytorch" in found:
        pair = found["ours"], found["pytorch"]
        note = f"ours {_our_precision()}; {describe_peer(peer)}"
        rows.append(results.row("time_to_dice80_vs_pytorch", *pair, "s", higher_is_better=False, note=note))
    return rows


def fixed_split(where: Where) -> dataset.Dataset:
    """Validate on fold 1 (22 volumes instead of the 11 of split.csv), leave fold 0 out, train on the others."""
    data = dataset.load(*where, "patient")
    subsets = data.slices["fold"].map({0: "unused", 1: "val"}).fillna("train")
    return dataset.Dataset(data.images, data.masks, data.slices.assign(subset=subsets))


def our_seconds(where: Where) -> float:
    """Seconds of the pipeline; infinite if the Dice is never reached."""
    data, params = fixed_split(where), load_params()
    _start(params)
    import keras

    from brainseg.training import trainer
    from brainseg.training.batches import Batches

    start = time.perf_counter()
    batches = Batches(data, params)
    model = trainer.build(params, *data.images.shape[2:], len(batches))
    reached = float("inf")

    def validate(epoch: int, logs: dict) -> None:
        nonlocal reached
        with trainer.use_averages(model):
            dice = trainer.validate(model, data, params.train.batch_size)["val_volume_dice"]
        seconds = time.perf_counter() - start
        print(f"  epoch {epoch + 1}, {seconds:.0f} s: {dice:.3f}", flush=True)
        if dice >= DICE:
            reached, model.stop_training = seconds, True

    around = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: batches.start(epoch), on_epoch_end=validate
    )
    model.fit(
        backend.stream(batches), epochs=params.train.epochs, shuffle=False, verbose=0, callbacks=[around]
    )  # one call for all epochs, because Keras replaces the trained weights by the averaged ones at its end
    return reached


def pytorch_seconds(where: Where, way: str, precision: str) -> float:
    """Seconds of the peer; infinite if the Dice is never reached."""
    import torch_unet

    data, params = fixed_split(where), load_params()
    start = time.perf_counter()
    trainer = torch_unet.Trainer(data, params, way, precision)
    rows = data.rows("val")
    for epoch in range(params.train.epochs):
        for _ in trainer.epoch(epoch):
            pass
        predicted = trainer.logits(rows) >= 0
        dice = volume_dice(data, rows, predicted)
        seconds = time.perf_counter() - start
        print(f"  epoch {epoch + 1}, {seconds:.0f} s: {dice:.3f}", flush=True)
        if dice >= DICE:
            return seconds
    return float("inf")


def volume_dice(data: dataset.Dataset, rows: np.ndarray, predicted: np.ndarray) -> float:
    """The mean volume Dice of the patients of ``rows``."""
    from brainseg.evaluation import metrics

    patients = data.slices["patient"].to_numpy()[rows]
    counts = [metrics.counts(data.masks[rows[patients == p]], predicted[patients == p]) for p in np.unique(patients)]
    return float(np.nanmean([metrics.dice(c) for c in counts]))


def phantoms(folder: Path) -> Where:
    """Draw phantoms, preprocess and split them as in the pipeline."""
    params = config.load()
    archive.write(folder / "slices.zip", cohort.pairs(params.phantom))
    preprocessing.run(folder / "slices.zip", params.preprocess, folder / "processed")
    splitting.run(folder / "processed/slices.csv", params.split, folder / "split.csv")
    return folder / "processed", folder / "split.csv"


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--dice", type=int, default=1, metavar="RUNS", help="trainings, timed until volume Dice 0.80")
    return parser.parse_args()


if __name__ == "__main__":
    errors.run(main)
