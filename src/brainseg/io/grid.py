"""Slices to the square grid of the model, and back to their own grid.

The longer side is scaled to the side of the grid. The shorter one is padded with zeros, evenly on both ends. Pixels
become square.
"""

import cv2
import numpy as np

from brainseg.io.sequences import FLAIR

PixelSize = tuple[float, float]  # height and width, in mm where they are known
SQUARE: PixelSize = (1.0, 1.0)


def select_channels(image: np.ndarray, channels: str) -> np.ndarray:
    """(H, W, 3) unchanged (``all``), its FLAIR (``flair``) or its mean (``gray``), (H, W); (H, W) stays as it is."""
    if image.ndim == 2 or channels == "all":
        return image
    if channels == "flair":
        return image[..., FLAIR]
    mean = image.mean(axis=2, dtype=np.float64)
    return (np.rint(mean) if image.dtype != np.float32 else mean).astype(image.dtype)


def resize_image(image: np.ndarray, size: int, pixel: PixelSize = SQUARE) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 to (size, size, 3). Gray becomes three equal channels.

    Shrinking averages pixel areas, against aliasing. Enlarging is cubic, against blur. A ``pixel`` (height, width) that
    is not square becomes square.

    Raises:
        ValueError: another type than uint8.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"{image.dtype}: intensities of more than 8 bits need the window of their volume first")
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return _fit(image, size, pixel, cv2.INTER_AREA, cv2.INTER_CUBIC)


def resize_mask(mask: np.ndarray, size: int, pixel: PixelSize = SQUARE) -> np.ndarray:
    """(H, W) uint8, background 0, to (size, size) in {0, 1}.

    A pixel is tumour if at least half of the area it covers is. Nearest neighbour would shift the outline by up to half
    a source pixel and lose thin parts at random.
    """
    covered = _fit((mask > 0) * np.uint8(255), size, pixel, cv2.INTER_AREA, cv2.INTER_LINEAR)
    return (covered >= 128).view(np.uint8)


def resize_back(pixels: np.ndarray, shape: tuple[int, int], pixel: PixelSize = SQUARE) -> np.ndarray:
    """The inverse of ``resize_image``: (size, size) uint8 to ``shape`` (H, W), without the padding, interpolated."""
    size = pixels.shape[0]
    width, height = _target_size(shape, size, pixel)
    top, left = (size - height) // 2, (size - width) // 2
    inner = pixels[top : top + height, left : left + width]
    if inner.shape == shape:
        return np.ascontiguousarray(inner)
    smaller = shape[0] * shape[1] < height * width
    return cv2.resize(inner, shape[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _target_size(shape: tuple[int, int], size: int, pixel: PixelSize) -> tuple[int, int]:
    """Width and height, in the order of OpenCV, that an image (H, W) with such pixels has on the grid."""
    height, width = shape[0] * pixel[0], shape[1] * pixel[1]
    scale = size / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _fit(pixels: np.ndarray, size: int, pixel: PixelSize, shrinking: int, growing: int) -> np.ndarray:
    """Scale the longer side to ``size`` and pad the shorter one with zeros, evenly on both ends."""
    target = _target_size((pixels.shape[0], pixels.shape[1]), size, pixel)
    if target != pixels.shape[1::-1]:
        smaller = target[0] * target[1] < pixels.shape[0] * pixels.shape[1]
        pixels = cv2.resize(pixels, target, interpolation=shrinking if smaller else growing)
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    top, left = (size - height) // 2, (size - width) // 2
    ends = top, size - height - top, left, size - width - left
    return cv2.copyMakeBorder(pixels, *ends, cv2.BORDER_CONSTANT, value=0)
