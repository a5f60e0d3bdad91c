"""TIF, PNG and JPEG bytes to arrays. Nothing is rescaled, wrapped or guessed.

What each kind becomes, as uint8: grayscale ``(H, W)``; 1-bit ``(H, W)`` with 0 and 255; RGB ``(H, W, 3)``; a palette
its colours, ``(H, W, 3)``. An alpha channel is dropped if every pixel is opaque.
Unsigned 16-bit grayscale stays uint16, floating-point stays float32: preprocessing maps their intensities by one window
for all slices of the patient.
Pages of a TIF are slices, unless its description (of ImageJ, OME or tifffile) says that they are channels as well.
All other kinds are refused: 2 or 4 bits a channel, 16-bit colour, 32-bit whole numbers, signed, CMYK, NaN or infinity,
a side outside MIN_SIDE..MAX_SIDE. A PNG palette may have 1, 2, 4 or 8 bits, because its colours always have 8.
"""

import io
import json
import logging
import math
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from brainseg.errors import DataError, guard
from brainseg.io import values

MIN_SIDE = 8
MAX_SIDE = 4096
MAX_PAGES = 1024
MAX_BYTES = 4 * MAX_SIDE**2 + 2**20  # the largest picture, uncompressed and with alpha, and 1 MiB for tags
MAX_VALUES = 2**27  # of all pages and channels of one file together, the limit of a volume
JPEG_NOISE = 16  # grey levels by which JPEG of good quality changes black and white
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")

Image.MAX_IMAGE_PIXELS = MAX_SIDE**2
warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters becomes an error that names the file
logging.getLogger("PIL").setLevel(logging.CRITICAL)

_PLAIN = {"1": "L", "L": "L", "RGB": "RGB"}
_ALPHA = {"LA": "LA", "P": "RGBA", "PA": "RGBA", "RGBA": "RGBA"}
_DEEP = {"I;16": np.uint16, "I;16B": np.uint16, "I;16L": np.uint16, "F": np.float32}
_BITS = {"1": 1, "F": 32} | dict.fromkeys(("I;16", "I;16B", "I;16L"), 16)  # bits of a channel, 8 in all other modes
_BITS_PER_SAMPLE = 258  # TIFF tag, one value for each channel
_SAMPLE_FORMAT = 339  # TIFF tag: 1 is unsigned, 3 floating-point
_ORIENTATION = 274  # Exif tag: 1 is upright
_DESCRIPTION = 270  # TIFF tag: free text, of which only the numbers of pages are read
_IMAGEJ = (("T", "frames"), ("Z", "slices"), ("C", "channels"))  # slowest first
_AXES = {"C": "channels", "T": "time points", "Z": "slices"}
_SLICES = "ZIQ?"  # also what tifffile calls a sequence, other, or does not name
_MARKS = {b"II*": "TIFF", b"MM\0": "TIFF", b"\x89PNG": "PNG", b"\xff\xd8": "JPEG"}  # first bytes
_PNG = b"\x89PNG\r\n\x1a\n"
_NUMPY = b"\x93NUMPY"
_PHOTOMETRIC = 262  # TIFF tag: with 0, white is zero, which Pillow inverts only for 8 bits
_KINDS_READ = "8-bit or unsigned 16-bit grayscale, 32-bit floating point, or RGB with 8 bits per channel"

_stderr = threading.Lock()  # one thread at a time redirects it


def decode(data: bytes, name: str) -> np.ndarray:
    """Decode one picture.

    Args:
        data: the bytes of the file, or of a slice that ``encode`` made.
        name: what errors call it.

    Returns:
        ``(H, W)`` or ``(H, W, 3)``, uint8, uint16, int16 or float32, channels in file order.

    Raises:
        DataError: not a whole single-page picture of an accepted size and depth.
    """
    if data.startswith(_NUMPY):
        return _decode_slice(data, name)
    with _open(data, name) as image:
        if _seek(image, 1):
            raise DataError(name, "holds more than one page", "save one slice per file")
        return _page(image, name)


def decode_labels(data: bytes, name: str) -> np.ndarray:
    """Decode a mask: labels, ``(H, W)``, uint8 or uint16. Arguments and errors as in ``decode``.

    A palette's indices are the labels, unless it only gives the greys another order. Three equal channels are one; of a
    single colour on black, it is the label. Of a JPEG, what is within JPEG_NOISE of 0 or 255 is taken as that.

    Raises:
        DataError: also several colours, fractions, and a JPEG with other values.
    """
    if data.startswith(_NUMPY):
        return _to_labels(_decode_slice(data, name), name)
    with _open(data, name) as image:
        if _seek(image, 1):
            raise DataError(name, "holds more than one page", "save one slice per file")
        labels = _to_labels(_label_page(image, name), name)
        return _restore_jpeg(labels, name) if image.format == "JPEG" else labels


