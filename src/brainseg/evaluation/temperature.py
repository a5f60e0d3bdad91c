"""The temperature that calibrates a model's probabilities: the one under which validation masks are most likely."""

from functools import partial
from typing import Any

import numpy as np
from scipy import optimize

from brainseg.data.dataset import Changed
from brainseg.inference import probabilities

LEAST, MOST = 0.25, 8.0
DECIMALS = 3
NONE = 1.0  # changes nothing


def fit(joint: np.ndarray) -> float:
    """Minimise the negative log-likelihood over the pixels with a probability above 0 (Guo et al., 2017).

    Those with 0, nearly all, are surely no tumour whatever the temperature is.

    Args:
        joint: (2, 256) pixels without and with tumour for each probability in 255ths, see ``metrics.histogram``.

    Returns:
        The temperature, between LEAST and MOST; NONE where there are no pixels of both kinds.
    """
    found = joint[:, 1:].astype(float)
    if not found.sum(axis=1).all():
        return NONE
    odds = np.log(np.clip(np.arange(1, 256), None, 254.5)) - np.log(255 - np.clip(np.arange(1, 256), None, 254.5))

    def loss(log_temperature: float) -> float:
        logits = odds / np.exp(log_temperature)
        return float((found[0] * np.logaddexp(0, logits) + found[1] * np.logaddexp(0, -logits)).sum() / found.sum())

    best = optimize.minimize_scalar(loss, bounds=(np.log(LEAST), np.log(MOST)), method="bounded")
    return round(float(np.exp(best.x)), DECIMALS)


def apply(arrays: dict[str, Any], temperature: float) -> dict[str, Any]:
    """The arrays of ``evaluate.evaluate`` with probabilities that are calibrated when they are read.

    ``flair`` holds intensities and stays.
    """
    if temperature == NONE:
        return arrays
    calibrate = partial(probabilities.calibrate, temperature=temperature)
    return {name: array if name == "flair" else Changed(array, calibrate) for name, array in arrays.items()}
