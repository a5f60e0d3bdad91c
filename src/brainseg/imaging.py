"""Images in: TIF and PNG bytes to uint8 arrays. Nothing is rescaled, wrapped or guessed.

What each kind becomes: grayscale ``(H, W)``; 1-bit ``(H, W)`` with 0 and 255; RGB ``(H, W, 3)``;
palette its colours, ``(H, W, 3)``; with alpha the same without it, if every pixel is opaque.
All else (2, 4 or 16 bits a channel, float, signed, CMYK, several pages, a side outside MIN_SIDE..MAX_SIDE)
is refused; a PNG's palette may be of 1, 2, 4 or 8 bits, for its colours always have 8.
"""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from brainseg.errors import DataError

MIN_SIDE = 8
MAX_SIDE = 4096
MAX_BYTES = 4 * MAX_SIDE**2 + 2**20  # the largest image uncompressed, with alpha, and room for its tags
SUFFIXES = (".tif", ".tiff", ".png")

Image.MAX_IMAGE_PIXELS = MAX_SIDE**2

_PLAIN = {"1": "L", "L": "L", "RGB": "RGB"}
_ALPHA = {"LA": "LA", "P": "RGBA", "PA": "RGBA", "RGBA": "RGBA"}
_BITS_PER_SAMPLE = 258  # TIFF tag, a value for each channel
_SAMPLE_FORMAT = 339  # TIFF tag: 1 is unsigned, the only one that uint8 can hold


def decode(data: bytes, name: str) -> np.ndarray:
    """Decode one TIF or PNG.

    Args:
        data: the file's bytes.
        name: what errors call it.

    Returns:
        uint8, ``(H, W)`` or ``(H, W, 3)``, channels in file order.

    Raises:
        DataError: not a whole single-page 8-bit image of a sane size.
    """
    if not data:
        raise DataError(name, "is empty", "restore or remove it")
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF", "PNG"]) as image:
            _check(image, name)
            image.load()
            return _pixels(image, name)
    except Image.DecompressionBombError:
        raise DataError(name, f"has more than {MAX_SIDE} x {MAX_SIDE} pixels", "crop or resize it") from None
    except UnidentifiedImageError:
        raise DataError(name, "is neither a TIFF nor a PNG", "save it as one of the two") from None
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError) as error:
        # Pillow's decoders answer damaged bytes with any of these.
        raise DataError(name, f"is damaged or cut short ({_one_line(error)})", "restore or remove it") from None


def _check(image: ImageFile, name: str) -> None:
    """Refuse by the header alone, before any pixel is decoded."""
    width, height = image.size
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
        what = f"is {width} x {height} pixels, sides must be {MIN_SIDE} to {MAX_SIDE}"
        raise DataError(name, what, "crop, resize or remove it")
    if _has_more_pages(image):
        raise DataError(name, "holds more than one page", "save one slice per file")
    if image.mode not in {*_PLAIN, *_ALPHA} or not _has_whole_bytes(image):
        raise DataError(name, f"has {_kind(image)} pixels", "save it with 8 bits per channel, grayscale or RGB")


def _has_more_pages(image: Image.Image) -> bool:
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _has_whole_bytes(image: ImageFile) -> bool:
    """Whether each value is a byte, or a bit. Pillow opens other depths as ``L`` or ``RGB`` too, and rescales or cuts.

    A TIFF's tags tell, a PNG's raw mode: ``L;2``, ``L;4``, ``RGB;16B``.
    """
    if isinstance(image, TiffImageFile):
        bits, formats = image.tag_v2.get(_BITS_PER_SAMPLE, (1,)), image.tag_v2.get(_SAMPLE_FORMAT, (1,))
        return set(bits) == {1 if image.mode == "1" else 8} and set(formats) == {1}
    return image.mode == "P" or ";" not in str(image.tile[0].args)


def _kind(image: Image.Image) -> str:
    names = {"F": "floating-point", "I": "32-bit", "I;16": "16-bit", "I;16B": "16-bit", "I;16L": "16-bit"}
    return "2-, 4-, 16-bit or signed" if image.mode in {*_PLAIN, *_ALPHA} else names.get(image.mode, image.mode)


def _pixels(image: Image.Image, name: str) -> np.ndarray:
    if image.mode in _PLAIN:
        return np.asarray(image.convert(_PLAIN[image.mode]))
    pixels = np.asarray(image.convert(_ALPHA[image.mode]))
    if (pixels[..., -1] != 255).any():
        raise DataError(name, "has transparent pixels", "flatten it onto a background")
    return pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :-1]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
