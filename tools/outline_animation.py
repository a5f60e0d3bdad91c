"""Draw docs/images/outline.gif: a scroll through a test patient, the model's outline and the readers' on FLAIR.

``python -m tools.outline_animation`` in the project's folder, after ``make pull``. The patient is the example of the
median, which its score has chosen. A bar a slice tells both areas.
"""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from brainseg import errors, files
from brainseg.evaluation import metrics
from brainseg.inference.outlining import Outliner
from brainseg.io.sequences import FLAIR
from tools import example_patients
from tools.example_patients import Patient

OUT = Path("docs/images/outline.gif")
LEVEL = "median"
MODEL, READERS = (255, 92, 51), (86, 214, 255)  # as on the page: TUMOUR and REFERENCE of web/src/viewer/looks.ts
CARD, INK, SOFT, DIM = (23, 27, 32), (230, 233, 236), (154, 165, 176), (42, 49, 56)
ZOOM, MARGIN, HEAD, FOOT = 1.5, 16, 40, 92  # pixels of the picture
NOISE = 14  # below which value air is black: what is equal is small in a GIF
GREYS = (48, 40, 34, 28, 24, 20, 16, 12, 10)  # levels of grey, tried until the file is small enough
MOST_BYTES, MOST_SLICES = 980_000, 24
SLOW, HOLD = 320, 1600  # milliseconds of a slice, and of the one with the largest area
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"


def run(out: Path = OUT) -> str:
    """Outline the patient, draw a frame for each slice; say how large the file is."""
    patient = example_patients.read()[LEVEL]
    found = Outliner(example_patients.MODEL, threads=1).segment(patient.images).mask.astype(bool)
    areas = patient.truth.sum(axis=(1, 2))
    shown = choose(areas)
    times = [HOLD if k == areas.argmax() else SLOW for k in shown]
    for greys in GREYS:
        frames = draw(patient, found, shown, greys)
        save(frames, times, out)
        if out.stat().st_size <= MOST_BYTES:
            break
    (width, height), size = frames[0].size, out.stat().st_size / 1e3
    return f"{out}: {patient.name}, {len(frames)} slices, {width} x {height}, {greys} greys, {size:.0f} kB"


