"""Lesions: components of an outline, their order and their measures in a file's own grid."""

import nibabel
import numpy as np
import pytest

from brainseg.inference import cases
from brainseg.inference.answers import lesions
from tests.support.nifti_files import ORIENTATIONS, nifti

LEVEL = 204


def picture(mask: np.ndarray) -> cases.Case:
    return cases.make_case("case", "tif", mask, None)


def probability(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, np.uint8(LEVEL), np.uint8(10))


def boxes(*sizes: tuple[int, int, int]) -> np.ndarray:
    """(S, H, W): boxes of these numbers of slices, rows and columns, apart from each other."""
    mask = np.zeros((12, 60, 60), np.uint8)
    for n, (s, h, w) in enumerate(sizes):
        mask[1 : 1 + s, 2 : 2 + h, 2 + 15 * n : 2 + 15 * n + w] = 1
    return mask


def test_the_largest_lesion_comes_first():
    mask = boxes((1, 2, 2), (3, 5, 4), (2, 3, 3))
    found = lesions.find(picture(mask), mask, probability(mask))
    assert [(each.number, each.voxels) for each in found] == [(1, 60), (2, 18), (3, 4)]
    assert [(each.first_slice, each.last_slice) for each in found] == [(2, 4), (2, 3), (2, 2)]
    assert found[0].centroid == (18.5, 4.0, 2.0)  # column, row, slice
    assert all(each.volume_ml is each.extent_mm is each.centroid_mm is None for each in found)


def test_no_outline_has_no_lesions():
    empty = boxes()
    assert lesions.find(picture(empty), empty, empty) == []


def test_components_join_by_faces_and_not_across_a_gap_in_the_numbers():
    mask = np.zeros((3, 10, 10), np.uint8)
    mask[:, 2:4, 2:4] = 1
    mask[0, 4, 4] = 1  # touches by a corner
    assert len(lesions.find(picture(mask), mask, probability(mask))) == 2
    found = lesions.find(picture(mask), mask, probability(mask), (5, 6, 9))
    assert [(each.voxels, each.first_slice, each.last_slice) for each in found] == [(8, 5, 6), (4, 9, 9), (1, 5, 5)]


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_measures_in_millimetres_do_not_depend_on_the_order_of_the_file(tmp_path, orientation):
    mask = boxes((3, 6, 4))
    path = nifti(tmp_path / "scan.nii", 200 * mask, orientation)
    case = cases.read(path, "scan")
    (found,) = lesions.find(case, mask, probability(mask))
    row, column, between = case.volume.spacing
    assert found.volume_ml == pytest.approx(72 * row * column * between / 1000)
    assert found.area_mm2 == pytest.approx(24 * row * column)
    assert found.extent_mm == pytest.approx((4 * column, 6 * row, 3 * between))
    assert found.max_diameter_mm == pytest.approx(np.hypot(4 * column, 6 * row))
    image = nibabel.load(path)
    voxels = np.argwhere(np.asarray(image.dataobj) == 200)
    assert found.centroid == pytest.approx(tuple(voxels.mean(axis=0)), abs=1e-4)
    assert found.centroid_mm == pytest.approx(tuple((image.affine @ [*voxels.mean(axis=0), 1])[:3]), abs=1e-3)


def test_probabilities_are_those_inside():
    mask = boxes((2, 2, 2))
    chance = probability(mask)
    chance[1, 2, 2] = 255
    (found,) = lesions.find(picture(mask), mask, chance)
    assert found.mean_probability == pytest.approx((7 * LEVEL + 255) / 8 / 255) and found.max_probability == 1


def test_a_row_has_all_columns_and_no_number_for_what_is_not_known():
    mask = boxes((2, 2, 2))
    (found,) = lesions.find(picture(mask), mask, probability(mask))
    row = lesions.format_row(found)
    assert tuple(row) == lesions.COLUMNS
    assert (row["lesion"], row["volume_ml"], row["centroid_i"], row["max_probability"]) == (1, "", "2.5", "0.800")
