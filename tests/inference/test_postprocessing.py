"""Removal of components, and masks by a rule, on small volumes with known results."""

import numpy as np
import pytest

from brainseg.inference import postprocessing
from brainseg.inference.postprocessing import Rule


def volume(*slices: list[str]) -> np.ndarray:
    return np.array([[[pixel == "#" for pixel in row] for row in rows] for rows in slices])


def test_a_component_counts_through_the_slices():
    """Three voxels in a column through three slices, and two in the first slice's corner."""
    mask = volume(["#..", "#..", "..#"], ["...", "...", "..#"], ["...", "...", "..#"])
    kept = volume(["...", "...", "..#"], ["...", "...", "..#"], ["...", "...", "..#"])
    assert (postprocessing.remove_small(mask, 2) == mask).all()
    assert (postprocessing.remove_small(mask, 3) == kept).all()
    assert not postprocessing.remove_small(mask, 4).any()


def test_corners_do_not_join():
    mask = volume(["#.", ".#"])
    assert not postprocessing.remove_small(mask, 2).any()


@pytest.mark.parametrize("size", [0, 1])
def test_nothing_to_remove_gives_an_equal_copy(size):
    mask = volume(["#.", ".#"])
    result = postprocessing.remove_small(mask, size)
    assert (result == mask).all() and result is not mask


def test_empty_and_full_volumes():
    assert not postprocessing.remove_small(np.zeros((2, 3, 3), np.uint8), 5).any()
    assert postprocessing.remove_small(np.ones((2, 3, 3), np.uint8), 18).all()


@pytest.mark.parametrize(
    ("threshold", "level"), [(0.05, 13), (0.2, 51), (0.4, 102), (0.5, 128), (0.6, 153), (0.95, 243), (0.0001, 1)]
)
def test_threshold_as_a_level_of_uint8(threshold, level):
    assert postprocessing.level(threshold) == level


def test_binarise_takes_the_level_itself():
    probability = np.array([[[127, 128, 255]]], np.uint8)
    assert postprocessing.binarise(probability, Rule(0.5, 0)).tolist() == [[[False, True, True]]]
