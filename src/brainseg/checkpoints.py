"""Checkpoints that survive a kill at any moment, two of them, each with its digest.

They live in ``<project root>/.brainseg/checkpoints/<key>/``, where the key is a digest of the
parameters, the data and the code, so that a training only ever goes on from its own past.
"""

import hashlib
import io
import json
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from brainseg import files
from brainseg.errors import IntegrityError, MachineError

KEPT = 2


class Checkpoint(NamedTuple):
    """``arrays``: name → array, as given to ``save``; ``meta``: what goes with them; ``epoch``: how many are done."""

    epoch: int
    arrays: dict[str, np.ndarray]
    meta: dict


def key(facts: dict) -> str:
    """Digest of what determines a training: JSON-able parameters, data digests, code digests."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def folder(training_key: str) -> Path:
    return files.state_dir() / "checkpoints" / training_key


@contextmanager
def alone(directory: Path):
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
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **checkpoint.arrays)
    data = buffer.getvalue()
    name = f"epoch-{checkpoint.epoch:05d}"
    path = directory / f"{name}.npz"
    with files.replacing(path) as temporary:
        temporary.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    record = {"key": training_key, "epoch": checkpoint.epoch, "sha256": digest, "meta": checkpoint.meta}
    files.write_text(path.with_suffix(".json"), json.dumps(record) + "\n")
    for old in sorted(directory.glob("epoch-*.json"))[:-KEPT]:
        old.unlink()
        old.with_suffix(".npz").unlink(missing_ok=True)
    return path


def latest(directory: Path, training_key: str) -> Checkpoint | None:
    """The newest whole checkpoint, or None when there was never one.

    A damaged one is passed over aloud.

    Raises:
        IntegrityError: a checkpoint of other parameters or data, or none of those there is whole.
    """
    records = sorted(directory.glob("epoch-*.json"), reverse=True)
    for record in records:
        found = _read(record, training_key)
        if found is not None:
            return found
        print(f"checkpoint {record.stem} is damaged; trying the one before", flush=True)
    if records:
        raise IntegrityError(directory, "every checkpoint is damaged", f"to train from the start: rm -r {directory}")
    return None


def _read(record: Path, training_key: str) -> Checkpoint | None:
    try:
        facts = json.loads(record.read_text(encoding="utf-8"))
        data = record.with_suffix(".npz").read_bytes()
    except (OSError, ValueError):
        return None
    if facts.get("key") != training_key:
        raise IntegrityError(
            record, f"made with other parameters, data or code (key {facts.get('key')}, expected {training_key})",
            f"remove it: {record.parent}",
        )  # fmt: skip
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Checkpoint(facts["epoch"], dict(arrays), facts["meta"])


def remove(directory: Path) -> None:
    """Drop a finished training's checkpoints; the lock file goes with the next clean-up."""
    for path in [*directory.glob("epoch-*.json"), *directory.glob("epoch-*.npz")]:
        path.unlink()
