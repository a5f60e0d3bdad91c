"""Intervals over patients: against SciPy, by their properties, and how often they hold the truth."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from brainseg.evaluation import bootstrap

SETTINGS = {"resamples": 2000, "seed": 3}


def skewed_dice(rng: np.random.Generator, patients: int) -> np.ndarray:
    """Most patients good, some bad: 88 % Beta(14, 2), 12 % Beta(1, 2); mean 0.88 * 14/16 + 0.12 / 3 = 0.81."""
    return np.where(rng.random(patients) < 0.12, rng.beta(1, 2, patients), rng.beta(14, 2, patients))


def names(number: int) -> list[str]:
    return [f"P{index:03}" for index in range(number)]


def test_summary_of_known_values():
    summary = bootstrap.summarise([0.5, math.nan, 1.0, 0.0, 0.9], names(5), **SETTINGS)
    assert (summary["mean"], summary["median"]) == (pytest.approx(0.6), pytest.approx(0.7))
    assert (summary["n"], summary["undefined"]) == (4, 1)
    assert 0 <= summary["lo"] < 0.6 < summary["hi"] <= 1


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_nothing_defined_gives_nan_and_counts(values):
    summary = bootstrap.summarise(values, names(len(values)), **SETTINGS)
    assert all(math.isnan(summary[key]) for key in ("mean", "median", "lo", "hi"))
    assert (summary["n"], summary["undefined"]) == (0, len(values))


def test_one_patient_has_no_interval_however_many_slices():
    summary = bootstrap.summarise([0.2, 0.4, 0.9], ["P"] * 3, **SETTINGS)
    assert summary["mean"] == pytest.approx(0.5)
    assert math.isnan(summary["lo"]) and math.isnan(summary["hi"])


def test_equal_values_have_an_interval_of_no_width():
    assert bootstrap.interval(np.full(6, 0.75), names(6), **SETTINGS) == (0.75, 0.75)


@pytest.mark.parametrize("patients", [11, 22, 110])
def test_agrees_with_scipy_bca(patients):
    values = skewed_dice(np.random.default_rng(patients), patients)
    ours = bootstrap.interval(values, names(patients), resamples=50_000, seed=1)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=50_000, method="BCa", rng=np.random.default_rng(2))
    assert ours == pytest.approx(theirs.confidence_interval, abs=0.01)


def test_cluster_bootstrap_agrees_with_scipy_on_patients_and_their_sums():
    rng = np.random.default_rng(8)
    sizes = rng.integers(1, 20, 22)
    values = np.repeat(skewed_dice(rng, 22), sizes) + rng.normal(0, 0.05, sizes.sum())
    sums = np.add.reduceat(values, np.cumsum(sizes) - sizes)
    ours = bootstrap.interval(values, np.repeat(names(22), sizes), resamples=50_000, seed=1)
    theirs = stats.bootstrap(
        (np.arange(22),),
        lambda drawn, axis: sums[drawn].sum(axis) / sizes[drawn].sum(axis),
        n_resamples=50_000,
        method="BCa",
        rng=np.random.default_rng(2),
    )
    assert ours == pytest.approx(theirs.confidence_interval, abs=0.01)


def test_slices_of_one_patient_do_not_narrow_the_interval():
    values = skewed_dice(np.random.default_rng(4), 12)
    alone = bootstrap.interval(values, names(12), **SETTINGS)
    fifty_slices_each = bootstrap.interval(np.repeat(values, 50), np.repeat(names(12), 50), **SETTINGS)
    assert fifty_slices_each == pytest.approx(alone)


def test_seeded_and_blind_to_the_order_of_rows():
    values = skewed_dice(np.random.default_rng(6), 20)
    first = bootstrap.interval(values, names(20), **SETTINGS)
    assert bootstrap.interval(values, names(20), **SETTINGS) == first
    assert bootstrap.interval(values[::-1], names(20)[::-1], **SETTINGS) == pytest.approx(first)
    assert bootstrap.interval(values, names(20), resamples=2000, seed=4) != first


@pytest.mark.parametrize("is_ordered", [True, False])
def test_ids_that_are_categories_are_drawn_as_text_is(is_ordered):
    """Also if values are missing, or categories that occur nowhere are between them."""
    values = np.repeat(skewed_dice(np.random.default_rng(6), 20), 3)
    values[[5, 30, 31, 32]] = np.nan
    patients = np.repeat(names(20), 3)
    known = names(30) if is_ordered else names(30)[::-1]
    categories = pd.Series(pd.Categorical(patients, known, ordered=is_ordered))
    expected = bootstrap.summarise(values, patients, **SETTINGS)
    assert bootstrap.summarise(values, categories, **SETTINGS) == expected
    assert bootstrap.summarise(values, pd.Series(patients), **SETTINGS) == expected


def published_coverage() -> dict[int, int]:
    """Patients → percent, from the table in docs/explanation/comparability.md."""
    text = (Path(__file__).parents[2] / "docs/explanation/comparability.md").read_text(encoding="utf-8")
    heading, held = re.search(r"^\| patients \|([\d |]+)\|\n.*\n\| held the truth \|([\d% |]+)\|$", text, re.M).groups()
    return dict(zip(map(int, heading.split("|")), (int(cell.strip(" %")) for cell in held.split("|")), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("patients", [11, 17, 22, 110])
def test_coverage_of_the_true_mean_is_what_is_published(patients, capsys):
    rng, truth, cohorts = np.random.default_rng(11), 0.81, 1000
    hits = 0
    for seed in range(cohorts):
        lo, hi = bootstrap.interval(skewed_dice(rng, patients), names(patients), resamples=1000, seed=seed)
        hits += lo <= truth <= hi
    with capsys.disabled():
        print(f"\n{patients} patients: {hits} of {cohorts} intervals held the true mean")
    assert 100 * hits / cohorts == pytest.approx(published_coverage()[patients], abs=0.6)
