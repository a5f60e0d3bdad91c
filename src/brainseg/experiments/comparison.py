"""A paired comparison of two models on the same test patients.

The verdict is "better" or "worse" only if both hold: the 95 % BCa interval of the mean difference excludes zero,
and Wilcoxon's signed-rank test gives p < 0.05. The interval alone errs too often with a few dozen skewed
differences (docs/explanation/comparability.md has the simulated rates). The test alone is about ranks, not about the
mean that is reported. Volume Dice decides; the other metrics are shown.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from brainseg.errors import DataError, show_some
from brainseg.evaluation import bootstrap

METRICS = ("dice", "iou", "precision", "recall")  # columns of per_patient.csv; the first decides
LATER_METRICS = ("flair_only_dice", "stripped_dice")  # which not every table has
RESAMPLES, SEED = 10_000, 3
LEVEL, POWER = 0.05, 0.8
BETTER, WORSE, NOT_SIGNIFICANT, IDENTICAL = "better", "worse", "no significant difference", "identical"
EXACT, EXACT_WITH_TIES = 50, 13  # differences up to which Wilcoxon's p is exact; with equal or zero ones; as in SciPy
FEWEST = 6  # with fewer differences Wilcoxon's p cannot fall below LEVEL: 2 / 2**6 < LEVEL < 2 / 2**5
ABSENT = "absent"  # stands for a parameter that a run does not have
SAME_PROTOCOL = ("source", "unit", "marks", "empty_rule")  # a difference here gets a warning
NAMED = 3  # patients in an error


class ComparedProtocol(BaseModel):
    """What a comparison reads of a protocol, of any version."""

    model_config = ConfigDict(frozen=True, strict=True)

    source: str
    unit: str
    grid: int
    marks: list[str]
    empty_rule: str


class Scores(NamedTuple):
    """One side of a comparison: name, rows of its test patients (per_patient.csv), protocol, parameters, warnings."""

    name: str
    patients: pd.DataFrame
    protocol: ComparedProtocol
    params: dict
    warnings: Sequence[str] = ()


class Difference(NamedTuple):
    """B - A of one metric over the ``n`` patients with both scores defined.

    ``lo`` and ``hi``: the 95 % interval of ``mean``. ``wins``: the patients with a higher score in B.
    ``detectable``: see ``estimate_detectable``.
    """

    metric: str
    n: int
    undefined: int
    mean_a: float
    mean_b: float
    mean: float
    lo: float
    hi: float
    median: float
    p: float
    wins: int
    losses: int
    ties: int
    detectable: float
    verdict: str


class Comparison(NamedTuple):
    """``differences``: one per metric, volume Dice first; ``patients``: patient, institution, a, b, difference (Dice).

    ``params``: key -> (value in A, value in B) where they differ; ``warnings``: why the two may not be comparable.
    """

    a: str
    b: str
    differences: list[Difference]
    patients: pd.DataFrame
    params: dict[str, tuple[Any, Any]]
    warnings: list[str]

    @property
    def verdict(self) -> str:
        return self.differences[0].verdict


def describe_one_split(a: Scores, b: Scores) -> str:
    """What to do about runs with other test patients if nothing but their scores is known."""
    return "compare runs of one split (split.seed, split.test_fold, split.patients), or cross-validations"


def compare(
    a: Scores, b: Scores, *, suggest: Callable[[Scores, Scores], str] = describe_one_split, comparisons: int = 1
) -> Comparison:
    """Pair the patients of A and B and measure the differences.

    Args:
        suggest: what to do about other test patients, for the error.
        comparisons: how many are made together, see ``estimate_detectable``.

    Raises:
        DataError: the two have different test patients (some are named), another grid, or other masks of the same
            patients.
    """
    _check(a, b, suggest)
    left, right = (side.patients.set_index("patient").sort_index() for side in (a, b))
    measured = [*METRICS, *(metric for metric in LATER_METRICS if metric in left and metric in right)]
    differences = [measure_difference(left[metric], right[metric], metric, comparisons) for metric in measured]
    table = pd.DataFrame({"institution": left["institution"], "a": left["dice"], "b": right["dice"]})
    table["difference"] = table["b"] - table["a"]
    order = table["difference"].abs().sort_values(ascending=False, kind="stable", na_position="last").index
    return Comparison(
        a.name, b.name, differences, table.loc[order].reset_index(),
        diff_params(a.params, b.params), [*_warnings(a.protocol, b.protocol), *a.warnings, *b.warnings],
    )  # fmt: skip


def measure_difference(a: pd.Series, b: pd.Series, metric: str = "dice", comparisons: int = 1) -> Difference:
    """B - A of one metric; both are indexed by patient and hold NaN where a score is undefined."""
    both = a.notna() & b.notna()
    same = bool(both.any()) and a.equals(b)
    a, b = a[both].to_numpy(float), b[both].to_numpy(float)
    d = b - a
    lo, hi = bootstrap.interval(d, both.index[both].astype(str), resamples=RESAMPLES, seed=SEED)
    p = signed_rank_p(d) if np.any(d) else 1.0
    mean_a, mean_b, mean = (float(np.mean(values)) if len(d) else np.nan for values in (a, b, d))
    median = float(np.median(d)) if len(d) else np.nan
    wins, losses, ties = (int(np.sum(sign)) for sign in (d > 0, d < 0, d == 0))
    return Difference(
        metric, len(d), int((~both).sum()), mean_a, mean_b, mean, lo, hi, median, p, wins, losses, ties,
        estimate_detectable(d, comparisons), IDENTICAL if same else decide(lo, hi, p),
    )  # fmt: skip


def signed_rank_p(differences: np.ndarray) -> float:
    """The two-sided p of Wilcoxon's signed-rank test, to the bit that of SciPy; not all differences may be zero.

    The exact p is computed here: to import ``scipy.stats`` takes longer than all the rest of a comparison.
    """
    signed = differences[differences != 0]
    sizes, place, counts = np.unique(np.abs(signed), return_inverse=True, return_counts=True)
    if len(differences) > (EXACT if len(sizes) == len(differences) else EXACT_WITH_TIES):
        from scipy import stats

        return float(stats.wilcoxon(differences).pvalue)
    ranks = (2 * np.cumsum(counts) - counts + 1)[place]  # doubled, so that those of equal sizes are whole numbers too
    chances = np.ones(1)  # of each sum of positive ranks, if each sign is a toss; exact: multiples of 1 / 2**50
    for rank in ranks:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    total = ranks[signed > 0].sum()
    return float(min(1.0, 2 * chances[: total + 1].sum(), 2 * chances[total:].sum()))


def decide(lo: float, hi: float, p: float) -> str:
    """BETTER or WORSE if interval and test agree that there is a difference, else NOT_SIGNIFICANT."""
    if p < LEVEL and lo > 0:
        return BETTER
    if p < LEVEL and hi < 0:
        return WORSE
    return NOT_SIGNIFICANT


def describe(d: Difference) -> str:
    """``better, p = 0.010, +0.016 [+0.008, +0.027]``: the verdict with p, mean difference and interval."""
    if d.verdict == IDENTICAL:
        return IDENTICAL
    numbers = f"p {'<' if d.p < 0.001 else '='} {max(d.p, 0.001):.3f}, {format_interval(d)}"
    return f"{d.verdict} ({numbers})" if d.verdict == NOT_SIGNIFICANT else f"{d.verdict}, {numbers}"


def format_interval(d: Difference) -> str:
    return f"{format_signed(d.mean)} [{format_signed(d.lo)}, {format_signed(d.hi)}]"


def format_signed(value: float) -> str:
    return "undefined" if pd.isna(value) else f"{value + 0.0:+.3f}"


def estimate_detectable(differences: np.ndarray, comparisons: int = 1) -> float:
    """The true mean difference that is found in 4 of 5 comparisons of this size and variance.

    ``(z(0.975) + z(0.8)) s / sqrt(n)``, the usual approximation for paired means (Julious 2004,
    Stat. Med. 23:1921). NaN if fewer patients differ than ``count_fewest`` says.

    Args:
        comparisons: made together, which share the 5 % of false alarms.
    """
    if np.count_nonzero(differences) < count_fewest(comparisons):
        return float("nan")
    z = NormalDist().inv_cdf(1 - LEVEL / comparisons / 2) + NormalDist().inv_cdf(POWER)
    return float(z * np.std(differences, ddof=1) / np.sqrt(len(differences)))


def count_fewest(comparisons: int = 1) -> int:
    """How many patients must differ for a verdict: of n that all improve Wilcoxon's p is 2 / 2^n."""
    return next(n for n in itertools.count(FEWEST) if comparisons * 2 / 2**n < LEVEL)


