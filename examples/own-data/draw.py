"""Draw a data set of phantoms in the layout of your own: ``python examples/own-data/draw.py bids /tmp/hospital``.

The heads are those of ``make demo``. README.md beside this file has the lines for params.yaml of each layout.
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from brainseg import config, errors
from brainseg.data.phantom import cohort
from brainseg.errors import DataError
from brainseg.io import pictures

ORIGIN = (70.0, 90.0, -30.0)  # mm, of the first voxel of a volume
FIELD, HEIGHT = 230.0, 120.0  # mm, of a slice's side and of all slices
GAIN = 8  # scanners have more than 8 bits
INTENSITY = np.int16
NNUNET = {"T1": "t1", "T1Gd": "t1ce", "T2": "t2", "FLAIR": "flair"}  # name of a channel → sequence
DECATHLON = {"FLAIR": "flair", "T1w": "t1", "t1gd": "t1ce", "T2w": "t2"}
PARTS = {"background": 0, "oedema": 1, "core": 2}


class Scan(NamedTuple):
    """The sequences t1, flair, t1ce, t2 of a patient, and the labels of the tumour: (S, H, W), from feet to head."""

    sequences: Mapping[str, np.ndarray]
    labels: np.ndarray
    spacing: tuple[float, float, float] = (1.1, 0.9, 5.0)  # mm between rows, columns, slices


class Head(NamedTuple):
    """A phantom: 8-bit slices (S, H, W, 3) of T1, FLAIR and T1 with contrast agent, and labels as in PARTS."""

    institution: str
    slices: np.ndarray
    labels: np.ndarray


def draw_heads(params: config.Phantom) -> list[Head]:
    heads = []
    groups = [list(group) for _, group in groupby(cohort.pairs(params), key=lambda pair: pair.patient)]
    for pairs in sorted(groups, key=lambda group: group[0].patient[-4:]):  # by number: institutions are mixed
        slices = np.stack([pictures.decode(pair.image, pair.image_name) for pair in pairs])
        tumour = np.stack([pictures.decode(pair.mask, pair.mask_name) for pair in pairs]) > 0
        core = binary_erosion(tumour, np.ones((1, 3, 3)), iterations=2)
        heads.append(Head(pairs[0].institution, slices, tumour.astype(np.uint8) + core))
    return heads


def build_scan(head: Head, labels: Sequence[int] = (0, 1, 2)) -> Scan:
    """The head as volumes; ``labels`` are those of background, oedema and core."""
    t1, flair, t1ce = np.moveaxis(head.slices.astype(INTENSITY) * GAIN, -1, 0)
    t2 = np.where(flair > 20 * GAIN, 255 * GAIN - t1, t1)  # a stand-in: it is not read
    side, step = FIELD / head.slices.shape[1], HEIGHT / len(head.slices)
    sequences = {"t1": t1, "flair": flair, "t1ce": t1ce, "t2": t2}
    return Scan(sequences, np.array(labels, np.uint8)[head.labels], (side, side, step))


# What follows writes a layout, whatever the voxels; tests/support/own_layouts.py uses it as well.


def write_volume(path: Path, voxels: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Write axial slices (S, H, W) or (S, H, W, sequences) as NIfTI: columns to the left, rows to the back."""
    rows, columns, slices = spacing
    affine = np.diag([-columns, -rows, slices, 1.0])
    affine[:3, 3] = ORIGIN
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels.swapaxes(0, 2), affine), path)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def write_brats(root: Path, scans: Mapping[str, Scan]) -> None:
    """BraTS 2018 to 2021: ``CASE/CASE_flair.nii.gz``, ``_t1``, ``_t1ce``, ``_t2``, ``_seg``."""
    _write_brats(root, scans, "_", {"t1": "t1", "flair": "flair", "t1ce": "t1ce", "t2": "t2"})


def write_brats_2023(root: Path, scans: Mapping[str, Scan]) -> None:
    """BraTS 2023: ``CASE/CASE-t2f.nii.gz``, ``-t1n``, ``-t1c``, ``-t2w``, ``-seg``."""
    _write_brats(root, scans, "-", {"t1n": "t1", "t1c": "t1ce", "t2f": "flair", "t2w": "t2"})


def _write_brats(root: Path, scans: Mapping[str, Scan], separator: str, words: Mapping[str, str]) -> None:
    for case, scan in scans.items():
        for word, kind in words.items():
            write_volume(root / case / f"{case}{separator}{word}.nii.gz", scan.sequences[kind], scan.spacing)
        write_volume(root / case / f"{case}{separator}seg.nii.gz", scan.labels, scan.spacing)


