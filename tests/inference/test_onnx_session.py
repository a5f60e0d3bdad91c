"""Model files of this project open and give probabilities; others are refused."""

import numpy as np
import pytest

from brainseg import files
from brainseg.errors import IntegrityError
from brainseg.inference.onnx_session import Session
from tests.support import onnx_toy


def test_a_file_of_ours_opens_and_answers(tmp_path):
    path = onnx_toy.write(tmp_path / "unet.onnx")
    session = Session(path, threads=1)
    assert (session.side, session.slices, session.channels, session.answers) == (onnx_toy.SIDE, 1, 3, 1)
    assert session.facts == onnx_toy.facts() and session.digest == files.sha256(path)
    images = np.random.default_rng(0).integers(0, 256, (2, onnx_toy.SIDE, onnx_toy.SIDE, 3), np.uint8)
    np.testing.assert_allclose(session.run(images)[..., 0], images[..., 1] / 255, atol=1e-6)


def test_a_missing_model_names_the_way_to_one(tmp_path):
    with pytest.raises(IntegrityError, match="there is no model") as found:
        Session(tmp_path / "unet.onnx")
    assert "make pull" in found.value.problems[0].fix


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: path.write_text("<html>log in</html>"),
        lambda path: onnx_toy.write(path, {}),
        lambda path: onnx_toy.write(path, onnx_toy.facts(format=99)),
        lambda path: onnx_toy.write(path, {"format": 1}),
    ],
)
def test_what_is_no_model_of_ours_is_refused(tmp_path, damage):
    path = onnx_toy.write(tmp_path / "unet.onnx")
    damage(path)
    with pytest.raises(IntegrityError, match="damaged, or no model of this version"):
        Session(path)


@pytest.mark.parametrize("spin", [True, False])
def test_idle_threads_spin_or_sleep_as_was_asked(tmp_path, spin):
    session = Session(onnx_toy.write(tmp_path / "unet.onnx"), threads=1, spin=spin)
    said = session._session.get_session_options().get_session_config_entry("session.intra_op.allow_spinning")
    assert said == str(int(spin))
