"""From an array to its outline: prepared, predicted and cleaned as in the pipeline, then resized to its own grid."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainseg.errors import DataError, RunError
from brainseg.inference import postprocessing, probabilities
from brainseg.inference.onnx_session import Session
from brainseg.inference.probabilities import Calibration
from brainseg.io import grid, intensity
from brainseg.io.grid import SQUARE, PixelSize

BATCH = 8  # windows at once: more are not faster on a CPU


class Segmentation(NamedTuple):
    """``mask`` uint8 in {0, 1} and ``probability`` uint8 in 255ths, both (H, W) or (S, H, W) like the input."""

    mask: np.ndarray
    probability: np.ndarray


class Outliner:
    """A model that outlines images. Safe to call from several threads.

    Attributes:
        facts: the metadata of the file (see ``onnx_session``), digest: its sha256. session: the network.
        cleans_single_slices: small components are removed from slices without neighbours too.
    """

    cleans_single_slices = False

    def __init__(self, path: Path | str, *, threads: int | None = None, spin: bool = True):
        """Open a model. Arguments and errors are those of ``onnx_session.Session``."""
        self.session = Session(Path(path), threads, spin=spin)
        self.facts, self.digest = self.session.facts, self.session.digest
        rule = self.facts["rule"]
        self.rule, self.mirror = postprocessing.read_rule(rule), rule["mirror"]
        self.calibration = Calibration.read(rule)
        self._prepare = self.facts["model"]["preprocess"]

    def segment(
        self, voxels: np.ndarray, pixel: PixelSize = SQUARE, *, numbers: Sequence[int] = (), name: str = "array",
        progress: Callable[[int, int], object] | None = None, cancelled: Callable[[], bool] | None = None,
    ) -> Segmentation:  # fmt: skip
        """Outline one slice or volume.

        Small components are removed from slices that have neighbours: a slice alone keeps all, but see
        ``cleans_single_slices``.

        Args:
            voxels: (H, W), (H, W, 3), (S, H, W) or (S, H, W, 3). A last axis of 3 is pre-contrast, FLAIR and
                post-contrast; a single channel is taken as FLAIR. uint8 is not changed; wider types are scaled by
                the percentiles of the volume.
            pixel: height and width in mm.
            numbers: of the slices, ascending; those whose numbers have a gap between them are no neighbours. Without
                them all are, in their order.
            name: what errors call the image.
            progress: called with (slices done, slices in all). cancelled: called between batches.

        Raises:
            DataError: a shape or type that is not accepted.
            RunError: the network's answer is not a number, or ``cancelled`` returned True.
        """
        volume, single = _as_volume(voxels)
        images = self.prepared(volume, pixel)
        probability = self.on_grid(images, name=name, progress=progress, cancelled=cancelled)
        mask = postprocessing.binarise_numbered(probability, self.rule, numbers or range(len(volume)))
        if self.cleans_single_slices:
            for k in _find_lone(numbers or range(len(volume))):
                mask[k : k + 1] = postprocessing.remove_small(mask[k : k + 1], self.rule.min_component)
        removed = (probability >= postprocessing.level(self.rule.threshold)) & ~mask
        kept = np.where(removed, 0, probability)
        shape = (volume.shape[1], volume.shape[2])
        shown = np.stack([grid.resize_back(each, shape, pixel) for each in probability])
        level = postprocessing.level(self.rule.threshold)
        cleaned = np.stack([grid.resize_back(each, shape, pixel) for each in kept]) >= level
        answer = Segmentation(cleaned.view(np.uint8), shown)
        return Segmentation(answer.mask[0], answer.probability[0]) if single else answer

    def prepared(self, voxels: np.ndarray, pixel: PixelSize = SQUARE) -> np.ndarray:
        """The input of the network, (S, side, side, 3) uint8, for voxels as in ``segment``."""
        volume, _ = _as_volume(voxels)
        shown = [grid.select_channels(each, self._prepare["channels"]) for each in volume]
        if volume.dtype != np.uint8:
            low, high = self._prepare["window"]
            ends = intensity.find_window(shown, (low, high))
            shown = [intensity.to_uint8(each, ends) for each in shown]
        return np.stack([grid.resize_image(each, self.session.side, pixel) for each in shown])

    def on_grid(
        self, images: np.ndarray, *, name: str = "array", progress: Callable[[int, int], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Probabilities (S, side, side) uint8, 255ths, of what ``prepared`` returns: prediction.predict_patients.

        Other arguments and RunError as in ``segment``.
        """

        def name_slice(place: int) -> str:
            return f"{name}, slice {place + 1} of {len(images)}"

        around = windows(len(images), self.session.slices, self.session.answers)
        places = around if self.session.answers > 1 else np.arange(len(images))[:, None]
        total, count = np.zeros(images.shape[:3], np.uint16), np.zeros((len(images), 1, 1), np.uint16)
        for start in range(0, len(around), BATCH):
            if cancelled and cancelled():
                raise RunError("prediction", "was cancelled", "ask again")
            part = slice(start, start + BATCH)
            for window, answer in zip(places[part], self._answers(_stack_windows(images, around[part])), strict=True):
                levels = probabilities.to_255ths(np.moveaxis(answer, -1, 0), window, name_slice)
                for place, row in dict(zip(window[::-1], range(len(window))[::-1], strict=True)).items():
                    total[place] += levels[row]  # of a repeated slice only the first answer counts
                    count[place] += 1
            if progress:
                progress(min(len(images), int(around[part].max()) + 1), len(images))
        return probabilities.calibrate(np.rint(total / count).astype(np.uint8), self.calibration)

    def _answers(self, batch: np.ndarray) -> np.ndarray:
        probability = self.session.run(batch)
        if self.mirror:
            probability = (probability + self.session.run(batch[:, :, ::-1])[:, :, ::-1]) / 2
        return probability


