"""DICOM in: one series of single-slice MR files to an axial volume.

What is accepted: uncompressed files (implicit or explicit little endian, explicit big endian, deflated), 8 or 16 bits
a value, grayscale, one series of one size, orientation and pixel spacing, with slices at equal distances along
their normal. MONOCHROME2 is taken as it is. MONOCHROME1, where the smallest value is the brightest, is turned over
within what its stored bits can hold: ``smallest + largest - value``. Then a rescale slope and intercept that are not 1
and 0 in every slice give float32; without one, unsigned values stay uint8 or uint16, signed ones become int16.

The tags named in ``_TAGS`` are parsed and no other, so that names, dates, ids and descriptions never get in; no text of
a header, nor of a library that read one, goes into an error. Limits are checked before any pixel is read.
"""

import logging
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from brainseg.errors import BrainsegError, DataError, MachineError, Problem, raise_all
from brainseg.io import nifti, pictures, volumes
from brainseg.io.volumes import MAX_VOXELS, Geometry, Volume

MAX_FILES = 4096
MAX_BYTES = 2 * volumes.MAX_SIDE**2 + 2**22  # of one file, deflated or not: the largest slice and 4 MiB of header
MAX_ITEMS = 10_000  # of all sequences in a file; pydicom would take seconds for each million
MAX_TILT = 0.02  # of the way along the normal: how far slices may move sideways, which is about one degree
SLACK = 0.1  # of the slice distance, or of a pixel: how far a slice may lie from its place in an even stack

_LARGEST = 1e12  # no number of a header is larger, and what is computed of such ones stays finite
_ROUNDING = 2e-3  # how far cosines may be from those of perpendicular directions: they may have three decimals
_SAME = 1e-4  # cosines and mm: how far slices of one stack may differ in orientation and pixel spacing
_OTHER = (*nifti.SUFFIXES, *pictures.SUFFIXES, ".txt", ".json", ".csv", ".xml", ".md")
_MARK = 128  # bytes before the letters DICM
_TAGS = ("SOPClassUID", "SeriesInstanceUID", "BurnedInAnnotation", "ModalityLUTSequence", "NumberOfFrames",
         "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
         "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ImageOrientationPatient",
         "ImagePositionPatient", "PixelSpacing", "SliceThickness")  # fmt: skip
_EXPLICIT = b"1.2.840.10008.1.2.1"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PLAIN = ("1.2.840.10008.1.2", _EXPLICIT.decode(), "1.2.840.10008.1.2.2", _DEFLATED)

_EXPORT = "export the series anew"
_DECOMPRESS = "decompress it, for example with gdcmconv --raw, or dcmdjpeg for JPEG"
_SEPARATE = "keep one series of one volume per folder"


class _Slice(NamedTuple):
    """What one file's header says, checked."""

    path: Path
    label: str  # what errors call it
    series: str  # compared, never shown
    size: tuple[int, int]  # rows, columns
    kind: tuple[bool, int, int, bool]  # smallest is brightest, bits allocated, bits stored, signed
    axes: np.ndarray  # (6,): direction along a row, then along a column, LPS
    pixel: np.ndarray  # (2,), mm: between rows, between columns
    position: np.ndarray  # (3,), mm: the first pixel's centre, LPS
    thickness: float  # mm, 0 if unknown
    rescale: tuple[float, float]  # slope, intercept


