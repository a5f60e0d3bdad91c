"""Augmentation on synthetic images, by property."""

import numpy as np
import pytest
from keras import ops

from brainseg.config import Augmentation
from brainseg.training.augmentation import Augmenter, augment_examples

OFF = dict.fromkeys(Augmentation.model_fields, 0.0)
STRONG = {
    "rotation": 40.0, "translation": 0.2, "zoom": 0.4, "shear": 20.0, "flip_horizontal": 1.0, "flip_vertical": 1.0,
    "brightness": 0.3, "contrast": 0.5, "gamma": 0.8, "noise": 0.1, "sequence_dropout": 1.0,
}  # fmt: skip
GEOMETRIC = ["rotation", "translation", "zoom", "shear", "flip_horizontal", "flip_vertical"]


def params(**changes):
    return Augmentation(**{**OFF, **changes})


def sample(count=6, size=64):
    """A bright block where the mask is, off the centre, on a dim ramp; three different channels."""
    rng = np.random.default_rng(0)
    images = (
        np.repeat(rng.integers(20, 60, (count, 1, 1, 3)), size, 1).repeat(size, 2)
        + np.arange(size)[None, None, :, None] // 4
    )
    masks = np.zeros((count, size, size), np.uint8)
    masks[:, 14:30, 26:50] = 1
    images[masks > 0] += 150
    return images.astype(np.uint8), masks


def augment(augmentation, images, masks, seed=3):
    new_images, new_masks = Augmenter(augmentation, seed)(images, masks[..., None], training=True)
    return ops.convert_to_numpy(new_images), ops.convert_to_numpy(new_masks)[..., 0]


@pytest.mark.parametrize("name", STRONG)
def test_each_does_something_by_itself(name):
    images, masks = sample()
    new_images, new_masks = augment(params(**{name: STRONG[name]}), images, masks)
    assert np.abs(new_images - images).max() > 5
    assert (new_masks != masks).any() == (name in GEOMETRIC)


def test_all_off_or_not_training_changes_nothing():
    images, masks = sample()
    for augmentation, training in ((params(), True), (params(**STRONG), False)):
        new_images, new_masks = Augmenter(augmentation, 1)(images, masks[..., None], training=training)
        np.testing.assert_allclose(new_images, images)
        np.testing.assert_allclose(new_masks[..., 0], masks)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_mask_moves_with_the_image(name):
    """The block is brighter than anything else, so thresholding the moved image must give the moved mask."""
    images, masks = sample()
    new_images, new_masks = augment(params(**{name: STRONG[name]}), images, masks)
    seen = new_images[..., 0] > 130
    assert set(np.unique(new_masks)) <= {0.0, 1.0}
    disagreement = (seen != (new_masks > 0)).sum() / max(1, new_masks.sum())
    assert disagreement < 0.06


def test_rotation_is_in_degrees():
    """A bar across the centre, turned by at most 10 degrees, tilts by at most 10 degrees, and by some."""
    images = np.zeros((32, 65, 65, 3), np.uint8)
    masks = np.zeros((32, 65, 65), np.uint8)
    masks[:, 31:34, :] = 1
    _, turned = augment(params(rotation=10.0), images, masks)
    y, x = np.mgrid[:65, :65] - 32
    tilts = [np.degrees(np.polyfit(x[m > 0], y[m > 0], 1)[0]) for m in turned]
    assert 5 < np.abs(tilts).max() <= 11


def test_translation_is_a_share_of_the_side():
    images, masks = sample(count=32)
    _, moved = augment(params(translation=0.1), images, masks)
    shift = np.array([np.argwhere(m).mean(0) for m in moved]) - np.argwhere(masks[0]).mean(0)
    assert 3 < np.abs(shift).max() <= 6.5


