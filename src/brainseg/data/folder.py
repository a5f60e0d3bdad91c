"""The user's own images and masks, slices or volumes, as ``pairing`` finds them, for the archive.

``patients.csv`` at the top of the folder (columns patient, institution) may name the institution of each patient.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pandas as pd
from tqdm import tqdm

from brainseg import config, files
from brainseg.data import pairing
from brainseg.data.archive import Pair
from brainseg.data.pairing import PairedFiles
from brainseg.errors import DataError, Problem, guard, raise_all
from brainseg.io import pictures, scans

INSTITUTION = "unknown"
PATIENTS = "patients.csv"


def pairs(params: config.Download, scope: pairing.Scope = pairing.ALL) -> Iterator[Pair]:
    """The folder's pairs, sorted by patient and slice number.

    The slice number is the last number in the image's name, or counts a volume's axial slices from feet to head. The
    bytes of slices are taken as they are; preprocess decodes and checks them.

    Raises:
        DataError: everything that has no partner, two partners, no patient or no number, in one list; at the end
            every fault of the volumes.
    """
    if params.path is None:
        raise DataError("params.yaml", "download.path is null", "set it to the folder that holds your images and masks")
    root = files.project_root() / Path(params.path).expanduser()
    if not root.is_dir():
        raise DataError(root, "is not a folder", "set download.path to the folder that holds your images and masks")
    found, problems = pairing.find(root, params, scope), []
    institutions = _read_institutions(
        scope.patients or root, {each.patient for each in found}, strict=not scope.patients
    )
    for each in tqdm(found, desc="pack", unit="pairs", mininterval=0.5, disable=None):
        place = each.patient, institutions.get(each.patient, INSTITUTION)
        try:
            if each.is_volume:
                yield from _read_volume(root, each, place)
            else:
                yield _read_slice(root, each, place, params.patient)
        except DataError as error:
            problems += error.problems
    raise_all(problems)


def _read_slice(root: Path, found: PairedFiles, place: tuple[str, str], rule: str) -> Pair:
    """A slice: both files' bytes."""
    image, mask = Path(found.image), Path(found.mask)
    mask_name = mask.name if mask.name != image.name else f"{mask.stem}_mask{mask.suffix}"
    pair = Pair(*place, found.number, image.name, mask_name, _read_bytes(root / image), _read_bytes(root / mask))
    if rule == "each_volume":
        pictures.decode(pair.image, str(root / image))  # a damaged file is reported as damaged
        fix = "set download.patient: folder, a regular expression, or each_image"
        raise DataError(root / image, "is a single slice, not a volume", fix)
    if rule == "each_image" and pictures.is_deep(pair.image):
        what = "has more than 8 bits: its intensity window needs the other slices of the patient"
        raise DataError(root / image, what, "set download.patient: folder or a regular expression, or save 8 bits")
    return pair


def _read_volume(root: Path, found: PairedFiles, place: tuple[str, str]) -> Iterator[Pair]:
    """A volume's axial slices."""
    readers, paths = (scans.read_image, scans.read_labels), (root / found.image, root / found.mask)
    read: list[scans.Scan] = []
    problems: list[Problem] = []
    for reader, path in zip(readers, paths, strict=True):
        try:
            read.append(reader(path, str(path)))
        except DataError as error:
            problems += error.problems
    raise_all(problems)
    image, mask = read
    raise_all(scans.find_problems(image, mask, str(paths[1])))
    name = pairing.split_name(PurePosixPath(found.image).name)[0]
    for number, (pixels, labels) in enumerate(zip(image.voxels, mask.voxels, strict=True), 1):
        names = f"{name}_{number:04}.npy", f"{name}_{number:04}_mask.npy"
        yield Pair(*place, number, *names, pictures.encode(pixels), pictures.encode(labels), image.spacing)


def _read_institutions(root: Path, patients: set[str], strict: bool) -> dict[str, str]:
    """Patient → institution, as ``patients.csv`` says; empty where there is no such file.

    A patient in it who is not in ``patients`` is an error if ``strict``, else ignored.
    """
    path = root / PATIENTS
    if not path.exists():
        return {}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(path, f"cannot be read ({error})", "write a CSV of patient, institution") from None
    if not {"patient", "institution"} <= set(table.columns):
        what = f"has the columns {', '.join(table.columns)}"
        raise DataError(path, what, "give it the columns patient and institution")
    problems = [
        Problem(f"{path}: {patient}", "no such patient among the images", "correct or remove the line")
        for patient in sorted(set(table["patient"]) - patients)
        if strict
    ]
    twice = table.loc[table["patient"].duplicated(), "patient"]
    problems += [Problem(f"{path}: {patient}", "is there twice", "name each patient once") for patient in twice]
    raise_all(problems)
    return {patient: name or INSTITUTION for patient, name in zip(table["patient"], table["institution"], strict=True)}


def _read_bytes(path: Path) -> bytes:
    with guard(path):
        return path.read_bytes()
