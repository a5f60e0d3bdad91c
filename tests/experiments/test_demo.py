"""make demo: a copy of the tracked tree that stays, and a workspace that does not change."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from brainseg import config
from brainseg.errors import DataError, MachineError
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


@pytest.fixture
def toy(tmp_path):
    """The toy pipeline with a recipe for the demo."""
    toy = toy_pipeline.create(tmp_path / "toy")
    (toy.folder / "recipes/demo.yaml").write_text("train: {loss: bce}\n")
    toy.git("add", "--all")
    return toy


def without_git(monkeypatch):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "git" else which(name))


def test_again_brings_what_changed_in_the_project_and_keeps_what_somebody_changed_in_the_copy(toy, capsys):
    copy = toy.folder / demo.FOLDER
    demo.prepare(toy.folder, copy)
    assert config.read_yaml(copy / "params.yaml") == {"train": {"epochs": 2, "loss": "bce"}}
    assert demo.git(copy, "status", "--porcelain") == "" and capsys.readouterr().err == ""
    demo.prepare(toy.folder, copy)
    assert capsys.readouterr().err.count("\n") == 1  # that it is there

    (copy / "dvc.lock").write_text("of its own run")
    (copy / "metrics/training.csv").write_text("of its own run")
    (copy / "stages/data.py").write_text("mine")
    (copy / "recipes/more.yaml").unlink()
    (copy / "notes.txt").write_text("mine")
    (toy.folder / "params.yaml").write_text("train: {epochs: 7, loss: dice}\n")
    (toy.folder / "stages/data.py").write_text("other")
    (toy.folder / "stages/new.py").write_text("new")
    (toy.folder / "metrics/training.csv").write_text("other")
    (toy.folder / "stages/train.py").unlink()
    toy.git("add", "--all")
    demo.prepare(toy.folder, copy)
    assert config.read_yaml(copy / "params.yaml") == {"train": {"epochs": 7, "loss": "bce"}}
    assert (copy / "stages/new.py").read_text() == "new" and not (copy / "stages/train.py").exists()
    assert {(copy / name).read_text() for name in ("dvc.lock", "metrics/training.csv")} == {"of its own run"}
    assert {(copy / name).read_text() for name in ("stages/data.py", "notes.txt")} == {"mine"}
    assert not (copy / "recipes/more.yaml").exists()
    said = capsys.readouterr().err.splitlines()
    assert said[1] == "brought into it from the project: params.yaml, stages/new.py, stages/train.py"
    assert said[2] == "as you changed them there: recipes/more.yaml, stages/data.py"
    assert demo.git(copy, "log", "--format=%s").splitlines() == ["the project has changed", "demo"]

    (copy / "stages/data.py").write_text("other")  # as the project has it, so that it follows the project again
    for text in ("other", "newer"):
        (toy.folder / "stages/data.py").write_text(text)
        demo.prepare(toy.folder, copy)
        assert (copy / "stages/data.py").read_text() == text


def test_a_new_file_of_the_project_does_not_replace_one_of_that_name(toy, capsys):
    copy = toy.folder / demo.FOLDER
    demo.prepare(toy.folder, copy)
    for folder, text in ((copy, "mine"), (toy.folder, "new")):
        (folder / "stages/new.py").write_text(text)
    toy.git("add", "--all")
    for _ in range(2):
        demo.prepare(toy.folder, copy)
        assert (copy / "stages/new.py").read_text() == "mine"
        assert "as you changed them there: stages/new.py" in capsys.readouterr().err


def test_a_folder_of_that_name_from_elsewhere_stays_until_asked(toy, monkeypatch):
    mine = toy.folder / demo.FOLDER / "mine.txt"
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(DataError, match="nobody knows what was changed in it") as error:
        demo.run(toy.folder)
    assert mine.exists() and "make demo FRESH=1" in error.value.problems[0].fix
    monkeypatch.setattr(demo, "prepare", lambda root, copy: pytest.fail("removed") if mine.exists() else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        demo.run(toy.folder, fresh=True)


def test_a_copy_that_was_stopped_half_made_is_none(toy, monkeypatch):
    with monkeypatch.context() as stopped:
        stopped.setattr(demo, "commit", lambda copy: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            demo.prepare(toy.folder, toy.folder / demo.FOLDER)
    assert not (toy.folder / demo.FOLDER).exists()
    demo.prepare(toy.folder, toy.folder / demo.FOLDER)


def test_a_zip_of_the_sources_and_a_machine_without_git_list_the_same_files(toy, monkeypatch):
    for name in (".venv/a.py", "src/__pycache__/a.pyc", "data/raw.txt"):
        (toy.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (toy.folder / name).touch()
    (toy.folder / ".gitignore").write_text("/.brainseg/\n/.venv/\n__pycache__/\n*.txt\n")
    tracked = demo.list_tracked(toy.folder)
    assert "stages/data.py" in tracked and "data/.gitignore" in tracked and "data/raw.txt" not in tracked
    with monkeypatch.context() as bare:
        without_git(bare)
        assert demo.list_tracked(toy.folder) == sorted(tracked)
    shutil.rmtree(toy.folder / ".git")
    assert demo.list_tracked(toy.folder) == sorted(tracked)
    demo.git(toy.folder.parent, "init", "--quiet")  # somebody else's repository around it
    assert demo.list_tracked(toy.folder) == sorted(tracked)


@pytest.mark.slow
def test_without_git_the_copy_runs_with_dvc_that_looks_for_none(toy, monkeypatch):
    shutil.rmtree(toy.folder / ".git")
    without_git(monkeypatch)
    demo.prepare(toy.folder, toy.folder / demo.FOLDER)
    assert not (toy.folder / demo.FOLDER / ".git").exists()
    copy = toy_pipeline.Repository(toy.folder / demo.FOLDER)
    code, said = copy.dvc("repro")
    assert code == 0 and "Running stage 'train'" in said
    demo.prepare(toy.folder, copy.folder)
    code, said = copy.dvc("repro")
    assert code == 0 and "Running stage" not in said
    with pytest.raises(MachineError, match="not installed") as error:
        demo.git(copy.folder, "status")
    assert "install Git" in error.value.problems[0].fix


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
