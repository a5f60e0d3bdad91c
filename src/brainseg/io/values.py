"""Stored values of a volume to intensities, or to labels. Limits on both are the same for all formats."""

from typing import NamedTuple

import numpy as np

from brainseg.errors import DataError

MAX_LABEL = 2**16 - 1
ROUNDING = 1e-3  # from a whole number: labels scaled by a float32 slope such as 1/255 are not exact

_KEPT_TYPES = ("u1", "u2", "i2", "f4")
_MAX_INTEGER = 2**24  # float32 holds every integer up to this one


class Scaling(NamedTuple):
    """A value is ``slope * stored + intercept``."""

    slope: float = 1.0
    intercept: float = 0.0


def to_intensities(stored: np.ndarray, scaling: Scaling, name: str) -> np.ndarray:
    """The values of ``(I, J, K)`` or ``(I, J, K, 3)`` as uint8, uint16, int16 or float32, native byte order.

    Raises:
        DataError: integers that float32 cannot hold, or values that are not finite.
    """
    scaled = scaling != Scaling()
    kept = stored.dtype.str[1:] in _KEPT_TYPES and not scaled
    if (
        not kept
        and not scaled
        and stored.dtype.kind in "iu"
        and max(-int(stored.min()), int(stored.max())) > _MAX_INTEGER
    ):
        what = f"holds integers beyond {_MAX_INTEGER:,}, which float32 cannot hold"
        raise DataError(name, what, "save it as float32 or as 16-bit integers, scaled as you see fit")
    if kept:
        values = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    else:
        values = np.empty(stored.shape, np.float32)
        with np.errstate(over="ignore"):  # too large values become infinite, and are counted below
            for k in range(stored.shape[2]):
                values[:, :, k] = _scale(stored[:, :, k], scaling)
    bad = values.size - np.count_nonzero(np.isfinite(values)) if values.dtype.kind == "f" else 0
    if bad:
        what = f"holds {bad:,} voxels that are NaN, infinite or beyond float32"
        raise DataError(name, what, "set them to the background's value")
    return values


def to_labels(stored: np.ndarray, scaling: Scaling, name: str) -> np.ndarray:
    """The values of ``(I, J, K)`` as labels: uint8, or uint16 if one is above 255.

    Raises:
        DataError: values that are no whole numbers from 0 to MAX_LABEL, with some of them.
    """
    labels = np.empty(stored.shape, np.uint16)
    for k in range(stored.shape[2]):  # plane by plane: a whole volume in float64 would take four times the memory
        plane = _scale(stored[:, :, k], scaling)
        whole = np.rint(plane)
        with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN, which is no label
            fits = (whole >= 0) & (whole <= MAX_LABEL) & (np.abs(plane - whole) <= ROUNDING)
        if not fits.all():
            shown = ", ".join(f"{value:.9g}" for value in np.unique(plane[~fits])[:5])
            what = f"holds the values {shown}, labels must be whole numbers 0 to {MAX_LABEL}"
            raise DataError(name, what, "save the mask with its labels as such numbers; of probabilities, the outline")
        labels[:, :, k] = whole
    return labels if labels.max() > 255 else labels.astype(np.uint8)


def _scale(plane: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Scaled values in float64. Values that are or become infinite or NaN are left to the caller."""
    with np.errstate(over="ignore", invalid="ignore"):
        return plane * np.float64(scaling.slope) + scaling.intercept