def find_series(folder: Path) -> dict[Path, list[Path]]:
    """Folders at or below ``folder`` that hold DICOM files, each with its files in order of their names.

    In such a folder every file counts, also one that is damaged, but hidden ones, DICOMDIR, and those whose ending
    says that they are NIfTI, pictures or text.

    Raises:
        DataError: there is none, or a folder cannot be read.
    """
    found: dict[Path, list[Path]] = {}
    unread: list[OSError] = []
    for place, folders, names in os.walk(folder, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen = [name for name in sorted(names) if not name.startswith(".") and name.upper() != "DICOMDIR"]
        paths = [Path(place, name) for name in seen if not name.lower().endswith(_OTHER)]
        if any(_is_marked(path) for path in paths):
            found[Path(place)] = paths
    fix = "check that it is there, and its permissions"
    raise_all([Problem(str(error.filename), f"cannot be read ({error.strerror})", fix) for error in unread])
    if not found:
        raise DataError(folder, "holds no DICOM files", "point to the folder of a series")
    return found


def read_series(paths: Sequence[Path], name: str, most: int = MAX_VOXELS) -> Volume:
    """Read one series.

    Args:
        paths: its files, in any order.
        name: what errors call the series; a file is ``name/<file name>``.
        most: voxels accepted in all.

    Returns:
        uint8, uint16, int16 or float32, ``(S, H, W)``. Its geometry is ``(columns, rows, slices)``, slices in the
        order of their places along the normal. A single slice is as thick as its SliceThickness.

    Raises:
        DataError: every file that does not fit, in one list.
        MachineError: pydicom is not installed.
    """
    _pydicom()
    if not 0 < len(paths) <= MAX_FILES:
        raise DataError(name, f"holds {len(paths):,} files, 1 to {MAX_FILES:,} are accepted", _SEPARATE)
    slices = _each([(path, f"{name}/{path.name}") for path in paths], _header)
    _check_alike(slices)
    ordered, affine = _stack(slices, name)
    rows, columns = ordered[0].size
    geometry = Geometry(affine, (columns, rows, len(ordered)))
    volumes.check_affine(affine, name)
    volumes.check_size(geometry, 1, name, most)
    pixels = np.stack(_each([(item,) for item in ordered], _pixels))
    return volumes.axial(_rescaled(pixels, ordered).transpose(2, 1, 0), affine)


def _each(items: Sequence[tuple], function: Callable) -> list[Any]:
    """The function of every item, or all their problems at once."""
    results, problems = [], []
    for item in items:
        try:
            results.append(function(*item))
        except DataError as error:
            problems += error.problems
    raise_all(problems)
    return results


def _pydicom() -> ModuleType:
    """The library, silenced for the whole process: what it warns of may quote a header."""
    try:
        import pydicom
        import pydicom.filereader
    except ImportError:
        what = "needs pydicom, which is not installed"
        raise MachineError("DICOM", what, "pip install '.[medical]' in a clone of the project") from None
    logging.getLogger("pydicom").disabled = True
    warnings.filterwarnings("ignore", module=r"pydicom\b")  # not catch_warnings: other threads may read as well
    return pydicom


def _is_marked(path: Path) -> bool:
    """Whether it is DICOM by its mark; a file that cannot be read is left for an error that names it."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(_MARK + 4)[_MARK:] == b"DICM"
    except OSError:
        return True


@contextmanager
def _damage_of(label: str) -> Iterator[None]:
    """Name whatever the library makes of damaged bytes; its own words are dropped, for they may quote a header."""
    try:
        yield
    except (BrainsegError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            what, fix = f"cannot be read ({os.strerror(error.errno)})", "check its permissions"
        else:
            what, fix = "is damaged or cut short", "restore it, or export the series anew"
        raise DataError(label, what, fix) from None


def _dataset(path: Path, label: str, tags: Sequence[str]) -> Any:
    """The tags of one file, parsed; the syntax is checked before anything is."""
    pydicom = _pydicom()
    with _damage_of(label):
        if not path.is_file():
            raise DataError(label, "is not a file", "put the file itself here, and no folder, pipe or broken link")
        size = path.stat().st_size
        if size == 0:
            raise DataError(label, "is empty", "restore or remove it")
        if size > MAX_BYTES:
            what = f"holds {size:,} bytes, at most {MAX_BYTES:,} are accepted"
            raise DataError(label, what, "split a multi-frame file into single slices, or crop it")
        if not _is_marked(path):
            raise DataError(label, "is not DICOM", "remove it from the series, or export it anew as DICOM")
        data = path.read_bytes()
        _check_items(data, label)
        meta = pydicom.filereader.read_file_meta_info(path)
        syntax = meta.get("TransferSyntaxUID")
        if syntax not in _PLAIN:
            what = f"is encoded as {_name_of(syntax)}, only uncompressed files are read"
            raise DataError(label, what, _DECOMPRESS)
        if syntax == _DEFLATED:
            data = _inflated(data[144 + meta.FileMetaInformationGroupLength :], label)
            _check_items(data, label)
        return pydicom.dcmread(BytesIO(data), stop_before_pixels="PixelData" not in tags, specific_tags=list(tags))


def _name_of(uid: Any) -> str:
    """A UID's name in the standard's own list; of any other value nothing is shown."""
    name = str(uid.name) if hasattr(uid, "name") else ""
    return name if name and name != str(uid) else "an unknown transfer syntax"


def _check_items(data: bytes, label: str) -> None:
    """Refuse what is made to keep the parser busy, by the marks of items in either byte order."""
    if max(data.count(b"\xfe\xff\x00\xe0"), data.count(b"\xff\xfe\xe0\x00")) > MAX_ITEMS:
        raise DataError(label, f"has more than {MAX_ITEMS:,} items in its sequences", _EXPORT)


def _inflated(deflated: bytes, label: str) -> bytes:
    """A deflated file's data as an explicit little endian file; pydicom's own inflating has no limit."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflate.decompress(deflated, MAX_BYTES)
    if not inflate.eof:
        what = f"is cut short, or inflates to more than {MAX_BYTES:,} bytes"
        raise DataError(label, what, "save it without compression: gdcmconv --raw")
    syntax = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(_EXPLICIT) + 1) + _EXPLICIT + b"\0"
    return bytes(_MARK) + b"DICM" + syntax + data


