"""Tables of counts and the blocks made from them, on slices counted by hand (tests/support/scored_cohort.py)."""

import tracemalloc
from functools import partial

import numpy as np
import pandas as pd
import pytest

from brainseg.errors import DataError
from brainseg.evaluation import bootstrap, scoring
from brainseg.inference.postprocessing import Rule
from brainseg.io import spacing
from tests.support.scored_cohort import EMPTY, ROW, SQUARE, A, B, C, Patient, Slice, arrays

summarise = partial(bootstrap.summarise, resamples=200, seed=1)
PLAIN = Rule(0.5, 0)
COUNTS = ["tumour_pixels", "predicted_pixels", "tp", "fp", "fn", "tn"]


def slices_of(*patients: Patient, tolerance: float = 0, unit: str = "px", rule: Rule = PLAIN) -> pd.DataFrame:
    cases, masks, probability = arrays(list(patients))
    return scoring.per_slice(scoring.Cohort(cases, masks), probability, rule, tolerance, unit, "test")


def test_a_row_for_every_slice_with_its_counts():
    table = slices_of(A)
    names, scores = ["row", "patient", "institution", "subset", "slice"], ["dice", "iou", "hd95", "surface_dice"]
    assert [*table.columns] == [*names, *COUNTS, *scores]
    assert table[["row", "slice"]].to_numpy().tolist() == [[7, 1], [8, 2], [9, 3]]
    assert table[COUNTS].to_numpy().tolist() == [[4, 4, 2, 2, 2, 94], [0, 1, 0, 1, 0, 99], [0, 0, 0, 0, 0, 100]]
    expected = [[1 / 2, 1 / 3, 1, 1 / 2], [0, 0, np.nan, 0], [np.nan] * 4]
    assert table[scores].to_numpy() == pytest.approx(np.array(expected), nan_ok=True)


def test_volume_dice_adds_up_the_slices_before_the_quotient():
    table = scoring.per_patient(slices_of(A, B, C))
    names, scores = (
        ["patient", "institution", "subset", "slices", "tumour_slices"],
        ["dice", "iou", "precision", "recall"],
    )
    assert [*table.columns] == [*names, *COUNTS, *scores]
    assert table.patient.tolist() == ["A", "B", "C"]
    assert table[["slices", "tumour_slices"]].to_numpy().tolist() == [[3, 1], [2, 2], [1, 0]]
    assert table[["tp", "fp", "fn", "tn"]].to_numpy().tolist() == [[2, 3, 2, 293], [4, 0, 2, 194], [0, 0, 0, 100]]
    assert table.dice.to_numpy() == pytest.approx(np.array([4 / 9, 8 / 10, np.nan]), nan_ok=True)
    assert table.iou.to_numpy() == pytest.approx(np.array([2 / 7, 4 / 6, np.nan]), nan_ok=True)
    assert table.precision.to_numpy() == pytest.approx(np.array([2 / 5, 1, np.nan]), nan_ok=True)
    assert table.recall.to_numpy() == pytest.approx(np.array([2 / 4, 4 / 6, np.nan]), nan_ok=True)


def test_slices_are_scored_in_numeric_order_whatever_the_order_of_rows():
    cases, masks, probability = arrays([A, B])
    order = [4, 2, 0, 3, 1]
    shuffled = scoring.Cohort(cases.iloc[order].reset_index(drop=True), masks[order])
    expected = scoring.per_slice(scoring.Cohort(cases, masks), probability, PLAIN, 0, "px", "")
    got = scoring.per_slice(shuffled, probability[order], PLAIN, 0, "px", "")
    pd.testing.assert_frame_equal(got, expected)


def test_components_are_removed_in_3d_before_scoring():
    """The pixel (9, 9) alone goes; ROW in one slice and the square through two slices stay."""
    patient = Patient("P", "test", [Slice(SQUARE, [*SQUARE, (9, 9)]), Slice(SQUARE, SQUARE), Slice([], ROW)])
    assert slices_of(patient).predicted_pixels.tolist() == [5, 4, 4]
    assert slices_of(patient, rule=Rule(0.5, 4)).predicted_pixels.tolist() == [4, 4, 4]
    assert slices_of(patient, rule=Rule(0.5, 5)).predicted_pixels.tolist() == [4, 4, 0]


def test_e3_an_object_of_one_pixel_and_no_spacing():
    one = [(4, 4)]
    table = slices_of(Patient("P", "test", [Slice(one, one), Slice(one, [(4, 7)]), Slice(one, [])]), tolerance=2)
    assert table.dice.tolist() == [1, 0, 0]
    assert table.hd95.tolist()[:2] == [0, 3] and np.isnan(table.hd95[2])
    assert table.surface_dice.tolist() == [1, 0, 0]


def test_lengths_and_volumes_in_mm():
    """Two pixels of 0.5 mm apart; a voxel of 9 x 0.5 x 5 mm."""
    apart = Patient("P", "test", [Slice([(4, 4)], [(4, 6)]), Slice([(4, 4)], [])], spacing="9 x 0.5 x 5")
    table = slices_of(apart, tolerance=1.0, unit="mm")
    assert (table.hd95[0], table.surface_dice[0]) == (1.0, 1.0)
    assert slices_of(apart, tolerance=0.9, unit="mm").surface_dice[0] == 0
    assert slices_of(apart, tolerance=1.0).surface_dice[0] == 0  # pixels
    assert table.voxel_mm3.tolist() == [22.5, 22.5]
    volumes = scoring.per_patient(table)
    assert (volumes.tumour_mm3[0], volumes.predicted_mm3[0]) == (45.0, 22.5)
    assert not {"voxel_mm3", "tumour_mm3"} & {*slices_of(apart), *scoring.per_patient(slices_of(apart))}


