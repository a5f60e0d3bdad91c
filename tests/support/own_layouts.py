"""Small data sets in the layouts of public ones. Each sequence has a value of its own, so that channels can be told.

The files are written by ``examples/own-data/draw.py``.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support.nifti_files import nifti
from tests.support.own_data_example import draw

VALUES = {"t1": 100, "flair": 200, "t1ce": 300, "t2": 900}
THREE = [VALUES["t1"], VALUES["flair"], VALUES["t1ce"]]
ALONE = VALUES["flair"]
SLICES, SIDE = 2, 8


def sequence(path: Path, kind: str, **place) -> Path:
    """A volume in which every voxel has the value of its sequence."""
    return nifti(path, _fill(kind), **place)


def mask(path: Path, labels: Sequence[int] = (1, 4)) -> Path:
    """A mask with some voxels of each label, in every slice."""
    return nifti(path, _outline(labels))


def scans(cases: Sequence[str], labels: Sequence[int] = (1, 4)) -> dict:
    """Case → a scan whose sequences have their values, in the place of ``nifti``."""
    return dict.fromkeys(cases, draw.Scan({kind: _fill(kind) for kind in VALUES}, _outline(labels)))


def _fill(kind: str) -> np.ndarray:
    return np.full((SLICES, SIDE, SIDE), VALUES[kind], np.int16)


def _outline(labels: Sequence[int]) -> np.ndarray:
    voxels = np.zeros((SLICES, SIDE, SIDE), np.uint8)
    for row, label in enumerate(labels):
        voxels[:, row, :3] = label
    return voxels


def brats(root: Path, cases: Sequence[str] = ("BraTS20_Training_001", "BraTS20_Training_002")) -> Path:
    draw.write_brats(root, scans(cases))
    return root


def brats_2023(root: Path, cases: Sequence[str] = ("BraTS-GLI-00000-000", "BraTS-GLI-00002-000")) -> Path:
    draw.write_brats_2023(root, scans(cases, (1, 3)))
    return root


def nnunet(
    root: Path,
    words: Sequence[str] = ("T1", "T1Gd", "T2", "FLAIR"),
    labels: dict | None = None,
    cases: Sequence[str] = ("A_1", "A_2"),
) -> Path:
    kinds = draw.NNUNET | {"MR": "flair"}
    named = labels or {"background": 0, "tumour": 1, "core": 4}
    draw.write_nnunet(root, scans(cases), {word: kinds[word] for word in words}, named)
    return root


def decathlon(
    root: Path,
    words: Sequence[str] = ("FLAIR", "T1w", "t1gd", "T2w"),
    cases: Sequence[str] = ("BRATS_001", "BRATS_002"),
) -> Path:
    channels = {word: draw.DECATHLON[word] for word in words}
    draw.write_decathlon(root, scans(cases, (1, 2, 3)), channels, {"background": 0})
    return root


def bids(root: Path, patients: Sequence[str] = ("sub-01", "sub-02"), session: str = "") -> Path:
    draw.write_bids(root, scans(patients, (1,)), session)
    return root


def table(root: Path) -> Path:
    """A CSV in ``lists/`` of volumes that lie beside it, with all columns."""
    draw.write_pairs(root, scans(["x", "y"], (1,)), {"x": ("px", "North", "40"), "y": ("py", "South", "40")})
    return root / "lists"


def folders(root: Path, keys: Sequence[str] = ("p1_1", "p1_2", "p2_1", "p2_2"), mask_end: str = "") -> Path:
    """Slices right in ``images/`` and ``masks/``."""
    pixels = (np.full((2, 16, 16), [[[number]], [[255 * (number % 2)]]], np.uint8) for number in range(len(keys)))
    slices = {key: (image, mask) for key, (image, mask) in zip(keys, pixels, strict=True)}
    draw.write_slices(root, slices, ("images/{}.tif", f"masks/{{}}{mask_end}.tif"))
    return root
