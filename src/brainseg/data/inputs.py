"""Whether a file is the one that a stage made: ``dvc.lock`` has the MD5 of each.

DVC trusts a file whose size and times are as before, and a stage that is started by hand asks nobody. So each stage
checks its inputs before it computes. During a run the lock has what the stages before have made: DVC writes it
after each stage.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from brainseg import config, files
from brainseg.errors import DataError, IntegrityError, Problem, guard, raise_all

Found = TypeVar("Found")
SMALL = 32_000_000  # bytes: up to here a file is read each time, in less than 0.1 seconds
KNOWN = "checked.json"  # in the folder of the project's state: what larger files were when they were read last
ALL = "BRAINSEG_CHECK"  # `brainseg repro --check` sets it: each file is read, as a disk that rots keeps size and times


def check(stage: str, root: Path = Path()) -> None:
    """Refuse inputs of a stage that are not what other stages made. In a first run there is nothing to compare with.

    Raises:
        IntegrityError: naming each file that differs.
    """
    if (root / "dvc.lock").exists():
        verify(config.read_yaml(root / "dvc.yaml")["stages"][stage]["deps"], root)


def verify(paths: Iterable[str], root: Path = Path()) -> None:
    """Refuse those of ``paths``, from the project's folder, that are not what dvc.lock says; it may not know them.

    Raises:
        IntegrityError: naming each file that differs.
    """
    expected = read_lock(root)
    known = {} if os.environ.get(ALL) else _read_known()
    before, problems = dict(known), []
    for path in paths:
        if path in expected and (root / path).is_file():
            found = _find_md5(root / path, expected[path], known)
            problems += [describe_difference(path, found, expected[path])] if found != expected[path] else []
    if known != before:
        _write_known(known)
    raise_all(problems, IntegrityError)


def require(path: str, content: bytes, root: Path = Path()) -> None:
    """``verify`` for a file that was read: what is used must be what was checked."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != (expected := read_lock(root).get(path, found)):
        raise_all([describe_difference(path, found, expected)], IntegrityError)


def verify_all(root: Path = Path()) -> None:
    """``verify`` for all that dvc.lock says the stages made.

    Raises:
        IntegrityError: naming each file that differs.
    """
    verify(read_lock(root), root)


def read_lock(root: Path = Path()) -> dict[str, str]:
    """``list_outs`` of the project's dvc.lock, empty if there is none.

    Raises:
        IntegrityError: it is damaged.
    """
    return _list_locked(list_outs, root) or {}


def read_training_data(root: Path = Path()) -> list[str] | None:
    """The MD5 of each file that preprocess made and train has read, from the project's dvc.lock; None without one.

    Those that train has not read are missing: a cross-validation prepares new data and leaves the model as it was.

    Raises:
        IntegrityError: the lock is damaged.
    """
    return _list_locked(_list_training_data, root)


def _list_training_data(lock: Mapping[str, Any]) -> list[str]:
    made, train = (lock.get("stages", {}).get(name, {}) for name in ("preprocess", "train"))
    read = {dep["path"]: dep.get("md5") for dep in train.get("deps", [])}
    return [out["md5"] for out in made.get("outs", []) if read.get(out["path"]) == out["md5"]]


def _list_locked(listed: Callable[[Mapping[str, Any]], Found], root: Path) -> Found | None:
    """What ``listed`` finds in the project's dvc.lock, None if there is none."""
    lock, fix = root / "dvc.lock", "brainseg repro puts it back; of another revision: name another one"
    if not lock.exists():
        return None
    with guard(lock, fix, IntegrityError):
        try:
            return listed(config.parse_yaml(lock.read_bytes().decode(), lock))
        except DataError as error:
            raise IntegrityError(lock, error.problems[0].what, fix) from None


def list_outs(lock: Mapping[str, Any]) -> dict[str, str]:
    """The MD5 of each file or folder (ends in ``.dir``) that the stages of a dvc.lock made, by its path."""
    stages = lock.get("stages", {}).values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", []) if "md5" in out}


def md5(path: Path) -> str:
    """DVC's name of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def describe_difference(path: str, found: str, expected: str) -> Problem:
    """What to say of a file whose MD5 is not that of dvc.lock."""
    what = f"its MD5 is {found}, dvc.lock says {expected}: edited, damaged, or made by a stage that ran without DVC"
    fix = f"rm -f {path}, then dvc repro (if it comes back like this: brainseg verify-data)"
    return Problem(path, what, f"git restore {path}, or {fix}" if path.startswith("metrics/") else fix)


def _find_md5(path: Path, expected: str, known: dict[str, list]) -> str:
    """The MD5 of a file. A large one that was found as expected is read again only if anything but its name changed."""
    name, stamp = str(path.absolute()), _stamp(path)
    if known.get(name) == [*stamp, expected]:
        return expected
    found = md5(path)
    if stamp[0] > SMALL and _stamp(path) == stamp:  # else it was written meanwhile
        known[name] = [*stamp, found]
    return found


def _stamp(path: Path) -> list[int]:
    """Size, times and number. The time of the last change of any kind cannot be set back, as that of writing can."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read_known() -> dict[str, list]:
    """Empty if nothing is known, or if that file is damaged: then files are read."""
    try:
        found = json.loads((files.project_root() / ".brainseg" / KNOWN).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_known(known: dict[str, list]) -> None:
    """Keep what is known of files that still exist. If it cannot be kept, they are read again the next time."""
    with contextlib.suppress(OSError):
        kept = {name: facts for name, facts in known.items() if os.path.exists(name)}
        files.write_text(files.state_dir() / KNOWN, json.dumps(kept, indent=1) + "\n")
