"""`make repro` and recipes: clean up after a killed run, then start DVC."""

import contextlib
import json
import operator
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from brainseg import config, files
from brainseg.data import inputs
from brainseg.errors import DataError, MachineError
from brainseg.experiments import integrity, planning, variants

EXPERIMENTS = Path(".dvc/tmp/exps")  # where DVC runs an experiment outside the workspace
LOCK, KEPT, CUT = Path("dvc.lock"), Path(".brainseg/dvc.lock"), Path(".brainseg/dvc.lock.cut")
DVC = "brainseg.experiments.run_dvc"
POLLED = 0.5  # seconds between two looks at what still runs
HALF_COPY = re.compile(r"\.[\w-]{22}\.tmp")  # dvc_objects.fs.utils.tmp_fname
DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")


def run(
    recipe: str | None, root: Path = Path(), *, check: bool = False, settings: Sequence[str] = (), queue: bool = False
) -> None:
    """Replace this process by ``dvc repro``, or by ``dvc exp run`` with overrides and a name. Returns if it queues.

    Args:
        recipe: its overrides. settings: more of them, ``train.loss=jaccard``.
        check: read every file again, also a large one whose size and times are as before.
        queue: queue the experiment, or one for each value of ``train.learning_rate=0.001,0.004``.

    Raises:
        DataError: no Git repository, no such recipe, a setting that is none, with the nearest name, or several
            experiments that are not to be queued.
        MachineError: see clean_up; or DVC does not queue an experiment. A stage of a killed run is waited for.
    """
    overrides = load_recipe(recipe, root) if recipe else {}
    integrity.check_git(root)
    planned = variants.plan(settings, recipe, overrides, root) if overrides or settings or queue else []
    if queue:
        _queue(planned, root)
        return
    if len(planned) > 1:
        what = f"asks for {len(planned)} experiments, and one is run at a time"
        raise DataError(f"-S {' -S '.join(settings)}", what, "add --queue, then: dvc exp run --run-all")
    wait_for_orphans(root)
    clean_up(root)
    check_patients(root)
    command = _command(planned[0]) if planned else ["repro"]
    print("+", shlex.join(["dvc", *command]), file=sys.stderr, flush=True)
    os.chdir(root)
    more = {inputs.ALL: "1"} if check else {}
    os.execve(sys.executable, [sys.executable, "-m", DVC, *command], environment() | more)


def _command(variant: variants.Variant, *more: str) -> list[str]:
    return ["exp", "run", *more, "-n", variant.name, *options(variant.overrides)]


def _queue(planned: Sequence[variants.Variant], root: Path) -> None:
    """Queue all of them in one process, since DVC takes longer to start than to queue."""
    from dvc.cli import main as run_dvc

    os.chdir(root)
    for variant in planned:
        command = _command(variant, "--queue")
        print("+", shlex.join(["dvc", *command]), file=sys.stderr, flush=True)
        if run_dvc(command):
            fix = "correct what DVC says above; dvc queue status lists those that wait, dvc queue remove NAME drops one"
            raise MachineError(variant.name, "DVC did not queue it", fix)
    print(f"{len(planned)} queued. dvc exp run --run-all runs all that wait, dvc queue status lists them")


def check_patients(root: Path) -> None:
    """Refuse data whose patients are those of another table than ``download.patients`` is now.

    Raises:
        DataError: it has changed, or is no file.
    """
    given = config.read_yaml(root / "params.yaml").get("download", {})
    if given.get("patients"):
        from brainseg.data import sources  # imports pandas

        sources.check_table(config.Download(**given), root / "data/raw/slices.zip")


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
    return [f"{key}={variants.literal(value)}" for key, value in config.flatten(overrides).items()]


def clean_up(root: Path) -> None:
    """Clean up what a killed run left behind, and keep a copy of dvc.lock.

    Raises:
        MachineError: another DVC or a stage of a killed run is still running; names the command that helps.
    """
    _remove_broken_lock(root / ".dvc/tmp")
    _keep_record(root)
    refuse_orphans(root)
    _remove_leftover_experiments(root.resolve() / EXPERIMENTS)
    _remove_half_copies(root.resolve())


