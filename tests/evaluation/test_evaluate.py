"""The whole of evaluation.json on a cohort worked out on paper (tests/support/scored_cohort.py)."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from brainseg import files
from brainseg.config import Evaluate
from brainseg.errors import DataError, IntegrityError
from brainseg.evaluation import calibration, evaluate, metrics, results, threshold_search
from brainseg.evaluation.results import Mean
from brainseg.inference import postprocessing, probabilities
from brainseg.inference.probabilities import Calibration
from tests.support.scored_cohort import EMPTY, ROW, SQUARE, VAL, A, B, C, Patient, Slice, arrays

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/schemas/evaluation.json").read_text(encoding="utf-8"))
FILES = {
    "calibration.csv", "evaluation.json", "per_patient.csv", "per_slice.csv", "probability_counts.csv", "summary.json",
    "threshold_curve.csv",
}  # fmt: skip
NAN = float("nan")


def params(**changes) -> Evaluate:
    given = {"threshold": "auto", "min_component": "auto", "tta": True, "surface_tolerance": 0.0, "bootstrap": 200}
    return Evaluate(**{**given, "seed": 3, **changes})


def protocol(**changes) -> dict:
    given = {"source": "phantom", "unit": "patient", "grid": 10, "tta": "none", "marks": ["phantom data, not patients"]}
    sizes = {"patients": {"train": 5, "val": 1, "test": 3}, "slices": {"train": 9, "val": 2, "test": 6}}
    return given | sizes | changes


def result_of(
    patients: list[Patient], one_slice=None, flair_only=None, flair=None, stripped=None, **changes
) -> evaluate.Result:
    """Evaluate hand-made patients; unless given, the model sees as much with less, and FLAIR shows nothing."""
    cases, masks, model = arrays(patients)
    given = {
        "model": model,
        "one_slice": model if one_slice is None else one_slice,
        "flair_only": model if flair_only is None else flair_only,
        "flair": np.zeros_like(model) if flair is None else flair,
        **({} if stripped is None else {"stripped": stripped}),
    }
    return evaluate.evaluate(cases, masks, given, params(**changes), protocol())


def written(result: evaluate.Result) -> dict:
    """The report as it stands in the file."""
    return json.loads(results.text(result.report))


def numbers(block: Mean) -> tuple:
    return block.mean, block.median, block.n, block.undefined


def test_the_report_follows_its_schema():
    Draft202012Validator.check_schema(SCHEMA)
    for patients in ([VAL, A, B, C], [VAL, C], [VAL._replace(slices=[EMPTY]), A]):
        Draft202012Validator(SCHEMA).validate(written(result_of(patients)))


def test_the_committed_report_follows_the_schema():
    committed = Path(__file__).parents[2] / "metrics/evaluation.json"
    Draft202012Validator(SCHEMA).validate(json.loads(committed.read_text(encoding="utf-8")))


def test_the_schema_is_strict():
    validator = Draft202012Validator(SCHEMA)
    report = written(result_of([VAL, A, B]))
    assert not validator.is_valid(report | {"more": 1})
    assert not validator.is_valid({key: part for key, part in report.items() if key != "val"})
    report["test"]["volume"]["dice"]["mean"] = 1.2
    assert not validator.is_valid(report)


def test_metrics_printed_under_each_others_names():
    """Every number of the test block has a value of its own, worked out in tests/support/scored_cohort.py."""
    test = result_of([VAL, A, B, C]).report.test
    near = pytest.approx
    assert numbers(test.volume.dice) == near(((4 / 9 + 8 / 10) / 2, (4 / 9 + 8 / 10) / 2, 2, 1), abs=1e-6)
    assert numbers(test.volume.iou) == near(((2 / 7 + 4 / 6) / 2, (2 / 7 + 4 / 6) / 2, 2, 1), abs=1e-6)
    assert test.slice.unit == "px"
    assert {name: numbers(block) for name, block in test.slice if name != "unit"} == {
        "dice_tumour": near(((1 / 2 + 1 + 0) / 3, 1 / 2, 3, 0), abs=1e-6),
        "dice_empty_as_one": near(((1 / 2 + 0 + 1 + 1 + 0 + 1) / 6, 3 / 4, 6, 0), abs=1e-6),
        "iou_tumour": near(((1 / 3 + 1 + 0) / 3, 1 / 3, 3, 0), abs=1e-6),
        "hd95": near(((1 + 0) / 2, 1 / 2, 2, 1), abs=1e-6),
        "surface_dice": near(((1 / 2 + 0 + 1 + 0) / 4, 1 / 4, 4, 2), abs=1e-6),
    }
    pooled = {"dice": 12 / 19, "iou": 6 / 13, "precision": 6 / 9, "recall": 6 / 10, "pixel_accuracy": 593 / 600}
    assert test.pooled.model_dump() == near(pooled, abs=1e-6)
    detection = {"slice_sensitivity": 2 / 3, "slice_false_positive_rate": 1 / 3, "patient_sensitivity": 1}
    assert test.detection.model_dump() == near(detection, abs=1e-6)
    (institution,) = test.by_institution.items()
    assert institution[0] == "other"
    assert (institution[1].n, institution[1].dice) == (3, near((4 / 9 + 8 / 10) / 2, abs=1e-6))
    sizes = {name: (third.up_to, third.n, third.dice) for name, third in test.by_size.items()}
    assert sizes == {"small": (4, 1, near(4 / 9, abs=1e-6)), "medium": (6, 1, near(8 / 10, abs=1e-6))}


def test_dice_over_the_flattened_batch_reported_as_test_dice():
    """p = 200/255 on 9 marked pixels and 20/255 on the other 591; 6 of the 10 tumour pixels are marked."""
    test = result_of([VAL, A, B, C]).report.test
    both, predicted, tumour = (6 * 200 + 4 * 20) / 255, (9 * 200 + 591 * 20) / 255, 10
    batch_dice = (2 * both + 100) / (tumour + predicted + 100)
    batch_iou = (both + 100) / (tumour + predicted - both + 100)
    expected = {"dice_batch_soft": batch_dice, "iou_batch_soft": batch_iou}
    assert test.keras.model_dump() == pytest.approx(expected, abs=1e-6)
    assert test.volume.dice.mean == pytest.approx(28 / 45, abs=1e-6)


def test_summary_holds_the_ten_numbers():
    result = result_of([VAL, A, B, C])
    test = result.report.test
    assert result.summary.model_dump() == {
        "volume_dice_mean": test.volume.dice.mean,
        "volume_dice_median": test.volume.dice.median,
        "volume_iou_mean": test.volume.iou.mean,
        "slice_dice_tumour_mean": 0.5,
        "hd95_median": 0.5,
        "slice_sensitivity": 0.666667,
        "slice_false_positive_rate": 0.333333,
        "flair_threshold_dice_mean": 0.0,
        "val_volume_dice_mean": 1.0,
        "threshold": 0.5,
    }


def test_protocol_says_how_the_masks_were_made():
    found = result_of([VAL, A], threshold=0.37, min_component=3).report.protocol
    assert (found.threshold, found.postprocessing.min_component) == (0.37, 3)
    assert "undefined (null)" in found.empty_rule
    assert [*found.model_dump(exclude_unset=True)] == [
        "source", "unit", "grid", "patients", "slices", "temperature", "bias", "threshold", "postprocessing", "tta",
        "empty_rule", "marks",
    ]  # fmt: skip


def test_e2_one_of_them_empty_is_dice_0_and_hd95_null():
    missed, invented = Patient("M", "test", [Slice(ROW, [])]), Patient("I", "test", [Slice([], ROW)])
    result = result_of([VAL, missed, invented])
    test = result.report.test
    assert numbers(test.volume.dice) == (0, 0, 2, 0)
    assert numbers(test.slice.hd95) == (None, None, 0, 1)
    assert result.per_slice.hd95[result.per_slice.subset == "test"].isna().all()


def test_e2_both_empty_is_null_and_counted(tmp_path):
    result = result_of([VAL, C])
    test = result.report.test
    assert numbers(test.volume.dice) == (None, None, 0, 1)
    assert (test.volume.dice.lo, test.volume.dice.hi) == (None, None)
    undefined = dict.fromkeys(("dice", "iou", "precision", "recall"))
    assert test.pooled.model_dump() == undefined | {"pixel_accuracy": 1.0}
    assert test.detection.slice_sensitivity is None
    assert result.summary.volume_dice_mean is None
    assert "undefined" in evaluate.write(result, tmp_path)
    assert "C,X,test,1,0,0,0,0,0,0,100,,,," in (tmp_path / "per_patient.csv").read_text()


@pytest.mark.parametrize(("patients", "subset"), [([VAL], "test"), ([A], "val")])
def test_e3_no_test_images(patients, subset):
    with pytest.raises(DataError, match=f"no {subset} images") as fault:
        result_of(patients)
    assert fault.value.code == 2


def test_e3_an_object_of_one_pixel():
    one = Slice([(4, 4)], [(4, 4)])
    test = result_of([VAL, Patient("P", "test", [one])]).report.test
    assert numbers(test.volume.dice) == (1, 1, 1, 0)
    assert numbers(test.slice.hd95) == (0, 0, 1, 0)


def test_e3_no_spacing_gives_pixels_labelled():
    """HD95 is 1 pixel, 0.5 mm; one patient without a spacing, and all are in pixels."""
    half = {"spacing": "0.5 x 0.5 x 5"}
    both = [VAL._replace(**half), Patient("P", "test", A.slices, **half)]
    for patients, unit, hd95 in ((both, "mm", 0.5), ([*both, B], "px", 0.5), ([VAL, both[1]], "px", 1.0)):
        block = result_of(patients).report.test.slice
        assert (block.unit, block.hd95.mean) == (unit, hd95)


def test_arrays_that_do_not_fit_the_rows_are_refused_with_both_shapes():
    cases, masks, model = arrays([VAL, A])
    given = {"model": model[:-1], "one_slice": model, "flair_only": model[:, :5], "flair": model}
    with pytest.raises(IntegrityError) as fault:
        evaluate.evaluate(cases, masks, given, params(), protocol())
    first, second = fault.value.problems
    assert (first.path, second.path) == ("probabilities of model", "probabilities of flair_only")
    assert "(4, 10, 10)" in first.what and "(5, 10, 10)" in first.what


def test_test_set_used_to_pick_the_threshold():
    """Validation is right from 0.3 to 0.35; test, from 0.8 up: the rule must not move with it."""
    cases, masks, model = arrays([VAL, A, B])
    val = (cases.subset == "val").to_numpy()[:, None, None]
    model = np.where(val, np.where(masks > 0, 100, 70), np.where(masks > 0, 230, 200)).astype(np.uint8)
    other_masks, other_model = np.where(val, masks, 1 - masks), np.where(val, model, 255 - model)
    protocols = []
    for reference, probability in ((masks, model), (other_masks, other_model)):
        given = dict.fromkeys(("model", "one_slice", "flair_only", "flair"), probability)
        result = evaluate.evaluate(cases, reference, given, params(), protocol())
        protocols.append(result.report.protocol)
        assert result.report.baselines.flair_threshold.threshold == 0.35
        assert result.threshold_curve.dice.max() == 1
    assert protocols[0] == protocols[1]
    assert protocols[0].threshold == 0.35


def test_a_rule_fitted_to_patients_is_the_one_that_they_choose_as_validation_patients():
    """Gathered in two parts. A far smaller component is a false alarm in each; tumour is underestimated."""
    big, alarm = [(y, x) for y in range(2, 6) for x in range(2, 6)], [(9, 9)]
    cases, masks, model = arrays([Patient(name, "val", [Slice(big, [*big, *alarm])]) for name in "VWX"] + [A])
    noise = np.random.default_rng(0).integers(-15, 15, model.shape)
    model = (np.where(model > 100, np.where(masks > 0, 110, 120), 20) + noise).astype(np.uint8)
    given, auto = dict.fromkeys(("model", "one_slice", "flair_only", "flair"), model), "auto"
    asked = params(temperature=auto, bias=auto, skew=auto, min_share=auto)
    own = evaluate.evaluate(cases, masks, given, asked, protocol()).report
    parts = [cases["patient"].isin(part).to_numpy() for part in (["V"], ["W", "X"])]
    evidence = [evaluate.gather(cases[part], masks[part], model[part], asked) for part in parts]
    fitted = evaluate.fit_rule(evidence, asked)
    assert fitted.temperature != 1 and fitted.bias and fitted.skew and fitted.min_share > 0
    assert results.rule_of(own.protocol) == postprocessing.Rule(
        fitted.threshold, fitted.min_component, fitted.min_share
    )
    assert results.calibration_of(own.protocol) == (fitted.temperature, fitted.bias, fitted.skew)
    again = evaluate.evaluate(cases, masks, given, fitted, protocol()).report
    assert again.protocol == own.protocol and again.test == own.test


@pytest.mark.parametrize("straight", [Calibration(2.0, -0.8), calibration.NONE])
def test_a_skew_changes_probabilities_not_masks(monkeypatch, straight):
    """Where all thresholds are as good as each other, the one is taken that would be without the skew."""
    skewed = Calibration(2.0, -2.0, -0.9)
    monkeypatch.setattr(calibration, "fit", lambda joint, asked: straight if asked.skew == 0 else skewed)
    counts = metrics.Counts(*(np.full((3, len(threshold_search.THRESHOLDS), 1), count) for count in (8, 2, 2, 88)))
    flat = threshold_search.Search(threshold_search.THRESHOLDS, (threshold_search.Smallest(0),), counts)
    evidence, asked = evaluate.Evidence(np.ones((2, 256)), flat), params(temperature="auto", bias="auto", skew="auto")
    own = [
        calibration.move(evaluate._choose_rule(evidence, asked, each).threshold, each, calibration.NONE)
        for each in (straight, skewed)
    ]
    assert own[0] == pytest.approx(own[1], abs=1e-3)
    middle = 0.5 if straight == calibration.NONE else calibration.move(0.4, straight, calibration.NONE)
    assert own[0] == pytest.approx(middle, abs=0.026)
    assert abs(calibration.move(0.4, skewed, calibration.NONE) - middle) > 0.1


def test_with_a_given_threshold_patients_choose_the_smallest_component_alone():
    cases, masks, model = arrays([VAL, A])
    asked = params(temperature="auto", bias="auto", threshold=0.4)
    val = (cases.subset == "val").to_numpy()
    fitted = evaluate.fit_rule([evaluate.gather(cases[val], masks[val], model[val], asked)], asked)
    assert fitted.threshold == 0.4 and fitted.min_component == 0


def test_baselines_are_scored_by_the_same_code():
    _, _, model = arrays([VAL, A, B, C])
    baselines = result_of([VAL, A, B, C], flair=model).report.baselines
    test = result_of([VAL, A, B, C]).report.test
    shared = {"volume", "slice", "pooled", "detection"}
    assert baselines.flair_threshold.model_dump() == test.model_dump(include=shared) | {
        "threshold": 0.5, "postprocessing": {"min_component": 0, "min_share": 0.0},
    }  # fmt: skip
    assert set(baselines.empty.model_dump()) == shared
    assert baselines.empty.volume.dice.mean == 0
    assert baselines.empty.slice.dice_empty_as_one.mean == 0.5
    assert baselines.empty.pooled.precision is None


def test_the_flair_baseline_is_tuned_also_where_the_models_rule_is_given():
    _, masks, _ = arrays([VAL, A])
    flair = np.where(masks > 0, 60, 40).astype(np.uint8)
    baseline = result_of([VAL, A], flair=flair, threshold=0.9, min_component=7).report.baselines.flair_threshold
    assert (baseline.threshold, baseline.postprocessing.min_component) == (0.2, 0)
    assert baseline.volume.dice.mean == 1


def test_alone_is_the_same_model_given_less():
    """One marked pixel stands apart: removed in 3D, kept in a slice alone. Of 4, one slice finds 3, FLAIR 2."""

    def marked(count):
        return Patient("P", "test", [Slice(SQUARE, [*SQUARE[:count], (9, 9)])])

    less = {name: arrays([VAL, marked(count)])[2] for name, count in (("flair_only", 2), ("one_slice", 3))}
    test = result_of([VAL, marked(4)], **less, threshold=0.5, min_component=2).report.test
    assert test.volume.dice.mean == 1
    assert test.alone.model_dump(exclude_unset=True) == pytest.approx(
        {"one_slice_dice": 6 / 8, "flair_only_dice": 4 / 6}, abs=1e-6
    )


def test_the_table_of_patients_says_what_each_has_given_less():
    """Of A's 4 marked pixels 2 without scalp; B has all; a model that knows no brain has no such column."""
    patients = [VAL, *(Patient(name, "test", [Slice(SQUARE, SQUARE)]) for name in "AB")]
    _, _, model = arrays(patients)
    cut = model.copy()
    cut[-2][tuple(zip(*SQUARE[:2], strict=True))] = 0
    result = result_of(patients, stripped=cut, threshold=0.5, min_component=0)
    table = result.per_patient.set_index("patient")
    assert table["flair_only_dice"].tolist() == [1, 1, 1]
    assert table["stripped_dice"].tolist() == pytest.approx([1, 4 / 6, 1])
    assert result.report.test.alone.stripped_dice == pytest.approx((4 / 6 + 1) / 2, abs=1e-6)
    assert result.report.val.alone.stripped_dice == 1
    Draft202012Validator(SCHEMA).validate(written(result))
    unknown = result_of(patients)
    assert "stripped_dice" not in unknown.per_patient and "stripped_dice" not in written(unknown)["test"]["alone"]


