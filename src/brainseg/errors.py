"""Errors that name what is wrong and how to correct it, and the one place that prints them.

Everything a user can cause is raised as a :class:`BrainsegError`. ``run`` prints it on stderr as lines
``ERROR <CODE> <path>: <what>. Fix: <action>`` and exits with the code. Any other exception is a bug.
"""

import errno
import json
import os
import re
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from brainseg import files

DISTRIBUTION = "brainseg-lgg"  # what pip calls this package, as in pyproject.toml
Answer = TypeVar("Answer")
# user:password@ before a host. An unescaped / may be in a password; after a number that is a port, it begins the path.
_USER = re.compile(r"://(?:[^/\s]*@|[^/\s:@\[]*:(?!\d+(?:[/\s]|$))\S*@)")
_SIGNED = re.compile(r"([?&][\w-]*(?:password|passwd|pwd|token|secret|signature|sig)=)[^&\s'\"]+", re.IGNORECASE)
# Modules that the extra ``serve`` brings. ``io`` asks for those of ``medical``, and all others are for training.
_SERVING = {"fastapi", "multipart", "prometheus_client", "python_multipart", "starlette", "uvicorn"}
_SHOWN = 5  # problems of one kind that are printed
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
        return [
            f"ERROR {self.code} {printable(p.path)}: {printable(p.what)}. Fix: {redact(p.fix)}" for p in self.problems
        ]


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


@contextmanager
def guard(path: object, fix: str = "", kind: type[BrainsegError] = DataError) -> Iterator[None]:
    """Whatever reading a file raises within the block, as an error that names the file.

    Damaged bytes make libraries raise anything: SyntaxError, RecursionError, NotImplementedError. Of those only the
    type is told, because their text may quote a header. What is no fault of the file passes: errors that have a remedy
    already, and a full disk.

    Args:
        path: what the error calls the file.
        fix: the remedy; empty for a file that the user brought.
        kind: of the error for a file that cannot be read or is damaged.

    Raises:
        kind: see above. RunError: the file needs more memory than there is.
    """
    try:
        yield
    except BrainsegError:
        raise
    except MemoryError:
        what = "needs more memory than it may use"
        raise RunError(path, what, "crop or resample it, or close other programs") from None
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        if code in files.DISK_FULL:
            raise
        if code and code != errno.EINVAL:  # which is a seek to a place that damaged bytes name
            remedy = fix or "check that it is there, and its permissions"
            raise kind(path, f"cannot be read ({os.strerror(code)})", remedy) from None
        what = f"is damaged, cut short, or not what its name says ({type(error).__name__})"
        raise kind(path, what, fix or "restore it, or save it again") from None


def raise_all(problems: Sequence[Problem], kind: type[BrainsegError] = DataError) -> None:
    """Raise one error for all ``problems``. Do nothing if there are none."""
    if problems:
        raise kind("", problems=problems)


def run(main: Callable[[], object]) -> None:
    """Run the ``main`` of a stage or a command. Print an error as ERROR lines and exit with its code.

    An ``ExceptionGroup`` is printed as all of its errors; the first has the code.
    """
    debug = "--debug" in sys.argv or bool(os.environ.get("BRAINSEG_DEBUG"))
    try:
        main()
        _end(0)
    except KeyboardInterrupt:
        _end(130)
    except Exception as error:
        if debug:
            print(redact(traceback.format_exc()), file=sys.stderr)
        several = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        known = [as_brainseg_error(each) for each in several]
        kept = _save(known)
        for line in (line for each in known for line in _shorten(each, kept)):
            print(line, file=sys.stderr)
        _end(known[0].code)


_left: list[Callable[[], object]] = []  # what ``limit`` did not wait for


