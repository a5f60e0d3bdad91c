"""How far a volume may be from the marked one: a conformal interval from patients that the networks had not seen.

The ratio of the marked to the outlined volume is taken of each patient. For the next patient of one network, if he is
drawn like them, the ratio lies between two of their order statistics with the stated probability or more (Vovk et al.,
2005; Lei et al., 2018, JASA 113:1094). Here the networks of several folds are pooled, and a network of all patients is
released: the guarantee is then weaker (Barber et al., 2021, Annals of Statistics 49:486), so the coverage is measured.
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


def coverage(outlined: ArrayLike, marked: ArrayLike, groups: ArrayLike, level: float = LEVEL) -> float:
    """The share of patients whose marked volume lies in the interval that the patients of other groups give.

    To leave out single patients says nothing: of n different ratios exactly the outermost are then outside.

    Args:
        groups: (n,) the fold or the institution of each patient.

    Returns:
        NaN if a group leaves too few others.
    """
    outlined, marked, groups = np.asarray(outlined, float), np.asarray(marked, float), np.asarray(groups)
    held = np.zeros(len(outlined), bool)
    for group in np.unique(groups):
        mine = groups == group
        if (ends := fit(outlined[~mine], marked[~mine], level)) is None:
            return float("nan")
        held[mine] = (ends[0] * outlined[mine] <= marked[mine]) & (marked[mine] <= ends[1] * outlined[mine])
    return float(np.mean(held))
