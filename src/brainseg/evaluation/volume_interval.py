"""How far a volume may be from the marked one: a conformal interval from patients that the networks had not seen.

The ratio of the marked to the outlined volume is taken of each patient. For the next patient, if he is drawn like them,
the ratio lies between two of their order statistics with the stated probability or more (Vovk et al., 2005; Lei et al.,
2018, JASA 113:1094), whatever its distribution is.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.9


def fit(outlined: ArrayLike, marked: ArrayLike, level: float = LEVEL) -> tuple[float, float] | None:
    """The least and the largest ratio of the marked to the outlined volume, at ``level``.

    Args:
        outlined, marked: (n,) volumes, of each patient, in the same unit. Patients without an outline have no ratio:
            they count as beyond any interval, half on either side.

    Returns:
        The two ratios; None if there are too few patients for ``level``.
    """
    outlined, marked = np.asarray(outlined, float), np.asarray(marked, float)
    ratios = np.sort(marked[outlined > 0] / outlined[outlined > 0])
    missed = int((outlined == 0).sum())
    beyond = math.floor(round((len(outlined) + 1) * (1 - level) / 2, 9))  # of n + 1 patients, at either end
    place = beyond - math.ceil(missed / 2)
    return (float(ratios[place - 1]), float(ratios[-place])) if place > 0 else None


def coverage(outlined: ArrayLike, marked: ArrayLike, level: float = LEVEL) -> float:
    """The share of patients whose marked volume lies in the interval that all others give. NaN: too few patients."""
    outlined, marked = np.asarray(outlined, float), np.asarray(marked, float)
    held = []
    for place in range(len(outlined)):
        others = np.arange(len(outlined)) != place
        if (ends := fit(outlined[others], marked[others], level)) is None:
            return float("nan")
        held.append(ends[0] * outlined[place] <= marked[place] <= ends[1] * outlined[place])
    return float(np.mean(held))
