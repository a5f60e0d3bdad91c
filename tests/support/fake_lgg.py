"""A small LGG look-alike: the names, folders and doubled zip of Kaggle's, with its own table of digests."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from brainseg.data.kaggle import ExpectedPatient, patient_digest

PATIENTS = {"TCGA_CS_0001_19990101": 3, "TCGA_DU_0002_19990202": 11, "TCGA_HT_0003_19990303": 2}


def tif(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    """``<patient>/<file>`` → bytes, the same on every call."""
    rng, members = np.random.default_rng(0), {}
    for patient, slices in PATIENTS.items():
        for number in range(1, slices + 1):
            members[f"{patient}/{patient}_{number}.tif"] = tif(rng.integers(0, 256, (16, 16, 3), np.uint8))
            members[f"{patient}/{patient}_{number}_mask.tif"] = tif(rng.integers(0, 2, (16, 16), np.uint8) * 255)
    return members


def table() -> dict[str, ExpectedPatient]:
    """What ``lgg.csv`` is to LGG."""
    members = files()
    digests = {p: {n: hashlib.sha256(d).hexdigest() for n, d in members.items() if n.startswith(p)} for p in PATIENTS}
    return {
        patient: ExpectedPatient(PATIENTS[patient], PATIENTS[patient], patient_digest(digests[patient]))
        for patient in PATIENTS
    }


def members(*roots: str) -> dict[str, bytes]:
    """The zip's members with each file under every root; Kaggle has two roots."""
    named = {f"{root}{name}": data for name, data in files().items() for root in roots or ("kaggle_3m/",)}
    return named | {"kaggle_3m/data.csv": b"Patient,death01\n", "kaggle_3m/README.md": b"# LGG\n"}


def doubled() -> dict[str, bytes]:
    return members("kaggle_3m/", "lgg-mri-segmentation/kaggle_3m/")


def write_zip(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def write_folder(path: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path
