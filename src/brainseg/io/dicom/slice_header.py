"""One DICOM slice: its header, checked. Its pixels are read by :mod:`brainseg.io.dicom.pixel_data`.

Accepted are grayscale slices of 8 or 16 bits a value, uncompressed (implicit or explicit little endian, explicit big
endian, deflated) or in a syntax of ``transfer_syntax.COMPRESSED``, also without preamble or name of their syntax.
MONOCHROME2 stays as it is. MONOCHROME1, where the smallest value is the brightest, is inverted within the range of its
stored bits: ``smallest + largest - value``.

Only the tags in ``TAGS`` are parsed, so that names, dates, ids and descriptions are not read; but for
:mod:`brainseg.io.dicom.seg_writer`, which must repeat some of them. No error holds a text of a header, nor of a library
that read one. Limits are checked before any pixel is read.
"""

import logging
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from brainseg.errors import DataError, guard, lack_library
from brainseg.io import volumes
from brainseg.io.dicom import transfer_syntax
from brainseg.io.dicom.transfer_syntax import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, Encoding

MAX_BYTES = 2 * volumes.MAX_SIDE**2 + 2**22  # of one file, deflated or not: the largest slice and 4 MiB of header
MAX_HEADER = 2**26  # bytes before the pixels; thousands of frames have tens of MiB
MAX_FRAMES_BYTES = 2 * volumes.MAX_VOXELS + MAX_HEADER  # of one file with several slices
MAX_ITEMS = 10_000  # of all sequences in a file; pydicom takes seconds for a million
BYTES_PER_ITEM = 256  # a larger file may have one for each such number of bytes: each frame has several
ENHANCED = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")  # MR of several frames; converted to it
SEGS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # segmentation, label map segmentation
PLAIN_SYNTAXES = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
ENDINGS = (".dcm", ".dicom", ".ima")
EXPORT = "export the series again"
RESTORE = f"restore it, or {EXPORT}"
DECOMPRESS = "decompress each file: gdcmconv --raw IN OUT (GDCM)"

_SMALLER = "split a multi-frame file into single slices, or crop it"
_LARGEST = 1e12  # limit of all numbers in a header, so that results computed from them stay finite
_ROUNDING = 2e-3  # how far cosines may be from those of perpendicular directions: they may have three decimals
_PLANAR = ("MR", "CT", "Positron Emission Tomography")  # kinds of images that are slices
TIMES = ("EchoTime", "RepetitionTime", "InversionTime")
TAGS = ("SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "SeriesNumber", "ImageType",
        "BurnedInAnnotation", "ModalityLUTSequence", "NumberOfFrames",
        "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ImageOrientationPatient",
        "ImagePositionPatient", "PixelSpacing", "SliceThickness", "PixelPaddingValue", "PixelPaddingRangeLimit",
        "LossyImageCompression", "LossyImageCompressionRatio", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
        "ScanningSequence", *TIMES,
        "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")  # fmt: skip

_CONVERTED = "Legacy Converted Enhanced "
_ASSUMED = {IMPLICIT: "implicit little endian", EXPLICIT: "explicit little endian"}
_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")  # whatever the header says


class StrangerError(DataError):
    """A file that is no slice and may be passed over. ``kind``: what it is, after "files that are"."""

    kind = "not DICOM"


class NoSliceError(StrangerError):
    """DICOM that is no slice by its kind: a structured report, a presentation state, a screenshot."""

    def __init__(self, label: str, what: str, kind: str):
        super().__init__(label, what, "remove it from the series")
        self.kind = kind


class SliceHeader(NamedTuple):
    """What the header of one file says, checked."""

    path: Path
    file_label: str  # what errors call the file
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
    lossy: tuple[float, ...] | None = None  # the ratios, if any, of compression that loses something
    padding: tuple[float, float] | None = None  # smallest and largest value outside the image, as pixels are read
    times: tuple[float, ...] = ()  # ms: TIMES, the last 0 without an inversion; empty if unknown, as of frames
    frame: int = 0  # its number in the file
    frames: int = 1  # of the file

    @property
    def name(self) -> str:
        """The name of the file, with the frame."""
        return self.path.name + self._at

    @property
    def label(self) -> str:
        """What errors call the slice."""
        return self.file_label + self._at

    @property
    def _at(self) -> str:
        return f" (frame {self.frame + 1:,})" if self.frames > 1 else ""


