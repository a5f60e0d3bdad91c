"""Slices to probabilities, with fixed batch shapes so that nothing is compiled twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from brainseg import files
from brainseg.dataset import Dataset
from brainseg.manifest import FLAIR


class Predictions(NamedTuple):
    """``rows`` (n,) of the data set; ``arrays``: name → (n, H, W) uint8, 255ths of a probability."""

    rows: np.ndarray
    arrays: dict[str, np.ndarray]


def scored(network: keras.Model, data: Dataset, mirror: bool) -> Predictions:
    """What evaluation compares on validation and test slices: the model, the model given FLAIR alone, FLAIR itself."""
    rows = data.rows("val", "test")
    arrays = {
        "model": probabilities(network, data.images, rows, mirror=mirror, title="predict"),
        "flair_only": probabilities(network, data.images, rows, mirror=mirror, only=FLAIR, title="FLAIR alone"),
        "flair": data.images[rows][..., FLAIR],
    }
    return Predictions(rows, arrays)


def write(path: Path, predictions: Predictions) -> None:
    """Keep the model's own probabilities as ``row`` and ``probability`` in a compressed .npz."""
    with files.replacing(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, row=predictions.rows, probability=predictions.arrays["model"])


Batch = tuple[np.ndarray, np.ndarray]


def logits(network: keras.Model, images: np.ndarray, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
    """Yield (rows (b,), logits (b, H, W) float32) batch by batch; the last batch is filled up and cut again."""
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        batch = images[np.resize(part, batch_size)]
        yield part, np.asarray(network.predict_on_batch(batch))[: len(part), :, :, 0]


def probabilities(
    network: keras.Model, images: np.ndarray, rows: np.ndarray, *, mirror: bool, only: int | None = None,
    batch_size: int = 16, title: str = "predict",
) -> np.ndarray:  # fmt: skip
    """Probability of tumour, rounded to 255ths.

    Args:
        images: (N, H, W, C) uint8.
        rows: which of them.
        mirror: average with the answer to the slice mirrored left to right.
        only: give the network this channel alone, in all channels.

    Returns:
        (len(rows), H, W) uint8, ``round(255 * p)``.
    """
    out = np.empty((len(rows), *images.shape[1:3]), np.uint8)
    for start in tqdm(
        range(0, len(rows), batch_size), desc=title, unit="batch", mininterval=1, leave=False, disable=None
    ):
        part = rows[start : start + batch_size]
        batch = images[np.resize(part, batch_size)]
        if only is not None:
            batch = np.repeat(batch[..., only : only + 1], batch.shape[-1], axis=-1)
        p = _sigmoid(network.predict_on_batch(batch))
        if mirror:
            p = (p + _sigmoid(network.predict_on_batch(batch[:, :, ::-1]))[:, :, ::-1]) / 2
        out[start : start + len(part)] = np.rint(255 * p[: len(part), :, :, 0])
    return out


def _sigmoid(x) -> np.ndarray:
    x = np.asarray(x, np.float32)
    return 0.5 * (1 + np.tanh(0.5 * x))  # does not overflow
