"""Losses on logits. ``masks`` and ``logits``: (B, H, W, 1); masks in {0, 1}, soft ones in 0..1; the result is a scalar.

The overlap losses add ``smooth`` pixels to numerator and denominator. So the loss of an empty mask that is predicted
empty is 0, and it has a gradient. They sum over ``axes``: the whole batch, or each image. Those of soft masks count the
smaller of mask and probability as found: only so the best answer is the mask itself (the semimetric losses of Wang,
Popordanoska, Bertels, Lemmens, Blaschko, 2023, arXiv:2303.16296). Of hard masks that is the same number.
"""

from collections.abc import Callable

from keras import ops

from brainseg.config import Train
from brainseg.models import devices

AXES = {"batch": (0, 1, 2, 3), "image": (1, 2, 3)}


def build(params: Train) -> Callable:
    """The function ``loss(masks, logits)`` that ``loss``, ``loss_reduction`` and ``loss_smooth`` of ``params`` name."""
    overlap = AXES[params.loss_reduction], params.loss_smooth, params.soft_masks is not None
    loss = {
        "bce": bce,
        "dice": lambda masks, logits: dice(masks, logits, *overlap),
        "jaccard": lambda masks, logits: jaccard(masks, logits, *overlap),
        "bce_dice": lambda masks, logits: bce(masks, logits) + dice(masks, logits, *overlap),
        "focal_tversky": lambda masks, logits: focal_tversky(masks, logits, *overlap),
    }[params.loss]
    return lambda masks, logits: devices.mean_over_replicas(loss(masks, logits))


def bce(masks, logits):
    """Binary cross-entropy, mean over the pixels, in the numerically stable form for logits."""
    return ops.mean(ops.softplus(logits) - logits * masks)


def dice(masks, logits, axes, smooth, soft=False):
    """1 - soft Dice (Milletari et al., 2016, arXiv:1606.04797, without squares)."""
    tp, fp, fn = _soft_counts(masks, logits, axes, soft)
    return ops.mean(1 - (2 * tp + smooth) / (2 * tp + fp + fn + smooth))


def jaccard(masks, logits, axes, smooth, soft=False):
    """1 - soft intersection over union (Rahman & Wang, 2016)."""
    tp, fp, fn = _soft_counts(masks, logits, axes, soft)
    return ops.mean(1 - (tp + smooth) / (tp + fp + fn + smooth))


def focal_tversky(masks, logits, axes, smooth, soft=False, fn_weight: float = 0.7, exponent: float = 0.75):
    """(1 - Tversky index)^0.75; misses weigh more than false alarms (Abraham & Khan, 2018, arXiv:1810.07842)."""
    tp, fp, fn = _soft_counts(masks, logits, axes, soft)
    index = (tp + smooth) / (tp + fn_weight * fn + (1 - fn_weight) * fp + smooth)
    # The power has no finite gradient at 0, where the prediction is perfect: stay just above.
    return ops.mean(ops.power(ops.maximum(1 - index, 1e-6), exponent))


def _soft_counts(masks, logits, axes, soft):
    probabilities = ops.sigmoid(logits)
    found = ops.minimum(probabilities, masks) if soft else probabilities * masks
    sums = [ops.sum(each, axes) for each in (found, probabilities, masks)]
    tp, predicted, true = devices.sum_over_replicas(sums) if 0 in axes else sums
    return tp, predicted - tp, true - tp