def decode_label_pages(data: bytes, name: str) -> np.ndarray:
    """Decode all pages of a TIF as labels, (S, H, W); see ``decode_labels`` and ``decode_pages``."""
    return _to_labels(decode_pages(data, name, _label_page), name)


def is_jpeg(data: bytes) -> bool:
    """Whether a picture is a JPEG, whatever its name says."""
    return data.startswith(b"\xff\xd8")


def decode_pages(
    data: bytes, name: str, decode_page: Callable[[ImageFile, str], np.ndarray] | None = None
) -> np.ndarray:
    """Decode all pages of a TIF, each as ``decode`` does: (S, H, W) or (S, H, W, 3).

    Raises:
        DataError: as in ``decode``; pages of different sizes or kinds, more than MAX_PAGES or MAX_VALUES, or pages that
            are not the slices, or three channels of each slice, of one volume.
    """
    found: list[np.ndarray] = []
    values = 0
    with _open(data, name) as image:
        axes = _read_axes(image, name)
        while _seek(image, len(found)):
            values += image.width * image.height * len(image.getbands())
            if len(found) == MAX_PAGES or values > MAX_VALUES:
                what = f"holds more than {MAX_PAGES:,} pages or {MAX_VALUES:,} values"
                raise DataError(name, what, "split it into one file per patient, or resize it")
            found.append((decode_page or _page)(image, name))
    kinds = {(page.shape, page.dtype.name) for page in found}
    if len(kinds) > 1:
        shown = ", ".join(f"{shape} {kind}" for shape, kind in sorted(kinds))
        raise DataError(name, f"holds pages of different kinds: {shown}", "save pages of one size and depth")
    return _arrange(np.stack(found), axes, name)


def _read_axes(image: ImageFile, name: str) -> list[tuple[str, int]]:
    """What the pages of a TIF are by its description: axes and their lengths, slowest first; empty if it says nothing.

    Only axes longer than 1. C: channels, T: time, Z: slices; any other letter as tifffile names it, ? if it does not.
    """
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    text = str(tags.get(_DESCRIPTION, ""))
    axes: list[tuple[str, int]] = []
    if text.startswith("ImageJ="):
        numbers = dict(re.findall(r"^(\w+)=(\d{1,9})\s*$", text, re.MULTILINE))
        axes = [(axis, int(numbers.get(key, 1))) for axis, key in _IMAGEJ]
    elif "<OME" in text:
        if (images := len(re.findall(r"<(?:\w+:)?Image\s", text))) > 1:
            raise DataError(
                name, f"holds {images} images (OME), one volume is accepted", "save one as a TIF of its own"
            )
        numbers = dict(re.findall(r"\bSize([CTZ])\s*=\s*[\"'](\d{1,9})[\"']", text))
        order = re.search(r"\bDimensionOrder\s*=\s*[\"']XY([CTZ]{3})[\"']", text)
        axes = [(axis, int(numbers.get(axis, 1))) for axis in reversed(order[1] if order else "CZT")]
    elif text.lstrip().startswith("{"):
        axes = _read_shape(text, len(image.getbands()))
    return [(axis, length) for axis, length in axes if length > 1]


def _read_shape(text: str, bands: int) -> list[tuple[str, int]]:
    """The axes of pages in the JSON that tifffile writes: ``{"shape": [12, 2, 96, 96], "axes": "ZCYX"}``."""
    try:
        told = json.loads(text)
        sides, letters = [int(side) for side in told["shape"]], str(told.get("axes", ""))
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    if len(letters) != len(sides):
        letters = "?" * len(sides)
    pages = len(sides) - (2 if bands == 1 else 3)
    return list(zip(letters[:pages], sides[:pages], strict=True)) if pages > 0 else []


def _arrange(pages: np.ndarray, axes: list[tuple[str, int]], name: str) -> np.ndarray:
    """Three channels of each slice side by side, where ``axes`` say that the pages (P, H, W) are channels.

    Raises:
        DataError: other numbers of channels, time points, or two axes that could both be the slices.
    """
    slices = [length for axis, length in axes if axis in _SLICES]
    if len(slices) == len(axes) < 2 or slices == [len(pages)]:
        return pages  # slices alone; or one channel that was saved with the description of all
    letters = [axis for axis, _ in axes]
    whole = len(pages) == math.prod(length for _, length in axes)
    if whole and pages.ndim == 3 and ("C", 3) in axes and len(slices) == len(axes) - 1 < 2:
        at = letters.index("C")
        split = pages.reshape(*(length for _, length in axes), *pages.shape[1:])
        return np.ascontiguousarray(np.moveaxis(split, at, -1)).reshape(-1, *pages.shape[1:], 3)
    shown = " x ".join(f"{length} {_AXES.get(axis, 'pages')}" for axis, length in axes)
    what = f"is {shown} by its description, in {len(pages)} pages; slices are accepted, with one or three channels"
    fix = "save one channel of one time point as a TIF of its own (in ImageJ: Image > Duplicate, one channel and frame)"
    if letters == ["T"]:
        fix = "save one time point; if these are slices, say so in ImageJ: Image > Properties, frames 1"
    raise DataError(name, what, fix)


