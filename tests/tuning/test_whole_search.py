"""A search of a dozen trials, two at once, killed half-way: minutes, as a person would run it."""

import json
import os
import signal
import subprocess
import sys
import time

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from brainseg.tuning import search
from tests.support import tiny_pipeline

SPACE = """
parameters:
  train.learning_rate: {low: 0.00005, high: 0.1, log: true}
  network.dropout: {low: 0.0, high: 0.5}
"""
SMALL = tiny_pipeline.TINY | {
    "phantom": {"patients": 40, "slices": 20, "size": 64},  # epochs that last long enough to be stopped after
    "train": {"epochs": 9, "batch_size": 8, "ema": 0.9, "threads": 1},
    "network": {"filters": 8, "depth": 2},
}
TRIALS, HALF = 12, 6
WAIT = 1800  # seconds


def list_ended(folder):
    """Trials that are finished or stopped, by number."""
    study = folder / ".brainseg/tune/space/study.db"
    if not study.exists():
        return {}
    try:
        found = optuna.load_study(study_name="space", storage=f"sqlite:///{study}")
    except (KeyError, optuna.exceptions.StorageInternalError):  # its tables are being made
        return {}
    ended = found.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])
    return {trial.number: trial for trial in ended}


@pytest.mark.slow
def test_twelve_trials_two_at_once_go_on_after_a_kill(tmp_path):
    folder = tmp_path / "project"
    repository = tiny_pipeline.create(folder, SMALL)
    (folder / "space.yaml").write_text(SPACE)
    variables = os.environ | repository.environment | {"PYTHONPATH": str(folder / "src")}
    command = [sys.executable, "-c", "from brainseg.cli import main; main()", "tune", "space.yaml", "--quiet"]
    command += ["--trials", str(TRIALS), "--jobs", "2"]
    started = time.monotonic()
    with (tmp_path / "first.log").open("w") as said:
        first = subprocess.Popen(command, cwd=folder, env=variables, stdout=said, stderr=said, start_new_session=True)
        try:
            while len(before := list_ended(folder)) < HALF:
                assert first.poll() is None and time.monotonic() - started < WAIT, (tmp_path / "first.log").read_text()
                time.sleep(1)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait(60)
    logs = {path: path.stat().st_mtime_ns for path in (folder / ".brainseg/tune/space").glob("*.log")}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=WAIT)
    print(done.stdout, f"{time.monotonic() - started:.0f} s in all")
    assert done.returncode == 0, done.stdout + done.stderr
    ended = list_ended(folder)
    for number, trial in before.items():  # none is run again
        assert (ended[number].state, ended[number].value) == (trial.state, trial.value)
        for name in trial.user_attrs[search.EXPERIMENTS] if trial.state == TrialState.COMPLETE else ():
            log = folder / f".brainseg/tune/space/{name}.log"
            assert log.stat().st_mtime_ns == logs[log]
    table = pd.read_csv(folder / "metrics/tune/space/trials.csv")
    states = table["state"].value_counts()
    assert len(table) == TRIALS and states["stopped"] >= 3 and states.sum() == states["stopped"] + states["done"]
    told = json.loads((folder / "metrics/tune/space/summary.json").read_text())
    assert (
        told["dice"] == pytest.approx(table["dice"].max()) and told["dice"] >= told["default_with_other_seeds"][0] > 0
    )
