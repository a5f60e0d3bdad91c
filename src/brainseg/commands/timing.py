"""How long a training takes on this machine, measured on a few of its steps.

The images are noise of the size that the parameters set: the time of a step does not depend on their content.
"""

import time
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd

from brainseg.commands import speed
from brainseg.config import Params
from brainseg.data.dataset import Dataset
from brainseg.io.sequences import CHANNELS
from brainseg.models import backend
from brainseg.training import trainer
from brainseg.training.batches import Batches

WARM_UP = 6  # steps that compile the network and fill caches
MOST = 100  # timed steps at most
VALIDATION_BATCHES = 4  # batches of validation


class Estimate(NamedTuple):
    """Measured rates, and the minutes of a whole training that follow from them.

    ``steps``: number of timed steps; ``trained``, ``validated``: images per second.
    """

    steps: int
    trained: float
    validated: float
    minutes: float


def estimate(params: Params, slices: dict[str, int], seconds: float = 60.0) -> Estimate:
    """Time training steps for about ``seconds``, and keep the rates. The engine must have been started.

    Args:
        params: blocks train, network, augmentation, preprocess.
        slices: numbers of slices of each subset in the data of the whole training.
    """
    size = params.train.batch_size
    data = _make_noise(params, size * VALIDATION_BATCHES)
    batches = Batches(data, params)
    batches.order = np.resize(batches.order, size * (WARM_UP + MOST))
    model = trainer.build(params, params.preprocess.size, len(CHANNELS), len(batches))
    watch = _StepTimer(seconds)
    model.fit(backend.stream(batches), shuffle=False, verbose=0, callbacks=[watch])
    step = (watch.ended - watch.marks[WARM_UP - 1]) / (len(watch.marks) - WARM_UP)
    trainer.validate(model, data, size)  # compiles
    begin = time.perf_counter()
    trainer.validate(model, data, size)
    validated = len(data.rows("val")) / (time.perf_counter() - begin)
    speed.remember(params, size / step, validated)
    minutes = speed.count_minutes(params, slices, size / step, validated)
    return Estimate(len(watch.marks) - WARM_UP, size / step, validated, minutes)


class _StepTimer(keras.callbacks.Callback):
    """End the epoch when the time is over, but not before the warm-up steps and two more."""

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
        self.ended = time.perf_counter()  # Keras has waited for the last step to finish


def _make_noise(params: Params, count: int) -> Dataset:
    """``count`` slices of one patient for training, as many of another for validation; every second has tumour."""
    rng, side = np.random.default_rng(0), params.preprocess.size
    images = rng.integers(0, 256, (2 * count, side, side, len(CHANNELS)), dtype=np.uint8)
    masks = np.zeros((2 * count, side, side), np.uint8)
    masks[::2, side // 4 : side // 2, side // 4 : side // 2] = 1
    subsets = np.repeat(["train", "val"], count)
    table = pd.DataFrame({"patient": subsets, "subset": subsets, "tumour_pixels": masks.sum((1, 2))})
    brains = np.ones_like(masks)
    brains[:, : side // 8] = 0  # a scalp to remove, which takes time
    return Dataset(images, masks, table, np.packbits(brains, axis=-1))