@pytest.mark.parametrize("cell", ["", "  ", np.nan, None])
def test_no_spacing(cell):
    assert spacing.parse_cell(cell) is None


@pytest.mark.parametrize("cell", ["1 x 2", "a x b x c", "0 x 1 x 1", "nan x 1 x 1", "inf x 1 x 1", "1 x 1 x 0"])
def test_a_spacing_that_is_none_is_an_error(cell):
    with pytest.raises(DataError, match="row x column x slice"):
        spacing.parse_cell(cell)


def test_detection_is_by_any_predicted_pixel():
    table = slices_of(A, B, C)
    block = scoring.detection_block(table, scoring.per_patient(table))
    assert block == pytest.approx({
        "slice_sensitivity": 2 / 3, "slice_false_positive_rate": 1 / 3, "patient_sensitivity": 1,
    })  # fmt: skip


def test_detection_without_such_slices_is_undefined():
    table = slices_of(C)
    block = scoring.detection_block(table, scoring.per_patient(table))
    assert np.isnan(block["slice_sensitivity"]) and np.isnan(block["patient_sensitivity"])
    assert block["slice_false_positive_rate"] == 0


def test_institutions_under_ten_patients_are_one_group():
    """DU has 10 patients over both subsets, HT 9, and one patient has none: DU alone, the others together."""
    half, right, missed = Slice(SQUARE, SQUARE[:2]), Slice(ROW, ROW), Slice(ROW, [])
    patients = [Patient(f"D{i}", "val" if i < 6 else "test", [half], "DU") for i in range(10)]
    patients += [Patient(f"H{i}", "test", [right], "HT") for i in range(9)]
    patients += [Patient("N", "test", [missed], np.nan)]
    cases, masks, probability = arrays(patients)
    test = scoring.Cohort(cases[cases.subset == "test"], masks)
    table = scoring.per_slice(test, probability, PLAIN, 0, "px", "")
    block = scoring.institution_block(scoring.per_patient(table), cases, summarise)
    assert {name: (group["n"], group["dice"]) for name, group in block.items()} == {
        "DU": (4, pytest.approx(2 / 3)), "other": (10, pytest.approx(0.9)),
    }  # fmt: skip
    assert block["DU"]["lo"] == block["DU"]["hi"] == pytest.approx(2 / 3)
    assert block["other"]["lo"] < 0.9 < block["other"]["hi"]


def test_thirds_by_tumour_size():
    """Seven patients with tumour: three, two and two, the smallest first; one without is in none."""
    table = pd.DataFrame({"patient": list("ABCDEFGH"), "tumour_pixels": [70, 60, 50, 40, 30, 20, 10, 0], "dice": 0.5})
    table.loc[table["patient"] == "G", "dice"] = 0.2
    block = scoring.size_block(table, summarise)
    assert list(block) == ["small", "medium", "large"]
    assert [third["n"] for third in block.values()] == [3, 2, 2]
    assert [third["up_to"] for third in block.values()] == [30, 50, 70]
    assert [third["dice"] for third in block.values()] == pytest.approx([0.4, 0.5, 0.5])
    assert list(scoring.size_block(table[6:], summarise)) == ["small"]


def test_expected_calibration_error_on_paper():
    """90 pixels said 0.02 of which none is tumour, 8 said 0.5 of which 6 are, 2 said 0.9 of which both are."""
    bins = pd.DataFrame({
        "lower": [0.0, 0.5, 0.8, 0.9], "count": [90, 8, 0, 2],
        "mean_probability": [0.02, 0.5, np.nan, 0.9], "observed_frequency": [0.0, 0.75, np.nan, 1.0],
    })  # fmt: skip
    block = scoring.calibration_block(bins)
    assert block["ece"] == pytest.approx((90 * 0.02 + 8 * 0.25 + 2 * 0.1) / 100)
    assert block["ece_from_tenth"] == pytest.approx((8 * 0.25 + 2 * 0.1) / 10)
    assert np.isnan(scoring.calibration_block(bins[:1])["ece_from_tenth"])


def test_e2_reference_and_prediction_empty_or_one_of_them():
    missed, invented = Slice(ROW, []), Slice([], ROW)
    table = slices_of(Patient("P", "test", [EMPTY, missed, invented]))
    assert table.dice.tolist()[1:] == [0, 0] and np.isnan(table.dice[0])
    assert table.hd95.isna().all()
    block = scoring.slice_block(table, "px", summarise)
    assert (block["dice_tumour"]["n"], block["dice_tumour"]["mean"]) == (1, 0)
    assert (block["hd95"]["n"], block["hd95"]["undefined"]) == (0, 1)
    assert (block["surface_dice"]["n"], block["surface_dice"]["undefined"], block["surface_dice"]["mean"]) == (2, 1, 0)
    assert (block["dice_empty_as_one"]["n"], block["dice_empty_as_one"]["mean"]) == (3, pytest.approx(1 / 3))


def test_a_slice_takes_little_memory_however_many_patients_there_are():
    """Of 600 slices more: 600 bytes each. A table of each patient took 7,000."""
    peaks = []
    for count in (20, 20, 220):  # the first time brings what stays
        cases, masks, probability = arrays([A._replace(name=f"P{number:03}") for number in range(count)])
        cohort = scoring.Cohort(cases.astype({"patient": "category"}), masks)
        tracemalloc.start()
        scoring.per_slice(cohort, probability, PLAIN, 0, "px", "")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / (3 * 200) < 1500
