"""The work of one request outside the event loop: decode, check, segment, encode; and the queue of requests."""

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
from brainseg.inference import cases, chosen_rule
from brainseg.inference.answers import measurements
from brainseg.inference.chosen_rule import RuleChoice
from brainseg.inference.decoding import Decoders
from brainseg.server import limits, responses, uploads
from brainseg.server.refusals import Refusal, busy
from brainseg.server.responses import DICOM, JSON, NIFTI, PNG, OutlinedCase
from brainseg.server.uploads import FILE, Part

NO_CHOICE = RuleChoice()


class PredictorLike(Protocol):
    """What the server needs of ``predictor.Predictor``."""

    facts: Mapping[str, Any]

    def prepared(self, voxels: np.ndarray, pixel: tuple[float, float]) -> np.ndarray: ...
    def segment(
        self, voxels: np.ndarray, pixel: tuple[float, float], *, name: str, cancelled: Callable[[], bool]
    ) -> Any: ...


def decode_seconds(size: int) -> float:
    """How long decoding an upload of so many bytes may take."""
    return limits.DECODE_SECONDS + size / limits.DECODE_RATE


class AnswerBuilder:
    """Turn an upload into the body of an answer. Called from threads; the model works on one request at a time."""

    def __init__(
        self, model: PredictorLike, judge: Callable[[np.ndarray], Any], decoders: Decoders, spool: Path,
        phantoms: Collection[str] = (),
    ):  # fmt: skip
        self.model, self.judge, self.decoders, self.spool = model, judge, decoders, spool
        self._phantoms = phantoms  # SHA-256 of the examples that are phantoms
        self._turn = threading.Lock()

    def __call__(
        self, parts: dict[str, Part], kind: str, number: int | None, with_volumes: bool, cancelled: Callable[[], bool],
        choice: RuleChoice = NO_CHOICE, with_probability: bool = False,
    ) -> bytes | dict[str, Any]:  # fmt: skip
        """The bytes of a PNG, NIfTI or DICOM file, or a dict for JSON.

        Args:
            parts: the upload's parts by role.
            kind: JSON, PNG, NIFTI or DICOM.
            number: the slice that a PNG shows, counted from 1.
            with_volumes: whether JSON contains the volumes for a viewer.
            cancelled: returns True once nobody waits for the answer.
            choice: of another rule than the model's.
            with_probability: whether a NIfTI file has the probabilities instead of the mask.
        """
        given = self._outline(parts, chosen_rule.apply(self.model, choice), cancelled)
        if kind == PNG:
            return responses.draw_slice(given, number)
        if kind == NIFTI:
            with self._temporary_folder() as folder:
                return responses.encode_nifti(given, folder, with_probability)
        if kind == DICOM:
            return responses.encode_seg(given)
        assert kind == JSON
        body = responses.build_summary(given)
        return body | {"volumes": responses.encode_volumes(given)} if with_volumes else body

    def _outline(self, parts: dict[str, Part], model: PredictorLike, cancelled: Callable[[], bool]) -> OutlinedCase:
        """Raises Refusal: what was sent is no case, too large or no head. RunError: nobody waits any more."""
        started = time.perf_counter()
        warnings = self._check_phantoms(parts)
        case = self._case(parts)
        if len(case.voxels) > limits.MAX_SLICES:
            what = f"{len(case.voxels):,} slices, at most {limits.MAX_SLICES} are accepted"
            raise Refusal(413, what, "crop or resample the volume")
        with self._turn:
            if cancelled():
                raise RunError("the request", "was cancelled", "send it again")
            verdict = self.judge(model.prepared(case.voxels, case.pixel))
            if verdict.refused:
                raise Refusal(422, "; ".join(verdict.marks), "send axial brain slices, FLAIR or all three sequences")
            answer = model.segment(case.voxels, case.pixel, name=case.name, cancelled=cancelled)
        warnings += [*chosen_rule.remarks(model.facts), *case.warnings, *verdict.marks]
        seconds = time.perf_counter() - started
        return OutlinedCase(case, answer.mask, answer.probability, model.facts, warnings, seconds)

    def _case(self, parts: dict[str, Part]) -> cases.Case:
        found = {}
        for role, part in parts.items():
            with self._temporary_folder() as folder, uploads.spool(part, folder / role) as path:
                try:
                    found[role] = self.decoders.read(path, role, part.kind)
                except RunError as error:  # it takes too much memory or time
                    what, fix = str(error), error.problems[0].fix
                    raise Refusal(413, what, fix) from None
        return found[FILE] if FILE in found else cases.combine(found, "the upload")

    @contextmanager
    def _temporary_folder(self) -> Iterator[Path]:
        """A temporary folder for the block. Raises MachineError: the disk is full, or the spool folder was removed."""
        try:
            with TemporaryDirectory(dir=self.spool) as folder:
                yield Path(folder)
        except OSError as error:
            what = f"has no place for what is being decoded ({error.strerror})"
            raise MachineError("the server", what, "free space where it keeps temporary files, or restart it") from None

    def _check_phantoms(self, parts: dict[str, Part]) -> list[str]:
        if not measurements.is_of_phantoms(self.model.facts):
            return []
        digests = set()
        for part in parts.values():
            for file in part.files:
                digests.add(file_digest(file, "sha256").hexdigest())  # type: ignore[arg-type]
                file.seek(0)
        if not digests <= set(self._phantoms):
            what = "is none of the phantom examples, and this model was trained on drawn phantoms only"
            raise Refusal(422, what, "choose an example, or use the real model: make pull, then make serve")
        return [measurements.PHANTOM_WARNING]


class Jobs:
    """The threads that do the work, and the queue in front of them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(limits.AT_ONCE, "segment")
        self._inside = 0  # requests waiting or in work; only the event loop's thread uses it
        self._running: set[threading.Event] = set()

    @property
    def is_full(self) -> bool:
        return self._inside >= limits.AT_ONCE + limits.MAX_WAITING

    async def run(self, work: Callable[[Callable[[], bool]], Any], gone: Callable[[], Coroutine]) -> Any:
        """Run ``work`` in a thread and return its result.

        Args:
            work: its argument is a function that returns True once the result is not needed any more.
            gone: waits until the client has disconnected.

        Raises:
            Refusal: the queue is full, the work takes too long, or the client has disconnected.
        """
        if self.is_full:
            raise busy()
        stop = threading.Event()
        self._inside += 1
        self._running.add(stop)
        due = [work]  # it refers to the upload, and the pool keeps a cancelled job until a thread is free
        job = self._threads.submit(lambda: due.pop()(stop.is_set))
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda _: due.clear())
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._forget, stop))
        left = asyncio.ensure_future(gone())
        answer = asyncio.wrap_future(job)
        try:
            await asyncio.wait({answer, left}, timeout=limits.JOB_SECONDS, return_when="FIRST_COMPLETED")
            if answer.done():
                return answer.result()
            raise Refusal(503, "it took too long, or the client has disconnected", "send less at once", code=5,
                          headers={"Retry-After": str(limits.RETRY_AFTER)})  # fmt: skip
        finally:
            left.cancel()
            _stop(stop, job, answer)

    def close(self) -> None:
        for stop in self._running:
            stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _forget(self, stop: threading.Event) -> None:
        self._inside -= 1
        self._running.discard(stop)


def _stop(stop: threading.Event, job: Future, answer: asyncio.Future) -> None:
    """A waiting job never starts; a running job ends when it next checks ``stop``."""
    if not answer.done():
        stop.set()
        job.cancel()
        answer.cancel()
