"""Pictures of an answer: slices in grey, the tumour tinted and outlined, and what a reader must know beside it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from brainseg.io import intensity
from brainseg.io.sequences import FLAIR

DISCLAIMER = "Research use only. Not for clinical use."
COLOUR = (255, 170, 0)  # of the outline, RGB: bright on grey, and apart from it for the colour-blind too
OPACITY = 0.22  # of the tint inside it
WINDOW = (1.0, 99.7)  # percentiles of what is above the least value: these become black and white
MOST, COLUMNS = 20, 5  # tiles on a sheet, and in a line of it
EMPTY = 10  # slices shown where there is no tumour
TILE, SINGLE = 256, (512, 1024)  # pixels on the longer side: of a tile; of a lone slice, least and most
_PAGE, _TEXT, _QUIET = (14, 16, 18), (236, 238, 240), (150, 156, 162)
_GAP, _MARGIN, _LINE = 4, 12, 22


class Drawn(NamedTuple):
    """What there is to draw of a case."""

    voxels: np.ndarray  # (S, H, W) or (S, H, W, 3), of any depth
    mask: np.ndarray  # (S, H, W), 0 and 1
    pixel: tuple[float, float]  # height and width of a pixel, in mm or in any unit
    is_oriented: bool  # in radiological display, known from the file
    numbers: Sequence[int]  # what each slice is called


def sheet(drawn: Drawn, line: str) -> Image.Image:
    """All slices with tumour, or MOST of them evenly apart with the largest among them; without tumour, EMPTY slices.

    Args:
        line: what stands on top, in few words; ASCII.
    """
    shown = _shown(drawn.mask)
    grey = displayed(drawn.voxels)
    size = _size(drawn, len(shown))
    tiles = []
    for k in shown:
        tile = Image.fromarray(outlined(grey[k], drawn.mask[k], size))
        _write(tile, drawn, k, len(shown) == 1)
        tiles.append(tile)
    notes = [] if drawn.is_oriented else ["orientation unknown"]
    there = np.count_nonzero(drawn.mask.any(axis=(1, 2))) or len(drawn.mask)
    if len(shown) < there:
        notes.append(f"{len(shown)} of {there} {'slices with tumour' if drawn.mask.any() else 'slices'} shown")
    return _page(tiles, line, "; ".join(notes))


def displayed(voxels: np.ndarray) -> np.ndarray:
    """FLAIR, or the only channel, (S, H, W) uint8, stretched for the eye by one window for the whole volume."""
    flair = voxels[..., FLAIR] if voxels.ndim == 4 else voxels
    ends = intensity.window([page.astype(np.uint16) if page.dtype == np.uint8 else page for page in flair], WINDOW)
    return np.stack([intensity.to_uint8(page, ends) for page in flair])


def outlined(grey: np.ndarray, mask: np.ndarray, size: tuple[int, int], opacity: float = OPACITY) -> np.ndarray:
    """(H, W) uint8 and its mask at ``size``, width and height: (height, width, 3) uint8, tumour tinted and outlined."""
    grows = size[0] > grey.shape[1]
    picture = cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)
    picture = np.repeat(picture[..., None], 3, -1)
    if not mask.any():
        return picture
    share = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR if grows else cv2.INTER_AREA)
    inside = (share >= min(0.5, share.max())).astype(np.uint8)  # also a speck that shrinks to less than a pixel stays
    edge = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.25 if max(size) >= SINGLE[0] else 0.8)
    line = np.minimum(1, 6 * edge * (1 - edge))  # smooth, and centred on the border
    weight = np.maximum(line, opacity * inside)[..., None]
    return np.rint((1 - weight) * picture + weight * np.array(COLOUR)).astype(np.uint8)


def _shown(mask: np.ndarray) -> list[int]:
    """Which slices."""
    pixels = mask.reshape(len(mask), -1).sum(axis=1)
    found = np.flatnonzero(pixels)
    if not len(found):
        middle = range(len(mask)) if len(mask) <= EMPTY else np.linspace(0.15, 0.85, EMPTY) * (len(mask) - 1)
        return sorted({round(k) for k in middle})
    if len(found) <= MOST:
        return [int(k) for k in found]
    even = found[np.rint(np.linspace(0, len(found) - 1, MOST)).astype(int)]
    largest = int(pixels.argmax())
    even[np.abs(even - largest).argmin()] = largest
    return [int(k) for k in even]


def _size(drawn: Drawn, count: int) -> tuple[int, int]:
    """Width and height of a tile, in the proportions of the patient."""
    _, height, width = drawn.mask.shape
    high, wide = height * drawn.pixel[0], width * drawn.pixel[1]
    whole = max(height, width) * math.ceil(
        SINGLE[0] / max(height, width)
    )  # every pixel becomes as many as its neighbour
    side = TILE if count > 1 else min(whole, SINGLE[1])
    return max(1, round(side * wide / max(high, wide))), max(1, round(side * high / max(high, wide)))


def _write(tile: Image.Image, drawn: Drawn, k: int, is_alone: bool) -> None:
    """The slice's number, and R and L where they are known."""
    pen, size = ImageDraw.Draw(tile), 18 if is_alone else 14
    font = ImageFont.load_default(size)
    if len(drawn.mask) > 1:
        number = f"slice {drawn.numbers[k]}"
        pen.text((5, 3), number, _TEXT, font, stroke_width=1, stroke_fill=_PAGE)
    if drawn.is_oriented:
        middle = tile.height // 2
        pen.text((5, middle), "R", _TEXT, font, anchor="lm", stroke_width=1, stroke_fill=_PAGE)
        pen.text((tile.width - 5, middle), "L", _TEXT, font, anchor="rm", stroke_width=1, stroke_fill=_PAGE)


def _columns(count: int) -> int:
    """As few empty places as can be, then as wide as can be."""
    return min(range(min(3, count), min(COLUMNS, count) + 1), key=lambda columns: (-count % columns, -columns))


def _page(tiles: list[Image.Image], line: str, note: str) -> Image.Image:
    """Tiles in lines, text above and below; as wide as the text needs."""
    big, small = ImageFont.load_default(16), ImageFont.load_default(13)
    columns = _columns(len(tiles))
    wide, high = tiles[0].size
    rows = math.ceil(len(tiles) / columns)
    inner = columns * (wide + _GAP) - _GAP
    below = [DISCLAIMER, note] if note else [DISCLAIMER]
    one_line = small.getlength("   ".join(below)) <= inner
    text = max([big.getlength(line), *(small.getlength(part) for part in below)])
    width = math.ceil(max(inner, text)) + 2 * _MARGIN
    top = _MARGIN + _LINE + 4
    bottom = top + rows * (high + _GAP) - _GAP + 8
    page = Image.new("RGB", (width, bottom + _LINE * (1 if one_line else len(below)) + _MARGIN - 4), _PAGE)
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN), line, _TEXT, big)
    for n, tile in enumerate(tiles):
        row, column = divmod(n, columns)
        page.paste(tile, ((width - inner) // 2 + column * (wide + _GAP), top + row * (high + _GAP)))
    pen.text((_MARGIN, bottom), DISCLAIMER, _TEXT, small)
    if note:
        place = (width - _MARGIN, bottom) if one_line else (_MARGIN, bottom + _LINE)
        pen.text(place, note, _QUIET, small, anchor="ra" if one_line else "la")
    return page
