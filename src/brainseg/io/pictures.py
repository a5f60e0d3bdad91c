"""TIF, PNG and JPEG bytes to arrays. Nothing is rescaled, wrapped or guessed.

What each kind becomes, as uint8: grayscale ``(H, W)``; 1-bit ``(H, W)`` with 0 and 255; RGB ``(H, W, 3)``; a palette
its colours, ``(H, W, 3)``. An alpha channel is dropped if every pixel is opaque.
Unsigned 16-bit grayscale stays uint16, floating-point stays float32: preprocessing maps their intensities by one window
for all slices of the patient.
All other kinds are refused: 2 or 4 bits a channel, 16-bit colour, 32-bit whole numbers, signed, CMYK, NaN or infinity,
a side outside MIN_SIDE..MAX_SIDE. A PNG palette may have 1, 2, 4 or 8 bits, because its colours always have 8.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from brainseg.errors import DataError, guard

MIN_SIDE = 8
MAX_SIDE = 4096
MAX_PAGES = 1024
MAX_BYTES = 4 * MAX_SIDE**2 + 2**20  # the largest picture, uncompressed and with alpha, and 1 MiB for tags
MAX_VALUES = 2**27  # of all pages and channels of one file together, the limit of a volume
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")

Image.MAX_IMAGE_PIXELS = MAX_SIDE**2

_PLAIN = {"1": "L", "L": "L", "RGB": "RGB"}
_ALPHA = {"LA": "LA", "P": "RGBA", "PA": "RGBA", "RGBA": "RGBA"}
_DEEP = {"I;16": np.uint16, "I;16B": np.uint16, "I;16L": np.uint16, "F": np.float32}
_BITS = {"1": 1, "F": 32} | dict.fromkeys(("I;16", "I;16B", "I;16L"), 16)  # bits of a channel, 8 in all other modes
_BITS_PER_SAMPLE = 258  # TIFF tag, one value for each channel
_SAMPLE_FORMAT = 339  # TIFF tag: 1 is unsigned, 3 floating-point
_ORIENTATION = 274  # Exif tag: 1 is upright
_NUMPY = b"\x93NUMPY"
_PHOTOMETRIC = 262  # TIFF tag: with 0, white is zero, which Pillow inverts only for 8 bits


def decode(data: bytes, name: str, *, lossless: bool = False) -> np.ndarray:
    """Decode one picture.

    Args:
        data: the bytes of the file, or of a slice that ``encode`` made.
        name: what errors call it.
        lossless: refuse JPEG, which changes values.

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
        if lossless and image.format == "JPEG":
            raise DataError(name, "is a JPEG, which changes a mask's values", "save masks as PNG or TIF")
        return _page(image, name)


def decode_pages(data: bytes, name: str) -> np.ndarray:
    """Decode all pages of a TIF, each as ``decode`` does: (S, H, W) or (S, H, W, 3).

    Raises:
        DataError: as in ``decode``; pages of different sizes or kinds, more than MAX_PAGES or MAX_VALUES.
    """
    found: list[np.ndarray] = []
    values = 0
    with _open(data, name) as image:
        while _seek(image, len(found)):
            values += image.width * image.height * len(image.getbands())
            if len(found) == MAX_PAGES or values > MAX_VALUES:
                what = f"holds more than {MAX_PAGES:,} pages or {MAX_VALUES:,} values"
                raise DataError(name, what, "split it into one file per patient, or resize it")
            found.append(_page(image, name))
    kinds = {(page.shape, page.dtype.name) for page in found}
    if len(kinds) > 1:
        shown = ", ".join(f"{shape} {kind}" for shape, kind in sorted(kinds))
        raise DataError(name, f"holds pages of different kinds: {shown}", "save pages of one size and depth")
    return np.stack(found)


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
    with guard(name, "restore or remove it"):
        try:
            with Image.open(io.BytesIO(data), formats=["TIFF", "PNG", "JPEG"]) as image:
                yield image
        except Image.DecompressionBombError:
            raise DataError(name, f"has more than {MAX_SIDE} x {MAX_SIDE} pixels", "crop or resize it") from None
        except UnidentifiedImageError:
            raise DataError(name, "is neither a TIFF nor a PNG nor a JPEG", "save it as one of them") from None


def _page(image: ImageFile, name: str) -> np.ndarray:
    """Decode the current page."""
    _check_header(image, name)
    image.load()
    pixels = _to_array(image, name)
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise DataError(name, "holds NaN or infinity", "replace them, or remove the slice")
    return pixels


def _check_header(image: ImageFile, name: str) -> None:
    """Refuse what is not accepted, by the header alone, before any pixel is decoded."""
    width, height = image.size
    check_size(width, height, name)
    if image.mode not in {*_PLAIN, *_ALPHA, *_DEEP} or not _has_whole_values(image):
        fix = "save it with 8 bits per channel, or as 16-bit or floating-point grayscale"
        raise DataError(name, f"has {_describe_kind(image)} pixels", fix)
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


def _describe_kind(image: Image.Image) -> str:
    return "2-, 4-, 16-bit or signed" if image.mode in {*_PLAIN, *_ALPHA} else f"{image.mode} (Pillow's mode)"


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
