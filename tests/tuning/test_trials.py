"""A training that is started, watched and stopped, with a script in place of DVC; and what a name promises."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from brainseg.errors import IntegrityError, MachineError, RunError
from brainseg.experiments import revision
from brainseg.tuning import trials
from brainseg.tuning.trials import Experiment, Study

LINE = "epoch {}/9  loss 0.41  validation volume Dice 0.{}12 (best 0.821 in 2)  47 images/s  12 min left"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Trainings are ``script.py``, which is written by each test; ``dvc exp run`` becomes a call of it."""
    monkeypatch.setattr(trials.repro, "environment", lambda: {**os.environ, "PYTHONPATH": str(tmp_path)})
    (tmp_path / "dvc.py").write_text("import runpy; runpy.run_path('script.py')\n")
    return Study("toy", tmp_path, 5, 1)


def train(study, script, watch=lambda epoch, dice: False):
    (study.root / "script.py").write_text(script)
    return trials._train(study, Experiment("tune-toy-00000000-0", {"train": {"seed": 2}}, "00000000"), watch, {})


def test_every_epoch_is_told_and_all_is_kept_in_the_log(study):
    told = []
    script = f"print({LINE.format(1, 5)!r}); print('other'); print({LINE.format(2, 6)!r})"

    def watch(*each):
        told.append(each)
        return False

    assert train(study, script, watch) is False
    assert told == [(1, 0.512), (2, 0.612)]
    log = (study.state / "tune-toy-00000000-0.log").read_text()
    assert log.startswith("+ dvc --wait-for-lock exp run --temp --name tune-toy-00000000-0 -S train.seed=2")
    assert "other" in log


def test_a_training_that_falls_behind_is_ended_with_all_that_it_started(study):
    """Its checkpoints go too, since nobody will go on from them."""
    script = (
        "import os, subprocess, sys, time, pathlib\n"
        "pathlib.Path(os.environ['BRAINSEG_CHECKPOINTS']).mkdir(parents=True)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        f"print({LINE.format(3, 1)!r}, flush=True)\n"
        "time.sleep(600)\n"
    )
    begin = time.monotonic()
    assert train(study, script, lambda epoch, dice: True) is True
    assert time.monotonic() - begin < trials.GRACE + 30
    child = int((study.root / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert not (study.state / "tune-toy-00000000-0").exists()


def test_a_fault_of_the_parameters_is_told_from_one_of_the_machine(study):
    with pytest.raises(RunError, match=r"train\.loss: the loss is nan"):
        train(study, "import sys; print('ERROR 5 train.loss: the loss is nan. Fix: x'); sys.exit(255)")
    with pytest.raises(MachineError, match="ended with code 255"):
        train(study, "import sys; print('ERROR 3 data: disk is full. Fix: x'); sys.exit(255)")
    with pytest.raises(MachineError, match="ended with code -9"):
        train(study, "import os; os.kill(os.getpid(), 9)")


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
