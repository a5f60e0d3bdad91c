"""`brainseg evaluate`: scores of a model or of given masks on files from outside the pipeline."""

import contextlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from brainseg import cli, config
from brainseg.commands import external
from brainseg.data import dataset, fingerprints, inputs
from brainseg.data.external_data import ExternalInputs, split_patterns
from brainseg.errors import BrainsegError, DataError, IntegrityError, RunError
from brainseg.evaluation import evaluate
from brainseg.experiments import comparison, demo, revision
from brainseg.inference import postprocessing, probabilities
from brainseg.inference.postprocessing import Rule
from brainseg.inference.probabilities import Calibration
from brainseg.io.sequences import FLAIR
from brainseg.models import backend, manifest, networks, prediction
from tests.support import phantom_examples
from tests.support.cohort import write_cohort
from tests.support.fake_outliner import heads
from tests.support.tiny_training import released_once

ROOT = Path(__file__).parents[2]
DRAW = external._draw
EVALUATE = {"bootstrap": 200, "threshold": "auto", "min_component": "auto"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with params.yaml for a grid of 32, in which the command is run."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    changes = {"preprocess": {"size": 32}, "evaluate": EVALUATE, "render": {"dpi": 60}, "network": {"depth": 2},
               "augmentation": {"window": 0}}  # fmt: skip
    demo.override(tmp_path / "params.yaml", changes)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(external, "_draw", lambda *_: None)  # pictures take most of the time: see ``drawn``
    return tmp_path


@pytest.fixture
def drawn(project, monkeypatch):
    """``project``, with pictures."""
    monkeypatch.setattr(external, "_draw", DRAW)
    return project


def save(folder: Path, patient: str, number: int, pixels: np.ndarray) -> None:
    (folder / patient).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / patient / f"{patient}_{number}.png")


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((32, 32), np.uint8)
    mask[top : top + side, left : left + side] = 255
    return mask