def test_intervals_are_over_patients_and_hold_the_mean():
    many = [Patient(f"P{i:02}", "test", [Slice(ROW, ROW[: i % 4 + 1]), Slice(SQUARE, SQUARE)]) for i in range(20)]
    test = result_of([VAL, *many]).report.test
    for block in (test.volume.dice, test.slice.dice_tumour):
        assert block.lo < block.mean < block.hi
    one_patient = result_of([VAL, many[0]]).report.test.slice.dice_tumour
    assert (one_patient.n, one_patient.lo, one_patient.hi) == (2, None, None)


def test_tables_hold_both_subsets_and_dice_follows_iou():
    result = result_of([VAL, A, B, C])
    assert result.per_patient[["patient", "subset"]].to_numpy().tolist() == [
        ["V", "val"], ["A", "test"], ["B", "test"], ["C", "test"],
    ]  # fmt: skip
    assert result.per_slice.row.tolist() == list(range(7, 15))
    for table in (result.per_patient, result.per_slice):
        assert table.dice.to_numpy() == pytest.approx((2 * table.iou / (1 + table.iou)).to_numpy(), nan_ok=True)


def test_threshold_curve_is_of_validation():
    """SQUARE at 200 (0.784), the rest at 20 (0.078): at 0.05 all of both slices is marked, from 0.8 up nothing.

    Last, test patient A alike: all of three slices, half of the tumour and as much beside it and one more, nothing.
    """
    curve = result_of([VAL, A]).threshold_curve.set_index("threshold")
    assert curve.index.tolist() == [round(0.05 * step, 2) for step in range(1, 20)]
    assert curve.loc[0.05].tolist() == pytest.approx([8 / 204, 4 / 200, 4 / 200, 1, 8 / 304])
    assert curve.loc[0.5].tolist() == pytest.approx([1, 1, 1, 1, 4 / 9])
    assert curve.loc[0.8].tolist() == pytest.approx([0, 0, NAN, 0, 0], nan_ok=True)


