"""From slices to probabilities. All batches have the same shape, so that nothing is compiled twice."""

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
from tqdm import tqdm

from brainseg import files
from brainseg.data.brains import stripping
from brainseg.data.dataset import Changed, Dataset, LazyRows, repeat_flair, stack_channels
from brainseg.errors import RunError
from brainseg.inference import probabilities
from brainseg.io.sequences import FLAIR
from brainseg.models import devices

ZEROS = 2**20  # bytes at a time
NOWHERE = -1  # the place of a row that was not asked for
CALMER = "lower train.learning_rate or set train.precision: float32; the last checkpoint is kept"


class Predictions(NamedTuple):
    """``rows``: (n,) rows of the data set; ``arrays``: name → (n, H, W) uint8, probabilities times 255."""

    rows: np.ndarray
    arrays: dict[str, Any]


class Allocate(Protocol):
    """Make an array of a shape and a type, filled with 0, in memory or on disk."""

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray: ...


def predict_for_evaluation(
    network: keras.Model, data: Dataset, mirror: bool, folder: Path | None = None
) -> Predictions:
    """Predict what evaluation compares on validation and test slices.

    Args:
        folder: holds the arrays, as memory maps, so that memory stays the same however many slices there are; None:
            they are in memory.

    Returns:

        ``model``: the network with its full input; ``one_slice``: with copies of the slice instead of its neighbours;
        ``flair_only``: with FLAIR in all channels; ``stripped``: without scalp, where the brain is known; ``flair``:
        the FLAIR intensities themselves.

    Raises:
        RunError: the network's answer for a slice is not a number.
    """
    rows = data.rows("val", "test")
    allocate: Allocate = np.zeros if folder is None else partial(allocate_on_disk, folder)
    settings: dict[str, Any] = {"mirror": mirror, "allocate": allocate}

    def predict(images: Any, title: str) -> np.ndarray:  # images: the memory map, or what looks like it
        return predict_patients(network, replace(data, images=images), rows, title=title, **settings)

    model = one_slice = predict(data.images, "predict")
    if context_of(network, data.images):
        name = partial(name_slice, data)
        one_slice = predict_slices(network, data.images, rows, title="one slice", name=name, **settings)
    arrays = {
        "model": model,
        "one_slice": one_slice,
        "flair_only": predict(Changed(data.images, repeat_flair), "FLAIR alone"),
        "flair": LazyRows(data.images, rows, FLAIR),
    }
    if stripping.is_known(data, rows):
        arrays["stripped"] = predict(stripping.StrippedImages(data), "without scalp")
    return Predictions(rows, arrays)


