"""The work of a request: a cancelled one frees its memory, and a full disk is reported."""

import asyncio
import errno
import gc
import io
import shutil
import threading
import time
import weakref
from contextlib import suppress

import pytest

from brainseg.errors import MachineError
from brainseg.server import jobs as jobs_module
from brainseg.server import limits, refusals, uploads
from brainseg.server.answer_builder import AnswerBuilder
from brainseg.server.jobs import Jobs
from brainseg.server.refusals import Refusal, busy
from brainseg.server.uploads import Part
from tests.support.server_fixture import Model, encoded, head


class Upload:
    """Stands for an upload of megabytes."""

    def work(self, stopped):
        raise AssertionError("nobody waits for it any more")


async def at_once() -> None:
    """A client that has disconnected."""


async def never() -> None:
    await asyncio.sleep(60)


def test_an_upload_that_is_cancelled_in_the_queue_is_freed():
    """Also while every thread is busy. Else clients that send and disconnect fill the memory."""
    held = threading.Event()

    async def run() -> None:
        jobs = Jobs()
        busy = [
            asyncio.ensure_future(jobs.run(lambda _: held.wait(30), never)) for _ in range(limits.AT_ONCE)
        ]  # fmt: skip
        try:
            await asyncio.sleep(0.05)
            upload = Upload()
            seen = weakref.ref(upload)
            with pytest.raises(Refusal):
                await jobs.run(upload.work, at_once)
            del upload
            await asyncio.sleep(0)
            gc.collect()
            assert seen() is None
        finally:
            held.set()
            await asyncio.gather(*busy)
            jobs.close()

    asyncio.run(run())


def test_of_requests_that_take_long_fewer_wait(monkeypatch):
    """The last of 64 volumes would else be told after minutes that it took too long."""
    monkeypatch.setattr(limits, "MAX_WAIT_SECONDS", 1.0)
    monkeypatch.setattr(refusals.random, "random", lambda: 0.5)  # the next test is about how the answers are spread

    def fail(stopped):
        time.sleep(0.05)
        raise ValueError

    def wait_until_stopped(stopped):
        while not stopped():
            time.sleep(0.005)

    async def leave_early() -> None:
        await asyncio.sleep(0.01)

    async def count(work, gone=never, then_empty: bool = False) -> int:
        """How many are let in once some were done, while another one is inside or until all have gone."""
        jobs, held, tasks = Jobs(), threading.Event(), []
        first = asyncio.ensure_future(jobs.run(lambda _: held.wait(30), never))
        try:
            for _ in range(60):
                with suppress(ValueError, Refusal):
                    await jobs.run(work, gone)
            await asyncio.sleep(0.05)
            if then_empty:
                held.set()
                await first
                await asyncio.sleep(0.05)
                held.clear()
                first = asyncio.ensure_future(jobs.run(lambda _: held.wait(30), never))
            while True:
                tasks.append(asyncio.ensure_future(jobs.run(lambda _: held.wait(30), never)))
                await asyncio.sleep(0)
                if tasks[-1].done():
                    assert 1 <= int(tasks.pop().exception().headers["Retry-After"]) <= 2
                    return len(tasks) + 1
        finally:
            held.set()
            await asyncio.gather(first, *tasks)
            jobs.close()

    def slow(stopped):
        time.sleep(0.05)

    unknown = limits.AT_ONCE + int(limits.MAX_WAIT_SECONDS / jobs_module.FIRST_PACE) + 1
    assert asyncio.run(count(lambda _: None)) == limits.AT_ONCE + limits.MAX_WAITING
    assert unknown < asyncio.run(count(slow)) < 60
    assert unknown < asyncio.run(count(fail)) < 60  # a failure takes its time, too
    assert asyncio.run(count(wait_until_stopped, leave_early)) == unknown  # how long it would have taken is not known
    assert asyncio.run(count(slow, then_empty=True)) == unknown  # the next ones may be others


def test_refused_clients_do_not_all_come_back_at_the_same_moment():
    told = [int(busy(clear_in=10.0).headers["Retry-After"]) for _ in range(300)]
    assert set(told) == set(range(1, 11))
    assert max(int(busy(clear_in=1e9).headers["Retry-After"]) for _ in range(300)) <= 30


@pytest.mark.parametrize("fault", ["full", "gone"])
def test_if_an_upload_cannot_be_stored_the_server_says_so(tmp_path, monkeypatch, fault):
    """It is neither a bug nor a fault of the file."""

    def full(source, target, length):
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/place")

    spool = tmp_path / "spool"
    spool.mkdir()
    if fault == "full":
        monkeypatch.setattr(uploads.shutil, "copyfileobj", full)
    else:
        shutil.rmtree(spool)  # systems remove old temporary files
    data = encoded(head())
    build = AnswerBuilder(Model(), judge=None, decoders=None, spool=spool)
    with pytest.raises(MachineError, match="has no place for what is being decoded") as caught:
        build({"file": Part("png", [io.BytesIO(data)], len(data))}, "application/json", cancelled=lambda: False)
    assert "secret" not in str(caught.value) and not list(tmp_path.glob("spool/*"))