def diff_params(a: Mapping, b: Mapping, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """What differs: ``{"train": {"loss": "bce"}}`` and ``"dice"`` → ``{"train.loss": ("bce", "dice")}``."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*a, *(key for key in b if key not in a)]:
        old, new = a.get(key, ABSENT), b.get(key, ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= diff_params(old, new, f"{prefix}{key}.")
        elif old != new:
            found[f"{prefix}{key}"] = (old, new)
    return found


def _check(a: Scores, b: Scores, suggest: Callable[[Scores, Scores], str]) -> None:
    if missing := [*_describe_missing(a, b), *_describe_missing(b, a)]:
        raise DataError(b.name, f"its test patients are not those of {a.name}: {'; '.join(missing)}", suggest(a, b))
    if a.protocol.grid != b.protocol.grid:
        what = f"its grid is {b.protocol.grid} pixels, {a.name} has {a.protocol.grid}"
        raise DataError(b.name, what, "set the same preprocess.size; network.stem lets a network work at half of it")
    pairs = a.patients.merge(b.patients, on="patient", suffixes=("_a", "_b"))
    other = (pairs["tumour_pixels_a"] != pairs["tumour_pixels_b"]) | (pairs["slices_a"] != pairs["slices_b"])
    if other.any():
        what = f"{other.sum()} patients were scored on other slices or masks than in {a.name}"
        fix = "compare runs of the same data and one split"
        raise DataError(b.name, f"{what}: {_list_names(pairs.loc[other, 'patient'])}", fix)


def _describe_missing(one: Scores, other: Scores) -> list[str]:
    """How many test patients of ``one`` the other has not, with some names; nothing if it has all."""
    only = one.patients.loc[~one.patients["patient"].isin(other.patients["patient"]), "patient"]
    count = f"{len(only)} of the {len(one.patients)} of {one.name} are not in {other.name}"
    return [f"{count} ({_list_names(only)})"] if len(only) else []


def _list_names(patients: pd.Series) -> str:
    return show_some([str(patient) for patient in patients], NAMED)


def _warnings(a: ComparedProtocol, b: ComparedProtocol) -> list[str]:
    pairs = {key: (getattr(a, key), getattr(b, key)) for key in SAME_PROTOCOL}
    return [
        f"the protocols differ in {key.replace('_', ' ')}: {_format_value(first)} and {_format_value(second)}"
        for key, (first, second) in pairs.items()
        if first != second
    ]


def _format_value(value: Any) -> str:
    return "; ".join(value) or "none" if isinstance(value, list) else str(value)
