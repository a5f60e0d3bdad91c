"""What is read off an answer, for a row of a table and for JSON alike: areas, volume, mean probability, warnings."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from brainseg.inference.cases import Case

PHANTOM = (
    "the model was trained on drawn phantoms and knows nothing of real brains: its answers mean nothing on patients"
)


class Readings(NamedTuple):
    """None is what is not known, or is not there for want of tumour."""

    pixels: list[int]  # of tumour, on each slice
    largest: int | None  # index of the slice with the most
    areas_mm2: list[float] | None
    volume_ml: float | None
    means: list[float | None]  # probability inside the outline, 0 to 1, on each slice
    mean: float | None  # and over all of them

    @property
    def area_pixels(self) -> int:
        """On the slice with the most."""
        return 0 if self.largest is None else self.pixels[self.largest]

    @property
    def area_mm2(self) -> float | None:
        """On the same slice."""
        return None if self.areas_mm2 is None else 0.0 if self.largest is None else self.areas_mm2[self.largest]


def of(case: Case, mask: np.ndarray, probability: np.ndarray) -> Readings:
    """The readings of an answer to ``case``.

    Args:
        mask: (S, H, W) in {0, 1}.
        probability: (S, H, W) uint8, 255ths.
    """
    pixels = [int(np.count_nonzero(page)) for page in mask]
    sides = case.volume.spacing if case.volume else None
    return Readings(
        pixels,
        int(np.argmax(pixels)) if any(pixels) else None,
        [count * sides[0] * sides[1] for count in pixels] if sides else None,
        sum(pixels) * math.prod(sides) / 1000 if sides else None,
        [_mean(*pages) for pages in zip(mask, probability, strict=True)],
        _mean(mask, probability),
    )


def is_of_phantoms(facts: Mapping[str, Any]) -> bool:
    """Whether a model has seen drawn phantoms alone. ``facts``: what its file says of itself."""
    return facts["model"]["protocol"].get("source") == "phantom"


def _mean(mask: np.ndarray, probability: np.ndarray) -> float | None:
    inside = probability[mask > 0]
    return float(inside.mean(dtype=np.float64)) / 255 if inside.size else None
