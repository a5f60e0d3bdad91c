"""The pictures of the page in the documents are those that the tools make, in their sizes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import outline_animation, page_pictures

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / page_pictures.FOLDER
SETTINGS = {"page-phone.png": page_pictures.PHONE, "page-list.png": page_pictures.LIST}


def test_the_list_is_that_of_the_files():
    assert {path.name for path in FOLDER.glob("page*.png")} == set(page_pictures.PICTURES)


@pytest.mark.parametrize("name", page_pictures.PICTURES)
def test_a_picture_is_as_large_as_the_window_and_small_as_a_file(name):
    settings = SETTINGS.get(name, page_pictures.DESK)
    scale, window = settings["device_scale_factor"], settings["viewport"]
    with Image.open(FOLDER / name) as picture:
        assert picture.size == (window["width"] * scale, window["height"] * scale)
    assert (FOLDER / name).stat().st_size <= page_pictures.MOST_BYTES


def test_the_animation_has_several_slices_and_goes_round():
    with Image.open(ROOT / outline_animation.OUT) as picture:
        assert 1 < picture.n_frames <= outline_animation.MOST_SLICES and picture.info["loop"] == 0
    assert (ROOT / outline_animation.OUT).stat().st_size <= outline_animation.MOST_BYTES


@pytest.mark.parametrize(("at", "first"), [(0, 0), (30, 18), (59, 36)])
def test_of_a_long_volume_the_slices_around_the_largest_area_are_shown(at, first):
    areas = np.zeros(60, int)
    areas[at] = 5
    assert outline_animation.choose(areas) == range(first, first + outline_animation.MOST_SLICES)
    assert outline_animation.choose(areas[:20]) == range(20)


def test_small_places_keep_the_colours_that_mean_something():
    noise = np.random.default_rng(0).integers(0, 200, (64, 64, 1)).repeat(3, -1).astype(np.uint8)
    noise[0, : len(page_pictures.KEPT)] = page_pictures.KEPT
    reduced = np.asarray(page_pictures.reduce(Image.fromarray(noise), 64).convert("RGB"))
    assert [tuple(colour) for colour in reduced[0, : len(page_pictures.KEPT)]] == list(page_pictures.KEPT)
    assert np.abs(reduced.astype(int) - noise).max() < 12


def test_lines_of_the_brush_stay_inside_a_place():
    inside = np.zeros((9, 9), bool)
    inside[2:7, 1:4] = inside[4:7, 6:8] = True
    assert page_pictures.plan_lines(inside, 2) == [(2, 1, 3), (4, 1, 3), (4, 6, 7), (6, 1, 3), (6, 6, 7)]
