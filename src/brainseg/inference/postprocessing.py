"""From probabilities to a mask: a threshold, then small 3D components removed.

Probabilities are uint8, ``round(255 p)``. A volume is (S, H, W), its slices in order. Slices that follow each other in
the array are neighbours; ``binarise_numbered`` looks at their numbers, for what comes from outside the pipeline.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import cc3d
import numpy as np

FACES: Literal[6] = 6  # neighbours of a voxel: those that share a face with it


class Rule(NamedTuple):
    """Tumour is ``p >= threshold`` in 3D components of at least ``min_component`` voxels.

    They also have at least ``min_share`` of the voxels of the volume's largest component, which always stays.
    """

    threshold: float
    min_component: int
    min_share: float = 0.0


def read_rule(told: Mapping[str, Any]) -> Rule:
    """The rule that the metadata of an exported model hold; early ones have no ``min_share``."""
    return Rule(told["threshold"], told["min_component"], told.get("min_share", 0.0))


def to_report(rule: Rule) -> dict[str, Any]:
    """The rule as a part of a report."""
    removed = {"min_component": rule.min_component, "min_share": rule.min_share}
    return {"threshold": rule.threshold, "postprocessing": removed}


def describe_removed(rule: Rule) -> str:
    """What is removed from a volume, in words; empty if nothing is."""
    limits = [f"{rule.min_component} voxels"] if rule.min_component > 1 else []
    limits += [f"{100 * rule.min_share:g} % of the largest"] if rule.min_share else []
    return f"components under {' or '.join(limits)}" if limits else ""


def level(threshold: float) -> int:
    """The smallest uint8 probability that counts as tumour: ceil(255 t), without rounding errors (0.6: 153)."""
    return math.ceil(round(255 * threshold, 9))


def components(mask: np.ndarray) -> np.ndarray:
    """Number the components of ``mask`` (S, H, W), joined by faces: 0 outside, 1 and up inside, same shape."""
    return cc3d.connected_components(np.ascontiguousarray(mask, bool), connectivity=FACES)


def remove_small(mask: np.ndarray, min_voxels: int, min_share: float = 0.0) -> np.ndarray:
    """Remove the small components of ``mask`` (S, H, W), joined by faces.

    Args:
        min_voxels: of a component that is kept.
        min_share: of the voxels of the largest component.
    """
    mask = np.asarray(mask, bool)
    if (min_voxels <= 1 and not min_share) or not mask.any():
        return mask.copy()
    labels = components(mask)
    voxels = np.bincount(labels.ravel())
    voxels[0] = 0
    keep = voxels >= max(1, min_voxels, min_share * voxels.max())
    return keep[labels]


def binarise(probability: np.ndarray, rule: Rule) -> np.ndarray:
    """The mask (S, H, W) that ``rule`` makes of uint8 probabilities."""
    return remove_small(probability >= level(rule.threshold), rule.min_component, rule.min_share)


def binarise_numbered(probability: np.ndarray, rule: Rule, numbers: Sequence[int]) -> np.ndarray:
    """As ``binarise``, in each run of consecutive ``numbers`` alone; a slice without neighbours keeps all.

    ``min_component`` was chosen on volumes, where a lesion is on several slices: on one slice, small lesions are fewer
    voxels than it asks for.

    Raises:
        ValueError: there is not one number for each slice.
    """
    if len(numbers) != len(probability):
        raise ValueError(f"{len(numbers)} numbers for {len(probability)} slices")
    starts = np.flatnonzero(np.diff(numbers) != 1) + 1
    mask = probability >= level(rule.threshold)
    for run in np.split(np.arange(len(mask)), starts):
        if len(run) > 1:
            mask[run] = remove_small(mask[run], rule.min_component, rule.min_share)
    return mask
