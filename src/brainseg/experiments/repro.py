"""`make repro` and recipes: clean up after a killed run, then start DVC."""

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

EXPERIMENTS = Path(".dvc/tmp/exps")  # where DVC runs an experiment outside the workspace
DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")


def run(recipe: str | None, root: Path = Path()) -> None:
    """Replace this process by ``dvc repro``, or by ``dvc exp run`` with a recipe's overrides. Does not return."""
    clean_up(root)
    command = ["dvc", "exp", "run", *options(load_recipe(recipe, root))] if recipe else ["dvc", "repro"]
    print("+", shlex.join(command), file=sys.stderr, flush=True)
    os.chdir(root)
    os.execve(sys.executable, [sys.executable, "-m", *command], environment())


def environment() -> dict[str, str]:
    """This process's environment, with ``python`` and ``dvc`` of this interpreter first in PATH."""
    here = os.path.dirname(sys.executable)
    return os.environ | {"PATH": os.pathsep.join([here, os.environ.get("PATH", "")])}


def load_recipe(recipe: str, root: Path = Path()) -> dict:
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
    """The values of DVC's -S: ``{"train": {"epochs": 3, "loss": "dice"}}`` → train.epochs=3, train.loss="dice"."""
    return [f"{'.'.join(key)}={_literal(value)}" for key, value in _leaves(overrides)]


def _literal(value: Any) -> str:
    """A value in Hydra's grammar, which DVC uses: only a quote is escaped, a backslash elsewhere stands for itself."""
    return '"{}"'.format(value.replace('"', '\\"')) if isinstance(value, str) else json.dumps(value)


def _leaves(nested: dict, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def clean_up(root: Path) -> None:
    """Clean up what a killed run left behind.

    Raises:
        MachineError: dvc.lock is incomplete, or a stage of a killed run is still running; names the command that helps.
    """
    _remove_broken_lock(root / ".dvc/tmp")
    lock = root / "dvc.lock"
    if lock.exists() and not _is_whole(lock):
        raise MachineError(lock, "is incomplete", "git checkout dvc.lock; rm it if git has none")
    for process in orphans(root.resolve()):
        what = f"{process.cmdline()[1]} of a killed run is still running"
        raise MachineError(f"process {process.pid}", what, f"wait until it ends, or: kill {process.pid}")
    _remove_leftover_experiments(root.resolve() / EXPERIMENTS)


def _remove_leftover_experiments(folder: Path) -> None:
    """Remove the folders of killed ``dvc exp run --temp``: full copies of the data that nothing uses any more."""
    left = list(folder.glob("standalone/tmp*"))
    if left and any(_is_dvc(process.cmdline()) for process in _processes_in(folder.parents[2])):
        return  # a running DVC may use one of them
    for experiment in left:
        shutil.rmtree(experiment, ignore_errors=True)
        print(f"removed {experiment}, which a killed experiment left", file=sys.stderr)


def _processes_in(root: Path) -> Iterator[psutil.Process]:
    """Processes whose working directory is the project's folder or below it."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(root):
                yield process


def _is_dvc(command: list[str]) -> bool:
    return "dvc" in [Path(part).name for part in command[:3]]  # .../bin/dvc or python -m dvc


def _remove_broken_lock(folder: Path) -> None:
    """Remove an incomplete lock file. DVC frees the locks of dead processes itself, but cannot read such a file."""
    from dvc.lock import LockError, make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    path = folder / RWLOCK_FILE
    if not path.exists():
        return
    try:
        with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder)):  # no other process is writing the file
            json.loads(path.read_bytes())
    except LockError as error:
        raise MachineError(path, "another dvc is running here", "wait until it ends, run again") from error
    except ValueError:
        path.unlink()
        print(f"removed {path}, which a killed run left unfinished", file=sys.stderr)


def _is_whole(lock: Path) -> bool:
    """Whether dvc.lock has DVC's schema and a digest for every file."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        stages = COMPILED_LOCKFILE_SCHEMA(config.read_yaml(lock))["stages"].values()
        entries = [entry for stage in stages for entry in stage.get("deps", []) + stage.get("outs", [])]
        return all(DIGEST.fullmatch(entry["md5"]) for entry in entries)
    except (DataError, Invalid, KeyError, TypeError):
        return False


def orphans(root: Path) -> Iterator[psutil.Process]:
    """Running stages of this project, or of one of its experiments, whose DVC process has ended."""
    for process in _processes_in(root):
        with contextlib.suppress(psutil.Error):
            here = Path(process.cwd())
            mine = here == root or here.is_relative_to(root / EXPERIMENTS)
            if not mine or not any(part.startswith("stages/") for part in process.cmdline()[1:2]):
                continue
            if not any(_is_dvc(parent.cmdline()) for parent in process.parents()):
                yield process