def allocate_on_disk(folder: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A memory map of a new file in ``folder``. Zeros are written, so that a full disk is an error and not a signal."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".array", delete=False) as file:
        left = math.prod(shape) * np.dtype(dtype).itemsize
        for start in range(0, left, ZEROS):
            file.write(bytes(min(ZEROS, left - start)))
    return np.memmap(file.name, dtype, "r+", shape=shape)


def write(path: Path, predictions: Predictions) -> None:
    """Write the rows (``row``) and the network's own probabilities into a compressed .npz.

    Those with its full input are called ``probability``, the others as in ``Predictions.arrays``, without intensities
    and without ``one_slice`` where it is the same.
    """
    model = predictions.arrays["model"]
    less: dict[str, Any] = {
        name: each for name, each in predictions.arrays.items() if name != "flair" and each is not model
    }
    with files.replacing(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, row=predictions.rows, probability=model, **less)


def context_of(network: keras.Model, images: np.ndarray) -> int:
    """How many neighbours on either side the input of ``network`` has, for slices of ``images`` (N, H, W, C)."""
    return network.input_shape[-1] // images.shape[-1] // 2


def is_volumetric(network: keras.Model) -> bool:
    """Whether the output has all slices of a window, not only the one in the middle."""
    return network.output_shape[-1] > 1


def validate_batches(
    step: keras.Model, data: Dataset, rows: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yield (rows (b,), their counts (b, 4), loss) batch by batch; each of ``rows``, whole patients, comes once.

    Args:
        step: a ``training_model.ValidationStep``. The last batch is filled up by repeating its slices, which count
            again in its loss.

    Raises:
        RunError: a logit is NaN or infinite.
    """
    context = context_of(step.network, data.images)
    if is_volumetric(step.network):
        windows = data.tiles(rows, context, 2 * context + 1)
        predicted, new = windows, np.isin(windows, rows) & ~_find_repeats(windows.ravel()).reshape(windows.shape)
    else:
        windows, predicted = data.windows_around(rows, context), rows[:, None]
        new = np.ones(predicted.shape, bool)
    masks = _iterate_batches(data.masks[..., None], predicted, batch_size)
    for (part, image), (_, mask) in zip(_iterate_batches(data.images, windows, batch_size), masks, strict=True):
        found = step.predict_on_batch(devices.split_batch({"image": image, "mask": mask}))
        chosen = new[part]
        broken = predicted[part][~found["finite"][: len(chosen)].astype(bool)]
        if len(broken):
            raise RunError(name_slice(data, broken[0]), probabilities.BROKEN, CALMER)
        yield predicted[part][chosen], found["counts"][: len(chosen)][chosen], float(found["loss"][0])


def predict_patients(
    network: keras.Model, data: Dataset, rows: np.ndarray, *, mirror: bool, batch_size: int = 16,
    title: str = "predict", allocate: Allocate = np.zeros,
) -> np.ndarray:  # fmt: skip
    """``predict_slices`` for whole patients; each slice is given to the network with its neighbours.

    The windows of a volumetric network overlap by half. Where several windows predict a slice, the mean is taken.
    """
    context = context_of(network, data.images)
    settings: dict[str, Any] = {"mirror": mirror, "batch_size": batch_size, "title": title}
    name = partial(name_slice, data)
    if not is_volumetric(network):
        around = data.windows_around(rows, context)
        return predict_slices(network, data.images, around, name=name, allocate=allocate, **settings)
    windows = data.tiles(rows, context, max(1, context))
    place = np.full(len(data.images), NOWHERE)
    place[rows] = np.arange(len(rows))
    shape = (len(rows), *data.images.shape[1:3])
    total, count, out = allocate(shape, np.uint16), np.zeros(len(rows), np.uint16), allocate(shape, np.uint8)
    for part, p in _predict_batches(network, data.images, windows, **settings):
        for window, predicted in zip(windows[part], p, strict=True):
            levels = probabilities.to_255ths(np.moveaxis(predicted, -1, 0), window, name)
            for row in np.intersect1d(window, rows):  # a repeated last slice counts once
                total[place[row]] += levels[list(window).index(row)]
                count[place[row]] += 1
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        out[part] = np.rint(total[part] / count[part, None, None])
    return out


def predict_slices(
    network: keras.Model, images: np.ndarray, rows: np.ndarray, *, mirror: bool, batch_size: int = 16,
    title: str = "predict", name: Callable[[int], str] = "row {}".format, allocate: Allocate = np.zeros,
) -> np.ndarray:  # fmt: skip
    """The probability of tumour for each pixel, times 255 and rounded.

    Args:
        images: (N, H, W, C) uint8.
        rows: (n,) slices, each given to the network without neighbours; or (n, K) slices, each between its neighbours.
        mirror: average with the prediction for the slice mirrored left to right.
        title: of the progress bar.
        name: what errors call the slice in a row of ``images``.
        allocate: makes the array that is returned.

    Returns:
        (n, H, W) uint8, ``round(255 * p)``.

    Raises:
        RunError: the network's answer for a slice is not a number.
    """
    rows = np.asarray(rows)
    size = 2 * context_of(network, images) + 1
    windows = np.repeat(rows[:, None], size, 1) if rows.ndim == 1 else rows
    out = allocate((len(rows), *images.shape[1:3]), np.uint8)
    for part, p in _predict_batches(network, images, windows, mirror=mirror, batch_size=batch_size, title=title):
        centres = windows[part][:, size // 2]
        out[part] = probabilities.to_255ths(p[..., p.shape[-1] // 2], centres, name)
    return out


def name_slice(data: Dataset, row: int) -> str:
    """What an error calls the slice in a row of ``data``."""
    place = data.slices.iloc[row]
    return f"patient {place['patient']}, slice {place['slice']}"


def _predict_batches(
    network: keras.Model, images: np.ndarray, windows: np.ndarray, *, mirror: bool, batch_size: int, title: str
) -> Iterator[tuple[slice, np.ndarray]]:  # fmt: skip
    """Yield (slice of ``windows``, probabilities (b, H, W, M)) batch by batch."""
    for part, batch in tqdm(
        _iterate_batches(images, windows, batch_size), total=-(-len(windows) // batch_size), desc=title, unit="batch",
        mininterval=1, leave=False, disable=None,
    ):  # fmt: skip
        p = _sigmoid(network.predict_on_batch(batch))
        if mirror:
            p = (p + _sigmoid(network.predict_on_batch(batch[:, :, ::-1]))[:, :, ::-1]) / 2
        yield part, p[: part.stop - part.start]


def _iterate_batches(images: np.ndarray, windows: np.ndarray, batch_size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (slice of ``windows``, their images); the last batch is filled up to ``batch_size`` by repetition."""
    for start in range(0, len(windows), batch_size):
        part = slice(start, min(start + batch_size, len(windows)))
        yield part, stack_channels(images, np.resize(windows[part], (batch_size, windows.shape[1])))


def _find_repeats(values: np.ndarray) -> np.ndarray:
    """Which entries have occurred before in ``values``."""
    again = np.ones(len(values), bool)
    again[np.unique(values, return_index=True)[1]] = False
    return again


def _sigmoid(x) -> np.ndarray:
    x = np.asarray(x, np.float32)
    p = 0.5 * (1 + np.tanh(0.5 * x))  # does not overflow
    return p if np.isfinite(x).all() else np.where(np.isfinite(x), p, np.nan)  # infinity is no answer either
