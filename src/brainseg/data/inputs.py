"""Whether a file is the one that a stage made: ``dvc.lock`` has the MD5 of each.

DVC trusts a file whose size and times are as before, and a stage that is started by hand asks nobody. So each stage
checks its inputs before it computes. During a run the lock has what the stages before have made: DVC writes it
after each stage. It also has what they were made from: after a run that was killed between two stages, numbers may be
those of another model than the one that is there.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from brainseg import config, files
from brainseg.errors import DataError, IntegrityError, Problem, guard, raise_all

SMALL = 32_000_000  # bytes: up to here a file is read each time, in less than 0.1 seconds
KNOWN = "checked.json"  # in the folder of the project's state: what larger files were when they were read last
Stages = Mapping[str, Mapping[str, Any]]  # of dvc.lock: name → cmd, deps, params, outs
ALL = "BRAINSEG_CHECK"  # `brainseg repro --check` sets it: each file is read, as a disk that rots keeps size and times


def check(stage: str, root: Path = Path()) -> None:
    """Refuse inputs of a stage that are not what other stages made. In a first run there is nothing to compare with.

    Raises:
        IntegrityError: naming each file that differs.
    """
    if not (root / "dvc.lock").exists():
        return
    declared, stages = config.read_yaml(root / "dvc.yaml")["stages"][stage], read_stages(root)
    _verify(declared["deps"], stages, root)
    raise_all([*_find_older(declared["deps"], stages), *_find_other_values(declared, stages, root)], IntegrityError)


def verify(paths: Iterable[str], root: Path = Path()) -> None:
    """Refuse those of ``paths``, from the project's folder, that are not what dvc.lock says; it may not know them.

    Raises:
        IntegrityError: naming each file that differs, or was made from another one than that of ``paths``.
    """
    paths, stages = list(paths), read_stages(root)
    _verify(paths, stages, root)
    raise_all(_find_older(paths, stages, paths), IntegrityError)


def _verify(paths: Iterable[str], stages: Stages, root: Path) -> None:
    expected = list_outs({"stages": stages})
    known = {} if os.environ.get(ALL) else _read_known()
    before, problems = dict(known), []
    for path in paths:
        if path in expected and (root / path).exists():
            is_folder = (root / path).is_dir()
            found = folder_md5(root / path) if is_folder else _find_md5(root / path, expected[path], known)
            problems += [describe_difference(path, found, expected[path])] if found != expected[path] else []
    if known != before:
        _write_known(known)
    raise_all(problems, IntegrityError)


def _find_older(paths: Iterable[str], stages: Stages, used: Iterable[str] | None = None) -> list[Problem]:
    older = find_older(paths, stages)
    return [
        Problem(out, f"was made from another {dep} than the one that is there now", "brainseg repro")
        for out, dep in older
        if used is None or dep in used
    ]


def find_older(paths: Iterable[str], stages: Stages) -> list[tuple[str, str]]:
    """Results that ``paths`` come from, directly or through other stages, and what was made again since they were."""
    made_by = _find_makers(stages)
    return [
        (out, dep["path"])
        for name, out in _walk_up(stages, paths)
        for dep in stages[name].get("deps", [])
        if dep["path"] in made_by and made_by[dep["path"]][1] != dep["md5"]
    ]


def _find_makers(stages: Stages) -> dict[str, tuple[str, str]]:
    """The stage that made each result, and its MD5."""
    return {out["path"]: (name, out["md5"]) for name, stage in stages.items() for out in stage.get("outs", [])}


def _walk_up(stages: Stages, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each stage that ``paths`` come from, once, with the result by which it was found."""
    made_by, waiting, seen = _find_makers(stages), list(paths), set()
    while waiting:
        path = waiting.pop(0)
        name, _ = made_by.get(path, ("", ""))
        if name and name not in seen:
            seen.add(name)
            waiting += [dep["path"] for dep in stages[name].get("deps", [])]
            yield name, path


