"""Slices to the square grid and back: shapes, areas, and image and mask in register."""

import numpy as np
import pytest

from brainseg.io import grid


@pytest.mark.parametrize(("height", "width"), [(64, 48), (48, 64), (31, 17), (100, 8)])
def test_aspect_ratio_is_kept_by_even_zero_padding(height, width):
    image = grid.resize_image(np.full((height, width), 200, np.uint8), 32)
    filled = np.argwhere(image[..., 0] > 0)
    (top, left), (bottom, right) = filled.min(axis=0), filled.max(axis=0)
    expected = [round(side * 32 / max(height, width)) for side in (height, width)]
    assert [bottom - top + 1, right - left + 1] == expected
    assert abs(top - (31 - bottom)) <= 1 and abs(left - (31 - right)) <= 1
    assert (image[top : bottom + 1, left : right + 1] == 200).all()


def test_shrinking_averages_areas():
    image = np.array([[0, 4, 0, 0], [8, 12, 0, 0], [0, 0, 99, 99], [0, 0, 101, 101]], np.uint8)
    assert grid.resize_image(image, 2)[..., 0].tolist() == [[6, 0], [0, 100]]


def test_mask_pixel_is_tumour_from_half_of_it_on():
    mask = np.array([[255, 0, 255, 0], [0, 0, 0, 255], [255, 255, 0, 0], [255, 0, 0, 0]], np.uint8)
    assert grid.resize_mask(mask, 2).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("side", [20, 32, 45, 64, 128, 300])
@pytest.mark.parametrize("top", [1, 255])
def test_masks_stay_binary_and_keep_their_area(side, top):
    y, x = np.mgrid[:side, :side] / side
    mask = np.where(np.hypot(x - 0.4, y - 0.6) < 0.3, top, 0).astype(np.uint8)
    resized = grid.resize_mask(mask, 64)
    assert set(np.unique(resized)) == {0, 1}
    assert resized.mean() == pytest.approx(mask.mean() / top, rel=0.04)


def test_image_and_mask_stay_in_register():
    mask = np.zeros((96, 80), np.uint8)
    mask[30:70, 20:60] = 255
    image = grid.resize_image(mask, 64)[..., 0]
    np.testing.assert_array_equal(grid.resize_mask(mask, 64), image >= 128)


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.5, 1.0), (3.0, 2.0)])
@pytest.mark.parametrize("shape", [(64, 64), (240, 240), (31, 90), (512, 300)])
def test_what_goes_to_the_grid_comes_back_where_it_was(shape, pixel):
    """An ellipse that is resized to the grid and restored covers the original one."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    drawn = (((y / shape[0] - 0.4) / 0.25) ** 2 + ((x / shape[1] - 0.6) / 0.3) ** 2 < 1) * np.uint8(255)
    found = grid.resize_back(grid.resize_image(drawn, 128, pixel)[..., 0], shape, pixel)
    assert found.shape == shape and found.dtype == np.uint8
    inside, expected = found >= 128, drawn > 0
    assert 2 * (inside & expected).sum() / (inside.sum() + expected.sum()) > 0.97
    rows, columns = (np.argwhere(each).mean(axis=0) for each in (inside, expected))
    assert np.abs(rows - columns).max() < 0.02 * max(shape)


def test_on_the_grid_already_nothing_is_resampled():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    assert (grid.resize_back(pixels, (64, 64)) == pixels).all()
