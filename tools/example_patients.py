"""The page's example patients as arrays, and as the files that a person would open: for pictures of the documents."""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from PIL import Image

from brainseg.data.brains import masks
from brainseg.errors import DataError
from brainseg.server import examples

PATIENTS, MODEL = Path(examples.RELEASED), Path("models/unet.onnx")
LGG = Path(masks.__file__).parents[1] / "lgg.csv"
# The public slices carry no voxel size. Pictures in millimetres have this one, and say that it is made up.
PIXEL, HEIGHT = 0.94, 150.0  # mm: a pixel's side, and all slices together


class Patient(NamedTuple):
    """``images`` (S, H, W, 3) uint8: before contrast, FLAIR, after contrast. ``truth`` (S, H, W) bool: the readers'."""

    full_name: str
    images: np.ndarray
    truth: np.ndarray

    @property
    def name(self) -> str:
        """As people call it: institution and number."""
        return "_".join(self.full_name.split("_")[1:3])


def read(path: Path = PATIENTS) -> dict[str, Patient]:
    """Level, easy to fails → the patient.

    Raises:
        DataError: the examples or the model are not here.
    """
    if missing := [each for each in (path, MODEL) if not each.is_file()]:
        raise DataError(missing[0], "is not here", examples.PULL)
    with zipfile.ZipFile(path) as archive:
        listed = json.loads(archive.read("list.json"))["examples"]
        return {each["id"]: _unpack(each["patient"], archive.read(f"{each['id']}.zip")) for each in listed}


def _unpack(name: str, content: bytes) -> Patient:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [each for each in archive.namelist() if not each.endswith("_mask.png")]  # in their order
        images = [_picture(archive.read(each)) for each in names]
        truth = [_picture(archive.read(f"{each.removesuffix('.png')}_mask.png")) > 0 for each in names]
    return Patient(name, np.stack(images), np.stack(truth))


def _picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def brain(patient: Patient) -> np.ndarray:
    """(S, H, W) bool: the patient's brain, of the masks that come with the program, which are in the table's order."""
    with LGG.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    place = [row["patient"] for row in rows].index(patient.full_name)
    first, count = sum(int(row["slices"]) for row in rows[:place]), int(rows[place]["slices"])
    return np.unpackbits(masks.unpack_shipped()[first : first + count], axis=-1).astype(bool)


def save(folder: Path, name: str, images: np.ndarray, truth: np.ndarray) -> list[Path]:
    """Write NAME.nii.gz with three sequences and NAME_mask.nii.gz beside it; rows go back, columns to the left."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-PIXEL, -PIXEL, HEIGHT / len(images), 1.0])
    paths = [folder / f"{name}.nii.gz", folder / f"{name}_mask.nii.gz"]
    for path, voxels in zip(paths, (images.transpose(2, 1, 0, 3), truth.astype(np.uint8).transpose(2, 1, 0)),
                            strict=True):  # fmt: skip
        nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return paths
