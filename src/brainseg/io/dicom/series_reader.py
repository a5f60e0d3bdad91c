"""A DICOM series of MR slices, in a file each or as the frames of one, to an axial volume.

Accepted is one series of one size, orientation, pixel spacing and kind of pixels, with slices at equal distances
along their normal; each as :mod:`brainseg.io.dicom.slice_header` accepts it. Files that are no slices, and copies, are
passed over, which a remark says. A rescale slope and intercept that are not 1 and 0 in every slice give float32.
Without them, unsigned values stay uint8 or uint16, signed ones become int16.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.errors import DataError, Problem, printable, raise_all, show_some
from brainseg.io import nifti, pictures, volumes
from brainseg.io.dicom import multiframe, pixel_data, slice_header
from brainseg.io.dicom.slice_header import EXPORT, NoSliceError, SliceHeader, StrangerError
from brainseg.io.folders import Walk
from brainseg.io.volumes import MAX_VOXELS, Geometry, Volume

MAX_FILES = 4096
MAX_TILT = 0.02  # sideways shift of slices over their distance along the normal: about one degree
SLACK = 0.1  # of the slice distance, or of a pixel: how far a slice may lie from its place in an even stack

MAX_MOVE = 0.2  # of a pixel: how far another orientation or pixel spacing may move the corner of a slice
CROSSING = 0.7  # cosine: normals that are further apart than 45 degrees are of other planes
THICK = 2  # times a pixel's side: slices that are not axial and this far apart give poor axial ones

_PLANES = ("sagittal", "coronal", "axial")  # by the axis of the patient that is nearest to the normal
# ms. FLAIR has 1,500 at 0.2 T, 2,500 at 3 T, and echoes from 80 on; T1 with inversion early echoes.
_SHORTEST_INVERSION, _SHORTEST_ECHO = 1400.0, 50.0
_SHOWN = 3  # files that a remark names
OTHER_SUFFIXES = (*nifti.SUFFIXES, *pictures.SUFFIXES, ".txt", ".json", ".csv", ".xml", ".md")
_SEPARATE = "keep one series of one volume per folder"


def find_series(folder: Path, name: str) -> dict[Path, list[Path]]:
    """Folders at or below ``folder`` that hold DICOM files, each with its files in order of their names.

    In such a folder every file counts, also a damaged one. Left out are hidden files, DICOMDIR, and files whose ending
    says that they are NIfTI, pictures or text. Errors call the folder ``name``.

    Raises:
        DataError: there is none, or a folder cannot be read.
    """
    found: dict[Path, list[Path]] = {}
    walk = Walk()
    for place, _, names in walk.folders([folder]):
        seen = [name for name in names if name.upper() != "DICOMDIR"]
        paths = [place / name for name in seen if not name.lower().endswith(OTHER_SUFFIXES)]
        if any(path.suffix.lower() in slice_header.ENDINGS or slice_header.is_dicom(path) for path in paths):
            found[place] = paths
    fix = "check that it is there, and its permissions"
    unread = [(_rename(error.filename, folder, name), error.strerror) for error in walk.unread]
    raise_all([Problem(path, f"cannot be read ({why})", fix) for path, why in unread])
    if not found:
        raise DataError(name, "holds no DICOM files", "point to the folder of a series")
    return found


def _rename(path: str, folder: Path, name: str) -> str:
    """What errors call a path at or below ``folder``, which may be one of the product's own."""
    return str(Path(name, os.path.relpath(path, folder)))


