"""Whether a model has seen images before: by their pixels, whatever patient or file they are called after.

A manifest keeps one fingerprint of each patient that had a say in the weights: of the brightest slice on the grid. So a
volume is known again wherever that slice turns up, as long as it was prepared in the same way (same size, channels and
window). Another size or a resampled copy goes unnoticed: where that may be, a mark says so.
"""

import hashlib

import numpy as np
import pandas as pd

SEEN = "patients scored here were trained on, or validated on, before"
UNKNOWN = "began with weights of images prepared otherwise: whether they were of patients scored here is not known"
PREPARED = ("size", "channels", "window")


def fingerprints(images: np.ndarray, patients: pd.Series) -> list[str]:
    """One of each patient, sorted.

    Args:
        images: (N, H, W, C) uint8. patients: of some of them, indexed by the row.
    """
    return sorted({_digest(_brightest(images, rows)) for rows in patients.groupby(patients).groups.values()})


def known(model: dict, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which of ``rows`` show a fingerprint of the manifest ``model``: (n,) bool."""
    seen = set(model["seen"])
    return np.array([_digest(images[row]) in seen for row in rows], bool)


def of_training(images: np.ndarray, patients: pd.Series, began: dict | None) -> list[str]:
    """The fingerprints of a new model: its own, and those of the model that it began with."""
    return sorted({*fingerprints(images, patients), *(began["seen"] if began else [])})


def marks(model: dict, images: np.ndarray, rows: np.ndarray) -> list[str]:
    """What must be said of scores on ``rows`` by a model."""
    return [SEEN] if known(model, images, rows).any() else []


def marks_of_beginning(began: dict, preprocess: dict, images: np.ndarray, rows: np.ndarray) -> list[str]:
    """What must be said of scores on ``rows``, prepared as ``preprocess`` says, by one that began with ``began``."""
    alike = all(began["preprocess"][name] == preprocess[name] for name in PREPARED)
    unknown = [] if alike and UNKNOWN not in began["protocol"]["marks"] else [UNKNOWN]
    return [*marks(began, images, rows), *unknown]


def _brightest(images: np.ndarray, rows: pd.Index) -> np.ndarray:
    return images[max(rows, key=lambda row: (int(images[row].sum(dtype=np.int64)), -row))]


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()[:16]
