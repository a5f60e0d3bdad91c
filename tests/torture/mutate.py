"""Random damage to bytes: the same for the same random numbers."""

import hashlib
import random
import re
import struct
import zlib

MOST = 6  # changes of one input
LONGEST = 2**16  # bytes that a change adds at most
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_PACKED = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"  # the pixels of a DICOM file, of unknown length
WORDS = (
    *(b"NaN", b"1e999", b"-1", b"0", b"99999999999999999999", b"null", b"true", b"!!python/object:x", b"&a [*a]"),
    *(b"{", b"[", b'"', b"''", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"..", b"/"),
)


def mutate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """``data`` after one to MOST changes. ``other``: bytes of another input, of which pieces are put in."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, MOST)):
        rng.choice(CHANGES)(changed, rng, other)
    return bytes(changed)


def _place(data: bytearray, rng: random.Random) -> int:
    """More often near the beginning, where headers are."""
    return rng.randrange(min(len(data), 600) if rng.random() < 0.6 else len(data)) if data else 0


def _flip(data: bytearray, rng: random.Random, other: bytes) -> None:
    if data:
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _set_number(data: bytearray, rng: random.Random, other: bytes) -> None:
    """An extreme whole or floating-point number of 1, 2, 4 or 8 bytes, in either byte order."""
    order, width = rng.choice("<>"), rng.choice((1, 2, 4, 8))
    number = rng.choice(EXTREMES) & (2 ** (8 * width) - 1)
    packed = number.to_bytes(width, "little" if order == "<" else "big")
    if width >= 4 and rng.random() < 0.3:
        value = rng.choice((float("nan"), float("inf"), -1.0, 1e30))
        packed = struct.pack(order + ("f" if width == 4 else "d"), value)
    place = _place(data, rng)
    data[place : place + width] = packed


def _remove(data: bytearray, rng: random.Random, other: bytes) -> None:
    place = _place(data, rng)
    del data[place : place + rng.choice((1, 2, 4, 16, 200))]


def _cut(data: bytearray, rng: random.Random, other: bytes) -> None:
    del data[_place(data, rng) :]


def _repeat(data: bytearray, rng: random.Random, other: bytes) -> None:
    place = _place(data, rng)
    piece = data[place : place + rng.choice((1, 8, 64))] * rng.choice((1, 2, 50, 1000))
    data[place:place] = piece[:LONGEST]


def _splice(data: bytearray, rng: random.Random, other: bytes) -> None:
    start, place = _place(bytearray(other), rng), _place(data, rng)
    data[place:place] = other[start : start + rng.choice((4, 32, 400))]


def _put_word(data: bytearray, rng: random.Random, other: bytes) -> None:
    place = _place(data, rng)
    data[place : place + rng.choice((0, 1, 4))] = rng.choice(WORDS)


def _replace_number(data: bytearray, rng: random.Random, other: bytes) -> None:
    """A number of a text."""
    found = list(re.finditer(rb"\d+", data))
    if found:
        start, end = rng.choice(found).span()
        data[start:end] = rng.choice(WORDS)


def _nest(data: bytearray, rng: random.Random, other: bytes) -> None:
    """Brackets so deep that a parser which calls itself has no stack left."""
    place = _place(data, rng)
    data[place:place] = rng.choice((b"[", b'{"a":', b"(", b"- ")) * rng.choice((10, 5000))


CHANGES = (_flip, _flip, _set_number, _set_number, _remove, _cut, _repeat, _splice, _put_word, _replace_number, _nest)


def mutate_sealed(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Damage the lines of a journal, each of which begins with a digest, and make their digests right again."""
    head, *lines = data.splitlines()
    changed = (mutate(line.partition(b" ")[2], rng, other).replace(b"\n", b" ") for line in lines)
    return head + b"\n" + b"".join(hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n" for text in changed)


def mutate_packed_frames(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Damage what follows the header of a compressed DICOM file: items and codestreams; empty if it is none."""
    start = data.find(_PACKED)
    return data[: start + len(_PACKED)] + mutate(data[start + len(_PACKED) :], rng, other) if start > 0 else b""


def repair_png(data: bytes) -> bytes:
    """Correct the checksums of a PNG's chunks, so that a decoder gets past them."""
    fixed, place = bytearray(data), 8
    while place + 12 <= len(fixed):
        (size,) = struct.unpack_from(">I", fixed, place)
        if place + 12 + size > len(fixed):
            break
        struct.pack_into(">I", fixed, place + 8 + size, zlib.crc32(fixed[place + 4 : place + 8 + size]))
        place += 12 + size
    return bytes(fixed)
