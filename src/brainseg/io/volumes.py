"""Where voxels lie: from a file's order to axial slices, and exactly back. Nothing is resampled.

The axes of a file are permuted and flipped to the nearest axes of the patient, by nibabel's orientations. Every voxel
keeps its value, and :func:`to_file_order` puts it back where it was. Positions are in millimetres, RAS+ as in NIfTI: x
grows to the patient's right, y to the front, z to the head.
"""

import itertools
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from brainseg.errors import DataError, lack_library
from brainseg.io.pictures import MIN_SIDE

MAX_SIDE = 1024
MAX_VOXELS = 2**27  # of all channels together: 1024 x 1024 x 128
MIN_SPACING, MAX_SPACING = 0.01, 100.0  # mm; outside, the unit is another one or the header is damaged
MIN_UPRIGHT = 0.99  # volume of a voxel divided by the product of its sides: 1 without shear, 0.99 at 8 degrees of shear
TOLERANCE = 0.1  # of the smallest spacing: two grids that are closer than this hold the same voxels

_FAR = 1e6  # mm; no scanner is as large, and sums of squares of smaller numbers stay finite
# What nibabel's io_orientation says of axial order: slices go to the head, rows to the back, columns to the left.
_AXIAL = np.array([[2, 1], [1, -1], [0, -1]])


class Geometry(NamedTuple):
    """The grid of a file."""

    affine: np.ndarray  # (4, 4), float64: voxel (i, j, k) of the file to millimetres, RAS+
    shape: tuple[int, int, int]  # (I, J, K) of the file


class Volume(NamedTuple):
    """A scan or its labels as axial slices, in radiological display."""

    voxels: np.ndarray  # (S, H, W) or (S, H, W, 3): slices feet to head, rows front to back, columns right to left
    spacing: tuple[float, float, float]  # mm between neighbouring rows, columns, slices
    geometry: Geometry
    remarks: tuple[str, ...] = ()  # for the reader of the answer: what was assumed or passed over
    frames: tuple[tuple[Path, int], ...] = ()  # of DICOM: file and frame, from 0, of each slice along the third axis
    doubt: str = ""  # of DICOM: what in its header speaks against FLAIR, empty if nothing does


def load_nibabel(kind: str = "the orientation of a volume") -> ModuleType:
    """Import nibabel where it is needed: it is optional, and commands that only read pictures do not wait for it.

    Args:
        kind: what errors call the thing that needs nibabel.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import nibabel
    except ImportError:
        raise lack_library(kind, "nibabel") from None
    return nibabel


def to_axial(array: np.ndarray, affine: np.ndarray) -> Volume:
    """Bring the voxels of a file into axial order.

    Args:
        array: ``(I, J, K)`` or ``(I, J, K, C)``, as the file has it.
        affine: ``(4, 4)``, voxel to millimetres, RAS+; one that :func:`check_affine` accepts.

    Returns:
        The same voxels, and what :func:`to_file_order` needs. Oblique axes become the nearest ones.
    """
    orientation = _from_file(affine)
    voxels = load_nibabel().orientations.apply_orientation(array, orientation)
    between, row, column = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(orientation[:, 0])]
    spacing = (float(row), float(column), float(between))
    shape = (int(array.shape[0]), int(array.shape[1]), int(array.shape[2]))
    return Volume(np.ascontiguousarray(voxels), spacing, Geometry(np.array(affine, np.float64), shape))


def to_file_order(voxels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The inverse of :func:`to_axial`: ``(S, H, W)`` or ``(S, H, W, C)`` to ``(I, J, K)`` or ``(I, J, K, C)``.

    Raises:
        ValueError: the voxels do not have the shape of this geometry.
    """
    expected = axial_shape(geometry)
    if voxels.shape[:3] != expected:
        raise ValueError(f"voxels are {voxels.shape[:3]}, the geometry's axial shape is {expected}")
    nib = load_nibabel().orientations
    back = nib.ornt_transform(_AXIAL, nib.io_orientation(geometry.affine))
    return np.ascontiguousarray(nib.apply_orientation(voxels, back))


