"""A training that is started, watched and stopped on this machine, with a script in place of DVC."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psutil
import pytest

from brainseg.errors import DataError
from brainseg.experiments.running import local, places
from brainseg.experiments.running import runner as running
from brainseg.experiments.running.local import LocalRunner
from brainseg.experiments.running.runner import Seen, Training, TrainingError

LINE = "epoch {}/9  loss 0.41  validation volume Dice 0.{}12 (best 0.821 in 2)  47 images/s  12 min left"


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trainings are ``script.py``, which each call writes; ``dvc exp run`` becomes a call of it."""
    monkeypatch.setattr(local.repro, "environment", lambda: {**os.environ, "PYTHONPATH": str(tmp_path)})
    (tmp_path / "dvc.py").write_text("import runpy; runpy.run_path('script.py')\n")

    def call(script, watch=lambda seen: False, runner=None):
        (tmp_path / "script.py").write_text(script)
        training = Training("toy-0", {"train": {"seed": 2}}, tmp_path / "state")
        return (runner or LocalRunner(tmp_path, 1)).run(training, watch)

    return call


def test_stages_and_epochs_are_told_and_all_is_kept_in_the_log(train, tmp_path):
    told = []
    lines = ["Running stage 'split':", "other", "Running stage 'train':", LINE.format(1, 5), LINE.format(2, 6)]

    def watch(seen):
        told.append(seen)
        return False

    assert train(f"for line in {lines!r}: print(line)", watch) is False
    assert told == [Seen("split"), Seen("train"), Seen("train", 1, 9, 0.512), Seen("train", 2, 9, 0.612)]
    log = (tmp_path / "state/toy-0.log").read_text().splitlines()
    assert log[0].startswith("+ dvc --wait-for-lock exp run --temp --name toy-0 -S train.seed=2")
    assert log[1:] == lines


def test_an_undefined_dice_is_told(train):
    told = []
    train(f"print({LINE.replace('0.{}12', 'nan').format(1)!r})", lambda seen: told.append(seen.dice) or False)
    assert len(told) == 1 and told[0] != told[0]


SLEEPS = """\
import os, subprocess, sys, time, pathlib
pathlib.Path(os.environ['BRAINSEG_CHECKPOINTS']).mkdir(parents=True)
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
pathlib.Path('child').write_text(str(child.pid))
print(LINE, flush=True)
time.sleep(600)
""".replace("LINE", repr(LINE.format(3, 1)))


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_training_that_falls_behind_is_ended_with_all_that_it_started(train, tmp_path):
    """Its checkpoints go too, since nobody will go on from them."""
    begin = time.monotonic()
    assert train(SLEEPS, lambda seen: True) is True
    assert time.monotonic() - begin < local.GRACE + 30
    assert is_gone(int((tmp_path / "child").read_text()))
    assert not (tmp_path / "state/toy-0").exists()


def test_what_is_ended_by_ctrl_c_keeps_its_checkpoints(train, tmp_path):
    """Ctrl-C comes while all jobs are busy: what runs is ended, what waits is not begun, and the way on is told."""
    runner, done = LocalRunner(tmp_path, 1), []

    def watch(seen):
        threading.Thread(target=lambda: os.kill(os.getpid(), running.signal.SIGTERM)).start()
        return False

    acts = [lambda: train(SLEEPS, watch, runner), lambda: done.append("the next one")]
    with pytest.raises(running.RunError, match="the folds: was stopped") as caught, running.stoppable("the folds"):
        running.work(runner, acts)
    assert caught.value.problems[0].fix == "go on with the same command"
    assert is_gone(int((tmp_path / "child").read_text())) and done == []
    assert (tmp_path / "state/toy-0").is_dir() and runner.is_over.is_set()


def test_nohup_outlives_the_terminal():
    """It ignores SIGHUP, which stays so; SIGTERM still stops."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with running.stoppable("the folds"):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_training_that_is_begun_too_late_is_ended(train, tmp_path):
    runner = LocalRunner(tmp_path, 1)
    runner.end_all()
    with pytest.raises(TrainingError):
        train("import time; time.sleep(600)", runner=runner)


def test_a_fault_of_the_parameters_is_told_from_others(train, tmp_path):
    """The checkpoints of each are kept: with more memory, say, the first goes on from them."""
    write = "import os; os.makedirs(os.environ['BRAINSEG_CHECKPOINTS'], exist_ok=True); "
    for script, own, what in (
        ("print('ERROR 5 memory: out of memory. Fix: x'); os._exit(255)", True, "memory: out of memory$"),
        ("print('ERROR 3 data: disk is full. Fix: x'); os._exit(255)", False, "ended with code 255: data: disk is"),
        ("os.kill(os.getpid(), 9)", False, "ended with code -9"),
    ):
        with pytest.raises(TrainingError, match=what) as caught:
            train(write + script.replace("os._exit", "import sys; sys.stdout.flush(); os._exit"))
        assert caught.value.by_parameters == own
        assert (tmp_path / "state/toy-0").exists()
    failed = TrainingError(tmp_path, "epoch\nERROR 2 split.folds: is 900. Fix: set it to 5\n", 255)
    assert str(failed).endswith(": split.folds: is 900")
    assert failed.problems[0].fix == "set it to 5; then run this again"


@pytest.mark.parametrize(
    ("given", "listed", "jobs", "wanted"),
    [
        ("3,5", "", 2, ["3", "5"]),
        ("3", "", 2, ["3", "3"]),
        ("", "0\n1\n", 2, ["", ""]),  # the user hides all GPUs
        (None, "0\n1\n2\n", 2, ["0", "1"]),
        (None, "", 2, [None, None]),
    ],
)
def test_trainings_at_once_have_a_gpu_each(tmp_path, monkeypatch, given, listed, jobs, wanted):
    """Two of six at once: no two share a device if there are enough devices."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(local.hardware, "list_gpus", local.hardware.list_gpus.__wrapped__)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    runner, running_now, seen = LocalRunner(tmp_path, jobs), Barrier(jobs), []

    def execute(training, root, watch, environment, *, is_over):
        seen.append(environment.get("CUDA_VISIBLE_DEVICES"))
        running_now.wait(20)
        return False

    monkeypatch.setattr(local, "execute", execute)
    trainings = [Training(f"cv-{k}", {}, tmp_path) for k in range(6)]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda training: runner.run(training, lambda seen: False), trainings))
    pairs = [sorted(seen[start : start + jobs], key=str) for start in range(0, 6, jobs)]
    assert pairs == [wanted] * 3


def test_what_only_ray_takes_is_refused_elsewhere(tmp_path):
    with pytest.raises(DataError, match="--address --gpus: is for a Ray cluster"):
        places.check(running.Place(address="auto", gpus=1), {})
    assert places.create(running.Place(jobs=3), tmp_path, {}).jobs == 3


@pytest.mark.parametrize(
    ("asked", "train", "what"),
    [
        ({"gpus": 1.5}, {}, "--gpus: is 1.5"),
        ({"cpus": 0, "gpus": 0}, {}, "--cpus: is 0"),
        (
            {},
            {"initial_weights": "/pretrained/unet.weights.h5"},
            "initial_weights: names a file that nodes do not have",
        ),
        ({}, {"soft_masks": "soft_masks/a.npy"}, "soft_masks: names a file that nodes do not have"),
    ],
)
def test_what_ray_cannot_do_is_refused(asked, train, what):
    with pytest.raises(DataError, match=what):
        places.check(running.Place("ray", **asked), {"train": train})