def load_pydicom() -> ModuleType:
    """Import pydicom and silence it for the whole process: its warnings may quote a header.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import pydicom
        import pydicom.filereader
    except ImportError:
        raise lack_library("DICOM", "pydicom") from None
    logger = logging.getLogger("pydicom")
    logger.disabled, logger.propagate = True, False  # its own messages; those of the loggers below it
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
            return transfer_syntax.is_dicom(file.read(transfer_syntax.HEAD))
    except OSError:
        return True


def make_header(dataset: Any, path: Path, label: str, *, frame: int = 0, frames: int = 1) -> SliceHeader:
    """The header of one slice.

    Args:
        dataset: the tags of the slice, in one data set.
        path: the file.
        label: what errors call the file.
        frame: its number in the file.
        frames: of the file.

    Raises:
        StrangerError: DICOM of a kind that has no slices.
        DataError: not a grayscale slice with a position.
    """
    with guard(label, RESTORE):
        _check_kind(dataset, label)
        size, kind = _read_size(dataset, label), _read_pixel_kind(dataset, label)
        axes, pixel, position = _read_place(dataset, label)
        thickness = read_numbers(dataset, "SliceThickness", 1)
        thick = 0.0 if thickness is None else max(float(thickness[0]), 0.0)
        series = _series_uid(dataset)
        if not series:
            raise DataError(label, "does not say which series it belongs to (SeriesInstanceUID)", EXPORT)
        return SliceHeader(
            path, label, series, size, kind, axes, pixel, position, thick, _read_rescale(dataset, label),
            scan=(str(dataset.get("StudyInstanceUID") or ""), str(dataset.get("SeriesNumber") or "")),
            lossy=_read_lossy(dataset), padding=_read_padding(dataset, kind),
            times=_read_times(dataset) if frames == 1 else (), frame=frame, frames=frames,
        )  # fmt: skip


def read_series_uid(path: Path, label: str) -> str:
    """The UID of the series of one file, empty where it has none.

    Raises:
        StrangerError: not DICOM, or DICOM of a kind that has no slices.
        DataError: it cannot be read.
        MachineError: pydicom is not installed.
    """
    dataset, _ = read_dataset(path, label, ("SOPClassUID", "SeriesInstanceUID", "Rows", "ImagePositionPatient"))
    with guard(label, RESTORE):
        check_image(dataset, label)
        return _series_uid(dataset)


def name_compression(path: Path) -> str:
    """The name of the transfer syntax of a compressed file, or of one in a folder; empty if none is compressed."""
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in inside:
        with suppress(OSError), file.open("rb") as handle:
            syntax = transfer_syntax.find_encoding(handle.read(transfer_syntax.HEAD)).syntax
            if syntax in transfer_syntax.COMPRESSED:
                return name_syntax(load_pydicom().uid.UID(syntax))
    return ""


def read_dataset(path: Path, label: str, tags: Sequence[str], bytes_per_item: int = BYTES_PER_ITEM) -> tuple[Any, str]:
    """Parse these tags of one file. The transfer syntax is checked before anything is parsed.

    Args:
        path: the file.
        label: what errors call it.
        tags: keywords.
        bytes_per_item: of the file, for each item that its sequences may have beyond MAX_ITEMS.

    Returns:
        The data set, and the name of the transfer syntax if the file does not give it.

    Raises:
        StrangerError: not DICOM. DataError: it cannot be read. MachineError: pydicom is not installed.
    """
    pydicom = load_pydicom()
    with guard(label, RESTORE):
        if not path.is_file():
            raise DataError(label, "is not a file", "put the file itself here, and no folder, pipe or broken link")
        if path.stat().st_size == 0:
            raise StrangerError(label, "is empty", "restore or remove it")
        if not is_dicom(path):
            raise StrangerError(label, "is not DICOM", "remove it from the series, or export it again as DICOM")
        with_pixels = "PixelData" in tags
        with path.open("rb") as file:  # read(n) takes memory for n bytes, however short the file is
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, MAX_FRAMES_BYTES if with_pixels else MAX_HEADER))
        encoding = transfer_syntax.find_encoding(data)
        whole = _make_readable(data, encoding, label)
        for each in {id(data): data, id(whole): whole}.values():
            _check_items(each, label, bytes_per_item)
        plain = pydicom.dcmread(BytesIO(whole), stop_before_pixels=not with_pixels, specific_tags=list(tags))
        return plain, "" if encoding.named else _ASSUMED[encoding.syntax]


def check_bytes(path: Path, label: str, most: int, fix: str = _SMALLER) -> None:
    """Refuse a file of more than ``most`` bytes."""
    if (size := path.stat().st_size) > most:
        what = f"holds {size:,} bytes, at most {most:,} are accepted"
        raise DataError(label, what, fix)


def _make_readable(data: bytes, encoding: Encoding, label: str) -> bytes:
    """The file as pydicom reads it within limits: with a preamble and a transfer syntax, not deflated."""
    if encoding.syntax not in (*PLAIN_SYNTAXES, *transfer_syntax.COMPRESSED):
        what = f"is encoded as {name_syntax(load_pydicom().uid.UID(encoding.syntax))}, which is not read"
        raise DataError(label, what, DECOMPRESS)
    if encoding.syntax != DEFLATED:
        return transfer_syntax.add_preamble(data, encoding)
    has_frames = transfer_syntax.find_class(data, encoding) in (*ENHANCED, *SEGS)
    most = MAX_FRAMES_BYTES if has_frames else MAX_BYTES
    inflated = transfer_syntax.inflate(data, encoding, most)
    if inflated is None:
        what = f"is cut short, or inflates to more than {most:,} bytes"
        raise DataError(label, what, DECOMPRESS)
    return inflated


def name_syntax(uid: Any) -> str:
    """What errors call a transfer syntax."""
    return _uid_name(uid) or "an unknown transfer syntax"


def _uid_name(uid: Any) -> str:
    """The name of a UID in the list of the standard; empty for any other value, which is not shown."""
    name = str(uid.name) if hasattr(uid, "name") else ""
    return name if name != str(uid) else ""


def _check_items(data: bytes, label: str, bytes_per_item: int) -> None:
    """Refuse a file made to keep the parser busy: count the marks of items in either byte order."""
    most = max(MAX_ITEMS, len(data) // bytes_per_item)
    if max(data.count(b"\xfe\xff\x00\xe0"), data.count(b"\xff\xfe\xe0\x00")) > most:
        raise DataError(label, f"has more than {most:,} items in its sequences", EXPORT)


def _series_uid(dataset: Any) -> str:
    return str(dataset.get("SeriesInstanceUID") or "")


def check_image(dataset: Any, label: str) -> None:
    """Refuse what has no slices. It is a stranger by the kind that it names; a slice that is cut short is not.

    Raises:
        NoSliceError: a report, a screenshot, ultrasound. DataError: an image without an image.
    """
    kind, name = dataset.get("SOPClassUID"), _uid_name(dataset.get("SOPClassUID"))
    if dataset.get("Rows") is None:
        if not kind or "Image Storage" in str(getattr(kind, "name", kind)):
            raise DataError(label, "holds no image", RESTORE)
        raise NoSliceError(label, "holds no image", "DICOM without an image")
    planar = [f"{prefix}{plane} Image Storage" for plane in _PLANAR for prefix in ("", "Enhanced ", _CONVERTED)]
    if name in ("", *planar) or read_numbers(dataset, "ImagePositionPatient", 3) is not None:
        return
    other = name.removesuffix(" Storage")
    raise NoSliceError(label, f"holds no slice with a place in the body, but a {other}", f"of another kind ({other})")


def _check_kind(dataset: Any, label: str) -> None:
    """Refuse what is not one plain grayscale slice, or has text in its pixels."""
    check_image(dataset, label)
    if str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        what = "has text burned into its pixels (BurnedInAnnotation is YES), which may name the patient"
        raise DataError(label, what, "remove the text and set the tag to NO, or leave the series out")
    if "MOSAIC" in str(dataset.get("ImageType")).upper():
        what = "is a Siemens mosaic: one picture of all slices side by side"
        raise DataError(label, what, "convert it to NIfTI with dcm2niix")
    samples, colours = read_numbers(dataset, "SamplesPerPixel", 1), str(dataset.get("PhotometricInterpretation"))
    if samples is None or samples[0] != 1 or colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(label, "is not grayscale (one sample, MONOCHROME1 or MONOCHROME2)", "leave the series out")
    if "ModalityLUTSequence" in dataset:
        raise DataError(label, "maps its values by a table (Modality LUT)", "export it with a rescale slope instead")


def _read_size(dataset: Any, label: str) -> tuple[int, int]:
    sides = [read_numbers(dataset, keyword, 1) for keyword in ("Rows", "Columns")]
    if sides[0] is None or sides[1] is None or min(sides[0][0], sides[1][0]) < 1:
        raise DataError(label, "has an impossible number of rows or columns", EXPORT)
    return int(sides[0][0]), int(sides[1][0])


def _read_pixel_kind(dataset: Any, label: str) -> tuple[bool, int, int, bool]:
    keywords = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    values = [read_numbers(dataset, keyword, 1) for keyword in keywords]
    allocated, stored, high, signed = (-1 if value is None else int(value[0]) for value in values)
    if allocated not in (8, 16) or not 1 <= stored <= allocated or high != stored - 1 or signed not in (0, 1):
        raise DataError(label, "has pixels that are not 8 or 16 bits from the lowest bit up", "save it with 16 bits")
    return dataset.PhotometricInterpretation == "MONOCHROME1", allocated, stored, bool(signed)


def _read_place(dataset: Any, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions ``(6,)``, pixel spacing ``(2,)`` and position ``(3,)``."""
    found = []
    for keyword, count in (("ImageOrientationPatient", 6), ("PixelSpacing", 2), ("ImagePositionPatient", 3)):
        values = read_numbers(dataset, keyword, count)
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
        number = np.array([default]) if absent else read_numbers(dataset, keyword, 1)
        if number is None:
            raise DataError(label, f"has a {keyword} that is not a number", EXPORT)
        values.append(float(number[0]))
    if values[0] == 0:
        raise DataError(label, "has a RescaleSlope of 0, which makes all pixels equal", EXPORT)
    return values[0], values[1]


