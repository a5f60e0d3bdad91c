"""Files on disk: the folder of the project's state, writes that never leave half a file, digests."""

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
    """The main repository, also for a queued experiment in a folder of its own (DVC sets ``DVC_ROOT`` for stages)."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def state_dir() -> Path:
    """``<project root>/.brainseg``, ignored by git, for files that must survive a deleted experiment folder."""
    path = project_root() / ".brainseg"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file or folder beside ``path`` that replaces it when the block succeeds.

    The body creates a file or a folder at the yielded path, where nothing exists yet. On an error the
    temporary is removed and an earlier ``path`` stays as it was.
    """
    with temporary_beside(path) as temporary:
        inner = temporary / path.name
        yield inner
        sync(inner)
        if path.is_dir():
            if not inner.is_dir():  # a file must not replace a folder and all that it holds
                raise IsADirectoryError(errno.EISDIR, "is a folder, a file was to be written", str(path))
            shutil.rmtree(path)
        os.replace(inner, path)
        sync(path.parent)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path``, removed after the block, as is what killed writers left there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.{os.getpid()}.", dir=path.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporaries of killed writers: those whose process no longer exists."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.*"):
        pid = leftover.name.rsplit(".", 2)[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file or the entries of a folder to the disk, so that a later rename is durable."""
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
    """Free bytes on the disk that holds ``path`` or its nearest existing parent."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
