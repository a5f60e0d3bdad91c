"""What a run had finished when it ended early, and whether the next one uses it: equal bytes alone do not show that."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from brainseg import config
from brainseg.errors import DataError
from tests.support import tiny_pipeline

CHECKPOINT = re.compile(r"epoch-(\d+)\.([0-9a-f]{64})\.npz")


class FinishedWork(NamedTuple):
    """The stages that dvc.lock had, the last epoch with a whole checkpoint (0: none), the objects of DVC's cache."""

    stages: set[str]
    epoch: int
    objects: set[str]


def look(folder: Path, stages: set[str]) -> FinishedWork:
    """What the next run must not make again. Look before it starts, and after an orphan has ended."""
    epochs = [0]
    for path in folder.glob(".brainseg/checkpoints/*/epoch-*.npz"):
        found = CHECKPOINT.fullmatch(path.name)
        if found and hashlib.sha256(path.read_bytes()).hexdigest() == found[2]:
            epochs.append(int(found[1]))
    return FinishedWork(stages, max(epochs), list_objects(folder))


def read_recorded(folder: Path, done: Path) -> set[str]:
    """The stages that dvc.lock has as an undisturbed run has them; none if it was cut while it was written."""
    try:
        content = (folder / "dvc.lock").read_bytes()
        stages = config.parse_yaml(content.decode(), "dvc.lock").get("stages") if content.endswith(b"\n") else {}
    except (OSError, UnicodeDecodeError, DataError):
        return set()
    whole = config.read_yaml(done / "dvc.lock")["stages"]
    is_cut = any(stage != whole.get(name) for name, stage in (stages or {}).items())
    return set() if is_cut else set(stages or {})


def list_objects(folder: Path) -> set[str]:
    """The objects of DVC's cache that are what their names say."""
    paths = (path for path in folder.glob(".dvc/cache/files/md5/[0-9a-f][0-9a-f]/*") if path.is_file())
    return {
        path.parent.name + path.name
        for path in paths
        if path.parent.name + path.name.removesuffix(".dir") == hashlib.md5(path.read_bytes()).hexdigest()
    }


def find_lost(before: FinishedWork, folder: Path, shown: str) -> str:
    """What was finished before and was made again, or is gone. ``shown``: what the run printed."""
    started = tiny_pipeline.stages_run(shown)
    if again := before.stages.intersection(started):
        return f"dvc.lock had {', '.join(sorted(again))}, which ran again"
    resumed = f"resumed after epoch {before.epoch} of"
    if before.epoch and "train" in started and resumed not in shown:
        return f"there was a whole checkpoint of epoch {before.epoch}, and the training did not go on after it"
    gone = before.objects - list_objects(folder)
    return f"DVC's cache lacks {', '.join(sorted(gone))}" if gone else ""
