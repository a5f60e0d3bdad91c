"""Files that parameters name for a training: one for all folds, or with ``{fold}`` in its name one for each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainseg import files
from brainseg.errors import DataError

FOLD = "{fold}"
INITIAL_WEIGHTS, SOFT_MASKS = "train.initial_weights", "train.soft_masks"
REMEDIES = {INITIAL_WEIGHTS: "set it to a model's weights", SOFT_MASKS: "make it again: brainseg teach cv-KEY..."}


def locate(key: str, named: str, fold: int) -> Path:
    """The file that the parameter ``key`` names, relative to the project's root.

    Args:
        fold: number of the test fold, for which ``{fold}`` stands in the name; -1: the split has none.

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
