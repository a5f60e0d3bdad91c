"""The user's own images and masks, slices or volumes, as ``layouts`` find them, for the archive.

``patients.csv`` at the top of the folder (columns patient, institution) may name the institution of each patient whom
no other table gives one.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from brainseg import config
from brainseg.data import csv_tables
from brainseg.data.archive import Pair
from brainseg.data.layouts import finding, pairing, recognition
from brainseg.data.layouts.pairing import PairedFiles
from brainseg.errors import DataError, Problem, guard, printable, raise_all, show_some
from brainseg.io import nifti, pictures, scans

INSTITUTION = "unknown"
_SHOWN = 5  # names in a line


def pairs(params: config.Download, scope: pairing.Scope = pairing.ALL) -> Iterator[Pair]:
    """The folder's pairs, sorted by patient and slice number.

    The slice number is the last number in the image's name, or counts a volume's axial slices from feet to head. The
    bytes of slices are taken as they are; preprocess decodes and checks them. The layout and two patients, and what was
    assumed or passed over, are told on stderr.

    Raises:
        DataError: everything that has no partner, two partners, no patient or no number, in one list; at the end
            every fault of the volumes.
    """
    read = recognition.find(params, scope)
    raise_all(read.found.problems)
    root, problems, remarks = read.root, list[Problem](), Remarks()
    if read.layout != recognition.PATTERNS:
        print(f"{root}: {read.title}, {read.why} (download.layout: {read.layout})", file=sys.stderr)
    patients = {each.patient for each in read.found.cases}
    shown = "; ".join(finding.show_patients(read.found.cases))
    print(f"{root}: {len(patients):,} patients ({recognition.name_rule(params)}): {printable(shown)}", file=sys.stderr)
    institutions = _read_institutions(
        (scope.patients or root) / recognition.PATIENTS, patients, params, strict=not scope.patients
    )
    for each in tqdm(read.found.cases, desc="pack", unit="pairs", mininterval=0.5, disable=None):
        place = each.patient, each.institution or institutions.get(each.patient, INSTITUTION)
        try:
            if each.is_volume:
                yield from _read_volume(root, each, place, remarks)
            else:
                yield _read_slice(root, each, place, params.patient)
        except DataError as error:
            problems += error.problems
    for line in (*read.found.remarks, *count_reasons(read.found.passed), *remarks.lines()):
        print(f"WARNING {printable(line)}", file=sys.stderr)
    raise_all(problems)


class Remarks:
    """What was assumed of single files, gathered so that each is told once."""

    def __init__(self) -> None:
        self._files: dict[str, list[str]] = defaultdict(list)

    def add(self, name: str, remarks: Iterable[str]) -> None:
        for remark in remarks:
            self._files[remark].append(name)

    def lines(self) -> list[str]:
        return [f"{show_some(names, _SHOWN)}: {remark}" for remark, names in self._files.items()]


def count_reasons(passed: Mapping[str, str]) -> list[str]:
    """A line for each reason why files are passed over."""
    names = defaultdict(list)
    for name, why in passed.items():
        names[why].append(name)
    return [f"passed over, {why}: {show_some(each, _SHOWN)}" for why, each in names.items()]


def _read_slice(root: Path, found: PairedFiles, place: tuple[str, str], rule: str) -> Pair:
    """A slice: both files' bytes."""
    image, mask = Path(found.image), Path(found.mask)
    mask_name = mask.name if mask.name != image.name else f"{mask.stem}_mask{mask.suffix}"
    data = _read_bytes(root / image), _read_bytes(root / mask)
    pair = Pair(*place, found.number, image.name, mask_name, *data, image_file=found.image, mask_file=found.mask)
    pictures.decode_labels(pair.mask, str(root / mask))  # preprocess would name the archive's member
    if rule == "each_volume":
        pictures.decode(pair.image, str(root / image))  # a damaged file is reported as damaged
        fix = "set download.patient: folder, a regular expression, or each_image"
        raise DataError(root / image, "is a single slice, not a volume", fix)
    if rule == "each_image" and pictures.is_deep(pair.image):
        what = "has more than 8 bits: its intensity window needs the other slices of the patient"
        raise DataError(root / image, what, "set download.patient: folder or a regular expression, or save 8 bits")
    return pair


