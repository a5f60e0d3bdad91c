"""Augmentation of image and mask together, inside the compiled training step.

Rotation, translation, zoom, shear and flips are composed into one affine map and resampled once;
the mask goes through the same map and is thresholded again, so it stays in {0, 1}. Intensities are
changed for each sequence by itself, but for one that is made to be missing: that stays a copy of
FLAIR, as in the data set.
"""

import math
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from brainseg import engine
from brainseg.config import Augmentation
from brainseg.sequences import FLAIR

SCALE = 255.0  # full scale of the intensities


class Augmenter(keras.layers.Layer):
    """(images (B, H, W, K C) 0..255, masks (B, H, W, M) {0, 1}) → the same, float32, each sample drawn anew.

    The K slices of a sample are changed alike, ``channels`` (C) each by itself. With ``training=False``
    nothing but the type changes; in training H and W may become smaller (``window``).
    """

    def __init__(self, params: Augmentation, seed: int, channels: int = 3, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.params, self.channels = params, channels
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images, masks, training=False):
        if training:
            images, masks = self._geometry(images, masks)
            images, missing = self._missing_sequences(images)
            images = self._context_dropout(self._intensity(images, missing))
        return ops.cast(images, "float32"), ops.cast(masks, "float32")

    def _uniform(self, shape, low, high):
        return keras.random.uniform(shape, low, high, seed=self.generator)

    def _happens(self, shape, probability):
        return ops.cast(self._uniform(shape, 0.0, 1.0) < probability, "float32")

    def _geometry(self, images, masks):
        p = self.params
        side = images.shape[1]
        window = round(p.window * side) or side
        if not any((p.rotation, p.translation, p.zoom, p.shear, p.flip_horizontal, p.flip_vertical, side - window)):
            return images, masks
        transforms = self._transforms(ops.shape(images)[0], side, window)
        images, masks = ops.cast(images, "float32"), ops.cast(masks, "float32")  # uint8 would be cut off, not rounded
        return engine.affine(images, transforms, window), engine.affine(masks, transforms, window) >= 0.5

    def _transforms(self, count, side: int, window: int):
        """(B, 8) maps from pixels of the window to those of the image; the window's centre is drawn as well."""
        p = self.params
        angle = self._uniform((count,), -1.0, 1.0) * math.radians(p.rotation)
        shear = ops.tan(self._uniform((count,), -1.0, 1.0) * math.radians(p.shear))
        zoom = ops.exp(self._uniform((2, count), -1.0, 1.0) * math.log1p(p.zoom))
        flips = [1 - 2 * self._happens((count,), chance) for chance in (p.flip_horizontal, p.flip_vertical)]
        shift = self._uniform((2, count), -1.0, 1.0) * (p.translation + (side - window) / 2 / side)
        sx, sy = flips[0] / zoom[0], flips[1] / zoom[1]
        a, b = ops.cos(angle) * sx, (ops.cos(angle) * shear - ops.sin(angle)) * sy
        c, d = ops.sin(angle) * sx, (ops.sin(angle) * shear + ops.cos(angle)) * sy
        old, new = (side - 1) / 2, (window - 1) / 2
        tx = old - a * new - b * new + shift[0] * side
        ty = old - c * new - d * new + shift[1] * side
        zero = ops.zeros_like(a)
        return ops.stack([a, b, tx, c, d, ty, zero, zero], axis=-1)

    def _of_each_channel(self, images, low, high):
        """(B, 1, 1, K C) numbers, the same for the K slices of a sample."""
        drawn = self._uniform((ops.shape(images)[0], 1, 1, self.channels), low, high)
        return ops.tile(drawn, (1, 1, 1, images.shape[-1] // self.channels))

    def _missing_sequences(self, images):
        """FLAIR in place of sequences that are made to be missing, and which those are, (B, 1, 1, K C)."""
        if not self.params.sequence_dropout or self.channels != 3:
            return images, None
        missing = self._of_each_channel(images, 0.0, 1.0) < self.params.sequence_dropout
        return ops.where(missing, self._flair(images), images), missing

    def _flair(self, images):
        """(B, H, W, K C) → the same, each channel replaced by its slice's FLAIR."""
        return ops.repeat(images[..., FLAIR :: self.channels], self.channels, axis=-1)

    def _intensity(self, images, missing):
        """Gamma, contrast, brightness, noise: each channel by itself, a missing one exactly as its FLAIR."""

        def drawn(scale):
            values = self._of_each_channel(images, -scale, scale)
            return values if missing is None else ops.where(missing, self._flair(values), values)

        p = self.params
        if not any((p.gamma, p.contrast, p.brightness, p.noise)):
            return images
        images = ops.cast(images, "float32") / SCALE
        if p.gamma:  # exp and log: much faster than power on a processor
            images = ops.exp(ops.exp(drawn(math.log1p(p.gamma))) * ops.log(ops.maximum(images, 1e-6)))
        gain, shift = 1 + drawn(p.contrast), drawn(p.brightness)
        shift = shift + ops.mean(images, axis=(1, 2), keepdims=True) * (1 - gain)
        images = images * (SCALE * gain) + SCALE * shift
        if p.noise:  # of each pixel of each channel: a field that channels share could be told from the signal
            field = keras.random.normal(ops.shape(images), seed=self.generator) * (p.noise * SCALE)
            images = images + (field if missing is None else ops.where(missing, self._flair(field), field))
        return ops.clip(images, 0.0, SCALE)

    def _context_dropout(self, images):
        """Last: a slice that stands alone has exact copies of itself for neighbours."""
        slices = images.shape[-1] // self.channels
        if not self.params.context_dropout or slices == 1:
            return images
        first = slices // 2 * self.channels
        middle = ops.tile(images[..., first : first + self.channels], (1, 1, 1, slices))
        alone = self._happens((ops.shape(images)[0], 1, 1, 1), self.params.context_dropout)
        return ops.where(alone > 0, middle, images)


def examples(params: Augmentation, image: np.ndarray, mask: np.ndarray, count: int = 4) -> dict[str, tuple]:
    """Each augmentation by itself, drawn ``count`` times on one slice, for people to look at.

    Args:
        image: (H, W, C) uint8. mask: (H, W) in {0, 1}.

    Returns:
        Name → (images (count, H, W, C) uint8, masks (count, H, W) uint8), those with 0 left out, ``all`` last.
    """
    images, masks = np.repeat(image[None], count, 0), np.repeat(mask[None, ..., None], count, 0)
    drawn = {}
    for name, alone in _one_at_a_time(params):
        new_images, new_masks = Augmenter(alone, seed=1, channels=image.shape[-1])(images, masks, training=True)
        drawn[name] = (
            np.round(ops.convert_to_numpy(new_images)).astype(np.uint8),
            ops.convert_to_numpy(new_masks)[..., 0].astype(np.uint8),
        )
    return drawn


def _one_at_a_time(params: Augmentation) -> Iterator[tuple[str, Augmentation]]:
    """What rarely happens is drawn half of the time here, else a row of examples would not show it."""
    off = dict.fromkeys(Augmentation.model_fields, 0.0)
    rare = ("flip_horizontal", "flip_vertical", "sequence_dropout")
    for name, value in params:
        if value and name != "context_dropout":  # of neighbours, which one slice does not have
            yield name, Augmentation(**{**off, name: 0.5 if name in rare else value})
    yield "all", params