def axial_affine(volume: Volume) -> np.ndarray:
    """``(4, 4)``: slice, row and column of ``volume.voxels`` to millimetres, RAS+."""
    affine, shape = volume.geometry
    return affine @ load_nibabel().orientations.inv_ornt_aff(_from_file(affine), shape)


def same_place(a: Volume, b: Volume) -> bool:
    """Whether two volumes have the same voxel positions, whatever the order of voxels in their files.

    Compares the axial grids: the shapes are equal, and no two corresponding corners are further apart than
    ``TOLERANCE`` of the smallest spacing. Channels do not count.
    """
    if a.voxels.shape[:3] != b.voxels.shape[:3]:
        return False
    corners = np.array(list(itertools.product(*((0, side - 1) for side in a.voxels.shape[:3]), (1,))))
    apart = np.linalg.norm((axial_affine(a) - axial_affine(b)) @ corners.T, axis=0)
    return bool(apart.max() <= TOLERANCE * min(a.spacing))


def check_affine(affine: np.ndarray, name: str) -> None:
    """Refuse an affine that gives voxels no position, no size, or sheared sides.

    Args:
        affine: ``(4, 4)``, voxel to millimetres.
        name: what errors call the file.

    Raises:
        DataError: not finite, far too large, a spacing outside MIN_SPACING..MAX_SPACING, singular or sheared.
    """
    fix = "repair the orientation in its header, or export it again"
    if not (np.abs(affine) < _FAR).all():
        raise DataError(name, "has an orientation matrix with values that are not numbers, or far too large", fix)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() < MIN_SPACING or spacing.max() > MAX_SPACING:
        sides = " x ".join(f"{side:g}" for side in spacing)
        what = f"has voxels of {sides} mm, sides must be {MIN_SPACING:g} to {MAX_SPACING:g} mm"
        raise DataError(name, what, "correct the voxel size in its header, in millimetres")
    upright = abs(np.linalg.det(affine[:3, :3] / spacing))
    if upright < MIN_UPRIGHT:
        kind = "lie in one plane" if upright < 1e-3 else "are not perpendicular"
        raise DataError(name, f"has axes that {kind}", "resample it onto an upright grid")


def check_channels(count: int, accepted: tuple[int, ...], name: str) -> None:
    """Refuse a file of another number of channels: only a mask must have one."""
    if count not in accepted:
        raise DataError(name, f"has {count} channels, a mask must have one", "save its labels alone")


def check_size(geometry: Geometry, channels: int, name: str, most: int = MAX_VOXELS) -> None:
    """Refuse what is too small or too large, by the header alone, before any voxel is read.

    Args:
        geometry: of the file, with an affine that :func:`check_affine` accepts.
        channels: number of values of a voxel.
        name: what errors call the file.
        most: values accepted in all.

    Raises:
        DataError: a slice's side outside MIN_SIDE..MAX_SIDE, more slices than MAX_SIDE, more values than ``most``.
    """
    slices, height, width = axial_shape(geometry)
    if min(height, width) < MIN_SIDE or max(height, width, slices) > MAX_SIDE:
        what = f"is {slices} axial slices of {width} x {height} voxels, at most {MAX_SIDE} slices with sides of "
        raise DataError(name, what + f"{MIN_SIDE} to {MAX_SIDE} are accepted", "crop, resample or remove it")
    values = slices * height * width * channels
    if values > most:
        raise DataError(name, f"has {values:,} voxels, at most {most:,} are accepted", "crop or resample it")


def _from_file(affine: np.ndarray) -> np.ndarray:
    """nibabel's orientation array ``(3, 2)``: the axial axis that each axis of the file becomes, and -1 if reversed."""
    nib = load_nibabel().orientations
    return nib.ornt_transform(nib.io_orientation(affine), _AXIAL)


def axial_shape(geometry: Geometry) -> tuple[int, ...]:
    """Slices, rows, columns."""
    return tuple(geometry.shape[axis] for axis in np.argsort(_from_file(geometry.affine)[:, 0]))
