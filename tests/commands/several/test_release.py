"""`brainseg release`: networks trained on all patients, with the rule and the numbers of their recipe out of fold."""

import json
import shutil
import statistics

import numpy as np
import pytest

from brainseg.commands.several import release
from brainseg.data import fingerprints
from brainseg.errors import DataError
from brainseg.evaluation import calibration
from brainseg.inference import postprocessing
from brainseg.inference.outlining import Outliner
from brainseg.inference.probabilities import Calibration
from brainseg.models.manifest import TRAINED_ON_ALL, ExportedManifest
from brainseg.reporting import model_card
from tests.support import onnx_toy, run_files

FIELDS = set(ExportedManifest.model_fields) - {"parts", "brain"}
TOLD = run_files.cross_validation()
ERRORS = {"ece": 0.001, "ece_from_tenth": 0.03, "ece_before": 0.002, "ece_from_tenth_before": 0.1}
FITTED = {"temperature": 2.0, "bias": -0.8, "skew": -0.2, **ERRORS}
OF_FOLDS, CUTS = Calibration(1.6, -0.4), (0.3, 0.4, 0.5, 0.6, 0.7)  # their probabilities, and thresholds for them


def write_numbers(folder, **changes):
    folder.mkdir()
    folds = [fold | {"threshold": cut, **OF_FOLDS._asdict()} for fold, cut in zip(TOLD["folds"], CUTS, strict=True)]
    told = {"calibration": FITTED, "folds": folds, **changes}
    (folder / "summary.json").write_text(json.dumps(run_files.cross_validation(**told)))
    shutil.copy(run_files.ROOT / "metrics/cross_validation/per_patient.csv", folder)
    return folder


def write_model(path, channel=1, variant="float32", **changes):
    """A toy that says it is the committed network, trained on all patients."""
    model = {name: value for name, value in run_files.manifest(**changes).items() if name in FIELDS}
    model["contract"] = model["contract"] | {"size": [32, 32]}
    told = onnx_toy.facts(model=model, variant=variant, marks=model["protocol"]["marks"])
    return onnx_toy.write(path, told, channel=channel)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_numbers(tmp_path / "numbers")
    write_model(tmp_path / "all.onnx", protocol={"marks": [TRAINED_ON_ALL]})
    return tmp_path


def test_a_network_gets_the_rule_and_the_numbers_of_its_recipe(project):
    said = release.run("default", ["all.onnx"], project / "numbers")
    assert said.startswith("models/released/default.onnx: 1 network, float32, ") and "out of fold" in said
    outliner = Outliner(project / "models/released/default.onnx")
    assert outliner.calibration == (2.0, -0.8, -0.2)
    own = Outliner(project / "all.onnx")
    assert own.calibration == (1, 0, 0)
    assert outliner.rule.min_component == statistics.median(fold["min_component"] for fold in TOLD["folds"])
    assert outliner.mirror
    facts = outliner.facts
    assert facts["evaluation"]["test"] == TOLD["test"] | {"calibration": ERRORS}
    assert facts["model"]["protocol"]["patients"] == {"train": 110, "val": 0, "test": 110}
    assert facts["marks"] == facts["model"]["protocol"]["marks"]
    assert facts["marks"][0].startswith("trained on all 110 patients") and TRAINED_ON_ALL not in facts["marks"]
    interval = facts["volume_interval"]
    assert interval["low"] < 1 < interval["high"] and 0.87 <= interval["covered"] <= 0.93
    card = model_card.render_markdown(model_card.parse_facts(facts, project / "default.onnx"))
    assert "110 patients out of fold, mean" in card and "was trained on all patients, so that none is left" in card
    assert (
        "in more than one of" not in card and "alidation patients, on whom" not in card and "test patients" not in card
    )
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    cut = calibration.move(statistics.median(CUTS), OF_FOLDS, calibration.NONE)
    marked = outliner.on_grid(images) >= postprocessing.level(outliner.rule.threshold)
    near = np.abs(own.on_grid(images) - 255 * cut) < 2  # calibrated levels are rounded
    assert (marked == (own.on_grid(images) >= postprocessing.level(cut)))[~near].all() and marked.any()


def test_the_one_in_8_bits(project):
    write_model(project / "small.onnx", variant="int8", protocol={"marks": [TRAINED_ON_ALL]})
    release.run("fast", ["small.onnx"], project / "numbers", "int8")
    facts = Outliner(project / "models/released/fast.onnx").facts
    assert facts["variant"] == "int8" and "its numbers are those of the float32 network" in facts["marks"]
    with pytest.raises(DataError, match="computes in 8-bit integers"):
        release.run("fast", ["small.onnx"], project / "numbers")


