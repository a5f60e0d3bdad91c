"""`brainseg ensemble`: one file with numbers of its own, and its numbers out of fold."""

import json
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest

from brainseg.commands.several import ensemble, ensemble_folds
from brainseg.data import dataset, fingerprints
from brainseg.errors import DataError, IntegrityError
from brainseg.evaluation import evaluate
from brainseg.evaluation.results import CrossValidationSummary
from brainseg.experiments import demo, revision
from brainseg.inference.outlining import Outliner
from brainseg.inference.probabilities import Calibration
from brainseg.models import manifest
from brainseg.models.manifest import ExportedManifest
from tests.support import onnx_toy, run_files, scored_cohort, scored_folds
from tests.support.cohort import write_cohort
from tests.support.tiny_pipeline import PROJECT

SPLIT = '"seed": 5, "folds": 2, "unit": "patient", "val_fraction": 0.1, "patients": null, "file": null'
FIELDS = set(ExportedManifest.model_fields) - {"parts", "brain"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Prepared data, parameters, and two models: one answers FLAIR, the other pre-contrast."""
    (tmp_path / "data").mkdir()
    processed, split = write_cohort(tmp_path / "data")
    (tmp_path / "data/splits").mkdir()
    split = split.rename(tmp_path / "data/splits/split.csv")
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    demo.override(tmp_path / "params.yaml", {"evaluate": {"bootstrap": 100, "tta": True}})
    model = {name: value for name, value in run_files.manifest().items() if name in FIELDS}
    model["data"] = dataset.digests(processed, split)
    model["contract"] = model["contract"] | {"size": [32, 32]}
    for name, channel in (("flair", 1), ("plain", 0)):
        told = onnx_toy.facts(model=model | {"weights_sha256": name[0].encode().hex() * 32})
        onnx_toy.write(tmp_path / f"{name}.onnx", told, channel=channel)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_ensemble_is_a_model_like_any_other(project):
    said = ensemble.run(["flair.onnx", "plain.onnx"], project / "out")
    assert "volume Dice" in said and "the mean of 2 networks" in said and "slices a second" in said
    outliner = Outliner(project / "out/ensemble.onnx")
    report = json.loads((project / "out/evaluation.json").read_text())
    assert outliner.facts["evaluation"] == report and len(outliner.facts["model"]["parts"]) == 2
    assert outliner.rule.threshold == report["protocol"]["threshold"] and outliner.mirror
    assert outliner.calibration == tuple(report["protocol"][name] for name in Calibration._fields)
    images = np.load("data/processed/images.npy")[:4]
    outliner.calibration = Calibration()
    expected = np.rint(images[..., :2].mean(axis=-1))
    assert np.abs(outliner.on_grid(images).astype(int) - expected).max() <= 1
    alone = report["test"]["alone"]
    assert alone["one_slice_dice"] is not None and alone["stripped_dice"] is not None
    assert pd.read_csv(project / "out/per_patient.csv")["patient"].tolist() == ["P4", "P5", "P6", "P7"]


def outline_brain(project, seen=()):
    """Let "plain" have learned other masks, of these patients, and lay its manifest beside it."""
    told = Outliner(project / "plain.onnx").facts
    told["model"]["data"] = told["model"]["data"] | {"masks_sha256": "9" * 64}
    onnx_toy.write(project / "plain.onnx", told, channel=0)
    about = run_files.manifest() | told["model"] | {"seen": list(seen)}
    manifest.write(project / "plain.json", manifest.Manifest.model_validate(about))


def test_a_network_of_the_brain_of_another_fold_is_refused(project):
    images = np.load("data/processed/images.npy")
    slices = pd.read_csv("data/processed/slices.csv")
    tested = fingerprints.compute(images, slices["patient"][slices["patient"] == "P7"])
    outline_brain(project, tested)
    with pytest.raises(DataError, match=r"plain\.onnx: may know test patients"):
        ensemble.run(["flair.onnx"], project / "out", "plain.onnx")
    (project / "plain.json").unlink()
    with pytest.raises(IntegrityError, match=r"plain\.json: does not exist") as error:
        ensemble.run(["flair.onnx"], project / "out", "plain.onnx")
    assert error.value.problems[0].fix.startswith("copy models/unet.json")


def test_one_network_that_is_asked_again_without_scalp(project):
    outline_brain(project)
    said = ensemble.run(["flair.onnx"], project / "out", "plain.onnx")
    assert "the mean of 1 network, whole and without scalp" in said
    outliner = Outliner(project / "out/ensemble.onnx")
    outliner.calibration = Calibration()
    images = np.full((1, 32, 32, 3), 100, np.uint8)
    images[:, :16, :, 0] = 200  # pre-contrast, which is what this network calls brain
    found = outliner.on_grid(images)
    assert (np.abs(found[:, :16].astype(int) - 100) <= 1).all() and (np.abs(found[:, 16:].astype(int) - 50) <= 1).all()
    assert outliner.facts["model"]["brain"]["weights_sha256"] == "70" * 32  # of "plain"


def test_a_folder_stands_for_its_exported_model(project):
    (project / "run").mkdir()
    (project / "flair.onnx").rename(project / "run/unet.onnx")
    assert "the mean of 2 networks" in ensemble.run(["run", "plain.onnx"], project / "out")


def test_one_run_is_no_ensemble(project):
    with pytest.raises(DataError, match=r"flair\.onnx: is one") as error:
        ensemble.run(["flair.onnx"], project / "out")
    assert error.value.problems[0].fix.startswith("name two or more")


def test_parts_that_were_trained_on_other_data_than_those_here(project):
    (project / "data/splits/split.csv").write_text((project / "data/splits/split.csv").read_text() + "\n")
    with pytest.raises(IntegrityError, match="the model was trained with"):
        ensemble.run(["flair.onnx", "plain.onnx"], project / "out")
    assert not (project / "out").exists() or not list((project / "out").iterdir())


@pytest.fixture
def folds(tmp_path, monkeypatch):
    """The two folds of ``scored_folds`` and those of another cross-validation, which marks nothing at all."""
    scored_folds.experiments_pictured(tmp_path, monkeypatch)
    read = revision.reader
    cases, _, _ = scored_cohort.arrays([scored_cohort.VAL, *scored_folds.PATIENTS])
    first = cases["row"].min()
    table = pd.DataFrame({"patient": "none", "institution": "X", "slice": 1, "tumour_pixels": 0, "spacing": ""},
                         index=range(first))  # fmt: skip
    table = pd.concat([table, cases.drop(columns=["row", "subset"])], ignore_index=True)
    table.to_csv(tmp_path / "data/processed/slices.csv", index_label="row")
    for number in range(2):
        with np.load(tmp_path / f"cv-abcdef01-{number}.npz") as stored:
            nothing = dict.fromkeys(("probability", "flair_only"), 0 * stored["probability"])
            np.savez(tmp_path / f"cv-none-{number}.npz", row=stored["row"], **nothing)

    def reader(name, root):
        other = {"cv-none-0": "cv-abcdef01-0", "cv-none-1": "cv-abcdef01-1", revision.WORKSPACE: "cv-abcdef01-0"}
        found = read(other.get(name, name), root)
        return lambda path: found(path).replace('"seed": 5', SPLIT).replace('"threshold": "auto"', '"threshold": 0.5')

    monkeypatch.setattr(revision, "reader", reader)
    monkeypatch.setattr(revision, "fetched", lambda path, name, root: nullcontext(tmp_path / f"{name}.npz"))
    return tmp_path


def test_the_mean_of_equal_folds_scores_what_they_score(folds):
    line = ensemble_folds.run(["cv-abcdef01", "cv-abcdef01"], folds / "out", None, folds)
    assert line.startswith("3 patients out of fold: volume Dice 0.500")
    table = pd.read_csv(folds / "out/per_patient.csv").set_index("patient")
    assert table["dice"].to_dict() == {"A": 0.5, "B": 1, "C": 0} and table["fold"].tolist() == [0, 1, 1]
    summary = CrossValidationSummary.model_validate_json((folds / "out/summary.json").read_text())
    assert summary.params["ensemble"]["members"] and summary.folds[1].experiment == "cv-abcdef01-1 + cv-abcdef01-1"


def test_the_rule_of_a_fold_is_chosen_on_the_test_patients_of_the_others(folds, monkeypatch):
    asked = []

    def gather(cases, masks, model, params):
        assert set(cases["subset"]) == {"test"}
        assert masks.sum((1, 2)).tolist() == cases["tumour_pixels"].tolist()
        marked = [
            0 if patient == "C" else count for patient, count in zip(cases.patient, cases.tumour_pixels, strict=True)
        ]
        assert (model > 100).sum((1, 2)).tolist() == marked
        return list(cases["patient"].unique())

    def fit_rule(evidence, params):
        asked.append(evidence)
        return params.model_copy(update={"threshold": 0.9 if ["A"] in evidence else 0.5})

    monkeypatch.setattr(evaluate, "gather", gather)
    monkeypatch.setattr(evaluate, "fit_rule", fit_rule)
    ensemble_folds.run(["cv-abcdef01"], folds / "out", None, folds)  # of one cross-validation alone
    assert asked == [[["B", "C"]], [["A"]]]
    assert pd.read_csv(folds / "out/per_patient.csv")["predicted_pixels"].tolist() == [4, 0, 0]  # A, B, C
    summary = CrossValidationSummary.model_validate_json((folds / "out/summary.json").read_text())
    assert [fold.threshold for fold in summary.folds] == [0.5, 0.9]
    assert summary.protocol.cross_fitted and "ensemble" not in summary.params


def test_validation_patients_who_chose_the_rule_of_another_fold_are_not_scored(folds):
    (folds / "out").mkdir()
    (folds / "out/validation.csv").write_text("of an earlier one")
    ensemble_folds.run(["cv-abcdef01"], folds / "out", None, folds)
    assert not (folds / "out/validation.csv").exists()
    summary = CrossValidationSummary.model_validate_json((folds / "out/summary.json").read_text())
    assert {fold.val_volume_dice_mean for fold in summary.folds} == {None}
    assert set(summary.tables) == {"per_patient.csv"}  # so `compare --validation` refuses it


def test_the_name_of_a_fold_is_not_that_of_its_cross_validation(folds):
    with pytest.raises(DataError, match="cv-abcdef01-1: is one fold") as error:
        ensemble_folds.run(["cv-abcdef01-1"], folds / "out", None, folds)
    assert error.value.problems[0].fix == "name the cross-validation, without the number of the fold"


def test_half_of_a_probability_is_below_the_threshold(folds):
    """200 of 255 and 0 have a mean of 100, below the half that the first member's parameters ask for."""
    ensemble_folds.run(["cv-abcdef01", "cv-none"], folds / "out", None, folds)
    assert pd.read_csv(folds / "out/per_patient.csv")["predicted_pixels"].tolist() == [0, 0, 0]


@pytest.fixture
def asked_again(folds, monkeypatch):
    """Networks that answer the stored probabilities, as FLAIR; a brain, as pre-contrast, in patient A alone."""
    table = pd.read_csv(folds / "data/processed/slices.csv")
    images = np.load(folds / "data/processed/images.npy")
    for number in range(2):
        with np.load(folds / f"cv-abcdef01-{number}.npz") as stored:
            images[stored["row"], ..., 1] = stored["probability"]
    images[(table["patient"] == "A").to_numpy(), ..., 0] = 255
    np.save(folds / "data/processed/images.npy", images)
    side = images.shape[1]
    model = {name: value for name, value in run_files.manifest().items() if name in FIELDS}
    model["contract"] = model["contract"] | {"size": [side, side]}
    onnx_toy.write(folds / "flair.onnx", onnx_toy.facts(model=model), side)
    seen = {number: fingerprints.compute(images, table["patient"][table["patient"].isin(each)])
            for number, each in enumerate((["B", "C"], ["A"]))}  # fmt: skip
    outlined = model | {"data": model["data"] | {"masks_sha256": "9" * 64}}
    for number in range(2):
        onnx_toy.write(folds / f"brain-{number}.onnx", onnx_toy.facts(model=outlined), side, channel=0)
        about = run_files.manifest() | outlined | {"seen": seen[number]}
        manifest.write(folds / f"brain-{number}.json", manifest.Manifest.model_validate(about))
        tested = [["A"], ["B", "C"]][number]
        subsets = ["test" if each in tested else "val" if each == "V" else "train" for each in table["patient"]]
        columns = {"fold": number, "subset": subsets}
        table[["row", "patient"]].assign(**columns).to_csv(folds / f"split-{number}.csv", index=False)

    def fetched(path, name, root):
        own = {".onnx": "flair.onnx", ".csv": f"split-{name[-1]}.csv", ".npz": f"{name}.npz"}
        return nullcontext(folds / own[path[path.rindex(".") :]])

    monkeypatch.setattr(revision, "fetched", fetched)
    return folds


def test_folds_that_are_asked_again_without_scalp(asked_again):
    """Outside of the brain 200 of 255 become 100, below the half that is asked for."""
    line = ensemble_folds.run(["cv-abcdef01"], asked_again / "out", str(asked_again / "brain-{fold}.onnx"), asked_again)
    assert line.startswith("3 patients out of fold")
    table = pd.read_csv(asked_again / "out/per_patient.csv").set_index("patient")
    assert table["predicted_pixels"].to_dict() == {"A": 4, "B": 0, "C": 0}
    summary = CrossValidationSummary.model_validate_json((asked_again / "out/summary.json").read_text())
    assert summary.params["ensemble"]["brain"]["network"]["name"] == "residual_unet"
    assert summary.folds[0].experiment == "cv-abcdef01-0, whole and without scalp"


def test_a_network_of_the_brain_that_may_have_seen_the_test_patients(asked_again):
    with pytest.raises(DataError, match="is one network for all folds"):
        ensemble_folds.run(["cv-abcdef01"], asked_again / "out", str(asked_again / "brain-0.onnx"), asked_again)
    named = str(asked_again / "brain-{fold}.onnx")
    for ending in (".json", ".onnx"):  # those of the two folds changed for each other
        (asked_again / f"brain-0{ending}").rename(asked_again / "x")
        (asked_again / f"brain-1{ending}").rename(asked_again / f"brain-0{ending}")
        (asked_again / "x").rename(asked_again / f"brain-1{ending}")
    with pytest.raises(DataError, match=f"may know test patients: {fingerprints.SEEN}"):
        ensemble_folds.run(["cv-abcdef01"], asked_again / "out", named, asked_again)


def test_marks_of_the_networks_of_the_brain_are_marks_of_the_folds(asked_again):
    for number in range(2):
        path = asked_again / f"brain-{number}.onnx"
        told = Outliner(path).facts
        told["marks"] = ["phantom data", manifest.VALIDATION_SEEN]
        onnx_toy.write(path, told, told["model"]["contract"]["size"][0], channel=0)
    named = str(asked_again / "brain-{fold}.onnx")
    ensemble_folds.run(["cv-abcdef01"], asked_again / "out", named, asked_again)
    summary = CrossValidationSummary.model_validate_json((asked_again / "out/summary.json").read_text())
    assert summary.protocol.marks == ["the network of the brain: phantom data"]


def test_networks_of_the_brain_by_several_recipes(asked_again):
    told = Outliner(asked_again / "brain-1.onnx").facts
    told["model"]["network"]["filters"] = 32
    onnx_toy.write(asked_again / "brain-1.onnx", told, told["model"]["contract"]["size"][0], channel=0)
    with pytest.raises(DataError, match=r"brain-1\.onnx: is of another recipe") as error:
        named = str(asked_again / "brain-{fold}.onnx")
        ensemble_folds.run(["cv-abcdef01"], asked_again / "out", named, asked_again)
    assert len(error.value.problems) == 1


def test_the_manifest_of_another_network_of_the_brain(asked_again):
    about = manifest.read(asked_again / "brain-1.json").model_copy(update={"weights_sha256": "8" * 64})
    manifest.write(asked_again / "brain-1.json", about)
    with pytest.raises(IntegrityError, match=r"is not the manifest of \S+brain-1\.onnx"):
        named = str(asked_again / "brain-{fold}.onnx")
        ensemble_folds.run(["cv-abcdef01"], asked_again / "out", named, asked_again)


def test_a_network_for_each_fold_is_no_network(project):
    with pytest.raises(DataError, match="names a network for each fold"):
        ensemble.run(["flair.onnx"], project / "out", "brain-{fold}.onnx")


def test_folds_of_another_split(folds):
    with np.load(folds / "cv-none-1.npz") as stored:
        rows, probability = stored["row"], stored["probability"]
    np.savez(folds / "cv-none-1.npz", row=rows + 1, probability=probability, flair_only=probability)
    with pytest.raises(IntegrityError, match="has other validation and test slices than cv-abcdef01-1"):
        ensemble_folds.run(["cv-abcdef01", "cv-none"], folds / "out", None, folds)


def test_folds_of_an_earlier_version(folds):
    with np.load(folds / "cv-none-0.npz") as stored:
        rows, probability = stored["row"], stored["probability"]
    np.savez(folds / "cv-none-0.npz", row=rows, probability=probability)
    with pytest.raises(DataError, match="as earlier versions wrote it"):
        ensemble_folds.run(["cv-abcdef01", "cv-none"], folds / "out", None, folds)


def test_the_mean_is_rounded_not_cut():
    arrays = [np.array([[value]], np.uint8) for value in (255, 255, 254)]
    assert ensemble_folds.average(arrays) == 255
    assert ensemble_folds.average(arrays[1:] + arrays[2:]) == 254
