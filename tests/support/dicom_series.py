"""DICOM series that are made up, with a name or a date in every place that the standard has for one."""

import warnings

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402
from pydicom.datadict import DicomDictionary, tag_for_keyword  # noqa: E402
from pydicom.dataelem import RawDataElement  # noqa: E402
from pydicom.tag import Tag  # noqa: E402

ROWS, COLUMNS, COUNT = 9, 10, 4
STORED = np.random.default_rng(0).permutation(4096)[: COUNT * ROWS * COLUMNS].reshape(COUNT, ROWS, COLUMNS)
ANGLE = np.radians(12)
AXES = [0, np.cos(ANGLE), np.sin(ANGLE), -1, 0, 0]  # oblique: a row runs to the back, a column to the right
NORMAL = np.cross(AXES[:3], AXES[3:])
TEXTS = {"PN": "DOE^JANE", "DA": "19700101", "TM": "193000", "DT": "19700101", "UI": "1.2.19700101", "CS": "DOE JANE"}
TEXTS |= dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC"), "DOE JANE 1970")
USED = {"PhotometricInterpretation", "BurnedInAnnotation", "SpecificCharacterSet", "SOPClassUID", "SeriesInstanceUID"}


def personal() -> pydicom.Dataset:
    """A name or a date in every text tag that the standard knows."""
    dataset = pydicom.Dataset()
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr in TEXTS and keyword not in USED and 0x0008 <= tag >> 16 < 0xFFFA:
            dataset.add_new(tag, vr, TEXTS[vr])
    dataset.add_new(0x00090010, "LO", "DOE JANE 1970")
    dataset.add_new(0x00091001, "PN", "DOE^JANE")
    return dataset


PERSONAL = personal()


def one(n: int, **changes) -> pydicom.Dataset:
    """Slice ``n``; a change to None removes the tag, bytes are written as they are."""
    dataset = pydicom.Dataset()
    dataset.update(PERSONAL if n == 2 else {})  # the file that the tables below make bad
    values = {
        "SOPClassUID": uid.MRImageStorage, "SeriesInstanceUID": "1.2.19700101.1", "Rows": ROWS, "Columns": COLUMNS,
        "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1, "BitsAllocated": 16, "BitsStored": 12,
        "HighBit": 11, "PixelRepresentation": 0, "ImageOrientationPatient": [f"{cosine:.8f}" for cosine in AXES],
        "ImagePositionPatient": [f"{mm:.6f}" for mm in np.array([-70, 25.5, 90]) + 3 * n * NORMAL],
        "PixelSpacing": [1.25, 0.75], "SliceThickness": 2, "PixelData": STORED[n % COUNT].astype("<u2").tobytes(),
    }  # fmt: skip
    for keyword, value in (values | changes).items():
        dataset.pop(keyword, None)  # setting its value would change PERSONAL too
        if value is None:
            continue
        if isinstance(value, bytes) and keyword != "PixelData":
            tag = Tag(tag_for_keyword(keyword))
            dataset[tag] = RawDataElement(tag, DicomDictionary[tag][0], len(value), value, 0, False, True)
        else:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    return dataset


def save(folder, datasets, syntax=uid.ExplicitVRLittleEndian) -> list:
    """Write files whose names are not in the order of the slices."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{(n * 7 + 3) % 10}.dcm" for n in range(len(datasets))]
    for path, dataset in zip(paths, datasets, strict=True):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID") or uid.MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.19700101"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.save_as(path, enforce_file_format=True)
    return paths


def save_series(folder, voxels: np.ndarray) -> list:
    """Axial slices (S, H, W) uint16, at most ten, in display order, 5 mm apart; two headers hold names and dates."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    straight = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "BitsStored": 16, "HighBit": 15}
    sides = dict(zip(("Rows", "Columns"), voxels.shape[1:], strict=True))
    places = [{"ImagePositionPatient": [-30, -40, 5 * n], "PixelData": pixels.astype("<u2").tobytes()}
              for n, pixels in enumerate(voxels)]  # fmt: skip
    return save(folder, [one(n, **straight, **sides, **place) for n, place in enumerate(places)])


def series(**changes) -> list:
    return [one(n, **changes) for n in range(COUNT)]
