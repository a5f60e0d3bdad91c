"""Areas, volume and mean probability of an outline, for the table and for the JSON of the server."""

import numpy as np
import pytest

from brainseg.inference import cases
from brainseg.inference.answers import measurements
from brainseg.io import volumes


def answer() -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((3, 20, 24), np.uint8)
    mask[1, 2:4, 2:5] = 1  # 6 pixels
    mask[2, 5, 5] = 1
    probability = np.full(mask.shape, 40, np.uint8)
    probability[1][mask[1] > 0] = 204
    probability[2, 5, 5] = 141
    return mask, probability


def test_in_millimetres_where_the_file_tells_its_place():
    mask, probability = answer()
    volume = volumes.to_axial(mask.transpose(2, 1, 0), np.diag([0.5, 2.0, 5.0, 1.0]))
    found = measurements.measure(cases.make_case("a", "nifti", mask, volume), mask, probability)
    assert (found.pixels, found.largest, found.area_pixels) == ([0, 6, 1], 1, 6)
    assert found.areas_mm2 == pytest.approx([0, 6, 1]) and found.area_mm2 == pytest.approx(6)
    assert found.volume_ml == pytest.approx(7 * 0.5 * 2 * 5 / 1000)
    assert found.means == [None, pytest.approx(0.8), pytest.approx(141 / 255)]
    assert found.mean == pytest.approx((6 * 204 + 141) / 7 / 255)


def test_of_a_picture_pixels_alone_are_known():
    mask, probability = answer()
    found = measurements.measure(cases.make_case("a", "tif", mask, None), mask, probability)
    assert (found.areas_mm2, found.area_mm2, found.volume_ml) == (None, None, None)
    assert found.area_pixels == 6


def test_without_tumour_an_area_is_nought_and_its_slice_and_probability_are_not_there():
    mask, probability = np.zeros((2, 16, 16), np.uint8), np.zeros((2, 16, 16), np.uint8)
    volume = volumes.to_axial(mask.transpose(2, 1, 0), np.eye(4))
    found = measurements.measure(cases.make_case("a", "nifti", mask, volume), mask, probability)
    assert (found.largest, found.area_pixels, found.area_mm2, found.volume_ml, found.mean) == (None, 0, 0.0, 0.0, None)


def test_the_interval_of_a_volume_is_what_the_model_knows():
    facts = {"volume_interval": {"level": 0.9, "low": 0.5, "high": 1.5, "patients": 110, "covered": 0.91}}
    three = ("pre-contrast", "FLAIR", "post-contrast")
    assert measurements.estimate_interval(8.0, facts, three) == (4, 12)
    for volume, told, channels in (
        (None, facts, three), (0.0, facts, three), (8.0, {}, three), (8.0, {"volume_interval": None}, three),
        (8.0, facts, ("FLAIR", "FLAIR", "FLAIR")), (8.0, facts | {"chosen": ["threshold 0.3"]}, three),
    ):  # fmt: skip
        assert measurements.estimate_interval(volume, told, channels) is None
