"""A trial: one set of parameters, trained once for each inner fold as a DVC experiment, watched while it trains."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from brainseg import config
from brainseg.errors import DataError, IntegrityError, MachineError, RunError
from brainseg.evaluation.results import Summary
from brainseg.experiments import repro, revision

STATE = Path(".brainseg/tune")
EPOCH = re.compile(r"epoch (\d+)/(\d+) .*validation volume Dice (\d\.\d+|nan)")  # what training.progress prints
FAULT = re.compile(r"^ERROR (\d) (.*)", re.MULTILINE)
OF_TRAINING = ("2", "5")  # codes of errors that these parameters alone have; the others would hit any trial
GRACE = 10  # seconds from SIGINT to SIGKILL

# Told of every epoch: the number of the inner fold, of the epoch, and the validation Dice. Returns True to stop.
Watch = Callable[[int, int, float], bool]

_leaders: set[int] = set()  # processes of this search that lead a group
_lock = threading.Lock()


class Study(NamedTuple):
    """Where a search runs, and on what: ``folds`` of ``inner_folds`` of the patients outside the test fold."""

    name: str
    root: Path
    inner_folds: int
    folds: int

    @property
    def state(self) -> Path:
        return self.root / STATE / self.name


class Experiment(NamedTuple):
    """A training; its name tells all that determines its numbers."""

    name: str
    overrides: dict[str, Any]
    key: str


def plan(study: Study, overrides: Mapping[str, Any]) -> list[Experiment]:
    """The experiments of a trial, one for each inner fold.

    Raises:
        DataError: the values do not fit together.
    """
    inner = {"inner_folds": study.inner_folds}
    whole = config.merge(overrides, {"split": inner})
    key = revision.key(revision.reader(revision.WORKSPACE, study.root), whole)
    return [
        Experiment(f"tune-{study.name}-{key}-{fold}", config.merge(whole, {"split": inner | {"inner_fold": fold}}), key)
        for fold in range(study.folds)
    ]


def plan_whole(study: Study, name: str, overrides: dict[str, Any]) -> Experiment:
    """A training on all patients outside the test fold."""
    key = revision.key(revision.reader(revision.WORKSPACE, study.root), overrides)
    return Experiment(f"tune-{study.name}-{name}-{key}", overrides, key)


def run(
    study: Study, experiments: Sequence[Experiment], watch: Watch, environment: Mapping[str, str]
) -> float | None:  # fmt: skip
    """Run those experiments that are not there. Return the mean volume Dice of their test patients.

    Args:
        environment: the device to use.

    Returns:
        None if ``watch`` has stopped the trial.

    Raises:
        RunError: a training failed because of its parameters. MachineError: for any other reason; both name its log.
        IntegrityError: parameters or code were edited meanwhile.
    """
    scores = []
    for fold, experiment in enumerate(experiments):
        score = read_score(study, experiment)
        if score is None:
            if _train(study, experiment, partial(watch, fold), environment):
                return None
            score = read_score(study, experiment)
        if score is None:
            raise MachineError(experiment.name, "was run and has no numbers", f"read {log_path(study, experiment)}")
        scores.append(score)
    return sum(scores) / len(scores)


def read_score(study: Study, experiment: Experiment) -> float | None:
    """The mean volume Dice of the test patients; None if the experiment is not there.

    Raises:
        IntegrityError: it was made from something else than its name says.
    """
    try:
        read = revision.reader(experiment.name, study.root)
        told = read("metrics/summary.json")
    except DataError:
        return None
    if revision.key(read, {}) != experiment.key:
        what = "was made from other data, code or parameters than its name says: they were edited while it ran"
        raise IntegrityError(experiment.name, what, f"dvc exp remove {experiment.name}, run again")
    return Summary.model_validate_json(told).volume_dice_mean or 0.0  # undefined: nothing was found in any patient


def log_path(study: Study, experiment: Experiment) -> Path:
    return study.state / f"{experiment.name}.log"


def _train(
    study: Study, experiment: Experiment, watch: Callable[[int, float], bool], environment: Mapping[str, str]
) -> bool:  # fmt: skip
    """``dvc exp run`` in a folder of its own. Whether ``watch`` has stopped it.

    A training that is killed goes on from its checkpoint; one that is stopped, or fails, leaves nothing.
    """
    log, checkpoints = log_path(study, experiment), study.state / experiment.name
    log.parent.mkdir(parents=True, exist_ok=True)
    command = ["dvc", "--wait-for-lock", "exp", "run", "--temp", "--name", experiment.name]
    command += repro.options(experiment.overrides)
    variables = repro.environment() | {"PYTHONUNBUFFERED": "1", "BRAINSEG_CHECKPOINTS": str(checkpoints.resolve())}
    is_stopped = False
    with open(log, "w", encoding="utf-8") as kept, subprocess.Popen(
        [sys.executable, "-m", *command], cwd=study.root, env={**variables, **environment}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as process, _leading(process.pid):  # fmt: skip
        print("+", shlex.join(command), file=kept, flush=True)
        for line in process.stdout or ():
            print(line, end="", file=kept, flush=True)
            if (found := EPOCH.match(line)) and not is_stopped:
                is_stopped = watch(int(found[1]), float(found[3]))
                if is_stopped:
                    end_group(process.pid)
    if is_stopped or process.returncode == 0:
        shutil.rmtree(checkpoints, ignore_errors=True)
        return is_stopped
    fault = FAULT.search(log.read_text(encoding="utf-8"))
    if fault and fault[1] in OF_TRAINING:
        shutil.rmtree(checkpoints, ignore_errors=True)
        raise RunError(log, fault[2], "nothing: the search goes on without it")
    raise MachineError(log, f"the training ended with code {process.returncode}", "read its end, then run this again")


@contextlib.contextmanager
def _leading(pid: int):
    """Note within the block that a process leads a group, so that ``end_all`` finds it."""
    with _lock:
        _leaders.add(pid)
    try:
        yield
    finally:
        with _lock:
            _leaders.discard(pid)


def end_all() -> None:
    """End all that this search has started: what runs in a session of its own gets no Ctrl-C from the terminal."""
    with _lock:
        leaders = list(_leaders)
    for leader in leaders:
        end_group(leader)


def end_group(leader: int) -> None:
    """End a process and all that it started: as Ctrl-C does, so that DVC removes its folder, then by SIGKILL."""
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(leader)
        everything = [*first.children(recursive=True), first]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGINT)
        _, alive = psutil.wait_procs(everything, timeout=GRACE)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()


def end_leftovers(study: Study) -> None:
    """End what a killed search of this name left running in this project. Call it while nobody else runs the search."""
    name = re.compile(rf"tune-{re.escape(study.name)}-(\w+-)?[0-9a-f]{{8}}(-\d+)?")
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            is_ours = "exp" in words and any(name.fullmatch(word) for word in words)
            if is_ours and Path(process.cwd()).is_relative_to(study.root):
                end_group(process.pid)