def read_series(paths: Sequence[Path], name: str, most: int = MAX_VOXELS) -> Volume:
    """Read one series.

    Args:
        paths: the files of the series, in any order.
        name: what errors call the series; a file is ``name/<file name>``.
        most: voxels accepted in all.

    Returns:
        uint8, uint16, int16 or float32, ``(S, H, W)``. Its geometry is ``(columns, rows, slices)``, with slices in
        order along the normal. The spacing of a single slice is its SliceThickness. Remarks say what was passed over
        or assumed.

    Raises:
        DataError: every file that does not fit, in one list.
        MachineError: pydicom or nibabel is not installed.
    """
    slice_header.load_pydicom()
    if not 0 < len(paths) <= MAX_FILES:
        raise DataError(name, f"holds {len(paths):,} files, 1 to {MAX_FILES:,} are accepted", _SEPARATE)
    slices, remarks = _read_headers([(path, f"{name}/{path.name}") for path in paths])
    _check_direction(slices, name)
    each_its_own = _each_its_own(slices)
    _check_alike(slices, each_its_own=each_its_own)
    own = ["each slice names a series of its own; they have one number and lie in one stack"] * each_its_own
    slices, copies = _drop_copies(slices)
    ordered, affine = _stack(slices, name)
    rows, columns = ordered[0].size
    geometry = Geometry(affine, (columns, rows, len(ordered)))
    volumes.check_affine(affine, name)
    plane = _find_plane(geometry, name)
    volumes.check_size(geometry, 1, name, most)
    pixels = _read_pixels(ordered)
    outside = _find_padding(pixels, ordered)
    values = _rescale(pixels, ordered)
    padded = _fill(values, outside)
    volume = volumes.to_axial(values.transpose(2, 1, 0), affine)
    told = (*_tell_assumed(ordered), *_tell_lossy(ordered), *padded, *plane)
    frames = tuple((item.path, item.frame) for item in ordered)
    doubt = _doubt_flair(ordered[0].times)
    return volume._replace(remarks=(*remarks, *copies, *own, *told), frames=frames, doubt=doubt)


def _read_headers(files: Sequence[tuple[Path, str]]) -> tuple[list[SliceHeader], list[str]]:
    """Headers of the slices, and remarks on what was passed over.

    What is named as the slices are, or has an ending of DICOM, is a damaged slice: without it the stack is incomplete.
    """
    strangers: list[tuple[Path, StrangerError]] = []
    remarks: list[str] = []

    def read(path: Path, label: str) -> list[SliceHeader]:
        try:
            found, told = multiframe.read_headers(path, label)
        except StrangerError as stranger:
            strangers.append((path, stranger))
            return []
        remarks.extend(told)
        return found

    slices = [item for found in _collect(files, read) for item in found]
    shapes = {slice_header.shape_of_name(item.path.name) for item in slices}
    problems, passed = [], defaultdict(list)
    for path, stranger in strangers:
        damaged = path.suffix.lower() in slice_header.ENDINGS or slice_header.shape_of_name(path.name) in shapes
        if not slices or (damaged and not isinstance(stranger, NoSliceError)):
            problems += stranger.problems
        passed[stranger.kind].append(path.name)
    raise_all(problems)
    told = [f"passed over {count_files(names, kind)}" for kind, names in passed.items()]
    return slices, [*told, *dict.fromkeys(remarks)]


def count_files(names: Sequence[str], kind: str) -> str:
    """``"2 files that are not DICOM: A, B"``, with at most three names."""
    return _count(list(names), f"file that is {kind}", f"files that are {kind}")


def _tell_assumed(slices: list[SliceHeader]) -> list[str]:
    """Of files that do not name their transfer syntax: as what they were read."""
    by_syntax = defaultdict(list)
    for item in slices:
        by_syntax[item.assumed].append(item.path.name)
    return [
        f"read as {syntax}, "
        + _count(
            list(dict.fromkeys(names)),
            "file that does not name its transfer syntax",
            "files that do not name their transfer syntax",
        )
        for syntax, names in sorted(by_syntax.items())
        if syntax
    ]


def _tell_lossy(slices: list[SliceHeader]) -> list[str]:
    """That pixels are not what was measured."""
    lossy = [item for item in slices if item.lossy is not None]
    ratios = sorted({round(ratio, 1) for item in lossy for ratio in item.lossy or ()})
    told = f" (ratio {ratios[0]:g}{f' to {ratios[-1]:g}' if ratios[1:] else ''})" if ratios else ""
    return [f"lossy compressed{told}: {len(lossy):,} of {len(slices):,} slices"] if lossy else []


def _count(names: list[str], one: str, several: str) -> str:
    """``"2 files that are ...: A, B"``, with at most three names."""
    return f"{len(names):,} {several if names[1:] else one}: {show_some(list(map(printable, names)), _SHOWN)}"


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


def _check_direction(slices: list[SliceHeader], name: str) -> None:
    """Refuse slices in several planes of the body, in one sentence instead of one for each."""
    normals = [np.cross(*item.axes.reshape(2, 3)) for item in slices]
    planes = sorted({_PLANES[int(np.abs(normal).argmax())] for normal in normals})
    if planes[1:] and min(abs(float(normals[0] @ normal)) for normal in normals) < CROSSING:
        told = f"holds {len(slices):,} slices in several directions ({', '.join(planes)}), as a localizer does"
        raise DataError(name, told, "leave it out, or keep one stack per folder")


