"""Whether a model has seen images before: decided by their pixels, whatever the names of patients and files.

A manifest keeps one fingerprint of each patient that was used to train or to choose the weights: the digest of the
brightest slice on the grid. A volume is recognised if it has that slice and was prepared in the same way (same size,
channels and window). Another size or a resampled copy is not recognised: where that is possible, a mark says so.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

# These texts are in manifests and evaluations: another wording would not be recognised in those that exist.
SEEN = "patients scored here were trained on, or validated on, before"
UNKNOWN = "began with weights of images prepared otherwise: whether they were of patients scored here is not known"
PREPARED = ("size", "channels", "window")


def compute(images: np.ndarray, patients: pd.Series) -> list[str]:
    """One fingerprint of each patient, sorted.

    Args:
        images: (N, H, W, C) uint8.
        patients: patient of some of the images, indexed by row.
    """
    return sorted(
        {_digest(_brightest(images, rows)) for rows in patients.groupby(patients, observed=True).groups.values()}
    )


def recognise(seen: Sequence[str], images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which of ``rows`` have a fingerprint that is in ``seen`` of a manifest: (n,) bool."""
    kept = set(seen)
    return np.array([_digest(images[row]) in kept for row in rows], bool)


def marks(seen: Sequence[str], images: np.ndarray, rows: np.ndarray) -> list[str]:
    """The marks of scores on ``rows`` by the model whose manifest has ``seen``."""
    return [SEEN] if recognise(seen, images, rows).any() else []


def _brightest(images: np.ndarray, rows: pd.Index) -> np.ndarray:
    return images[max(rows, key=lambda row: (int(images[row].sum(dtype=np.int64)), -row))]


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()[:16]