def test_several_with_the_numbers_of_their_mean(project):
    folded = {name: TOLD["params"][name] for name in TOLD["params"]}
    joined = {"members": ["cv-a-0", "cv-b-0"], "params": [folded, folded]}
    numbers = write_numbers(project / "joined", params={"ensemble": joined})
    write_model(project / "two.onnx", channel=0, protocol={"marks": [TRAINED_ON_ALL]}, weights_sha256="2" * 64)
    release.run("best", ["all.onnx", "two.onnx"], numbers)
    outliner = Outliner(project / "models/released/best.onnx")
    assert len(outliner.facts["model"]["parts"]) == 2
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[..., 0], images[..., 1] = 40, 80
    outliner.calibration = Calibration()
    assert (np.abs(outliner.on_grid(images).astype(int) - 60) <= 1).all()
    with pytest.raises(DataError, match="has the numbers of 2 networks, 1 are to be released"):
        release.run("best", ["all.onnx"], numbers)


def test_networks_that_are_asked_again_without_scalp(project):
    """The network that outlines the brain is that of the numbers, trained on all patients."""
    recipe = {name: TOLD["params"][name] for name in release.RECIPE}
    recipe["data"] = {"masks_sha256": "9" * 64}
    joined = {"members": ["cv-a-0"], "params": [TOLD["params"]], "brain": recipe}
    numbers = write_numbers(project / "joined", params={"ensemble": joined})
    with pytest.raises(DataError, match="of networks that are also asked without scalp"):
        release.run("best", ["all.onnx"], numbers)
    counts = {"patients": {"train": 154, "val": 22, "test": 44}}
    told = {"channel": 0, "weights_sha256": "2" * 64, "data": {"masks_sha256": "9" * 64}}
    told["training"] = {"parameters": {"train": {"subset": "all"}}}
    write_model(project / "brain.onnx", protocol={"marks": []}, **told)
    with pytest.raises(DataError, match=r"brain\.onnx: was not trained on all patients"):
        release.run("best", ["all.onnx"], numbers, brain="brain.onnx")
    write_model(project / "brain.onnx", protocol={"marks": [TRAINED_ON_ALL]}, network={"filters": 32}, **told)
    with pytest.raises(DataError, match=r"network.filters 32, there 16"):
        release.run("best", ["all.onnx"], numbers, brain="brain.onnx")
    write_model(
        project / "brain.onnx", protocol={"marks": [TRAINED_ON_ALL]}, **(told | {"data": {"masks_sha256": "7"}})
    )
    with pytest.raises(DataError, match="learned other images or masks"):
        release.run("best", ["all.onnx"], numbers, brain="brain.onnx")
    write_model(project / "brain.onnx", protocol={"marks": [TRAINED_ON_ALL], **counts}, **told)
    with pytest.raises(DataError, match="of networks that are not asked without scalp"):
        release.run("best", ["all.onnx"], project / "numbers", brain="brain.onnx")
    with pytest.raises(DataError, match="are several networks in 8-bit integers"):
        release.run("best", ["all.onnx"], numbers, "int8", "brain.onnx")
    said = release.run("best", ["all.onnx"], numbers, brain="brain.onnx")
    assert "1 network, whole and without scalp, float32" in said
    facts = Outliner(project / "models/released/best.onnx").facts
    assert facts["model"]["brain"]["weights_sha256"] == "2" * 64 and len(facts["model"]["parts"]) == 1
    assert len(facts["marks"]) == 1 and facts["marks"][0].startswith("trained on all 110 patients")
    card = model_card.render_markdown(model_card.parse_facts(facts, project / "best.onnx"))
    assert "answered twice, whole and without what another network does not call brain" in card
    assert "depth 4, of 220 volumes with masks of the brain" in card
    assert "the mean of 1" not in card


def test_a_taught_network_is_of_a_taught_recipe(project):
    taught = {"training": {"parameters": {"train": {"soft_masks": "soft_masks/all.npy"}}}}
    write_model(project / "taught.onnx", protocol={"marks": [TRAINED_ON_ALL]}, **taught)
    with pytest.raises(DataError, match=r"trained with train\.soft_masks soft_masks/all\.npy, its recipe with None"):
        release.run("default", ["taught.onnx"], project / "numbers")
    recipe = TOLD["params"] | {"train": TOLD["params"]["train"] | {"soft_masks": "soft_masks/fold-{fold}.npy"}}
    numbers = write_numbers(project / "taught", params=recipe)
    assert release.run("default", ["taught.onnx"], numbers).startswith("models/released/default.onnx: 1 network")