def limit(seconds: float, act: Callable[[], Answer]) -> Answer:
    """Call ``act``, which asks something outside, for at most ``seconds``.

    The own limits of MLflow and of DVC's remotes are for one answer, of which they need many, or for one byte of it.
    Some waits have none.

    Raises:
        TimeoutError: it takes longer. It is left to a thread, for which the end of the process does not wait.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(act())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([answer], seconds).done:
        _left.append(act)  # MLflow, for one, starts more threads, for which Python would wait
        raise TimeoutError(f"it did not answer within {seconds:g} seconds")
    return answer.result()


def _end(code: int) -> None:
    """End with this code. Nothing is left to clean up but threads: ``main`` has returned."""
    if _left:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def as_brainseg_error(error: Exception) -> BrainsegError:
    """Turn any exception into an error with a remedy. What no case covers is reported as a bug."""
    if isinstance(error, BrainsegError):
        return error
    if isinstance(error, OSError) and error.errno in files.DISK_FULL:
        return _describe_full_disk(error.filename)
    if isinstance(error, OSError) and error.filename and error.errno in _PATH_ERRORS:
        fix = "check the path and its permissions; dvc repro makes the files that a stage reads"
        return MachineError(error.filename or ".", str(error.strerror), fix)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "brainseg":
        package = error.name.partition(".")[0]
        extra = "serve" if package in _SERVING else "train"
        return MachineError(package, "is not installed", describe_install(extra))
    if is_out_of_memory(error):
        return RunError("memory", "out of memory", "lower train.batch_size or close other programs")
    where = traceback.extract_tb(error.__traceback__)[-1]
    return BrainsegError(
        f"{where.filename}:{where.lineno}",
        f"{type(error).__name__}: {error}",
        "this is a bug: run again with BRAINSEG_DEBUG=1 and report what it prints",
    )


def _describe_full_disk(path: str | None) -> MachineError:
    """Name the disk by the path that could not be written; if that is not known, the two that are written to."""
    if path is not None:
        what = f"the disk is full ({files.free_bytes(path):,} bytes free)"
    else:
        free = ", ".join(f"{files.free_bytes(each):,} in {each}" for each in (os.getcwd(), tempfile.gettempdir()))
        what = f"a disk is full (bytes free: {free})"
    return MachineError(path or ".", what, "free space, run again")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or of an engine means that no memory is left."""
    text = f"{type(error).__name__} {error}"
    return isinstance(error, MemoryError) or "ResourceExhausted" in text or "RESOURCE_EXHAUSTED" in text


def _shorten(error: BrainsegError, kept: str) -> list[str]:
    """The lines of ``error``; of more alike, the first five and a count, with the file where all are ``kept``."""
    groups: dict[tuple[str, str], list[str]] = {}
    for problem, line in zip(error.problems, error.lines(), strict=True):
        alike = re.sub(r"\S*[\d/.]\S*", "", problem.what), re.sub(r"\S*[\d/.]\S*", "", problem.fix)
        groups.setdefault(alike, []).append(line)
    shown = []
    for lines in groups.values():
        cut = _SHOWN if len(lines) > _SHOWN + 1 else len(lines)
        shown += lines[:cut]
        if rest := len(lines) - cut:
            shown.append(f"ERROR {error.code} and {rest:,} more like these" + (f"; all are in {kept}" if kept else ""))
    return shown


def _save(several: Sequence[BrainsegError]) -> str:
    """Keep all problems where they survive a deleted experiment folder, if this is a project. Never fails.

    Returns:
        The file, empty if there is none.
    """
    if not (os.environ.get("DVC_ROOT") or os.path.exists("dvc.yaml")):
        return ""
    try:
        path = files.state_dir() / "errors.json"
        payload = {
            "code": several[0].code,
            "problems": [
                {key: redact(text) for key, text in p._asdict().items()} for error in several for p in error.problems
            ],
        }
        files.write_text(path, json.dumps(payload, indent=1) + "\n")
        return str(path)
    except OSError:
        return ""


def lack_library(what: str, library: str, extra: str = "medical") -> MachineError:
    """That ``what`` needs a library that is not installed."""
    return MachineError(what, f"needs {library}, which is not installed", describe_install(extra))


def describe_install(extra: str) -> str:
    """The command that installs an extra of this package. pip leaves the package itself as it is, from a clone too."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def show_some(names: Sequence[str], most: int) -> str:
    """``"A, B and 3 more"``: the first ``most`` names, and how many others there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def printable(text: str) -> str:
    """``text`` on one line and without passwords: control characters, which a file name may hold, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in redact(text))


def redact(text: str) -> str:
    """``text`` without the user names, passwords and signatures that addresses in it hold: scheme and host stay."""
    return _SIGNED.sub(r"\1***", _USER.sub("://", text))
