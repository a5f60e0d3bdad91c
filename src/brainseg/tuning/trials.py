"""A trial: one set of parameters, trained once for each inner fold as a DVC experiment, watched while it trains."""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from brainseg import config
from brainseg.errors import DataError, IntegrityError, MachineError
from brainseg.evaluation.results import Summary
from brainseg.experiments import revision
from brainseg.experiments.running import local
from brainseg.experiments.running.runner import Runner, Seen, Training, TrainingError

STATE = Path(".brainseg/tune")
NO_PARAMETERS = ("trial", "state", "dice", "epochs", "experiments", "reason")  # columns of metrics/tune/NAME/trials.csv

Watch = Callable[[int, Seen], bool]  # told of what the training of an inner fold does; returns True to stop the trial


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


def run(study: Study, experiments: Sequence[Experiment], watch: Watch, runner: Runner) -> float | None:
    """Run those experiments that are not there. Return the mean volume Dice of their test patients.

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
            if _train(study, experiment, partial(watch, fold), runner):
                return None
            score = read_score(study, experiment)
        if score is None:
            log = training(study, experiment).log
            raise MachineError(experiment.name, "was run and has no numbers", f"read {log}")
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


def training(study: Study, experiment: Experiment) -> Training:
    return Training(experiment.name, experiment.overrides, study.state)


def _train(study: Study, experiment: Experiment, watch: Callable[[Seen], bool], runner: Runner) -> bool:
    """Whether ``watch`` has stopped it. A fault that any trial would have is no fault of this one."""
    try:
        return runner.run(training(study, experiment), watch)
    except TrainingError as failed:
        if failed.by_parameters:  # nobody goes on from its checkpoints
            shutil.rmtree(training(study, experiment).checkpoints, ignore_errors=True)
            raise
        raise MachineError("", problems=failed.problems) from None


def end_leftovers(study: Study) -> None:
    """End what a killed search of this name left running in this project. Call it while nobody else runs the search."""
    name = re.compile(rf"tune-{re.escape(study.name)}-(\w+-)?[0-9a-f]{{8}}(-\d+)?")
    local.end_leftovers(study.root, name)
