"""A stage computes with what the stages before it made, or not at all."""

import json
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from brainseg import config
from brainseg.data import inputs
from brainseg.errors import IntegrityError
from tests.support.toy_pipeline import flip

ROOT = Path(__file__).parents[2]
PIPELINE = config.read_yaml(ROOT / "dvc.yaml")["stages"]
MADE = sorted({
    dep for stage in PIPELINE.values() for dep in stage["deps"] if dep.startswith(("data/", "models/", "metrics/"))
})  # fmt: skip


def lock(root: Path) -> None:
    """As DVC leaves it after a run, without what nobody reads here."""
    outs = [{"path": path, "md5": inputs.md5(root / path)} for path in MADE if (root / path).exists()]
    (root / "dvc.lock").write_text(json.dumps({"stages": {"all": {"outs": outs}, "download": {"cmd": "none"}}}))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in which all stages have run: dvc.yaml, params.yaml, and small files for what the stages made."""
    root = tmp_path / "project"
    for path in MADE:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{path}: 0.5\n")
    np.save(root / "data/processed/images.npy", np.zeros((4, 8, 8, 3), np.uint8))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, root)
    lock(root)
    monkeypatch.chdir(root)
    return root


def test_train_refuses_damaged_images_before_it_computes(project):
    flip(project / "data/processed/images.npy")  # size and times are as they were
    with pytest.raises(IntegrityError) as error:
        runpy.run_path(str(ROOT / "stages/train.py"))["main"]()
    (line,) = error.value.lines()
    assert line.startswith("ERROR 4 data/processed/images.npy: its MD5 is ") and "dvc.lock says" in line
    assert "without DVC" in line and "Fix: rm -f data/processed/images.npy, then dvc repro" in line


@pytest.mark.parametrize("stage", [stage for stage in PIPELINE if stage != "download"])
def test_each_stage_refuses_each_of_its_inputs_and_no_other(stage, project):
    deps = [dep for dep in PIPELINE[stage]["deps"] if dep in MADE]
    inputs.check(stage)
    for path in MADE:
        whole = (project / path).read_bytes()
        (project / path).write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        if path in deps:
            with pytest.raises(IntegrityError, match="its MD5 is") as error:
                inputs.check(stage)
            assert [problem.path for problem in error.value.problems] == [path]
            assert ("git restore" in error.value.problems[0].fix) == path.startswith("metrics/")
        else:
            inputs.check(stage)
        (project / path).write_bytes(whole)


def test_all_that_differ_are_named_at_once(project):
    for name in ("data/processed/slices.csv", "data/splits/split.csv"):
        (project / name).write_text("row,patient\n")
    with pytest.raises(IntegrityError) as error:
        inputs.check("train")
    assert [problem.path for problem in error.value.problems] == ["data/processed/slices.csv", "data/splits/split.csv"]


def test_nothing_to_compare_with_is_no_fault(project):
    """A first run, a stage that has not run yet, a file that is missing: the stage says that itself."""
    flip(project / "data/processed/images.npy")
    whole = (project / "dvc.lock").read_text()
    (project / "dvc.lock").write_text('{"stages": {"split": {"cmd": "none"}}}')
    inputs.check("train")
    (project / "dvc.lock").unlink()
    (project / "dvc.yaml").unlink()  # a fold that runs without DVC has neither
    inputs.check("train")
    inputs.verify(MADE)
    (project / "dvc.lock").write_text(whole)
    (project / "data/processed/images.npy").unlink()
    inputs.verify(MADE)


@pytest.fixture
def read(project, monkeypatch):
    """Names of the files that are read, all of them too large to be read each time."""
    names, md5 = [], inputs.md5
    monkeypatch.setattr(inputs, "SMALL", 0)
    monkeypatch.setattr(inputs, "md5", lambda path: names.append(path.name) or md5(path))
    return names


def test_a_large_file_is_read_once_and_again_when_anything_of_it_changed(project, read):
    path, images = project / "data/processed/images.npy", ["data/processed/images.npy"]
    inputs.verify(images)
    inputs.verify(images)
    assert read == ["images.npy"]
    os.utime(path)  # the same bytes
    inputs.verify(images)
    inputs.verify(images)
    assert read == ["images.npy"] * 2
    flip(path)  # other bytes, and the time of writing set back
    for _ in range(2):
        with pytest.raises(IntegrityError):
            inputs.verify(images)


def test_what_is_known_of_files_may_be_lost_or_damaged(project, read, project_root):
    """Then they are read; and a digest in it that is wrong makes no whole file a damaged one."""
    known, images = project_root / ".brainseg" / inputs.KNOWN, ["data/processed/images.npy"]
    inputs.verify(images)
    text = known.read_text()
    digest = inputs.md5(project / images[0])
    for damaged in ("", "[]", "{", text.replace(digest, digest[::-1])):
        known.write_text(damaged)
        read.clear()
        inputs.verify(images)
        assert read == ["images.npy"] and known.read_text() == text
    known.unlink()
    known.mkdir()  # cannot be written
    inputs.verify(images)


def test_files_that_are_gone_are_forgotten(project, read, project_root):
    inputs.verify(["data/processed/images.npy", "data/processed/masks.npy"])
    (project / "data/processed/images.npy").unlink()
    os.utime(project / "data/processed/masks.npy")
    inputs.verify(["data/processed/masks.npy"])
    known = json.loads((project_root / ".brainseg" / inputs.KNOWN).read_text())
    assert [Path(name).name for name in known] == ["masks.npy"]


@pytest.mark.parametrize("damage", [
    lambda whole: b"", lambda whole: whole[:-40], lambda whole: whole.replace(b"path", b"qath"),
    lambda whole: b"stages:\n", lambda whole: b"\xe9" + whole, lambda whole: b"[" * 5000,
])  # fmt: skip
def test_a_lock_that_is_damaged_is_no_lock_without_outs(project, damage):
    whole = (project / "dvc.lock").read_bytes()
    (project / "dvc.lock").write_bytes(damage(whole))
    with pytest.raises(IntegrityError) as error:
        inputs.check("train")
    assert error.value.problems[0].path == "dvc.lock" and "brainseg repro puts it back" in error.value.problems[0].fix


def test_every_file_is_read_if_that_is_asked_for(project, read, monkeypatch):
    images = ["data/processed/images.npy"]
    inputs.verify(images)
    monkeypatch.setenv(inputs.ALL, "1")
    inputs.verify(images)
    assert read == ["images.npy"] * 2


@pytest.fixture
def run(project):
    """The stages of a dvc.lock of a whole run; ``run()`` writes it."""
    stages = {}
    for name, stage in PIPELINE.items():
        entries = {kind: [{"path": path, "md5": inputs.md5(project / path)} for path in paths if path in MADE]
                   for kind, paths in (("deps", stage["deps"]), ("outs", outs_of(stage)))}  # fmt: skip
        params = config.flatten(config.read_yaml(ROOT / "params.yaml"))
        asked = {key: value for key, value in params.items() if key in stage["params"]}
        stages[name] = entries | {"params": {"params.yaml": asked}}
    write = lambda: (project / "dvc.lock").write_text(json.dumps({"stages": stages}))  # noqa: E731
    write()
    return stages, write


def outs_of(stage: dict) -> list[str]:
    declared = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in declared]


def test_numbers_of_another_model_than_the_one_that_is_there_are_refused(project, run):
    """As after a run that was killed between the training and the evaluation: each file is what a stage made."""
    stages, write = run
    for stage in PIPELINE:
        inputs.check(stage)
    inputs.verify_results()
    weights = next(out for out in stages["train"]["outs"] if out["path"].endswith(".h5"))
    (project / weights["path"]).write_text("trained again")
    weights["md5"] = inputs.md5(project / weights["path"])
    write()
    inputs.check("evaluate")
    for refused in (lambda: inputs.check("render"), lambda: inputs.check("export"), inputs.verify_results):
        with pytest.raises(IntegrityError, match=f"was made from another {weights['path']} than the one") as error:
            refused()
        assert {problem.path.split("/")[0] for problem in error.value.problems} <= {"data", "metrics", "models"}


def test_inputs_that_were_made_with_other_parameters_are_refused(project):
    """The training writes into the manifest how images are prepared: as its images were."""
    entries = [{"path": path, "md5": inputs.md5(project / path)} for path in MADE if path.startswith("data/processed")]
    stage = {"outs": entries, "params": {"params.yaml": {"preprocess.window": [0.5, 99.5], "preprocess.size": 256}}}
    (project / "dvc.lock").write_text(json.dumps({"stages": {"preprocess": stage}}))
    inputs.check("train")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("[0.5, 99.5]", "[1.0, 99.0]"))
    with pytest.raises(IntegrityError) as error:
        inputs.check("train")
    (problem,) = error.value.problems
    assert problem.what == "preprocess.window is [1.0, 99.0], but the stage preprocess ran with [0.5, 99.5]"
    (project / "params.yaml").write_text(text.replace("dpi: ", "dpi: 1"))
    inputs.check("train")


def test_the_pictures_of_a_folder_are_checked_too(project):
    (project / "metrics/plots").mkdir()
    (project / "metrics/plots/a.png").write_text("drawn")
    out = {"path": "metrics/plots", "md5": inputs.folder_md5(project / "metrics/plots")}
    (project / "dvc.lock").write_text(json.dumps({"stages": {"render": {"outs": [out]}}}))
    inputs.verify_results()
    flip(project / "metrics/plots/a.png")
    with pytest.raises(IntegrityError, match="metrics/plots"):
        inputs.verify_results()


def test_models_and_metrics_that_the_stages_made(project):
    inputs.verify_results()
    flip(project / "data/processed/images.npy")
    inputs.verify_results()
    flip(project / "metrics/evaluation.json")
    with pytest.raises(IntegrityError, match=r"evaluation\.json"):
        inputs.verify_results()


def test_an_old_model_may_be_used_beside_new_data(project, run):
    """As after a cross-validation of corrected masks, or in a training: what is used must fit together, no more."""
    stages, write = run
    masks = next(out for out in stages["preprocess"]["outs"] if out["path"].endswith("masks.npy"))
    (project / masks["path"]).write_text("corrected")
    masks["md5"] = inputs.md5(project / masks["path"])
    write()
    inputs.verify_results()
    inputs.verify(["models/unet.json", "models/unet.weights.h5", "metrics/evaluation.json"])
    with pytest.raises(IntegrityError, match=r"from another data/processed/masks\.npy"):
        inputs.check("evaluate")
