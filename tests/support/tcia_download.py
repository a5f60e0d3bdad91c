"""A download as The Cancer Imaging Archive gives it: PatientID / StudyUID / SeriesUID / 1-01.dcm, with LICENSE."""

from pathlib import Path

import numpy as np
from pydicom import uid

from tests.support import dicom_series
from tests.support.dicom_compressed import compress, item

PATIENT, STUDY = "TCGA-XX-0001", "1.3.6.1.4.1.14519.5.2.1.100"
TIMES = {3: (120, 9000, 2500), 4: (100, 4000, None)}  # ms: echo, repetition, inversion
DIRECTIONS = ([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])  # axial, coronal, sagittal


def make(home: Path, voxels: np.ndarray) -> Path:
    """Write the download.

    Args:
        home: a new folder.
        voxels: (S, H, W) uint16, the axial slices of each series, at most ten.

    Returns:
        The folder of the study; in it, the folder ``N`` of each series by number: 1 localizer, 2 pre-contrast, 3 FLAIR
        (JPEG lossless), 4 T2 (RLE), 5 post-contrast, 6 screenshot, 7 presentation state, 8 report.
    """
    study = home / PATIENT / STUDY
    study.mkdir(parents=True)
    (home / "LICENSE").write_text("Creative Commons Attribution 3.0\n")
    localizer = stack(1, voxels[:3])
    for own, direction in zip(localizer, DIRECTIONS, strict=True):
        own.ImageOrientationPatient = direction
    _save(study, 1, localizer)
    for number in (2, 3, 4, 5):
        echo, repetition, inversion = TIMES.get(number, (12, 600, None))
        times = {"EchoTime": echo, "RepetitionTime": repetition, "InversionTime": inversion}
        paths = _save(study, number, stack(number, voxels, **times))
        if number in (3, 4):
            compress(paths, uid.JPEGLosslessSV1 if number == 3 else uid.RLELossless)
    flat = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None}
    _save(study, 6, stack(6, voxels[:1], SOPClassUID=uid.SecondaryCaptureImageStorage, **flat))
    for number, kind in ((7, uid.GrayscaleSoftcopyPresentationStateStorage), (8, uid.BasicTextSRStorage)):
        _save(study, number, stack(number, voxels[:1], SOPClassUID=kind, Rows=None, PixelData=None))
    return study


def stack(number: int, voxels: np.ndarray, **changes) -> list:
    base = {"ImageOrientationPatient": DIRECTIONS[0], "SeriesInstanceUID": f"{STUDY}.{number}", "SeriesNumber": number}
    base |= {"StudyInstanceUID": STUDY, "Rows": voxels.shape[1], "Columns": voxels.shape[2]}
    return [
        dicom_series.one(n, **base | {"ImagePositionPatient": [-30, -40, 5 * n], "PixelData": own.tobytes()} | changes)
        for n, own in enumerate(voxels.astype("<u2"))
    ]


def _save(study: Path, number: int, datasets: list) -> list[Path]:
    folder = study / str(number)
    paths = [path.rename(folder / f"1-{n:02}.dcm") for n, path in enumerate(dicom_series.save(folder, datasets), 1)]
    (folder / "LICENSE").write_text("Creative Commons Attribution 3.0\n")
    return paths


def make_dicomdir(folder: Path, names: list[list[str]]) -> Path:
    """A DICOMDIR that names these files, each as folders and name."""
    dataset = dicom_series.one(0, SOPClassUID=uid.MediaStorageDirectoryStorage, PixelData=None, Rows=None)
    dataset.DirectoryRecordSequence = [item(DirectoryRecordType="IMAGE", ReferencedFileID=name)[0] for name in names]
    [path] = dicom_series.save(folder / "scratch", [dataset])
    path = path.rename(folder / "DICOMDIR")
    (folder / "scratch").rmdir()
    return path
