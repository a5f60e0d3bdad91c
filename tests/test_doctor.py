"""The doctor: a line for each thing, PASS or WARN with the way out, and never a failure."""

import json
import socket
from collections import namedtuple

import pytest

from brainseg import doctor, files
from tests import toy_pipeline


@pytest.fixture
def folder(tmp_path):
    """A project with a model that phantoms have trained."""
    for name in ("params.yaml", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (toy_pipeline.PROJECT / name).read_text().replace("precision: bfloat16", "precision: float32")
        (tmp_path / name).write_text(text)
    (tmp_path / "models").mkdir()
    weights = tmp_path / "models/unet.weights.h5"
    weights.write_bytes(b"weights")
    manifest = {
        "format": 3,
        "weights_sha256": files.sha256(weights),
        "parameters": 1234567,
        "contract": {"size": [32, 32]},
        "protocol": {
            "source": "phantom",
            "patients": {"train": 20},
            "slices": {"train": 400},
            "marks": ["phantom data"],
        },
        "training": {"engine": "tensorflow"},
    }
    (tmp_path / "models/unet.json").write_text(json.dumps(manifest))
    return tmp_path


def lines(folder):
    return {line.split()[1]: line for line in doctor.run(folder).splitlines()}


def test_a_sound_machine(folder):
    found = lines(folder)
    assert list(found) == ["python", "machine", "engine", "disk", "remotes", "tracking", "model"]
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


def test_a_tracking_server_that_is_down(folder, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert "does not answer: ConnectionError" in str(doctor.runs(folder))


def test_a_misspelt_parameter_is_a_line_too(folder):
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("  engine: tensorflow", "  engin: tensorflow"))
    assert "WARN" in doctor.run(folder) and "train.engin is not a parameter. Fix: write engine" in doctor.run(folder)


@pytest.mark.parametrize(("flags", "expected"), [("avx2 fma", False), ("avx512f avx512_bf16", True), (None, True)])
def test_processors_without_bfloat16_are_told(flags, expected, tmp_path):
    path = tmp_path / "cpuinfo"
    if flags:
        path.write_text(f"flags: {flags}\n")
    assert doctor.has_bfloat16(path) == expected
