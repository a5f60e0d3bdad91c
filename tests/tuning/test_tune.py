"""A whole search on tiny phantoms, killed half-way and started again; what it may read, and what it leaves."""

import io
import os
import signal
import subprocess
import sys
import time

import optuna
import pandas as pd
import pytest
from filelock import FileLock
from optuna.trial import TrialState

from brainseg.data import dataset
from brainseg.errors import DataError, MachineError
from brainseg.experiments import revision
from brainseg.tuning import search, tune
from brainseg.tuning.search import Options
from tests.support import tiny_pipeline
from tests.support.toy_pipeline import PROJECT

SPACE = """
parameters:
  train.learning_rate: {low: 0.0005, high: 0.02, log: true}
  network.dropout: {low: 0.0, high: 0.3}
"""
TRIALS = 3
WAIT = 900  # seconds


def test_a_split_without_inner_folds_or_with_patients_who_are_trained_on_is_refused(tmp_path):
    text = (PROJECT / "params.yaml").read_text()
    for change, message in (
        (("  unit: patient ", "  unit: institution "), "has no inner folds"),
        (("  subset: train ", "  subset: all "), "would learn of patients whom trials are scored by"),
        (("  soft_masks: null ", "  soft_masks: a.npy "), "would learn of patients whom trials are scored by"),
    ):
        assert change[0] in text
        (tmp_path / "params.yaml").write_text(text.replace(*change))
        with pytest.raises(DataError, match=message):
            tune.plan(tmp_path / "space.yaml", 1, None, tmp_path)
    (tmp_path / "params.yaml").write_text(text)
    assert tune.plan(tmp_path / "my space.yaml", 2, None, tmp_path).name == "my_space"
    with pytest.raises(DataError, match="is no name of a search"):
        tune.plan(tmp_path / "space.yaml", 1, "../x", tmp_path)
    with pytest.raises(DataError, match="is 9, there are 5"):
        tune.plan(tmp_path / "space.yaml", 9, None, tmp_path)


def test_a_search_that_runs_already_is_not_started_twice(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.setattr(tune.integrity, "check_git", lambda root: None)
    study = tune.plan(tmp_path / "space.yaml", 1, None, tmp_path)
    study.state.mkdir(parents=True)
    with FileLock(study.state / "lock"), pytest.raises(MachineError, match="is running already"):
        tune.run(tmp_path / "space.yaml", Options(1, 1), root=tmp_path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose search was killed while its second trial trained, and then run to its end."""
    folder = tmp_path_factory.mktemp("tuned") / "project"
    repository = tiny_pipeline.create(
        folder, tiny_pipeline.TINY | {"train": {"epochs": 4, "batch_size": 8, "ema": 0.5}}
    )
    (folder / "space.yaml").write_text(SPACE)
    variables = os.environ | repository.environment | {"PYTHONPATH": str(folder / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", "from brainseg.cli import main; main()", "tune", "space.yaml", "--quiet"]
    command += ["--trials", str(TRIALS), "--repeats", "0", "--no-verdict"]
    first = subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + WAIT
    for line in first.stdout:
        assert time.monotonic() < end
        if line.startswith("trial 1: epoch 2"):
            first.send_signal(signal.SIGKILL)
            break
    assert first.wait(60) == -signal.SIGKILL
    logs = {path.name: path.stat().st_mtime_ns for path in (folder / ".brainseg/tune/space").glob("*.log")}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, logs, done.stdout


@pytest.mark.slow
def test_a_killed_search_goes_on(project):
    """The finished trial is not run again; the one that was killed goes on from its checkpoint, with its parameters."""
    folder, logs, said = project
    found = optuna.load_study(study_name="space", storage=f"sqlite:///{folder}/.brainseg/tune/space/study.db")
    kept = search.list_kept(found)
    assert len(kept) == TRIALS and {trial.state for trial in kept} <= {TrialState.COMPLETE, TrialState.PRUNED}
    (first, *_), (again,) = kept, [trial for trial in found.trials if search.AGAIN in trial.user_attrs]
    assert again.params == found.trials[again.user_attrs[search.AGAIN]].params
    (name,) = first.user_attrs[search.EXPERIMENTS]
    log = folder / f".brainseg/tune/space/{name}.log"
    assert log.stat().st_mtime_ns == logs[log.name]
    (name,) = again.user_attrs[search.EXPERIMENTS]
    assert "resumed after epoch" in (folder / f".brainseg/tune/space/{name}.log").read_text()
    assert "the best at full length: brainseg repro -S train.learning_rate=" in said
    assert (folder / "metrics/tune/space/report.html").is_file()
    assert not [path for path in (folder / ".brainseg/tune/space").iterdir() if path.is_dir()]  # no checkpoint is left


@pytest.mark.slow
def test_no_trial_has_read_a_patient_of_the_test_fold(project):
    """Not in training, not in evaluation: their slices are in no subset, and no score is theirs."""
    folder, _, _ = project
    outer = pd.read_csv(folder / "data/splits/split.csv")
    test = set(outer.loc[outer["subset"] == "test", "patient"])
    table = pd.read_csv(folder / "metrics/tune/space/trials.csv")
    for name in table.loc[table["state"] == "done", "experiments"]:
        read = revision.reader(name, folder)
        scored = pd.read_csv(io.StringIO(read("metrics/per_patient.csv")))
        assert not test & set(scored["patient"]) and set(scored["subset"]) == {"val", "test"}
        with revision.fetched("data/splits/split.csv", name, folder) as path:
            inner = pd.read_csv(path)
        assert set(inner.loc[inner["subset"] == "unused", "patient"]) == test
        with revision.fetched("models/unet.json", name, folder) as path:
            assert "inner folds: the patients of the test fold are left out" in path.read_text()
    assert test and set(dataset.SUBSETS) == {"train", "val", "test"}
