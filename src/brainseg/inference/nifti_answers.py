"""Answers as NIfTI: the mask in the file's own geometry, and what the page's viewer shows, in axial order."""

import gzip
from pathlib import Path

import nibabel
import numpy as np

from brainseg.inference.cases import Case
from brainseg.io import nifti, volumes

UPRIGHT = np.diag([-1.0, -1.0, 1.0, 1.0])  # radiological display, 1 mm, where a file tells neither place nor size
_LEVEL = 4  # of gzip: a third of the time of the highest for a tenth more bytes
_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def own_geometry(mask: np.ndarray, case: Case, folder: Path) -> bytes:
    """``mask`` (S, H, W) as .nii.gz on the voxels of the file that came; ``folder`` is empty and ours."""
    slices, height, width = mask.shape
    geometry = case.volume.geometry if case.volume else volumes.Geometry(UPRIGHT, (width, height, slices))
    path = folder / "mask.nii.gz"
    try:
        nifti.write(path, mask, geometry)
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def axial(voxels: np.ndarray, case: Case) -> bytes:
    """uint8 (S, H, W), or (S, H, W, 3) as RGB24, as .nii.gz; columns, rows, slices from the patient's upper right."""
    data = voxels.transpose(2, 1, 0, *range(3, voxels.ndim))
    affine = UPRIGHT if case.volume is None else volumes.axial_affine(case.volume)[:, [2, 1, 0, 3]]
    if data.ndim == 4:
        data = np.ascontiguousarray(data).view(_RGB)[..., 0]
    image = nibabel.Nifti1Image(data, affine, dtype=data.dtype)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), _LEVEL, mtime=0)
