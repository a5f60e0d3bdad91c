"""`make repro` and recipes: what a killed run left is put right, then DVC takes over."""

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from brainseg import config
from brainseg.errors import DataError, MachineError

EXPERIMENTS = Path(".dvc/tmp/exps")  # where DVC runs an experiment apart from the workspace
DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")


def run(recipe: str | None, root: Path = Path()) -> None:
    """Become ``dvc repro``, or ``dvc exp run`` with a recipe's overrides; does not return."""
    heal(root)
    command = ["dvc", "exp", "run", *options(load(recipe, root))] if recipe else ["dvc", "repro"]
    print("+", shlex.join(command), file=sys.stderr, flush=True)
    os.chdir(root)
    os.execve(sys.executable, [sys.executable, "-m", *command], environment())


def environment() -> dict[str, str]:
    """This process's environment, in which ``python`` and ``dvc`` are the ones beside this interpreter."""
    here = os.path.dirname(sys.executable)
    return os.environ | {"PATH": os.pathsep.join([here, os.environ.get("PATH", "")])}


def load(recipe: str, root: Path = Path()) -> dict:
    """The overrides of ``recipes/<recipe>.yaml``, nested like params.yaml.

    Raises:
        DataError: there is no such recipe.
    """
    path = root / "recipes" / f"{recipe}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (root / "recipes").glob("*.yaml"))) or "none"
        raise DataError(path, "there is no such recipe", f"choose one of: {known}")
    return config.read_yaml(path)


def options(overrides: dict) -> list[str]:
    """Arguments of ``dvc exp run`` that set these parameters."""
    return [argument for pair in flags(overrides) for argument in ("-S", pair)]


def flags(overrides: dict) -> list[str]:
    """As DVC's -S takes them: ``{"train": {"epochs": 3, "loss": "dice"}}`` → train.epochs=3, train.loss="dice"."""
    return [f"{'.'.join(key)}={_literal(value)}" for key, value in _leaves(overrides)]


def _literal(value: Any) -> str:
    """In Hydra's grammar, which DVC reads overrides with: a backslash is one unless it precedes a quote."""
    return '"{}"'.format(value.replace('"', '\\"')) if isinstance(value, str) else json.dumps(value)


def _leaves(nested: dict, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def heal(root: Path) -> None:
    """Put right what a killed run left behind, or name the command that does.

    Raises:
        MachineError: dvc.lock is cut short, or a stage of a killed run is still running.
    """
    _remove_broken_lock(root / ".dvc/tmp")
    lock = root / "dvc.lock"
    if lock.exists() and not _is_whole(lock):
        raise MachineError(lock, "cut short, by a killed run perhaps", "git checkout dvc.lock; rm it if git has none")
    for process in orphans(root.resolve()):
        what = f"{process.cmdline()[1]} of a run that was killed is still at work"
        raise MachineError(f"process {process.pid}", what, f"wait for its end, or: kill {process.pid}")
    _remove_left_experiments(root.resolve() / EXPERIMENTS)


def _remove_left_experiments(folder: Path) -> None:
    """Folders of ``dvc exp run --temp`` that was killed: full copies of the data, in which nobody works any more."""
    left = list(folder.glob("standalone/tmp*"))
    if left and any(_is_dvc(process.cmdline()) for process in _processes_in(folder.parents[2])):
        return  # one of them may be its
    for experiment in left:
        shutil.rmtree(experiment, ignore_errors=True)
        print(f"removed {experiment}, which a killed experiment left", file=sys.stderr)


def _processes_in(root: Path) -> Iterator[psutil.Process]:
    """Processes that work in the project's folder or below."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(root):
                yield process


def _is_dvc(command: list[str]) -> bool:
    return "dvc" in [Path(part).name for part in command[:3]]  # .../bin/dvc or python -m dvc


def _remove_broken_lock(folder: Path) -> None:
    """DVC frees the locks of dead processes itself, but stops at a lock file that was not written to its end."""
    from dvc.lock import LockError, make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    path = folder / RWLOCK_FILE
    if not path.exists():
        return
    try:
        with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder)):  # nobody is writing it just now
            json.loads(path.read_bytes())
    except LockError as error:
        raise MachineError(path, "another dvc is at work here", "wait for its end, run again") from error
    except ValueError:
        path.unlink()
        print(f"removed {path}, which a killed run left unfinished", file=sys.stderr)


def _is_whole(lock: Path) -> bool:
    """Whether dvc.lock is as DVC writes it and every file in it has its digest."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        stages = COMPILED_LOCKFILE_SCHEMA(config.read_yaml(lock))["stages"].values()
        entries = [entry for stage in stages for entry in stage.get("deps", []) + stage.get("outs", [])]
        return all(DIGEST.fullmatch(entry["md5"]) for entry in entries)
    except (DataError, Invalid, KeyError, TypeError):
        return False


def orphans(root: Path) -> Iterator[psutil.Process]:
    """Running stages of this project, or of an experiment of it, that no DVC watches any more."""
    for process in _processes_in(root):
        with contextlib.suppress(psutil.Error):
            here = Path(process.cwd())
            mine = here == root or here.is_relative_to(root / EXPERIMENTS)
            if not mine or not any(part.startswith("stages/") for part in process.cmdline()[1:2]):
                continue
            if not any(_is_dvc(parent.cmdline()) for parent in process.parents()):
                yield process