def _header(path: Path, label: str) -> _Slice:
    dataset = _dataset(path, label, _TAGS)
    with _damage_of(label):
        _check_kind(dataset, label)
        size, kind = _size(dataset, label), _pixel_kind(dataset, label)
        axes, pixel, position = _place(dataset, label)
        thickness = _numbers(dataset, "SliceThickness", 1)
        thick = 0.0 if thickness is None else max(float(thickness[0]), 0.0)
        series = str(dataset.get("SeriesInstanceUID") or "")
        if not series:
            raise DataError(label, "does not say which series it is of (SeriesInstanceUID)", _EXPORT)
        return _Slice(path, label, series, size, kind, axes, pixel, position, thick, _rescale(dataset, label))


def _check_kind(dataset: Any, label: str) -> None:
    """Refuse what is no plain grayscale slice, or shows a name."""
    if str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        what = "has text burned into its pixels (BurnedInAnnotation is YES), which may name the patient"
        raise DataError(label, what, "remove the text and set the tag to NO, or leave the series out")
    frames = _numbers(dataset, "NumberOfFrames", 1)
    if "Enhanced" in _name_of(dataset.get("SOPClassUID")) or (frames is not None and frames[0] > 1):
        what = "holds several slices in one file (multi-frame or enhanced DICOM)"
        raise DataError(label, what, "split it into single slices, or convert it to NIfTI with dcm2niix")
    if dataset.get("Rows") is None or dataset.get("Columns") is None:
        raise DataError(label, "holds no image", "remove it from the series")
    samples, colours = _numbers(dataset, "SamplesPerPixel", 1), str(dataset.get("PhotometricInterpretation"))
    if samples is None or samples[0] != 1 or colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(label, "is not grayscale (one sample, MONOCHROME1 or MONOCHROME2)", "leave the series out")
    if "ModalityLUTSequence" in dataset:
        raise DataError(label, "maps its values by a table (Modality LUT)", "export it with a rescale slope instead")


def _size(dataset: Any, label: str) -> tuple[int, int]:
    sides = [_numbers(dataset, keyword, 1) for keyword in ("Rows", "Columns")]
    if sides[0] is None or sides[1] is None or min(sides[0][0], sides[1][0]) < 1:
        raise DataError(label, "has an impossible number of rows or columns", _EXPORT)
    return int(sides[0][0]), int(sides[1][0])


def _pixel_kind(dataset: Any, label: str) -> tuple[bool, int, int, bool]:
    keywords = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    values = [_numbers(dataset, keyword, 1) for keyword in keywords]
    allocated, stored, high, signed = (-1 if value is None else int(value[0]) for value in values)
    if allocated not in (8, 16) or not 1 <= stored <= allocated or high != stored - 1 or signed not in (0, 1):
        raise DataError(label, "has pixels that are not 8 or 16 bits from the lowest bit up", "save it with 16 bits")
    return dataset.PhotometricInterpretation == "MONOCHROME1", allocated, stored, bool(signed)


