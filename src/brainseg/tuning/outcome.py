"""What a search has found, and how much of it chance explains."""

import math
import statistics
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

import optuna
import pandas as pd

from brainseg import config
from brainseg.experiments import comparison, comparison_page, revision, variants
from brainseg.experiments.comparison import Comparison
from brainseg.tuning import search, trials
from brainseg.tuning.progress import Board
from brainseg.tuning.space import SearchSpace
from brainseg.tuning.trials import Experiment, Study


class Outcome(NamedTuple):
    """``table``: a row for each trial; ``best``: values by dotted name; ``repeats``: params.yaml with other seeds.

    ``importance``: the share of the objective's variance that each parameter explains, empty for few trials.
    ``verdict``: best and default on the test fold, which no trial saw; None if it was not asked for.
    """

    study: Study
    table: pd.DataFrame
    best: dict[str, Any]
    score: float
    repeats: list[float]
    importance: dict[str, float]
    verdict: Comparison | None


def repeat_default(
    study: Study, space: SearchSpace, times: int, board: Board, devices: SimpleQueue[dict[str, str]]
) -> list[float]:
    """The objective of params.yaml with the fixed values, trained with ``times`` seeds, the first its own."""
    own = config.merge(config.read_yaml(study.root / "params.yaml"), space.fixed)["train"]["seed"]
    scores, device = [], devices.get()
    for number in range(times):
        board.begin(-1 - number, {"params.yaml, train.seed": own + number})
        overrides = config.merge(space.fixed, {"train": {"seed": own + number}} if number else {})
        planned = trials.plan(study, overrides)
        score = trials.run(study, planned, lambda epoch, dice, n=number: board.update(-1 - n, epoch, dice), device)
        scores.append(score or 0.0)
        board.end(-1 - number, "done", score)
    devices.put(device)
    return scores


def compare_on_unseen(
    study: Study, space: SearchSpace, best: Mapping[str, Any], devices: SimpleQueue[dict[str, str]]
) -> Comparison:
    """Train default and best on all patients outside the test fold, and compare them on those in it."""
    device, names = devices.get(), []
    for name, overrides in {
        "default": space.fixed,
        "best": config.merge(space.fixed, variants.nest(best)),
    }.items():
        key = revision.key(revision.reader(revision.WORKSPACE, study.root), overrides)
        names.append(f"tune-{study.name}-{name}-{key}")
        trials.run(study, [Experiment(names[-1], overrides)], lambda epoch, dice: False, device)
    devices.put(device)
    return comparison.compare(*(revision.scores(name, study.root) for name in names))


def gather(
    study: Study, found: optuna.Study, repeats: Sequence[float], verdict: Comparison | None
) -> Outcome:  # fmt: skip
    best = search.list_ended(found)[0]
    return Outcome(
        study,
        tabulate(found),
        dict(best.params),
        float(best.value or 0),
        list(repeats),
        measure_importance(found),
        verdict,
    )


def tabulate(found: optuna.Study) -> pd.DataFrame:
    """trial, state, dice, epochs, experiments, and a column for each parameter; the best trial first."""
    states = {"COMPLETE": "done", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
    rows = []
    for trial in found.trials:
        told = trial.intermediate_values
        rows.append({
            "trial": trial.number,
            "state": states[trial.state.name],
            "dice": trial.value if trial.state.name == "COMPLETE" else math.nan,
            "epochs": max(told, default=0),
            **trial.params,
            "experiments": " ".join(trial.user_attrs.get(search.EXPERIMENTS, [])),
            "reason": trial.user_attrs.get(search.REASON, ""),
        })  # fmt: skip
    return pd.DataFrame(rows).sort_values(["dice", "trial"], ascending=[False, True], ignore_index=True)


def measure_importance(found: optuna.Study) -> dict[str, float]:
    """fANOVA (Hutter et al., 2014) over the trials that came to their end; nothing of fewer than four."""
    if len(search.list_ended(found)) < 4:
        return {}
    return optuna.importance.get_param_importances(found, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0))


def expect_by_chance(trials_run: int, deviation: float) -> float:
    """How far the best of so many trials lies above their mean if nothing but the seed differs.

    The expected largest of n normal values (Blom, 1958).
    """
    if trials_run < 2:
        return 0.0
    return deviation * statistics.NormalDist().inv_cdf((trials_run - 0.375) / (trials_run + 0.25))


def describe(o: Outcome) -> list[str]:
    """What the search found, what chance explains of it, and the verdict, in sentences."""
    counts = o.table["state"].value_counts()
    told = ", ".join(f"{counts[state]} {state}" for state in ("done", "stopped", "failed") if counts.get(state))
    values = ", ".join(f"{name} {comparison_page.format_param(value)}" for name, value in o.best.items())
    lines = [f"{len(o.table)} trials: {told}.", f"The best, {o.score:.4f} on inner test patients: {values}."]
    if len(o.repeats) > 1:
        mean, deviation = statistics.mean(o.repeats), statistics.stdev(o.repeats)
        chance, gain = expect_by_chance(len(o.table), deviation), o.score - mean
        lines.append(
            f"params.yaml with {len(o.repeats)} seeds: {mean:.4f}, standard deviation {deviation:.4f}. The best is "
            f"{gain:+.4f} from that. Of {len(o.table)} trials that differ by chance alone the best would be "
            f"{chance:+.4f} from it{_conclude(gain, chance)}."
        )
    if o.verdict:
        d = o.verdict.differences[0]
        lines.append(
            f"On {d.n} patients of the test fold, which no trial saw: {comparison.describe(d)} "
            f"(brainseg compare {o.verdict.a} {o.verdict.b})."
        )
    return lines


def _conclude(gain: float, chance: float) -> str:
    if gain <= 0:
        return ", so the search has found nothing better"
    return f": chance explains {min(1.0, chance / gain):.0%} of the gain"
