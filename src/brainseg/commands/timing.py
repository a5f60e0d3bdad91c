"""How long a training takes on this machine, measured on a few of its steps.

On noise of the recipe's size, because a step's time does not depend on what the slices show.
"""

import time
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd

from brainseg.config import Params
from brainseg.data.dataset import Dataset
from brainseg.models import backend
from brainseg.training import trainer

WARM_UP = 6  # steps that compile and fill caches
MOST = 100  # steps that are timed at most
VALIDATED = 4  # batches
CHANNELS = 3


class Estimate(NamedTuple):
    """Rates as measured, and the minutes of a whole training that follow from them.

    ``steps``: how many were timed; ``trained``, ``validated``: images a second.
    """

    steps: int
    trained: float
    validated: float
    minutes: float


def estimate(params: Params, slices: dict[str, int], seconds: float = 60.0) -> Estimate:
    """Time steps of the training that ``params`` describe for about ``seconds``; the engine is started already.

    Args:
        params: blocks train, network, augmentation, preprocess.
        slices: of ``train`` and ``val`` in the data that the whole training is for.
    """
    size, train = params.train.batch_size, params.train
    data = _noise(params, size * VALIDATED)
    batches = trainer.Batches(data, params)
    batches.order = np.resize(batches.order, size * (WARM_UP + MOST))
    model = trainer.build(params, params.preprocess.size, CHANNELS, len(batches))
    watch = _Watch(seconds)
    model.fit(backend.streamed(batches), shuffle=False, verbose=0, callbacks=[watch])
    step = (watch.ended - watch.marks[WARM_UP - 1]) / (len(watch.marks) - WARM_UP)
    trainer.validate(model, data, size)  # compiles
    begin = time.perf_counter()
    trainer.validate(model, data, size)
    validated = len(data.rows("val")) / (time.perf_counter() - begin)
    epoch = max(1, slices["train"] // size) * step + slices["val"] / validated
    return Estimate(len(watch.marks) - WARM_UP, size / step, validated, train.epochs * epoch / 60)


class _Watch(keras.callbacks.Callback):
    """Ends the epoch when the time is over; the steps that warm up, and two more, are done in any case."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds, self.ended = seconds, 0.0
        self.marks: list[float] = []
        self.async_safe = backend.runs_ahead()

    def on_train_batch_end(self, batch, logs=None):
        self.marks.append(time.perf_counter())
        enough = len(self.marks) >= WARM_UP + 2
        if enough and self.marks[-1] - self.marks[WARM_UP - 1] > self.seconds:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.ended = time.perf_counter()  # Keras has waited for the last step


def _noise(params: Params, count: int) -> Dataset:
    """``count`` slices of one patient to train on and as many of another to validate; half of each have tumour."""
    rng, side = np.random.default_rng(0), params.preprocess.size
    images = rng.integers(0, 256, (2 * count, side, side, CHANNELS), dtype=np.uint8)
    masks = np.zeros((2 * count, side, side), np.uint8)
    masks[::2, side // 4 : side // 2, side // 4 : side // 2] = 1
    subsets = np.repeat(["train", "val"], count)
    table = pd.DataFrame({"patient": subsets, "subset": subsets, "tumour_pixels": masks.sum((1, 2))})
    return Dataset(images, masks, table)
