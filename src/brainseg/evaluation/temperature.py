"""The temperature that calibrates a model's probabilities: the one under which validation masks are most likely."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

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


@dataclass(frozen=True)
class Calibrated:
    """An array (n, H, W) of probabilities in 255ths whose parts are calibrated when they are read."""

    array: Any
    temperature: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, places: Any) -> np.ndarray:
        return probabilities.calibrate(self.array[places], self.temperature)


def apply(arrays: dict[str, Any], temperature: float) -> dict[str, Any]:
    """The arrays of ``evaluate.evaluate`` with calibrated probabilities; ``flair`` holds intensities and stays."""
    if temperature == NONE:
        return arrays
    return {name: array if name == "flair" else Calibrated(array, temperature) for name, array in arrays.items()}