def test_a_window_is_a_part_of_the_slice_anywhere_in_it():
    images, masks = sample(count=32)
    images[:, :, :, 0] = np.arange(64)[:, None]  # rows
    images[:, :, :, 2] = np.arange(64)  # columns
    shown, moved = augment(params(window=0.5), images, masks)
    assert shown.shape == (32, 32, 32, 3)
    assert moved.shape == (32, 32, 32)
    top, left = shown[:, 0, 0, 0], shown[:, 0, 0, 2]
    rows, columns = np.mgrid[:32, :32]
    np.testing.assert_allclose(shown[..., 0] - rows, np.broadcast_to(top[:, None, None], moved.shape), atol=1)  # bytes
    np.testing.assert_allclose(shown[..., 2] - columns, np.broadcast_to(left[:, None, None], moved.shape), atol=1)
    for corner in (top, left):
        assert -1e-3 <= corner.min() < 4
        assert 28 < corner.max() <= 32.001


def test_zoom_changes_the_area():
    images, masks = sample(count=32)
    _, zoomed = augment(params(zoom=0.5), images, masks)
    areas = zoomed.sum((1, 2)) / masks.sum((1, 2))
    assert areas.max() > 1.3
    assert areas.min() < 0.8
    assert areas.min() >= 1 / 1.5**2 - 0.05
    assert areas.max() <= 1.5**2 + 0.1


def test_flip_is_a_mirror():
    images, masks = sample()
    new_images, new_masks = augment(params(flip_horizontal=1.0), images, masks)
    np.testing.assert_allclose(new_images, images[:, :, ::-1], atol=1e-3)
    np.testing.assert_array_equal(new_masks, masks[:, :, ::-1])
    new_images, _ = augment(params(flip_vertical=1.0), images, masks)
    np.testing.assert_allclose(new_images, images[:, ::-1], atol=1e-3)


def test_a_missing_sequence_is_an_exact_copy_of_flair():
    images, masks = sample()
    new_images, _ = augment(params(**{**STRONG, "sequence_dropout": 1.0}), images, masks)
    np.testing.assert_allclose(new_images[..., 0], new_images[..., 1], atol=1e-3)
    np.testing.assert_allclose(new_images[..., 2], new_images[..., 1], atol=1e-3)
    only, _ = augment(params(sequence_dropout=1.0), images, masks)
    np.testing.assert_allclose(only[..., 1], images[..., 1], atol=1e-3)


def test_both_sequences_are_missing_together_as_often_as_asked():
    images, masks = sample(count=64)
    changed, _ = augment(params(flair_only=0.25), images, masks)
    kept, alone = ((changed == old).all(axis=(1, 2, 3)) for old in (images, images[..., [1, 1, 1]]))
    assert (kept ^ alone).all()  # never one of the two alone
    assert 0.1 < alone.mean() < 0.4
    changed, _ = augment(params(flair_only=1.0, sequence_dropout=0.5), images, masks)
    np.testing.assert_array_equal(changed, images[..., [1, 1, 1]])


def test_intensities_stay_in_range():
    images, masks = sample()
    new_images, _ = augment(params(**STRONG), images, masks)
    assert new_images.min() >= 0
    assert new_images.max() <= 255
    assert np.isfinite(new_images).all()


def test_samples_differ_and_the_seed_decides():
    images, masks = sample()
    first, _ = augment(params(rotation=20.0), np.repeat(images[:1], 6, 0), np.repeat(masks[:1], 6, 0))
    again, _ = augment(params(rotation=20.0), np.repeat(images[:1], 6, 0), np.repeat(masks[:1], 6, 0))
    assert len({i.tobytes() for i in first}) == 6
    np.testing.assert_array_equal(first, again)


def test_examples_name_each_augmentation_and_all():
    images, masks = sample()
    drawn = augment_examples(params(**{**STRONG, "shear": 0.0}), images[0], masks[0], count=3)
    assert list(drawn) == [n for n in STRONG if n != "shear"] + ["all"]
    assert all(i.shape == (3, 64, 64, 3) and m.shape == (3, 64, 64) for i, m in drawn.values())