def has_pages(path: Path) -> bool:
    """Whether a TIF has more than one page, by its headers; False if it cannot be opened: ``decode`` says why."""
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            return _seek(image, 1)
    except Exception:  # damaged bytes make Pillow raise anything
        return False


def is_deep(data: bytes) -> bool:
    """Whether a picture has more than 8 bits a channel, by its header; False if it cannot be opened."""
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF", "PNG"]) as image:
            return image.mode in _DEEP
    except Exception:
        return False


def encode(pixels: np.ndarray) -> bytes:
    """Encode a slice of a volume, (H, W) or (H, W, 3), as NumPy's .npy bytes: ``decode`` returns it unchanged."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(pixels), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


@contextmanager
def _open(data: bytes, name: str) -> Iterator[ImageFile]:
    """The picture, opened but not decoded. Any error of Pillow within the block becomes one that names the file."""
    if not data:
        raise DataError(name, "is empty", "restore or remove it")
    if data.startswith(_PNG):
        _check_png(data, name)
    with guard(name, "restore or remove it"):
        try:
            with Image.open(io.BytesIO(data), formats=["TIFF", "PNG", "JPEG"]) as image:
                yield image
        except Image.DecompressionBombError:
            raise DataError(name, f"has more than {MAX_SIDE} x {MAX_SIDE} pixels", "crop or resize it") from None
        except UnidentifiedImageError:
            if kind := next((kind for mark, kind in _MARKS.items() if data.startswith(mark)), ""):
                what = f"is a {kind} that is damaged or of a kind that is not read"
                raise DataError(name, what, f"restore it, or save it as {_KINDS_READ}") from None
            raise DataError(name, "is neither a TIFF nor a PNG nor a JPEG", "save it as one of them") from None


def _check_png(data: bytes, name: str) -> None:
    """Compare the pixels of a PNG with their checksums (PNG specification, 5.3), as Pillow does for the rest of it."""
    place, view = len(_PNG), memoryview(data)
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 8 + length
        if kind == b"IDAT" and zlib.crc32(view[place + 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            raise DataError(name, "is damaged: its pixels do not fit their checksum", "restore or remove it")
        if kind == b"IEND":
            return
        place = end + 4


def _page(image: ImageFile, name: str) -> np.ndarray:
    """Decode the current page."""
    _check_header(image, name)
    with quiet() if image.tile and image.tile[0].codec_name == "libtiff" else nullcontext():
        image.load()
    pixels = _to_array(image, name)
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise DataError(name, "holds NaN or infinity", "replace them, or remove the slice")
    return pixels


def _label_page(image: ImageFile, name: str) -> np.ndarray:
    """Decode the current page; of one with a palette the indices, where they are the labels."""
    if image.mode != "P":
        return _page(image, name)
    _check_header(image, name)
    image.load()
    indices, colours = np.asarray(image), np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if indices.max() >= len(colours):
        return indices
    used = colours[np.unique(indices)].astype(int)
    if (used == used[:, :1]).all() and (np.diff(used[:, 0]) < 0).any():  # black is not the first: a grey picture
        return colours[indices][..., 0]
    return indices


def _to_labels(pixels: np.ndarray, name: str) -> np.ndarray:
    """(..., H, W) or (..., H, W, 3) to labels (..., H, W)."""
    if pixels.shape[-1] == 3 and pixels.ndim > 2:
        pixels = _merge_colours(pixels, name)
    if pixels.dtype.kind in "ui" and pixels.min() >= 0:
        return pixels
    return values.to_labels(pixels[..., None], values.Scaling(), name)[..., 0]


def _merge_colours(pixels: np.ndarray, name: str) -> np.ndarray:
    """Three equal channels as one; one colour on black as its largest value."""
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    tumour = colours[colours.any(axis=1)]
    if len(tumour) == 1:
        return pixels.max(axis=-1)
    shown = ", ".join(str(tuple(map(int, colour))) for colour in tumour[:3]) + (", ..." if len(tumour) > 3 else "")
    what = f"is a mask in {len(tumour)} colours beside black ({shown}), so its labels are unknown"
    raise DataError(name, what, "save it in one channel, each label a number; or black and white")


def _restore_jpeg(labels: np.ndarray, name: str) -> np.ndarray:
    """0 and 255 of a mask that was saved as JPEG, if nothing lies between."""
    between = labels[(labels > JPEG_NOISE) & (labels < 255 - JPEG_NOISE)]
    if between.size:
        shown = ", ".join(map(str, np.unique(between)[:5]))
        what = (
            f"is a JPEG, which changed the mask's values: {between.size:,} pixels are neither black nor white ({shown})"
        )
        raise DataError(name, what, "save the mask as PNG or TIF from where it was drawn; or threshold it at 128")
    return (labels > 127) * np.uint8(255)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what a library prints of a file off the terminal; libtiff and ITK print in C, past Python's stderr."""
    with _stderr, open(os.devnull, "wb") as nowhere:
        try:
            terminal = os.dup(2)
        except OSError:  # stderr is closed
            yield
            return
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _check_header(image: ImageFile, name: str) -> None:
    """Refuse what is not accepted, by the header alone, before any pixel is decoded."""
    width, height = image.size
    check_size(width, height, name)
    if not image.tile:
        raise DataError(name, "is damaged or cut short: it holds no pixels", "restore it, or save it again")
    if image.mode not in {*_PLAIN, *_ALPHA, *_DEEP} or not _has_whole_values(image):
        raise DataError(name, f"has {_describe_kind(image)} pixels", f"save it as {_KINDS_READ}")
    if isinstance(image, TiffImageFile) and image.mode in _DEEP and image.tag_v2.get(_PHOTOMETRIC) == 0:
        raise DataError(name, "is a negative (0 is white)", "save it with 0 as black")
    if image.format == "JPEG" and image.getexif().get(_ORIENTATION, 1) != 1:
        raise DataError(name, "is stored turned or mirrored (Exif orientation)", "save it upright")