def _place(dataset: Any, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions, pixel spacing, position."""
    found = []
    for keyword, count in (("ImageOrientationPatient", 6), ("PixelSpacing", 2), ("ImagePositionPatient", 3)):
        values = _numbers(dataset, keyword, count)
        if values is None or (keyword == "PixelSpacing" and values.min() <= 0):
            raise DataError(label, f"has no usable {keyword}, so its place is unknown", _EXPORT)
        found.append(values)
    axes = found[0].reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > _ROUNDING:
        what = "has an ImageOrientationPatient that is not two perpendicular directions"
        raise DataError(label, what, _EXPORT)
    return found[0], found[1], found[2]


def _rescale(dataset: Any, label: str) -> tuple[float, float]:
    values = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        absent = dataset.get(keyword) in (None, "")
        number = np.array([default]) if absent else _numbers(dataset, keyword, 1)
        if number is None:
            raise DataError(label, f"has a {keyword} that is not a number", _EXPORT)
        values.append(float(number[0]))
    if values[0] == 0:
        raise DataError(label, "has a RescaleSlope of 0, which makes all pixels equal", _EXPORT)
    return values[0], values[1]


def _numbers(dataset: Any, keyword: str, count: int) -> np.ndarray | None:
    """``(count,)`` numbers of a sane size, or None."""
    try:
        values = np.atleast_1d(np.asarray(dataset.get(keyword), np.float64))
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and (np.abs(values) < _LARGEST).all() else None


def _check_alike(slices: list[_Slice]) -> None:
    """Refuse a mixture, by the first file that differs from the first of all."""
    first = slices[0]
    differences: list[tuple[str, Callable[[_Slice], bool]]] = [
        ("series", lambda item: item.series != first.series),
        ("size", lambda item: item.size != first.size),
        ("kind of pixels", lambda item: item.kind != first.kind),
        ("orientation", lambda item: bool(np.abs(item.axes - first.axes).max() > _SAME)),
        ("pixel spacing", lambda item: bool(np.abs(item.pixel - first.pixel).max() > _SAME)),
    ]
    problems = []
    for kind, differs in differences:
        others = [item for item in slices if differs(item)]
        if others:
            more = f", as are {len(others) - 1:,} more" if others[1:] else ""
            problems.append(Problem(others[0].label, f"is of another {kind} than {first.path.name}{more}", _SEPARATE))
    raise_all(problems)


def _stack(slices: list[_Slice], name: str) -> tuple[list[_Slice], np.ndarray]:
    """Slices in order along their normal, and ``(4, 4)``: column, row, slice to millimetres, RAS+."""
    along_row, along_column = slices[0].axes.reshape(2, 3)
    normal = np.cross(along_row, along_column)
    ordered = sorted(slices, key=lambda item: (float(item.position @ normal), item.label))
    positions = np.array([item.position for item in ordered])
    heights = positions @ normal
    if len(ordered) == 1:
        if not ordered[0].thickness:
            raise DataError(ordered[0].label, "is alone and has no usable SliceThickness", _EXPORT)
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


def _check_even(ordered: list[_Slice], heights: np.ndarray) -> None:
    """Refuse slices in one place, and gaps: none may lie further than SLACK of the distance from an even stack."""
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


def _pixels(item: _Slice) -> np.ndarray:
    """``(rows, columns)``: uint8, uint16 or int16, MONOCHROME1 turned over."""
    dataset = _dataset(item.path, item.label, (*_TAGS, "PixelData"))
    turned, allocated, stored, signed = item.kind
    with _damage_of(item.label):
        if "PixelData" not in dataset:
            raise DataError(item.label, "holds no pixels", _EXPORT)
        if dataset["PixelData"].is_undefined_length:
            raise DataError(item.label, "has encapsulated pixels, only uncompressed ones are read", _DECOMPRESS)
        size = item.size[0] * item.size[1] * allocated // 8
        if len(dataset.PixelData) not in (size, size + size % 2):
            what = f"holds {len(dataset.PixelData):,} of {size:,} bytes of pixels"
            raise DataError(item.label, what, "restore it, or export the series anew")
        pixels = dataset.pixel_array.reshape(item.size)
    if turned:
        pixels = (-1 if signed else 2**stored - 1) - pixels.astype(np.int32)
    return pixels.astype(np.int16 if signed else f"u{allocated // 8}")


def _rescaled(pixels: np.ndarray, ordered: list[_Slice]) -> np.ndarray:
    """``(slices, rows, columns)``, computed in float64, float32 if any slice is rescaled."""
    if all(item.rescale == (1, 0) for item in ordered):
        return pixels
    values = np.empty(pixels.shape, np.float32)
    for n, item in enumerate(ordered):
        values[n] = pixels[n] * np.float64(item.rescale[0]) + item.rescale[1]
    return values
