"""Soft masks: what is learned beside the marked masks, such as the probabilities of an ensemble.

So one network learns what several answer together (Hinton, Vinyals, Dean, 2015, arXiv:1503.02531). The file is an array
of one value a pixel, in the order of the prepared slices; the JSON file beside it, of the same name, says for which
data and split it was made, and on whom its teachers were trained. Whoever made it must not have learned from patients
by whom the learner is scored: another split is refused, and so are teachers that were told more than the learner.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainseg import config, files
from brainseg.config import Train
from brainseg.data.dataset import Dataset
from brainseg.errors import DataError, IntegrityError, Problem, guard, raise_all

CERTAIN = 255  # the value of a pixel that is surely tumour
REMEDY = config.NAMED[config.SOFT_MASKS]
OF_ALL = "let networks of all patients teach: brainseg teach RUN... of runs with train.subset=all"
# Whom networks may teach, by their train.subset: those that are trained on the same patients, or more of a fold.
TEACHES = {"train": ("train", "train_and_val"), "train_and_val": ("train_and_val",), "all": ("all",)}
OF_A_FOLD = f"write {config.FOLD} where the file's name has the number of the fold: each fold has a file of its own"


class SoftMasks(NamedTuple):
    """The array (N, H, W) uint8 in 255ths, a memory map, and its sha256."""

    array: np.ndarray
    sha256: str


@dataclass(frozen=True)
class BlendedMasks:
    """Hard masks (N, H, W) in {0, 1} and soft ones in 255ths as one target: uint8 in 255ths; indexed by rows."""

    hard: np.ndarray
    soft: np.ndarray
    weight: float

    def __getitem__(self, rows: Any) -> np.ndarray:
        hard, soft = self.hard[rows].astype(np.float32), self.soft[rows]
        return np.rint((1 - self.weight) * CERTAIN * hard + self.weight * soft).astype(np.uint8)


def blend(hard: np.ndarray, soft: SoftMasks | None, params: Train) -> Any:
    """What is learned: the masks (N, H, W) in {0, 1}, or with ``train.soft_masks`` the blended ones in 255ths.

    Without the array, as for timing, the masks alone in 255ths.
    """
    if params.soft_masks is None:
        return hard
    return BlendedMasks(hard, soft.array, params.soft_weight) if soft else BlendedMasks(hard, hard, 0.0)


def test_fold(data: Dataset) -> int:
    """The number of the fold that is tested; -1: the split comes from a file."""
    return int(data.slices["fold"].iloc[data.rows("test")[0]])


def load(params: Train, data: Dataset, digests: dict[str, str]) -> SoftMasks | None:
    """Open the soft masks; None where there are none.

    Args:
        params: their file, relative to the project's root; ``{fold}`` in it stands for the number of the test fold.
        digests: of the data and the split, see ``dataset.digests``.

    Raises:
        DataError: there is no such file, it does not fit the masks, or its teachers know other patients than they may.
        IntegrityError: it is damaged, or was made for other data or another split.
    """
    named = params.soft_masks
    if named is None:
        return None
    path = config.require(config.SOFT_MASKS, named, test_fold(data))
    remedy = OF_ALL if params.subset == "all" else REMEDY
    with guard(path, remedy, IntegrityError):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        made_for = json.loads(path.with_suffix(".json").read_text())
        others = [name for name, digest in digests.items() if made_for["data"].get(name) != digest]
        sha256, expected, teachers = files.sha256(path), made_for["sha256"], made_for["subset"]
        learners = TEACHES[teachers]
    fix = remedy if config.FOLD in named or "all" in (teachers, params.subset) else OF_A_FOLD
    raise_all(
        [Problem(str(path), f"was made for another {name.removesuffix('_sha256')}", fix) for name in others],
        IntegrityError,
    )
    if params.subset not in learners:
        what = f"is of networks with train.subset {teachers}, which may not teach one with {params.subset}"
        fix = OF_ALL if params.subset == "all" else f"set train.subset: {learners[-1]}, or name what others answered"
        raise DataError(path, what, fix)
    if sha256 != expected:
        raise IntegrityError(path, f"is not the file that {path.stem}.json describes", remedy)
    if array.dtype != np.uint8 or array.shape != data.masks.shape:
        what = f"holds {array.dtype} {array.shape}, the masks are uint8 {data.masks.shape}"
        raise DataError(path, what, remedy)
    return SoftMasks(array, sha256)


def write(path: Path, array: np.ndarray, digests: dict[str, str], subset: str, made_by: list[str]) -> None:
    """Write soft masks (N, H, W) uint8 in 255ths, and beside them what they were made for and of.

    Args:
        digests: of the data and the split. subset: on whom the networks were trained, the most of any, as
            ``train.subset`` names it. made_by: sha256 of the weights of each network.
    """
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)
    told = {"sha256": files.sha256(path), "data": digests, "subset": subset, "made_by": made_by}
    files.write_text(path.with_suffix(".json"), json.dumps(told, indent=1) + "\n")