def _read_lossy(dataset: Any) -> tuple[float, ...] | None:
    """The ratios of lossy compression; None without it."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID")) if hasattr(dataset, "file_meta") else ""
    if str(dataset.get("LossyImageCompression") or "").strip() != "01" and syntax not in _LOSSY:
        return None
    ratios = dataset.get("LossyImageCompressionRatio")
    count = len(ratios) if isinstance(ratios, Sequence) and not isinstance(ratios, str) else 1
    found = read_numbers(dataset, "LossyImageCompressionRatio", count)
    return () if found is None else tuple(ratio for ratio in found.tolist() if ratio > 1)


def _read_padding(dataset: Any, kind: tuple[bool, int, int, bool]) -> tuple[float, float] | None:
    """The range of values that fill the place outside the image; inverted as the pixels are."""
    value = read_numbers(dataset, "PixelPaddingValue", 1)
    if value is None:
        return None
    limit = read_numbers(dataset, "PixelPaddingRangeLimit", 1)
    ends = [float(value[0]), float((value if limit is None else limit)[0])]
    inverted, _, stored, signed = kind
    if inverted:
        ends = [(-1 if signed else 2**stored - 1) - end for end in ends]
    return min(ends), max(ends)


def _read_times(dataset: Any) -> tuple[float, ...]:
    """Echo, repetition and inversion time, 0 without an inversion; empty where one of them is not known."""
    found = [read_numbers(dataset, keyword, 1) for keyword in TIMES]
    echo, repetition, inversion = (0.0 if time is None else float(time[0]) for time in found)
    inverts = "IR" in str(dataset.get("ScanningSequence")) or dataset.get("InversionTime") not in (None, "")
    is_known = min(echo, repetition) > 0 and (inversion > 0 or not inverts)
    return (echo, repetition, inversion) if is_known else ()


def read_numbers(dataset: Any, keyword: str, count: int) -> np.ndarray | None:
    """``(count,)`` numbers below ``_LARGEST``, or None."""
    try:
        values = np.atleast_1d(np.asarray(dataset.get(keyword), np.float64))
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and (np.abs(values) < _LARGEST).all() else None