def write_nnunet(
    root: Path, scans: Mapping[str, Scan], channels: Mapping[str, str] = NNUNET, labels: Mapping[str, int] = PARTS
) -> None:
    """nnU-Net: ``imagesTr/CASE_0000.nii.gz`` for each channel, ``labelsTr/CASE.nii.gz``, ``dataset.json``."""
    for case, scan in scans.items():
        for number, kind in enumerate(channels.values()):
            write_volume(root / f"imagesTr/{case}_{number:04}.nii.gz", scan.sequences[kind], scan.spacing)
        write_volume(root / f"labelsTr/{case}.nii.gz", scan.labels, scan.spacing)
    facts = {"channel_names": dict(enumerate(channels)), "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(facts | {"numTraining": len(scans)}, indent=1), encoding="utf-8")


def write_decathlon(
    root: Path, scans: Mapping[str, Scan], channels: Mapping[str, str] = DECATHLON, labels: Mapping[str, int] = PARTS
) -> None:
    """Medical Decathlon: ``imagesTr/CASE.nii.gz`` in 4-D, ``labelsTr/CASE.nii.gz``, ``dataset.json``."""
    for case, scan in scans.items():
        volumes = [scan.sequences[kind] for kind in channels.values()]
        image = np.stack(volumes, -1) if len(volumes) > 1 else volumes[0]
        write_volume(root / f"imagesTr/{case}.nii.gz", image, scan.spacing)
        write_volume(root / f"labelsTr/{case}.nii.gz", scan.labels, scan.spacing)
    facts = {"modality": dict(enumerate(channels)), "labels": {label: name for name, label in labels.items()}}
    (root / "dataset.json").write_text(json.dumps(facts | {"numTraining": len(scans)}, indent=1), encoding="utf-8")


def write_bids(root: Path, scans: Mapping[str, Scan], session: str = "") -> None:
    """BIDS: ``sub-01/[ses-1/]anat/sub-01_FLAIR.nii.gz`` and the like, masks below ``derivatives/``."""
    middle, in_name = (f"{session}/", f"_{session}") if session else ("", "")
    words = {"FLAIR": "flair", "T1w": "t1", "ce-gadolinium_T1w": "t1ce", "T2w": "t2"}
    for subject, scan in scans.items():
        folder, name = f"{subject}/{middle}anat", f"{subject}{in_name}"
        for word, kind in words.items():
            write_volume(root / folder / f"{name}_{word}.nii.gz", scan.sequences[kind], scan.spacing)
        brain = (scan.sequences["flair"] > 20 * GAIN).astype(np.uint8)  # a mask that is not of a tumour
        masks = {"label-lesion": (scan.labels > 0).astype(np.uint8), "desc-brain": brain}
        for word, mask in masks.items():
            write_volume(root / "derivatives/manual" / folder / f"{name}_{word}_mask.nii.gz", mask, scan.spacing)
    description = {"Name": "Phantoms", "BIDSVersion": "1.9.0"}
    (root / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")


def write_pairs(root: Path, scans: Mapping[str, Scan], people: Mapping[str, Sequence[str]]) -> None:
    """A CSV of pairs, ``lists/pairs.csv``, and the volumes in a folder for each case.

    Args:
        people: case → patient, institution, age.
    """
    words = {"flair": "flair", "t1": "t1", "t1ce": "t1ce"}
    rows = []
    for case, scan in scans.items():
        for word, kind in words.items():
            write_volume(root / case / f"{word}.nii.gz", scan.sequences[kind], scan.spacing)
        write_volume(root / case / "mask.nii.gz", (scan.labels > 0).astype(np.uint8), scan.spacing)
        rows.append([*(f"../{case}/{word}.nii.gz" for word in (*words, "mask")), *people[case]])
    write_table(root / "lists/pairs.csv", ["image", "pre", "post", "mask", "patient", "institution", "age"], rows)


def write_slices(root: Path, slices: Mapping[str, tuple[np.ndarray, np.ndarray]], ends: tuple[str, str]) -> None:
    """Pictures: name → image and mask; ``ends`` are what follows the names of images and of masks."""
    for name, pair in slices.items():
        for end, pixels in zip(ends, pair, strict=True):
            path = root / end.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def write_dicom(root: Path, scans: Mapping[str, Scan]) -> None:
    """A series of FLAIR for each case, ``scans/CASE/``, and its tumour as DICOM SEG, ``masks/CASE.dcm``."""
    import highdicom

    (root / "masks").mkdir(parents=True)
    word = highdicom.sr.CodedConcept("108369006", "SCT", "Neoplasm")
    segment = highdicom.seg.SegmentDescription(1, "tumour", word, word, "MANUAL")
    for number, (case, scan) in enumerate(scans.items(), 1):
        files = _write_series(root / "scans" / case, case, f"1.2.826.0.1.3680043.8.498.{number}", scan)
        sources = [highdicom.imread(path) for path in files]
        uids = f"1.2.826.0.1.3680043.8.498.{number}.8", 9, f"1.2.826.0.1.3680043.8.498.{number}.9"
        highdicom.seg.Segmentation(
            sources, scan.labels > 0, "BINARY", [segment], *uids, 1, "brainseg", "phantom", "1", "0"
        ).save_as(root / f"masks/{case}.dcm")


def _write_series(folder: Path, patient: str, root: str, scan: Scan) -> list[Path]:
    """A file for each axial slice."""
    from pydicom import FileMetaDataset, uid
    from pydicom.dataset import FileDataset

    folder.mkdir(parents=True)
    rows, columns, step = scan.spacing
    paths = []
    for number, pixels in enumerate(scan.sequences["flair"].astype("<u2")):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = uid.ExplicitVRLittleEndian, uid.MRImageStorage
        meta.MediaStorageSOPInstanceUID = uid.UID(f"{root}.3.{number + 1}")
        path = folder / f"IM{number + 1:04}"
        file = FileDataset(str(path), {}, file_meta=meta)
        values = {
            "SOPClassUID": uid.MRImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "StudyInstanceUID": f"{root}.1", "SeriesInstanceUID": f"{root}.2", "FrameOfReferenceUID": f"{root}.4",
            "Modality": "MR", "SeriesNumber": 1, "SeriesDescription": "FLAIR", "InstanceNumber": number + 1,
            "PatientID": patient, "PatientName": "PHANTOM^", "PatientBirthDate": "", "PatientSex": "O",
            "StudyDate": "20240101", "StudyTime": "120000", "StudyID": "1", "AccessionNumber": "",
            "ReferringPhysicianName": "", "PositionReferenceIndicator": "",
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [-ORIGIN[0], -ORIGIN[1], round(ORIGIN[2] + number * step, 4)],
            "PixelSpacing": [round(rows, 4), round(columns, 4)], "SliceThickness": round(step, 4),
            "Rows": pixels.shape[0], "Columns": pixels.shape[1], "SamplesPerPixel": 1, "BitsAllocated": 16,
            "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0, "PhotometricInterpretation": "MONOCHROME2",
        }  # fmt: skip
        for keyword, value in values.items():
            setattr(file, keyword, value)
        file.add_new("PixelData", "OW", pixels.tobytes())
        file.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


# A hospital in each layout.


def draw_brats(root: Path, heads: Sequence[Head]) -> None:
    cases = [f"BraTS20_Training_{number:03}" for number in range(1, len(heads) + 1)]
    write_brats(root, {case: build_scan(head, (0, 2, 1)) for case, head in zip(cases, heads, strict=True)})
    _write_institutions(root, cases, heads)


def draw_nnunet(root: Path, heads: Sequence[Head]) -> None:
    cases = [f"GLI_{number:03}" for number in range(1, len(heads) + 1)]
    write_nnunet(root, {case: build_scan(head) for case, head in zip(cases, heads, strict=True)})
    _write_cases(root, cases, heads)


def draw_decathlon(root: Path, heads: Sequence[Head]) -> None:
    cases = [f"BRATS_{number:03}" for number in range(1, len(heads) + 1)]
    write_decathlon(root, {case: build_scan(head) for case, head in zip(cases, heads, strict=True)})
    _write_cases(root, cases, heads)


def draw_bids(root: Path, heads: Sequence[Head]) -> None:
    subjects = [f"sub-{number:02}" for number in range(1, len(heads) + 1)]
    write_bids(root, {subject: build_scan(head) for subject, head in zip(subjects, heads, strict=True)})
    _write_institutions(root, subjects, heads)


def draw_table(root: Path, heads: Sequence[Head]) -> None:
    cases = [f"2024-{number:04}" for number in range(1, len(heads) + 1)]
    scans = {case: build_scan(head) for case, head in zip(cases, heads, strict=True)}
    ages = range(31, 31 + len(heads))
    people = {
        case: (f"p{case[-2:]}", head.institution, str(age)) for case, head, age in zip(cases, heads, ages, strict=True)
    }
    write_pairs(root, scans, people)


def draw_folders(root: Path, heads: Sequence[Head]) -> None:
    """``images/p01_z001.png`` and ``masks/p01_z001.png``: FLAIR alone, as pictures."""
    names = [f"p{number:02}" for number in range(1, len(heads) + 1)]
    slices = {
        f"{name}_z{number:03}": (image[..., 1].copy(), np.uint8(255) * (labels > 0))
        for name, head in zip(names, heads, strict=True)
        for number, (image, labels) in enumerate(zip(head.slices, head.labels, strict=True), 1)
    }
    write_slices(root, slices, ("images/{}.png", "masks/{}.png"))
    _write_institutions(root, names, heads)


def draw_patterns(root: Path, heads: Sequence[Head]) -> None:
    """``p01/p01_1.tif`` and ``p01/p01_1_mask.tif``, as LGG has them: three channels, a folder for each patient."""
    names = [f"p{number:02}" for number in range(1, len(heads) + 1)]
    slices = {
        f"{name}/{name}_{number}": (image, np.uint8(255) * (labels > 0))
        for name, head in zip(names, heads, strict=True)
        for number, (image, labels) in enumerate(zip(head.slices, head.labels, strict=True), 1)
    }
    write_slices(root, slices, ("{}.tif", "{}_mask.tif"))
    _write_institutions(root, names, heads)


def draw_dicom(root: Path, heads: Sequence[Head]) -> None:
    names = [f"p{number:02}" for number in range(1, len(heads) + 1)]
    write_dicom(root, {name: build_scan(head) for name, head in zip(names, heads, strict=True)})
    _write_institutions(root, names, heads)


def _write_institutions(root: Path, patients: Sequence[str], heads: Sequence[Head]) -> None:
    """``patients.csv``, which is read by its name."""
    rows = [(patient, head.institution) for patient, head in zip(patients, heads, strict=True)]
    write_table(root / "patients.csv", ["patient", "institution"], rows)


def _write_cases(root: Path, cases: Sequence[str], heads: Sequence[Head]) -> None:
    """``cases.csv`` for ``download.patients``. The last case is a second scan of the patient before."""
    patients = [f"MS-{min(number, len(heads) - 1):04}" for number in range(1, len(heads) + 1)]
    homes = [head.institution for head in heads[:-1]] + [heads[-2].institution]
    write_table(root / "cases.csv", ["case", "patient", "institution"], zip(cases, patients, homes, strict=True))


LAYOUTS: dict[str, Callable[[Path, Sequence[Head]], None]] = {
    "brats": draw_brats,
    "nnunet": draw_nnunet,
    "decathlon": draw_decathlon,
    "bids": draw_bids,
    "table": draw_table,
    "folders": draw_folders,
    "patterns": draw_patterns,
    "dicom": draw_dicom,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a data set of phantoms in the layout of your own.")
    parser.add_argument("layout", choices=LAYOUTS)
    parser.add_argument("folder", type=Path, help="a new folder, or an empty one")
    parser.add_argument("--patients", type=int, default=12, help="scans, at least 2 (default: 12)")
    parser.add_argument("--slices", type=int, default=12, help="of a patient, about (default: 12)")
    parser.add_argument("--size", type=int, default=128, help="pixels of a slice's side, 64 to 512 (default: 128)")
    given = parser.parse_args()
    if given.folder.exists() and (not given.folder.is_dir() or any(given.folder.iterdir())):
        raise DataError(given.folder, "is there, and is not an empty folder", "name a new folder")
    if not (2 <= given.patients <= 1000 and 1 <= given.slices <= 200 and 64 <= given.size <= 512):
        what = f"are {given.patients}, {given.slices} and {given.size}"
        fix = "2 to 1000 patients, 1 to 200 slices, a side of 64 to 512 pixels"
        raise DataError("--patients, --slices, --size", what, fix)
    heads = draw_heads(config.Phantom(patients=given.patients, slices=given.slices, size=given.size, seed=11))
    given.folder.mkdir(parents=True, exist_ok=True)
    LAYOUTS[given.layout](given.folder, heads)
    print(f"{given.folder}: {len(heads)} scans, {sum(len(head.slices) for head in heads)} slices ({given.layout})")


if __name__ == "__main__":
    errors.run(main)
