"""A model file answers for its own content: whatever byte of it is another one, it is refused."""

import hashlib
import random

import onnx
import onnxruntime
import pytest

from brainseg import files
from brainseg.errors import IntegrityError
from brainseg.inference import sealed
from brainseg.inference.onnx_session import Session
from tests.support import onnx_toy


@pytest.fixture
def path(tmp_path):
    return onnx_toy.write(tmp_path / "unet.onnx")


def refused(path) -> bool:
    try:
        sealed.read(path)
    except IntegrityError:
        return True
    return False


def test_a_flipped_bit_anywhere_is_refused(path):
    """200 places, and each of the seal itself."""
    whole, drawn = path.read_bytes(), random.Random(26)
    places = [*(drawn.randrange(len(whole)) for _ in range(200)), *range(len(whole) - sealed.SIZE, len(whole))]
    assert not refused(path)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << drawn.randrange(8)
        path.write_bytes(damaged)
        assert refused(path), place


@pytest.mark.parametrize("damage", [lambda w: w[: -sealed.SIZE], lambda w: w[1:], lambda w: w[:-1], lambda w: w + b"x"])
def test_a_file_without_its_seal_is_refused_with_the_way_to_one(path, damage):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityError, match="does not fit the digest at its end") as error:
        Session(path)
    (line,) = error.value.lines()
    assert line.startswith(f"ERROR 4 {path}: ") and "make pull" in line and "dvc repro export" in line


def test_all_that_reads_onnx_finds_the_digest_among_the_metadata(path):
    body = path.read_bytes()[: -sealed.SIZE]
    model = onnx.load(path)
    onnx.checker.check_model(model)
    found = {each.key: each.value for each in model.metadata_props}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == found
    assert found[sealed.KEY] == hashlib.sha256(body).hexdigest() and len(found) == 2
    assert model.SerializeToString() == path.read_bytes()  # whoever saves it again does not lose the seal


def test_what_is_loaded_is_what_was_checked(path, monkeypatch):
    """The file is read once: another one that comes to its place is neither loaded nor named."""
    whole = path.read_bytes()
    start = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: path.unlink() or start(*a, **k))
    session = Session(path, threads=1)
    assert session.facts == onnx_toy.facts() and session.content == whole
    path.write_bytes(whole)
    assert session.digest == files.sha256(path)
