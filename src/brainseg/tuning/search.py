"""The search itself: Optuna proposes parameters, trials run side by side, what falls behind is stopped early.

The study is in a database, so a search that was killed goes on: finished trials stay, and those that were running are
run again with the same parameters, each from its last checkpoint.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from brainseg import config
from brainseg.errors import BrainsegError, DataError, RunError
from brainseg.experiments import cross_validation, repro
from brainseg.tuning import trials
from brainseg.tuning.progress import Board
from brainseg.tuning.space import SearchSpace
from brainseg.tuning.trials import Study

EXPERIMENTS, AGAIN, REASON, MADE_FROM = (
    "experiments",
    "again",
    "reason",
    "made_from",
)  # attributes of trials, of the study
STARTUP = 8  # trials drawn at random before the proposals
RUNGS = 3  # a trial may be stopped after a third of its epochs, if it is not among the best third


class Options(NamedTuple):
    """``trials``: how many in all; ``jobs``: at once; ``storage``: a URL of Optuna's, None: a file of the study."""

    trials: int
    jobs: int
    seed: int
    storage: str | None = None


def run(study: Study, space: SearchSpace, options: Options, board: Board) -> optuna.Study:
    """Run trials until ``options.trials`` are finished, stopped or failed.

    Raises:
        DataError: a study of this name searched something else.
        RunError: no trial could be run to its end; names the first one's log.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = open_study(study, space, options)
    requeue_lost(found)
    if not found.trials and (own := space.find_default(config.read_yaml(study.root / "params.yaml"))):
        found.enqueue_trial(own)
    lock, devices = threading.Lock(), cross_validation.queue_devices(options.jobs)

    def work() -> None:
        while True:
            with lock:  # the proposals depend on the order in which they are asked for
                if count_begun(found) >= options.trials:
                    return
                trial = found.ask()
                overrides = space.suggest(trial)
            run_trial(found, trial, study, overrides, board, devices)

    with ThreadPoolExecutor(options.jobs) as pool:
        for job in [pool.submit(work) for _ in range(options.jobs)]:
            job.result()
    repro.clean_up(study.root)
    if not found.get_trials(states=[TrialState.COMPLETE]):
        raise RunError(study.name, "no trial came to its end", f"read the logs in {study.state}")
    return found


def run_trial(
    found: optuna.Study, trial: Trial, study: Study, overrides: dict[str, Any], board: Board,
    devices: SimpleQueue[dict[str, str]],
) -> None:  # fmt: skip
    """Run one trial and tell Optuna how it ended. What a training cannot do is a failed trial, not the end of all."""

    def watch(step: int, dice: float) -> bool:
        trial.report(dice, step)
        is_behind = step < board.epochs and trial.should_prune()  # at its end it costs nothing more
        board.update(trial.number, step, dice)
        return is_behind

    device = devices.get()
    try:
        experiments = trials.plan(study, overrides)
        trial.set_user_attr(EXPERIMENTS, [each.name for each in experiments])
        board.begin(trial.number, trial.params)
        score = trials.run(study, experiments, watch, device)
    except BrainsegError as error:
        trial.set_user_attr(REASON, str(error))
        found.tell(trial, state=TrialState.FAIL)
        board.end(trial.number, "failed", None)
    else:
        found.tell(trial, score, state=TrialState.PRUNED if score is None else None)
        board.end(trial.number, "stopped" if score is None else "done", score)
    finally:
        devices.put(device)


def open_study(study: Study, space: SearchSpace, options: Options) -> optuna.Study:
    """The study of this name, new or from before.

    Raises:
        DataError: it searched other ranges, or on other data, code or parameters.
    """
    study.state.mkdir(parents=True, exist_ok=True)
    storage = options.storage or f"sqlite:///{(study.state / 'study.db').resolve()}"
    # Without another seed a search that goes on would draw once more what it has drawn.
    names = {each.study_name for each in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    done = len(optuna.load_study(study_name=study.name, storage=storage).trials) if study.name in names else 0
    sampler = optuna.samplers.TPESampler(
        seed=options.seed + done, n_startup_trials=STARTUP, multivariate=True, constant_liar=options.jobs > 1
    )
    epochs = (
        space.fixed.get("train", {}).get("epochs") or config.read_yaml(study.root / "params.yaml")["train"]["epochs"]
    )
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, round(epochs / RUNGS)), reduction_factor=RUNGS)
    found = optuna.create_study(
        study_name=study.name, storage=storage, sampler=sampler, pruner=pruner, direction="maximize",
        load_if_exists=True,
    )  # fmt: skip
    made_from = digest(study, space)
    if found.user_attrs.setdefault(MADE_FROM, made_from) != made_from:
        what = "is a search of other ranges, or on other data, code or parameters"
        raise DataError(
            study.name, what, "give this one another name: --name, or remove the folder " + str(study.state)
        )
    found.set_user_attr(MADE_FROM, made_from)
    return found


def digest(study: Study, space: SearchSpace) -> str:
    """Of all that trials have in common."""
    (first, *_) = trials.plan(study, space.fixed)
    told = [space.model_dump(), first.name, study.folds]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def requeue_lost(found: optuna.Study) -> None:
    """Ask again for the trials that a killed search left running."""
    for trial in found.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        found.tell(trial.number, state=TrialState.FAIL)
        found.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})


def count_begun(found: optuna.Study) -> int:
    """Trials that run, are finished, stopped or failed; not those that were lost and are run again."""
    every = found.get_trials(deepcopy=False)
    again = {trial.user_attrs[AGAIN] for trial in every if AGAIN in trial.user_attrs}
    return sum(trial.state != TrialState.WAITING and trial.number not in again for trial in every)


def list_ended(found: optuna.Study) -> Sequence[FrozenTrial]:
    """The trials that came to their end, the best first."""
    ended = found.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return sorted(ended, key=lambda trial: (-(trial.value or 0), trial.number))
