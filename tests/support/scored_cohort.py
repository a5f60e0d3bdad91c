"""Slices of 10 x 10 pixels whose scores fit on a sheet of paper, as rows and arrays for scoring and evaluation."""

from typing import NamedTuple

import numpy as np
import pandas as pd

SIDE = 10
YES, NO = 200, 20  # uint8 probabilities on either side of every threshold from 0.1 to 0.75


class Slice(NamedTuple):
    """One slice by its pixels (row, column): the tumour, and what a model marks."""

    tumour: list[tuple[int, int]]
    marked: list[tuple[int, int]]


class Patient(NamedTuple):
    name: str
    subset: str
    slices: list[Slice]
    institution: str = "X"
    spacing: str = ""


EMPTY = Slice([], [])
SQUARE = [(2, 2), (2, 3), (3, 2), (3, 3)]
SHIFTED = [(2, 3), (2, 4), (3, 3), (3, 4)]  # half of SQUARE and as much beside it
ROW = [(5, 1), (5, 2), (5, 3), (5, 4)]

VAL = Patient("V", "val", [Slice(SQUARE, SQUARE), EMPTY])
# A: half right, a false alarm, a right empty slice. B: one slice right, one missed. C: no tumour, none marked.
A = Patient("A", "test", [Slice(SQUARE, SHIFTED), Slice([], [(9, 9)]), EMPTY])
B = Patient("B", "test", [Slice(ROW, ROW), Slice([(7, 7), (7, 8)], [])])
C = Patient("C", "test", [EMPTY])


def arrays(patients: list[Patient]) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows, masks (n, 10, 10) and uint8 probabilities (n, 10, 10); row numbers start at 7, slices at 1."""
    rows, masks, probabilities = [], [], []
    for patient in patients:
        for number, (tumour, marked) in enumerate(patient.slices, 1):
            masks.append(_image(tumour, 1, 0))
            probabilities.append(_image(marked, YES, NO))
            names = {"patient": patient.name, "institution": patient.institution, "subset": patient.subset}
            sizes = {"slice": number, "tumour_pixels": len(tumour), "spacing": patient.spacing}
            rows.append({"row": 7 + len(rows), **names, **sizes})
    return pd.DataFrame(rows), np.stack(masks), np.stack(probabilities)


def _image(pixels: list[tuple[int, int]], inside: int, outside: int) -> np.ndarray:
    image = np.full((SIDE, SIDE), outside, np.uint8)
    for pixel in pixels:
        image[pixel] = inside
    return image
