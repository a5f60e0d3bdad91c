"""DICOM series that are complete: with patient, study and frame of reference, as a scanner writes them."""

import numpy as np

from tests.support import dicom_series

FRAME = "1.2.826.0.1.3680043.8.498.3"
STUDY = {
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1", "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.2",
    "FrameOfReferenceUID": FRAME, "SeriesNumber": 4, "Modality": "MR",
    "PatientName": "DOE^JANE", "PatientID": "4711", "PatientBirthDate": "19700101", "PatientSex": "F",
    "StudyDate": "20240229", "StudyTime": "120000", "StudyID": "1", "AccessionNumber": "",
    "ReferringPhysicianName": "", "PositionReferenceIndicator": "",
}  # fmt: skip
AXIAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]
A, B = np.radians([10, 17])
OBLIQUE = [np.cos(A), np.sin(A), 0, -np.sin(A) * np.cos(B), np.cos(A) * np.cos(B), np.sin(B)]
PLACES = {  # how a series may lie: arguments of ``save``
    "axial": {},
    "from the head down": {"step": -5},
    "oblique": {"axes": OBLIQUE},
    "sagittal": {"axes": SAGITTAL, "step": 1},
    "turned over": {"axes": [-1, 0, 0, 0, -1, 0]},
    "without thickness": {"SliceThickness": None},
}


def save(folder, stored: np.ndarray, axes=AXIAL, step: float = 5, **changes) -> list:
    """Slices (S, rows, columns) uint16, ``step`` mm apart along their normal, from the first to the last; files."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    axes = np.array(axes, float)
    normal = np.cross(axes[:3], axes[3:])
    sides = dict(zip(("Rows", "Columns"), stored.shape[1:], strict=True))
    made = []
    for n, pixels in enumerate(stored):
        dataset = dicom_series.one(n if n != 2 else 6, BitsStored=16, HighBit=15, **sides)
        place = {
            "ImageOrientationPatient": [f"{cosine:.8f}" for cosine in axes], "InstanceNumber": n + 1,
            "ImagePositionPatient": [f"{mm:.6f}" for mm in np.array([-30, -40, 7]) + step * n * normal],
            "SOPInstanceUID": f"{FRAME}.{n + 1}", "PixelData": pixels.astype("<u2").tobytes(),
        }  # fmt: skip
        for keyword, value in (STUDY | place | changes).items():
            if value is None:
                dataset.pop(keyword, None)
            else:
                setattr(dataset, keyword, value)
        dataset["PixelData"].VR = "OW"
        made.append(dataset)
    return dicom_series.save(folder, made)
