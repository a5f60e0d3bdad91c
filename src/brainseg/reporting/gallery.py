"""Galleries of patients: which patients and slices are picked, and how their pictures are drawn.

One rule picks the slice of every patient: the one with most tumour or predicted pixels, where agreement and errors
are most visible. So no slice is chosen for its score.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from brainseg.io.sequences import FLAIR
from brainseg.reporting import charts

TP, FP, FN = charts.SKY, charts.VERMILLION, charts.YELLOW  # most different, also for the colour-blind
HEADINGS = {"": "", "best": "Best", "median": "Median", "worst": "The worst, downwards"}
ERRORS = {TP: "tumour found (TP)", FP: "false alarm (FP)", FN: "tumour missed (FN)"}
MASK = charts.ORANGE
COLUMNS = 4
CELL, GAP, LINE = 1.58, 0.06, 0.26  # inches: a picture, the gap between two, a line of text
CELL_PIXELS = 256  # larger grids are shown at a half, a third, ...


@dataclass(frozen=True)
class Row:
    """A line of pictures: ``cells`` are (S, S, 3) uint8; ``heading`` opens a group."""

    cells: Sequence[np.ndarray]
    left: str = ""
    right: str = ""
    heading: str = ""


def pick(per_patient: pd.DataFrame, per_slice: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most ``count`` test patients (the best, the median, the worst ones by volume Dice), one slice each.

    Args:
        per_patient, per_slice: metrics/per_patient.csv and metrics/per_slice.csv.

    Returns:
        Rows of ``per_slice``, best first, with ``group`` (best | median | worst) and ``volume_dice``;
        none when no test patient has a defined Dice.
    """
    test = per_patient[(per_patient["subset"] == "test") & per_patient["dice"].notna()]
    ranked = test.sort_values(["dice", "patient"], ascending=[False, True]).reset_index(drop=True)
    ranked["group"] = _assign_groups(len(ranked), count)
    chosen = ranked.loc[ranked["group"] != "", ["patient", "group", "dice"]]
    return _add_slices(chosen, per_slice)


def pick_named(per_patient: pd.DataFrame, per_slice: pd.DataFrame, patients: Sequence[str]) -> pd.DataFrame:
    """These test patients in this order, one slice each as in ``pick``; ``group`` is empty."""
    test = per_patient[per_patient["subset"] == "test"].set_index("patient")["dice"]
    return _add_slices(pd.DataFrame({"patient": patients, "group": "", "dice": test[patients].to_numpy()}), per_slice)


def _add_slices(chosen: pd.DataFrame, per_slice: pd.DataFrame) -> pd.DataFrame:
    slices = per_slice[per_slice["subset"] == "test"]
    slices = slices.assign(union=slices[["tp", "fp", "fn"]].sum(axis=1))
    telling = slices.sort_values(["union", "slice"], ascending=[False, True]).drop_duplicates("patient")
    return chosen.rename(columns={"dice": "volume_dice"}).merge(telling, on="patient", validate="1:1")


def _assign_groups(patients: int, count: int) -> list[str]:
    """A group for each rank, best first: the best, the median, and as many of the worst as ``count`` allows."""
    shown, groups, middle = min(patients, count), [""] * patients, (patients - 1) // 2
    median = 0 if shown in (0, 2) else 1
    worst = min(max(shown - 1 - median, 0), patients - 1 - middle)  # only patients below the median
    best = shown - median - worst
    groups[:best] = ["best"] * best
    groups[middle : middle + median] = ["median"] * median
    groups[patients - worst :] = ["worst"] * worst
    return groups


