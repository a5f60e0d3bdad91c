"""The commands of docs/how-to/own-data.md: the user's own folder to a report. The data are drawn; it takes minutes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brainseg import config
from brainseg.data import fingerprints
from brainseg.data.phantom import cohort
from brainseg.io import pictures
from tests.support import tiny_pipeline
from tests.support.nifti_files import ORIENTATIONS, nifti

pytest.importorskip("nibabel")
pytestmark = pytest.mark.slow
DTYPES = ("uint8", "int16", "uint16", "float32", "float64")
# Of the patient in dicom_series. Long words: any three letters may stand in the pictures of a report.
NAME_OR_BIRTHDAY = re.compile(rb"DOE\W{0,2}JANE|JANE\W{0,2}DOE|19700101", re.IGNORECASE)
SIDES = ((64, 64), (80, 64), (56, 72), (96, 96))  # rows, columns


def heads(patients: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Patient → FLAIR (S, 64, 64) uint8 and labels (S, 64, 64): 1 and 4 in the tumour, 2 in a corner."""
    drawn: dict[str, list] = {}
    for pair in cohort.pairs(config.Phantom(patients=patients, slices=6, size=64, seed=3)):
        flair, mask = pictures.decode(pair.image, "a")[..., 1], pictures.decode(pair.mask, "a") // 255
        labels = np.where(mask, np.where(np.arange(64) % 2, 1, 4), 0).astype(np.uint8)
        labels[:3, :3] = 2
        drawn.setdefault(pair.patient, []).append((flair, labels))
    return {name: tuple(np.stack(kind) for kind in zip(*slices, strict=True)) for name, slices in drawn.items()}


def framed(slices: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """``slices`` cropped or padded around the middle to ``rows`` x ``columns``."""
    out = np.zeros((len(slices), rows, columns), slices.dtype)
    height, width = min(rows, 64), min(columns, 64)
    top, left = (rows - height) // 2, (columns - width) // 2
    cut = slices[:, (64 - height) // 2 :][:, :height, (64 - width) // 2 :][..., :width]
    out[:, top : top + height, left : left + width] = cut
    return out


def repro(tmp_path: Path, root: Path, **download) -> Path:
    """Run the pipeline once on ``root``; returns the folder it ran in."""
    changes = tiny_pipeline.TINY | {
        "download": {"source": "folder", "path": str(root), **download},
        "preprocess": {"size": 64, "foreground": [1, 4]},
    }
    repository = tiny_pipeline.create(tmp_path / "repository", changes)
    tiny_pipeline.repro(repository)
    return tmp_path / "repository"


def report(folder: Path) -> dict:
    assert "<html" in (folder / "metrics/report.html").read_text()
    return json.loads((folder / "metrics/evaluation.json").read_text())


def test_sixty_nifti_volumes_of_all_kinds(tmp_path):
    for number, (name, (flair, labels)) in enumerate(heads(60).items()):
        sides, dtype = SIDES[number % len(SIDES)], DTYPES[number % len(DTYPES)]
        gain = 1 if dtype == "uint8" else 7.3 if dtype.startswith("float") else 11
        voxels = (framed(flair, *sides) * gain).astype(dtype)
        end = ".nii" if number % 3 else ".nii.gz"
        nifti(tmp_path / f"own/images/{name}{end}", voxels, ORIENTATIONS[number % 48], spacing=0.8 + number / 100)
        nifti(tmp_path / f"own/masks/{name}.nii.gz", framed(labels, *sides), ORIENTATIONS[number * 7 % 48],
              spacing=0.8 + number / 100)  # fmt: skip
    lines = [f"{name},{'North' if n % 2 else 'South'}" for n, name in enumerate(heads(60))]
    (tmp_path / "own/patients.csv").write_text("\n".join(["patient,institution", *lines]) + "\n")
    folder = repro(tmp_path, tmp_path / "own", images="images/*", masks="masks/*", patient="each_volume")
    found = report(folder)
    assert sum(found["protocol"]["patients"].values()) == 60 and found["protocol"]["marks"] == []
    assert found["test"]["slice"]["unit"] == "mm"
    patients = pd.read_csv(folder / "metrics/per_patient.csv")
    assert set(patients["institution"]) == {"North", "South"}
    slices = pd.read_csv(folder / "data/processed/slices.csv")
    assert slices["spacing"].nunique() > 30 and (slices.groupby("patient")["tumour_pixels"].sum() > 0).all()
    words = [f"{tmp_path}/own/images", f"{tmp_path}/own/masks", "--patient", "each_volume", "--foreground", "1,4"]
    command = [sys.executable, "-c", "from brainseg.cli import main; main()", "evaluate", *words]
    command += ["-o", "again"]
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": "src"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scored, test = pd.read_csv(folder / "again/per_patient.csv"), patients[patients["subset"] == "test"]
    assert len(scored) == 60
    both = scored.merge(test, on="patient", suffixes=("", "_of_the_run"))
    assert len(both) == len(test) and (both["dice"] == both["dice_of_the_run"]).all()
    marks = json.loads((folder / "again/evaluation.json").read_text())["protocol"]["marks"]
    assert fingerprints.SEEN in marks  # all sixty are scored, also those of training


def test_pairs_of_png_slices(tmp_path):
    for patient, (flair, labels) in enumerate(heads(10).values()):
        for number, (image, mask) in enumerate(zip(flair, labels, strict=True)):
            for kind, pixels in (("images", image), ("masks", mask)):
                path = tmp_path / f"own/{kind}/p{patient:02}_z{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    folder = repro(tmp_path, tmp_path / "own", images="images/*.png", masks="masks/*.png", patient="(p[0-9]+)_")
    found = report(folder)
    assert sum(found["protocol"]["patients"].values()) == 10 and found["test"]["slice"]["unit"] == "px"


def test_dicom_series_with_nifti_masks(tmp_path):
    pytest.importorskip("pydicom")
    from brainseg.io import nifti as files
    from brainseg.io.dicom import series_reader
    from tests.support.dicom_series import save_series

    for name, (flair, labels) in heads(10).items():
        paths = save_series(tmp_path / f"own/scans/{name}", flair.astype(np.uint16) * 5)
        volume = series_reader.read_series(paths, name)
        (tmp_path / "own/masks").mkdir(exist_ok=True)
        files.write(tmp_path / f"own/masks/{name}.nii.gz", labels, volume.geometry)
        np.testing.assert_array_equal(volume.voxels, flair.astype(np.uint16) * 5)
    folder = repro(tmp_path, tmp_path / "own", images="scans/*/", masks="masks/*.nii.gz", patient="each_volume")
    found = report(folder)
    assert sum(found["protocol"]["patients"].values()) == 10 and found["test"]["slice"]["unit"] == "mm"
    written = [path for path in folder.rglob("*") if path.is_file() and not {"tests", ".git"} & set(path.parts)]
    assert {"slices.zip", "slices.csv", "mlflow.db"} <= {path.name for path in written}
    for path in written:
        assert not NAME_OR_BIRTHDAY.search(path.read_bytes()), path
