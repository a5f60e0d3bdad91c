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

        height, width = facts.contract.size
        self._shape = (height, width, len(facts.contract.channels))
        self._network = networks.restore(facts, folder / "unet.weights.h5")
        self._probabilities = prediction.predict_slices

    def predict(self, images: Any, params: dict | None = None) -> np.ndarray:
        """(n, H, W, C), whole numbers from 0 to 255 -> (n, H, W) float32, probabilities in steps of 1/255.

        They are the network's own: not averaged with the mirrored slice's and not calibrated. The threshold of
        evaluation.json is of calibrated ones.

        Args:
            images: of any type of numbers; the array, or a dictionary with it as ``images``.

        Raises:
            ValueError: another shape, or numbers that are no pixels.
        """
        images = np.asarray(images["images"] if isinstance(images, dict) else images)
        pixels = as_pixels(images, self._shape)
        return self._probabilities(self._network, pixels, np.arange(len(pixels)), mirror=False) / np.float32(255)


def as_pixels(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The images as uint8. MLflow's own signature knows one type alone, and would refuse the others.

    Raises:
        ValueError: they are not (n, *shape), or hold other numbers than whole ones from 0 to 255.
    """
    if images.ndim != 4 or images.shape[1:] != shape:
        raise ValueError(f"images are {images.shape}, not (n, {', '.join(map(str, shape))})")
    numbers = images.astype(float)
    pixels = np.clip(np.nan_to_num(numbers), 0, 255).astype(np.uint8)
    if not np.array_equal(numbers, pixels):
        raise ValueError("images hold other numbers than whole ones from 0 to 255, as preprocessing writes them")
    return pixels


def _load_pyfunc(path: str) -> LoggedModel:
    """MLflow calls the function of this name with the folder that was logged."""
    return LoggedModel(Path(path))
