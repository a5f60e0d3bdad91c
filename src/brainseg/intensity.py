"""Intensities of any depth to 0..255, by a window of the whole volume."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """What becomes 0 and what becomes 255, for each channel: (C,) float64."""

    low: np.ndarray
    high: np.ndarray


def window(slices: Iterable[np.ndarray], percentiles: tuple[float, float]) -> Window:
    """The percentiles of the volume's intensities, channel by channel.

    Those above the least one count, since air around the head would otherwise decide: as a rule it is one value.

    Args:
        slices: arrays (H, W) or (H, W, C) of one volume.
        percentiles: of the lower and the upper end, 0..100.
    """
    channels = np.concatenate([pixels.reshape(-1, _channels(pixels)) for pixels in slices]).T
    ends = [np.percentile(_above_least(values), percentiles) for values in channels]
    low, high = np.array(ends, np.float64).T
    return Window(low, high)


def to_uint8(pixels: np.ndarray, ends: Window) -> np.ndarray:
    """(H, W) or (H, W, C) of any depth to uint8: ``low`` to 0, ``high`` to 255, rounded; what lies outside is cut off.

    A channel of one value becomes 0.
    """
    values = pixels.reshape(*pixels.shape[:2], _channels(pixels))
    width = ends.high - ends.low
    share = np.divide(values - ends.low, width, out=np.zeros(values.shape), where=width > 0)
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8).reshape(pixels.shape)


def _channels(pixels: np.ndarray) -> int:
    return pixels.shape[2] if pixels.ndim == 3 else 1


def _above_least(values: np.ndarray) -> np.ndarray:
    head = values[values > values.min()]
    return head if head.size else values