def _read_volume(root: Path, found: PairedFiles, place: tuple[str, str], remarks: Remarks) -> Iterator[Pair]:
    """A volume's axial slices."""
    mask_path = root / found.mask
    read: list[scans.Scan] = []
    problems: list[Problem] = []
    try:
        read.append(_read_channels(root, found))
    except DataError as error:
        problems += error.problems
    if read or not scans.is_dicom(mask_path):  # a SEG is placed on its image
        try:
            read.append(scans.read_labels(mask_path, str(mask_path), read[0].volume if read else None))
        except DataError as error:
            problems += error.problems
    raise_all(problems)
    image, mask = read
    raise_all(scans.find_problems(image, mask, str(mask_path)))
    doubt = image.volume.doubt if image.volume else ""
    remarks.add(found.image, (*image.remarks, *([doubt] if doubt else [])))
    remarks.add(found.mask, mask.remarks)
    name = pairing.find_stem(found.image)
    kind = "labels" if found.any_label else "classes" if found.mixed else "mask"  # see preprocessing
    for number, (pixels, labels) in enumerate(zip(image.voxels, mask.voxels, strict=True), 1):
        names = f"{name}_{number:04}.npy", f"{name}_{number:04}_{kind}.npy"
        data = pictures.encode(pixels), pictures.encode(labels)
        yield Pair(*place, number, *names, *data, image.spacing, found.image, found.mask)


def _read_channels(root: Path, found: PairedFiles) -> scans.Scan:
    """The image with the further sequences that it has: (S, H, W) FLAIR or (S, H, W, 3).

    A sequence that is missing, or lies elsewhere in space than the FLAIR, is replaced by FLAIR, as in LGG.
    """
    path = root / found.image
    if found.volumes:
        with guard(path):
            volume = nifti.read_sequences(path, str(path), found.sequences, found.volumes)
        return scans.Scan(volume.voxels, volume, volume.remarks)
    flair = scans.read_image(path, str(path))
    if not found.pre and not found.post:
        return flair
    remarks, parts = [*flair.remarks], []
    for word, name in (("pre-contrast", found.pre), ("post-contrast", found.post)):
        part = scans.read_image(root / name, str(root / name)) if name else flair
        fits = part is flair or not scans.find_problems(flair, part, name)
        if not fits:
            remarks.append(f"{word} lies elsewhere in space, so FLAIR is in its place")
        if not name:
            remarks.append(f"{word} is missing, so FLAIR is in its place")
        parts.append(part if fits else flair)
    return scans.Scan(_stack(parts[0], flair, parts[1], found), flair.volume, tuple(remarks))


def _stack(pre: scans.Scan, flair: scans.Scan, post: scans.Scan, found: PairedFiles) -> np.ndarray:
    """(S, H, W, 3); of several types float32."""
    parts = [each.voxels for each in (pre, flair, post)]
    if any(part.ndim != 3 for part in parts):
        what = "has three channels, and its other sequences are files of their own"
        raise DataError(found.image, what, "save FLAIR alone in it")
    types = {part.dtype for part in parts}
    return np.stack([part if len(types) == 1 else part.astype(np.float32) for part in parts], axis=-1)


def _read_institutions(path: Path, patients: set[str], params: config.Download, *, strict: bool) -> dict[str, str]:
    """Patient → institution, as ``patients.csv`` says; empty where there is no such file, or it is another table.

    A patient in it who is not in ``patients`` is an error if ``strict``, else ignored.
    """
    if not path.exists() or (params.patients and path.samefile(recognition.find_table(params.patients))):
        return {}
    try:
        table = csv_tables.read_csv(path, dtype=str, keep_default_na=False)
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
