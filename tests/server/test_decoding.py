"""The processes that decode: one dies while idle, no new one can start, one starts while the server closes."""

import os
import time
from contextlib import contextmanager

import pytest

from brainseg.errors import MachineError
from brainseg.server import decoding
from brainseg.server.decoding import Decoders
from tests.support.server_fixture import encoded, head


@contextmanager
def one():
    decoders = Decoders(dict(os.environ), 1)
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
        assert decoders.read(picture, "png", "file", 1).voxels.shape == (1, 64, 64)
        assert len(decoders._all) == 1


def test_if_no_process_can_start_nothing_waits_for_one(picture, monkeypatch):
    def none(environment):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with one() as decoders:
        monkeypatch.setattr(decoding, "Worker", none)
        end_the_idle(decoders)
        began = time.monotonic()
        with pytest.raises(MachineError, match="cannot decode any more"):
            decoders.read(picture, "png", "file", 1)
        assert time.monotonic() - began < 5
        assert not decoders.alive  # /ready reports it


def test_a_process_that_starts_while_the_others_are_closed_is_ended_too():
    decoders = Decoders(dict(os.environ), 0)
    decoders.close()
    late = decoders._start()
    decoders._add_when_ready(late)
    assert not late.runs
