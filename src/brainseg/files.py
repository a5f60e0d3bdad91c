"""Files on disk: the folder of the project's state, writes that never leave half a file, digests."""

import errno
import glob
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NEARLY_NONE = 2**20  # free bytes of a disk on which a write has just failed because it is full
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.[^.]+")  # see temporary_beside
_CLOCKS = 60  # seconds by which the clocks of a disk and of this machine may differ


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
    """An empty folder beside ``path``, removed after the block, as is what killed writers left there.

    The error of a full disk names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    with name_full_disk(path):
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.{os.getpid()}.", dir=path.parent))
    try:
        with name_full_disk(path):  # inside, because what is half written fills the disk
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(name: str, of: str) -> bool:
    """Whether a file of this name is a temporary, perhaps a killed writer's, for the file ``of`` beside it."""
    found = _TEMPORARY.fullmatch(name)
    return found is not None and found["name"] == of


def _remove_leftovers(path: Path) -> None:
    """Remove the temporaries of killed writers: those whose process no longer exists.

    In a container each run has the same number, so a process that started after the temporary was made did not make it.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.*"):
        if not is_temporary(leftover.name, path.name):
            continue
        with suppress(OSError):  # another process is removing it
            try:
                started = psutil.Process(int(leftover.name.rsplit(".", 2)[-2])).create_time()
            except psutil.NoSuchProcess:
                started = math.inf
            except psutil.Error:  # it is another user's, and alive
                continue
            if started > leftover.stat().st_mtime + _CLOCKS:
                shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def name_full_disk(path: Path, *, nothing_else: bool = False) -> Iterator[None]:
    """Let the error of a full disk name ``path``, if it names no other file that is to stay.

    A failed write names none, and may have been one elsewhere: in the folder for temporary files, on a full log. That
    of NumPy or HDF5 may not even say why. So the free bytes are asked, unless ``nothing_else`` is written in the block.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        code, name = getattr(error, "errno", None), getattr(error, "filename", None)
        named = name is not None and not any(map(_TEMPORARY.fullmatch, Path(os.fsdecode(name)).parts))
        is_full = code == errno.EDQUOT or (code == errno.ENOSPC and nothing_else)
        is_full = is_full or (code in (None, errno.ENOSPC) and free_bytes(path) < _NEARLY_NONE)
        if named or not is_full:
            raise
        raise OSError(code or errno.ENOSPC, os.strerror(code or errno.ENOSPC), str(path)) from error


@contextmanager
def hold(lock: Path, otherwise: Exception) -> Iterator[None]:
    """Hold a lock within the block. Raises ``otherwise`` at once if another process holds it.

    The kernel frees it when the process is killed.
    """
    from filelock import FileLock, Timeout  # not at the start of every command

    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise otherwise from None
    try:
        yield
    finally:
        held.release()


def give_own_copy(path: Path) -> None:
    """Replace a file that has other names too (hard links) by a copy, which anybody may write to.

    Without space for it the file stays what it is.
    """
    if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
        with suppress(OSError), replacing(path) as copy:
            shutil.copyfile(path, copy)


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
    """Free bytes on the disk that holds ``path`` or its nearest parent that is there."""
    place = Path(path).absolute()
    while True:
        try:
            return shutil.disk_usage(place).free
        except OSError:
            if place == place.parent:
                raise
            place = place.parent
