"""Errors that name what is wrong and how to correct it, and the one place that prints them.

Everything a user can cause is raised as a :class:`BrainsegError`. ``run`` prints it on stderr as lines
``ERROR <CODE> <path>: <what>. Fix: <action>`` and exits with the code. Any other exception is a bug.
"""

import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from brainseg import files

_PATH_ERRORS = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EROFS}


class Problem(NamedTuple):
    """One problem: the file, zip member or key, what is wrong with it, and what to do."""

    path: str
    what: str
    fix: str


class BrainsegError(Exception):
    """An error with a remedy. ``problems`` holds all problems that were found, not only the first."""

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
    """A problem of the network, the disk, credentials, a device or a port."""

    code = 3


class IntegrityError(BrainsegError):
    """Bytes, ids or digests that are not as expected."""

    code = 4


class RunError(BrainsegError):
    """A run that failed: a loss that is not a number, or no memory left."""

    code = 5


def raise_all(problems: Sequence[Problem], kind: type[BrainsegError] = DataError) -> None:
    """Raise one error for all ``problems``. Do nothing if there are none."""
    if problems:
        raise kind("", problems=problems)


def run(main: Callable[[], object]) -> None:
    """Run the ``main`` of a stage or a command. Print an error as ERROR lines and exit with its code."""
    debug = "--debug" in sys.argv or bool(os.environ.get("BRAINSEG_DEBUG"))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        known = as_brainseg_error(error)
        for line in known.lines():
            print(line, file=sys.stderr)
        _save(known)
        sys.exit(known.code)


def as_brainseg_error(error: Exception) -> BrainsegError:
    """Turn any exception into an error with a remedy. What no case covers is reported as a bug."""
    if isinstance(error, BrainsegError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = files.free_bytes(error.filename or ".")
        return MachineError(error.filename or ".", f"the disk is full ({free:,} bytes free)", "free space, run again")
    if isinstance(error, OSError) and error.filename and error.errno in _PATH_ERRORS:
        fix = "check the path and its permissions; dvc repro makes the files that a stage reads"
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
    """Whether an error of Python or of an engine means that no memory is left."""
    text = f"{type(error).__name__} {error}"
    return isinstance(error, MemoryError) or "ResourceExhausted" in text or "RESOURCE_EXHAUSTED" in text


def _save(error: BrainsegError) -> None:
    """Keep all problems where they survive a deleted experiment folder, if this is a project. Never fails."""
    if not (os.environ.get("DVC_ROOT") or os.path.exists("dvc.yaml")):
        return
    try:
        path = files.state_dir() / "errors.json"
        payload = {"code": error.code, "problems": [p._asdict() for p in error.problems]}
        files.write_text(path, json.dumps(payload, indent=1) + "\n")
    except OSError:
        pass


def printable(text: str) -> str:
    """``text`` on one line: control characters, which a file name may hold, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
