"""Distances between voxels as one cell of a table: ``"row x column x slice"`` in mm, empty where they are unknown."""

import math
from collections.abc import Sequence

from brainseg.errors import DataError


def format_cell(sides: Sequence[float]) -> str:
    """Row, column and slice spacing in mm, to six digits."""
    return " x ".join(f"{side:.6g}" for side in sides)


def parse_cell(cell: object) -> tuple[float, float, float] | None:
    """The distances that ``format_cell`` wrote; None for an empty cell.

    Raises:
        DataError: the cell holds anything else.
    """
    if not isinstance(cell, str) or not cell.strip():
        return None
    try:
        row, column, between = (float(part) for part in cell.split("x"))
    except ValueError:
        row = column = between = -1.0
    if not all(0 < side < math.inf for side in (row, column, between)):
        fix = "correct that column of slices.csv, or leave it empty"
        raise DataError("spacing", f"{cell!r} is not 'row x column x slice' in mm", fix)
    return row, column, between
