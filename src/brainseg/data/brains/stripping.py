"""Images without scalp: all of them, or at random in training, with masks a little larger or smaller."""

from dataclasses import dataclass

import cv2
import numpy as np

from brainseg.data.dataset import Dataset

MOST_CUT = 0.03  # share of a patient's tumour outside the mask, above which the patient keeps the scalp in training
SMALLER, LARGER = 2, 4  # pixels of a grid of 256 by which a mask may shrink or grow: no one tool's border is learned
GRID = 256


def is_known(data: Dataset, rows: np.ndarray) -> bool:
    """Whether the brain of any of these slices is known."""
    return data.brains is not None and any(not data.brain(row).all() for row in rows)


@dataclass(frozen=True)
class StrippedImages:
    """The images of ``data`` without scalp; indexed by rows, like the memory map (N, H, W, C) that they come from."""

    data: Dataset

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.images.shape

    def __len__(self) -> int:
        return len(self.data.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.data.images[rows] * self.data.brain(rows)[..., None]


def find_strippable(data: Dataset) -> np.ndarray:
    """(N,) bool: slices of patients whose brain is known and holds the tumour, up to MOST_CUT of it."""
    strippable = np.zeros(len(data.images), bool)
    for rows in data.split_by_patient(np.arange(len(data.images))):
        brain = data.brain(rows)
        tumour = data.masks[rows] > 0
        cut = (tumour & (brain == 0)).sum() / max(1, tumour.sum())
        strippable[rows] = not brain.all() and cut <= MOST_CUT
    return strippable


def strip_at_random(
    images: np.ndarray, data: Dataset, windows: np.ndarray, allowed: np.ndarray, probability: float,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Remove the scalp from some samples, in all slices of a sample alike.

    Args:
        images: (B, H, W, K C) uint8, changed in place.
        windows: (B, K) rows of the data set.
        allowed: (B,) bool.
        probability: of each sample that is allowed.

    Returns:
        ``images``.
    """
    side, slices = images.shape[1], windows.shape[1]
    chosen = rng.random(len(images)) < probability  # drawn for all, so that one sample does not change the next
    growth = np.rint(rng.uniform(-SMALLER, LARGER, len(images)) * side / GRID).astype(int)
    for sample in np.flatnonzero(chosen & allowed):
        brains = data.brain(windows[sample])
        brains = np.stack([resize_mask(brain, growth[sample]) for brain in brains], axis=-1)
        images[sample] *= np.repeat(brains, images.shape[-1] // slices, axis=-1)
    return images


def resize_mask(mask: np.ndarray, growth: int) -> np.ndarray:
    """A mask (H, W) uint8 whose border has moved outwards by ``growth`` pixels, inwards if it is negative."""
    if growth == 0:
        return mask
    side = 2 * abs(growth) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.dilate(mask, disc) if growth > 0 else cv2.erode(mask, disc)
