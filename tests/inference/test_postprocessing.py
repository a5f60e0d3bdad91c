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


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        ([1, 2, 3, 4], [0, 1, 2]),  # 2 + 2 + 1 voxels are one component; the last slice's is smaller
        ([0, 1, 2, 3], [0, 1, 2]),
        ([1, 2, 4, 5], []),  # 4 and 1 voxels, of 5
        ([1, 2, 3, 9], [0, 1, 2, 3]),  # the last is alone
        ([1, 3, 5, 7], [0, 1, 2, 3]),
        ([7, 8, 8, 9], []),  # one number twice: no neighbours
    ],
)
def test_components_go_through_consecutive_numbers_only_and_a_slice_alone_keeps_all(numbers, kept):
    probability = np.zeros((4, 8, 8), np.uint8)
    probability[0, 1, 1:3] = probability[1, 1, 1:3] = probability[2, 1, 1] = probability[3, 6, 6] = 255
    mask = postprocessing.binarise_numbered(probability, Rule(0.5, 5), numbers)
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == kept
    assert (mask[kept] == (probability[kept] > 0)).all()


def test_slices_with_consecutive_numbers_are_binarised_as_in_the_pipeline():
    probability = np.random.default_rng(1).integers(0, 256, (5, 16, 16)).astype(np.uint8)
    rule = Rule(0.6, 6)
    expected = postprocessing.binarise(probability, rule)
    assert (postprocessing.binarise_numbered(probability, rule, range(3, 8)) == expected).all()
    with pytest.raises(ValueError, match="2 numbers for 5 slices"):
        postprocessing.binarise_numbered(probability, rule, [1, 2])


def test_binarise_takes_the_level_itself():
    probability = np.array([[[127, 128, 255]]], np.uint8)
    assert postprocessing.binarise(probability, Rule(0.5, 0)).tolist() == [[[False, True, True]]]


def test_components_are_compared_with_the_largest_which_always_stays():
    mask = np.zeros((1, 8, 30), bool)
    for column, voxels in ((0, 8), (3, 4), (6, 2), (9, 1)):
        mask[0, :voxels, column] = True
    for share, left in (
        (0.0, 15),
        (0.1, 15),
        (0.125, 15),
        (0.2, 14),
        (0.25, 14),
        (0.26, 12),
        (0.5, 12),
        (0.6, 8),
        (1.0, 8),
    ):
        assert postprocessing.remove_small(mask, 0, share).sum() == left
    assert postprocessing.remove_small(mask, 3, 0.2).sum() == 12  # both hold
    assert postprocessing.remove_small(mask, 9, 0.2).sum() == 0  # a whole volume may have too few voxels
    assert not postprocessing.remove_small(mask & False, 0, 0.5).any()


def test_each_run_of_slices_has_a_largest_component_of_its_own():
    probability = np.zeros((5, 8, 8), np.uint8)
    probability[0, :4, :4] = probability[3, 0, :3] = probability[3, 2, 0] = 255  # 16, and after a gap 3 and 1
    mask = postprocessing.binarise_numbered(probability, Rule(0.5, 0, 0.4), [1, 2, 5, 6, 7])
    assert mask.sum() == 19


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (Rule(0.5, 1), ""),
        (Rule(0.5, 20), "components under 20 voxels"),
        (Rule(0.5, 0, 0.1), "components under 10 % of the largest"),
        (Rule(0.5, 20, 0.05), "components under 20 voxels or 5 % of the largest"),
    ],
)
def test_what_is_removed_is_said(rule, told):
    assert postprocessing.describe_removed(rule) == told