def window_of_slices(count=6):
    """The same slices once and with two neighbours, behind one another; the masks of all three."""
    images, masks = sample(count)
    neighbours = np.concatenate([images // 2, images, images // 2 + 20], -1)
    return images, masks, neighbours


def test_the_slices_of_a_window_are_changed_alike():
    """The middle one as if it were alone; with the same slice three times, all three the same but for the noise."""
    images, masks, _ = window_of_slices()
    strong = params(**{**STRONG, "noise": 0.0, "sequence_dropout": 0.5})
    changed, _ = augment(strong, np.tile(images, (1, 1, 1, 3)), masks)
    assert np.abs(changed[..., 3:6] - images).max() > 5
    for first in (0, 6):
        np.testing.assert_allclose(changed[..., first : first + 3], changed[..., 3:6], atol=1e-3)


def test_a_sequence_is_missing_in_every_slice_of_a_window_or_in_none():
    _, masks, neighbours = window_of_slices(count=32)
    changed, _ = augment(params(sequence_dropout=0.5), neighbours, masks)
    slices = changed.reshape(*changed.shape[:3], 3, 3)
    missing = (slices == slices[..., 1:2]).all(axis=(1, 2))  # sample, slice, channel: equal to that slice's FLAIR
    assert (missing == missing[:, :1]).all()
    assert 0.2 < missing[:, 0, 0].mean() < 0.8
    assert (missing[:, 0, 0] != missing[:, 0, 2]).any()
    kept = ~missing[:, 0, 0]
    np.testing.assert_array_equal(changed[kept][..., 6], neighbours[kept][..., 6])


def test_neighbours_are_replaced_by_the_slice_itself():
    images, masks, neighbours = window_of_slices(count=32)
    changed, _ = augment(params(context_dropout=0.5), neighbours, masks)
    np.testing.assert_array_equal(changed[..., 3:6], images)
    alone = (changed[..., :3] == images).all(axis=(1, 2, 3))
    assert 0.2 < alone.mean() < 0.8
    np.testing.assert_array_equal(changed[alone], np.tile(images[alone], (1, 1, 1, 3)))
    np.testing.assert_array_equal(changed[~alone], neighbours[~alone])


def test_masks_of_several_slices_go_through_the_same_map():
    images, masks, _ = window_of_slices()
    pair = np.stack([masks, masks], -1)
    _, moved = Augmenter(params(**STRONG), 3)(np.tile(images, (1, 1, 1, 3)), pair, training=True)
    _, alone = augment(params(**STRONG), np.tile(images, (1, 1, 1, 3)), masks)
    for place in (0, 1):
        np.testing.assert_array_equal(ops.convert_to_numpy(moved)[..., place], alone)


def test_noise_is_drawn_for_each_sample_and_channel():
    """A field that they share, even with another sign, the network could take away again."""
    flat = np.full((4, 64, 64, 3), 128, np.uint8)
    noisy, _ = augment(params(noise=0.05), flat, np.zeros((4, 64, 64), np.uint8))
    fields = (noisy - 128).transpose(0, 3, 1, 2).reshape(12, -1)
    assert fields.std(axis=1) == pytest.approx(np.full(12, 0.05 * 255), rel=0.05)
    assert np.abs(np.corrcoef(fields) - np.eye(12)).max() < 0.1


def test_turned_images_keep_their_brightness():
    """TensorFlow's kernel cuts whole numbers off where it interpolates: half a grey level darker on average."""
    images = np.random.default_rng(0).integers(50, 200, (8, 64, 64, 3)).astype(np.uint8)
    turned, _ = augment(params(rotation=10.0), images, np.zeros((8, 64, 64), np.uint8))
    middle = np.s_[:, 16:48, 16:48]
    assert turned[middle].mean() == pytest.approx(images[middle].mean(), abs=0.25)
