"""One line of Python from a path to an outline, without an engine for training."""

import subprocess
import sys

import numpy as np
from PIL import Image

from brainseg.predictor import Predictor
from tests import onnx_toy, test_nifti


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


def test_a_volume_is_answered_slice_by_slice(tmp_path):
    predictor = Predictor(onnx_toy.write(tmp_path / "unet.onnx"))
    (tmp_path / "a.nii").write_bytes(test_nifti.encode(np.zeros((10, 12, 9), np.int16)))
    mask, probability = predictor(tmp_path / "a.nii")
    assert mask.ndim == 3 and mask.shape == probability.shape and not mask.any()


def test_nothing_of_training_is_imported(tmp_path):
    """What the extra `serve` leaves out must not be asked for."""
    onnx_toy.write(tmp_path / "unet.onnx")
    left_out = "tensorflow keras jax torch mlflow dvc pandas scipy sklearn matplotlib onnx jinja2"
    code = (
        "import sys, numpy; from brainseg.predictor import Predictor; "
        f"Predictor({str(tmp_path / 'unet.onnx')!r})(numpy.zeros((40, 40), numpy.uint8)); "
        f"print([name for name in {left_out!r}.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