def wait_for_orphans(root: Path) -> None:
    """Wait until the stages that a killed run left behind have ended, and say for which. They may still write."""
    told: set[int] = set()
    while left := list(orphans(root.resolve())):
        for process in left:
            if process.pid not in told:
                told.add(process.pid)
                what = f"waiting for a stage that a killed run left running, process {process.pid}"
                help_ = f"to end it: kill {process.pid}; a training goes on from its last checkpoint"
                print(f"{what} ({help_})", file=sys.stderr, flush=True)
        time.sleep(POLLED)


def refuse_orphans(root: Path) -> None:
    """Refuse to go on while a stage of a killed run is still running. Raises MachineError: naming the process."""
    for process in orphans(root.resolve()):
        what = f"{process.cmdline()[1]} of a killed run is still running"
        raise MachineError(f"process {process.pid}", what, f"wait until it ends, or: kill {process.pid}")


def refuse_running(root: Path) -> None:
    """Refuse to go on while DVC runs in the project: it reads parameters again when a stage has ended.

    Raises:
        MachineError: naming the process.
    """
    for process in _processes_in(root.resolve()):
        with contextlib.suppress(psutil.Error):
            if _is_dvc(process.cmdline()):
                raise MachineError(f"process {process.pid}", "a run is going on in this project", "wait until it ends")


def _remove_leftover_experiments(folder: Path) -> None:
    """Remove the folders of killed ``dvc exp run --temp``: full copies of the data that nothing uses any more."""
    left = list(folder.glob("standalone/tmp*"))
    if left and any(_is_dvc(process.cmdline()) for process in _processes_in(folder.parents[2])):
        return  # a running DVC may use one of them
    for experiment in left:
        shutil.rmtree(experiment, ignore_errors=True)
        print(f"removed {experiment}, which a killed experiment left", file=sys.stderr)


def _remove_half_copies(root: Path) -> None:
    """Remove the files into which a killed DVC copied between its cache and the workspace, as large as the data."""
    if not (root / "dvc.yaml").is_file():
        return
    stages = config.read_yaml(root / "dvc.yaml").get("stages", {}).values()
    folders = {(root / path).parent for stage in stages for path in planning.list_outs(stage)}
    folders |= set((root / ".dvc/cache/files/md5").glob("*"))
    left = [path for folder in folders for path in folder.glob(".*.tmp") if HALF_COPY.fullmatch(path.name)]
    if not left:
        return
    from dvc.lock import LockError, make_lock

    with contextlib.suppress(LockError), make_lock(str(root / ".dvc/tmp/lock"), tmp_dir=str(root / ".dvc/tmp")):
        for path in sorted(left):  # nobody is writing them: who does holds this lock
            path.unlink(missing_ok=True)
            print(f"removed {path}, which a killed DVC left unfinished", file=sys.stderr)


