"""Intensities of any depth to 0..255, by one window for the whole volume."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """The intensities that become 0 and 255, for each channel: (C,) float64."""

    low: np.ndarray
    high: np.ndarray


def find_window(slices: Sequence[np.ndarray], percentiles: tuple[float, float]) -> Window:
    """Percentiles of the intensities of a volume, channel by channel.

    The lowest value is left out. It is usually the air around the head, whose many voxels would move the percentiles.

    Args:
        slices: arrays (H, W) or (H, W, C) of one volume, all of one type: uint16, int16 or float32.
        percentiles: the lower and the upper one, 0..100.
    """
    ends = []
    for channel in range(_count_channels(slices[0])):
        planes = [pixels.reshape(-1, _count_channels(pixels))[:, channel] for pixels in slices]
        ends.append(_find_percentiles(planes, percentiles))
    low, high = np.array(ends, np.float64).T
    return Window(low, high)


def _find_percentiles(planes: list[np.ndarray], percentiles: tuple[float, float]) -> list[float]:
    """As ``np.percentile``, but in float64 for every type, since int16 overflows, and with little memory."""
    if planes[0].dtype.kind == "f":
        values = np.sort(np.concatenate(planes))
        above = values[np.searchsorted(values, values[0], side="right") :]
        values = above if above.size else values
        return [_interpolate(lambda rank: values[rank], len(values), percent) for percent in percentiles]
    least = int(np.iinfo(planes[0].dtype).min)
    counts = np.zeros(2**16, np.int64)
    for plane in planes:
        counts += np.bincount(plane.astype(np.int32) - least, minlength=len(counts))
    if np.count_nonzero(counts) > 1:
        counts[counts.nonzero()[0][0]] = 0
    ends = np.cumsum(counts)
    return [
        _interpolate(lambda rank: float(np.searchsorted(ends, rank, side="right") + least), int(ends[-1]), percent)
        for percent in percentiles
    ]


def _interpolate(at: Callable[[int], float], count: int, percent: float) -> float:
    """Interpolate linearly between the two values whose ranks are nearest."""
    place = percent / 100 * (count - 1)
    below = math.floor(place)
    lower, upper = float(at(below)), float(at(min(below + 1, count - 1)))
    return lower + (upper - lower) * (place - below)


def to_uint8(pixels: np.ndarray, ends: Window) -> np.ndarray:
    """(H, W) or (H, W, C) of any depth to uint8: ``low`` becomes 0, ``high`` 255. Values outside are clipped.

    A channel whose window is empty, such as one of a single value, becomes 0.
    """
    values = pixels.reshape(*pixels.shape[:2], _count_channels(pixels))
    width = ends.high - ends.low
    share = np.divide(values - ends.low, width, out=np.zeros(values.shape), where=width > 0)
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8).reshape(pixels.shape)


def _count_channels(pixels: np.ndarray) -> int:
    return pixels.shape[2] if pixels.ndim == 3 else 1
