"""Files on disk: where the project's state lives, writes that never leave half a file, digests."""

import errno
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def project_root() -> Path:
    """The main repository, also from a queued experiment's folder (DVC sets ``DVC_ROOT`` for stages)."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def state_dir() -> Path:
    """What must survive a deleted experiment folder: ``<project root>/.brainseg``, ignored by git."""
    path = project_root() / ".brainseg"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file or folder beside ``path`` that takes its place when the block succeeds.

    The body creates what it likes at the yielded path (nothing is there yet). On an error the
    temporary is removed and an earlier ``path`` stays as it was.
    """
    with beside(path) as temporary:
        inner = temporary / path.name
        yield inner
        sync(inner)
        if path.is_dir():
            if not inner.is_dir():  # a file never takes the place of a folder and all that is in it
                raise IsADirectoryError(errno.EISDIR, "is a folder, a file was to be written", str(path))
            shutil.rmtree(path)
        os.replace(inner, path)
        sync(path.parent)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """An empty folder on the disk of ``path``, for the block alone; what killed writers left there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.{os.getpid()}.", dir=path.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporaries of writers that were killed: their process is gone."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.*"):
        pid = leftover.name.rsplit(".", 2)[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk, so that a rename after it is durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with ``\\n`` line ends through a temporary file."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def free_bytes(path: Path | str) -> int:
    """Bytes free on the disk that holds ``path`` (or its nearest existing parent)."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
