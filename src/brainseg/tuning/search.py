"""The search itself: Optuna proposes parameters, trials run side by side, what falls behind is stopped early.

The study is in a database, so a search that was killed goes on: finished trials stay, and those that were running are
run again with the same parameters, each from its last checkpoint.
"""

import hashlib
import json
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from brainseg import config
from brainseg.errors import DataError, RunError
from brainseg.experiments import repro
from brainseg.experiments.running import runner as running
from brainseg.experiments.running.progress import DONE, Board
from brainseg.experiments.running.runner import Runner, Seen
from brainseg.tuning import trials
from brainseg.tuning.space import SearchSpace
from brainseg.tuning.trials import Study

EXPERIMENTS, AGAIN, REASON, HOST = "experiments", "again", "reason", "host"  # attributes of trials
DEFAULT = "default"  # of the trial that is params.yaml itself: it is not stopped, so that the best is no worse
MADE_FROM = "made_from"  # of the study
STARTUP = 8  # trials drawn at random before the proposals
RUNGS = 3  # a trial may be stopped after a third of the epochs of its first fold, if it is not among the best third


class Options(NamedTuple):
    """``trials``: how many in all; ``storage``: a URL of Optuna's, None: a file of the study."""

    trials: int
    seed: int
    storage: str | None = None


class Search:
    """One run of a study.

    Raises:
        DataError: a study of this name searched something else.
    """

    def __init__(self, study: Study, space: SearchSpace, options: Options, board: Board, runner: Runner):
        self.study, self.space, self.options, self.board, self.runner = study, space, options, board, runner
        self.found = open_study(study, space, options, runner.jobs)
        self.lock, self.is_over = threading.Lock(), runner.is_over

    def run(self) -> optuna.Study:
        """Run trials until ``options.trials`` are finished, stopped or failed.

        Raises:
            RunError: no trial could be run to its end; names the first one's log.
            MachineError, IntegrityError: what hit one trial would hit all; it is run again the next time.
        """
        requeue_lost(self.found)
        if not self.found.trials and (own := self.space.find_default(read_params(self.study))):
            self.found.enqueue_trial(own, user_attrs={DEFAULT: True})
        running.work(self.runner, [self._work] * self.runner.jobs)
        repro.clean_up(self.study.root)
        if not self.found.get_trials(states=[TrialState.COMPLETE]):
            again = f"correct what it says; rm -r {self.study.state} starts again"
            raise RunError(self.study.state, "no trial came to its end", f"read the first log there, {again}")
        return self.found

    def _work(self) -> None:
        while not self.is_over.is_set():
            with self.lock:  # the proposals depend on the order in which they are asked for
                if count_begun(self.found) >= self.options.trials:
                    return
                trial = self.found.ask()
                overrides = self.space.suggest(trial)
                trial.set_user_attr(HOST, socket.gethostname())
                if self._is_answered(trial):
                    continue
            self._run_trial(trial, overrides)

    def _is_answered(self, trial: Trial) -> bool:
        """Whether a trial of the same parameters has an answer, or runs now: then it is told, and not run."""
        for other in self.found.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.RUNNING]):
            if other.number != trial.number and other.params == trial.params:
                trial.set_user_attr(REASON, f"the same parameters as trial {other.number}")
                state = TrialState.COMPLETE if other.state == TrialState.COMPLETE else TrialState.FAIL
                self.found.tell(trial, other.value if state == TrialState.COMPLETE else None, state=state)
                return True
        return False

    def _run_trial(self, trial: Trial, overrides: dict[str, Any]) -> None:
        """Run one trial and tell Optuna how it ended. What its parameters alone break is no end of the search."""
        reported = replay(self.found, trial)
        epochs = self.board.epochs // self.study.folds

        def watch(fold: int, seen: Seen) -> bool:
            self.board.see(trial.number, shift(seen, fold * epochs))
            if seen.dice is None or fold or seen.epoch in reported:  # epochs of other folds are no comparison
                return False
            reported.add(seen.epoch)  # one that began again tells its first epochs again
            trial.report(seen.dice, seen.epoch)
            may_stop = seen.epoch < epochs and DEFAULT not in trial.user_attrs  # at its end it costs nothing more
            return may_stop and trial.should_prune()

        try:
            experiments = trials.plan(self.study, overrides)
            trial.set_user_attr(EXPERIMENTS, [each.name for each in experiments])
            self.board.begin(trial.number, describe_params(trial.params))
            score = trials.run(self.study, experiments, watch, self.runner)
        except (RunError, DataError) as error:
            if self.is_over.is_set():
                return  # it was ended with the search, and is lost
            trial.set_user_attr(REASON, str(error))
            self.found.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            self.board.end(trial.number, "failed", None)
        else:
            state = TrialState.PRUNED if score is None else TrialState.COMPLETE
            self.found.tell(trial, score, state=state, skip_if_finished=True)
            self.board.end(trial.number, "stopped" if score is None else DONE, score)