def check_size(width: int, height: int, name: str) -> None:
    """Refuse sides outside MIN_SIDE..MAX_SIDE."""
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
        what = f"is {width} x {height} pixels, sides must be {MIN_SIDE} to {MAX_SIDE}"
        raise DataError(name, what, "crop, resize or remove it")


def _seek(image: ImageFile, page: int) -> bool:
    """Go to a page; return whether it exists."""
    try:
        image.seek(page)
    except EOFError:
        return False
    return True


def _has_whole_values(image: ImageFile) -> bool:
    """Whether the file stores values as wide as Pillow's mode says. Pillow opens others too, and rescales or cuts them.

    The tags of a TIFF say it, and the raw mode of a PNG: ``L;2``, ``L;4``, ``RGB;16B``.
    """
    if isinstance(image, TiffImageFile):
        bits, formats = image.tag_v2.get(_BITS_PER_SAMPLE, (1,)), image.tag_v2.get(_SAMPLE_FORMAT, (1,))
        return set(bits) == {_BITS.get(image.mode, 8)} and set(formats) == {3 if image.mode == "F" else 1}
    if image.format == "JPEG":
        return True
    return image.mode in ("P", "I;16") or ";" not in str(image.tile[0].args)


def _describe_kind(image: ImageFile) -> str:
    """Bits and kind of number of a channel, as the file says them."""
    if isinstance(image, TiffImageFile):
        bits, kinds = image.tag_v2.get(_BITS_PER_SAMPLE, (1,)), image.tag_v2.get(_SAMPLE_FORMAT, (1,))
        number = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(max(kinds), "unknown")
        channels = f", {len(bits)} channels" * (len(bits) > 1)
        return f"{number} {max(bits)}-bit{channels}" + f" {image.mode}" * (image.mode == "CMYK")
    return "2-, 4- or 16-bit" if image.mode in {*_PLAIN, *_ALPHA} else image.mode


def _to_array(image: Image.Image, name: str) -> np.ndarray:
    if image.mode in _DEEP:
        return np.asarray(image).astype(_DEEP[image.mode])  # in the byte order of the machine
    if image.mode in _PLAIN:
        return np.asarray(image.convert(_PLAIN[image.mode]))
    pixels = np.asarray(image.convert(_ALPHA[image.mode]))
    if (pixels[..., -1] != 255).any():
        raise DataError(name, "has transparent pixels", "flatten it onto a background")
    return pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :-1]


def _decode_slice(data: bytes, name: str) -> np.ndarray:
    """Decode what ``encode`` made, checked: the archive that holds it may have changed since."""
    with guard(name, "run: dvc repro -f download"):  # NumPy parses the header as Python: SyntaxError, TokenError
        pixels = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False, max_header_size=1000)
    if pixels.dtype.name not in ("uint8", "uint16", "int16", "float32") or pixels.ndim not in (2, 3):
        raise DataError(name, f"has {pixels.dtype} values of shape {pixels.shape}", "run: dvc repro -f download")
    check_size(pixels.shape[1], pixels.shape[0], name)
    return pixels
