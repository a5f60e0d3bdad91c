"""What the compressed pixels of a DICOM frame say of themselves, read before a decoder trusts it.

A decoder reserves memory by the size in these few bytes, whatever the header of the file says.
"""

import struct
from typing import NamedTuple

_JPEG, _J2K, _BOX = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # markers of the size: JPEG and JPEG-LS (F7)
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


class Codestream(NamedTuple):
    """``bits``: of each value, without a sign."""

    rows: int
    columns: int
    samples: int
    bits: int


def read(data: bytes) -> Codestream | None:
    """The size of a frame in JPEG, JPEG-LS or JPEG 2000, as ``data`` says it; None if it says none."""
    try:
        if data.startswith(_JPEG):
            return _read_jpeg(data)
        start = _find_boxed(data) if data.startswith(_BOX) else 0
        return _read_j2k(data, start) if data[start:].startswith(_J2K) else None
    except struct.error:  # it ends too early
        return None


def _read_jpeg(data: bytes) -> Codestream | None:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a byte that fills
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAMES:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", data, at + 4)
            return Codestream(rows, columns, samples, bits)
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _read_j2k(data: bytes, start: int) -> Codestream:
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    samples, depth = struct.unpack_from(">HB", data, start + 40)
    return Codestream(bottom - top, right - left, samples, (depth & 0x7F) + 1)


def _find_boxed(data: bytes) -> int:
    """Where the codestream begins in the boxes of a JP2 file; the end of ``data`` if it has none."""
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,), head = struct.unpack_from(">Q", data, at + 8), 16
        if kind == b"jp2c":
            return at + head
        if length < head:
            break
        at += length
    return len(data)