def hand_made(folder: Path) -> None:
    """A: half of a 4 x 4 square found, 4 false pixels in an empty slice. B: missed. C: correctly empty."""
    rng, empty = np.random.default_rng(1), square(0, 0, 0)
    slices = {
        "A": [(square(8, 8, 4), square(8, 10, 4)), (empty, square(20, 20, 2)), (empty, empty)],
        "B": [(square(4, 4, 2), empty)],
        "C": [(empty, empty)],
    }
    for patient, pairs in slices.items():
        for number, (mask, predicted) in enumerate(pairs, 1):
            save(folder / "images", patient, number, rng.integers(1, 255, (32, 32), np.uint8))
            save(folder / "masks", patient, number, mask)
            save(folder / "predictions", patient, number, predicted // 255)  # other values, the same meaning


def given(folder: Path, predictions: str | None = "predictions", **changes) -> ExternalInputs:
    there = {name: str(folder / name) for name in ("images", "masks")}
    ready = str(folder / predictions) if predictions else None
    plain = {"predictions": ready, "patient": "folder", "foreground": None, "predicted": None}
    return ExternalInputs(**{**there, **plain, **changes})


def read(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def of_files(scores: dict) -> dict:
    """Of the pipeline's numbers those that files have: nobody knows their brains."""
    return scores | {"alone": {name: value for name, value in scores["alone"].items() if name != "stripped_dice"}}


def require_same(found: dict, expected: dict) -> None:
    """The pipeline's numbers. Of probabilities one in 255 may be rounded otherwise by another thread."""
    expected, soft = of_files(expected), ("keras", "calibration")
    for block in soft:
        assert found[block] == pytest.approx(expected[block], abs=1e-4), block
    assert {name: found[name] for name in found if name not in soft} == {
        name: expected[name] for name in expected if name not in soft
    }


def test_masks_whose_numbers_are_known_on_paper(project):
    """A: TP 8, FP 8 + 4, FN 8. B: FN 4. C: both empty."""
    hand_made(project / "own")
    said = external.run(given(project / "own"), project / "models", project / "out")
    test = read(project / "out")["test"]
    assert test["volume"]["dice"]["mean"] == pytest.approx((16 / 36 + 0) / 2, abs=1e-6)
    assert test["volume"]["dice"]["undefined"] == 1 and test["volume"]["dice"]["n"] == 2
    assert test["volume"]["iou"]["mean"] == pytest.approx((8 / 28 + 0) / 2, abs=1e-6)
    assert test["pooled"]["precision"] == pytest.approx(8 / 20, abs=1e-6)
    assert test["pooled"]["recall"] == pytest.approx(8 / 20, abs=1e-6)
    assert test["pooled"]["pixel_accuracy"] == pytest.approx(1 - 24 / (5 * 32 * 32), abs=1e-6)
    assert test["slice"]["dice_tumour"]["mean"] == pytest.approx((0.5 + 0) / 2, abs=1e-6)
    noticed = {"slice_sensitivity": 0.5, "slice_false_positive_rate": 1 / 3, "patient_sensitivity": 0.5}
    assert test["detection"] == pytest.approx(noticed, abs=1e-6)
    assert "alone" not in test and "calibration" not in test
    table = pd.read_csv(project / "out/per_patient.csv")
    assert table[["patient", "tp", "fp", "fn"]].to_numpy().tolist() == [["A", 8, 12, 8], ["B", 0, 0, 4], ["C", 0, 0, 0]]
    assert "0.222" in said and external.MARK in said


def test_answers_of_predict_for_numbered_slices_in_one_folder_are_scored(project):
    hand_made(project / "own")
    for name in ("images", "masks", "predictions"):
        for path in (project / "own" / name).glob("*/*.png"):
            path.rename(project / "own" / name / path.name)
    for path in (project / "own/predictions").glob("*.png"):  # as predict names them
        home = project / "own/predictions" / path.stem.rpartition("_")[0]
        home.mkdir(exist_ok=True)
        path.rename(home / path.name)
    external.run(given(project / "own", patient="([A-C])_"), project / "models", project / "out")
    assert read(project / "out")["test"]["volume"]["dice"]["mean"] == pytest.approx((16 / 36 + 0) / 2, abs=1e-6)


def test_report_and_pictures_of_masks(drawn):
    project = drawn
    hand_made(project / "own")
    external.run(given(project / "own"), project / "models", project / "out")
    assert {p.name for p in (project / "out/plots").iterdir()} == {"gallery.png", "patients.png", "size.png"}
    page = (project / "out/report.html").read_text()
    assert "Masks from another program were scored, unchanged, on 3 patients (5 slices)" in page
    assert "Validation" not in page and "none of them seen before" not in page and external.MARK in page
    external.run(given(project / "own"), project / "models", project / "out")  # again, over its own


def test_the_same_command_at_a_terminal(project, monkeypatch, capsys):
    hand_made(project / "own")
    words = ["evaluate", "own/images", "own/masks", "--predictions", "own/predictions", "-o", "there"]
    monkeypatch.setattr(sys, "argv", ["brainseg", *words])
    with contextlib.suppress(SystemExit):
        cli.main()
    assert "volume Dice" in capsys.readouterr().out and read(project / "there")["protocol"]["patients"] == {"test": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained model in ``models``, and the numbers that the pipeline has of it, in a folder of their own."""
    folder = tmp_path_factory.mktemp("trained")
    weights, path, data = released_once()
    (folder / "models").mkdir()
    for each in (weights, path):
        shutil.copy(each, folder / "models")
    found = prediction.predict_for_evaluation(networks.restore(manifest.read(path), weights), data, mirror=True)
    block = config.load("evaluate", path=ROOT / "params.yaml").evaluate.model_copy(update=EVALUATE)
    facts = manifest.protocol(manifest.read(folder / "models/unet.json"), tta=True)
    result = evaluate.evaluate(data.slices.iloc[found.rows], data.masks[found.rows], found.arrays, block, facts)
    evaluate.write(result, folder / "metrics")
    return folder, data, found


def unpack(data, folder: Path, subset: str, predictions: dict | None = None) -> None:
    """The slices of a subset as PNG files."""
    for row in data.rows(subset):
        facts = data.slices.loc[row]
        save(folder / "images", facts.patient, facts.slice, data.images[row])
        save(folder / "masks", facts.patient, facts.slice, 255 * data.masks[row])
        if predictions:
            save(folder / "predictions", facts.patient, facts.slice, 255 * predictions[row].astype(np.uint8))


def test_a_model_has_the_numbers_that_the_pipeline_has_of_it(drawn, trained):
    project, (folder, data, _) = drawn, trained
    unpack(data, project / "own", "test")
    external.run(given(project / "own", None), folder / "models", project / "out")
    found, expected = read(project / "out"), read(folder / "metrics")
    require_same(found["test"], expected["test"])
    assert found["baselines"] == expected["baselines"]
    assert found["protocol"]["marks"] == [external.MARK]
    mine, theirs = (pd.read_csv(path / "per_patient.csv") for path in (project / "out", folder / "metrics"))
    theirs = theirs[theirs["subset"] == "test"].reset_index(drop=True).drop(columns=["institution", "stripped_dice"])
    pd.testing.assert_frame_equal(mine.drop(columns="institution"), theirs)
    assert (project / "out/plots/calibration.png").exists()


def test_flair_alone_is_predicted_once_and_said(project, trained, monkeypatch):
    folder, data, _ = trained
    gray = np.repeat(data.images[..., FLAIR, None], 3, axis=-1)
    unpack(dataset.Dataset(gray, data.masks, data.slices), project / "own", "test")
    calls, predict = [], prediction.predict_patients
    monkeypatch.setattr(prediction, "predict_patients", lambda *a, **k: calls.append(k) or predict(*a, **k))
    said = external.run(given(project / "own", None), folder / "models", project / "out")
    assert len(calls) == 1 and "FLAIR in every channel" in said
    found = read(project / "out")
    assert found["inputs"]["flair_alone"] and found["test"]["alone"]["flair_only_dice"] is not None
    monkeypatch.setattr(external, "_is_flair_alone", lambda _: False)
    external.run(given(project / "own", None), folder / "models", project / "twice")
    assert len(calls) == 3 and read(project / "twice")["test"] == found["test"]


def test_scans_without_scalp_are_counted(project):
    demo.override(project / "params.yaml", {"preprocess": {"size": 128}})
    with Image.open(phantom_examples.FOLDER / "phantom-1.tif") as phantom:
        whole = np.asarray(phantom)
    for number, (patient, image) in enumerate({"whole": whole, "bare": heads(1)[0]}.items()):
        save(project / "own/images", patient, 1, image)
        save(project / "own/masks", patient, 1, np.eye(*image.shape[:2], number, dtype=np.uint8))
    said = external.run(given(project / "own", "masks"), project / "models", project / "out")
    assert read(project / "out")["inputs"] == {"patients": 2, "no_scalp": 1, "flair_alone": False}
    assert "1 of 2 patients' scans look like ones without scalp" in said
    page = (project / "out/report.html").read_text()
    assert "1 of the 2 scans look like ones without scalp." in page


@pytest.mark.parametrize(("source", "dropout"), [("kaggle", 0.0), ("kaggle", 0.25), ("folder", 0.0)])
def test_only_a_model_of_whole_heads_has_hardly_seen_others(source, dropout):
    report = SimpleNamespace(inputs=SimpleNamespace(no_scalp=1, patients=2, flair_alone=False))
    learned = SimpleNamespace(parameters=SimpleNamespace(augmentation=SimpleNamespace(scalp_dropout=dropout)))
    model = SimpleNamespace(protocol=SimpleNamespace(source=source), training=learned)
    told = external._describe_inputs(report, model)[0]
    assert ("hardly seen" in told) == (source == "kaggle" and not dropout)


def test_an_answer_that_is_no_number_names_patient_and_slice(tmp_path, monkeypatch):
    """That for a slice alone, where FLAIR in every channel is not predicted again."""
    data = dataset.load(*write_cohort(tmp_path), "patient")
    single = dataset.Dataset(np.repeat(data.images[..., FLAIR, None], 3, axis=-1), data.masks, data.slices)

    def answer(windows):
        alone = (windows == np.tile(windows[..., :3], 3)).all(axis=(1, 2, 3))
        return np.where(alone[:, None, None, None], np.nan, windows[..., :1])

    network = SimpleNamespace(input_shape=(None, 32, 32, 9), output_shape=(None, 32, 32, 1), predict_on_batch=answer)
    for module, name, found in (
        (backend, "start", "no engine"),
        (manifest, "engine", {}),
        (networks, "restore", network),
    ):
        monkeypatch.setattr(module, name, lambda *_, found=found, **__: found)
    with pytest.raises(RunError, match="patient P6, slice 1: the network's answer is not a number"):
        external._predict(external.EvaluatedModel(None, None, external.MASK_RULE, None, 1.0), single, False, tmp_path)


def test_its_masks_by_themselves_have_the_same_numbers(project, trained):
    folder, data, found = trained
    expected = read(folder / "metrics")
    rule = Rule(expected["protocol"]["threshold"], expected["protocol"]["postprocessing"]["min_component"])
    calibration = Calibration.read(expected["protocol"])
    masks = {}
    for _, rows in data.slices[data.slices["subset"] == "test"].groupby("patient"):
        places = np.searchsorted(found.rows, rows.index)
        values = probabilities.calibrate(found.arrays["model"][places], calibration)
        masks |= dict(zip(rows.index, postprocessing.binarise(values, rule), strict=True))
    assert any(mask.any() for mask in masks.values())
    unpack(data, project / "own", "test", masks)
    external.run(given(project / "own"), project / "none", project / "out")
    for block in ("volume", "slice", "pooled", "detection", "by_size"):
        assert read(project / "out")["test"][block] == expected["test"][block]


def test_patients_that_the_model_was_trained_on_are_known_whatever_they_are_called(project, trained):
    folder, data, _ = trained
    renamed = data.slices.assign(patient=data.slices["patient"].str.replace("P", "stranger"))
    unpack(dataset.Dataset(data.images, data.masks, renamed), project / "own", "train")
    said = external.run(given(project / "own", None), folder / "models", project / "out")
    assert fingerprints.SEEN in read(project / "out")["protocol"]["marks"] and fingerprints.SEEN in said


def test_two_that_were_scored_alike_are_compared(project):
    hand_made(project / "own")
    for name, predictions in (("ours", "predictions"), ("perfect", "masks")):
        external.run(given(project / "own", predictions), project / "models", project / name)
    sides = [revision.scores(name, project) for name in ("ours", "perfect")]
    compared = comparison.compare(*sides)
    dice = next(d for d in compared.differences if d.metric == "dice")
    assert (dice.mean_b, dice.n) == (1, 2) and compared.warnings == []


def test_the_report_follows_its_schema(project, trained):
    folder, data, _ = trained
    validator = Draft202012Validator(json.loads((ROOT / "docs/reference/schemas/external_evaluation.json").read_text()))
    hand_made(project / "own")
    external.run(given(project / "own"), project / "models", project / "masks")
    unpack(data, project / "cohort", "test")
    external.run(given(project / "cohort", None), folder / "models", project / "model")
    for name in ("masks", "model"):
        validator.validate(read(project / name))
    assert not validator.is_valid(read(project / "model") | {"val": {}})


def test_volumes_have_millimetres(project):
    pytest.importorskip("nibabel")
    from tests.support.nifti_files import ORIENTATIONS, nifti

    mask = np.stack([square(8, 8, 8) // 255] * 3)
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 900, (3, 32, 32), dtype=np.int16)
        for name, voxels in (("images", pixels), ("masks", mask), ("predictions", np.roll(mask, 1, 2))):
            orientation = ORIENTATIONS[(7 * number + len(name)) % 48]  # each file its own
            nifti(project / f"own/{name}/case_{number}.nii.gz", voxels, orientation, spacing=0.5, rows=1.0, columns=1.0)
    external.run(given(project / "own", patient="each_volume"), project / "models", project / "out")
    found = read(project / "out")["test"]
    assert found["slice"]["unit"] == "mm" and found["slice"]["hd95"]["mean"] == pytest.approx(0.5)
    assert found["volume"]["dice"]["mean"] == pytest.approx(7 / 8, abs=1e-6)
    table = pd.read_csv(project / "out/per_patient.csv")
    assert table["patient"].tolist() == ["case_0", "case_1"]
    assert table["tumour_mm3"].to_numpy() == pytest.approx(8 * 8 * 3 * 0.5 * 0.5 * 2.5)


def fault(*arguments) -> str:
    with pytest.raises(BrainsegError) as caught:
        external.run(*arguments)
    return "\n".join(caught.value.lines())


def test_masks_and_predictions_among_the_images_are_no_images(project):
    hand_made(project / "own")
    for kind, suffix in (("images", ""), ("masks", "_mask"), ("predictions", "_theirs")):
        for path in (project / "own" / kind).rglob("*.png"):
            target = project / "all" / path.parent.name / f"{path.stem}{suffix}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    there = project / "all"
    external.run(ExternalInputs(str(there), f"{there}/**/*_mask.png", f"{there}/**/*_theirs.png", "folder", None, None),
                 project / "models", project / "out")  # fmt: skip
    assert read(project / "out")["test"]["pooled"]["precision"] == pytest.approx(8 / 20, abs=1e-6)


def test_faults_are_said_in_the_words_of_the_command(project):
    hand_made(project / "own")
    out, model = project / "out", project / "models"
    assert "ERROR 2" in fault(given(project / "nowhere"), model, out)
    lost = project / "own/predictions/B/B_1.png"
    lost.unlink()
    said = fault(given(project / "own"), model, out)
    assert "--predictions, " in said and "B_1.png: has no prediction" in said and "download." not in said
    flat = fault(given(project / "own", images=str(project / "own/images/A"), masks=str(project / "own/masks/A"),
                       predictions=str(project / "own/predictions/A")), model, out)  # fmt: skip
    assert "--patient" in flat and "download." not in flat
    assert "one group" in fault(given(project / "own", patient="(a)(b)"), model, out)
    labels = square(4, 4, 2) // 100
    save(project / "own/masks", "C", 1, labels + square(9, 9, 1))
    save(project / "own/predictions", "B", 1, square(0, 0, 0))
    assert "--foreground" in fault(given(project / "own"), model, out)
    assert not out.exists()


def test_a_folder_of_other_things_is_not_written_into(project, trained):
    """The same for metrics/, which holds the pipeline's evaluation.json, and for a file."""
    hand_made(project / "own")
    shutil.copytree(trained[0] / "metrics", project / "metrics")
    before = (project / "metrics/evaluation.json").read_bytes()
    for out in ("own", "metrics"):
        with pytest.raises(DataError, match="holds other things"):
            external.run(given(project / "own"), project / "models", project / out)
    assert (project / "own/images/A/A_1.png").exists()
    assert (project / "metrics/evaluation.json").read_bytes() == before
    with pytest.raises(DataError, match="is a file"):
        external.run(given(project / "own"), project / "models", project / "params.yaml")


def test_a_second_process_is_kept_from_the_folder_of_results(project):
    """The first is at work, in a new folder and in one of an earlier run. Its lock is no other thing."""
    out = project / "out"
    for numbers in (None, {"protocol": {"marks": [external.MARK]}}):
        with external._open_folder(out):
            if numbers:
                (out / "evaluation.json").write_text(json.dumps(numbers))
            said = fault(given(project / "own"), project / "models", out)
            assert said.startswith(f"ERROR 3 {out}: is in use by another brainseg evaluate. Fix: wait for it")
            assert (out / external.LOCK).exists()
    with external._open_folder(out):
        assert read(out) == numbers


def test_a_folder_that_was_empty_stays_and_a_new_one_goes_with_the_fault(project):
    (project / "empty").mkdir()
    for name in ("empty", "new"):
        assert "ERROR 2" in fault(given(project / "nowhere"), project / "models", project / name)
    assert (project / "empty").is_dir() and not (project / "new").exists()


def test_nothing_is_left_of_the_images_and_no_old_page_beside_new_numbers(project, monkeypatch):
    hand_made(project / "own")
    external.run(given(project / "own"), project / "models", project / "out")
    monkeypatch.setattr(external, "_draw", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        external.run(given(project / "own", "masks"), project / "models", project / "out")
    assert read(project / "out")["test"]["volume"]["dice"]["mean"] == 1
    assert not (project / "out/report.html").exists()
    assert [path for path in project.iterdir() if path.name.startswith(".out")] == []


def test_labels_of_masks_and_of_predictions_are_said_apart(project):
    """The masks hold 2 and 3, of which 2 is tumour; predictions are binary, or hold a label of their own."""
    hand_made(project / "own")
    for path in (project / "own/masks").rglob("*.png"):
        mask = np.where(np.asarray(Image.open(path)) > 0, 2, 0).astype(np.uint8)
        mask[30, 30] = 3
        Image.fromarray(mask).save(path)
    for path in (project / "own/predictions").rglob("*.png"):
        target = project / "own/labelled" / path.relative_to(project / "own/predictions")
        target.parent.mkdir(parents=True, exist_ok=True)
        labels = np.where(np.asarray(Image.open(path)) > 0, 7, 0).astype(np.uint8)
        labels[30, 30] = 8
        Image.fromarray(labels).save(target)
    out, model = project / "out", project / "models"
    assert "--foreground" in fault(given(project / "own"), model, out)
    external.run(given(project / "own", foreground=[2]), model, out)
    first = read(out)["test"]
    assert first["pooled"]["recall"] == pytest.approx(8 / 20, abs=1e-6)
    labelled = given(project / "own", "labelled", foreground=[2])
    said = fault(labelled, model, out)
    assert "--predicted-foreground" in said and "the prediction holds 3 values (0, 7, 8)" in said
    external.run(labelled._replace(predicted=[7]), model, out)
    assert read(out)["test"] == first


def test_a_regular_expression_and_patients_csv_do_not_depend_on_where_predictions_lie(project):
    hand_made(project / "study_7")
    shutil.move(project / "study_7/predictions", project / "elsewhere")
    (project / "study_7/patients.csv").write_text("patient,institution\nA,North\nB,South\nC,North\nD,West\n")
    (project / "patients.csv").write_text("nothing,of,ours\n1,2,3\n")
    there = given(project / "study_7", predictions=str(project / "elsewhere"), patient="([A-Za-z]+)[/_0-9]")
    external.run(there, project / "models", project / "out")
    table = pd.read_csv(project / "out/per_patient.csv")
    assert table[["patient", "institution"]].to_numpy().tolist() == [["A", "North"], ["B", "South"], ["C", "North"]]


def test_arguments_that_are_empty_or_no_folder(project):
    hand_made(project / "own")
    empty = given(project / "own")._replace(predictions="")  # an unset variable does not make it the model's turn
    assert "is empty" in fault(empty, project, project / "out")
    assert "is no folder" in fault(given(project / "own", None), project / "params.yaml", project / "out")
    (project / "link").symlink_to(project / "own/images")
    external.run(given(project / "own", images=str(project / "link")), project / "models", project / "out")


def test_a_model_needs_the_rule_that_was_chosen_for_it(project, trained, tmp_path):
    folder, data, _ = trained
    unpack(data, project / "own", "test")
    (project / "models").mkdir()
    for name in ("unet.json", "unet.weights.h5"):
        (project / "models" / name).write_bytes((folder / "models" / name).read_bytes())
    arguments = given(project / "own", None), project / "models", project / "out"
    with pytest.raises(IntegrityError, match="is missing; it holds the threshold"):
        external.run(*arguments)
    other = read(folder / "metrics")
    other["protocol"]["weights_sha256"] = "0" * 64
    (project / "metrics").mkdir()
    (project / "metrics/evaluation.json").write_text(json.dumps(other))
    with pytest.raises(IntegrityError, match="numbers of another model"):
        external.run(*arguments)
    damaged = {key: part for key, part in read(folder / "metrics").items() if key != "baselines"}
    (project / "metrics/evaluation.json").write_text(json.dumps(damaged))
    with pytest.raises(IntegrityError, match="is damaged or of another version: baselines: Field required"):
        external.run(*arguments)
    (project / "metrics/evaluation.json").write_text(json.dumps(read(folder / "metrics")))
    demo.override(project / "params.yaml", {"evaluate": {"tta": False}})
    with pytest.raises(IntegrityError, match="chosen with averaging: mirrored left to right"):
        external.run(*arguments)
    fixed = {"temperature": 2, "bias": -0.5, "skew": 0, "threshold": 0.25, "min_component": 3, "min_share": 0.1}
    demo.override(project / "params.yaml", {"evaluate": fixed})
    external.run(*arguments)
    found = read(project / "out")
    assert [found["protocol"][name] for name in ("temperature", "bias", "threshold")] == [2, -0.5, 0.25]
    assert found["protocol"]["postprocessing"] == {"min_component": 3, "min_share": 0.1}
    demo.override(project / "params.yaml", {"evaluate": EVALUATE | {"tta": True}})
    (project / "models/evaluation.json").write_text(json.dumps(read(folder / "metrics")))
    (project / "metrics/evaluation.json").unlink()
    external.run(*arguments)  # its own, beside the weights
    require_same(read(project / "out")["test"], read(folder / "metrics")["test"])
    assert list(found["baselines"]) == ["empty"]  # no rule is known for a threshold on FLAIR


@pytest.mark.parametrize(
    ("arguments", "root", "patterns"),
    [
        (["a/images", "a/masks"], "a", ["images/**/*", "masks/**/*"]),
        (["a/images/*.png", "a/masks/*_m.png"], "a", ["images/*.png", "masks/*_m.png"]),
        (["a/*/flair/", "a/*.nii.gz"], "a", ["*/flair/", "*.nii.gz"]),
        (["a/images/", "a/images/**/*_mask.*"], "a/images", ["**/*", "**/*_mask.*"]),
        (["a/../a/images", "b"], ".", ["a/images/**/*", "b/**/*"]),
    ],
)
def test_arguments_become_patterns(tmp_path, monkeypatch, arguments, root, patterns):
    for name in ("a/images", "a/masks", "b"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert split_patterns(arguments) == ((tmp_path / root).resolve(), patterns)


def test_a_rule_that_no_stage_made_is_refused(project, trained):
    for name in ("models", "metrics"):
        shutil.copytree(trained[0] / name, project / name)
    path, params = project / external.EVALUATION, config.load("evaluate").evaluate
    out = {"path": str(external.EVALUATION), "md5": inputs.md5(path)}
    (project / "dvc.lock").write_text(json.dumps({"stages": {"evaluate": {"outs": [out]}}}))
    external.read_model(project / "models", params)
    changed = read(project / "metrics")
    changed["protocol"]["threshold"] = 0.11
    path.write_text(json.dumps(changed))
    with pytest.raises(IntegrityError, match=r"evaluation\.json: its MD5 is .*, dvc\.lock says"):
        external.read_model(project / "models", params)
