"""A trial: one set of parameters, trained once for each inner fold as a DVC experiment, watched while it trains."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from brainseg import config
from brainseg.errors import DataError, RunError
from brainseg.evaluation.results import Summary
from brainseg.experiments import repro, revision

STATE = Path(".brainseg/tune")
EPOCH = re.compile(r"epoch (\d+)/(\d+) .*validation volume Dice (\d\.\d+)")  # what training.progress prints
GRACE = 10  # seconds from SIGINT to SIGKILL

# Told of every epoch: its number in the trial, over all folds, and the validation Dice there. Returns True to stop.
Watch = Callable[[int, float], bool]


class Study(NamedTuple):
    """Where and on what a search runs. ``inner_folds``: of the patients outside the test fold, the first ``folds``."""

    name: str
    root: Path
    inner_folds: int
    folds: int

    @property
    def state(self) -> Path:
        return self.root / STATE / self.name


class Experiment(NamedTuple):
    """The training of one inner fold; its name tells all that determines its numbers."""

    name: str
    overrides: dict[str, Any]


def plan(study: Study, overrides: Mapping[str, Any]) -> list[Experiment]:
    """The experiments of a trial.

    Raises:
        DataError: the values do not fit together.
    """
    inner = {"inner_folds": study.inner_folds}
    whole = config.merge(overrides, {"split": inner})
    key = revision.key(revision.reader(revision.WORKSPACE, study.root), whole)
    return [
        Experiment(f"tune-{study.name}-{key}-{fold}", config.merge(whole, {"split": inner | {"inner_fold": fold}}))
        for fold in range(study.folds)
    ]


def run(study: Study, experiments: list[Experiment], watch: Watch, environment: Mapping[str, str]) -> float | None:
    """Run those experiments that are not there. Return the mean volume Dice of their inner test patients.

    Args:
        environment: the device to use.

    Returns:
        None if ``watch`` has stopped the trial.

    Raises:
        RunError: a training failed; names its log.
    """
    scores, before = [], 0
    for experiment in experiments:
        score = read_score(study, experiment)
        if score is None:
            is_stopped, epochs = _train(
                study, experiment, lambda epoch, dice, b=before: watch(b + epoch, dice), environment
            )
            if is_stopped:
                return None
            before += epochs
            score = read_score(study, experiment)
        if score is None:
            raise RunError(experiment.name, "was run and has no numbers", f"read {log_path(study, experiment)}")
        scores.append(score)
    return sum(scores) / len(scores)


def read_score(study: Study, experiment: Experiment) -> float | None:
    """The mean volume Dice of the inner test patients; None if the experiment is not there."""
    try:
        told = revision.reader(experiment.name, study.root)("metrics/summary.json")
    except DataError:
        return None
    return Summary.model_validate_json(told).volume_dice_mean or 0.0  # undefined: nothing was found in any patient


def log_path(study: Study, experiment: Experiment) -> Path:
    return study.state / f"{experiment.name}.log"


def _train(study: Study, experiment: Experiment, watch: Watch, environment: Mapping[str, str]) -> tuple[bool, int]:
    """``dvc exp run`` in a folder of its own. Whether ``watch`` has stopped it, and after how many epochs.

    A training that is stopped by ``watch`` leaves nothing; one that is killed goes on from its checkpoint.
    """
    log, checkpoints = log_path(study, experiment), study.state / experiment.name
    log.parent.mkdir(parents=True, exist_ok=True)
    command = ["dvc", "--wait-for-lock", "exp", "run", "--temp", "--name", experiment.name]
    command += repro.options(experiment.overrides)
    variables = repro.environment() | {"PYTHONUNBUFFERED": "1", "BRAINSEG_CHECKPOINTS": str(checkpoints.resolve())}
    with open(log, "w", encoding="utf-8") as kept, subprocess.Popen(
        [sys.executable, "-m", *command], cwd=study.root, env=variables | environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        print("+", shlex.join(command), file=kept, flush=True)
        epochs, is_stopped = 0, False
        try:
            for line in process.stdout or ():
                print(line, end="", file=kept, flush=True)
                if (found := EPOCH.match(line)) and not is_stopped:
                    epochs = int(found[1])
                    is_stopped = watch(epochs, float(found[3]))
                    if is_stopped:
                        end_group(process.pid)
        except BaseException:  # Ctrl-C too: what runs in a session of its own does not get it from the terminal
            end_group(process.pid)
            raise
    if is_stopped or process.returncode == 0:
        shutil.rmtree(checkpoints, ignore_errors=True)
        return is_stopped, epochs
    raise RunError(log, f"the training ended with code {process.returncode}", "read its first ERROR")


def end_group(leader: int) -> None:
    """End a process and all that it started: as Ctrl-C does, so that DVC removes its folder, then by SIGKILL."""
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(leader)
        everything = [*first.children(recursive=True), first]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGINT)
        _, alive = psutil.wait_procs(everything, timeout=GRACE)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def end_leftovers(study: Study) -> None:
    """End what a killed search left running: its trials run in sessions of their own, and nobody reads them now."""
    name = re.compile(rf"tune-{re.escape(study.name)}-[0-9a-f]{{8}}-\d+")
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "exp" in words and any(name.fullmatch(word) for word in words):
            end_group(process.pid)
