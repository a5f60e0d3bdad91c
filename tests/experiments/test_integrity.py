"""verify-data: a flipped bit is found in cache, workspace, released weights and model, and can be repaired."""

import re
import subprocess

import pytest

from brainseg.data import inputs
from brainseg.errors import IntegrityError
from brainseg.experiments import integrity
from tests.support import onnx_toy, toy_pipeline
from tests.support.toy_pipeline import flip


@pytest.fixture
def toy(tmp_path):
    return toy_pipeline.create(tmp_path / "toy")


def objects(folder):
    return {path.parent.name + path.name: path for path in folder.rglob("files/md5/*/*")}


def verify(toy, monkeypatch):
    for name in ("HOME", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, toy.environment[name])
    return integrity.run(toy.folder)


def test_whole_data_pass(toy, monkeypatch):
    assert verify(toy, monkeypatch) == "verified 7 objects in the cache, 0 released, 5 of 5 outs: all intact"


@pytest.mark.slow
def test_v3_a_flipped_bit_in_the_cache_is_named_and_built_again(toy, monkeypatch):
    cached = objects(toy.folder / ".dvc/cache")[inputs.md5(toy.folder / "data/images.npy")]
    flip(cached)
    (toy.folder / "data/images.npy").unlink()
    assert toy.dvc("checkout")[0] == 0  # DVC does not notice it
    with pytest.raises(IntegrityError) as error:
        verify(toy, monkeypatch)
    (line,) = [line for line in error.value.lines() if line.startswith("ERROR 4") and ".dvc/cache" in line]
    command = re.search(r"Fix: (rm -f .*?), then", line)[1]
    subprocess.run(command.split(), cwd=toy.folder, check=True)
    assert toy.brainseg("repro")[0] == 0
    assert verify(toy, monkeypatch).endswith("all intact")


def test_v3_a_flipped_bit_in_the_workspace(toy, monkeypatch):
    for name in ("models/unet.weights.h5", "metrics/plots/more/a.png"):
        flip(toy.folder / name)
    with pytest.raises(IntegrityError) as error:
        verify(toy, monkeypatch)
    found = {problem.path.removeprefix(f"{toy.folder}/"): problem.fix for problem in error.value.problems}
    assert set(found) == {"models/unet.weights.h5", "metrics/plots"}
    assert found["metrics/plots"].startswith("git checkout metrics/plots")
    subprocess.run(["rm", "-rf", toy.folder / "models/unet.weights.h5"], check=True)
    toy.dvc("checkout", "models/unet.weights.h5")
    toy.git("checkout", "metrics/plots")
    verify(toy, monkeypatch)


def test_v3_a_flipped_bit_in_the_released_weights(toy, monkeypatch):
    assert toy.dvc("push", *toy_pipeline.MODEL)[0] == 0
    toy.git("add", "weights")
    released = objects(toy.folder / "weights")[inputs.md5(toy.folder / "models/unet.weights.h5")]
    flip(released)
    with pytest.raises(IntegrityError) as error:
        verify(toy, monkeypatch)
    (problem,) = error.value.problems
    assert problem.path == str(released) and problem.fix == f"git checkout {released}"


def test_a_model_that_is_not_its_manifests(toy, monkeypatch):
    (toy.folder / "dvc.lock").unlink()
    flip(toy.folder / "models/unet.weights.h5")
    with pytest.raises(IntegrityError, match=r"unet\.weights\.h5: sha256"):
        verify(toy, monkeypatch)


def test_an_exported_file_that_is_not_what_its_digest_says(toy, monkeypatch):
    flip(onnx_toy.write(toy.folder / "models/unet.onnx"))
    with pytest.raises(IntegrityError, match=r"models/unet\.onnx: is damaged"):
        verify(toy, monkeypatch)


def test_a_damaged_lock_is_told_and_no_bug(toy, monkeypatch):
    monkeypatch.chdir(toy.folder)
    text = (toy.folder / "dvc.lock").read_text()
    (toy.folder / "dvc.lock").write_text(text.replace("md5: ", "md7: ", 1).replace("  md5:", "  md7:", 1))
    with pytest.raises(IntegrityError, match=r"dvc\.lock"):
        integrity.run()
