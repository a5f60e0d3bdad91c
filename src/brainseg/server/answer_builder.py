"""The work of one request outside the event loop: decode, check, segment, encode."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from brainseg.errors import MachineError, RunError
from brainseg.inference import cases, chosen_rule, numbered
from brainseg.inference.answers import measurements
from brainseg.inference.decoding import Decoders
from brainseg.server import limits, responses, uploads
from brainseg.server.progress import Progress
from brainseg.server.refusals import Refusal
from brainseg.server.responses import NUMBERS_ALONE, OutlinedCase
from brainseg.server.schema.media_types import DICOM, JSON, NIFTI, PNG
from brainseg.server.schema.wanted import Wanted
from brainseg.server.uploads import FILE, Part


class PredictorLike(Protocol):
    """What the server needs of ``predictor.Predictor``."""

    facts: Mapping[str, Any]

    def prepared(self, voxels: np.ndarray, pixel: tuple[float, float]) -> np.ndarray: ...
    def segment(
        self, voxels: np.ndarray, pixel: tuple[float, float], *, numbers: Sequence[int], name: str,
        progress: Callable[[int, int], object], cancelled: Callable[[], bool],
    ) -> Any: ...  # fmt: skip


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
        self, parts: dict[str, Part], kind: str, wanted: Wanted = NUMBERS_ALONE, *, cancelled: Callable[[], bool],
        progress: Progress | None = None,
    ) -> bytes:  # fmt: skip
        """The bytes of an answer.

        Args:
            parts: the upload's parts by role.
            kind: JSON, PNG, NIFTI or DICOM.
            wanted: what the request asks for.
            cancelled: returns True once nobody waits for the answer.
            progress: is told how far this is.
        """
        progress = progress or Progress()
        given = self._outline(parts, chosen_rule.apply(self.model, wanted.choice), cancelled, progress)
        progress.stage = "answering"
        if kind == PNG:
            return responses.draw_slice(given, wanted.slice)
        if kind == NIFTI:
            with self._temporary_folder() as folder:
                return responses.encode_nifti(given, folder, wanted.probability)
        if kind == DICOM:
            return responses.encode_seg(given)
        assert kind == JSON
        return responses.build_answer(given, wanted).model_dump_json(exclude_unset=True).encode()

    def _outline(
        self, parts: dict[str, Part], model: PredictorLike, cancelled: Callable[[], bool], progress: Progress
    ) -> OutlinedCase:
        """Raises Refusal: what was sent is no case, too large or no head. RunError: nobody waits any more."""
        started = time.perf_counter()
        warnings = [
            *self._check_phantoms(parts),
            *numbered.describe_masks(sum(part.left_out for part in parts.values())),
        ]
        case = self._case(parts)
        if len(case.voxels) > limits.MAX_SLICES:
            what = f"{len(case.voxels):,} slices, at most {limits.MAX_SLICES} are accepted"
            raise Refusal(413, what, "crop or resample the volume")
        progress.slices = len(case.voxels)
        with self._take_turn(progress):
            if cancelled():
                raise RunError("the request", "was cancelled", "send it again")
            progress.outline(0, len(case.voxels))
            verdict = self.judge(model.prepared(case.voxels, case.pixel))
            if verdict.refused:
                raise Refusal(422, "; ".join(verdict.marks), "send axial brain slices, FLAIR or all three sequences")
            answer = model.segment(
                case.voxels, case.pixel, numbers=case.numbers, name=case.name, progress=progress.outline,
                cancelled=cancelled,
            )  # fmt: skip
        warnings += [*chosen_rule.remarks(model.facts), *case.warnings, *verdict.marks]
        seconds = time.perf_counter() - started
        return OutlinedCase(case, answer.mask, answer.probability, model.facts, warnings, seconds)

    @contextmanager
    def _take_turn(self, progress: Progress) -> Iterator[None]:
        """The model alone for the block. Who has to wait for it waits in the queue again, as the first."""
        if not self._turn.acquire(blocking=False):
            progress.stage = "waiting"
            self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()

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