def draw_errors(flair: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(S, S) uint8 and two masks → (S, S, 3) uint8: TP, FP and FN in their colours over darkened FLAIR."""
    truth, prediction = truth.astype(bool), prediction.astype(bool)
    picture = _grey(flair // 2)
    for colour, where in ((TP, truth & prediction), (FP, prediction & ~truth), (FN, truth & ~prediction)):
        picture[where] = _rgb(colour)
    return picture


def draw_mask(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 with the mask tinted and a border of two pixels outside the mask."""
    mask, picture = mask.astype(bool), picture.copy()
    picture[mask] = np.round(0.65 * picture[mask] + 0.35 * _rgb(MASK)).astype(np.uint8)
    return draw_outline(picture, mask, MASK, 2)


def draw_outline(picture: np.ndarray, mask: np.ndarray, colour: str, width: int) -> np.ndarray:
    """(S, S, 3) uint8 with a border of ``width`` pixels outside the mask."""
    mask, picture = mask.astype(bool), picture.copy()
    picture[ndimage.binary_dilation(mask, iterations=width) & ~mask] = _rgb(colour)
    return picture


def build_rows(picked: pd.DataFrame, images: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> list[Row]:
    """Input, truth, prediction and errors for each picked slice.

    Args:
        picked: what ``pick`` returned, n rows.
        images (n, H, W, C) uint8, truth and prediction (n, H, W) masks: aligned with it.
    """
    rows, group = [], None
    for case, image, mask, answer in zip(picked.itertuples(), images, truth, prediction, strict=True):
        image, mask, answer = _shrink(CELL_PIXELS, image, mask, answer)
        flair = _brighten(_flair(image), _white(_flair(image)), 0xF8)
        grey = _grey(flair)
        cells = [grey, draw_mask(grey, mask), draw_mask(grey, answer), draw_errors(flair, mask, answer)]
        left = f"{charts.shorten(case.patient)}, slice {case.slice}"
        right = f"Dice: volume {case.volume_dice:.2f}, slice {case.dice:.2f}".replace("nan", "undefined")
        rows.append(Row(cells, left, right, "" if case.group == group else HEADINGS[case.group]))
        group = case.group
    return rows


def draw_gallery(rows: list[Row], path: Path, dpi: int) -> None:
    """Draw the best, median and worst patients: input | truth | prediction | errors."""
    _sheet(rows, ("FLAIR", "truth", "prediction", "errors"), ERRORS, path, dpi)


def draw_overview(rows: list[Row], path: Path, dpi: int) -> None:
    """Draw the best, the median and the single worst of ``rows``."""
    first = [row for row in rows[:-1] if row.heading in (HEADINGS["best"], HEADINGS["median"])]
    last = [replace(row, heading="Worst") for row in rows[-1:]] if len(rows) > 1 else rows
    draw_gallery([*first, *last], path, dpi)


def draw_augmentations(image: np.ndarray, mask: np.ndarray, examples: dict[str, tuple], path: Path, dpi: int) -> None:
    """Draw one row per augmentation with the mask outlined; three sequences are shown as red, green and blue.

    Args:
        image (H, W, C) uint8 and mask (H, W): the unchanged slice, shown first.
        examples: name → (images (k, H, W, C) uint8, masks (k, H, W)); the first four are shown.
    """
    white = _white(image)
    small, border = _shrink(CELL_PIXELS // 2, image, mask)
    small = _brighten(small, white, 0xF0)
    colour = small.shape[-1] == 3
    title = "the slice: pre-contrast, FLAIR, post-contrast, all as colours" if colour else "the slice"
    sequences = [_grey(small[..., c]) for c in range(3 * colour)]
    rows = [Row([*sequences, draw_outline(_to_colour(small), border, "white", 1)], title)]
    for name, drawn in examples.items():
        pairs = [_shrink(CELL_PIXELS // 2, *pair) for pair in zip(*drawn, strict=True)][:COLUMNS]
        cells = [
            draw_outline(_to_colour(_brighten(picture, white, 0xF0)), border, "white", 1) for picture, border in pairs
        ]
        rows.append(Row(cells, name.replace("_", " ")))
    _sheet(rows, (), {}, path, dpi)


def _sheet(rows: list[Row], columns: Sequence[str], key: dict[str, str], path: Path, dpi: int) -> None:
    """Draw rows of pictures with text above each; every pixel becomes a whole number of PNG pixels."""
    side = max((len(cell) for row in rows for cell in row.cells), default=CELL_PIXELS)
    zoom = max(1, -(-round(CELL * dpi) // side))
    scale = side * zoom / CELL  # PNG pixels per inch, so that text keeps its size relative to the pictures
    top = LINE * (2.3 if key else 0.1)
    height = top + sum(_height(row) for row in rows) + (0 if rows else 2 * LINE)
    width = math.ceil((COLUMNS * CELL + (COLUMNS - 1) * GAP) * scale) + 0.01  # rounded up, so that no picture is cut
    with charts.open_figure(path, scale, width / scale, height, arrange=False) as figure:
        if key:
            _draw_head(figure, columns, key)
        place = height - top
        for row in rows:
            place -= _height(row)
            _draw_row(figure, row, place, zoom, scale)
        if not rows:
            figure.text(0.5, 0.3, "No test patient has a defined Dice.", ha="center")


def _height(row: Row) -> float:
    return CELL + LINE * (1.25 + 1.5 * bool(row.heading))


def _draw_head(figure: Figure, columns: Sequence[str], key: dict[str, str]) -> None:
    handles = [Patch(facecolor=c, edgecolor=charts.BLACK, linewidth=0.5, label=label) for c, label in key.items()]
    figure.legend(handles=handles, loc="upper center", ncols=3, borderaxespad=0.2, columnspacing=1.2, fontsize=10.5)
    width, height = figure.get_size_inches()
    for i, name in enumerate(columns):
        figure.text((i * (CELL + GAP) + CELL / 2) / width, 1 - LINE * 2.1 / height, name, ha="center")


def _draw_row(figure: Figure, row: Row, place: float, zoom: int, scale: float) -> None:
    """Draw a row. ``place``: inches from the lower edge of the figure to that of the row."""
    height = figure.get_figheight()
    text = (place + CELL + 0.07) / height
    figure.text(0, text, row.left)
    figure.text(1, text, row.right, ha="right")
    figure.text(0, text + LINE * 1.25 / height, row.heading, fontsize=14, fontweight="bold")
    for i, cell in enumerate(row.cells):
        pixels = cell.repeat(zoom, 0).repeat(zoom, 1)
        figure.figimage(pixels, round(i * (CELL + GAP) * scale), round(place * scale), origin="upper")


def _shrink(most: int, image: np.ndarray, *masks: np.ndarray) -> list[np.ndarray]:
    """Image and masks at most about ``most`` pixels wide: shrunk by a whole factor, unchanged if they fit."""
    step = -(-max(image.shape[:2]) // most)
    size = -(-image.shape[1] // step), -(-image.shape[0] // step)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    return [small, *(mask[::step, ::step] for mask in masks)]


def _white(image: np.ndarray) -> float:
    return max(1.0, float(np.percentile(image, 99.5)))


def _brighten(image: np.ndarray, white: float, levels: int) -> np.ndarray:
    """uint8 brightened for display: ``white`` becomes 255. Dropping the bits outside ``levels`` halves the file."""
    return np.minimum(image * (255 / white), 255).astype(np.uint8) & levels


def _flair(image: np.ndarray) -> np.ndarray:
    """(H, W) of (H, W, C): the FLAIR channel, or the only channel."""
    return image[..., FLAIR if image.shape[-1] == 3 else 0]


def _to_colour(image: np.ndarray) -> np.ndarray:
    return image if image.shape[-1] == 3 else _grey(_flair(image))


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, -1)


def _rgb(colour: str) -> np.ndarray:
    return np.round(np.array(to_rgb(colour)) * 255).astype(np.uint8)
