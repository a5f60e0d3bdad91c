"""The pixels of DICOM files, also compressed ones.

Compressed frames are decoded by what pydicom finds installed. Nothing is decoded before the number of frames, and the
size that each frame says of itself, are those of the header, which was checked against the limits. What a decoder
raises is told as the name of the transfer syntax alone.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from brainseg.errors import DataError, describe_install, guard
from brainseg.io.dicom import codestream, slice_header
from brainseg.io.dicom.slice_header import DECOMPRESS, RESTORE, TAGS, SliceHeader
from brainseg.io.dicom.transfer_syntax import JPEG_EXTENDED, JPEG_LOSSLESS, RLE

_DECODERS = ("pylibjpeg", "pyjpegls", "pillow", "gdcm", "pydicom")  # the names of pydicom, the preferred one first
_MOST = 2  # times the bytes of a frame that its compressed form may have, and a header
_HEAD = 2**16
_JPEG_BITS = 8  # more are in values of 16 bits


class Frames(NamedTuple):
    """The pixels of a file as its header declares them, checked by the caller against its limits."""

    label: str  # what errors call the file
    number: int  # of frames
    size: tuple[int, int]  # rows, columns
    allocated: int  # bits of a pixel

    @property
    def pixels(self) -> int:
        """In one frame."""
        return self.size[0] * self.size[1]


def read_pixels(items: Sequence[SliceHeader]) -> list[np.ndarray]:
    """The pixels of slices of one file, each ``(rows, columns)``, uint8, uint16 or int16, not rescaled.

    MONOCHROME1 is inverted.

    Raises:
        DataError: no pixels, too few or too many bytes, or a codec that is missing or fails.
    """
    first = items[0]
    inverted, allocated, stored, signed = first.kind
    dataset, _ = slice_header.read_dataset(first.path, first.file_label, (*TAGS, "PixelData"))
    with guard(first.file_label, RESTORE):
        frames = Frames(first.file_label, first.frames, first.size, allocated)
        found = read_frames(dataset, frames, [item.frame for item in items])
    if inverted:
        found = [(-1 if signed else 2**stored - 1) - pixels.astype(np.int32) for pixels in found]
    return [pixels.astype(np.int16 if signed else f"u{allocated // 8}") for pixels in found]


def read_frames(dataset: Any, frames: Frames, wanted: Sequence[int]) -> list[np.ndarray]:
    """The pixels of some frames of one file, each ``(rows, columns)``, as stored. Errors as in :func:`read_pixels`.

    Args:
        dataset: with PixelData and what describes them.
        frames: as the same data set says.
        wanted: numbers of frames, from 0.
    """
    if "PixelData" not in dataset:
        raise DataError(frames.label, "holds no pixels", slice_header.EXPORT)
    read = _decode if dataset.file_meta.TransferSyntaxUID.is_encapsulated else _copy
    return read(dataset, frames, wanted)


def _copy(dataset: Any, frames: Frames, wanted: Sequence[int]) -> list[np.ndarray]:
    """Pixels that are not compressed."""
    if dataset["PixelData"].is_undefined_length:
        what = "has encapsulated pixels, but names an uncompressed transfer syntax"
        raise DataError(frames.label, what, slice_header.EXPORT)
    size = -(-frames.number * frames.pixels * frames.allocated // 8)
    if len(dataset.PixelData) not in (size, size + size % 2):
        what = f"holds {len(dataset.PixelData):,} of {size:,} bytes of pixels"
        raise DataError(frames.label, what, RESTORE)
    pixels = dataset.pixel_array.reshape(frames.number, *frames.size)
    return [pixels[n] for n in wanted]


def _decode(dataset: Any, frames: Frames, wanted: Sequence[int]) -> list[np.ndarray]:
    name = slice_header.name_syntax(dataset.file_meta.TransferSyntaxUID)
    if not dataset["PixelData"].is_undefined_length:
        what = f"names the transfer syntax {name}, but its pixels are not encapsulated"
        raise DataError(frames.label, what, slice_header.EXPORT)
    syntax = _check_frames(dataset, frames, name)
    pydicom = slice_header.load_pydicom()
    decoder = pydicom.pixels.get_decoder(syntax)
    installed = [plugin for plugin in _DECODERS if plugin in decoder.available_plugins]
    if not installed:
        what = f"is encoded as {name}, for which no decoder is installed"
        raise DataError(frames.label, what, f"{describe_install('medical')}, or {DECOMPRESS}")
    dataset.file_meta.TransferSyntaxUID = syntax
    kept = set(wanted)
    for plugin in installed:
        try:
            read = enumerate(decoder.iter_array(dataset, raw=True, decoding_plugin=plugin))
            found = {n: pixels for n, (pixels, _) in read if n in kept}
            return [found[n].reshape(frames.size) for n in wanted]
        except MemoryError:
            raise
        except Exception:  # a codec raises anything, in words that may quote the file
            continue
    raise DataError(frames.label, f"cannot be decoded as {name}", f"restore it, or {DECOMPRESS}")


def _check_frames(dataset: Any, frames: Frames, name: str) -> Any:
    """Refuse frames whose number or own size differs from the header. Return the syntax to decode them by."""
    encaps, syntax = slice_header.load_pydicom().encaps, dataset.file_meta.TransferSyntaxUID
    tables = [dataset.get(keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    offsets = (tables[0], tables[1]) if all(tables) else None
    data, count, bits = dataset.PixelData, 0, 0
    raw = frames.pixels * frames.allocated // 8
    for frame in encaps.generate_frames(data, number_of_frames=frames.number, extended_offsets=offsets):
        count += 1
        own = None if syntax == RLE else codestream.read(frame)
        if len(frame) > _MOST * raw + _HEAD or (syntax != RLE and not own):
            raise DataError(frames.label, f"has pixels that are not {name}", RESTORE)
        if own and (own.rows, own.columns, own.samples) != (*frames.size, 1):
            what = f"has compressed pixels of {own.columns} x {own.rows} x {own.samples}, its header says "
            raise DataError(frames.label, what + f"{frames.size[1]} x {frames.size[0]} x 1", RESTORE)
        bits = max(bits, own.bits if own else 0)
    if count != frames.number:
        raise DataError(frames.label, f"holds {count:,} of {frames.number:,} frames", RESTORE)
    if bits > frames.allocated:
        what = f"has compressed pixels of {bits} bits, its header says {frames.allocated}"
        raise DataError(frames.label, what, RESTORE)
    # pydicom refuses these, but GDCM reads them: it goes by the frame, not by the syntax.
    return type(syntax)(JPEG_LOSSLESS) if syntax == JPEG_EXTENDED and bits > _JPEG_BITS else syntax
