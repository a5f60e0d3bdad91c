"""make demo: a copy of the tracked tree, and a workspace that does not change."""

import json
import os
import subprocess
import sys

import pytest

from brainseg import config
from brainseg.errors import MachineError
from brainseg.experiments import demo, repro
from tests.support import toy_pipeline
from tests.support.toy_pipeline import PROJECT


def test_the_copy_holds_what_is_tracked_as_it_is_now(tmp_path):
    toy = toy_pipeline.create(tmp_path / "toy")
    (toy.folder / "untracked.txt").touch()
    (toy.folder / "params.yaml").write_text("train: {epochs: 9, loss: dice}\n")
    (toy.folder / "stages/data.py").unlink()
    (toy.folder / "metrics/cross_validation").mkdir()
    (toy.folder / "metrics/cross_validation/summary.json").touch()
    toy.git("add", "--force", "metrics/cross_validation")
    copy = toy.folder / demo.FOLDER
    (copy / "left/over").mkdir(parents=True)
    demo.copy_tracked(toy.folder, copy)
    assert {path.name for path in copy.iterdir()} == {".dvc", ".gitignore", "dvc.lock", "dvc.yaml", "metrics",
                                                      "models", "params.yaml", "recipes", "stages", "data"}  # fmt: skip
    assert not (copy / "metrics/cross_validation").exists()
    assert not (copy / "models/unet.json").exists() and not (copy / "stages/data.py").exists()
    assert (copy / "params.yaml").read_text() == "train: {epochs: 9, loss: dice}\n"


def test_the_copy_is_a_repository_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as in a git hook
    demo.commit(tmp_path)
    assert demo.git(tmp_path, "ls-files") == "a.txt\n"
    assert not (tmp_path / "elsewhere").exists()


def test_settings_of_the_workspace_do_not_reach_the_copy(monkeypatch):
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI", "GIT_INDEX_FILE"):
        monkeypatch.setenv(name, "outside")
    assert "outside" not in demo.environment().values()
    assert demo.environment()["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)


def test_the_recipe_overrides_params_and_they_stay_valid(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text((PROJECT / "params.yaml").read_text())
    changes = repro.load_recipe("demo", PROJECT)
    demo.override(params, changes)
    before, after = config.load(path=PROJECT / "params.yaml").model_dump(), config.load(path=params).model_dump()
    for block, values in changes.items():
        before[block].update(values)
    assert after == before
    assert after["download"]["source"] == "phantom"


def test_outside_of_git_the_error_names_the_fix(tmp_path):
    with pytest.raises(MachineError, match="not a git repository"):
        demo.copy_tracked(tmp_path, tmp_path / "copy")


@pytest.mark.slow
def test_the_demo_runs_whole_and_leaves_the_workspace_as_it_was():
    """Phantoms are outlined well, and clearly better than by a threshold on FLAIR; git and DVC see no change."""

    def state():
        commands = (["git", "status", "--porcelain"], [sys.executable, "-m", "dvc", "status", "--json"])
        return [subprocess.run(c, cwd=PROJECT, env=demo.environment(), capture_output=True).stdout for c in commands]

    before = state()
    command = [sys.executable, "-c", "from brainseg import cli; cli.main()", "demo"]
    done = subprocess.run(command, cwd=PROJECT, env=demo.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "volume Dice" in done.stdout and "report.html" in done.stdout
    report = json.loads((PROJECT / demo.FOLDER / "metrics/evaluation.json").read_text())
    dice = report["test"]["volume"]["dice"]["mean"]
    assert dice >= 0.85
    assert report["baselines"]["flair_threshold"]["volume"]["dice"]["mean"] < dice - 0.05
    assert state() == before
