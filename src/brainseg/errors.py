"""Errors that name the thing and the way out, and the one place where they are printed.

Everything a user can cause is raised as a :class:`BrainsegError`; ``run`` turns it into lines
``ERROR <CODE> <path>: <what>. Fix: <action>`` on stderr and the exit code. Anything else is a bug.
"""

import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from brainseg import files

_PLACE = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EROFS}


class Problem(NamedTuple):
    """One fault: the file, member or key it is about, what is wrong, and what to do."""

    path: str
    what: str
    fix: str


class BrainsegError(Exception):
    """A fault with a way out. ``problems`` holds all of them, not the first alone."""

    code = 1

    def __init__(self, path: object, what: str = "", fix: str = "", *, problems: Sequence[Problem] = ()):
        self.problems = list(problems) or [Problem(str(path), what, fix)]
        super().__init__("; ".join(f"{p.path}: {p.what}" for p in self.problems))

    def lines(self) -> list[str]:
        return [f"ERROR {self.code} {printable(p.path)}: {printable(p.what)}. Fix: {p.fix}" for p in self.problems]


class DataError(BrainsegError):
    """Bad data or parameters."""

    code = 2


class MachineError(BrainsegError):
    """Network, disk, credentials, device or port."""

    code = 3


class IntegrityError(BrainsegError):
    """Bytes, ids or digests that are not what they must be."""

    code = 4


class RunError(BrainsegError):
    """A run that went wrong: a loss that is not a number, memory that ran out."""

    code = 5


def raise_all(problems: Sequence[Problem], kind: type[BrainsegError] = DataError) -> None:
    """Raise one error for all ``problems``; do nothing when there is none."""
    if problems:
        raise kind("", problems=problems)


def run(main: Callable[[], object]) -> None:
    """Run a stage's or a command's ``main`` and exit with its code, faults printed for a person."""
    debug = "--debug" in sys.argv or bool(os.environ.get("BRAINSEG_DEBUG"))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        fault = as_fault(error)
        for line in fault.lines():
            print(line, file=sys.stderr)
        _record(fault)
        sys.exit(fault.code)


def as_fault(error: Exception) -> BrainsegError:
    """Whatever was raised as a fault with a way out; what nobody foresaw is a bug."""
    if isinstance(error, BrainsegError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = files.free_bytes(error.filename or ".")
        return MachineError(error.filename or ".", f"the disk is full ({free:,} bytes free)", "free space, run again")
    if isinstance(error, OSError) and error.filename and error.errno in _PLACE:
        fix = "check the path and its permissions; what a stage reads, dvc repro makes"
        return MachineError(error.filename or ".", str(error.strerror), fix)
    if is_out_of_memory(error):
        return RunError("memory", "out of memory", "lower train.batch_size or close other programs")
    where = traceback.extract_tb(error.__traceback__)[-1]
    return BrainsegError(
        f"{where.filename}:{where.lineno}",
        f"{type(error).__name__}: {error}",
        "this is a bug: run again with BRAINSEG_DEBUG=1 and report what it prints",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python's or an engine's own error means that memory ran out."""
    text = f"{type(error).__name__} {error}"
    return isinstance(error, MemoryError) or "ResourceExhausted" in text or "RESOURCE_EXHAUSTED" in text


def _record(fault: BrainsegError) -> None:
    """Keep the full list where it survives a deleted experiment folder, if this is a project; never fail of it."""
    if not (os.environ.get("DVC_ROOT") or os.path.exists("dvc.yaml")):
        return
    try:
        path = files.state_dir() / "errors.json"
        payload = {"code": fault.code, "problems": [p._asdict() for p in fault.problems]}
        files.write_text(path, json.dumps(payload, indent=1) + "\n")
    except OSError:
        pass


def printable(text: str) -> str:
    """One line whatever a file name holds: control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
