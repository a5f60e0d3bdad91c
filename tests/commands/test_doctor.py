"""`brainseg doctor`: one line for each check, PASS or WARN with a remedy, and never a failure."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple

import keras
import pytest

from brainseg import config, files
from brainseg.commands import doctor, timing
from tests.support import run_files, toy_pipeline
from tests.support.engine import THREADS

REMOTES = doctor.remotes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with a model trained on phantoms, on a machine with as many cores as the engine of the tests uses."""
    monkeypatch.setattr(doctor.hardware, "cores", lambda: THREADS)
    monkeypatch.setattr(doctor, "remotes", lambda root: doctor.Finding("remotes", "not asked for"))  # starts DVC
    for name in ("params.yaml", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (toy_pipeline.PROJECT / name).read_text()
        (tmp_path / name).write_text(text)
    (tmp_path / ".git").mkdir()
    (tmp_path / "models").mkdir()
    weights = tmp_path / "models/unet.weights.h5"
    weights.write_bytes(b"weights")
    manifest = run_files.manifest(
        weights_sha256=files.sha256(weights),
        parameters=1234567,
        protocol={
            "source": "phantom",
            "patients": {"train": 20},
            "slices": {"train": 400},
            "marks": ["phantom data"],
        },
    )
    (tmp_path / "models/unet.json").write_text(json.dumps(manifest))
    return tmp_path


def lines(folder):
    return {line.split()[1]: line for line in doctor.run(folder).splitlines()}


def test_a_sound_machine(folder, monkeypatch):
    monkeypatch.setattr(doctor, "remotes", REMOTES)
    found = lines(folder)
    assert list(found) == ["python", "machine", "engine", "disk", "git", "remotes", "tracking", "model"]
    assert found["python"].startswith("PASS")
    assert "tensorflow on cpu" in found["engine"] and "keras 3." in found["engine"]
    assert "weights" in found["remotes"]
    assert found["tracking"].endswith("mlflow.db")
    assert "1,234,567 parameters, trained on phantom (20 patients, 400 slices) with tensorflow" in found["model"]
    assert found["model"].endswith("phantom data")


def test_an_unsupported_python_is_named(folder, monkeypatch):
    version = namedtuple("version", "major minor")
    monkeypatch.setattr(doctor.sys, "version_info", version(3, 14))
    assert "uv python install" in str(doctor.python(folder))


def test_no_model_and_a_changed_one(folder):
    (folder / "models/unet.weights.h5").write_bytes(b"other")
    assert lines(folder)["model"].startswith("WARN") and "sha256" in lines(folder)["model"]
    (folder / "models/unet.json").unlink()
    assert "make pull" in lines(folder)["model"]


def test_a_folder_without_git_is_told_with_the_command_that_helps(folder):
    (folder / ".git").rmdir()
    found = doctor.git(folder)
    assert "is in no Git repository" in found.found and "cross-validate" in found.found
    own = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(found.fix, shell=True, cwd=folder, env=os.environ | own, check=True, capture_output=True)
    assert not doctor.git(folder).fix


def test_a_machine_without_git_is_told_what_does_not_work(folder, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    found = doctor.git(folder)
    assert "only brainseg restore" in found.found and found.fix.startswith("install Git: apt install git")
    (folder / ".git").rmdir()
    found = doctor.git(folder)
    assert "repro, restore" in found.found and found.fix.startswith("install Git") and "then: git init" in found.fix


def test_remotes_are_those_of_every_place_where_dvc_has_settings(folder, monkeypatch):
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(folder / "user"))
    (folder / "user").mkdir()
    (folder / "user/config").write_text("['remote \"mine\"']\n    url = s3://a/b\n")
    (folder / ".dvc/config.local").write_text("['remote \"weights\"']\n    url = /else\n[core]\n    remote = mine\n")
    assert REMOTES(folder).found == "mine, weights"
    (folder / ".dvc/config").unlink()
    (folder / ".dvc/config.local").unlink()
    assert REMOTES(folder).fix == "git checkout .dvc/config"


def test_it_waits_for_no_library_but_the_engine():
    """To import each of these takes longer than all the checks."""
    heavy = "{'pandas', 'scipy', 'mlflow', 'dvc', 'requests', 'matplotlib', 'sklearn'}"
    code = f"import sys; from brainseg.commands import doctor; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_tracking_server_that_is_down(folder, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert "does not answer: ConnectionError" in str(doctor.runs(folder))


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"])
def test_a_tracking_server_that_drips_is_not_waited_for(folder, monkeypatch, begin):
    """Each byte comes in time: of the head of an answer, for which it is given up, or of its body."""
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.3)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")

        def drip():
            with listening.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(begin)
                while not done.wait(0.02):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        start = time.monotonic()
        found = doctor.runs(folder)
        assert time.monotonic() - start < 2
        done.set()
        thread.join(5)
    assert bool(found.fix) == (b"Content" not in begin)
    assert not found.fix or "does not answer: TimeoutError" in found.found


def test_a_misspelt_parameter_is_a_line_too(folder):
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("  engine: tensorflow", "  engin: tensorflow"))
    said = doctor.run(folder)
    assert "WARN" in said and "train.engin is not a parameter (did you mean train.engine?). Fix: write engine" in said


def test_what_a_training_would_choose_and_where_it_would_crawl(folder, monkeypatch):
    monkeypatch.setattr(doctor.hardware, "multiplies_bfloat16", lambda: False)
    assert "PASS" in lines(folder)["engine"] and "float32, 1 thread, oneDNN" in lines(folder)["engine"]
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("precision: auto", "precision: bfloat16"))
    keras.config.set_dtype_policy("float32")
    found = lines(folder)["engine"]
    keras.config.set_dtype_policy("float32")
    assert "WARN" in found and "12 times as long" in found and "set train.precision: auto" in found


@pytest.mark.slow
def test_how_long_a_training_would_take_is_measured(folder, monkeypatch):
    """Three epochs of a tiny network: the time follows from the measured rates."""
    text = (folder / "params.yaml").read_text()
    tiny = {"epochs: 28": "epochs: 3", "filters: 16": "filters: 4", "depth: 4": "depth: 1", "size: 256": "size: 64",
            "batch_size: 16": "batch_size: 4", "  window: 0.75": "  window: 0"}  # fmt: skip
    for old, new in tiny.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "params.yaml").write_text(text)
    (folder / "metrics").mkdir()
    report = run_files.evaluation(protocol={"slices": {"train": 400, "val": 50, "test": 60}})
    (folder / "metrics/evaluation.json").write_text(json.dumps(report))
    monkeypatch.setattr(timing, "MOST", 8)
    found = timing.estimate(config.load(path=folder / "params.yaml"), report["protocol"]["slices"], seconds=5)
    assert 2 <= found.steps <= 8
    expected = 3 * (400 / found.trained + 50 / found.validated) / 60
    assert found.minutes == pytest.approx(expected)
    monkeypatch.setattr(timing, "estimate", lambda *_: found)
    said = str(doctor.training_time(folder))
    assert "PASS" in said and "for 3 epochs of 400 slices" in said and "images/s" in said
