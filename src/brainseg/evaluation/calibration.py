"""The calibration under which masks are most likely: of a run by validation patients, of folds by each other."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from scipy import optimize

from brainseg.data.dataset import Changed
from brainseg.inference import probabilities
from brainseg.inference.probabilities import Calibration

LEAST, MOST = 0.25, 8.0  # temperatures
FARTHEST = 4.0  # bias, either way
DECIMALS = 3
NONE = Calibration()  # changes nothing
MIDDLES = np.clip(np.arange(1, 256), None, 254.5) / 255  # the probability that a level stands for


def fit(
    joint: np.ndarray, temperature: float | Literal["auto"] = "auto", bias: float | Literal["auto"] = "auto"
) -> Calibration:
    """Minimise the negative log-likelihood over the pixels with a probability above 0, of what is ``auto``.

    Those with 0, nearly all, are surely no tumour however probabilities are calibrated.

    Args:
        joint: (2, 256) pixels without and with tumour for each probability in 255ths, see ``metrics.histogram``.

    Returns:
        A temperature between LEAST and MOST and a bias of at most FARTHEST; where there are no pixels of both kinds,
        what is ``auto`` changes nothing.
    """
    given = Calibration(1.0 if temperature == "auto" else temperature, 0.0 if bias == "auto" else bias)
    found = joint[:, 1:].astype(float)
    if not found.sum(axis=1).all() or "auto" not in (temperature, bias):
        return given
    odds = np.log(MIDDLES) - np.log(1 - MIDDLES)

    def loss(place: np.ndarray) -> float:
        logits = odds / np.exp(place[0]) + place[1]
        return float((found[0] * np.logaddexp(0, logits) + found[1] * np.logaddexp(0, -logits)).sum() / found.sum())

    start = np.array([np.log(given.temperature), given.bias])
    free = [(np.log(LEAST), np.log(MOST)) if temperature == "auto" else (start[0],) * 2]
    free += [(-FARTHEST, FARTHEST) if bias == "auto" else (start[1],) * 2]
    best = optimize.minimize(loss, start, bounds=free, method="L-BFGS-B").x
    return Calibration(round(float(np.exp(best[0])), DECIMALS), round(float(best[1]), DECIMALS))


def apply(arrays: dict[str, Any], calibration: Calibration) -> dict[str, Any]:
    """The arrays of ``evaluate.evaluate`` with probabilities that are calibrated when they are read.

    ``flair`` holds intensities and stays.
    """
    if calibration == NONE:
        return arrays
    calibrate = partial(probabilities.calibrate, calibration=calibration)
    return {name: array if name == "flair" else Changed(array, calibrate) for name, array in arrays.items()}


def apply_to_counts(joint: np.ndarray, calibration: Calibration) -> np.ndarray:
    """The joint histogram (2, 256) that calibrated probabilities have."""
    levels = probabilities.calibrate(np.arange(256, dtype=np.uint8), calibration)
    return np.stack([np.bincount(levels, weights=kind, minlength=256) for kind in joint])


def cross_fit(
    joints: Sequence[np.ndarray], temperature: float | Literal["auto"] = "auto", bias: float | Literal["auto"] = "auto"
) -> np.ndarray:
    """The joint histogram of several folds, each calibrated by the others: what a new patient may expect."""
    total = np.sum(joints, axis=0)
    return np.sum([apply_to_counts(joint, fit(total - joint, temperature, bias)) for joint in joints], axis=0)


def move(threshold: float, old: Calibration, new: Calibration) -> float:
    """The threshold under ``new`` that cuts where ``threshold`` cuts under ``old``."""
    logit = (np.log(threshold / (1 - threshold)) - old.bias) * old.temperature
    return float(1 / (1 + np.exp(-logit / new.temperature - new.bias)))
