"""Choose the rule of ``postprocessing``: score every threshold and smallest component on every patient."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from brainseg.config import Evaluate
from brainseg.evaluation import metrics
from brainseg.inference.postprocessing import Rule, components, level

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
MIN_COMPONENTS = (0, 20, 50, 100, 200)  # voxels on a grid of 256 x 256
MIN_SHARES = (0.0, 0.05, 0.1, 0.2)  # of the largest component of a volume
INDIFFERENT = 0.001  # a smaller gain in mean volume Dice does not justify another rule


class Smallest(NamedTuple):
    """The smallest component that is kept, as in ``postprocessing.Rule``."""

    min_component: int
    min_share: float = 0.0


class Search(NamedTuple):
    """Counts of every rule on every patient: arrays (patients, thresholds, smallest)."""

    thresholds: tuple[float, ...]
    smallest: tuple[Smallest, ...]
    counts: metrics.Counts

    def mean_dice(self) -> np.ndarray:
        """Mean volume Dice (thresholds, smallest) over the patients where it is defined, else NaN."""
        scores = metrics.dice(self.counts)
        defined = ~np.isnan(scores)
        with np.errstate(invalid="ignore"):
            return np.where(defined, scores, 0).sum(axis=0) / defined.sum(axis=0)


def min_components(shape: tuple[int, int]) -> tuple[int, ...]:
    """The sizes to try on a grid (H, W): those for 256 x 256, scaled with the area."""
    return tuple(sorted({round(voxels * shape[0] * shape[1] / 256**2) for voxels in MIN_COMPONENTS}))


def list_smallest(shape: tuple[int, int], params: Evaluate | None = None) -> list[Smallest]:
    """The smallest components to try on a grid (H, W): all, or what ``params`` fix."""
    fixed = {name: getattr(params, name, "auto") for name in Smallest._fields}
    sizes = min_components(shape) if fixed["min_component"] == "auto" else (fixed["min_component"],)
    shares = MIN_SHARES if fixed["min_share"] == "auto" else (fixed["min_share"],)
    return [Smallest(*each) for each in itertools.product(sizes, shares)]


def search(
    volumes: Iterable[tuple[np.ndarray, np.ndarray]], thresholds: Sequence[float], smallest: Sequence[Smallest]
) -> Search:
    """Count every threshold and smallest component on every (reference, probability) volume, one at a time."""
    found = [_count(reference, probability, thresholds, smallest) for reference, probability in volumes]
    stacked = metrics.Counts(*(np.stack(kind) for kind in zip(*found, strict=True)))
    return Search(tuple(thresholds), tuple(smallest), stacked)


def join(found: Sequence[Search]) -> Search:
    """The search among the patients of all, who were searched for the same rules."""
    counts = metrics.Counts(*(np.concatenate(kind) for kind in zip(*(each.counts for each in found), strict=True)))
    return found[0]._replace(counts=counts)


def choose(found: Search, threshold: float) -> Rule:
    """The rule with this threshold that removes least of those whose mean volume Dice is within 0.001 of the best.

    Least: the lowest share, and with it the lowest number of voxels.
    """
    tried = np.nan_to_num(found.mean_dice(), nan=0.0)[found.thresholds.index(threshold)]
    good = np.flatnonzero(tried.max() - tried < INDIFFERENT)
    chosen = min((found.smallest[m] for m in good), key=lambda kept: (kept.min_share, kept.min_component))
    return Rule(threshold, *chosen)


def best_threshold(found: Search, errors: float = 0, middle: float = 0.5) -> float:
    """The threshold nearest to ``middle`` that is as good as the best, of two the lower one.

    Each is scored with its best smallest component.

    As good: its mean volume Dice is below the best by less than 0.001, or by less than ``errors`` standard errors of
    the difference over patients. ``errors=1`` is the one-standard-error rule (Breiman et al., Classification and
    Regression Trees, 1984): with few patients the mean hardly depends on the threshold, and which one is best is
    mostly chance.
    """
    tried = np.nan_to_num(found.mean_dice(), nan=0.0)
    mean, size = tried.max(axis=1), tried.argmax(axis=1)
    dice = metrics.dice(found.counts)[:, np.arange(len(size)), size]
    dice = dice[~np.isnan(dice).any(axis=1)]
    behind = dice[:, [mean.argmax()]] - dice
    noise = errors * np.std(behind, axis=0, ddof=1) / np.sqrt(len(behind)) if len(behind) > 1 else 0.0
    good = np.array(found.thresholds)[mean.max() - mean < np.maximum(INDIFFERENT, noise)]
    return float(min(good, key=lambda threshold: (round(abs(threshold - middle), 6), threshold)))


def _count(
    reference: np.ndarray, probability: np.ndarray, thresholds: Sequence[float], smallest: Sequence[Smallest]
) -> metrics.Counts:
    """Counts (thresholds, smallest) of one volume: from its histogram if nothing is removed, else by component."""
    levels = [level(threshold) for threshold in thresholds]
    joint = metrics.histogram(reference, probability)
    plain = metrics.counts_at(joint, levels)
    tp, fp = (np.repeat(kind[:, None], len(smallest), axis=1) for kind in plain[:2])
    sizes, shares = (np.array(kind)[:, None] for kind in zip(*smallest, strict=True))
    if sizes.max() > 1 or shares.any():
        for row, (hits, voxels) in enumerate(_components(reference, probability, levels)):
            kept = voxels >= np.maximum(sizes, shares * voxels.max(initial=0))
            tp[row], fp[row] = kept @ hits, kept @ (voxels - hits)
    negative, positive = joint.sum(axis=1)
    return metrics.Counts(tp, fp, positive - tp, negative - fp)


def _components(
    reference: np.ndarray, probability: np.ndarray, levels: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each level, the components of ``probability >= level``: tumour voxels in each, and voxels of each."""
    box = ndimage.find_objects((probability >= min(levels)).astype(np.uint8))
    reference, probability = (reference[box[0]], probability[box[0]]) if box else (reference[:0], probability[:0])
    inside = np.flatnonzero(probability >= min(levels))
    tumour = reference.ravel()[inside]
    for cut in levels:
        named = components(probability >= cut).ravel()[inside]
        voxels = np.bincount(named, minlength=1)
        yield np.bincount(named[tumour], minlength=len(voxels))[1:], voxels[1:]
