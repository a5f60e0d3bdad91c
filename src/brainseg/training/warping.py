"""Augmentation of a batch on a processor, by OpenCV: one affine map, one table of intensities, noise.

No engine here. What is drawn comes from ``augmentation``, whose own renderer means the same on an accelerator.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np

from brainseg import hardware
from brainseg.io.sequences import FLAIR

SCALE = 255.0  # full scale of the intensities
LEVELS = np.arange(256, dtype=np.float32)[:, None]


class Drawn(NamedTuple):
    """What happens to each of B samples with C channels; arrays, or tensors while a step is built.

    ``transforms`` (B, 8): from pixels of the window to those of the image, (x, y) as in
    ``keras.ops.image.affine_transform``. An intensity v becomes, in this order, ``255 (v / 255) ** exponent``, then
    moved away from the window's mean by ``gain``, then ``shift`` is added, all (B, C), then noise, then it is kept
    within 0..255. ``missing`` (B, C): 1 where FLAIR takes the channel's place. ``places`` (B, K, 2): where in the field
    of noise that of each slice begins, 0..1.
    """

    transforms: Any
    exponents: Any
    gains: Any
    shifts: Any
    missing: Any
    places: Any


@cache
def noise_field(seed: int, deviation: float, channels: int, side: int) -> np.ndarray:
    """(side, side, C + 1) normal noise of ``deviation`` (of the full scale); none in the last, the mask's.

    Drawn once, and a part of it taken from a place of its own for each slice: drawing all of it anew takes longer
    than everything else.
    """
    field = np.random.default_rng(seed).standard_normal((side, side, channels + 1), dtype=np.float32)
    field *= deviation * SCALE
    field[..., -1] = 0
    return field


@cache
def _pool() -> ThreadPoolExecutor:
    """OpenCV leaves the interpreter free while it works; what comes out does not depend on how many share it."""
    return ThreadPoolExecutor(hardware.processors())


def render(
    images: np.ndarray, masks: np.ndarray, drawn: Drawn, window: int, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Do what was drawn.

    Args:
        images: (B, H, W, K C) uint8.
        masks: (B, H, W, M) uint8 in {0, 1}: one for all K slices, or one for each.
        window: side of what is answered.
        noise: see ``noise_field``; wider than the window.

    Returns:
        images (B, window, window, K C) float32 in 0..255, masks (B, window, window, M) float32 in {0, 1}.
    """
    channels = noise.shape[-1] - 1
    new_images, new_masks = (
        np.empty((len(arrays), window, window, arrays.shape[-1]), np.float32) for arrays in (images, masks)
    )

    def render_one(index: int) -> None:
        sample = Drawn(*(values[index] for values in drawn))
        for place in range(images.shape[-1] // channels):
            of, of_mask = slice(place * channels, (place + 1) * channels), min(place, masks.shape[-1] - 1)
            begin = (sample.places[place] * (len(noise) - window)).astype(int)
            field = noise[begin[0] : begin[0] + window, begin[1] : begin[1] + window]
            changed = _rendered(images[index, ..., of], masks[index, ..., of_mask], sample, field)
            new_images[index, ..., of], new_masks[index, ..., of_mask] = changed[..., :channels], changed[..., channels]

    list(_pool().map(render_one, range(len(images))))
    return new_images, new_masks


def _rendered(image: np.ndarray, mask: np.ndarray, sample: Drawn, field: np.ndarray) -> np.ndarray:
    """(window, window, C + 1) float32: a slice (H, W, C) and, behind it, its mask; ``field`` is its noise."""
    both = cv2.merge([np.ascontiguousarray(image), np.ascontiguousarray(mask)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP  # outside is 0; a mask is rounded, so it stays in {0, 1}
    moved = cv2.warpAffine(both, sample.transforms[:6].reshape(2, 3), field.shape[1::-1], flags=flags)
    changed = cv2.LUT(moved, _table(moved, sample)[:, None])
    cv2.add(changed, field, dst=changed)
    for channel in np.flatnonzero(sample.missing):
        changed[..., channel] = changed[..., FLAIR]
    return np.clip(changed, 0, SCALE, out=changed)


def _table(moved: np.ndarray, sample: Drawn) -> np.ndarray:
    """(256, C + 1): what each intensity becomes before noise; the mask's stays."""
    tones = SCALE * (LEVELS / SCALE) ** sample.exponents
    channels = range(tones.shape[1])
    counts = np.stack([cv2.calcHist([moved], [channel], None, [256], [0, 256]).ravel() for channel in channels], 1)
    mean = (counts * tones).sum(0) / counts.sum(0)
    return np.concatenate([(tones - mean) * sample.gains + mean + sample.shifts, LEVELS], 1)
