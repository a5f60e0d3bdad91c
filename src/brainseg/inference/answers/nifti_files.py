"""Results as NIfTI: masks and maps in the geometry of the input file, volumes in axial order for the page's viewer."""

import gzip
from pathlib import Path

import nibabel
import numpy as np

from brainseg.inference.cases import Case
from brainseg.io import nifti, volumes

UPRIGHT = np.diag([-1.0, -1.0, 1.0, 1.0])  # radiological display, 1 mm: for files that hold neither place nor size
_LEVEL = 4  # of gzip: a third of the time of level 9 for a tenth more bytes
_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def encode_file_order(voxels: np.ndarray, case: Case, folder: Path) -> bytes:
    """Encode (S, H, W), a uint8 mask or a float32 map, as .nii.gz on the voxels of the input file.

    ``folder``: an empty temporary folder.
    """
    slices, height, width = voxels.shape
    geometry = case.volume.geometry if case.volume else volumes.Geometry(UPRIGHT, (width, height, slices))
    path = folder / "answer.nii.gz"
    try:
        nifti.write(path, voxels, geometry)
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def encode_axial(voxels: np.ndarray, case: Case) -> bytes:
    """Encode uint8 (S, H, W), or (S, H, W, 3) as RGB24, as .nii.gz: columns, rows, slices in radiological display."""
    data = voxels.transpose(2, 1, 0, *range(3, voxels.ndim))
    affine = UPRIGHT if case.volume is None else volumes.axial_affine(case.volume)[:, [2, 1, 0, 3]]
    if data.ndim == 4:
        data = np.ascontiguousarray(data).view(_RGB)[..., 0]
    image = nibabel.Nifti1Image(data, affine, dtype=data.dtype)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    return gzip.compress(image.to_bytes(), _LEVEL, mtime=0)
