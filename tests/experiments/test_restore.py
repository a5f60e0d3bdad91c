"""`brainseg restore`: back to the committed run from every state, and nothing is lost."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from brainseg.data import inputs
from brainseg.errors import DataError, MachineError
from brainseg.experiments import repro, restore
from tests.support import shared, toy_pipeline

DATA, WEIGHTS = "data/images.npy", "models/unet.weights.h5"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy pipeline after its run, whose model is released."""
    shutil.copytree(shared.folder("released", release) / "toy", tmp_path / "toy")
    return enter(toy_pipeline.Repository(tmp_path / "toy"), monkeypatch)


def release(home: Path) -> None:
    toy = toy_pipeline.create(home / "toy")
    code, output = toy.dvc("push", *toy_pipeline.MODEL)
    assert code == 0, output
    toy.git("add", "--all")
    toy.git("commit", "--quiet", "--message", "released")


def enter(toy, monkeypatch):
    for name, value in toy.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DVC_ROOT", str(toy.folder))
    monkeypatch.chdir(toy.folder)
    return toy


def contents(toy) -> dict[str, bytes]:
    """All files of the project but the history and caches of Git, DVC and ours."""
    hidden = (".git", ".brainseg", ".dvc/tmp", ".dvc/cache")
    found = {path.relative_to(toy.folder): path for path in toy.folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if not any(map(name.is_relative_to, hidden))}


def test_after_another_run_and_what_was_written_by_hand(toy, capsys):
    before = contents(toy)
    (toy.folder / "params.yaml").write_text("train:\n  epochs: 9\n  loss: dice\n")
    assert toy.dvc("repro")[0] == 0
    other = (toy.folder / WEIGHTS).read_bytes()
    (toy.folder / DATA).unlink()
    (toy.folder / DATA).write_bytes(b"of no stage")
    (toy.folder / "metrics/new.json").write_text("{}")
    restore.run()
    shown = capsys.readouterr().out
    assert contents(toy) == before
    assert toy.git("status", "--porcelain") == ""
    assert "3 changed files are kept" in shown and "git stash pop brings back" in shown
    assert f"{DATA}, which DVC's cache does not hold, is kept in {toy.folder}/.brainseg/before-restore/1" in shown
    assert (toy.folder / ".brainseg/before-restore/1" / DATA).read_bytes() == b"of no stage"
    assert f"restored: {DATA}, models/unet.json, {WEIGHTS}" in shown and "not here" not in shown
    assert toy.git("status", "--porcelain") == ""
    restore.run()
    assert "changed" not in capsys.readouterr().out
    toy.git("stash", "pop")
    assert "epochs: 9" in (toy.folder / "params.yaml").read_text() and (toy.folder / "metrics/new.json").exists()
    assert toy.dvc("checkout")[0] == 0 and (toy.folder / WEIGHTS).read_bytes() == other


def test_a_clone_gets_the_model_and_the_command_that_makes_the_rest(toy, tmp_path, monkeypatch, capsys):
    clone = enter(toy.clone(tmp_path / "elsewhere/clone"), monkeypatch)
    (clone.folder / "params.yaml").write_text("train: {}")
    restore.run()
    shown = capsys.readouterr().out
    assert (clone.folder / WEIGHTS).read_bytes() == (toy.folder / WEIGHTS).read_bytes()
    assert f"restored: models/unet.json, {WEIGHTS}\nnot here: {DATA}\nbrainseg repro makes them again" in shown
    assert clone.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_what_it_says_makes_the_rest_without_a_training(toy, tmp_path, monkeypatch):
    clone = enter(toy.clone(tmp_path / "elsewhere/clone"), monkeypatch)
    restore.run()
    code, output = clone.brainseg("repro")
    assert code == 0 and "'train' didn't change" in output and (clone.folder / DATA).exists()
    assert clone.git("status", "--porcelain") == ""


def test_a_commit_without_a_run_is_told(toy):
    toy.git("rm", "--quiet", "dvc.lock")
    toy.git("commit", "--quiet", "--message", "no run")
    with pytest.raises(DataError, match="there is no run to go back to"):
        restore.run()


def test_while_a_run_is_going_on_nothing_is_touched(toy):
    """DVC would note the committed parameters for the model of another experiment."""
    (toy.folder / "params.yaml").write_text("train: {}")
    code = "import time; print('started', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, "dvc"], cwd=toy.folder, stdout=subprocess.PIPE) as running:
        running.stdout.readline()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(MachineError, match="a run is going on"):
            patch.setattr(repro, "_is_dvc", lambda command: command[-1] == "dvc")
            restore.run()
        running.kill()
    assert (toy.folder / "params.yaml").read_text() == "train: {}"


@pytest.mark.slow
def test_a_good_file_stays_where_its_object_in_the_cache_is_damaged(toy, capsys):
    (toy.folder / "params.yaml").write_text("train:\n  epochs: 9\n  loss: dice\n")
    assert toy.dvc("repro")[0] == 0
    other = (toy.folder / WEIGHTS).read_bytes()
    (held,) = (path for path in toy.folder.glob(".dvc/cache/files/md5/*/*") if path.read_bytes() == other)
    (toy.folder / WEIGHTS).unlink()
    (toy.folder / WEIGHTS).write_bytes(other)
    toy_pipeline.flip(held)
    restore.run()
    assert (toy.folder / ".brainseg/before-restore/1" / WEIGHTS).read_bytes() == other


def find_object(toy, path: str) -> Path:
    name = inputs.md5(toy.folder / path)
    return toy.folder / ".dvc/cache/files/md5" / name[:2] / name[2:]


@pytest.mark.slow
@pytest.mark.parametrize("is_link", [True, False])
def test_a_damaged_object_of_the_cache_is_moved_so_that_a_run_makes_it_again(toy, capsys, is_link):
    """Data come from a run, models from weights/. A hard link has the same damage."""
    for path in (DATA, WEIGHTS):
        held = find_object(toy, path)
        (toy.folder / path).unlink()
        if is_link:
            (toy.folder / path).hardlink_to(held)
        toy_pipeline.flip(held)
    restore.run()
    shown = capsys.readouterr().out
    kept = toy.folder / ".brainseg/before-restore/1"
    for path in (DATA, WEIGHTS):
        assert f"the object of {path} in DVC's cache was damaged; it is kept in {kept / 'cache'}" in shown
        assert (kept / "cache" / path).exists() and (kept / path).exists() == is_link
    assert f"restored: {WEIGHTS}\nnot here: {DATA}\nbrainseg repro makes them again" in shown
    code, output = toy.brainseg("repro")
    assert code == 0 and (toy.folder / DATA).read_bytes() == b"images" * 1000, output
    code, output = toy.brainseg("verify-data")
    assert code == 0, output


@pytest.mark.slow
def test_what_comes_back_is_no_link_into_the_cache(toy):
    for path in (DATA, WEIGHTS):
        (toy.folder / path).unlink()
    restore.run()
    assert {(toy.folder / path).stat().st_nlink for path in (DATA, WEIGHTS)} == {1}