def shift(seen: Seen, epochs: int) -> Seen:
    """``seen`` with so many epochs of trainings before it."""
    return seen._replace(epoch=seen.epoch + epochs) if seen.epoch else seen


def describe_params(params: Mapping[str, Any]) -> str:
    """``{"train.learning_rate": 0.00123}`` → ``learning_rate 0.00123``."""
    short = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in params.items()}
    return "  ".join(f"{name.rpartition('.')[2]} {value}" for name, value in short.items())


def open_study(study: Study, space: SearchSpace, options: Options, jobs: int) -> optuna.Study:
    """The study of this name, new or from before.

    Raises:
        DataError: it searched other ranges, or on other data, code or parameters.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study.state.mkdir(parents=True, exist_ok=True)
    storage = options.storage or f"sqlite:///{(study.state / 'study.db').resolve()}"
    names = {each.study_name for each in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    before = len(optuna.load_study(study_name=study.name, storage=storage).trials) if study.name in names else 0
    sampler = optuna.samplers.TPESampler(
        seed=options.seed + before,  # with the same seed a search that goes on would draw again what it has drawn
        n_startup_trials=STARTUP,
        multivariate=True,
        constant_liar=jobs > 1,
    )
    epochs = config.merge(read_params(study), space.fixed)["train"]["epochs"]
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, round(epochs / RUNGS)), reduction_factor=RUNGS)
    found = optuna.create_study(
        study_name=study.name, storage=storage, sampler=sampler, pruner=pruner, direction="maximize",
        load_if_exists=True,
    )  # fmt: skip
    made_from = digest(study, space)
    if found.user_attrs.get(MADE_FROM, made_from) != made_from:
        what = "is a search of other ranges, or on other data, code or parameters"
        raise DataError(study.name, what, f"give this one another name (--name), or rm -r {study.state}")
    found.set_user_attr(MADE_FROM, made_from)
    return found


def read_params(study: Study) -> dict[str, Any]:
    return config.read_yaml(study.root / "params.yaml")


def digest(study: Study, space: SearchSpace) -> str:
    """Of all that trials have in common."""
    (first, *_) = trials.plan(study, space.fixed)
    told = [space.model_dump(), first.name, study.folds]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def requeue_lost(found: optuna.Study) -> None:
    """Ask again for the trials that a killed search of this machine left running."""
    for trial in found.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if trial.user_attrs.get(HOST, socket.gethostname()) == socket.gethostname():
            found.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            default = {name: value for name, value in trial.user_attrs.items() if name == DEFAULT}
            found.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number, **default})


def replay(found: optuna.Study, trial: Trial) -> set[int]:
    """Report what a lost trial had told: its training goes on from there. Return the epochs."""
    lost = trial.user_attrs.get(AGAIN)
    told = {} if lost is None else found.get_trials(deepcopy=False)[lost].intermediate_values
    for epoch, dice in told.items():
        trial.report(dice, epoch)
    return set(told)


def list_kept(found: optuna.Study) -> list[FrozenTrial]:
    """All trials but those that were lost and are run again."""
    every = found.get_trials(deepcopy=False)
    again = {trial.user_attrs[AGAIN] for trial in every if AGAIN in trial.user_attrs}
    return [trial for trial in every if trial.number not in again]


def count_begun(found: optuna.Study) -> int:
    """Trials that run, are finished, stopped or failed."""
    return sum(trial.state != TrialState.WAITING for trial in list_kept(found))


def list_ended(found: optuna.Study) -> Sequence[FrozenTrial]:
    """The trials that came to their end, the best first."""
    ended = found.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return sorted(ended, key=lambda trial: (-(trial.value or 0), trial.number))