def _find_other_values(declared: Mapping[str, Any], stages: Stages, root: Path) -> list[Problem]:
    """Parameters that a stage asks for and whose values are not those with which its inputs were made."""
    now, asked = config.flatten(config.read_yaml(root / "params.yaml")), declared.get("params", [])
    problems = []
    for name, _ in _walk_up(stages, declared["deps"]):
        then = config.flatten(stages[name].get("params", {}).get("params.yaml", {}))
        problems += [
            Problem("params.yaml", f"{key} is {now[key]}, but the stage {name} ran with {value}", "brainseg repro")
            for key, value in then.items()
            if is_asked(key, asked) and now.get(key, value) != value
        ]
    return problems


def is_asked(key: str, asked: Iterable[str]) -> bool:
    """Whether a parameter is one that a stage asks for, or of a block that it asks for."""
    return any(f"{key}.".startswith(f"{name}.") for name in asked)


def require(path: str, content: bytes, root: Path = Path()) -> None:
    """``verify`` for a file that was read: what is used must be what was checked."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != (expected := read_lock(root).get(path, found)):
        raise_all([describe_difference(path, found, expected)], IntegrityError)


def verify_results(root: Path = Path()) -> None:
    """``verify`` for the models and metrics that dvc.lock says the stages made.

    Raises:
        IntegrityError: naming each file that differs.
    """
    verify([path for path in read_lock(root) if path.startswith(("models/", "metrics/"))], root)


def read_lock(root: Path = Path()) -> dict[str, str]:
    """``list_outs`` of the project's dvc.lock, empty if there is none.

    Raises:
        IntegrityError: it is damaged.
    """
    return list_outs({"stages": read_stages(root)})


def read_training_data(root: Path = Path()) -> list[str] | None:
    """The MD5 of each file that preprocess made and train has read, from the project's dvc.lock; None without one.

    Those that train has not read are missing: a cross-validation prepares new data and leaves the model as it was.

    Raises:
        IntegrityError: the lock is damaged.
    """
    if not (root / "dvc.lock").exists():
        return None
    made, train = (read_stages(root).get(name, {}) for name in ("preprocess", "train"))
    read = {dep["path"]: dep["md5"] for dep in train.get("deps", [])}
    return [out["md5"] for out in made.get("outs", []) if read.get(out["path"]) == out["md5"]]


def read_stages(root: Path = Path()) -> Stages:
    """The stages of the project's dvc.lock, none if there is none. Raises IntegrityError: it is damaged."""
    lock, fix = root / "dvc.lock", "brainseg repro puts it back; of another revision: name another one"
    if not lock.exists():
        return {}
    with guard(lock, fix, IntegrityError):
        try:
            found = config.parse_yaml(lock.read_bytes().decode(), lock)
        except DataError as error:
            raise IntegrityError(lock, error.problems[0].what, fix) from None
        for stage in found.get("stages", {}).values():
            for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
                assert isinstance(entry["path"], str) and isinstance(entry["md5"], str)
        return found.get("stages", {})


def list_outs(lock: Mapping[str, Any]) -> dict[str, str]:
    """The MD5 of each file or folder (ends in ``.dir``) that the stages of a dvc.lock made, by its path."""
    return {path: md5 for path, (_, md5) in _find_makers(lock["stages"]).items()}


def md5(path: Path) -> str:
    """DVC's name of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def folder_md5(folder: Path) -> str:
    """DVC's name of a folder: the MD5 of the JSON list of its files, without bytecode (.dvcignore)."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    inside = sorted(path.as_posix() for path in found if "__pycache__" not in path.parts)
    listing = [{"md5": md5(folder / name), "relpath": name} for name in inside]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def name_md5(path: Path) -> str:
    """DVC's name of a file or a folder; empty if it is not there."""
    if path.is_dir():
        return folder_md5(path)
    return md5(path) if path.is_file() else ""


def describe_difference(path: str, found: str, expected: str) -> Problem:
    """What to say of a file whose MD5 is not that of dvc.lock."""
    what = f"its MD5 is {found}, dvc.lock says {expected}: edited, damaged, or made by a stage that ran without DVC"
    remove = f"rm -rf {path}" if expected.endswith(".dir") else f"rm -f {path}"
    fix = f"{remove}, then dvc repro (if it comes back like this: brainseg verify-data)"
    restore = f"{remove} && git restore {path}" if expected.endswith(".dir") else f"git restore {path}"
    return Problem(path, what, f"{restore}, or {fix}" if path.startswith("metrics/") else fix)


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
