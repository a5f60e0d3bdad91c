"""A tumour of one patient put into a slice of another, at its place: CarveMix (Zhang et al., 2023, arXiv:2108.06883).

The part that is carved is the tumour a little smaller or larger, by its distance from the border. Here it is of a slice
at about the same height of the head, each sequence is brought to the level that the brain has in the slice that it is
put into, because scanners differ in gain, and it does not leave the brain. What would mostly lie outside the brain, or
fill most of it, is not put in: a network that has seen such slices marks the crown of the head whole. Where no brain is
known the whole slice is taken for it.
"""

from typing import Any

import cv2
import numpy as np

from brainseg.data.brains.stripping import GRID
from brainseg.data.dataset import Dataset
from brainseg.io.sequences import FLAIR
from brainseg.models.blocks import LOWEST_LEVEL

HEIGHT = 0.08  # of the head, up to which two slices count as of the same height
MOST_CUT = 0.5  # share of the carved part that may lie outside the brain
MOST_FILLED = 0.5  # share of the brain in a slice that it may fill; LGG's tumours fill up to 0.6, hardly any above 0.3
SMALLEST = 40  # pixels of a tumour on a grid of 256 x 256 that is put into another slice


class LesionMixer:
    """Tumours of the training patients, to be put into slices of others.

    Attributes:
        rows: (T,) rows of the data set with a tumour that is large enough.
    """

    def __init__(self, data: Dataset, rows: np.ndarray, targets: Any = None):
        """``rows``: of the training slices. ``targets``: what a mask becomes in training, by row; None: the masks."""
        self.data, self.patient = data, data.patient
        self.targets = data.masks if targets is None else targets
        first, last = data.ends
        self.height = (np.arange(len(first)) - first) / (last - first + 1)
        least = SMALLEST * (data.images.shape[1] / GRID) ** 2
        self.rows = rows[data.slices["tumour_pixels"].to_numpy()[rows] >= least]
        self.missing = _find_missing(data, rows)
        self._alike: dict[tuple[float, bytes], np.ndarray] = {}  # by height and what is missing: a bit for each of rows

    def mix(
        self, images: np.ndarray, masks: np.ndarray, rows: np.ndarray, probability: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Put a tumour into some samples.

        Args:
            images: (B, H, W, C) uint8. masks: (B, H, W, 1) uint8, of the targets. Both are changed in place.
            rows: (B,) of the data set.

        Returns:
            ``images`` and ``masks``.
        """
        chosen, places = rng.random(len(rows)) < probability, rng.random((len(rows), 3))
        for sample in np.flatnonzero(chosen):
            donors = self.find_donors(rows[sample])
            if len(donors):
                donor = donors[int(places[sample, 0] * len(donors))]
                self._put(images[sample], masks[sample, ..., 0], rows[sample], donor, places[sample, 1:])
        return images, masks

    def find_donors(self, row: int) -> np.ndarray:
        """Rows of other patients' tumours at the height of a slice, with the same sequences missing."""
        kind = float(self.height[row]), self.missing[row].tobytes()
        if kind not in self._alike:
            near = np.abs(self.height[self.rows] - self.height[row]) <= HEIGHT
            self._alike[kind] = np.packbits(near & (self.missing[self.rows] == self.missing[row]).all(axis=1))
        found = self.rows[np.unpackbits(self._alike[kind], count=len(self.rows)).view(bool)]
        return found[self.patient[found] != self.patient[row]]

    def _put(self, image: np.ndarray, mask: np.ndarray, row: int, donor: int, draws: np.ndarray) -> None:
        source, tumour = self.data.images[donor], self.data.masks[donor]
        here, there = (self.data.brain(np.array(each)) > 0 for each in (row, donor))
        carved = carve(tumour, *draws)
        part = carved & here
        if (1 - MOST_CUT) * carved.sum() <= part.sum() <= MOST_FILLED * here.sum():
            ratio = measure_levels(image[here]) / measure_levels(source[there])
            image[part] = np.clip(np.rint(source[part] * ratio), 0, 255)
            mask[part] = self.targets[donor][part]


def carve(tumour: np.ndarray, side: float, size: float) -> np.ndarray:
    """The part (H, W) bool that is carved around a tumour (H, W) uint8 in {0, 1}.

    Half of the time it is smaller than the tumour, by up to half of its depth; else larger, by up to its depth.

    Args:
        side, size: uniform in 0..1.
    """
    left, top, width, height = cv2.boundingRect(tumour)
    pad = min(width, height) // 2 + 2  # a tumour is at most half as deep as it is wide
    rows, columns = slice(max(0, top - pad), top + height + pad), slice(max(0, left - pad), left + width + pad)
    cut = np.ascontiguousarray(tumour[rows, columns])
    inside, outside = (cv2.distanceTransform(each, cv2.DIST_L2, cv2.DIST_MASK_5) for each in (cut, 1 - cut))
    depth = float(inside.max())
    margin = -size * depth / 2 if side < 0.5 else size * depth
    part = np.zeros(tumour.shape, bool)
    part[rows, columns] = outside - inside <= margin
    return part


def measure_levels(pixels: np.ndarray) -> np.ndarray:
    """(C,) the mean of each channel of some pixels (P, C) weighted by itself, as ``blocks.Gain`` computes it."""
    values = pixels.astype(np.float32)
    return np.maximum((values**2).sum(0) / np.maximum(values.sum(0), 1), LOWEST_LEVEL)


def _find_missing(data: Dataset, rows: np.ndarray) -> np.ndarray:
    """(N, C) bool: channels that are copies of FLAIR in a patient's middle slice; of ``rows`` alone."""
    found = np.zeros((len(data.images), data.images.shape[-1]), bool)
    for own in data.split_by_patient(rows):
        image = data.images[own[len(own) // 2]]
        found[own] = (image == image[..., FLAIR : FLAIR + 1]).all(axis=(0, 1))
    return found
