"""Augmentation of a batch on a processor, with OpenCV: one affine transform, one intensity table, noise.

Imports no engine. ``augmentation`` draws the random parameters; its own renderer does the same on an accelerator.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np

from brainseg import hardware
from brainseg.io.sequences import FLAIR

FULL_SCALE = 255.0  # full scale of the intensities
LEVELS = np.arange(256, dtype=np.float32)[:, None]


class AugmentationDraw(NamedTuple):
    """The random parameters of B samples with C channels: arrays, or tensors while a step is built.

    ``transforms`` (B, 8): from pixels of the window to pixels of the image, (x, y) as in
    ``keras.ops.image.affine_transform``. An intensity v changes in this order: it becomes
    ``255 (v / 255) ** exponent``; its difference to the window's mean is multiplied by ``gain``; ``shift`` is added;
    noise is added; it is clipped to 0..255. Exponents, gains and shifts are (B, C). ``missing`` (B, C): 1 where FLAIR
    replaces the channel. ``places`` (B, K, 2): where each slice's part of the noise field starts, 0..1.
    """

    transforms: Any
    exponents: Any
    gains: Any
    shifts: Any
    missing: Any
    places: Any


@cache
def noise_field(seed: int, deviation: float, channels: int, side: int) -> np.ndarray:
    """(side, side, C + 1) normal noise of ``deviation``, a share of the full scale; 0 in the last channel, the mask's.

    It is drawn once, and each slice takes a part of it from a random place. Drawing new noise for each slice would take
    longer than everything else.
    """
    field = np.random.default_rng(seed).standard_normal((side, side, channels + 1), dtype=np.float32)
    field *= deviation * FULL_SCALE
    field[..., -1] = 0
    return field


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads for OpenCV, which releases the interpreter lock. The result does not depend on their number."""
    return ThreadPoolExecutor(hardware.processors())


def render(
    images: np.ndarray, masks: np.ndarray, drawn: AugmentationDraw, window: int, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Apply the random parameters ``drawn``.

    Args:
        images: (B, H, W, K C) uint8.
        masks: (B, H, W, M) uint8 in {0, 1}, or soft in 255ths: one for all K slices, or one for each.
        drawn: arrays.
        window: side of the result in pixels.
        noise: see ``noise_field``; wider than the window.

    Returns:
        images (B, window, window, K C) float32 in 0..255, masks (B, window, window, M) float32 with
        values as those of ``masks``.
    """
    channels = noise.shape[-1] - 1
    new_images, new_masks = (
        np.empty((len(arrays), window, window, arrays.shape[-1]), np.float32) for arrays in (images, masks)
    )

    def render_one(index: int) -> None:
        sample = AugmentationDraw(*(values[index] for values in drawn))
        for place in range(images.shape[-1] // channels):
            of, of_mask = slice(place * channels, (place + 1) * channels), min(place, masks.shape[-1] - 1)
            y, x = (sample.places[place] * (len(noise) - window)).astype(int)
            field = noise[y : y + window, x : x + window]
            changed = _render_slice(images[index, ..., of], masks[index, ..., of_mask], sample, field)
            new_images[index, ..., of], new_masks[index, ..., of_mask] = changed[..., :channels], changed[..., channels]

    list(_pool().map(render_one, range(len(images))))
    return new_images, new_masks


def _render_slice(image: np.ndarray, mask: np.ndarray, sample: AugmentationDraw, field: np.ndarray) -> np.ndarray:
    """(window, window, C + 1) float32: a slice (H, W, C), and its mask as the last channel; ``field`` is its noise."""
    both = cv2.merge([np.ascontiguousarray(image), np.ascontiguousarray(mask)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP  # outside is 0; uint8 masks are rounded, so they stay in {0, 1}
    moved = cv2.warpAffine(both, sample.transforms[:6].reshape(2, 3), field.shape[1::-1], flags=flags)
    changed = cv2.LUT(moved, _table(moved, sample)[:, None])
    cv2.add(changed, field, dst=changed)
    for channel in np.flatnonzero(sample.missing):
        changed[..., channel] = changed[..., FLAIR]
    return np.clip(changed, 0, FULL_SCALE, out=changed)


def _table(moved: np.ndarray, sample: AugmentationDraw) -> np.ndarray:
    """(256, C + 1): the new value of each intensity, before noise; mask values stay the same."""
    tones = FULL_SCALE * (LEVELS / FULL_SCALE) ** sample.exponents
    channels = range(tones.shape[1])
    counts = np.stack([cv2.calcHist([moved], [channel], None, [256], [0, 256]).ravel() for channel in channels], 1)
    mean = (counts * tones).sum(0) / counts.sum(0)
    return np.concatenate([(tones - mean) * sample.gains + mean + sample.shifts, LEVELS], 1)
