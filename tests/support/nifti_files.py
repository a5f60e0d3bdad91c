"""NIfTI files that are made up."""

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel")

AFFINE = np.array([[0.0, 0, -2, 30], [-1.5, 0, 0, 40], [0, 1.25, 0, -50], [0, 0, 0, 1]])  # columns, slices, rows
AT = {"dim": 40, "intent": 68, "datatype": 70, "bitpix": 72, "pixdim": 76, "step": 92, "vox_offset": 108, "slope": 112,
      "inter": 116, "units": 123, "descrip": 148, "qform": 252, "sform": 254, "quatern": 256, "srow": 280,
      "magic": 344}  # fmt: skip
LPS = np.diag([-0.9, -1.1, 5.0, 1.0])  # columns to the left, rows to the back, slices to the head: axial display
ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def encode(array: np.ndarray, affine=AFFINE, kind=nibabel.Nifti1Image, **edits) -> bytes:
    """The bytes of a NIfTI file; ``edits`` overwrite its header, given as ``(format, *values)``."""
    image = kind(array, affine, dtype=array.dtype)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    data = bytearray(image.to_bytes())
    for field, (layout, *values) in edits.items():
        struct.pack_into(layout, data, AT[field], *values)
    return bytes(data)


def nifti(
    path: Path,
    slices: np.ndarray,
    orientation=ORIENTATIONS[0],
    shift: float = 0.0,
    spacing: float = 1.0,
    rows: float = 1.1,
    columns: float = 0.9,
) -> Path:
    """Write axial slices (S, H, W[, C]) as NIfTI whose axes are permuted and flipped; the voxels stay in place."""
    axes, signs = orientation
    array, affine = slices.swapaxes(0, 2), LPS.copy()  # (column, row, slice)
    affine[0, 0], affine[1, 1] = -columns, -rows
    affine[:3, :3] *= spacing
    affine[:3, 3] = np.array([70.0, 90.0, -30.0]) + shift
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for new, (old, sign) in enumerate(zip(axes, signs, strict=True)):
        turn[old, new] = sign
        turn[old, 3] = array.shape[old] - 1 if sign < 0 else 0
    array = array.transpose(*axes, *range(3, array.ndim))[tuple(slice(None, None, sign) for sign in signs)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine @ turn), path)
    return path
