"""The model as ``mlflow.pyfunc.load_model(uri)`` loads it: a run's weights by the code that trained them."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.models import backend


class LoggedModel:
    """Slices to probabilities, as the signature of the logged model says."""

    def __init__(self, folder: Path):
        facts = json.loads((folder / "unet.json").read_text(encoding="utf-8"))
        if "keras" not in sys.modules:  # which reads its engine once, when imported
            backend.start(facts["training"]["engine"])
        from brainseg.models import networks, prediction

        self._network = networks.restore(facts, folder / "unet.weights.h5")
        self._probabilities = prediction.probabilities

    def predict(self, images: Any, params: dict | None = None) -> np.ndarray:
        """(n, H, W, C) uint8 -> (n, H, W) float32, the probability of FLAIR abnormality in steps of 1/255."""
        images = np.asarray(images["images"] if isinstance(images, dict) else images)
        return self._probabilities(self._network, images, np.arange(len(images)), mirror=False) / np.float32(255)


def _load_pyfunc(path: str) -> LoggedModel:
    """MLflow calls this by its name, with the folder that was logged."""
    return LoggedModel(Path(path))
