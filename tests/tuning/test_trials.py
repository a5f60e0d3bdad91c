"""What a search asks of trainings: whose fault it is when one fails, its leftovers, and what a name promises."""

import subprocess
import sys
import threading

import pytest

from brainseg.errors import IntegrityError, MachineError, RunError
from brainseg.experiments import revision
from brainseg.experiments.running.runner import TrainingError
from brainseg.tuning import trials
from brainseg.tuning.trials import Experiment, Study


@pytest.fixture
def study(tmp_path):
    return Study("toy", tmp_path, 5, 1)


class Failing:
    """A runner whose trainings end with what they printed."""

    jobs, is_over = 1, threading.Event()

    def __init__(self, printed):
        self.printed = printed

    def run(self, training, watch):
        raise TrainingError(training.log, self.printed, 255)


def train(study, printed):
    planned = [Experiment("tune-toy-00000000-0", {}, "00000000")]
    return trials.run(study, planned, lambda fold, seen: False, Failing(printed))


def test_a_fault_of_the_parameters_is_told_from_one_of_the_machine(study, monkeypatch):
    monkeypatch.setattr(trials, "read_score", lambda *_: None)
    checkpoints = study.state / "tune-toy-00000000-0"
    checkpoints.mkdir(parents=True)
    with pytest.raises(RunError, match=r"train\.loss: the loss is nan"):
        train(study, "ERROR 5 train.loss: the loss is nan. Fix: x")
    assert not checkpoints.exists()
    checkpoints.mkdir()
    with pytest.raises(MachineError, match=r"ended with code 255: data: disk is full") as caught:
        train(study, "epoch\nERROR 3 data: disk is full. Fix: x\n")
    assert caught.value.problems[0].path == str(study.state / "tune-toy-00000000-0.log")
    with pytest.raises(MachineError, match="ended with code 255: read its end"):
        train(study, "")
    assert checkpoints.exists()


def test_leftovers_of_this_search_and_project_alone_are_ended(study, tmp_path_factory):
    def start(name, folder):
        words = [sys.executable, "-c", "import time; time.sleep(600)", "exp", "run", "--name", name]
        return subprocess.Popen(words, cwd=folder, start_new_session=True)

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    ours = [start(name, study.root) for name in ("tune-toy-0123abcd-0", "tune-toy-best-0123abcd")]
    others = [start("tune-toy2-0123abcd-0", study.root), start("tune-toy-0123abcd-0", elsewhere)]
    try:
        trials.end_leftovers(study)
        assert all(process.wait(5) is not None for process in ours)
        assert all(process.poll() is None for process in others)
    finally:
        for process in (*ours, *others):
            process.kill()
            process.wait()


def test_numbers_that_are_not_what_their_name_says_are_refused(study, monkeypatch):
    monkeypatch.setattr(revision, "reader", lambda name, root: lambda path: "{}")
    monkeypatch.setattr(revision, "key", lambda read, overrides: "other000")
    with pytest.raises(IntegrityError, match="made from other data, code or parameters"):
        trials.read_score(study, Experiment("tune-toy-00000000-0", {}, "00000000"))
