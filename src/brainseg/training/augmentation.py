"""Augmentation of image and mask together, inside the training step.

The random parameters of a sample are drawn in one place. One of two renderers applies them, and their results agree:
Keras' operations, or OpenCV where the step runs on a processor (``warping``), in a tenth of the time. Rotation,
translation, zoom, shear and flips are combined into one affine transform, so images are resampled once. The mask goes
through the same transform and is thresholded again, so it stays in {0, 1}; a soft one stays soft. Intensities change
independently for each sequence. A sequence that is made missing is an exact copy of FLAIR, as in the data set.
"""

import math
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from brainseg.config import Augmentation
from brainseg.io.sequences import FLAIR
from brainseg.models import backend, devices
from brainseg.training import warping
from brainseg.training.warping import FULL_SCALE, AugmentationDraw

OUTSIDE_THE_STEP = ("lesion_mix", "scalp_dropout")  # done by batches.Batches


class Augmenter(keras.layers.Layer):
    """(images (B, H, W, K C) 0..255, masks (B, H, W, M)) → the same as float32, each sample augmented at random.

    The K slices of a sample change in the same way, their ``channels`` (C) independently. With ``training=False`` only
    the type changes. In training H and W may become smaller (``window``). Masks are in {0, ``full``} and become 0 or 1;
    those with ``full`` above 1 are soft and become 0..1.
    """

    def __init__(self, params: Augmentation, seed: int, channels: int = 3, full: int = 1, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.params, self.channels, self.seed, self.full = params, channels, seed, full
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images, masks, training=False):
        if training and any(value for name, value in self.params if name not in OUTSIDE_THE_STEP):
            images, masks = self._render(images, masks)
            images = self._drop_context(images)
        masks = ops.cast(masks, "float32")
        return ops.cast(images, "float32"), masks / self.full if self.full > 1 else masks

    def _uniform(self, shape, low, high):
        return keras.random.uniform(shape, low, high, seed=self.generator)

    def _happens(self, shape, probability):
        return ops.cast(self._uniform(shape, 0.0, 1.0) < probability, "float32")

    def _draw(self, images, window: int) -> AugmentationDraw:
        p, side, slices = self.params, images.shape[1], images.shape[-1] // self.channels

        def draw(count):
            each = (count, self.channels)
            return AugmentationDraw(
                transforms=self._transforms(count, side, window),
                exponents=ops.exp(self._uniform(each, -1.0, 1.0) * math.log1p(p.gamma)),
                gains=1 + self._uniform(each, -1.0, 1.0) * p.contrast,
                shifts=self._uniform(each, -1.0, 1.0) * (p.brightness * FULL_SCALE),
                missing=self._draw_missing(count),
                places=self._uniform((count, slices, 2), 0.0, 1.0),
            )

        return devices.draw(draw, ops.shape(images)[0])

    def _draw_missing(self, count):
        """(B, C), 1 where FLAIR replaces the channel: each alone, or all of a sample at once."""
        p = self.params
        missing = self._happens((count, self.channels), p.sequence_dropout if self.channels == 3 else 0.0)
        if not p.flair_only or self.channels != 3:
            return missing  # without a further draw: what is drawn after it stays what it was
        return ops.maximum(missing, self._happens((count, 1), p.flair_only))

    def _transforms(self, count, side: int, window: int):
        """(B, 8) transforms from pixels of the window to pixels of the image. The window's centre is random too."""
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

    def _render(self, images, masks):
        side = images.shape[1]
        window = round(self.params.window * side) or side
        drawn = self._draw(images, window)
        if not backend.runs_on_processor():
            return self._render_by_keras(images, masks, drawn, window)
        noise = warping.noise_field(self.seed, self.params.noise, self.channels, 2 * window)

        def render(images, masks, *drawn):
            return warping.render(images, masks, AugmentationDraw(*drawn), window, noise)

        shapes = [(*array.shape[:1], window, window, array.shape[-1]) for array in (images, masks)]
        return backend.call_numpy(render, (images, masks, *drawn), shapes)

    def _render_by_keras(self, images, masks, drawn: AugmentationDraw, window: int):
        """Do the same as ``warping.render`` with Keras' operations; the noise is drawn for each call."""
        images, masks = ops.cast(images, "float32"), ops.cast(masks, "float32")  # uint8 would be truncated, not rounded
        images = backend.warp_affine(images, drawn.transforms, window)
        masks = backend.warp_affine(masks, drawn.transforms, window)
        masks = masks if self.full > 1 else masks >= 0.5
        slices = images.shape[-1] // self.channels
        exponents, gains, shifts, missing = (
            ops.tile(values[:, None, None], (1, 1, 1, slices))
            for values in (drawn.exponents, drawn.gains, drawn.shifts, drawn.missing)
        )
        images = FULL_SCALE * ops.power(images / FULL_SCALE, exponents)
        mean = ops.mean(images, axis=(1, 2), keepdims=True)
        images = (images - mean) * gains + mean + shifts
        if self.params.noise:  # independent for each channel: noise that channels share could be recognised
            count, *shape = ops.shape(images)
            field = devices.draw(lambda count: keras.random.normal((count, *shape), seed=self.generator), count)
            images = images + field * (self.params.noise * FULL_SCALE)
        images = ops.clip(images, 0.0, FULL_SCALE)
        if self.channels != 3:
            return images, masks
        flair = ops.repeat(images[..., FLAIR :: self.channels], self.channels, axis=-1)
        return ops.where(missing > 0, flair, images), masks

    def _drop_context(self, images):
        """Replace all neighbours by exact copies of the slice, at random. Comes last, so that the copies stay exact."""
        slices = images.shape[-1] // self.channels
        if not self.params.context_dropout or slices == 1:
            return images
        first = slices // 2 * self.channels
        middle = ops.tile(images[..., first : first + self.channels], (1, 1, 1, slices))
        chance = self.params.context_dropout
        alone = devices.draw(lambda count: self._happens((count, 1, 1, 1), chance), ops.shape(images)[0])
        return ops.where(alone > 0, middle, images)


def augment_examples(params: Augmentation, image: np.ndarray, mask: np.ndarray, count: int = 4) -> dict[str, tuple]:
    """Apply each augmentation alone, ``count`` times to one slice, as a picture for people.

    Args:
        image: (H, W, C) uint8.
        mask: (H, W) in {0, 1}.

    Returns:
        Name → (images (count, H, W, C) uint8, masks (count, H, W) uint8). Augmentations that are 0 are left out; the
        last name is ``all``.
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
    """Yield parameters with one augmentation each. Rare ones get a probability of 0.5, so that examples show them."""
    off = dict.fromkeys(Augmentation.model_fields, 0.0)
    rare = ("flip_horizontal", "flip_vertical", "sequence_dropout", "flair_only")
    for name, value in params:
        if value and name not in ("context_dropout", *OUTSIDE_THE_STEP):  # one slice has no neighbours
            yield name, Augmentation(**{**off, name: 0.5 if name in rare else value})
    yield "all", params