def windows(slices: int, size: int, answers: int) -> np.ndarray:
    """(n, size) indices of the slices that are one input of the network.

    One answer: each slice between its neighbours, the ends repeated. Several: windows that overlap by half and cover
    the volume, the last slice repeated if there are too few: as ``Dataset.windows_around`` and ``Dataset.tiles``.
    """
    reach = np.arange(size)
    if answers == 1:
        return np.clip(np.arange(slices)[:, None] + reach - size // 2, 0, slices - 1)
    starts = [*range(0, slices - size, max(1, size // 2)), max(0, slices - size)]
    return np.minimum(np.array(starts)[:, None] + reach, slices - 1)


def _find_lone(numbers: Sequence[int]) -> np.ndarray:
    """The places of slices whose numbers, ascending, have a gap on both sides."""
    gaps = np.concatenate([[True], np.diff(numbers) != 1, [True]])
    return np.flatnonzero(gaps[:-1] & gaps[1:])


def _stack_windows(images: np.ndarray, around: np.ndarray) -> np.ndarray:
    """(n, H, W, K C): the slices of each window, one after another along the channels."""
    return np.concatenate([images[around[:, k]] for k in range(around.shape[1])], axis=-1)


def _as_volume(voxels: np.ndarray) -> tuple[np.ndarray, bool]:
    """The voxels as (S, H, W) or (S, H, W, 3), and whether they were one slice."""
    single = voxels.ndim == 2 or (voxels.ndim == 3 and voxels.shape[-1] == 3)
    volume = voxels[None] if single else voxels
    if volume.ndim not in (3, 4) or 0 in volume.shape or volume.shape[3:] not in ((), (3,)):
        what = f"has shape {voxels.shape}, must be (H, W), (S, H, W), or either with 3 channels last"
        raise DataError("array", what, "bring its axes into this order")
    if volume.dtype.kind == "f" and volume.dtype != np.float32:
        volume = volume.astype(np.float32)
    if volume.dtype not in (np.uint8, np.uint16, np.int16, np.float32):
        raise DataError("array", f"has {voxels.dtype} values", "give uint8, uint16, int16 or floating-point ones")
    if volume.dtype == np.float32 and not np.isfinite(volume).all():
        raise DataError("array", "holds NaN or infinity", "replace them")
    return volume, single
