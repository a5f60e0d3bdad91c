"""One request's work, off the event loop: decode, judge, segment, encode; few at once, and a bounded number waiting."""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from brainseg.errors import MachineError, RunError
from brainseg.inference import cases, measurements
from brainseg.server import limits, responses, uploads
from brainseg.server.decoding import Decoders
from brainseg.server.refusals import Refusal, busy
from brainseg.server.responses import JSON, NIFTI, PNG, Given
from brainseg.server.uploads import FILE, Part


class Model(Protocol):
    """What is needed of ``predictor.Predictor``."""

    facts: Mapping[str, Any]

    def prepared(self, voxels: np.ndarray, pixel: tuple[float, float]) -> np.ndarray: ...
    def segment(self, voxels: np.ndarray, pixel: tuple[float, float], *, cancelled: Callable[[], bool]) -> Any: ...


class Segmenter:
    """From parts to the body of an answer. Called in threads; the model serves one at a time."""

    def __init__(
        self, model: Model, judge: Callable[[np.ndarray], Any], decoders: Decoders, spool: Path,
        phantoms: Collection[str] = (),
    ):  # fmt: skip
        self.model, self.judge, self.decoders, self.spool = model, judge, decoders, spool
        self._phantoms = phantoms  # SHA-256 of examples that are phantoms
        self._turn = threading.Lock()

    def __call__(
        self, parts: dict[str, Part], kind: str, number: int | None, with_volumes: bool, cancelled: Callable[[], bool]
    ) -> bytes | dict[str, Any]:
        """The bytes of a PNG or a NIfTI file, or what becomes JSON.

        Args:
            parts: by role.
            kind: JSON, PNG or NIFTI.
            number: of the slice of a PNG, from 1.
            with_volumes: whether JSON comes with the volumes for a viewer.
            cancelled: True once nobody waits for the answer.
        """
        began = time.perf_counter()
        warnings = self._of_phantoms(parts)
        case = self._case(parts)
        if len(case.voxels) > limits.MAX_SLICES:
            what = f"{len(case.voxels):,} slices, at most {limits.MAX_SLICES} are accepted"
            raise Refusal(413, what, "crop or resample the volume")
        with self._turn:
            if cancelled():
                raise RunError("the request", "was given up", "send it again")
            verdict = self.judge(self.model.prepared(case.voxels, case.pixel))
            if verdict.refused:
                raise Refusal(422, "; ".join(verdict.marks), "send axial brain slices, FLAIR or all three sequences")
            answer = self.model.segment(case.voxels, case.pixel, cancelled=cancelled)
        warnings += verdict.marks
        given = Given(case, answer.mask, answer.probability, self.model.facts, warnings, time.perf_counter() - began)
        if kind == PNG:
            return responses.picture(given, number)
        if kind == NIFTI:
            with self._folder() as folder:
                return responses.volume(given, folder)
        assert kind == JSON
        body = responses.summary(given)
        return body | {"volumes": responses.viewed(given)} if with_volumes else body

    def _case(self, parts: dict[str, Part]) -> cases.Case:
        found = {}
        for role, part in parts.items():
            with self._folder() as folder, uploads.spooled(part, folder / role) as path:
                found[role] = self.decoders.read(path, part.kind, role, part.size)
        return found[FILE] if FILE in found else cases.combined(found, "the upload")

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """One for the block alone. Raises MachineError: it is full, or somebody cleared it away."""
        try:
            with TemporaryDirectory(dir=self.spool) as folder:
                yield Path(folder)
        except OSError as error:
            what = f"has no place for what is being decoded ({error.strerror})"
            raise MachineError(
                "the server", what, "free space where it keeps temporary files, or start it anew"
            ) from None

    def _of_phantoms(self, parts: dict[str, Part]) -> list[str]:
        if not measurements.is_of_phantoms(self.model.facts):
            return []
        digests = set()
        for part in parts.values():
            for file in part.files:
                digests.add(file_digest(file, "sha256").hexdigest())  # type: ignore[arg-type]
                file.seek(0)
        if not digests <= set(self._phantoms):
            what = "is none of the phantom examples, and this model, trained on drawn phantoms, answers nothing else"
            raise Refusal(422, what, "pick an example, or take the real model: make pull, then make serve")
        return [measurements.PHANTOM]


class Jobs:
    """Threads for the work, and the queue before them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(limits.AT_ONCE, "segment")
        self._inside = 0  # waiting or in work; of the event loop's thread alone
        self._running: set[threading.Event] = set()

    @property
    def is_full(self) -> bool:
        return self._inside >= limits.AT_ONCE + limits.MAX_WAITING

    async def run(self, work: Callable[[Callable[[], bool]], Any], gone: Callable[[], Coroutine]) -> Any:
        """What ``work`` returns; it is given a function that is True once it is of no use any more.

        Args:
            work: called in a thread when it is its turn.
            gone: waits until the client has gone.

        Raises:
            Refusal: the queue is full, or it takes too long.
        """
        if self.is_full:
            raise busy()
        stop = threading.Event()
        self._inside += 1
        self._running.add(stop)
        due = [work]  # with the upload in it; the pool keeps what was cancelled until a thread is free
        job = self._threads.submit(lambda: due.pop()(stop.is_set))
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda _: due.clear())
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._left, stop))
        left = asyncio.ensure_future(gone())
        answer = asyncio.wrap_future(job)
        try:
            await asyncio.wait({answer, left}, timeout=limits.JOB_SECONDS, return_when="FIRST_COMPLETED")
            if answer.done():
                return answer.result()
            raise Refusal(503, "it took too long, or the client has gone", "send less at once", code=5,
                          headers={"Retry-After": str(limits.RETRY_AFTER)})  # fmt: skip
        finally:
            left.cancel()
            _stop(stop, job, answer)

    def close(self) -> None:
        for stop in self._running:
            stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _left(self, stop: threading.Event) -> None:
        self._inside -= 1
        self._running.discard(stop)


def _stop(stop: threading.Event, job: Future, answer: asyncio.Future) -> None:
    """Where it is still waiting it never begins; where it runs, it ends at its next look."""
    if not answer.done():
        stop.set()
        job.cancel()
        answer.cancel()
