"""One line of Python from a path to an outline, without an engine for training."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from brainseg.errors import RunError
from brainseg.inference.predictor import Predictor
from brainseg.server import serve
from tests.support import nifti_files, onnx_toy


def test_a_path_an_array_and_a_string_are_answered_alike(tmp_path):
    predictor = Predictor(onnx_toy.write(tmp_path / "unet.onnx"))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask, probability = predictor(tmp_path / "a.png")
    assert mask.shape == probability.shape == (20, 30)
    assert probability.dtype == np.float32 and 0 <= probability.min() < probability.max() <= 1
    for given in (str(tmp_path / "a.png"), pixels):
        again = predictor(given)
        assert (again[0] == mask).all() and (again[1] == probability).all()


def test_an_answer_that_is_no_number_names_the_file(tmp_path, monkeypatch):
    predictor = Predictor(onnx_toy.write(tmp_path / "unet.onnx"))
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(predictor.session, "run", lambda images: np.full((*images.shape[:3], 1), np.nan, np.float32))
    for given, name in ((tmp_path / "a.png", str(tmp_path / "a.png")), (np.zeros((20, 30), np.uint8), "array")):
        with pytest.raises(RunError) as caught:
            predictor(given)
        assert caught.value.problems[0].path == f"{name}, slice 1 of 1"


def test_a_volume_is_answered_slice_by_slice(tmp_path):
    predictor = Predictor(onnx_toy.write(tmp_path / "unet.onnx"))
    (tmp_path / "a.nii").write_bytes(nifti_files.encode(np.zeros((10, 12, 9), np.int16)))
    mask, probability = predictor(tmp_path / "a.nii")
    assert mask.ndim == 3 and mask.shape == probability.shape and not mask.any()


def spins(predictor: Predictor) -> str:
    options = predictor.session._session.get_session_options()
    return options.get_session_config_entry("session.intra_op.allow_spinning")


def test_threads_spin_here_and_sleep_in_the_server(tmp_path, monkeypatch):
    path, served = onnx_toy.write(tmp_path / "unet.onnx"), []
    assert spins(Predictor(path)) == "1"
    monkeypatch.setattr(serve, "create_app", lambda model, *_: served.append(model))
    monkeypatch.setattr(serve, "_start_logging", lambda _: None)
    monkeypatch.setattr(serve.model_card, "parse_facts", lambda *_: None)
    monkeypatch.setattr(serve.model_card, "render_markdown", lambda _: "")
    monkeypatch.setattr(serve, "server_of", lambda _: SimpleNamespace(run=lambda _: None))
    serve.run("127.0.0.1", 0, path)
    assert [spins(model) for model in served] == ["0"]


def test_nothing_of_training_is_imported(tmp_path):
    """What the extra `serve` does not install must not be imported."""
    onnx_toy.write(tmp_path / "unet.onnx")
    left_out = "tensorflow keras jax torch mlflow dvc pandas scipy sklearn matplotlib onnx jinja2"
    code = (
        "import sys, numpy; from brainseg.inference.predictor import Predictor; "
        f"Predictor({str(tmp_path / 'unet.onnx')!r})(numpy.zeros((40, 40), numpy.uint8)); "
        f"print([name for name in {left_out!r}.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