def _processes_in(root: Path) -> Iterator[psutil.Process]:
    """Processes whose working directory is the project's folder or below it."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(root):
                yield process


def _is_dvc(command: list[str]) -> bool:
    return not {"dvc", DVC}.isdisjoint(Path(part).name for part in command[:3])  # .../bin/dvc, python -m dvc, or ours


def _remove_broken_lock(folder: Path) -> None:
    """Remove an incomplete lock file. DVC frees the locks of dead processes itself, but cannot read such a file."""
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    path = folder / RWLOCK_FILE
    if not path.exists():
        return
    try:
        with _nobody_writing(path, folder / RWLOCK_LOCK):
            json.loads(path.read_bytes())
    except ValueError:
        path.unlink()
        print(f"removed {path}, which a killed run left unfinished", file=sys.stderr)


@contextlib.contextmanager
def _nobody_writing(path: Path, lock: Path) -> Iterator[None]:
    """Hold the lock that DVC holds while it writes ``path``. Raises MachineError: another process has it."""
    from dvc.lock import LockError, make_lock

    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with make_lock(str(lock), tmp_dir=str(lock.parent)):
            yield
    except LockError as error:
        raise MachineError(path, "another dvc is running here", "wait until it ends, run again") from error


def _keep_record(root: Path) -> None:
    """Copy dvc.lock, or put the newest good copy back where it is cut. DVC writes it in place, after each stage.

    A training since that copy need not run again: before DVC touches dvc.lock, it notes a stage in its run cache, if
    that cache can hold all outs of the stage.
    """
    lock = root / LOCK
    if not lock.exists():
        return
    content = lock.read_bytes()
    if not _is_cut(root, content):
        _write(root / KEPT, content)
        return
    with _nobody_writing(lock, root / ".dvc/tmp/lock"):
        if not _is_cut(root, lock.read_bytes()):  # it was being written, and that is done
            return
        _write(root / CUT, lock.read_bytes())
        copy = _find_copy(root)
        if copy:
            _write(lock, copy.content)
        else:
            lock.unlink()
    done = f"put back as {copy.place} has it" if copy else "removed"
    print(f"{lock} was cut and is {done}; what it was is in {root / CUT}", file=sys.stderr)


def _is_cut(root: Path, content: bytes) -> bool:
    """Whether a dvc.lock cannot be read, has a wrong digit, or lacks outputs of its copy that are still declared."""
    kept = (root / KEPT).read_bytes() if (root / KEPT).exists() else b""
    if content and content in (kept, _read_committed(root)):  # to read either takes a quarter of a second
        return False
    stages = _read_stages(content)
    if stages is None:
        return True
    before = _read_stages(kept) or {}
    if _has_wrong_digit(root, stages, before):
        return True
    had = {name: len(stage.get("outs", [])) for name, stage in before.items()}
    short = [name for name in had if len(stages.get(name, {}).get("outs", [])) < had[name]]
    declared = config.read_yaml(root / "dvc.yaml")["stages"] if short else {}
    return any(had[name] == _count_outs(declared.get(name, {})) for name in short)


def _has_wrong_digit(root: Path, stages: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether a digest differs from an earlier one in a single digit, as no digest of another content does.

    The earlier one may be the wrong one. Most digests stand twice, where a result is made and where it is used; else
    the file decides.
    """
    now, then = ({(name, kind, entry["path"]): entry["md5"] for name, stage in each.items() for kind in ("deps", "outs")
                  for entry in stage.get(kind, [])} for each in (stages, before))  # fmt: skip
    for key in now.keys() & then.keys():
        name, kind, path = key
        if len(now[key]) != len(then[key]) or sum(map(operator.ne, now[key], then[key])) != 1:
            continue
        others = {md5 for (*place, its), md5 in now.items() if its == path and place != [name, kind]}
        if now[key] in others:
            continue
        if then[key] in others or inputs.name_md5(root / path) == then[key]:
            return True
    return False


def _count_outs(declared: dict[str, Any]) -> int:
    """The number of outputs of a stage of dvc.yaml."""
    return sum(len(declared.get(kind, [])) for kind in ("outs", "metrics", "plots"))


class Copy(NamedTuple):
    """A whole dvc.lock of another time, in seconds since 1970."""

    time: float
    place: str
    content: bytes


def _find_copy(root: Path) -> Copy | None:
    """The newest whole copy: from before the last run, or the committed one."""
    kept, found = root / KEPT, []
    if kept.exists():
        found.append(Copy(kept.stat().st_mtime, str(kept), kept.read_bytes()))
    if committed := _read_committed(root):
        time = _ask_git(root, "log", "-1", "--format=%ct", "HEAD", "--", str(LOCK))
        found.append(Copy(float(time), "git", committed))
    return max((copy for copy in found if _read_stages(copy.content) is not None), default=None)


def _read_committed(root: Path) -> bytes:
    """The dvc.lock of the last commit, empty if it has none."""
    return _ask_git(root, "show", f"HEAD:./{LOCK}")


def _ask_git(root: Path, *command: str) -> bytes:
    """What Git prints; nothing where it is not installed."""
    git = shutil.which("git")
    return subprocess.run([git, *command], cwd=root, capture_output=True).stdout if git else b""


def _write(path: Path, content: bytes) -> None:
    with files.replacing(path) as temporary:
        temporary.write_bytes(content)


def _read_stages(content: bytes) -> dict[str, Any] | None:
    """The stages of a dvc.lock, None if it does not have DVC's schema, a digest for every file, and an end."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        stages = COMPILED_LOCKFILE_SCHEMA(config.parse_yaml(content.decode(), LOCK))["stages"]
        entries = [entry for stage in stages.values() for entry in stage.get("deps", []) + stage.get("outs", [])]
        is_whole = content.endswith(b"\n") and all(DIGEST.fullmatch(entry["md5"]) for entry in entries)
    except (DataError, Invalid, KeyError, TypeError, UnicodeDecodeError):
        return None
    return stages if is_whole else None


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
