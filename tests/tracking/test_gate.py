"""The gates: each condition with figures that pass it and figures that do not."""

import json
import shutil

import pandas as pd
import pytest

from brainseg.errors import DataError, IntegrityError
from brainseg.tracking import gate
from tests.support import run_files

PATIENTS = 12
PROTOCOL = {"source": "kaggle", "unit": "patient", "grid": 64, "marks": [], "empty_rule": "undefined"}


def scored(folder, *, shift=0.0, ece=0.1, difference=1e-7, dice_difference=0.0, patients=PATIENTS, **protocol):
    """A folder with numbers of ``patients``: volume Dice from 0.5 up, all of it ``shift`` higher."""
    folder.mkdir()
    dice = [0.5 + 0.02 * k + shift * (1 + 0.1 * k) for k in range(patients)]
    columns = {"iou": dice, "precision": dice, "recall": dice, "tumour_pixels": 100, "slices": 4}
    names = {"patient": [f"P{k:02d}" for k in range(patients)], "institution": "A", "subset": "test"}
    pd.DataFrame({**names, "dice": dice, **columns}).to_csv(folder / "per_patient.csv", index=False)
    test = {"calibration": {"ece_from_tenth": ece}, "volume": {"dice": {"mean": round(sum(dice) / patients, 6)}}}
    report = run_files.evaluation(protocol=PROTOCOL | protocol, test=test)
    (folder / "evaluation.json").write_text(json.dumps(report))
    export = {"float32": {"max_abs_difference": difference, "dice_difference": dice_difference}}
    (folder / "export.json").write_text(json.dumps(export))
    return folder


@pytest.fixture
def champion(tmp_path):
    return scored(tmp_path / "champion")


def judged(new, champion, **options):
    return {each.name: each for each in gate.check_gates(new, champion, **options)}


@pytest.mark.parametrize(("found", "passed"), [
    ({}, True),
    ({"difference": 1e-4, "dice_difference": -0.0005}, True),
    ({"difference": 1.01e-4}, False),
    ({"dice_difference": 0.00051}, False),
    ({"dice_difference": -0.00051}, False),
    ({"difference": float("nan")}, False),
    ({"dice_difference": None}, False),
])  # fmt: skip
def test_parity_is_asked_of_the_first_one_too(found, passed, tmp_path, champion):
    new = scored(tmp_path / "new", **found)
    for other in (None, champion):
        gates = judged(new, other)
        assert gates["parity"].passed is passed
        assert bool(gates["parity"].fix) is not passed
        assert gates["not worse"].passed and gates["calibration"].passed
    assert "first" in judged(new, None)["not worse"].figures


@pytest.mark.parametrize(("shift", "verdict", "passed"), [
    (0.04, "better", True), (0.0, "identical", True), (-0.04, "worse", False),
])  # fmt: skip
def test_a_worse_model_is_refused(shift, verdict, passed, tmp_path, champion):
    found = judged(scored(tmp_path / "new", shift=shift), champion)["not worse"]
    assert found.passed is passed and bool(found.fix) is not passed
    assert f": {verdict}" in found.figures and f"{PATIENTS} patients" in found.figures
    assert "champion 0.610" in found.figures
    assert verdict == "identical" or f", {shift * 1.55:+.3f} [" in found.figures


def test_a_model_without_a_significant_difference_passes(tmp_path, champion):
    new = scored(tmp_path / "new")
    table = pd.read_csv(new / "per_patient.csv")
    table["dice"] += [0.05, -0.06] * (PATIENTS // 2)
    table.to_csv(new / "per_patient.csv", index=False)
    report = json.loads((new / "evaluation.json").read_text())
    report["test"]["volume"]["dice"]["mean"] = round(table["dice"].mean(), 6)
    (new / "evaluation.json").write_text(json.dumps(report))
    found = judged(new, champion)["not worse"]
    assert found.passed and "no significant difference (p = " in found.figures and "-0.005" in found.figures


@pytest.mark.parametrize(("new", "before", "passed"), [
    (0.12, 0.1, True), (0.01, 0.1, True), (0.121, 0.1, False), (None, 0.1, False), (0.9, None, True),
])  # fmt: skip
def test_the_calibration_error_may_not_rise(new, before, passed, tmp_path):
    sides = [scored(tmp_path / name, ece=ece) for name, ece in (("new", new), ("champion", before))]
    found = judged(*sides)["calibration"]
    assert found.passed is passed and bool(found.fix) is not passed
    assert ("undefined" in found.figures) is (None in (new, before))


OTHERS = {
    "patients": {"patients": PATIENTS - 1},
    "grid": {"grid": 128},
    "source": {"source": "phantom"},
    "unit": {"unit": "slice"},
    "marks": {"marks": ["subset of 20 patients"]},
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_cannot_be_compared_is_refused_with_the_way_out(what, tmp_path, champion):
    new = scored(tmp_path / "new", shift=0.1, **OTHERS[what])
    gates = judged(new, champion)
    assert gates["parity"].passed and not gates["not worse"].passed and "calibration" not in gates
    assert gates["not worse"].figures.startswith("not compared: ") and what in gates["not worse"].figures
    assert "brainseg register --new-line" in gates["not worse"].fix
    gates = judged(new, champion, new_line=True)
    assert all(each.passed for each in gates.values()) and len(gates) == 3
    assert what in gates["not worse"].figures


def test_a_new_line_does_not_avoid_a_comparison(tmp_path, champion):
    new = scored(tmp_path / "new", shift=-0.05, difference=1)
    assert [each.passed for each in gate.check_gates(new, champion, new_line=True)] == [False, False, True]
    new = scored(tmp_path / "other", grid=128, difference=1)
    assert [each.passed for each in gate.check_gates(new, champion, new_line=True)] == [False, True, True]


@pytest.mark.parametrize("name", ["per_patient.csv", "evaluation.json", "export.json"])
def test_damaged_numbers_are_named(name, tmp_path, champion):
    new = scored(tmp_path / "new")
    (new / name).write_text("{")
    with pytest.raises(DataError, match=name):
        gate.check_gates(new, champion, new_line=True)
    shutil.rmtree(new)
    with pytest.raises(DataError):
        gate.check_gates(new, champion)


@pytest.mark.parametrize(("name", "old", "new", "error"), [
    ("per_patient.csv", "P00,A,test,0.5,", "P00,A,test,0.4,", IntegrityError),
    ("evaluation.json", "ece_from_tenth", "ece_from_tentj", DataError),
])  # fmt: skip
def test_a_damaged_champion_is_told_as_such_with_a_way_out(name, old, new, error, tmp_path, champion):
    """Its numbers lie in a temporary folder, and neither git nor dvc repro brings them back."""
    path = champion / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(error) as caught:
        gate.check_gates(scored(tmp_path / "new"), champion, new_line=True)
    (problem,) = caught.value.problems
    assert problem.path.startswith("the champion") and problem.path.endswith(name)
    assert problem.fix.startswith("give the alias champion to another version")


def test_a_line_for_each_gate(tmp_path, champion):
    lines = [str(each) for each in gate.check_gates(scored(tmp_path / "new", shift=-0.05), champion)]
    assert [line.split()[0] for line in lines] == ["PASS", "FAIL", "PASS"]
