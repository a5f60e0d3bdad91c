"""What a search has found, and how much of it chance explains."""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import optuna
import pandas as pd

from brainseg import config
from brainseg.experiments import comparison, revision, variants
from brainseg.experiments.comparing import comparison_page
from brainseg.experiments.comparison import Comparison
from brainseg.experiments.running import runner as running
from brainseg.experiments.running.progress import DONE, Board
from brainseg.experiments.running.runner import Runner, Seen
from brainseg.tuning import search, trials
from brainseg.tuning.space import SearchSpace
from brainseg.tuning.trials import Study

FEWEST = 4  # trials of which an importance is measured
STATES = {"COMPLETE": "done", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


class Outcome(NamedTuple):
    """``table``: a row for each trial; ``best``: values by dotted name; ``repeats``: the default with other seeds.

    ``fixed``: values of all trials by dotted name; the default is params.yaml with them. ``importance``: see
    ``measure_importance``. ``verdict``: best and default on the test fold; None if it was not asked for.
    """

    study: Study
    fixed: dict[str, Any]
    table: pd.DataFrame
    best: dict[str, Any]
    score: float
    repeats: list[float]
    importance: dict[str, float]
    verdict: Comparison | None


def repeat_default(study: Study, space: SearchSpace, times: int, board: Board, runner: Runner) -> list[float]:
    """The objective of the default, trained with ``times`` seeds, the first its own."""
    own = config.merge(search.read_params(study), space.fixed)["train"]["seed"]

    def repeat(number: int) -> float:
        overrides = config.merge(space.fixed, {"train": {"seed": own + number}} if number else {})
        what = f"the default, seed {own + number}"
        score = _run(study, trials.plan(study, overrides), board, (-1 - number, what), runner)  # trials count from 0
        return score or 0.0

    return running.work(runner, [partial(repeat, number) for number in range(times)])


def compare_on_unseen(
    study: Study, space: SearchSpace, best: Mapping[str, Any], board: Board, runner: Runner
) -> Comparison:  # fmt: skip
    """Train default and best on all patients outside the test fold, and compare them on those in it."""
    both = {"default": space.fixed, "best": config.merge(space.fixed, variants.nest(best))}
    planned = [trials.plan_whole(study, name, overrides) for name, overrides in both.items()]
    rows = [(-101 - row, f"the {name}, on all patients outside the test fold") for row, name in enumerate(both)]
    acts = [partial(_run, study, [each], board, row, runner) for each, row in zip(planned, rows, strict=True)]
    running.work(runner, acts)
    return comparison.compare(*(revision.scores(each.name, study.root) for each in planned))


def _run(
    study: Study, planned: Sequence[trials.Experiment], board: Board, row: tuple[int, str], runner: Runner
) -> float | None:  # fmt: skip
    """Run the experiments of a row of the board: its number, and what it says."""
    number, what = row
    epochs = board.epochs // study.folds

    def watch(fold: int, seen: Seen) -> bool:
        board.see(number, search.shift(seen, fold * epochs))
        return False

    board.begin(number, what)
    score = trials.run(study, planned, watch, runner)
    board.end(number, DONE, score)
    return score


def gather(
    study: Study, space: SearchSpace, found: optuna.Study, repeats: Sequence[float], verdict: Comparison | None
) -> Outcome:  # fmt: skip
    best = search.list_ended(found)[0]
    return Outcome(
        study, config.flatten(space.fixed), tabulate(found, space), space.shorten(best.params), float(best.value or 0),
        list(repeats), measure_importance(found), verdict,
    )  # fmt: skip


def tabulate(found: optuna.Study, space: SearchSpace) -> pd.DataFrame:
    """trial, state, dice, epochs, a column for each parameter, experiments, reason; the best trial first."""
    rows = []
    for trial in search.list_kept(found):
        told = trial.intermediate_values
        rows.append({
            "trial": trial.number,
            "state": STATES[trial.state.name],
            "dice": trial.value if trial.state.name == "COMPLETE" else math.nan,
            "epochs": max(told, default=0),
            **{name: "null" if value is None else value for name, value in space.shorten(trial.params).items()},
            "experiments": " ".join(trial.user_attrs.get(search.EXPERIMENTS, [])),
            "reason": trial.user_attrs.get(search.REASON, ""),
        })  # fmt: skip
    return pd.DataFrame(rows).sort_values(["dice", "trial"], ascending=[False, True], ignore_index=True)


def measure_importance(found: optuna.Study) -> dict[str, float]:
    """How much of the variance of the trials that came to their end each parameter explains, by fANOVA.

    Hutter et al., 2014. What a parameter explains alone; the rest is of several together. Nothing of few trials, or of
    trials that all score the same.
    """
    if len(search.list_ended(found)) < FEWEST:
        return {}
    try:
        shares = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(found)
        return dict(sorted(shares.items(), key=lambda pair: -pair[1]))
    except RuntimeError:  # no variance at all
        return {}


def expect_by_chance(count: int, deviation: float) -> float:
    """How far the best of so many trials lies above their mean if nothing but the seed differs.

    The expected largest of n normal values (Blom, 1958).
    """
    return deviation * statistics.NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0


def estimate_deviation(values: Sequence[float]) -> float:
    """The standard deviation of normal values, without the bias that it has of few of them (c4)."""
    n = len(values)
    c4 = math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))
    return statistics.stdev(values) / c4


def describe(o: Outcome) -> list[str]:
    """What the search found, what chance explains of it, and the verdict, in sentences."""
    counts = o.table["state"].value_counts()
    told = ", ".join(f"{counts[state]} {state}" for state in ("done", "stopped", "failed") if counts.get(state))
    values = ", ".join(f"{name} {comparison_page.format_param(value)}" for name, value in o.best.items())
    fixed = ", ".join(f"{name} {comparison_page.format_param(value)}" for name, value in o.fixed.items())
    shared = f" All with {fixed}; the default is params.yaml with that." if fixed else ""
    lines = [
        f"{len(o.table)} trials: {told}.{shared}",
        f"The best, {o.score:.4f} on the patients of {o.study.folds} of {o.study.inner_folds} inner folds: {values}.",
    ]  # fmt: skip
    if len(o.repeats) > 1:
        lines.append(_weigh(o, int(counts.get("done", 0) + counts.get("stopped", 0))))
    if o.verdict:
        d = o.verdict.differences[0]
        lines += [f"WARNING: {warning}" for warning in o.verdict.warnings]
        lines.append(
            f"Best and default trained on all patients outside the test fold, with the same fixed values, on its {d.n} "
            f"patients, whom no trial was trained on or scored by: {comparison.describe(d)} "
            f"(brainseg compare {o.verdict.a} {o.verdict.b})."
        )
    return lines


def _weigh(o: Outcome, count: int) -> str:
    """How much of the gain the noise floor explains. ``count``: trials that might have been the best."""
    mean, deviation = statistics.mean(o.repeats), estimate_deviation(o.repeats)
    chance, gain = expect_by_chance(count, deviation), o.score - mean
    told = (
        f"The default with {len(o.repeats)} seeds: {mean:.4f}, standard deviation {deviation:.4f}, itself uncertain "
        f"of so few. The best is {gain:+.4f} from that; the best of {count} trials that differ by chance alone would "
        f"be about {chance:+.4f} from it"
    )
    if gain <= 0:
        return f"{told}: the search has found nothing better."
    return f"{told}: chance explains about {min(1.0, chance / gain):.0%} of the gain."
