"""Removing the scalp: from all images, or at random in training."""

import numpy as np
import pandas as pd
import pytest

from brainseg.data import dataset
from brainseg.data.brains import stripping
from tests.support.cohort import write_cohort


@pytest.fixture
def data(tmp_path):
    return dataset.load(*write_cohort(tmp_path), "patient")


def make(brains, masks, patients):
    """A data set of white images."""
    images = np.full((*masks.shape, 3), 255, np.uint8)
    return dataset.Dataset(images, masks, pd.DataFrame({"patient": patients}), np.packbits(brains, axis=-1))


def square(*sides):
    """Masks of 40 x 40 pixels: a square of so many pixels a side in the middle."""
    found = np.zeros((len(sides), 40, 40), np.uint8)
    for mask, side in zip(found, sides, strict=True):
        mask[20 - side // 2 : 20 + side // 2, 20 - side // 2 : 20 + side // 2] = 1
    return found


def test_stripped_images_are_the_images_within_the_brain(data):
    stripped, rows = stripping.StrippedImages(data), np.array([[3, 4], [5, 6]])
    brain = data.brain(rows)[..., None] > 0
    assert 0.5 < brain.mean() < 1
    assert (stripped[rows] == np.where(brain, data.images[rows], 0)).all()
    assert stripped.shape == data.images.shape


def test_brains_are_unknown_where_every_bit_is_set():
    masks = square(0, 0)
    both = np.arange(2)
    assert not stripping.is_known(make(np.ones_like(masks), masks, ["A", "A"]), both)
    assert stripping.is_known(make(square(40, 38), masks, ["A", "A"]), both)
    assert not stripping.is_known(make(square(40, 38), masks, ["A", "A"]), both[:1])
    assert not stripping.is_known(dataset.Dataset(masks[..., None], masks, pd.DataFrame()), both)


def test_a_patient_whose_tumour_is_cut_keeps_the_scalp():
    """B's second slice has 400 of 800 tumour pixels outside; C's brain is unknown; D has no tumour; E loses 1 %."""
    brains = np.concatenate([square(30, 30, 30), np.zeros((1, 40, 40), np.uint8), square(40, 30, 30)])
    masks = square(10, 10, 20, 20, 10, 0, 10)
    masks[6, 0, 0] = 1
    data = make(brains, masks, ["A", "A", "B", "B", "C", "D", "E"])
    assert stripping.find_strippable(data).tolist() == [True, True, False, False, False, True, True]


def test_half_of_the_allowed_samples_are_stripped_in_all_their_slices():
    data = make(square(*[20] * 400), square(*[4] * 400), [f"P{i}" for i in range(400)])
    windows = np.stack([np.arange(400), np.arange(400)], axis=1)
    images = dataset.stack_channels(data.images, windows)
    allowed = np.arange(400) % 4 > 0
    found = stripping.strip_at_random(images.copy(), data, windows, allowed, 0.5, np.random.default_rng(1))
    changed = (found != images).any(axis=(1, 2))
    assert (changed == changed[:, :1]).all()  # all channels of all slices
    assert not changed[~allowed].any() and 0.4 < changed[allowed].mean() < 0.6


@pytest.mark.parametrize(("growth", "side"), [(-2, 16), (0, 20), (3, 26)])
def test_the_border_moves_by_so_many_pixels(growth, side):
    found = stripping.resize_mask(square(20)[0], growth)
    assert found.any(axis=0).sum() == found.any(axis=1).sum() == side


def test_the_border_moves_both_ways_in_training():
    """On a grid of 256 by -2 to 4 pixels."""
    masks = np.zeros((60, 256, 256), np.uint8)
    brains = np.zeros_like(masks)
    brains[:, 100:150, 100:150] = 1
    data = make(brains, masks, [f"P{i}" for i in range(60)])
    rows = np.arange(60)[:, None]
    found = stripping.strip_at_random(
        data.images.copy(), data, rows, np.ones(60, bool), 1.0, np.random.default_rng(2)
    )  # fmt: skip
    widths = (found[..., 0] > 0).any(axis=1).sum(axis=1)
    assert set(widths) == {50 + 2 * growth for growth in range(-2, 5)}
    assert (data.images == 255).all()


def test_the_same_draws_strip_the_same():
    data = make(square(*[20] * 8), square(*[4] * 8), list("ABCDEFGH"))
    rows, allowed = np.arange(8)[:, None], np.ones(8, bool)
    one, two, other = (
        stripping.strip_at_random(data.images.copy(), data, rows, allowed, 0.5, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert (one == two).all() and (one != other).any()