def _check_alike(slices: list[SliceHeader], *, each_its_own: bool) -> None:
    """Refuse a mixture. For each kind of difference, name the first file that differs from most, or from the first."""
    first = slices[0]
    other = [item.series != first.series and not each_its_own for item in slices]
    problems = _find_others("series", other, slices)
    problems += _find_others("size", [item.size != first.size for item in slices], slices)
    problems += _find_others("kind of pixels", [_values(item) != _values(first) for item in slices], slices)
    raise_all(problems)
    axes, pixel = _most(slices)
    size, most = np.array(first.size), MAX_MOVE * pixel.min()
    turned = [_move(item.axes - axes, pixel, size) > most for item in slices]
    scaled = [_move(axes, item.pixel - pixel, size) > most for item in slices]
    raise_all(_find_others("orientation", turned, slices) + _find_others("pixel spacing", scaled, slices))


def _each_its_own(slices: list[SliceHeader]) -> bool:
    """Whether each slice names a series of its own, but all the same study and series number: a faulty export."""
    if len(slices) < 3 or not all(slices[0].scan):
        return False
    return len({item.scan for item in slices}) == 1 and len({item.series for item in slices}) == len(slices)


def is_one_stack(slices: list[SliceHeader]) -> bool:
    """Whether slices that each name a series of their own are one volume all the same."""
    if not _each_its_own(slices):
        return False
    try:
        _check_alike(slices, each_its_own=True)
        _stack(slices, "")
    except DataError:
        return False
    return True


def _values(item: SliceHeader) -> tuple[bool, bool, int]:
    """What decides which number a pixel is. The number of stored bits does where they are inverted."""
    inverted, _, stored, signed = item.kind
    return inverted, signed, stored if inverted else 0


def _most(slices: list[SliceHeader]) -> tuple[np.ndarray, np.ndarray]:
    """Directions ``(6,)`` and pixel spacing ``(2,)`` of most slices: the medians, which rounding does not move."""
    return np.median([item.axes for item in slices], axis=0), np.median([item.pixel for item in slices], axis=0)


def _move(axes: np.ndarray, pixel: np.ndarray, size: np.ndarray) -> float:
    """How far, in mm, a difference in directions or in pixel spacing moves the corners of a slice at most."""
    across, down = axes.reshape(2, 3) * ((size - 1) * pixel)[::-1, np.newaxis]
    return float(max(np.linalg.norm(corner) for corner in (across, down, across + down)))


def _find_others(kind: str, differs: list[bool], slices: list[SliceHeader]) -> list[Problem]:
    """The problem that some slices are of another kind, if there are any."""
    others = [item for item, other in zip(slices, differs, strict=True) if other]
    if not others:
        return []
    usual = next((item for item, other in zip(slices, differs, strict=True) if not other), slices[-1])
    more = f", as are {len(others) - 1:,} more" if others[1:] else ""
    return [Problem(others[0].label, f"is of another {kind} than {usual.name}{more}", _SEPARATE)]


def _drop_copies(slices: list[SliceHeader]) -> tuple[list[SliceHeader], list[str]]:
    """Slices without those that lie in the place of another one and hold the same values; and a remark on these.

    Two slices in one place that differ are left in; the stack is refused for them.
    """
    kept: dict[tuple, SliceHeader] = {}
    copies = []
    for item in slices:
        twin = kept.setdefault(tuple(item.position.round(3)), item)
        if twin is item:
            continue
        if not _same_values(twin, item):
            return slices, []
        copies.append(item.path.name)
    told = _count(copies, "file that is a copy of another one", "files that are copies of others")
    return list(kept.values()), [f"passed over {told}"] if copies else []


def _same_values(a: SliceHeader, b: SliceHeader) -> bool:
    """Whether two files hold the same slice. Frames of one place are taken as different: each costs the whole file."""
    too_large = a.size[0] * a.size[1] > volumes.MAX_SIDE**2  # to be refused, unread
    if too_large or a.frames > 1 or b.frames > 1 or a.rescale != b.rescale:
        return False
    [ours], [theirs] = pixel_data.read_pixels([a]), pixel_data.read_pixels([b])
    return np.array_equal(ours, theirs)


def _read_pixels(ordered: list[SliceHeader]) -> np.ndarray:
    """``(slices, rows, columns)``. Each file is read once."""
    by_file = defaultdict(list)
    for item in ordered:
        by_file[item.path].append(item)
    read = _collect([(items,) for items in by_file.values()], pixel_data.read_pixels)
    found = {(path, item.frame): pixels for (path, items), own in zip(by_file.items(), read, strict=True)
             for item, pixels in zip(items, own, strict=True)}  # fmt: skip
    return np.stack([found[item.path, item.frame] for item in ordered])


