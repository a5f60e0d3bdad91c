"""The disk and the memory that a run needs: estimates for `brainseg check`, from numbers of slices and of weights."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from brainseg import config, files, hardware
from brainseg.commands import network_size
from brainseg.commands.expected_data import ARCHIVE, ExpectedData
from brainseg.experiments.planning import Plan
from brainseg.io.sequences import CHANNELS

MIB = 2**20
NUMBER = 4  # bytes of a number in float32
# Peaks measured on a processor with TensorFlow 2.21, of 12 networks that need 920 to 1,570 MiB: within 12 %.
TRAINING_BASE = 850 * MIB  # the engine and its compiled step
KEPT_OUTPUTS = 0.85  # numbers in memory for each number that a layer answers
KEPT_WEIGHTS = 10  # gradients, two moments, averages, and the copies for the checkpoint
EVALUATION_BASE, EVALUATED = (
    740 * MIB,
    17,
)  # bytes of a pixel: four predictions, masks, copies; 14 measured, 3 calibrated
PREPROCESSING_BASE = 190 * MIB
PREPARED = 4  # bytes of a pixel: three channels and the mask
CHECKPOINTS, STATES = 3, 5  # two are kept while one is written; weights, two moments, averages, those to be kept
PREDICTED = 1 / 7  # of the bytes of a probability for each pixel: three kinds, compressed; of LGG it is 1/31
RENDERED = 8 * MIB


class DiskNeed(NamedTuple):
    """What one file system must have free. ``parts``: what for → bytes."""

    place: Path
    parts: dict[str, int]
    free: int

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())


def measure_disks(params: config.Params, data: ExpectedData, fetched: int, plan: Plan, root: Path) -> list[DiskNeed]:
    """The bytes that the stages of ``plan`` write, by file system.

    A result is counted in DVC's cache, and once more in the workspace where DVC copies; what DVC removes from there
    before the stage runs is counted as free.
    """
    results = dict(_list_results(params, data, plan))
    made = sum(results.values())
    needs = [("", root, 0), ("results in DVC's cache", plan.cache, made)]  # the project's disk is named by its folder
    if plan.copies:
        before = sum(path.stat().st_size for name in results for path in _list_replaced(root, name))
        needs.append(("their copies here", root, max(0, made - before)))
    state = files.project_root() / ".brainseg"
    needs.append(("what is fetched", state, fetched))
    if plan.runs("train"):
        weights = network_size.measure(params.network, 64).weights
        needs.append(("checkpoints", state, CHECKPOINTS * STATES * NUMBER * weights))
    found: dict[int, DiskNeed] = {}
    for name, place, size in needs:
        there = _find_existing(place)
        need = found.setdefault(os.stat(there).st_dev, DiskNeed(there, {}, files.free_bytes(there)))
        if size:
            need.parts[name] = size
    return list(found.values())


def _list_results(params: config.Params, data: ExpectedData, plan: Plan) -> Iterator[tuple[str, int]]:
    """The results of the stages that run, by their paths, as far as they are large."""
    pixels = params.preprocess.size**2
    weights = network_size.measure(params.network, 64).weights
    sizes = {
        "download": {str(ARCHIVE): data.archive},
        "preprocess": {
            "data/processed/images.npy": data.slices * pixels * len(CHANNELS),
            "data/processed/masks.npy": data.slices * pixels,
        },
        "brains": {"data/processed/brains.npy": data.slices * pixels // 8},
        "train": {"models/unet.weights.h5": weights * NUMBER},
        "evaluate": {"data/predictions/probabilities.npz": round(data.slices * pixels * PREDICTED)},
        "render": {"metrics/report.html": RENDERED},
        "export": {"models/unet.onnx": weights * NUMBER, "models/unet.int8.onnx": weights},
    }
    for stage, made in sizes.items():
        if plan.runs(stage):
            yield from made.items()


def _list_replaced(root: Path, name: str) -> Iterable[Path]:
    """The file that DVC removes, if its bytes are its own."""
    path = root / name
    return [path] if path.is_file() and path.stat().st_nlink == 1 else []


def _find_existing(place: Path) -> Path:
    place = place.absolute()
    return next(path for path in (place, *place.parents) if path.exists())


def measure_memory(params: config.Params, data: ExpectedData, plan: Plan, evaluated: int) -> dict[str, int]:
    """The peak of each stage that needs much, in bytes.

    Args:
        evaluated: slices of validation and test.
    """
    side, train = params.preprocess.size, params.train
    size = network_size.measure(params.network, network_size.find_side(params))
    outputs = size.outputs * train.batch_size * NUMBER * KEPT_OUTPUTS
    at_once = 2 * min(8, hardware.processors()) * data.largest  # slices of the patients that are read ahead
    found = {
        "preprocess": PREPROCESSING_BASE + at_once * side**2 * PREPARED,
        "train": TRAINING_BASE + round(outputs) + size.weights * NUMBER * KEPT_WEIGHTS,
        "evaluate": EVALUATION_BASE + evaluated * side**2 * EVALUATED,
    }
    return {stage: need for stage, need in found.items() if plan.runs(stage)}


def fit_batch(params: config.Params, available: int) -> int:
    """The largest batch, of halvings of ``train.batch_size``, with which the training fits; 0 if none does."""
    size = network_size.measure(params.network, network_size.find_side(params))
    left = available - TRAINING_BASE - size.weights * NUMBER * KEPT_WEIGHTS
    batch = params.train.batch_size
    while batch and size.outputs * batch * NUMBER * KEPT_OUTPUTS > left:
        batch //= 2
    return batch
