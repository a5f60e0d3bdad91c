"""The model that ``mlflow.pyfunc.load_model(uri)`` loads: a run's weights in the network that was trained."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.models import backend, manifest


class LoggedModel:
    """Slices to probabilities, with the signature of the logged model."""

    def __init__(self, folder: Path):
        facts = manifest.read(folder / "unet.json")
        if "keras" not in sys.modules:  # Keras reads its engine only once, when it is imported
            backend.start(facts.training.engine)
        from brainseg.models import networks, prediction

        self._network = networks.restore(facts, folder / "unet.weights.h5")
        self._probabilities = prediction.predict_slices

    def predict(self, images: Any, params: dict | None = None) -> np.ndarray:
        """(n, H, W, C) uint8 -> (n, H, W) float32, the probability of FLAIR abnormality in steps of 1/255."""
        images = np.asarray(images["images"] if isinstance(images, dict) else images)
        return self._probabilities(self._network, images, np.arange(len(images)), mirror=False) / np.float32(255)


def _load_pyfunc(path: str) -> LoggedModel:
    """MLflow calls the function of this name with the folder that was logged."""
    return LoggedModel(Path(path))
