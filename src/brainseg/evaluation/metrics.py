"""Segmentation metrics in plain NumPy and SciPy: counts first, every score a formula over them.

A score without a meaning (0 / 0) is NaN, never 0 or 1: the caller that averages decides what to do with it.
Formulas and pitfalls: Taha & Hanbury 2015, BMC Medical Imaging 15:29; Maier-Hein et al. 2024,
Nature Methods 21:195 ("Metrics reloaded").
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

KERAS_SMOOTH = 100.0
KERAS_BATCH = 32


class Counts(NamedTuple):
    """Pixels (or voxels) by truth and prediction: integers, or integer arrays of one shape."""

    tp: Any
    fp: Any
    fn: Any
    tn: Any


def counts(reference: np.ndarray, prediction: np.ndarray, axis: int | tuple[int, ...] | None = None) -> Counts:
    """Count agreement of two masks of one shape (foreground is non-zero) over ``axis``, all axes by default."""
    reference, prediction = np.asarray(reference, bool), np.asarray(prediction, bool)
    if reference.shape != prediction.shape:
        raise ValueError(f"shapes differ: reference {reference.shape}, prediction {prediction.shape}")
    tp = np.count_nonzero(reference & prediction, axis=axis)
    fp = np.count_nonzero(prediction, axis=axis) - tp
    fn = np.count_nonzero(reference, axis=axis) - tp
    return Counts(tp, fp, fn, np.count_nonzero(np.ones_like(reference), axis=axis) - tp - fp - fn)


def histogram(reference: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Joint histogram (2, 256) of a mask and uint8 probabilities: ``[r, v]`` pixels of truth r and value v."""
    joint = np.asarray(reference, bool).astype(np.uint16) * 256 + probability
    return np.bincount(joint.ravel(), minlength=512).reshape(2, 256)


def counts_at(joint: np.ndarray, levels: Sequence[int]) -> Counts:
    """Counts (len(levels),) of the masks ``probability >= level``, from a joint histogram (2, 256)."""
    at_least = np.cumsum(joint[:, ::-1], axis=1)[:, ::-1]
    fp, tp = at_least[:, np.asarray(levels, int)]
    negative, positive = joint.sum(axis=1)
    return Counts(tp, fp, positive - tp, negative - fp)


def dice(c: Counts) -> Any:
    """2 TP / (2 TP + FP + FN), foreground only (Dice 1945; the F1 score). NaN when both masks are empty."""
    return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def iou(c: Counts) -> Any:
    """TP / (TP + FP + FN) (Jaccard 1912) = dice / (2 - dice). NaN when both masks are empty."""
    return _ratio(c.tp, c.tp + c.fp + c.fn)


def precision(c: Counts) -> Any:
    """TP / (TP + FP): the share of the prediction that is right. NaN when nothing is predicted."""
    return _ratio(c.tp, c.tp + c.fp)


def recall(c: Counts) -> Any:
    """TP / (TP + FN), sensitivity: the share of the tumour that is found. NaN without tumour."""
    return _ratio(c.tp, c.tp + c.fn)


def pixel_accuracy(c: Counts) -> Any:
    """(TP + TN) / all. Near 1 for any prediction if the tumour is 1 % of the pixels."""
    return _ratio(c.tp + c.tn, c.tp + c.fp + c.fn + c.tn)


def boundary(mask: np.ndarray) -> np.ndarray:
    """Border pixels of a mask (H, W): pixels beside, above or below the background or the edge of the image."""
    return mask & ~ndimage.binary_erosion(mask)


def surface_distances(
    reference: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each border pixel to the border of the other mask: reference to prediction, and back.

    Masks (H, W); ``spacing`` (row, column) is a pixel's size, and distances are in its unit. A
    distance to an empty mask is infinite; an empty mask has no distances.
    """
    reference, prediction = np.asarray(reference, bool), np.asarray(prediction, bool)
    box = ndimage.find_objects((reference | prediction).astype(np.uint8))
    if not box:
        return np.empty(0), np.empty(0)
    of_reference, of_prediction = boundary(reference[box[0]]), boundary(prediction[box[0]])
    return _to_nearest(of_reference, of_prediction, spacing), _to_nearest(of_prediction, of_reference, spacing)


def hd95(distances: tuple[np.ndarray, np.ndarray]) -> float:
    """95 % Hausdorff distance: the larger of the two directed 95th percentiles of ``surface_distances``.

    The definition of "Metrics reloaded", MONAI and DeepMind's surface-distance (MedPy pools both
    directions instead). NaN unless both masks have foreground.
    """
    if min(len(way) for way in distances) == 0:
        return float("nan")
    return float(max(np.percentile(way, 95) for way in distances))


def surface_dice(distances: tuple[np.ndarray, np.ndarray], tolerance: float) -> float:
    """Share of both borders that lies within ``tolerance`` of the other one.

    After Nikolov et al. 2018 (arXiv:1809.04430), but border pixels have equal weight instead of a weight
    by length. One mask empty: 0. Both empty: NaN.
    """
    both = np.concatenate(distances)
    return float(_ratio(np.count_nonzero(both <= tolerance), both.size))


def keras_dice_batch_soft(reference: Any, probability: Any) -> float:
    """The "dice" of older Keras projects, only for comparison with them.

    (2 sum(r p) + 100) / (sum(r) + sum(p) + 100) over the flattened batch of 32 slices, averaged over
    the batches; a last batch with fewer slices has the same weight. Masks (n, H, W), probabilities uint8; arrays, or
    anything that is sliced like one.
    """
    sums = _batch_sums(reference, probability)
    scores = [(2 * both + KERAS_SMOOTH) / (r + p + KERAS_SMOOTH) for both, r, p in sums]
    return float(np.mean(scores)) if scores else float("nan")


def keras_iou_batch_soft(reference: Any, probability: Any) -> float:
    """The "iou" of the same projects: (sum(r p) + 100) / (sum(r) + sum(p) - sum(r p) + 100) by batch of 32."""
    sums = _batch_sums(reference, probability)
    scores = [(both + KERAS_SMOOTH) / (r + p - both + KERAS_SMOOTH) for both, r, p in sums]
    return float(np.mean(scores)) if scores else float("nan")


def _batch_sums(reference: Any, probability: Any) -> Iterator[tuple[float, float, float]]:
    values = np.arange(256) / 255
    for start in range(0, len(reference), KERAS_BATCH):
        joint = histogram(reference[start : start + KERAS_BATCH], probability[start : start + KERAS_BATCH])
        yield float(joint[1] @ values), float(joint[1].sum()), float(joint.sum(axis=0) @ values)


def _to_nearest(border: np.ndarray, other: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    if not other.any():
        return np.full(np.count_nonzero(border), np.inf)
    return ndimage.distance_transform_edt(~other, sampling=spacing)[border]


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Any:
    """Element-wise quotient in float64, NaN where the denominator is zero; scalars in, scalar out."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)[()]
