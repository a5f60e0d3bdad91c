"""The page's examples: four test patients of the committed run, chosen by its scores, with the readers' outlines.

``python -m tools.make_examples`` in the project's folder, after ``dvc repro``, writes ``examples/patients.zip``, which
``make push`` puts into weights/ and ``make pull`` fetches. A zip for each patient, of numbered pictures with a mask
beside each, as in the training set; ``list.json``; the licence.
"""

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainseg import errors, files
from brainseg.data import inputs
from brainseg.errors import DataError

OUT = Path("examples/patients.zip")
SCORES, SUMMARY = "metrics/per_patient.csv", "metrics/evaluation.json"
IMAGES, MASKS, SLICES = "data/processed/images.npy", "data/processed/masks.npy", "data/processed/slices.csv"
USED = (SCORES, SUMMARY, IMAGES, MASKS, SLICES)
# Where in the order of the test patients' Dice, from the lowest to the highest. The best ones would promise too much;
# the committed run's at 0.9 has 50 slices to load, the one at 0.8 has 20.
PLACES = {"easy": 0.8, "median": 0.5, "hard": 0.1, "fails": 0.0}
ATTRIBUTION = (
    "LGG MRI Segmentation (Buda et al. 2019, Mazurowski et al. 2017), of TCGA-LGG at The Cancer Imaging Archive; "
    "slices 256 pixels wide, chosen and packed by brainseg. CC BY-NC-SA 4.0: not for commercial use, passed on alike."
)
SOURCE = "https://doi.org/10.7937/K9/TCIA.2016.L4LTD3TK"  # TCGA-LGG
LICENCE = "https://creativecommons.org/licenses/by-nc-sa/4.0/"
DATES = (1980, 1, 1, 0, 0, 0)


def run(root: Path = Path(), out: Path = OUT) -> str:
    """Choose and pack the patients; say which.

    Raises:
        DataError: the data or the scores are missing. IntegrityError: they are not what dvc.lock says.
    """
    missing = [name for name in USED if not (root / name).is_file()]
    if missing:
        raise DataError(missing[0], "is not here", "run: dvc repro, in a clone of the project")
    inputs.verify(USED, root)
    chosen = choose(_read(root / SCORES))
    weights = json.loads((root / SUMMARY).read_text(encoding="utf-8"))["protocol"]["weights_sha256"]
    told = {"attribution": ATTRIBUTION, "licence": LICENCE, "weights_sha256": weights,
            "examples": [describe(level, row) for level, row in chosen.items()]}  # fmt: skip
    with files.replacing(root / out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for level, row in chosen.items():
            _add(archive, f"{level}.zip", pack(root, row["patient"]))
        _add(archive, "list.json", json.dumps(told, indent=1).encode())
        _add(archive, "LICENCE.txt", f"{ATTRIBUTION}\n{LICENCE}\n{SOURCE}\n".encode())
    names = ", ".join(f"{level} {row['patient']} (Dice {float(row['dice']):.3f})" for level, row in chosen.items())
    return f"{out}: {(root / out).stat().st_size / 1e6:.1f} MB; {names}"


def choose(rows: Sequence[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Level → the row of ``per_patient.csv`` of a test patient, by its place in the order of Dice."""
    ordered = sorted(
        (row for row in rows if row["subset"] == "test"), key=lambda row: (float(row["dice"]), row["patient"])
    )
    return {level: ordered[round(place * (len(ordered) - 1))] for level, place in PLACES.items()}


def describe(level: str, row: dict[str, str]) -> dict[str, Any]:
    numbers = {name: float(row[name]) for name in ("dice", "precision", "recall")}
    return {"id": level, "patient": row["patient"], "slices": int(row["slices"]), **numbers}


def pack(root: Path, patient: str) -> bytes:
    """A zip of a patient's slices and masks as PNG, named as in the training set."""
    images, masks = (np.load(root / name, mmap_mode="r", allow_pickle=False) for name in (IMAGES, MASKS))
    rows = [row for row in _read(root / SLICES) if row["patient"] == patient]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for row in sorted(rows, key=lambda row: int(row["slice"])):
            at, name = int(row["row"]), f"{patient}/{patient}_{row['slice']}"
            _add(archive, f"{name}.png", _png(images[at]))
            _add(archive, f"{name}_mask.png", _png(masks[at] * np.uint8(255)))
    return buffer.getvalue()


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Without the clock and without compression, which pictures have already."""
    entry = zipfile.ZipInfo(name, DATES)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    errors.run(lambda: print(run()))