def test_a_network_that_goes_on_from_another_is_released_with_it(project):
    """As each fold went on from a network of its own."""
    first = TOLD["params"]
    further = first | {"train": first["train"] | {"initial_weights": "pretrained/fold-{fold}.weights.h5"}}
    numbers = write_numbers(
        project / "joined", params={"ensemble": {"members": ["a", "b"], "params": [first, further]}}
    )
    started = {"parameters": {"train": {"initial_weights": "pretrained/unet.weights.h5"}}}
    begun_with = run_files.manifest()["weights_sha256"]
    for digest, is_refused in ((begun_with, False), ("3" * 64, True), (None, True)):
        training = started | {"initial_weights_sha256": digest}
        marks = [TRAINED_ON_ALL, fingerprints.SEEN]  # of its own scores, which are not told
        told = {"protocol": {"marks": marks}, "weights_sha256": "2" * 64, "training": training}
        write_model(project / "two.onnx", channel=0, **told)
        if is_refused:
            with pytest.raises(DataError, match="which no network has that is released with it") as error:
                release.run("best", ["all.onnx", "two.onnx"], numbers)
            assert error.value.problems[0].fix.startswith("name the run too that it goes on from")
        else:
            release.run("best", ["all.onnx", "two.onnx"], numbers)
            facts = Outliner(project / "models/released/best.onnx").facts
            assert len(facts["marks"]) == 1 and facts["marks"][0].startswith("trained on all 110 patients")
    with pytest.raises(DataError, match=r"train\.initial_weights None, which no network has"):
        write_model(project / "two.onnx", protocol={"marks": [TRAINED_ON_ALL]}, weights_sha256="2" * 64)
        release.run("best", ["all.onnx", "two.onnx"], numbers)
    with pytest.raises(DataError, match=r"initial_weights pretrained/unet\.weights\.h5, its recipe with None"):
        write_model(project / "two.onnx", protocol={"marks": [TRAINED_ON_ALL]}, training=training)
        release.run("default", ["two.onnx"], project / "numbers")


@pytest.mark.parametrize(("changes", "message"), [
    ({"protocol": {"marks": []}}, "was not trained on all patients"),
    ({"network": {"filters": 32}}, r"is of another recipe than \S+numbers: network.filters 32, there 16"),
    ({"training": {"parameters": {"train": {"epochs": 3}}}}, "train.epochs 3, there 28"),
    ({"protocol": {"patients": {"train": 5}}}, "has 38 patients of kaggle"),
    ({"protocol": {"source": "folder"}}, "patients of folder"),
])  # fmt: skip
def test_what_does_not_belong_to_the_numbers_is_refused(project, changes, message):
    whole = run_files.change({"protocol": {"marks": [TRAINED_ON_ALL]}}, changes)
    write_model(project / "other.onnx", **whole)
    with pytest.raises(DataError, match=message):
        release.run("default", ["other.onnx"], project / "numbers")
    assert not (project / "models/released/default.onnx").exists()


def test_numbers_of_networks_that_have_seen_every_patient_are_refused(project):
    numbers = write_numbers(project / "seen", params={"train": {"subset": "all"}})
    with pytest.raises(DataError, match="none of them is out of fold"):
        release.run("default", ["all.onnx"], numbers)


def test_numbers_of_networks_that_began_with_their_test_patients_are_refused(project):
    protocol = TOLD["protocol"] | {"marks": [fingerprints.SEEN]}
    with pytest.raises(DataError, match="tells too much: patients scored here were trained on"):
        release.run("default", ["all.onnx"], write_numbers(project / "seen", protocol=protocol))


def test_the_marks_of_the_folds_stay(project):
    numbers = write_numbers(project / "few", protocol={"marks": ["subset of 110 patients"]})
    release.run("default", ["all.onnx"], numbers)
    assert "subset of 110 patients" in Outliner(project / "models/released/default.onnx").facts["marks"]


def test_several_in_8_bits_are_refused(project):
    with pytest.raises(DataError, match="several networks in 8-bit integers"):
        release.run("fast", ["all.onnx", "all.onnx"], project / "numbers", "int8")


def test_the_seed_and_the_machine_are_no_part_of_a_recipe(project):
    other = {"train": {"seed": 9, "threads": 4, "device": "cpu", "subset": "all"}}
    write_model(project / "seed.onnx", protocol={"marks": [TRAINED_ON_ALL]}, training={"parameters": other})
    assert "1 network" in release.run("default", ["seed.onnx"], project / "numbers")


def test_numbers_without_a_calibration_are_refused(project):
    write_numbers(project / "early", calibration=None)
    with pytest.raises(DataError, match="early: does not say how probabilities are calibrated"):
        release.run("default", ["all.onnx"], project / "early")
