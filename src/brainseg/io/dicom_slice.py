"""One DICOM file: its header, checked, and its pixels.

Accepted are uncompressed files (implicit or explicit little endian, explicit big endian, deflated) of one grayscale
slice, 8 or 16 bits a value, also without preamble or name of the transfer syntax. MONOCHROME2 stays as it is.
MONOCHROME1, where the smallest value is the brightest, is inverted within the range of its stored bits: ``smallest +
largest - value``.

Only the tags in ``_TAGS`` are parsed, so that names, dates, ids and descriptions are not read; but for
:mod:`brainseg.io.dicom_seg`, which must repeat some of them. No error holds a text
of a header, nor of a library that read one. Limits are checked before any pixel is read.
"""

import logging
import re
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from brainseg.errors import DataError, MachineError, guard
from brainseg.io import dicom_encoding, volumes
from brainseg.io.dicom_encoding import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, Encoding

MAX_BYTES = 2 * volumes.MAX_SIDE**2 + 2**22  # of one file, deflated or not: the largest slice and 4 MiB of header
MAX_ITEMS = 10_000  # of all sequences in a file; pydicom takes seconds for a million
PLAIN_SYNTAXES = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
ENDINGS = (".dcm", ".dicom", ".ima")
EXPORT = "export the series again"
_RESTORE = f"restore it, or {EXPORT}"

_LARGEST = 1e12  # limit of all numbers in a header, so that results computed from them stay finite
_ROUNDING = 2e-3  # how far cosines may be from those of perpendicular directions: they may have three decimals
_TAGS = ("SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "SeriesNumber", "ImageType",
         "BurnedInAnnotation", "ModalityLUTSequence", "NumberOfFrames",
         "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
         "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ImageOrientationPatient",
         "ImagePositionPatient", "PixelSpacing", "SliceThickness")  # fmt: skip

_ASSUMED = {IMPLICIT: "implicit little endian", EXPLICIT: "explicit little endian"}
_DECOMPRESS = "decompress it, for example with gdcmconv --raw, or dcmdjpeg for JPEG"


class StrangerError(DataError):
    """A file that is no slice and may be passed over. ``kind``: what it is, after "files that are"."""

    kind = "not DICOM"


class NoImageError(StrangerError):
    """DICOM that holds no image by its kind: a structured report, a presentation state."""

    kind = "DICOM without an image"


class SliceHeader(NamedTuple):
    """What the header of one file says, checked."""

    path: Path
    label: str  # what errors call it
    series: str  # compared, never shown
    size: tuple[int, int]  # rows, columns
    kind: tuple[bool, int, int, bool]  # smallest is brightest, bits allocated, bits stored, signed
    axes: np.ndarray  # (6,): direction along a row, then along a column, LPS
    pixel: np.ndarray  # (2,), mm: between rows, between columns
    position: np.ndarray  # (3,), mm: centre of the first pixel, LPS
    thickness: float  # mm, 0 if unknown
    rescale: tuple[float, float]  # slope, intercept
    scan: tuple[str, str] = ("", "")  # UID of the study, number of the series; compared, never shown
    assumed: str = ""  # how it is read where it names no transfer syntax


