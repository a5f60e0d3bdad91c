"""From probabilities to whole numbers, 255ths, and their calibration. Here an answer that is no number is refused."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from brainseg.errors import RunError

BROKEN = "the network's answer is not a number"
_FIX = "look at this image; if others fail too, the model is broken: make pull (the released one), or train it again"


def to_255ths(probability: np.ndarray, places: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
    """``round(255 * p)``, uint8, for the probabilities (n, H, W) of n slices, of any float type.

    Args:
        places: of the slices (n,), which ``name`` turns into what an error calls a slice.

    Raises:
        RunError: a slice holds NaN, infinity or another number that is no probability; names the first.
    """
    levels = np.rint(255 * probability)
    sound = (levels >= 0) & (levels <= 255)  # NaN is neither; a cast would make it 0, which says "no tumour"
    if not sound.all():
        raise RunError(name(int(places[np.argmin(sound.all(axis=(1, 2)))])), BROKEN, _FIX)
    return levels.astype(np.uint8)


class Calibration(NamedTuple):
    """``sigmoid((logit(p) + skew ln(4 p (1 - p))) / temperature + bias)``.

    That is beta calibration (Kull, Silva Filho, Flach, AISTATS 2017), in other terms. Without a skew it is Platt
    scaling (Platt, 1999), without a bias too temperature scaling (Guo et al., 2017, arXiv:1706.04599), under which 0.5
    stays 0.5. These values change nothing.

    Attributes:
        temperature: above 1 for a network that is too sure.
        bias: in logits; below 0 for a network that sees tumour too often.
        skew: between -1 and 1; below 0 for a network that is too sure of no tumour, or not sure enough of tumour.
    """

    temperature: float = 1.0
    bias: float = 0.0
    skew: float = 0.0

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """From what ``describe`` gave, among other things; what is missing changes nothing."""
        return cls(**{name: told[name] for name in cls._fields if name in told})

    def describe(self) -> dict[str, float]:
        """The fields by name; a skew of 0 is left out, so that what is without one is written as before."""
        return {name: value for name, value in self._asdict().items() if name != "skew" or value}


def calibrate(levels: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Calibrated probabilities. No pixel changes places with another.

    Args:
        levels: probabilities in 255ths, uint8, of any shape. 0, which nearly all of a picture is, stays 0.

    Returns:
        The same in 255ths, uint8.
    """
    if calibration == Calibration():
        return levels
    p = np.clip(np.arange(1, 256), None, 254.5) / 255  # at 255 of 255 nothing but certainty would be left
    temperature, bias, skew = calibration
    odds = (1 / p - 1) ** (1 / temperature) * (4 * p * (1 - p)) ** (-skew / temperature)  # of no tumour
    scaled = 1 / (1 + odds * np.exp(-bias))
    return np.concatenate([[0], np.rint(255 * scaled)]).astype(np.uint8)[levels]