def choose(areas: np.ndarray) -> range:
    """All slices; of a volume of many those around the largest area."""
    count = min(len(areas), MOST_SLICES)
    first = min(max(0, int(areas.argmax()) - count // 2), len(areas) - count)
    return range(first, first + count)


def draw(patient: Patient, found: np.ndarray, shown: range, greys: int) -> list[Image.Image]:
    """A picture for each slice that is shown; all have one size."""
    grey = patient.images[..., FLAIR]
    rows, columns = crop(grey)
    scans = brighten(grey[:, rows, columns])
    lines = (patient.truth[:, rows, columns], READERS), (found[:, rows, columns], MODEL)
    areas = [mask.sum(axis=(1, 2)) for mask in (found, patient.truth)]
    dice = metrics.dice(metrics.counts(patient.truth, found))
    frames = []
    for k in shown:
        scan = np.repeat(enlarge(scans[k], greys)[..., None], 3, -1)
        lined = scan.copy()
        for mask, colour in lines:
            stroke(lined, mask[k], colour)
        pair = np.concatenate([scan, lined], axis=1)
        frames.append(frame(pair, k, areas, f"Patient {patient.name}, FLAIR", f"Dice of the volume {dice:.2f}"))
    return frames


def crop(volume: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns around the head of all slices, with a few pixels of air."""
    head = volume.max(axis=0) > 0.15 * volume.max()
    spans = []
    for axis in (1, 0):
        inside = np.flatnonzero(head.sum(axis=axis) > 2)
        spans.append(slice(max(0, inside[0] - 6), min(len(head), inside[-1] + 7)))
    return spans[0], spans[1]


def brighten(volume: np.ndarray) -> np.ndarray:
    """uint8 for display, air black. The same for all slices, so that none flickers."""
    white = np.percentile(volume, 99.7)
    return np.where(volume < NOISE, 0, np.minimum(volume * (255 / white), 255)).astype(np.uint8)


def enlarge(plane: np.ndarray, greys: int) -> np.ndarray:
    """In so many levels of grey, evenly apart."""
    large = cv2.resize(plane, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
    step = 255 / (greys - 1)
    return np.round(np.round(large / step) * step).astype(np.uint8)


def stroke(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    """The border of a mask, two pixels wide."""
    large = cv2.resize(mask.astype(np.float32), None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_LINEAR) >= 0.5
    borders, _ = cv2.findContours(large.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.polylines(picture, borders, True, colour, 2)


def frame(pair: np.ndarray, at: int, areas: list[np.ndarray], left: str, score: str) -> Image.Image:
    """The pictures with a head that says which slice, and a foot with the areas and what the colours are."""
    height, width = pair.shape[:2]
    picture = Image.new("RGB", (width, HEAD + height + FOOT), CARD)
    picture.paste(Image.fromarray(pair), (0, HEAD))
    paint = ImageDraw.Draw(picture)
    bold, plain = font("DejaVuSans-Bold", 15), font("DejaVuSans", 14)
    paint.text((MARGIN, HEAD / 2), left, INK, bold, "lm")
    paint.text((width / 2 + MARGIN, HEAD / 2), f"Slice {at + 1} of {len(areas[0])}", INK, bold, "lm")
    paint.text((width - MARGIN, HEAD / 2), score, SOFT, plain, "rm")
    paint_bars(paint, (MARGIN, HEAD + height + 12, width - MARGIN, HEAD + height + 52), at, areas)
    below, place = HEAD + height + 72, MARGIN
    for colour, words in ((MODEL, "the model's outline"), (READERS, "the readers' outline")):
        paint.rectangle((place, below - 2, place + 18, below + 1), colour)
        paint.text((place + 26, below), words, INK, plain, "lm")
        place += 26 + round(plain.getlength(words)) + 24
    paint.text((width - MARGIN, below), "Research use only", SOFT, plain, "rm")
    return picture


def paint_bars(paint: ImageDraw.ImageDraw, box: tuple[int, int, int, int], at: int, areas: list[np.ndarray]) -> None:
    """Two bars a slice: the areas of the model's outline and of the readers'; the slice that is seen has a light one
    behind them and a line below."""
    left, top, right, bottom = box
    most, step = max(1, *(int(each.max()) for each in areas)), (right - left) / len(areas[0])
    for k in range(len(areas[0])):
        start, wide = left + k * step + 1, step - 2
        edge = min(2, wide / 4)  # of many slices each has a few pixels
        paint.rectangle((round(start), top, round(start + wide), bottom), SOFT if k == at else DIM)
        if k == at:
            paint.rectangle((round(start), bottom + 3, round(start + wide), bottom + 5), INK)
        for place, (colour, area) in enumerate(zip((MODEL, READERS), areas, strict=True)):
            if area[k]:
                half = wide / 2 - edge
                x, high = round(start + edge + place * half), max(2, round((bottom - top) * area[k] / most))
                paint.rectangle(
                    (x, bottom - high, max(x, round(start + edge + (place + 1) * half) - 1), bottom), colour
                )


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / f"{name}.ttf", size)


def save(frames: list[Image.Image], times: list[int], out: Path) -> None:
    """One palette for all frames, of the frame with most colours: else greys would flicker."""
    fullest = max(frames, key=lambda each: len(each.getcolors(1 << 24) or ()))
    palette = fullest.quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    drawn = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in frames]
    with files.replacing(out) as temporary:
        drawn[0].save(temporary, "GIF", save_all=True, append_images=drawn[1:], duration=times, loop=0, optimize=True)


if __name__ == "__main__":
    errors.run(lambda: print(run()))