def load_pydicom() -> ModuleType:
    """Import pydicom and silence it for the whole process: its warnings may quote a header.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import pydicom
        import pydicom.filereader
    except ImportError:
        what = "needs pydicom, which is not installed"
        raise MachineError("DICOM", what, "pip install '.[medical]' in a clone of the project") from None
    logging.getLogger("pydicom").disabled = True
    warnings.filterwarnings("ignore", module=r"pydicom\b")  # catch_warnings is not safe with threads
    return pydicom


def shape_of_name(name: str) -> str:
    """The name with every number as ``0``: the same for all slices of most exports."""
    return re.sub("[0-9]+", "0", name.lower())


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does; True for one that cannot be read, so that reading it raises the error."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return dicom_encoding.is_dicom(file.read(dicom_encoding.HEAD))
    except OSError:
        return True


def read_header(path: Path, label: str) -> SliceHeader:
    """Read the header of one file.

    Args:
        path: the file.
        label: what errors call it.

    Raises:
        StrangerError: not DICOM, or DICOM of a kind that has no image.
        DataError: not one uncompressed grayscale slice with a position.
        MachineError: pydicom is not installed.
    """
    dataset, assumed = _read_dataset(path, label, _TAGS)
    with guard(label, _RESTORE):
        _check_kind(dataset, label)
        size, kind = _read_size(dataset, label), _read_pixel_kind(dataset, label)
        axes, pixel, position = _read_place(dataset, label)
        thickness = _read_numbers(dataset, "SliceThickness", 1)
        thick = 0.0 if thickness is None else max(float(thickness[0]), 0.0)
        series = _series_uid(dataset)
        if not series:
            raise DataError(label, "does not say which series it belongs to (SeriesInstanceUID)", EXPORT)
        rescale = _read_rescale(dataset, label)
        scan = str(dataset.get("StudyInstanceUID") or ""), str(dataset.get("SeriesNumber") or "")
        return SliceHeader(path, label, series, size, kind, axes, pixel, position, thick, rescale, scan, assumed)


def read_series_uid(path: Path, label: str) -> str:
    """The UID of the series of one file, empty where it has none. Arguments and errors as in :func:`read_header`."""
    dataset, _ = _read_dataset(path, label, ("SOPClassUID", "SeriesInstanceUID", "Rows"))
    with guard(label, _RESTORE):
        _check_image(dataset, label)
        return _series_uid(dataset)


def read_tags(path: Path, label: str, tags: Sequence[str]) -> Any:
    """A data set of these tags of one file, unchecked. Arguments and errors as in :func:`read_header`."""
    return _read_dataset(path, label, tags)[0]


def read_pixels(item: SliceHeader) -> np.ndarray:
    """``(rows, columns)``, uint8, uint16 or int16, not rescaled; MONOCHROME1 is inverted.

    Raises:
        DataError: no pixels, compressed ones, or too few or too many bytes.
    """
    dataset, _ = _read_dataset(item.path, item.label, (*_TAGS, "PixelData"))
    inverted, allocated, stored, signed = item.kind
    with guard(item.label, _RESTORE):
        if "PixelData" not in dataset:
            raise DataError(item.label, "holds no pixels", EXPORT)
        if dataset["PixelData"].is_undefined_length:
            raise DataError(item.label, "has encapsulated pixels, only uncompressed ones are read", _DECOMPRESS)
        size = item.size[0] * item.size[1] * allocated // 8
        if len(dataset.PixelData) not in (size, size + size % 2):
            what = f"holds {len(dataset.PixelData):,} of {size:,} bytes of pixels"
            raise DataError(item.label, what, _RESTORE)
        pixels = dataset.pixel_array.reshape(item.size)
    if inverted:
        pixels = (-1 if signed else 2**stored - 1) - pixels.astype(np.int32)
    return pixels.astype(np.int16 if signed else f"u{allocated // 8}")


def _read_dataset(path: Path, label: str, tags: Sequence[str]) -> tuple[Any, str]:
    """Parse these tags of one file. The transfer syntax is checked before anything is parsed.

    Returns:
        The data set, and the name of the transfer syntax if the file does not give it.
    """
    pydicom = load_pydicom()
    with guard(label, _RESTORE):
        if not path.is_file():
            raise DataError(label, "is not a file", "put the file itself here, and no folder, pipe or broken link")
        size = path.stat().st_size
        if size == 0:
            raise StrangerError(label, "is empty", "restore or remove it")
        if not is_dicom(path):
            raise StrangerError(label, "is not DICOM", "remove it from the series, or export it again as DICOM")
        if size > MAX_BYTES:
            what = f"holds {size:,} bytes, at most {MAX_BYTES:,} are accepted"
            raise DataError(label, what, "split a multi-frame file into single slices, or crop it")
        data = path.read_bytes()
        _check_items(data, label)
        encoding = dicom_encoding.find_encoding(data)
        whole = _make_readable(data, encoding, label)
        plain = pydicom.dcmread(BytesIO(whole), stop_before_pixels="PixelData" not in tags, specific_tags=list(tags))
        return plain, "" if encoding.named else _ASSUMED[encoding.syntax]


def _make_readable(data: bytes, encoding: Encoding, label: str) -> bytes:
    """The file as pydicom reads it within limits: with a preamble and a transfer syntax, not deflated."""
    if encoding.syntax not in PLAIN_SYNTAXES:
        what = f"is encoded as {_uid_name(load_pydicom().uid.UID(encoding.syntax))}, only uncompressed files are read"
        raise DataError(label, what, _DECOMPRESS)
    if encoding.syntax != DEFLATED:
        return dicom_encoding.add_preamble(data, encoding)
    inflated = dicom_encoding.inflate(data, encoding, MAX_BYTES)
    if inflated is None:
        what = f"is cut short, or inflates to more than {MAX_BYTES:,} bytes"
        raise DataError(label, what, "save it without compression: gdcmconv --raw")
    _check_items(inflated, label)
    return inflated


def _uid_name(uid: Any) -> str:
    """The name of a UID in the list of the standard. Any other value is not shown."""
    name = str(uid.name) if hasattr(uid, "name") else ""
    return name if name and name != str(uid) else "an unknown transfer syntax"


def _check_items(data: bytes, label: str) -> None:
    """Refuse a file made to keep the parser busy: count the marks of items in either byte order."""
    if max(data.count(b"\xfe\xff\x00\xe0"), data.count(b"\xff\xfe\xe0\x00")) > MAX_ITEMS:
        raise DataError(label, f"has more than {MAX_ITEMS:,} items in its sequences", EXPORT)


def _series_uid(dataset: Any) -> str:
    return str(dataset.get("SeriesInstanceUID") or "")


def _check_image(dataset: Any, label: str) -> None:
    """Refuse what has no image. It is a stranger by the kind that it names; an image that is cut short is not."""
    if dataset.get("Rows") is not None:
        return
    kind = dataset.get("SOPClassUID")
    is_image = not kind or "Image Storage" in str(getattr(kind, "name", kind))
    if is_image:
        raise DataError(label, "holds no image", _RESTORE)
    raise NoImageError(label, "holds no image", "remove it from the series")


def _check_kind(dataset: Any, label: str) -> None:
    """Refuse what is not one plain grayscale slice, or has text in its pixels."""
    _check_image(dataset, label)
    if str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        what = "has text burned into its pixels (BurnedInAnnotation is YES), which may name the patient"
        raise DataError(label, what, "remove the text and set the tag to NO, or leave the series out")
    frames = _read_numbers(dataset, "NumberOfFrames", 1)
    if "Enhanced" in _uid_name(dataset.get("SOPClassUID")) or (frames is not None and frames[0] > 1):
        what = "holds several slices in one file (multi-frame or enhanced DICOM)"
        raise DataError(label, what, "split it into single slices, or convert it to NIfTI with dcm2niix")
    if "MOSAIC" in str(dataset.get("ImageType")).upper():
        what = "is a Siemens mosaic: one picture of all slices side by side"
        raise DataError(label, what, "convert it to NIfTI with dcm2niix")
    samples, colours = _read_numbers(dataset, "SamplesPerPixel", 1), str(dataset.get("PhotometricInterpretation"))
    if samples is None or samples[0] != 1 or colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(label, "is not grayscale (one sample, MONOCHROME1 or MONOCHROME2)", "leave the series out")
    if "ModalityLUTSequence" in dataset:
        raise DataError(label, "maps its values by a table (Modality LUT)", "export it with a rescale slope instead")


def _read_size(dataset: Any, label: str) -> tuple[int, int]:
    sides = [_read_numbers(dataset, keyword, 1) for keyword in ("Rows", "Columns")]
    if sides[0] is None or sides[1] is None or min(sides[0][0], sides[1][0]) < 1:
        raise DataError(label, "has an impossible number of rows or columns", EXPORT)
    return int(sides[0][0]), int(sides[1][0])


def _read_pixel_kind(dataset: Any, label: str) -> tuple[bool, int, int, bool]:
    keywords = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    values = [_read_numbers(dataset, keyword, 1) for keyword in keywords]
    allocated, stored, high, signed = (-1 if value is None else int(value[0]) for value in values)
    if allocated not in (8, 16) or not 1 <= stored <= allocated or high != stored - 1 or signed not in (0, 1):
        raise DataError(label, "has pixels that are not 8 or 16 bits from the lowest bit up", "save it with 16 bits")
    return dataset.PhotometricInterpretation == "MONOCHROME1", allocated, stored, bool(signed)


def _read_place(dataset: Any, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions ``(6,)``, pixel spacing ``(2,)`` and position ``(3,)``."""
    found = []
    for keyword, count in (("ImageOrientationPatient", 6), ("PixelSpacing", 2), ("ImagePositionPatient", 3)):
        values = _read_numbers(dataset, keyword, count)
        if values is None or (keyword == "PixelSpacing" and values.min() <= 0):
            raise DataError(label, f"has no usable {keyword}, so its place is unknown", EXPORT)
        found.append(values)
    axes = found[0].reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > _ROUNDING:
        what = "has an ImageOrientationPatient that is not two perpendicular directions"
        raise DataError(label, what, EXPORT)
    return found[0], found[1], found[2]


def _read_rescale(dataset: Any, label: str) -> tuple[float, float]:
    """Slope and intercept, 1 and 0 where the header has none."""
    values = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        absent = dataset.get(keyword) in (None, "")
        number = np.array([default]) if absent else _read_numbers(dataset, keyword, 1)
        if number is None:
            raise DataError(label, f"has a {keyword} that is not a number", EXPORT)
        values.append(float(number[0]))
    if values[0] == 0:
        raise DataError(label, "has a RescaleSlope of 0, which makes all pixels equal", EXPORT)
    return values[0], values[1]


def _read_numbers(dataset: Any, keyword: str, count: int) -> np.ndarray | None:
    """``(count,)`` numbers below ``_LARGEST``, or None."""
    try:
        values = np.atleast_1d(np.asarray(dataset.get(keyword), np.float64))
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and (np.abs(values) < _LARGEST).all() else None
