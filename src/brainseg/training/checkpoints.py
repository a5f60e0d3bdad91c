"""Checkpoints that survive a kill at any moment: two of them, each with its digest in its name.

They live in ``<project root>/.brainseg/checkpoints/<key>/``, where the key is a digest of the
parameters, the data and the code, so that a training only ever goes on from its own past.
"""

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
from filelock import FileLock, Timeout

from brainseg import files
from brainseg.errors import IntegrityError, MachineError

KEPT = 2
PATTERN = "epoch-*.npz"


class Checkpoint(NamedTuple):
    """``arrays``: name → array, as given to ``save``; ``meta``: what goes with them; ``epoch``: how many are done."""

    epoch: int
    arrays: dict[str, np.ndarray]
    meta: dict


def key(facts: dict) -> str:
    """Digest of what determines a training: JSON-able parameters, digests of data and code."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def folder(training_key: str) -> Path:
    return files.state_dir() / "checkpoints" / training_key


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the lock of one training; a second trainer of the same is refused.

    Raises:
        MachineError: another process trains with this key.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / "lock", timeout=0):
            yield
    except Timeout:
        raise MachineError(directory, "another process trains this very model", "wait for it, or stop it") from None


def save(directory: Path, training_key: str, checkpoint: Checkpoint) -> Path:
    """Write atomically (temporary, fsync, rename, fsync of the folder), then drop all but the last two."""
    record = json.dumps({"key": training_key, "epoch": checkpoint.epoch, "meta": checkpoint.meta})
    with files.beside(directory / f"epoch-{checkpoint.epoch:05d}") as folder:
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
    """Saves beside the training, one checkpoint at a time: the next epoch need not wait for the disk.

    A kill so costs at most the epoch it falls into and the one before, whose write it may interrupt. Leaving the block
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
        """Begin to write; its arrays are not to change any more. Raises what the write before it raised."""
        if self._pending:
            self._pending.result()
        self._pending = self._thread.submit(save, self.directory, self.training_key, checkpoint)


def latest(directory: Path, training_key: str) -> Checkpoint | None:
    """The newest whole checkpoint, or None when there was never one. A damaged one is passed over aloud.

    Raises:
        IntegrityError: a checkpoint of other parameters or data, or none of those there is whole.
    """
    paths = sorted(directory.glob(PATTERN), reverse=True)
    for path in paths:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == path.name.split(".")[1]:
            return _read(path, data, training_key)
        print(f"checkpoint {path.name[:11]} is damaged; trying the one before", flush=True)
    if paths:
        raise IntegrityError(directory, "every checkpoint is damaged", f"to train from the start: rm -r {directory}")
    return None


def _read(path: Path, data: bytes, training_key: str) -> Checkpoint:
    with np.load(io.BytesIO(data), allow_pickle=False) as content:
        arrays = dict(content)
    record = json.loads(str(arrays.pop("record")))
    if record["key"] != training_key:
        what = f"made with other parameters, data or code (key {record['key']}, expected {training_key})"
        raise IntegrityError(path, what, f"remove it: rm {path}")
    return Checkpoint(record["epoch"], arrays, record["meta"])


def unfinished(directory: Path) -> list[Path]:
    """Folders of trainings with another key that were begun and neither finished nor removed."""
    return sorted({path.parent for path in directory.parent.glob(f"*/{PATTERN}")} - {directory})


def remove(directory: Path) -> None:
    """Drop a finished training's checkpoints."""
    shutil.rmtree(directory, ignore_errors=True)
