"""The calibration under which masks are most likely: of a run by validation patients, of folds by each other."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from scipy import optimize, special

from brainseg.config import Evaluate
from brainseg.data.dataset import Changed
from brainseg.inference import probabilities
from brainseg.inference.probabilities import Calibration

LEAST, MOST = 0.25, 8.0  # temperatures
FARTHEST = 4.0  # bias, either way
MOST_SKEWED = 0.95  # either way; at 1 all probabilities on one side of 0.5 would come together
DECIMALS = 3
LEAST_THRESHOLD = 1e-9
NONE = Calibration()  # changes nothing
MIDDLES = np.clip(np.arange(1, 256), None, 254.5) / 255  # the probability that a level stands for


class Asked(NamedTuple):
    """A calibration whose ``auto`` fields are to be fitted."""

    temperature: float | Literal["auto"] = "auto"
    bias: float | Literal["auto"] = "auto"
    skew: float | Literal["auto"] = 0.0

    @classmethod
    def read(cls, params: Evaluate) -> Self:
        return cls(params.temperature, params.bias, params.skew)


PLATT = Asked()


def fit(joint: np.ndarray, asked: Asked = PLATT) -> Calibration:
    """Minimise the negative log-likelihood over the pixels with a probability above 0, of what is ``auto``.

    Those with 0, nearly all, are surely no tumour however probabilities are calibrated.

    Args:
        joint: (2, 256) pixels without and with tumour for each probability in 255ths, see ``metrics.histogram``.

    Returns:
        A temperature between LEAST and MOST, a bias of at most FARTHEST and a skew of at most MOST_SKEWED; where there
        are no pixels of both kinds, what is ``auto`` changes nothing.
    """
    given = Calibration(**{name: value for name, value in asked._asdict().items() if value != "auto"})
    found = joint[:, 1:].astype(float)
    if not found.sum(axis=1).all() or "auto" not in asked:
        return given
    odds, height = np.log(MIDDLES) - np.log(1 - MIDDLES), np.log(4 * MIDDLES * (1 - MIDDLES))

    def loss(place: np.ndarray) -> float:
        logits = (odds + place[2] * height) / np.exp(place[0]) + place[1]
        return float((found[0] * np.logaddexp(0, logits) + found[1] * np.logaddexp(0, -logits)).sum() / found.sum())

    start = np.array([np.log(given.temperature), given.bias, given.skew])
    widest = (np.log(LEAST), np.log(MOST)), (-FARTHEST, FARTHEST), (-MOST_SKEWED, MOST_SKEWED)
    free = [
        bounds if value == "auto" else (fixed, fixed) for bounds, value, fixed in zip(widest, asked, start, strict=True)
    ]
    best = optimize.minimize(loss, start, bounds=free, method="L-BFGS-B").x
    return Calibration(*(round(float(each), DECIMALS) for each in (np.exp(best[0]), best[1], best[2])))


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


def cross_fit(joints: Sequence[np.ndarray], asked: Asked = PLATT) -> np.ndarray:
    """The joint histogram of several folds, each calibrated by the others: what a new patient may expect."""
    total = np.sum(joints, axis=0)
    return np.sum([apply_to_counts(joint, fit(total - joint, asked)) for joint in joints], axis=0)


def move(threshold: float, old: Calibration, new: Calibration) -> float:
    """The threshold under ``new``, above 0 and below 1, that cuts where ``threshold`` cuts under ``old``."""
    logit = (np.log(threshold / (1 - threshold)) - old.bias) * old.temperature
    if old.skew:
        far = abs(logit) / (1 - abs(old.skew)) + 1  # a skew shrinks a logit by no more than that
        logit = optimize.brentq(lambda own: own + old.skew * _height(own) - logit, -far, far)
    logit = logit + new.skew * _height(logit)
    return float(np.clip(special.expit(logit / new.temperature + new.bias), LEAST_THRESHOLD, 1 - LEAST_THRESHOLD))


def _height(logit: float) -> float:
    """ln(4 p (1 - p)), of the probability p with this logit."""
    return float(np.log(4) - np.logaddexp(0, logit) - np.logaddexp(0, -logit))
