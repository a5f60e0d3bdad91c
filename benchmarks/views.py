"""Test-time augmentation: the gain from averaging more views of a slice. Each patient is predicted out of fold.

It needs the experiments of the folds in the cache (`make cross-validate`). Nothing is tuned: there is one threshold,
and all components are kept. docs/explanation/experiments.md has the output of its first version for the former default.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from brainseg import errors
from brainseg.data import dataset
from brainseg.evaluation import metrics
from brainseg.experiments import cross_validation, revision
from brainseg.models import backend, manifest

THRESHOLD = 0.5
CENTRE = 127.5, 127.5
Views = dict[str, tuple[Callable, Callable]]  # name → a change of slices, and its inverse for probabilities


def main() -> None:
    files_of = "models/unet.json", "models/unet.weights.h5", "data/splits/split.csv"
    rows = []
    for fold in cross_validation.plan({}):
        with (
            revision.fetched(files_of[0], fold.name) as about,
            revision.fetched(files_of[1], fold.name) as weights,
            revision.fetched(files_of[2], fold.name) as split,
        ):
            model = manifest.read(about)
            backend.start(**manifest.engine(model))
            from brainseg.models import networks

            data = dataset.load(Path("data/processed"), split, "patient")
            rows += score_fold(networks.restore(model, weights), data)
        print(pd.DataFrame(rows).groupby("views").dice.agg(["mean", "median", "count"]).round(4), flush=True)


def score_fold(network, data: dataset.Dataset) -> list[dict]:
    """The Dice of each test patient with each set of views."""
    tested = data.slices[data.slices["subset"] == "test"]
    found = []
    for patient, rows in tested.groupby("patient", observed=True).groups.items():
        images, truth = data.images[rows], data.masks[rows]
        seen = {name: back(probabilities(network, there(images))) for name, (there, back) in views().items()}
        for name, members in SETS.items():
            mean = np.mean([seen[member] for member in members], axis=0)
            dice = metrics.dice(metrics.counts(truth, mean >= THRESHOLD))
            found.append({"patient": patient, "views": name, "dice": float(dice)})
    return found


def probabilities(network, images: np.ndarray) -> np.ndarray:
    logits = np.concatenate([network.predict_on_batch(images[i : i + 32])[..., 0] for i in range(0, len(images), 32)])
    return 1 / (1 + np.exp(-logits.astype(np.float32)))


def views() -> Views:
    """Unchanged, mirrored, rotated, zoomed, with another gamma, with another gain."""

    def same(x):
        return x

    def mirrored(x):
        return x[:, :, ::-1]

    def warp(angle: float, zoom: float) -> tuple[Callable, Callable]:
        matrix = cv2.getRotationMatrix2D(CENTRE, angle, zoom)

        def move(flags: int, x: np.ndarray) -> np.ndarray:
            return np.stack([cv2.warpAffine(each, matrix, x.shape[1:3], flags=flags) for each in x])

        return lambda x: move(cv2.INTER_LINEAR, x), lambda p: move(cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, p)

    def tone(gamma: float, gain: float) -> tuple[Callable, Callable]:
        return lambda x: np.clip(np.rint(255 * gain * (x / 255.0) ** gamma), 0, 255).astype(np.uint8), same

    return {
        "plain": (same, same), "mirrored": (mirrored, mirrored),
        "turned +8": warp(8, 1), "turned -8": warp(-8, 1), "zoom 0.9": warp(0, 0.9), "zoom 1.1": warp(0, 1.1),
        "gamma 0.8": tone(0.8, 1), "gamma 1.25": tone(1.25, 1),
        "gain 0.85": tone(1, 0.85), "gain 1.15": tone(1, 1.15),
    }  # fmt: skip


MIRROR = ["plain", "mirrored"]
SETS = {
    "plain": ["plain"],
    "mirrored, as evaluate does": MIRROR,
    "and turned by 8 degrees": [*MIRROR, "turned +8", "turned -8"],
    "and zoomed by a tenth": [*MIRROR, "zoom 0.9", "zoom 1.1"],
    "and gamma": [*MIRROR, "gamma 0.8", "gamma 1.25"],
    "and gain": [*MIRROR, "gain 0.85", "gain 1.15"],
    "all ten": list(views()),
}


if __name__ == "__main__":
    errors.run(main)
