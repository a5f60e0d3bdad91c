"""Checkpoints that survive a kill at any moment: the last two are kept, each with its digest in its name.

They are in ``<project root>/.brainseg/checkpoints/<key>/``. The key is a digest of the parameters, the data and the
code, so a training only resumes from its own checkpoints.
"""

import ast
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainseg import files
from brainseg.errors import IntegrityError, MachineError

PACKAGE = Path(__file__).parents[1]
KEPT = 2
PATTERN = "epoch-*.npz"
PLACE = "BRAINSEG_CHECKPOINTS"  # a search removes those of trials that it has stopped


WITHOUT_EFFECT = {"config.py", "errors.py", "files.py", "training/progress.py"}  # parameters have their own digest


class Checkpoint(NamedTuple):
    """``epoch``: number of finished epochs; ``arrays``: name → array; ``meta``: JSON-able data that belong to them."""

    epoch: int
    arrays: dict[str, np.ndarray]
    meta: dict


def key(facts: dict) -> str:
    """Digest of what determines a training: JSON-able parameters, digests of data and code."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def digest_code(start: Path) -> dict[str, str]:
    """Digests of a file of this package, and of every file of the package that it imports, directly or indirectly.

    The imports are read from the source, so there is no list to maintain, and imports inside functions count too.
    ``WITHOUT_EFFECT`` is left out: another message must not end an interrupted training.

    Returns:
        Path within the package → SHA-256.
    """
    found: dict[str, str] = {}
    waiting = [start]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(PACKAGE).as_posix()
        if name not in found and name not in WITHOUT_EFFECT:
            found[name] = files.sha256(path)
            waiting += _imported_files(path)
    return found


def _imported_files(path: Path) -> list[Path]:
    nodes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {f"{getattr(node, 'module', '')}.{alias.name}".strip(".") for node in nodes for alias in node.names}
    names |= {name.rpartition(".")[0] for name in names}  # an imported name is a module, or lies in one
    paths = [PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py") for name in names]
    return [path for path in paths if path.is_relative_to(PACKAGE) and path.is_file()]


def folder(training_key: str) -> Path:
    """Where the checkpoints of a training are; ``PLACE`` in the environment: somewhere else than usual."""
    return Path(os.environ.get(PLACE) or files.state_dir() / "checkpoints") / training_key


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Lock a training within the block, so that no second process runs the same training.

    Raises:
        MachineError: another process holds the lock.
    """
    directory.mkdir(parents=True, exist_ok=True)
    busy = MachineError(directory, "another process is training this model", "wait for it, or stop it")
    with files.hold(directory / "lock", busy):
        yield


def save(directory: Path, training_key: str, checkpoint: Checkpoint) -> Path:
    """Write atomically (temporary file, fsync, rename, fsync of the folder), then remove all but the last two."""
    record = json.dumps({"key": training_key, "epoch": checkpoint.epoch, "meta": checkpoint.meta})
    with files.temporary_beside(directory / f"epoch-{checkpoint.epoch:05d}") as folder:
        written = folder / "checkpoint.npz"
        np.savez(written, allow_pickle=False, record=np.array(record), **checkpoint.arrays)
        files.sync(written)
        path = directory / f"epoch-{checkpoint.epoch:05d}.{files.sha256(written)}.npz"
        os.replace(written, path)
    files.sync(directory)
    for old in sorted(directory.glob(PATTERN))[:-KEPT]:
        old.unlink()
    return path


class Writer:
    """Saves in a thread, one checkpoint at a time, so that the next epoch does not wait for the disk.

    A kill loses at most the current epoch and the one before, whose checkpoint may be unfinished. Leaving the block
    waits for the last write, also when the block failed.
    """

    def __init__(self, directory: Path, training_key: str):
        self.directory, self.training_key = directory, training_key
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[Path] | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind, *_) -> None:
        self._thread.shutdown(wait=True)
        if kind is None and self._pending:
            self._pending.result()

    def save(self, checkpoint: Checkpoint) -> None:
        """Start to write; the arrays must not change afterwards. Raises the error of the write before, if it failed."""
        if self._pending:
            self._pending.result()
        self._pending = self._thread.submit(save, self.directory, self.training_key, checkpoint)


def read_latest(directory: Path, training_key: str) -> Checkpoint | None:
    """The newest checkpoint that is intact, or None if there is no checkpoint. Damaged ones are reported and skipped.

    Raises:
        IntegrityError: a checkpoint has another key, or all of them are damaged.
    """
    paths = sorted(directory.glob(PATTERN), reverse=True)
    for path in paths:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == path.name.split(".")[1]:
            return _parse(path, data, training_key)
        print(f"checkpoint {path.name[:11]} is damaged; trying the one before", flush=True)
    if paths:
        raise IntegrityError(directory, "every checkpoint is damaged", f"to train from the start: rm -r {directory}")
    return None


def _parse(path: Path, data: bytes, training_key: str) -> Checkpoint:
    with np.load(io.BytesIO(data), allow_pickle=False) as content:
        arrays = dict(content)
    record = json.loads(str(arrays.pop("record")))
    if record["key"] != training_key:
        what = f"made with other parameters, data or code (key {record['key']}, expected {training_key})"
        raise IntegrityError(path, what, f"remove it: rm {path}")
    return Checkpoint(record["epoch"], arrays, record["meta"])


def find_unfinished(directory: Path) -> list[Path]:
    """Folders of trainings with another key that have checkpoints: they were neither finished nor removed."""
    return sorted({path.parent for path in directory.parent.glob(f"*/{PATTERN}")} - {directory})


def remove(directory: Path) -> None:
    """Remove the checkpoints of a finished training."""
    shutil.rmtree(directory, ignore_errors=True)
