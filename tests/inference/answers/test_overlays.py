"""Overlays: tint and outline lie on the mask at any size; which slices are shown; what is written on them."""

import numpy as np
import pytest

from brainseg.inference.answers import overlays
from brainseg.inference.answers.overlays import OverlayInput
from tests.support.fake_outliner import heads


def orange(picture: np.ndarray) -> np.ndarray:
    """Pixels with colour in them."""
    return picture[..., 0].astype(int) - picture[..., 2] > 25


def drawn(voxels, mask, pixel=(1.0, 1.0), is_oriented=False) -> OverlayInput:
    return OverlayInput(voxels, mask, pixel, is_oriented, range(1, len(voxels) + 1))


@pytest.mark.parametrize("size", [(64, 80), (256, 320), (512, 640), (32, 40)])
def test_the_outline_lies_on_the_masks_border(size):
    voxels = heads(1, tumour=(0,))[0]
    mask = (voxels == 230).astype(np.uint8)
    picture = overlays.draw_outline(voxels, mask, size, opacity=0.0)
    rows, columns = np.nonzero(orange(picture))
    scale = size[0] / 64
    top, bottom = (np.flatnonzero(mask.any(1))[[0, -1]] + [0, 1]) * scale
    left, right = (np.flatnonzero(mask.any(0))[[0, -1]] + [0, 1]) * scale
    slack = 2.5 + scale / 2
    edges = rows.min() - top, rows.max() + 1 - bottom, columns.min() - left, columns.max() + 1 - right
    assert np.abs(edges).max() <= slack
    centre = round((top + bottom) / 2), round((left + right) / 2)
    if min(size) > 40:  # smaller, the line fills it
        assert not orange(picture)[centre]
    assert orange(overlays.draw_outline(voxels, mask, size, opacity=0.3))[centre]


def test_without_a_mask_there_is_no_colour():
    voxels = heads(1, tumour=())[0]
    assert not orange(overlays.draw_outline(voxels, np.zeros_like(voxels), (256, 320))).any()


def test_a_speck_stays_visible_where_the_picture_shrinks():
    mask = np.zeros((1000, 800), np.uint8)
    mask[500, 400] = 1
    assert orange(overlays.draw_outline(np.full((1000, 800), 90, np.uint8), mask, (205, 256))).any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_any_depth_is_stretched_to_black_and_white(dtype):
    voxels = heads(4).astype(dtype) * np.array(100 if dtype != "uint8" else 1).astype(dtype)
    if dtype == "int16":
        voxels -= 1000
    grey = overlays.scale_for_display(voxels)
    assert grey.dtype == np.uint8 and grey.shape == voxels.shape and grey.min() == 0 and grey.max() == 255
    three = np.stack([voxels * 0, voxels, voxels * 0], -1)
    np.testing.assert_array_equal(overlays.scale_for_display(three), grey)  # FLAIR is shown


def test_slices_with_tumour_are_shown_and_the_largest_among_them():
    mask = np.zeros((60, 8, 8), np.uint8)
    mask[[3, 7, 9], 4, 4] = 1
    assert overlays._choose_slices(mask) == [3, 7, 9]
    mask[5:50, 2, 2] = 1
    for largest in range(6, 49):
        one = mask.copy()
        one[largest] = 1
        shown = overlays._choose_slices(one)
        assert len(shown) == overlays.MAX_TILES and {3, largest, 49} <= set(shown) and shown == sorted(set(shown))
    assert len(overlays._choose_slices(np.zeros((60, 8, 8)))) == overlays.EMPTY
    assert overlays._choose_slices(np.zeros((3, 8, 8))) == [0, 1, 2]


@pytest.mark.parametrize(("slices", "side"), [(1, 560), (3, 256)])
def test_a_lone_slice_is_large_a_volume_is_tiles(slices, side):
    voxels = heads(slices, tumour=(0, 1, 2))
    page = np.asarray(overlays.draw_sheet(drawn(voxels, (voxels == 230).astype(np.uint8)), "Tumour on 3 of 3 slices"))
    assert orange(page).any() and side + 40 <= len(page) <= side + 90
    assert page.shape[1] > (slices * side * 64 // 80) * 0.9


def test_pixels_that_are_not_square_keep_the_heads_shape():
    voxels = heads(3, tumour=(0, 1, 2))[:, ::2]  # 40 rows of 2 mm
    mask = (voxels == 230).astype(np.uint8)
    assert overlays._tile_size(drawn(voxels, mask, (2.0, 1.0)), 3) == (205, 256)


def test_sides_are_marked_where_they_are_known():
    voxels = heads(1)
    mask = np.zeros_like(voxels)
    known, unknown = (
        np.asarray(overlays.draw_sheet(drawn(voxels, mask, is_oriented=yes), "No tumour found"))
        for yes in (True, False)
    )
    differ = np.nonzero((known != unknown).any(-1))
    middle = (known.shape[0] - 20) // 2
    inside = differ[0] < known.shape[0] - 40  # below, it says that the orientation is unknown
    assert inside.any() and np.abs(differ[0][inside] - middle).max() < 40
    columns = differ[1][inside]
    assert columns.min() < 60 and columns.max() > known.shape[1] - 60
    assert not ((columns > 60) & (columns < known.shape[1] - 60)).any()


def test_it_says_how_many_slices_are_left_out(monkeypatch):
    notes = []
    monkeypatch.setattr(overlays, "_page", lambda tiles, line, note: notes.append(note))
    voxels = heads(30, tumour=tuple(range(25)))
    for mask in (voxels == 230, voxels > 255, (voxels == 230) & (np.arange(30) < 20)[:, None, None]):
        overlays.draw_sheet(drawn(voxels, mask.astype(np.uint8), is_oriented=True), "")
    assert notes == ["20 of 25 slices with tumour shown", "10 of 30 slices shown", ""]


def test_the_disclaimer_is_on_every_sheet(monkeypatch):
    voxels = heads(3)
    mask = np.zeros_like(voxels)
    sheets = [np.asarray(overlays.draw_sheet(drawn(voxels[:n], mask[:n]), "")) for n in (1, 3)]
    monkeypatch.setattr(overlays, "DISCLAIMER", " ")
    for n, page in zip((1, 3), sheets, strict=True):
        without = overlays.draw_sheet(drawn(voxels[:n], mask[:n]), "")
        assert (np.asarray(without)[-40:, :200] != page[-40:, :200]).any()
    assert page.min() >= 0 and overlays.DISCLAIMER == " "


def test_the_same_case_gives_the_same_bytes():
    voxels = heads(3)
    mask = (voxels == 230).astype(np.uint8)
    assert (
        overlays.draw_sheet(drawn(voxels, mask), "x").tobytes()
        == overlays.draw_sheet(drawn(voxels, mask), "x").tobytes()
    )
