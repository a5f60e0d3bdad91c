"""Pictures of a result: slices in grey, the tumour tinted and outlined, with notes for the reader."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from brainseg.io import intensity
from brainseg.io.sequences import FLAIR

DISCLAIMER = "Research use only. Not for clinical use."
COLOUR = (255, 170, 0)  # of the outline, RGB: bright on grey, also for colour-blind readers
OPACITY = 0.22  # of the tint inside it
WINDOW = (1.0, 99.7)  # percentiles of the values above the lowest one: they become black and white
MAX_TILES, COLUMNS = 20, 5  # tiles on a sheet, and in a row of it
EMPTY = 10  # slices shown if there is no tumour
TILE, SINGLE = 256, (512, 1024)  # pixels on the longer side: of a tile; of a single slice, least and most
_PAGE, _TEXT, _QUIET = (14, 16, 18), (236, 238, 240), (150, 156, 162)
_GAP, _MARGIN, _LINE = 4, 12, 22


class OverlayInput(NamedTuple):
    """What is drawn of a case."""

    voxels: np.ndarray  # (S, H, W) or (S, H, W, 3), of any type
    mask: np.ndarray  # (S, H, W), 0 and 1
    pixel: tuple[float, float]  # height and width of a pixel, in mm or in any unit
    is_oriented: bool  # the file tells that the slices are in radiological display
    numbers: Sequence[int]  # the number of each slice, as it is printed


def draw_sheet(drawn: OverlayInput, line: str) -> Image.Image:
    """Draw the slices with tumour, or MAX_TILES of them evenly spaced with the largest; without tumour, EMPTY slices.

    Args:
        line: a short headline in ASCII.
    """
    shown = _choose_slices(drawn.mask)
    grey = scale_for_display(drawn.voxels)
    size = _tile_size(drawn, len(shown))
    tiles = []
    for k in shown:
        tile = Image.fromarray(draw_outline(grey[k], drawn.mask[k], size))
        _label_tile(tile, drawn, k, len(shown) == 1)
        tiles.append(tile)
    notes = [] if drawn.is_oriented else ["orientation unknown"]
    there = np.count_nonzero(drawn.mask.any(axis=(1, 2))) or len(drawn.mask)
    if len(shown) < there:
        notes.append(f"{len(shown)} of {there} {'slices with tumour' if drawn.mask.any() else 'slices'} shown")
    return _page(tiles, line, "; ".join(notes))


def scale_for_display(voxels: np.ndarray) -> np.ndarray:
    """FLAIR or the only channel as (S, H, W) uint8, scaled for display by one window for the whole volume."""
    flair = voxels[..., FLAIR] if voxels.ndim == 4 else voxels
    ends = intensity.find_window([page.astype(np.uint16) if page.dtype == np.uint8 else page for page in flair], WINDOW)
    return np.stack([intensity.to_uint8(page, ends) for page in flair])


def draw_outline(grey: np.ndarray, mask: np.ndarray, size: tuple[int, int], opacity: float = OPACITY) -> np.ndarray:
    """Draw a slice (H, W) uint8 and its mask at ``size`` (width, height): (height, width, 3) uint8."""
    grows = size[0] > grey.shape[1]
    picture = cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)
    picture = np.repeat(picture[..., None], 3, -1)
    if not mask.any():
        return picture
    share = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR if grows else cv2.INTER_AREA)
    inside = (share >= min(0.5, share.max())).astype(np.uint8)  # a mask that shrinks to less than a pixel stays
    edge = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.25 if max(size) >= SINGLE[0] else 0.8)
    line = np.minimum(1, 6 * edge * (1 - edge))  # smooth, centred on the border
    weight = np.maximum(line, opacity * inside)[..., None]
    return np.rint((1 - weight) * picture + weight * np.array(COLOUR)).astype(np.uint8)


def _choose_slices(mask: np.ndarray) -> list[int]:
    """Indices of the slices to draw."""
    pixels = mask.reshape(len(mask), -1).sum(axis=1)
    found = np.flatnonzero(pixels)
    if not len(found):
        middle = range(len(mask)) if len(mask) <= EMPTY else np.linspace(0.15, 0.85, EMPTY) * (len(mask) - 1)
        return sorted({round(k) for k in middle})
    if len(found) <= MAX_TILES:
        return [int(k) for k in found]
    even = found[np.rint(np.linspace(0, len(found) - 1, MAX_TILES)).astype(int)]
    largest = int(pixels.argmax())
    even[np.abs(even - largest).argmin()] = largest
    return [int(k) for k in even]


def _tile_size(drawn: OverlayInput, count: int) -> tuple[int, int]:
    """Width and height of a tile, in the proportions of the patient in mm."""
    _, height, width = drawn.mask.shape
    high, wide = height * drawn.pixel[0], width * drawn.pixel[1]
    # A multiple of the image's own size: all its pixels become equally large.
    whole = max(height, width) * math.ceil(SINGLE[0] / max(height, width))
    side = TILE if count > 1 else min(whole, SINGLE[1])
    return max(1, round(side * wide / max(high, wide))), max(1, round(side * high / max(high, wide)))


def _label_tile(tile: Image.Image, drawn: OverlayInput, k: int, is_alone: bool) -> None:
    """Write the number of the slice, and R and L if they are known."""
    pen, size = ImageDraw.Draw(tile), 18 if is_alone else 14
    font = ImageFont.load_default(size)
    if len(drawn.mask) > 1:
        number = f"slice {drawn.numbers[k]}"
        pen.text((5, 3), number, _TEXT, font, stroke_width=1, stroke_fill=_PAGE)
    if drawn.is_oriented:
        middle = tile.height // 2
        pen.text((5, middle), "R", _TEXT, font, anchor="lm", stroke_width=1, stroke_fill=_PAGE)
        pen.text((tile.width - 5, middle), "L", _TEXT, font, anchor="rm", stroke_width=1, stroke_fill=_PAGE)


def _count_columns(count: int) -> int:
    """The number of columns with the fewest empty places, then the widest."""
    return min(range(min(3, count), min(COLUMNS, count) + 1), key=lambda columns: (-count % columns, -columns))


def _page(tiles: list[Image.Image], line: str, note: str) -> Image.Image:
    """Put tiles in rows, with text above and below, as wide as the text needs."""
    big, small = ImageFont.load_default(16), ImageFont.load_default(13)
    columns = _count_columns(len(tiles))
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
