"""Is B better than A, or was it luck? Two models' scores of the same test patients, paired.

"Better" and "worse" need both: a 95 % BCa interval of the mean difference that leaves out zero, and
Wilcoxon's signed-rank test below 5 %. The interval alone errs too often on a few dozen skewed differences
(docs/comparability.md has the simulated rates), and the test alone is of ranks, not of the mean that is
reported. Volume Dice decides; the other metrics are shown.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from brainseg.errors import DataError, Problem, raise_all
from brainseg.evaluation import bootstrap

METRICS = ("dice", "iou", "precision", "recall")  # columns of per_patient.csv; the first decides
RESAMPLES, SEED = 10_000, 3
LEVEL, POWER = 0.05, 0.8
BETTER, WORSE, NOT_TOLD_APART, IDENTICAL = "better", "worse", "not told apart", "identical"
FEWEST = 6  # differences with which a verdict is possible at all: 2 / 2**6 < LEVEL
ABSENT = "absent"  # what a parameter is in a run that does not know it
SAME_PROTOCOL = ("source", "unit", "marks", "empty_rule")  # two runs that differ here answer different questions


class Scores(NamedTuple):
    """One side: its name, the rows of its test patients (per_patient.csv), its protocol and parameters, warnings."""

    name: str
    patients: pd.DataFrame
    protocol: dict
    params: dict
    warnings: Sequence[str] = ()


class Difference(NamedTuple):
    """B - A of one metric over the ``n`` patients for whom both are defined; a win is a patient better with B."""

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
    """``differences``: one a metric, volume Dice first; ``patients``: patient, institution, a, b, difference (Dice).

    ``params``: key -> (of A, of B) where they differ; ``warnings``: why the two may not be comparable.
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


def compare(a: Scores, b: Scores) -> Comparison:
    """Pair the patients of A and B and say what differs.

    Raises:
        DataError: other test patients (named), another grid, or other masks of the same patients.
    """
    _check(a, b)
    left, right = (side.patients.set_index("patient").sort_index() for side in (a, b))
    differences = [difference(left[metric], right[metric], metric) for metric in METRICS]
    table = pd.DataFrame({"institution": left["institution"], "a": left["dice"], "b": right["dice"]})
    table["difference"] = table["b"] - table["a"]
    order = table["difference"].abs().sort_values(ascending=False, kind="stable", na_position="last").index
    return Comparison(
        a.name, b.name, differences, table.loc[order].reset_index(),
        changed(a.params, b.params), [*_warnings(a.protocol, b.protocol), *a.warnings, *b.warnings],
    )  # fmt: skip


def difference(a: pd.Series, b: pd.Series, metric: str = "dice") -> Difference:
    """B - A of one metric, both indexed by patient; NaN where a patient's score is undefined."""
    both = a.notna() & b.notna()
    same = bool(both.any()) and a.equals(b)
    a, b = a[both].to_numpy(float), b[both].to_numpy(float)
    d = b - a
    lo, hi = bootstrap.interval(d, both.index[both].astype(str), resamples=RESAMPLES, seed=SEED)
    p = float(stats.wilcoxon(d).pvalue) if np.any(d) else 1.0
    mean_a, mean_b, mean = (float(np.mean(values)) if len(d) else np.nan for values in (a, b, d))
    median = float(np.median(d)) if len(d) else np.nan
    wins, losses, ties = (int(np.sum(sign)) for sign in (d > 0, d < 0, d == 0))
    return Difference(
        metric, len(d), int((~both).sum()), mean_a, mean_b, mean, lo, hi, median, p, wins, losses, ties, detectable(d),
        IDENTICAL if same else verdict(lo, hi, p),
    )  # fmt: skip


def verdict(lo: float, hi: float, p: float) -> str:
    """BETTER, WORSE or NOT_TOLD_APART: interval and test must agree that there is a difference."""
    if p < LEVEL and lo > 0:
        return BETTER
    if p < LEVEL and hi < 0:
        return WORSE
    return NOT_TOLD_APART


def detectable(differences: np.ndarray) -> float:
    """The mean difference that so many patients, varying like these, would show in 4 of 5 comparisons.

    ``(z(0.975) + z(0.8)) s / sqrt(n)``, the usual approximation for paired means (Julious 2004,
    Stat. Med. 23:1921). NaN where fewer than six differ: Wilcoxon's p cannot fall below LEVEL then.
    """
    if np.count_nonzero(differences) < FEWEST:
        return float("nan")
    z = stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER)
    return float(z * np.std(differences, ddof=1) / np.sqrt(len(differences)))


def changed(a: Mapping, b: Mapping, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """``{"train": {"loss": "bce"}}`` against ``"dice"`` → ``{"train.loss": ("bce", "dice")}``."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*a, *(key for key in b if key not in a)]:
        old, new = a.get(key, ABSENT), b.get(key, ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= changed(old, new, f"{prefix}{key}.")
        elif old != new:
            found[f"{prefix}{key}"] = (old, new)
    return found


def _check(a: Scores, b: Scores) -> None:
    fix = "compare runs of one split (split.seed, split.test_fold, split.patients), or cross-validations"
    problems = []
    for one, other in ((a, b), (b, a)):
        only = one.patients.loc[~one.patients["patient"].isin(other.patients["patient"]), "patient"]
        if len(only):
            what = f"{len(only)} of its {len(one.patients)} test patients are not in {other.name}: {_listed(only)}"
            problems.append(Problem(one.name, what, fix))
    raise_all(problems)
    if a.protocol["grid"] != b.protocol["grid"]:
        what = f"its grid is {b.protocol['grid']} pixels, {a.name} has {a.protocol['grid']}"
        raise DataError(b.name, what, "set preprocess.size alike; a network may work at half of it by network.stem")
    pairs = a.patients.merge(b.patients, on="patient", suffixes=("_a", "_b"))
    other = (pairs["tumour_pixels_a"] != pairs["tumour_pixels_b"]) | (pairs["slices_a"] != pairs["slices_b"])
    if other.any():
        what = f"{other.sum()} patients were scored on other slices or masks than in {a.name}"
        fix = "compare runs of the same data and one split"
        raise DataError(b.name, f"{what}: {_listed(pairs.loc[other, 'patient'])}", fix)


def _listed(patients: pd.Series, most: int = 20) -> str:
    names = [str(patient) for patient in patients[:most]]
    return ", ".join(names) + (f" and {len(patients) - most} more" if len(patients) > most else "")


def _warnings(a: dict, b: dict) -> list[str]:
    return [
        f"the protocols differ in {key.replace('_', ' ')}: {_said(a.get(key))} against {_said(b.get(key))}"
        for key in SAME_PROTOCOL
        if a.get(key) != b.get(key)
    ]


def _said(value: Any) -> str:
    return "; ".join(value) or "none" if isinstance(value, list) else str(value)