def test_a_calibration_that_is_chosen_on_validation_calibrates_all_but_flair():
    """Of the 8 validation pixels at 200 of 255 half are no tumour; the others, at 20, are none."""
    half = [*SQUARE, *[(y, x) for y in range(5) for x in range(5) if (y, x) not in SQUARE][:4]]
    val = Patient("V", "val", [Slice(SQUARE, half), EMPTY])
    result = result_of([val, A, B], temperature="auto", bias="auto")
    chosen = results.calibration_of(result.report.protocol)
    assert chosen.temperature != 1 and chosen.bias != 0
    calibrated = probabilities.calibrate(np.array([20, 200], np.uint8), chosen) / 255
    assert result.calibration["mean_probability"].dropna().tolist() == pytest.approx(calibrated)
    assert result.calibration["mean_probability_before"].dropna().tolist() == pytest.approx([20 / 255, 200 / 255])
    error = result.report.test.calibration
    assert error.ece_before is not None and error.ece != error.ece_before
    plain = result_of([val, A, B])
    assert (
        results.calibration_of(plain.report.protocol) == (1, 0, 0)
        and plain.report.test.calibration.ece == error.ece_before
    )
    assert plain.report.test.calibration.ece_before is None and "count_before" not in plain.calibration
    assert plain.report.test.keras == result.report.test.keras
    assert result.report.baselines == plain.report.baselines
    Draft202012Validator(SCHEMA).validate(written(result))


