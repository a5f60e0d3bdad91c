"""The queue of requests, and the threads that work on them."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from brainseg.server import limits
from brainseg.server.progress import Progress
from brainseg.server.refusals import Refusal, busy, client_left

FIRST_PACE = 0.5  # seconds, before anything was answered
NEWEST = 0.1  # how much a request counts in the mean


class Jobs:
    """The threads that do the work, and the queue in front of them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(limits.AT_ONCE, "segment")
        # Waiting or in work, in the order in which they came; only the event loop's thread changes it.
        self._inside: dict[threading.Event, Progress] = {}
        self._pace = FIRST_PACE  # seconds from one to the next, a mean of which the latest count most

    def check_room(self) -> None:
        """Raises Refusal: too many requests wait, or the last of them would wait too long."""
        waiting = len(self._inside) - limits.AT_ONCE
        if waiting >= limits.MAX_WAITING or waiting * self._pace > limits.MAX_WAIT_SECONDS:
            raise busy(clear_in=len(self._inside) * self._pace)

    @property
    def waiting(self) -> list[Progress]:
        """In the order in which their turn comes."""
        return [each for each in self._inside.values() if each.stage == "waiting"]

    @property
    def working(self) -> int:
        return len(self._inside) - len(self.waiting)

    def find_place(self, progress: Progress) -> int | None:
        """The place in the queue, from 1; None for one that does not wait."""
        waiting = self.waiting
        return waiting.index(progress) + 1 if progress in waiting else None

    async def run(
        self, work: Callable[[Callable[[], bool]], Any], gone: Callable[[], Coroutine], progress: Progress | None = None
    ) -> Any:
        """Run ``work`` in a thread and return its result.

        Args:
            work: its argument is a function that returns True once the result is not needed any more.
            gone: waits until the client has disconnected.
            progress: is told when the request waits and when its turn has come.

        Raises:
            Refusal: the queue is full, the work takes too long, or the client has disconnected.
        """
        self.check_room()
        stop, progress = threading.Event(), progress or Progress()
        progress.stage = "waiting"
        self._inside[stop] = progress
        due = [work]  # it refers to the upload, and the pool keeps a cancelled job until a thread is free

        def begin() -> Any:
            progress.stage = "reading"
            started = time.monotonic()
            try:
                return due.pop()(stop.is_set)
            finally:
                self._learn(time.monotonic() - started, cut_short=stop.is_set())

        job = self._threads.submit(begin)
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda _: due.clear())
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave, stop))
        left = asyncio.ensure_future(gone())
        answer = asyncio.wrap_future(job)
        try:
            await asyncio.wait({answer, left}, timeout=limits.JOB_SECONDS, return_when="FIRST_COMPLETED")
            if answer.done():
                return answer.result()
            if left.done():
                raise client_left()
            raise Refusal(503, "it took too long", "send less at once", code=5,
                          headers={"Retry-After": str(int(limits.RETRY_AFTER))})  # fmt: skip
        finally:
            left.cancel()
            _stop(stop, job, answer)

    def _learn(self, seconds: float, cut_short: bool) -> None:
        """Also from a failure. One that was ended early would have taken at least as long."""
        pace = seconds / limits.AT_ONCE
        if pace > self._pace or not cut_short:
            self._pace += NEWEST * (pace - self._pace)

    def _leave(self, stop: threading.Event) -> None:
        """Once nobody is left the next ones need not be like the last."""
        del self._inside[stop]
        if not self._inside:
            self._pace = FIRST_PACE

    def close(self) -> None:
        for stop in self._inside:
            stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)


def _stop(stop: threading.Event, job: Future, answer: asyncio.Future) -> None:
    """A waiting job never starts; a running job ends when it next checks ``stop``."""
    if not answer.done():
        stop.set()
        job.cancel()
        answer.cancel()
