"""A training that takes seconds: its parameters, the run, the model that it leaves, and a way to kill it."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from brainseg import config
from brainseg.config import Augmentation
from brainseg.data import dataset
from brainseg.models import manifest
from brainseg.training import checkpoints, description, trainer
from tests.support import shared
from tests.support.cohort import write_cohort
from tests.support.engine import RUNNING

PARAMS = config.load("train", "network", "augmentation", "download", "preprocess", "split")
IDENTITY = {"test": "training"}
WEIGHTS, MANIFEST = "unet.weights.h5", "unet.json"
_compiled: dict[tuple, tuple] = {}


def params(augment=True, **changes):
    """``changes``: of the block train."""
    quick = {"epochs": 3, "batch_size": 8, "precision": "float32", "ema": 0.5, "learning_rate": 0.01}
    off = Augmentation(**dict.fromkeys(Augmentation.model_fields, 0.0))
    return PARAMS.model_copy(update={
        "train": PARAMS.train.model_copy(update={**quick, **changes}),
        "network": PARAMS.network.model_copy(update={"name": "unet", "filters": 4, "depth": 1, "stem": 0}),
        "augmentation": PARAMS.augmentation if augment else off,
        "preprocess": PARAMS.preprocess.model_copy(update={"size": 32}),
    })  # fmt: skip


def train(data, settings, facts=IDENTITY, initial=None, watchers=(), soft=None):
    """Run a training to its end; each kind of network is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "build", compiled_once(trainer.build))
        trained = trainer.run(data, settings, facts, initial, watchers, soft)
    trainer.finish(trained)
    return trained


def compiled_once(build: Callable) -> Callable:
    """``trainer.build`` that compiles a network once, which takes most of the time of a short training.

    A model that was built before gets back the value that each of its variables had then: weights, random states,
    optimizer and averages. So it trains as a new one does.
    """

    def built(settings, size, channels, steps):
        # keep, patience and initial_weights are not part of the graph
        step = settings.train.model_dump(exclude={"keep", "patience", "initial_weights"})
        graph = repr((settings.network, settings.augmentation, step, keras.config.dtype_policy().name))
        key = build, trainer.losses.build, graph, size, channels, steps
        if key not in _compiled:
            model = build(settings, size, channels, steps)
            _compiled[key] = model, trainer._copy_values(trainer._collect_state(model))
        model, values = _compiled[key]
        keras.utils.set_random_seed(settings.train.seed)
        for variable, value in zip(trainer._collect_state(model), values, strict=True):
            variable.assign(value)
        return model

    return built


def release(trained, data, settings, folder):
    """Weights and manifest as the train stage leaves them."""
    weights, path = folder / WEIGHTS, folder / MANIFEST
    trainer.save(trained, weights)
    manifest.write(path, description.describe(trained, weights, data, {}, RUNNING, settings))
    return weights, path


def released_once() -> tuple[Path, Path, dataset.Dataset]:
    """Weights and manifest of a model that has learned a little, and its cohort. Nobody may change them."""
    folder = shared.folder("tiny-model", _make_released)
    return folder / WEIGHTS, folder / MANIFEST, dataset.load(folder / "processed", folder / "split.csv", "patient")


def _make_released(folder: Path) -> None:
    data = dataset.load(*write_cohort(folder), "patient")
    settings = params(epochs=8, batch_size=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        release(train(data, settings), data, settings, folder)


def result_of(trained):
    """The bytes of the weights, and every epoch's numbers."""
    weights = b"".join(np.asarray(w).tobytes() for w in trained.network.get_weights())
    return weights, trained.history.to_csv()


class KilledError(Exception):
    """Stands for SIGKILL."""


def kill_after(monkeypatch, epochs):
    """End the run right behind the save of an epoch; no clean-up of ours follows."""
    real = checkpoints.save

    def save(directory, key, checkpoint):
        path = real(directory, key, checkpoint)
        if checkpoint.epoch == epochs:
            raise KilledError
        return path

    monkeypatch.setattr(checkpoints, "save", save)