@pytest.mark.parametrize("chosen", [(2.0, -0.8), (1.4, 1.0), (0.6, -1.5), (1.0, 2.0)])
def test_a_threshold_cuts_where_it_cut_before_calibration(chosen):
    """Of every probability there are pixels: only those may change sides that lie at the threshold."""
    cases, masks, _ = arrays([VAL, A, B, C])
    levels = np.random.default_rng(1).integers(0, 256, masks.shape).astype(np.uint8)
    levels = np.where(masks > 0, np.maximum(levels, 90), levels // 2).astype(np.uint8)
    given = dict.fromkeys(("model", "one_slice", "flair_only"), levels) | {"flair": np.zeros_like(levels)}
    fitted = Calibration(*chosen)
    own, calibrated = (
        evaluate.evaluate(cases, masks, given, params(min_component=0, threshold=cut, **fit._asdict()), protocol())
        for cut, fit in ((0.4, calibration.NONE), (calibration.move(0.4, calibration.NONE, fitted), fitted))
    )
    near = np.abs(levels.astype(int) - 255 * 0.4) < 4
    changed = (own.per_slice["predicted_pixels"] - calibrated.per_slice["predicted_pixels"]).abs()
    assert changed.sum() <= near.sum() < levels.size / 10
    assert calibrated.threshold_curve["dice"].equals(own.threshold_curve["dice"])


def test_of_thresholds_as_good_that_nearest_half_the_dice_is_taken():
    """Every threshold up to 200 of 255 finds all: nothing calibrates, so 0.5; else half of the Dice, which is 1."""
    val = Patient("V", "val", [Slice(SQUARE, SQUARE), EMPTY])
    assert result_of([val, A]).report.protocol.threshold == 0.5
    fitted = {"temperature": 2.0, "bias": -0.8}
    found = result_of([val, A], **fitted).report.protocol.threshold
    good = [t for t in threshold_search.THRESHOLDS if t <= 200 / 255]  # half the Dice is at 0.83 of the network's own
    assert found == pytest.approx(calibration.move(max(good), calibration.NONE, Calibration(**fitted)), abs=1e-6)


def test_a_given_threshold_is_on_the_curve():
    assert 0.37 in result_of([VAL, A], threshold=0.37).threshold_curve.threshold.tolist()


@pytest.mark.parametrize("threshold", [0.7843135, 1e-9, 1 - 1e-9])
def test_the_threshold_in_the_report_is_the_one_used(threshold):
    """200/255 is 0.78431373: at 0.7843135 it is tumour, at 0.784314, as the report rounds it, it is not."""
    result = result_of([VAL, A], threshold=threshold)
    Draft202012Validator(SCHEMA).validate(written(result))
    level = postprocessing.level(result.report.protocol.threshold)
    _, _, model = arrays([VAL, A])
    assert result.per_slice.predicted_pixels.sum() == (model >= level).sum()
    assert result.summary.threshold == result.report.protocol.threshold


def test_calibration_counts_every_test_pixel_once():
    """A: 5 pixels at 200/255, of which 2 are tumour, and 295 at 20/255, of which 2."""
    table = result_of([VAL, A]).calibration
    assert table["count"].tolist() == [295, 0, 0, 0, 0, 0, 0, 5, 0, 0]
    assert table.mean_probability[[0, 7]].tolist() == pytest.approx([20 / 255, 200 / 255])
    assert table.observed_frequency[[0, 7]].tolist() == pytest.approx([2 / 295, 2 / 5])
    assert (table.lower[7], table.upper[7], table.upper[9]) == (0.7, 0.8, 1)


def test_calibration_puts_certainty_into_the_last_bin():
    cases, masks, model = arrays([VAL, A])
    certain = dict.fromkeys(("model", "one_slice", "flair_only", "flair"), np.full_like(model, 255))
    result = evaluate.evaluate(cases, masks, certain, params(), protocol())
    assert result.calibration["count"].tolist() == [0] * 9 + [300]


def test_slice_protocol_a_patient_in_several_subsets():
    in_val, in_test = VAL._replace(name="P"), A._replace(name="P")
    result = result_of([in_val, in_test])
    assert result.per_patient[["patient", "subset"]].to_numpy().tolist() == [["P", "val"], ["P", "test"]]
    assert result.report.val.volume.dice.mean == 1
    assert result.report.test.volume.dice.mean == pytest.approx(4 / 9, abs=1e-6)


def test_write_is_complete_strict_and_the_same_each_time(tmp_path):
    for folder in ("one", "two"):
        line = evaluate.write(result_of([VAL, A, B, C]), tmp_path / folder)
    assert {path.name for path in (tmp_path / "one").iterdir()} == FILES
    for name in FILES:
        assert files.sha256(tmp_path / "one" / name) == files.sha256(tmp_path / "two" / name)
    for name in ("evaluation.json", "summary.json"):
        json.loads((tmp_path / "one" / name).read_text(), parse_constant=pytest.fail)
    assert line.startswith("test: 2 patients, volume Dice 0.622 [")
    assert "median 0.622; FLAIR threshold 0.000; phantom data, not patients; " in line
    assert str(tmp_path / "two" / "evaluation.json") in line


def test_rows_written_read_back(tmp_path):
    result = result_of([VAL, A, B, C])
    evaluate.write(result, tmp_path)
    back = pd.read_csv(tmp_path / "per_slice.csv")
    pd.testing.assert_frame_equal(back, result.per_slice, check_dtype=False, rtol=1e-5)


def test_closing_table_names_numbers_baselines_and_marks():
    report = result_of([VAL, A, B, C], min_component=3).report
    text = evaluate.table(report)
    for part in (
        "Test: 3 patients, 6 slices; threshold 0.5, components under 3 voxels removed",
        "volume Dice",
        "HD95 (px)",
        "FLAIR threshold",
        "nothing predicted",
        "Mark: phantom data, not patients",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100
    assert "0.5, nothing removed" in evaluate.table(result_of([VAL, A]).report)
