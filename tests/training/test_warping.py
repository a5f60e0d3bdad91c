"""The two renderers of the augmentation: what OpenCV does on a processor and what Keras does elsewhere is the same."""

import keras
import numpy as np
import pytest

from brainseg import config
from brainseg.io.sequences import FLAIR
from brainseg.training import warping
from brainseg.training.augmentation import Augmenter

SIDE, WINDOW = 64, 48


def batch(count: int, slices: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Smooth images, so that a hundredth of a pixel does not show as grey levels, with a disc as mask."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [128 + 100 * np.sin(4 * y + k) * np.cos(5 * x + 2 * k) for k in range(3 * slices)]
    disc = (y - 0.45) ** 2 + (x - 0.55) ** 2 < 0.06
    images, masks = np.stack(waves, -1).astype("uint8"), np.stack([disc] * slices, -1).astype("uint8")
    return np.repeat(images[None], count, 0), np.repeat(masks[None], count, 0)


def rendered(params: config.Augmentation, images, masks, seed: int = 3):
    """What was drawn, and what each renderer makes of it."""
    augmenter = Augmenter(params, seed=seed)
    drawn = augmenter._draw(images, WINDOW)
    as_arrays = warping.AugmentationDraw(*(keras.ops.convert_to_numpy(values) for values in drawn))
    field = warping.noise_field(seed, params.noise, 3, 2 * WINDOW)
    ours = warping.render(images, masks, as_arrays, WINDOW, field)
    theirs = [keras.ops.convert_to_numpy(a) for a in augmenter._render_by_keras(images, masks, drawn, WINDOW)]
    return as_arrays, ours, theirs


@pytest.mark.parametrize("slices", [1, 3])
def test_both_renderers_mean_the_same(slices):
    params = config.load().augmentation.model_copy(update={"noise": 0.0, "window": WINDOW / SIDE})
    _, ours, theirs = rendered(params, *batch(24, slices))
    assert ours[0].shape == theirs[0].shape == (24, WINDOW, WINDOW, 3 * slices)
    inside = np.abs(ours[0] - theirs[0])[:, 2:-2, 2:-2]
    assert np.median(inside) < 0.6  # OpenCV's warped values are whole numbers
    assert np.quantile(inside, 0.99) < 4
    assert (ours[1] != theirs[1]).mean() < 0.005  # the border of the disc


def test_masks_stay_binary_and_a_window_is_cut():
    images, masks = batch(16)
    _, (new_images, new_masks), _ = rendered(config.load().augmentation, images, masks)
    assert set(np.unique(new_masks)) == {0.0, 1.0}
    assert new_images.dtype == new_masks.dtype == np.float32
    assert new_images.min() >= 0 and new_images.max() <= 255


def test_a_missing_sequence_is_flair_to_the_last_bit_with_noise():
    params = config.load().augmentation.model_copy(update={"sequence_dropout": 0.5})
    drawn, (new_images, _), _ = rendered(params, *batch(32))
    assert 0 < drawn.missing.mean() < 1
    for sample, channel in np.argwhere(drawn.missing > 0):
        np.testing.assert_array_equal(new_images[sample, ..., channel], new_images[sample, ..., FLAIR])
    for sample, channel in np.argwhere(drawn.missing == 0):
        if channel != FLAIR:
            assert (new_images[sample, ..., channel] != new_images[sample, ..., FLAIR]).any()


def test_noise_has_its_deviation_and_differs_between_samples_and_slices():
    off = dict.fromkeys(config.Augmentation.model_fields, 0.0)
    images, masks = np.full((8, SIDE, SIDE, 6), 128, "uint8"), np.zeros((8, SIDE, SIDE, 2), "uint8")
    _, (new_images, new_masks), _ = rendered(config.Augmentation(**{**off, "noise": 0.04}), images, masks)
    noise = new_images[:, 8:-8, 8:-8] - 128
    assert noise.std() == pytest.approx(0.04 * 255, rel=0.05)
    assert not new_masks.any()
    fields = noise.reshape(8, -1, 6).transpose(0, 2, 1).reshape(48, -1)
    apart = np.corrcoef(fields)[~np.eye(48, dtype=bool)]
    assert np.abs(apart).max() < 0.2  # a field that channels or samples share could be told from the signal


def test_the_same_draws_give_the_same_bytes():
    images, masks = batch(16)
    params = config.load().augmentation
    _, first, _ = rendered(params, images, masks)
    _, again, _ = rendered(params, images, masks)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
