"""How the bytes of a DICOM file are encoded, also where it has no preamble or names no transfer syntax.

Such files are old exports. Their first elements tell DICOM from other files, and implicit values from explicit ones.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
JPEG_EXTENDED, JPEG_LOSSLESS, RLE = "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.5"
COMPRESSED = (
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    *("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),  # JPEG-LS: lossless, near-lossless
    *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),  # JPEG 2000: lossless, lossy
    *("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"),  # high-throughput JPEG 2000
    RLE,
)
HEAD = 1024  # bytes of a file that are enough for ``is_dicom``

_PREAMBLE = 128  # bytes before the letters DICM
_MARK = b"DICM"
_SYNTAX = 0x0002_0010
_CLASS = 0x0008_0016
_FEW = 3  # elements in order of their tags, by which a data set is recognised
_SHORT = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # with lengths of 16 bits
_LONG = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()  # of 32 bits


class Encoding(NamedTuple):
    """``syntax``: the UID, empty if unknown. ``start``: where the data set begins. ``named``: the file names it."""

    syntax: str
    start: int
    named: bool


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does: by its mark, or by its first elements where there is no preamble."""
    if head[_PREAMBLE:].startswith(_MARK):
        return True
    first = [tag >> 16 for tag, _, _ in itertools.islice(_elements(head, 0), _FEW)]
    return first == [2] * _FEW or bool(_recognise(head, 0))


def find_encoding(data: bytes) -> Encoding:
    """The transfer syntax that a file names, or else the one that its first elements show."""
    start = _PREAMBLE + len(_MARK) if data[_PREAMBLE:].startswith(_MARK) else 0
    syntax = b""
    for tag, value, end in _elements(data, start):
        if tag >> 16 != 2:
            break
        if tag == _SYNTAX:
            syntax = data[value:end].strip(b"\0 ")
        start = end
    if syntax:
        return Encoding(syntax.decode("ascii", "replace"), start, True)
    return Encoding(_recognise(data, start), start, False)


def add_preamble(data: bytes, encoding: Encoding) -> bytes:
    """The file with what pydicom expects before the data set."""
    if data[_PREAMBLE:].startswith(_MARK) and encoding.named:
        return data
    uid = encoding.syntax.encode() + bytes(len(encoding.syntax) % 2)
    syntax = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(uid)) + uid
    return bytes(_PREAMBLE) + _MARK + syntax + data[encoding.start :]


def inflate(data: bytes, encoding: Encoding, most: int) -> bytes | None:
    """A deflated file as an explicit little endian one; None if it is cut short or holds more than ``most`` bytes.

    pydicom would inflate it without a limit.
    """
    inflator = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflator.decompress(data[encoding.start :], most)
    return add_preamble(inflated, Encoding(EXPLICIT, 0, False)) if inflator.eof else None


def find_class(data: bytes, encoding: Encoding) -> str:
    """The SOP class of a deflated file; empty if it is not near its beginning."""
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[encoding.start :], HEAD)
    values = (inflated[start:end] for tag, start, end in _elements(inflated, 0) if tag == _CLASS)
    return next(values, b"").strip(b"\0 ").decode("ascii", "replace")


def _recognise(data: bytes, start: int) -> str:
    """The syntax of a data set without a name of it; empty if no data set begins here."""
    tags = [tag for tag, _, _ in itertools.islice(_elements(data, start), _FEW)]
    if len(tags) < _FEW or tags[0] >> 16 != 8 or sorted(set(tags)) != tags:
        return ""
    return EXPLICIT if data[start + 4 : start + 6] in (*_SHORT, *_LONG) else IMPLICIT


def _elements(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Tag, start and end of the value of each element, little endian, up to the first one of unknown length."""
    explicit = data[at + 4 : at + 6] in (*_SHORT, *_LONG)
    while at + 12 <= len(data):
        group, element, kind, short = struct.unpack_from("<HH2sH", data, at)
        value, length = at + 8, short
        if not explicit:
            (length,) = struct.unpack_from("<I", data, at + 4)
        elif kind in _LONG:
            value, (length,) = at + 12, struct.unpack_from("<I", data, at + 8)
        elif kind not in _SHORT:
            return
        if length % 2 and length != 0xFFFF_FFFF:
            return
        yield group << 16 | element, value, value + length
        at = value + length
