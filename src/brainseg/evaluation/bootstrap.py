"""Means with 95 % intervals that resample patients, never slices.

Slices of one patient resemble each other, so patients are resampled: a resample draws patients with replacement
and pools all their slices (cluster bootstrap; Davison & Hinkley 1997, section 3.8). The interval is BCa (Efron 1987,
JASA 82:171): on skewed Dice (88 % Beta(14, 2), 12 % Beta(1, 2)) it held the true mean in 78, 85, 88 and 95 % of
simulated cohorts of 11, 17, 22 and 110 patients (tests/evaluation/test_bootstrap.py;
docs/explanation/comparability.md). With few patients an interval is too narrow.
"""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
NORMAL = NormalDist()
PART = 500  # resamples at a time


def summarise(values: ArrayLike, patients: ArrayLike, *, resamples: int, seed: int) -> dict[str, float | int]:
    """Mean, median, 95 % interval of the mean, and how many values there are and are not.

    Args:
        values: one number per patient or slice; NaN if it is undefined.
        patients: the patient of each value.

    Returns:
        ``{mean, median, lo, hi, n, undefined}`` over the ``n`` defined values; NaN if there are too few of them.
    """
    numbers = np.asarray(values, float)
    defined = ~np.isnan(numbers)
    kept = numbers[defined]
    owners = patients if isinstance(patients, pd.Series) else np.asarray(patients)
    lo, hi = interval(kept, owners[defined], resamples=resamples, seed=seed)
    mean, median = (float(np.mean(kept)), float(np.median(kept))) if kept.size else (float("nan"), float("nan"))
    return {"mean": mean, "median": median, "lo": lo, "hi": hi, "n": int(kept.size), "undefined": int((~defined).sum())}


def interval(values: np.ndarray, patients: ArrayLike, *, resamples: int, seed: int) -> tuple[float, float]:
    """BCa interval of the mean of ``values`` from ``resamples`` draws of ``patients``.

    NaN for fewer than two patients: one patient does not show how much patients vary.
    """
    _, member = np.unique(_sort_keys(patients), return_inverse=True)
    sums, sizes = np.bincount(member, weights=values), np.bincount(member)
    if len(sizes) < 2:
        return float("nan"), float("nan")
    means = np.concatenate([(drawn @ sums) / (drawn @ sizes) for drawn in _draw(len(sizes), resamples, seed)])
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    levels = _bca_levels(means, sums.sum() / sizes.sum(), left_out)
    lo, hi = np.quantile(means, levels)
    return float(lo), float(hi)


def _sort_keys(patients: ArrayLike) -> np.ndarray:
    """Of each patient the id as text, or what sorts as it does: its number, if ids are categories in their order."""
    if isinstance(patients, pd.Series) and isinstance(patients.dtype, pd.CategoricalDtype) and patients.cat.ordered:
        return patients.cat.codes.to_numpy()
    return np.asarray(patients, str)


def _draw(patients: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """(n, patients): how often each patient is drawn; in parts, because thousands of patients fill the memory."""
    generator, chances = np.random.default_rng(seed), np.full(patients, 1 / patients)
    for start in range(0, resamples, PART):
        yield generator.multinomial(patients, chances, size=min(PART, resamples - start))


def _bca_levels(means: np.ndarray, mean: float, left_out: np.ndarray) -> np.ndarray:
    """Levels of the quantiles of the resampled means: 2.5 % and 97.5 %, corrected for bias and skew.

    ``left_out`` holds the mean without each patient in turn (jackknife); its skew is the acceleration.
    """
    below = (np.mean(means < mean) + np.mean(means <= mean)) / 2
    bias = NORMAL.inv_cdf(float(np.clip(below, 0.5 / len(means), 1 - 0.5 / len(means))))
    deviation = left_out.mean() - left_out
    spread = np.sum(deviation**2)
    acceleration = np.sum(deviation**3) / (6 * spread**1.5) if spread > 0 else 0.0
    tail = NORMAL.inv_cdf((1 - CONFIDENCE) / 2)
    return np.array([NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in (bias + tail, bias - tail)])
