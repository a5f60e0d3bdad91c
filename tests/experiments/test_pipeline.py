"""`dvc repro` of the real pipeline with tiny data: which stages run, experiments, the same bytes everywhere."""

import json
import re
import subprocess
import time

import numpy as np
import pytest

from brainseg.experiments import demo
from tests.support import tiny_pipeline
from tests.support.tiny_pipeline import TINY, commit, repro, results, stages_run
from tests.support.toy_pipeline import MODEL

pytestmark = pytest.mark.slow
STAGES = ["download", "preprocess", "brains", "split", "train", "evaluate", "render", "export"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    repository = tiny_pipeline.create(tmp_path_factory.mktemp("tiny") / "project")
    assert stages_run(repro(repository)) == STAGES
    commit(repository)
    return repository


def with_its_cache(pipeline, folder):
    """A clone with every output, which a test may change."""
    copy = pipeline.clone(folder)
    copy.environment["PYTHONPATH"] = ""
    assert copy.dvc("cache", "dir", "--local", str(pipeline.folder / ".dvc/cache"))[0] == 0
    repro(copy, command=("checkout",))
    return copy


def test_again_nothing_runs(pipeline):
    assert stages_run(repro(pipeline)) == []
    assert pipeline.dvc("status")[1].strip() == "Data and pipelines are up to date."


CHANGES = [
    ("render.dpi=80", ["render"]),
    ("evaluate.tta=false", STAGES[5:]),
    ("train.loss=jaccard", STAGES[4:]),
    ("split.test_fold=1", STAGES[3:]),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_a_change_runs_what_is_downstream_and_no_more(pipeline, tmp_path, change, expected):
    copy = with_its_cache(pipeline, tmp_path / "copy")
    output = repro(copy, "-S", change, command=("exp", "run"))
    assert stages_run(output) == expected


def test_another_size_brings_no_old_outputs_back(pipeline, tmp_path):
    """DVC's run cache leaves keys named ``size`` out of its digest of a block."""
    copy = with_its_cache(pipeline, tmp_path / "copy")
    archive, images = copy.folder / "data/raw/slices.zip", copy.folder / "data/processed/images.npy"
    before = archive.read_bytes()
    demo.override(copy.folder / "params.yaml", {"preprocess": {"size": 128}})
    assert stages_run(repro(copy, "preprocess")) == ["preprocess"]
    assert np.load(images, mmap_mode="r").shape[1:3] == (128, 128)
    demo.override(copy.folder / "params.yaml", {"phantom": {"size": 96}})
    assert stages_run(repro(copy, "preprocess")) == ["download", "preprocess"]
    assert archive.read_bytes() != before


def test_two_clones_give_the_same_bytes(pipeline, tmp_path):
    """Another folder, locale, hash seed: metrics, weights, plots, report and dvc.lock are equal to the byte."""
    elsewhere = {"PYTHONHASHSEED": "7", "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "TZ": "Asia/Tokyo"}
    other = tiny_pipeline.create(tmp_path / "an other folder" / "deeper", **elsewhere)
    repro(other)
    expected = results(pipeline)
    found = results(other)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_an_experiment_is_named_tracked_and_compared(pipeline, tmp_path):
    """A quick try on a few patients: what compare refuses, its own command makes good, from wherever the try left."""
    copy = with_its_cache(pipeline, tmp_path / "copy")
    copy.environment["PYTHONPATH"] = "src"
    code, output = copy.brainseg("repro", "-S", "train.loss=jaccard", "-S", "split.patients=8")
    assert code == 0, output
    assert stages_run(output) == ["split", "train", "evaluate", "render", "export"]
    marks = json.loads((copy.folder / "metrics/evaluation.json").read_text())["protocol"]["marks"]
    assert "subset of 8 patients" in marks
    shown = copy.dvc("exp", "show", "--csv")[1]
    assert "jaccard-patients8" in shown
    assert "volume_dice_mean" in shown
    assert "volume_dice_mean" in copy.dvc("metrics", "diff", "--all")[1]
    assert copy.dvc("plots", "diff", "HEAD")[0] == 0
    assert "jaccard-patients8" in run_names(copy)
    code, refused = copy.brainseg("compare", "HEAD", "jaccard-patients8")
    assert code == 2
    command = refused.partition("on the patients of jaccard-patients8: ")[2].strip()
    before = results(copy)
    code, output = copy.run(
        "bash", "-c", command.replace("brainseg", 'python -c "from brainseg import cli; cli.main()"')
    )
    assert code == 0 and "\nA: patients8\nB: jaccard-patients8\n" in output, output
    assert 'Parameter train.loss: "bce_dice" -> "jaccard"' in output and output.count("Parameter ") == 1
    assert results(copy) == before


def test_a_queued_experiment_runs_its_own_code_and_leaves_the_workspace(pipeline):
    before = results(pipeline)
    repro(pipeline, "--queue", "-n", "queued", "-S", "train.seed=5", command=("exp", "run"))
    losses = pipeline.folder / "src/brainseg/training/losses.py"
    code = losses.read_text(encoding="utf-8")
    losses.write_text("raise RuntimeError('not the code that was queued')", encoding="utf-8")
    try:
        repro(pipeline, "--run-all", command=("exp", "run"))
    finally:
        losses.write_text(code, encoding="utf-8")
    assert results(pipeline) == before
    assert "queued" in pipeline.dvc("exp", "show", "--csv")[1]
    assert "queued" in run_names(pipeline)


def run_names(repository) -> str:
    code = "import mlflow; print(mlflow.search_runs(search_all_experiments=True)['tags.mlflow.runName'].tolist())"
    uri = f"sqlite:///{repository.folder}/mlflow.db"
    repository.environment["MLFLOW_TRACKING_URI"] = uri
    try:
        status, output = repository.run("python", "-c", code)
    finally:
        del repository.environment["MLFLOW_TRACKING_URI"]
    assert status == 0, output
    return re.findall(r"\[.*\]", output)[-1]


def test_a_stranger_pulls_the_model_and_trains_nothing(pipeline, tmp_path):
    """A clone with an empty cache: the model comes from weights/, the other outputs are made again or unchanged."""
    source = with_its_cache(pipeline, tmp_path / "source")
    assert source.dvc("push", *MODEL)[0] == 0
    commit(source)
    stranger = source.clone(tmp_path / "far" / "away")
    stranger.environment["PYTHONPATH"] = ""
    assert stranger.dvc("pull", *MODEL)[0] == 0
    for name in MODEL:
        assert (stranger.folder / name).read_bytes() == (pipeline.folder / name).read_bytes()
    made = ["download", "preprocess", "brains", "split", "evaluate", "export"]  # the ONNX files are not in MODEL
    assert stages_run(repro(stranger)) == made
    assert results(stranger) == results(pipeline)


@pytest.mark.parametrize("engine", ["tensorflow", "jax"])
def test_t3_killed_in_the_middle_of_an_epoch_the_same_weights(tmp_path, engine):
    """SIGKILL of the training process; a new `dvc repro` continues and ends with the same bytes."""
    changes = {**TINY, "train": {**TINY["train"], "epochs": 6, "engine": engine}}
    copy, whole = (tiny_pipeline.create(tmp_path / name, changes) for name in ("killed", "whole"))
    repro(whole, "train")
    repro(copy, "split", "brains")
    stage = subprocess.Popen(
        ["python", "stages/train.py"], cwd=copy.folder, env=copy.environment | {"PYTHONPATH": "src"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in stage.stdout:
        if line.startswith("epoch 2/"):
            time.sleep(0.2)  # some way into the third
            stage.kill()
    stage.wait()
    assert "resumed after epoch" in repro(copy, "train")
    name = "models/unet.weights.h5"
    assert (copy.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_jax_gives_about_the_same(tmp_path):
    """The demo's parameters on both engines: test volume Dice within 0.05."""
    scores = {}
    from brainseg.experiments import repro as recipes

    demo = recipes.load_recipe("demo", tiny_pipeline.PROJECT)
    for engine in ("tensorflow", "jax"):
        changes = {**demo, "train": {**demo["train"], "engine": engine}}
        repository = tiny_pipeline.create(tmp_path / engine, changes)
        repro(repository)
        scores[engine] = json.loads((repository.folder / "metrics/summary.json").read_text())["volume_dice_mean"]
    assert scores["jax"] == pytest.approx(scores["tensorflow"], abs=0.05)
    assert scores["tensorflow"] >= 0.85


def test_a_wrong_parameter_stops_before_any_work(pipeline, tmp_path):
    broken = tiny_pipeline.create(tmp_path / "broken", {**TINY, "train": {"epochs": 0}})
    code, output = broken.dvc("repro")
    assert code != 0
    assert "ERROR 2 params.yaml: train.epochs is 0" in output
    assert not (broken.folder / "data/raw/slices.zip").exists()
