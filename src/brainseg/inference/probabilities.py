"""From probabilities to whole numbers, 255ths. The one place where an answer that is no number is refused."""

from collections.abc import Callable

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
