"""Small data sets in the layouts of public ones. Each sequence has a value of its own, so that channels can be told."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support.fake_lgg import tif
from tests.support.nifti_files import nifti

VALUES = {"t1": 100, "flair": 200, "t1ce": 300, "t2": 900}
THREE = [VALUES["t1"], VALUES["flair"], VALUES["t1ce"]]
ALONE = VALUES["flair"]
SLICES, SIDE = 2, 8


def sequence(path: Path, kind: str, **place) -> Path:
    """A volume in which every voxel has the value of its sequence."""
    return nifti(path, np.full((SLICES, SIDE, SIDE), VALUES[kind], np.int16), **place)


def mask(path: Path, labels: Sequence[int] = (1, 4)) -> Path:
    """A mask with some voxels of each label, in every slice."""
    voxels = np.zeros((SLICES, SIDE, SIDE), np.uint8)
    for row, label in enumerate(labels):
        voxels[:, row, :3] = label
    return nifti(path, voxels)


def brats(root: Path, cases: Sequence[str] = ("BraTS20_Training_001", "BraTS20_Training_002")) -> Path:
    for case in cases:
        for kind in VALUES:
            sequence(root / case / f"{case}_{kind}.nii.gz", kind)
        mask(root / case / f"{case}_seg.nii.gz")
    return root


def brats_2023(root: Path, cases: Sequence[str] = ("BraTS-GLI-00000-000", "BraTS-GLI-00002-000")) -> Path:
    for case in cases:
        for word, kind in {"t1n": "t1", "t1c": "t1ce", "t2f": "flair", "t2w": "t2"}.items():
            sequence(root / case / f"{case}-{word}.nii.gz", kind)
        mask(root / case / f"{case}-seg.nii.gz", (1, 3))
    return root


def nnunet(
    root: Path,
    words: Sequence[str] = ("T1", "T1Gd", "T2", "FLAIR"),
    labels: dict | None = None,
    cases: Sequence[str] = ("A_1", "A_2"),
) -> Path:
    kinds = {"T1": "t1", "T1Gd": "t1ce", "T2": "t2", "FLAIR": "flair", "MR": "flair"}
    for case in cases:
        for number, word in enumerate(words):
            sequence(root / f"imagesTr/{case}_{number:04}.nii.gz", kinds[word])
        mask(root / f"labelsTr/{case}.nii.gz")
    facts = {"channel_names": dict(enumerate(words)), "labels": labels or {"background": 0, "tumour": 1, "core": 4}}
    (root / "dataset.json").write_text(json.dumps(facts))
    return root


def decathlon(
    root: Path,
    words: Sequence[str] = ("FLAIR", "T1w", "t1gd", "T2w"),
    cases: Sequence[str] = ("BRATS_001", "BRATS_002"),
) -> Path:
    kinds = {"FLAIR": "flair", "T1w": "t1", "t1gd": "t1ce", "T2w": "t2"}
    volume = np.stack([np.full((SLICES, SIDE, SIDE), VALUES[kinds[word]], np.int16) for word in words], -1)
    for case in cases:
        nifti(root / f"imagesTr/{case}.nii.gz", volume if len(words) > 1 else volume[..., 0])
        mask(root / f"labelsTr/{case}.nii.gz", (1, 2, 3))
    (root / "dataset.json").write_text(json.dumps({"modality": dict(enumerate(words)), "labels": {"0": "background"}}))
    return root


def bids(root: Path, patients: Sequence[str] = ("sub-01", "sub-02"), session: str = "") -> Path:
    middle, in_name = (f"{session}/", f"_{session}") if session else ("", "")
    for patient in patients:
        anat, name = root / patient / f"{middle}anat", f"{patient}{in_name}"
        sequence(anat / f"{name}_FLAIR.nii.gz", "flair")
        sequence(anat / f"{name}_T1w.nii.gz", "t1")
        sequence(anat / f"{name}_ce-gadolinium_T1w.nii.gz", "t1ce")
        sequence(anat / f"{name}_T2w.nii.gz", "t2")
        derived = root / "derivatives/manual" / patient / f"{middle}anat"
        mask(derived / f"{name}_label-lesion_mask.nii.gz", (1,))
        mask(derived / f"{name}_desc-brain_mask.nii.gz", (1,))
    return root


def table(root: Path) -> Path:
    """A CSV in ``lists/`` of volumes that lie beside it, with all columns."""
    lines = ["image,pre,post,mask,patient,institution,age"]
    for name, place in (("x", "North"), ("y", "South")):
        for kind in ("flair", "t1", "t1ce"):
            sequence(root / f"{name}/{kind}.nii.gz", kind)
        mask(root / f"{name}/m.nii.gz", (1,))
        lines.append(
            f"../{name}/flair.nii.gz,../{name}/t1.nii.gz,../{name}/t1ce.nii.gz,../{name}/m.nii.gz,p{name},{place},40"
        )
    (root / "lists").mkdir()
    (root / "lists/pairs.csv").write_text("\n".join(lines) + "\n")
    return root / "lists"


def folders(root: Path, keys: Sequence[str] = ("p1_1", "p1_2", "p2_1", "p2_2"), mask_end: str = "") -> Path:
    """Slices right in ``images/`` and ``masks/``."""
    for number, key in enumerate(keys):
        for kind, end in (("images", ""), ("masks", mask_end)):
            path = root / kind / f"{key}{end}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tif(np.full((16, 16), number if kind == "images" else 255 * (number % 2), np.uint8)))
    return root
