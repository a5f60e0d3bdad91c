"""The lesions of an outline: its 3D components, joined as the small ones that are removed, and their measures."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cc3d
import cv2
import numpy as np

from brainseg.inference import postprocessing
from brainseg.inference.cases import Case
from brainseg.io import volumes

_DIGITS = {
    "lesion": 0, "voxels": 0, "volume_ml": 3, "area_mm2": 1, "extent_x_mm": 1, "extent_y_mm": 1, "extent_z_mm": 1,
    "max_diameter_mm": 1, "centroid_i": 1, "centroid_j": 1, "centroid_k": 1, "centroid_x_mm": 1, "centroid_y_mm": 1,
    "centroid_z_mm": 1, "first_slice": 0, "last_slice": 0, "largest_slice": 0, "mean_probability": 3,
    "max_probability": 3,
}  # fmt: skip
MOST = 1_000  # in one answer; a low threshold on noise finds many more, which take minutes to measure
COLUMNS = tuple(_DIGITS)  # of a table of lesions; docs/how-to/predict.md describes them

_Point = tuple[float, float, float]


class Lesion(NamedTuple):
    """None stands for a measure in millimetres where the voxel size is not known."""

    number: int  # from 1, the largest first
    voxels: int
    volume_ml: float | None
    area_mm2: float | None  # on the slice where it is largest
    extent_mm: _Point | None  # of its box along x (right to left), y (front to back), z (feet to head)
    max_diameter_mm: float | None  # longest line on one slice, between outer edges of its pixels
    centroid: _Point  # voxel (i, j, k) of the file, from 0; in pictures column, row, slice
    centroid_mm: _Point | None  # RAS+
    first_slice: int
    last_slice: int
    largest_slice: int
    mean_probability: float
    max_probability: float


def find_largest(
    case: Case, mask: np.ndarray, probability: np.ndarray, numbers: Sequence[int] = ()
) -> tuple[list[Lesion], list[str]]:
    """The ``MOST`` largest lesions, and a warning if there are more. Arguments as in ``find``."""
    found = find(case, mask, probability, numbers, MOST + 1)
    return found[:MOST], [f"only the {MOST:,} largest lesions are listed"] if len(found) > MOST else []


def find(
    case: Case, mask: np.ndarray, probability: np.ndarray, numbers: Sequence[int] = (), most: int | None = None
) -> list[Lesion]:
    """Find and measure the lesions of a case, the largest first.

    Args:
        mask: (S, H, W) in {0, 1}.
        probability: (S, H, W) uint8, 255ths.
        numbers: of the slices, ascending; those with a gap between them are no neighbours. Without them 1, 2, ...
        most: lesions to measure; None for all.
    """
    if not mask.any():
        return []
    numbers = numbers or range(1, len(mask) + 1)
    labels = _label(mask, numbers)
    found = cc3d.statistics(labels)
    counts, boxes = found["voxel_counts"], found["bounding_boxes"]
    order = sorted(range(1, len(counts)), key=lambda n: (-int(counts[n]), boxes[n][0].start, n))
    return [
        _measure(case, labels[boxes[n]] == n, probability[boxes[n]], boxes[n], numbers, place)
        for place, n in enumerate(order[:most], 1)
    ]


def to_row(lesion: Lesion) -> dict[str, Any]:
    """A lesion by the names of ``COLUMNS``, rounded; None is what is not known."""
    values = [
        *lesion[:4], *(lesion.extent_mm or (None,) * 3), lesion.max_diameter_mm, *lesion.centroid,
        *(lesion.centroid_mm or (None,) * 3), *lesion[8:],
    ]  # fmt: skip
    digits = _DIGITS.items()
    return {
        name: value if value is None or not places else round(value, places)
        for (name, places), value in zip(digits, values, strict=True)
    }


def format_row(lesion: Lesion) -> dict[str, Any]:
    """The same as the cells of a table: every number of a column has as many digits, what is not known is empty."""
    return {
        name: "" if value is None else f"{value:.{_DIGITS[name]}f}" if _DIGITS[name] else value
        for name, value in to_row(lesion).items()
    }


def _label(mask: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """Number the components of each run of consecutive slices: 0 outside, 1 and up inside, as ``mask``."""
    labels, count = np.zeros(mask.shape, np.uint32), 0
    starts = np.flatnonzero(np.diff(numbers) != 1) + 1
    for run in np.split(np.arange(len(mask)), starts):
        part = slice(run[0], run[-1] + 1)
        own = postprocessing.components(mask[part] > 0).astype(np.uint32)
        labels[part] = np.where(own, own + np.uint32(count), 0)
        count += int(own.max())
    return labels


def _measure(
    case: Case, inside: np.ndarray, probability: np.ndarray, box: tuple[slice, ...], numbers: Sequence[int], place: int
) -> Lesion:
    """Measure one lesion. ``inside`` and ``probability``: (S, H, W) of its ``box`` in the case."""
    pixels = inside.sum(axis=(1, 2))
    first, count = box[0].start, int(pixels.sum())
    centre = np.array([where.mean() + part.start for where, part in zip(np.nonzero(inside), box, strict=True)])
    levels = probability[inside]
    volume_ml = area_mm2 = extent = diameter = centroid_mm = None
    centroid = centre[::-1]
    if case.volume:
        row, column, between = case.volume.spacing
        slices, rows, columns = inside.shape
        volume_ml, area_mm2 = count * row * column * between / 1000, float(pixels.max()) * row * column
        extent = (columns * column, rows * row, slices * between)
        diameter = max(_find_diameter(page, row, column) for page in inside)
        position = volumes.axial_affine(case.volume) @ [*centre, 1]
        centroid_mm = _to_point(position)
        centroid = np.linalg.solve(case.volume.geometry.affine, position)
    return Lesion(
        place, count, volume_ml, area_mm2, extent, diameter, _to_point(centroid), centroid_mm, numbers[first],
        numbers[first + len(inside) - 1], numbers[first + int(pixels.argmax())],
        float(levels.mean(dtype=np.float64)) / 255, int(levels.max()) / 255,
    )  # fmt: skip


def _to_point(values: np.ndarray) -> _Point:
    x, y, z = (float(value) + 0.0 for value in values[:3])
    return x, y, z


def _find_diameter(page: np.ndarray, row: float, column: float) -> float:
    """The longest line between outer edges of the pixels of ``page`` (H, W), mm; 0 if there are none."""
    rows = np.flatnonzero(page.any(axis=1))
    if not len(rows):
        return 0.0
    left, right = page[rows].argmax(axis=1), page.shape[1] - page[rows][:, ::-1].argmax(axis=1)
    corners = np.array(
        [(y + down, x) for down in (0, 1) for side in (left, right) for y, x in zip(rows, side, strict=True)]
    )
    hull = cv2.convexHull(corners.astype(np.int32))[:, 0] * np.array([row, column])
    apart = hull[:, None] - hull[None]
    return math.sqrt((apart**2).sum(axis=-1).max())
