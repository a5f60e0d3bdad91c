"""Slices to probabilities, with fixed batch shapes so that nothing is compiled twice."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from brainseg import files
from brainseg.data.dataset import Dataset, stacked
from brainseg.io.sequences import FLAIR

NOWHERE = -1  # no row


class Predictions(NamedTuple):
    """``rows`` (n,) of the data set; ``arrays``: name → (n, H, W) uint8, 255ths of a probability."""

    rows: np.ndarray
    arrays: dict[str, np.ndarray]


def scored(network: keras.Model, data: Dataset, mirror: bool) -> Predictions:
    """What evaluation compares on validation and test slices.

    ``model``: the network given all it takes; ``one_slice``: given each slice without its neighbours;
    ``flair_only``: given FLAIR in all channels; ``flair``: FLAIR itself.
    """
    rows = data.rows("val", "test")
    given = partial(of_patients, network, data, rows, mirror=mirror)
    model = given(title="predict")
    lonely = partial(probabilities, network, data.images, rows, mirror=mirror)
    arrays = {
        "model": model,
        "one_slice": model if context_of(network, data.images) == 0 else lonely(title="one slice"),
        "flair_only": given(only=FLAIR, title="FLAIR alone"),
        "flair": data.images[rows][..., FLAIR],
    }
    return Predictions(rows, arrays)


def write(path: Path, predictions: Predictions) -> None:
    """Keep the model's own probabilities as ``row`` and ``probability`` in a compressed .npz."""
    with files.replacing(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, row=predictions.rows, probability=predictions.arrays["model"])


def context_of(network: keras.Model, images: np.ndarray) -> int:
    """How many slices on either side ``network`` takes with each of ``images`` (N, H, W, C)."""
    return network.input_shape[-1] // images.shape[-1] // 2


def is_volumetric(network: keras.Model) -> bool:
    """Whether all slices of a window are answered, not only the one in the middle."""
    return network.output_shape[-1] > 1


def examined(
    examiner: keras.Model, data: Dataset, rows: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yield (rows (b,), their counts (b, 4), loss) batch by batch, each of ``rows``, whole patients, once.

    Args:
        examiner: a ``segmenter.Examiner``. The last batch is filled up with slices of its own, which count in its loss.
    """
    context = context_of(examiner.network, data.images)
    if is_volumetric(examiner.network):
        windows = data.tiles(rows, context, 2 * context + 1)
        answered, new = windows, np.isin(windows, rows) & ~_repeated(windows.ravel()).reshape(windows.shape)
    else:
        windows, answered = data.around(rows, context), rows[:, None]
        new = np.ones(answered.shape, bool)
    masks = _batches(data.masks[..., None], answered, batch_size)
    for (part, image), (_, mask) in zip(_batches(data.images, windows, batch_size), masks, strict=True):
        found = examiner.predict_on_batch({"image": image, "mask": mask})
        chosen = new[part]
        yield answered[part][chosen], found["counts"][: len(chosen)][chosen], float(found["loss"][0])


def of_patients(
    network: keras.Model, data: Dataset, rows: np.ndarray, *, mirror: bool, only: int | None = None,
    batch_size: int = 16, title: str = "predict",
) -> np.ndarray:  # fmt: skip
    """``probabilities`` of whole patients, with the neighbours that the network takes.

    A volumetric network answers windows that overlap by half; where several answer a slice, their mean counts.
    """
    context = context_of(network, data.images)
    settings: dict[str, Any] = {"mirror": mirror, "only": only, "batch_size": batch_size, "title": title}
    if not is_volumetric(network):
        return probabilities(network, data.images, data.around(rows, context), **settings)
    windows = data.tiles(rows, context, max(1, context))
    place = np.full(len(data.images), NOWHERE)
    place[rows] = np.arange(len(rows))
    total, count = np.zeros((len(rows), *data.images.shape[1:3]), np.uint16), np.zeros(len(rows), np.uint16)
    for part, p in _answers(network, data.images, windows, **settings):
        for window, answer in zip(windows[part], p, strict=True):
            for row in np.intersect1d(window, rows):  # a repeated last slice counts once
                total[place[row]] += np.rint(255 * answer[..., list(window).index(row)]).astype(np.uint16)
                count[place[row]] += 1
    return np.rint(total / count[:, None, None]).astype(np.uint8)


def probabilities(
    network: keras.Model, images: np.ndarray, rows: np.ndarray, *, mirror: bool, only: int | None = None,
    batch_size: int = 16, title: str = "predict",
) -> np.ndarray:  # fmt: skip
    """Probability of tumour, rounded to 255ths.

    Args:
        images: (N, H, W, C) uint8.
        rows: (n,) which of them, each by itself; or (n, K), each (in the middle) with its neighbours.
        mirror: average with the answer to the slice mirrored left to right.
        only: give the network this channel alone, in all channels.

    Returns:
        (n, H, W) uint8, ``round(255 * p)``.
    """
    rows = np.asarray(rows)
    size = 2 * context_of(network, images) + 1
    windows = np.repeat(rows[:, None], size, 1) if rows.ndim == 1 else rows
    out = np.empty((len(rows), *images.shape[1:3]), np.uint8)
    for part, p in _answers(network, images, windows, mirror=mirror, only=only, batch_size=batch_size, title=title):
        out[part] = np.rint(255 * p[..., p.shape[-1] // 2])
    return out


def _answers(
    network: keras.Model, images: np.ndarray, windows: np.ndarray, *, mirror: bool, only: int | None,
    batch_size: int, title: str,
) -> Iterator[tuple[slice, np.ndarray]]:  # fmt: skip
    """Yield (which windows, probabilities (b, H, W, M))."""
    for part, batch in tqdm(
        _batches(images, windows, batch_size), total=-(-len(windows) // batch_size), desc=title, unit="batch",
        mininterval=1, leave=False, disable=None,
    ):  # fmt: skip
        if only is not None:
            flair = batch[..., only :: images.shape[-1]]
            batch = np.repeat(flair, images.shape[-1], axis=-1)
        p = _sigmoid(network.predict_on_batch(batch))
        if mirror:
            p = (p + _sigmoid(network.predict_on_batch(batch[:, :, ::-1]))[:, :, ::-1]) / 2
        yield part, p[: part.stop - part.start]


def _batches(images: np.ndarray, windows: np.ndarray, batch_size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (which windows, their slices); the last batch is filled up to the size of all."""
    for start in range(0, len(windows), batch_size):
        part = slice(start, min(start + batch_size, len(windows)))
        yield part, stacked(images, np.resize(windows[part], (batch_size, windows.shape[1])))


def _repeated(values: np.ndarray) -> np.ndarray:
    """Which entries came before already."""
    again = np.ones(len(values), bool)
    again[np.unique(values, return_index=True)[1]] = False
    return again


def _sigmoid(x) -> np.ndarray:
    x = np.asarray(x, np.float32)
    return 0.5 * (1 + np.tanh(0.5 * x))  # does not overflow
