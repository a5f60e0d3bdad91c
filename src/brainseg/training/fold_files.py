"""Files that parameters name for a training: one for all folds, or with ``{fold}`` in its name one for each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainseg import files
from brainseg.data.dataset import Dataset
from brainseg.errors import DataError

FOLD = "{fold}"
REMEDIES = {
    "train.initial_weights": "set it to a model's weights",
    "train.soft_masks": "make it again: brainseg teach cv-KEY...",
}


def test_fold(data: Dataset) -> int:
    """The number of the fold that is tested; -1: the split comes from a file."""
    return int(data.slices["fold"].iloc[data.rows("test")[0]])


def locate(key: str, named: str, fold: int) -> Path:
    """The file that the parameter ``key`` names, relative to the project's root.

    Raises:
        DataError: ``{fold}`` stands in it, and the split has no folds.
    """
    if FOLD in named and fold < 0:
        raise DataError(named, f"{key} has {FOLD}, and the split comes from a file, without folds", "name the file")
    return files.project_root() / Path(named.replace(FOLD, str(fold))).expanduser()


def require(key: str, named: str, fold: int) -> Path:
    """The same, where DataError is raised unless the file is there."""
    if not (path := locate(key, named, fold)).is_file():
        raise DataError(path, f"{key}: there is no such file", f"{REMEDIES[key]}, or set {key}: null")
    return path


def require_all(train: Mapping[str, Any], fold: int) -> None:
    """Raise DataError unless each file is there that the block train of ``params.yaml`` names."""
    for key in REMEDIES:
        if named := train.get(key.removeprefix("train.")):
            require(key, named, fold)
