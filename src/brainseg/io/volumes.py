"""Where voxels lie: from any file's order to axial slices, and exactly back. Nothing is resampled.

A file's axes are permuted and flipped to the nearest of the patient's, so every voxel keeps its value and
:func:`native` puts it back where it was. Positions are millimetres, RAS+ as in NIfTI: x grows to the patient's
right, y to the front, z to the head.
"""

import itertools
from typing import NamedTuple

import numpy as np

from brainseg.errors import DataError
from brainseg.io.pictures import MIN_SIDE

MAX_SIDE = 1024
MAX_VOXELS = 2**27  # of all channels together: 1024 x 1024 x 128
MIN_SPACING, MAX_SPACING = 0.01, 100.0  # mm; outside, the unit is another one or the header is damaged
MIN_UPRIGHT = 0.99  # a voxel's volume over the product of its sides: 1 for a straight grid, at 8 degrees of shear 0.99
_FAR = 1e6  # mm; no scanner is as large, and sums of squares of smaller numbers stay finite
TOLERANCE = 0.1  # of the smallest spacing: two grids that lie closer than this hold the same voxels


class Geometry(NamedTuple):
    """A file's own grid."""

    affine: np.ndarray  # (4, 4), float64: voxel (i, j, k) of the file to millimetres, RAS+
    shape: tuple[int, int, int]  # (I, J, K) of the file


class Volume(NamedTuple):
    """A scan or its labels as axial slices, in radiological display."""

    voxels: np.ndarray  # (S, H, W) or (S, H, W, 3): slices feet to head, rows front to back, columns right to left
    spacing: tuple[float, float, float]  # mm between neighbouring rows, columns, slices
    geometry: Geometry


def axial(array: np.ndarray, affine: np.ndarray) -> Volume:
    """Bring a file's voxels into axial order.

    Args:
        array: ``(I, J, K)`` or ``(I, J, K, C)``, as the file has it.
        affine: ``(4, 4)``, voxel to millimetres, RAS+; one that :func:`check_affine` accepts.

    Returns:
        The same voxels, and what :func:`native` needs. Oblique grids go to the axes they are nearest to.
    """
    axes, steps = _order(affine)
    voxels = array.transpose(*axes, *range(3, array.ndim))[_flips(steps)]
    between = np.linalg.norm(affine[:3, :3], axis=0)[axes]
    spacing = (float(between[1]), float(between[2]), float(between[0]))
    shape = (int(array.shape[0]), int(array.shape[1]), int(array.shape[2]))
    return Volume(np.ascontiguousarray(voxels), spacing, Geometry(np.array(affine, np.float64), shape))


def native(voxels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The exact way back: ``(S, H, W)`` or ``(S, H, W, C)`` of :func:`axial` to the file's ``(I, J, K)`` or with C.

    Raises:
        ValueError: the voxels are not of this geometry's shape.
    """
    axes, steps = _order(geometry.affine)
    expected = tuple(geometry.shape[axis] for axis in axes)
    if voxels.shape[:3] != expected:
        raise ValueError(f"voxels are {voxels.shape[:3]}, the geometry's axial shape is {expected}")
    back = (axes.index(axis) for axis in range(3))
    return np.ascontiguousarray(voxels[_flips(steps)].transpose(*back, *range(3, voxels.ndim)))


def axial_affine(volume: Volume) -> np.ndarray:
    """``(4, 4)``: slice, row and column of ``volume.voxels`` to millimetres, RAS+."""
    affine, shape = volume.geometry
    axes, steps = _order(affine)
    to_file = np.zeros((4, 4))
    to_file[3, 3] = 1
    for column, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        to_file[axis, column] = step
        to_file[axis, 3] = shape[axis] - 1 if step < 0 else 0
    return affine @ to_file


def same_place(a: Volume, b: Volume) -> bool:
    """Whether two volumes have the same voxels, in whatever order their files store them.

    Their axial grids are compared: equal shapes, and no corner further from its twin than ``TOLERANCE`` of the
    smallest spacing. Channels do not count.
    """
    if a.voxels.shape[:3] != b.voxels.shape[:3]:
        return False
    corners = np.array(list(itertools.product(*((0, side - 1) for side in a.voxels.shape[:3]), (1,))))
    apart = np.linalg.norm((axial_affine(a) - axial_affine(b)) @ corners.T, axis=0)
    return bool(apart.max() <= TOLERANCE * min(a.spacing))


def check_affine(affine: np.ndarray, name: str) -> None:
    """Refuse an affine that gives voxels no place, no size or no upright shape.

    Args:
        affine: ``(4, 4)``, voxel to millimetres.
        name: what errors call the file.

    Raises:
        DataError: not finite, absurdly large, a spacing outside MIN_SPACING..MAX_SPACING, singular or sheared.
    """
    fix = "repair the orientation in its header, or export it anew"
    if not (np.abs(affine) < _FAR).all():
        raise DataError(name, "has an orientation matrix with values that are not numbers, or absurd", fix)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() < MIN_SPACING or spacing.max() > MAX_SPACING:
        sides = " x ".join(f"{side:g}" for side in spacing)
        what = f"has voxels of {sides} mm, sides must be {MIN_SPACING:g} to {MAX_SPACING:g} mm"
        raise DataError(name, what, "correct the voxel size in its header, in millimetres")
    upright = abs(np.linalg.det(affine[:3, :3] / spacing))
    if upright < MIN_UPRIGHT:
        kind = "lie in one plane" if upright < 1e-3 else "are not perpendicular"
        raise DataError(name, f"has axes that {kind}", "resample it onto an upright grid")


def check_size(geometry: Geometry, channels: int, name: str, most: int = MAX_VOXELS) -> None:
    """Refuse by the header alone what is too small or too large, before any voxel is read.

    Args:
        geometry: the file's, with an affine that :func:`check_affine` accepts.
        channels: how many values a voxel has.
        name: what errors call the file.
        most: values accepted in all.

    Raises:
        DataError: a slice's side outside MIN_SIDE..MAX_SIDE, more slices than MAX_SIDE, more values than ``most``.
    """
    axes, _ = _order(geometry.affine)
    slices, height, width = (geometry.shape[axis] for axis in axes)
    if min(height, width) < MIN_SIDE or max(height, width, slices) > MAX_SIDE:
        what = f"is {slices} axial slices of {width} x {height} voxels, at most {MAX_SIDE} slices with sides of "
        raise DataError(name, what + f"{MIN_SIDE} to {MAX_SIDE} are accepted", "crop, resample or remove it")
    values = slices * height * width * channels
    if values > most:
        raise DataError(name, f"has {values:,} voxels, at most {most:,} are accepted", "crop or resample it")


def _order(affine: np.ndarray) -> tuple[list[int], list[int]]:
    """For slice, row and column: the file's axis, and 1 or -1 for the way along it.

    The axis nearest to one of the patient's is taken first, as nibabel's ``io_orientation`` does; shear is
    removed before, so that two of a file's axes never claim the same of the patient's.
    """
    left, _, right = np.linalg.svd(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    turned = left @ right
    nearness = np.abs(turned)
    axes, steps = [0, 0, 0], [1, 1, 1]
    for axis in np.argsort(-(turned**2).max(axis=0), kind="stable"):
        world = int(nearness[:, axis].argmax())  # 0 to the right, 1 to the front, 2 to the head
        nearness[world] = -1
        axes[2 - world] = int(axis)
        steps[2 - world] = 1 if (turned[world, axis] >= 0) == (world == 2) else -1
    return axes, steps


def _flips(steps: list[int]) -> tuple[slice, ...]:
    return tuple(slice(None, None, step) for step in steps)
