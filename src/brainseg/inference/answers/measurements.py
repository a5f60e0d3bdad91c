"""Measurements of an outline for tables and JSON: areas, volume and mean probability."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainseg.inference import chosen_rule
from brainseg.inference.cases import Case

PHANTOM_WARNING = (
    "the model was trained on drawn phantoms and not on real brains: its outlines mean nothing for patients"
)


class Measurements(NamedTuple):
    """None stands for a value that is not known, or that does not exist because there is no tumour."""

    pixels: list[int]  # tumour pixels on each slice
    largest: int | None  # index of the slice with the most tumour pixels
    areas_mm2: list[float] | None
    volume_ml: float | None
    means: list[float | None]  # probability inside the outline, 0 to 1, on each slice
    mean: float | None  # the same over all slices

    @property
    def area_pixels(self) -> int:
        """Tumour pixels on the slice with the most."""
        return 0 if self.largest is None else self.pixels[self.largest]

    @property
    def area_mm2(self) -> float | None:
        """Area of tumour on the same slice."""
        return None if self.areas_mm2 is None else 0.0 if self.largest is None else self.areas_mm2[self.largest]


def measure(case: Case, mask: np.ndarray, probability: np.ndarray) -> Measurements:
    """Measure the outline of a case.

    Args:
        mask: (S, H, W) in {0, 1}.
        probability: (S, H, W) uint8, 255ths.
    """
    pixels = [int(np.count_nonzero(page)) for page in mask]
    sides = case.volume.spacing if case.volume else None
    return Measurements(
        pixels,
        int(np.argmax(pixels)) if any(pixels) else None,
        [count * sides[0] * sides[1] for count in pixels] if sides else None,
        sum(pixels) * math.prod(sides) / 1000 if sides else None,
        [_measure_mean(*pages) for pages in zip(mask, probability, strict=True)],
        _measure_mean(mask, probability),
    )


def estimate_interval(
    volume_ml: float | None, facts: Mapping[str, Any], channels: Sequence[str]
) -> tuple[float, float] | None:  # fmt: skip
    """Where the marked volume lies for nine of ten patients like those that the model's recipe was tested on.

    Args:
        facts: the metadata of the model's file; only released models know it.
        channels: what each channel of the case is. None of FLAIR alone, or by another rule than the model's: its recipe
            was not tested so.
    """
    ratios = facts.get("volume_interval")
    if not ratios or not volume_ml or len(set(channels)) < 2 or chosen_rule.remarks(facts):
        return None
    return volume_ml * ratios["low"], volume_ml * ratios["high"]


def is_of_phantoms(facts: Mapping[str, Any]) -> bool:
    """Whether a model was trained only on drawn phantoms. ``facts``: the metadata of its file."""
    return facts["model"]["protocol"].get("source") == "phantom"


def _measure_mean(mask: np.ndarray, probability: np.ndarray) -> float | None:
    inside = probability[mask > 0]
    return float(inside.mean(dtype=np.float64)) / 255 if inside.size else None
