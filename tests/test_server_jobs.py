"""The queue of requests: what is left of those that were given up."""

import asyncio
import gc
import threading
import weakref

import pytest

from brainseg import server_limits
from brainseg.server_jobs import Jobs
from brainseg.server_refusals import Refusal


class Upload:
    """Stands for megabytes."""

    def work(self, stopped):
        raise AssertionError("nobody waits for it any more")


async def at_once() -> None:
    """A client that has gone."""


async def never() -> None:
    await asyncio.sleep(60)


def test_an_upload_that_was_given_up_in_the_queue_is_let_go():
    """Also while every thread is at work: else whoever sends and leaves again fills the memory."""
    held = threading.Event()

    async def run() -> None:
        jobs = Jobs()
        busy = [
            asyncio.ensure_future(jobs.run(lambda _: held.wait(30), never)) for _ in range(server_limits.AT_ONCE)
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
