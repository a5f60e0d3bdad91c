"""The processes that decode: what kills one costs one file; none can start; one starts while the others are closed."""

import os
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from brainseg.errors import BrainsegError, DataError, MachineError, RunError
from brainseg.inference import cases, decoding
from brainseg.inference.decoding import Decoders
from tests.support import itk_files
from tests.support.dicom_series import save_series
from tests.support.fake_outliner import heads
from tests.support.nifti_files import LPS, ORIENTATIONS, nifti
from tests.support.server_fixture import encoded, head

ROOT = Path(__file__).parents[2]


@contextmanager
def one(seconds=lambda size: 20.0, module=decoding.WORKER):
    decoders = Decoders(1, seconds, module)
    try:
        yield decoders
    finally:
        decoders.close()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(head()))
    return path


def end_the_idle(decoders: Decoders) -> None:
    (worker,) = decoders._all
    worker._process.kill()
    worker._process.wait()


def test_a_process_that_ended_while_idle_is_not_the_next_files_fault(picture):
    with one() as decoders:
        end_the_idle(decoders)
        assert decoders.read(picture, "file").voxels.shape == (1, 64, 64)
        assert len(decoders._all) == 1


def test_if_no_process_can_start_nothing_waits_for_one(picture, monkeypatch):
    def none(module):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with one() as decoders:
        monkeypatch.setattr(decoding, "Worker", none)
        end_the_idle(decoders)
        began = time.monotonic()
        with pytest.raises(MachineError, match="cannot decode any more"):
            decoders.read(picture, "file")
        assert time.monotonic() - began < 5
        assert not decoders.alive  # /ready reports it


def test_a_process_that_starts_while_the_others_are_closed_is_ended_too():
    decoders = Decoders(0, float)
    decoders.close()
    late = decoders._start()
    decoders._add_when_ready(late)
    assert not late.runs


def test_what_comes_out_is_what_reading_it_here_gives(tmp_path):
    given = [
        nifti(tmp_path / "a.nii.gz", heads(4).astype(np.int16), ORIENTATIONS[5]),
        nifti(tmp_path / "b.nii", np.stack([heads(3)] * 3, axis=-1)),
        save_series(tmp_path / "series", heads(4).astype(np.uint16))[0].parent,
        *(itk_files.write(tmp_path / name, heads(4).astype(np.int16).T, LPS) for name in ("c.nhdr", "d.mha")),
    ]
    with one() as decoders:
        for path in given:
            found, expected = decoders.read(path, "x"), cases.read(path, "x")
            np.testing.assert_array_equal(found.voxels, expected.voxels)
            assert found.voxels.dtype == expected.voxels.dtype and found.volume.spacing == expected.volume.spacing
            np.testing.assert_array_equal(found.volume.geometry.affine, expected.volume.geometry.affine)
            assert found.volume.geometry.shape == expected.volume.geometry.shape
            assert (found.name, found.kind, found.channels) == (expected.name, expected.kind, expected.channels)


FATES = {
    "kill": (DataError, "crashed the process that decodes it"),
    "hang": (RunError, "takes more than 1.0 s to decode"),
    "fill": (RunError, "needs more memory than it may use"),
    "recurse": (DataError, "is damaged, cut short, or not what its name says (RecursionError)"),
    "missing": (DataError, "does not exist, or is no file"),
}


def test_a_codec_that_dies_is_named_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
    name = b"1.2.840.10008.1.2.4.90"
    (tmp_path / "kill").mkdir()
    head = bytes(128) + b"DICM\x02\0\x10\0UI" + len(name).to_bytes(2, "little") + name
    (tmp_path / "kill/1.dcm").write_bytes(head)
    with one(module="tests.support.dying_worker") as decoders, pytest.raises(BrainsegError) as caught:
        decoders.read(tmp_path / "kill", "his")
    [problem] = caught.value.problems
    assert (problem.path, caught.value.code) == ("his", 2) and "(JPEG 2000 Image Compression" in problem.what
    assert "gdcmconv --raw IN OUT" in problem.fix


def test_whatever_a_file_does_costs_it_alone(tmp_path, picture, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
    hanging = 10 + picture.stat().st_size
    with one(lambda size: 1.0 if size == hanging else 30.0, "tests.support.dying_worker") as decoders:
        for name, (kind, what) in FATES.items():
            path = tmp_path / f"{name}.png"
            if name != "missing":
                path.write_bytes(picture.read_bytes() + bytes(10 * (name == "hang")))
            with pytest.raises(BrainsegError) as caught:
                decoders.read(path, "his.png")
            assert type(caught.value) is kind
            assert [(problem.path, problem.what) for problem in caught.value.problems] == [("his.png", what)]
            assert decoders.read(picture, "next").voxels.shape == (1, 64, 64)
