"""A DICOM series of single-slice MR files to an axial volume.

Accepted is one series of one size, orientation, pixel spacing and kind of pixels, with slices at equal distances
along their normal; each file as :mod:`brainseg.io.dicom_slice` accepts it. A rescale slope and intercept that are not 1
and 0 in every slice give float32. Without them, unsigned values stay uint8 or uint16, signed ones become int16.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.errors import DataError, Problem, raise_all
from brainseg.io import dicom_slice, nifti, pictures, volumes
from brainseg.io.dicom_slice import EXPORT, SliceHeader
from brainseg.io.folders import Walk
from brainseg.io.volumes import MAX_VOXELS, Geometry, Volume

MAX_FILES = 4096
MAX_TILT = 0.02  # sideways shift of slices over their distance along the normal: about one degree
SLACK = 0.1  # of the slice distance, or of a pixel: how far a slice may lie from its place in an even stack

_SAME_TOLERANCE = 1e-4  # cosines and mm: how far slices of one stack may differ in orientation and pixel spacing
_OTHER_SUFFIXES = (*nifti.SUFFIXES, *pictures.SUFFIXES, ".txt", ".json", ".csv", ".xml", ".md")
_SEPARATE = "keep one series of one volume per folder"


def find_series(folder: Path) -> dict[Path, list[Path]]:
    """Folders at or below ``folder`` that hold DICOM files, each with its files in order of their names.

    In such a folder every file counts, also a damaged one. Left out are hidden files, DICOMDIR, and files whose ending
    says that they are NIfTI, pictures or text.

    Raises:
        DataError: there is none, or a folder cannot be read.
    """
    found: dict[Path, list[Path]] = {}
    walk = Walk()
    for place, _, names in walk.folders([folder]):
        seen = [name for name in names if name.upper() != "DICOMDIR"]
        paths = [place / name for name in seen if not name.lower().endswith(_OTHER_SUFFIXES)]
        if any(dicom_slice.is_dicom(path) for path in paths):
            found[place] = paths
    fix = "check that it is there, and its permissions"
    raise_all([Problem(str(error.filename), f"cannot be read ({error.strerror})", fix) for error in walk.unread])
    if not found:
        raise DataError(folder, "holds no DICOM files", "point to the folder of a series")
    return found


def read_series(paths: Sequence[Path], name: str, most: int = MAX_VOXELS) -> Volume:
    """Read one series.

    Args:
        paths: the files of the series, in any order.
        name: what errors call the series; a file is ``name/<file name>``.
        most: voxels accepted in all.

    Returns:
        uint8, uint16, int16 or float32, ``(S, H, W)``. Its geometry is ``(columns, rows, slices)``, with slices in
        order along the normal. The spacing of a single slice is its SliceThickness.

    Raises:
        DataError: every file that does not fit, in one list.
        MachineError: pydicom or nibabel is not installed.
    """
    dicom_slice.load_pydicom()
    if not 0 < len(paths) <= MAX_FILES:
        raise DataError(name, f"holds {len(paths):,} files, 1 to {MAX_FILES:,} are accepted", _SEPARATE)
    slices = _collect([(path, f"{name}/{path.name}") for path in paths], dicom_slice.read_header)
    _check_alike(slices)
    ordered, affine = _stack(slices, name)
    rows, columns = ordered[0].size
    geometry = Geometry(affine, (columns, rows, len(ordered)))
    volumes.check_affine(affine, name)
    volumes.check_size(geometry, 1, name, most)
    pixels = np.stack(_collect([(item,) for item in ordered], dicom_slice.read_pixels))
    return volumes.to_axial(_rescale(pixels, ordered).transpose(2, 1, 0), affine)


def _collect(items: Sequence[tuple], function: Callable) -> list[Any]:
    """Call the function with each item; raise all problems at once."""
    results, problems = [], []
    for item in items:
        try:
            results.append(function(*item))
        except DataError as error:
            problems += error.problems
    raise_all(problems)
    return results


def _check_alike(slices: list[SliceHeader]) -> None:
    """Refuse a mixture. For each kind of difference, name the first file that differs from the first one."""
    first = slices[0]
    differences: list[tuple[str, Callable[[SliceHeader], bool]]] = [
        ("series", lambda item: item.series != first.series),
        ("size", lambda item: item.size != first.size),
        ("kind of pixels", lambda item: item.kind != first.kind),
        ("orientation", lambda item: bool(np.abs(item.axes - first.axes).max() > _SAME_TOLERANCE)),
        ("pixel spacing", lambda item: bool(np.abs(item.pixel - first.pixel).max() > _SAME_TOLERANCE)),
    ]
    problems = []
    for kind, differs in differences:
        others = [item for item in slices if differs(item)]
        if others:
            more = f", as are {len(others) - 1:,} more" if others[1:] else ""
            problems.append(Problem(others[0].label, f"is of another {kind} than {first.path.name}{more}", _SEPARATE))
    raise_all(problems)


def _stack(slices: list[SliceHeader], name: str) -> tuple[list[SliceHeader], np.ndarray]:
    """Slices in order along their normal, and the affine ``(4, 4)``: column, row, slice to millimetres, RAS+."""
    along_row, along_column = slices[0].axes.reshape(2, 3)
    normal = np.cross(along_row, along_column)
    ordered = sorted(slices, key=lambda item: (float(item.position @ normal), item.label))
    positions = np.array([item.position for item in ordered])
    heights = positions @ normal
    if len(ordered) == 1:
        if not ordered[0].thickness:
            raise DataError(ordered[0].label, "is alone and has no usable SliceThickness", EXPORT)
        step = normal * ordered[0].thickness
    else:
        _check_even(ordered, heights)
        sideways = positions - positions[0] - np.outer(heights - heights[0], normal)
        along = np.linspace(0, 1, len(ordered))[:, np.newaxis] * sideways[-1]
        tilted = np.linalg.norm(sideways[-1]) > MAX_TILT * (heights[-1] - heights[0])
        if tilted or np.linalg.norm(sideways - along, axis=1).max() > SLACK * slices[0].pixel.min():
            what = "has slices that are shifted against each other (a tilted gantry, or two stacks)"
            raise DataError(name, what, "resample it onto an upright grid, or keep one stack")
        step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    between_rows, between_columns = slices[0].pixel
    affine = np.eye(4)
    affine[:3] = np.column_stack([along_row * between_columns, along_column * between_rows, step, positions[0]])
    affine[:2] *= -1  # LPS to RAS
    return ordered, affine


def _check_even(ordered: list[SliceHeader], heights: np.ndarray) -> None:
    """Refuse slices in one place, and gaps: none may be further than SLACK of the distance from an even stack."""
    steps = np.diff(heights)
    nearest = int(steps.argmin())
    if steps[nearest] < volumes.MIN_SPACING:
        what = f"lies in the same place as {ordered[nearest].path.name}"
        raise DataError(ordered[nearest + 1].label, what, "keep one echo, time point and weighting per folder")
    even = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(heights - even).max() > SLACK * steps.mean():
        odd = int(np.abs(steps - np.median(steps)).argmax())
        what = f"lies {steps[odd]:.4g} mm from {ordered[odd].path.name}, most neighbours {np.median(steps):.4g} mm"
        raise DataError(ordered[odd + 1].label, what, "add the missing slices, or resample it to equal distances")


def _rescale(pixels: np.ndarray, ordered: list[SliceHeader]) -> np.ndarray:
    """``(slices, rows, columns)``: unchanged, or computed in float64 and returned as float32 if a slice is rescaled."""
    if all(item.rescale == (1, 0) for item in ordered):
        return pixels
    values = np.empty(pixels.shape, np.float32)
    for n, item in enumerate(ordered):
        values[n] = pixels[n] * np.float64(item.rescale[0]) + item.rescale[1]
    return values