def _find_plane(geometry: Geometry, name: str) -> list[str]:
    """A remark if the slices are not axial and thick.

    Raises:
        DataError: they are not axial, and too few for axial slices across them.
    """
    step = geometry.affine[:3, 2]
    plane = _PLANES[int(np.abs(step).argmax())]
    apart, sides = np.linalg.norm(step), np.linalg.norm(geometry.affine[:3, :2], axis=0)
    if plane == "axial" or apart < THICK * sides.max():
        return []
    told = f"slices are {plane} and {apart:.3g} mm apart, with pixels of {sides[1]:.3g} x {sides[0]:.3g} mm"
    if geometry.shape[2] < pictures.MIN_SIDE:
        raise DataError(name, f"is not axial: its {told}", "give an axial series, or a 3D one with small voxels")
    return [f"the {told}: axial slices through them are coarse"]


def _doubt_flair(times: tuple[float, ...]) -> str:
    """What speaks against FLAIR: its signal is taken long after an inversion, when fluid has none, at a late echo."""
    if not times or (times[0] >= _SHORTEST_ECHO and times[2] >= _SHORTEST_INVERSION):
        return ""
    echo, repetition, inversion = (f"{time:.6g} ms" if time else "none" for time in times)
    return f"its times are not those of FLAIR: echo {echo}, repetition {repetition}, inversion {inversion}"


def _stack(slices: list[SliceHeader], name: str) -> tuple[list[SliceHeader], np.ndarray]:
    """Slices in order along their normal, and the affine ``(4, 4)``: column, row, slice to millimetres, RAS+."""
    axes, (between_rows, between_columns) = _most(slices)
    along_row, along_column = axes.reshape(2, 3)
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
    affine = np.eye(4)
    affine[:3] = np.column_stack([along_row * between_columns, along_column * between_rows, step, positions[0]])
    affine[:2] *= -1  # LPS to RAS
    return ordered, affine


def _check_even(ordered: list[SliceHeader], heights: np.ndarray) -> None:
    """Refuse slices in one place, and gaps: none may be further than SLACK of the distance from an even stack."""
    steps = np.diff(heights)
    nearest = int(steps.argmin())
    if steps[nearest] < volumes.MIN_SPACING:
        what = f"lies in the same place as {ordered[nearest].name}"
        raise DataError(ordered[nearest + 1].label, what, "keep one echo, time point and weighting per folder")
    even = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(heights - even).max() > SLACK * steps.mean():
        odd = int(np.abs(steps - np.median(steps)).argmax())
        what = f"lies {steps[odd]:.4g} mm from {ordered[odd].name}, most neighbours {np.median(steps):.4g} mm"
        raise DataError(ordered[odd + 1].label, what, "add the missing slices, or resample it to equal distances")


def _rescale(pixels: np.ndarray, ordered: list[SliceHeader]) -> np.ndarray:
    """``(slices, rows, columns)``: unchanged, or computed in float64 and returned as float32 if a slice is rescaled."""
    if all(item.rescale == (1, 0) for item in ordered):
        return pixels
    values = np.empty(pixels.shape, np.float32)
    for n, item in enumerate(ordered):
        values[n] = pixels[n] * np.float64(item.rescale[0]) + item.rescale[1]
    return values


def _find_padding(pixels: np.ndarray, ordered: list[SliceHeader]) -> np.ndarray | None:
    """Where pixels ``(slices, rows, columns)`` only fill the place outside the image; None if no header names such."""
    if all(item.padding is None for item in ordered):
        return None
    outside = np.zeros(pixels.shape, bool)
    for n, item in enumerate(ordered):
        if item.padding is not None:
            outside[n] = (pixels[n] >= item.padding[0]) & (pixels[n] <= item.padding[1])
    return outside


def _fill(values: np.ndarray, outside: np.ndarray | None) -> list[str]:
    """Give padding the least value of the image, in place; and a remark, if that changes any."""
    if outside is None or not outside.any() or outside.all():
        return []
    least = values[~outside].min()
    if values[outside].min() >= 0 and values[outside].max() <= least:  # a background of 0, as usual
        return []
    values[outside] = least
    return [f"padding ({np.count_nonzero(outside):,} pixels) was given the least value of the image"]
