"""Phantoms: a small cohort of drawn heads with tumours, for trials without the data and without internet.

Each patient is one head (see ``anatomy``), cut into axial slices and imaged as pre-contrast T1, FLAIR and post-contrast
T1 by one of four scanners. Bright tissue on FLAIR that is not tumour (scalp, caps of the ventricles, old lesions,
mucosa) makes a simple threshold fail, as it does on patients.
"""

import io
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from brainseg import config
from brainseg.data.archive import Pair
from brainseg.data.phantom.anatomy import Head

SKULL_BASE, VERTEX = -0.40, 0.66  # z of the lowest and the highest place of a slice


class Scanner(NamedTuple):
    """How the images of an institution look."""

    gain: tuple[float, float, float]  # grey value of T1 white matter in each channel
    blur: float  # standard deviation, in pixels of a 256 grid
    noise: float  # standard deviation, in grey values
    bias: float  # strength of the shading by the receive coil


# No code may be "NA": readers of CSV files take it for a missing value.
SCANNERS = {
    "PA": Scanner((58, 62, 54), 0.55, 1.8, 0.35),
    "PB": Scanner((82, 60, 72), 0.75, 2.2, 0.60),
    "PC": Scanner((46, 74, 78), 0.60, 3.0, 0.40),
    "PD": Scanner((66, 52, 58), 0.85, 1.8, 0.70),
}
ROSTER = ("PA", "PB", "PA", "PC", "PA", "PB", "PA", "PD", "PB", "PC")


def pairs(params: config.Phantom) -> Iterator[Pair]:
    """Draw the cohort: patients in order of their ids, slices from the base of the skull to the vertex.

    Every patient has a tumour. One in eleven lacks the post-contrast and one in seventeen the pre-contrast image: FLAIR
    replaces it, as in LGG. The same ``params`` give the same bytes.
    """
    names = [f"PHANTOM_{ROSTER[number % len(ROSTER)]}_{number:04d}" for number in range(params.patients)]
    for name in tqdm(sorted(names), desc="draw", unit="patients", disable=None):
        yield from _draw_patient(name, params)


def _draw_patient(name: str, params: config.Phantom) -> Iterator[Pair]:
    institution, number = name.split("_")[1], int(name.split("_")[2])
    rng = np.random.default_rng([params.seed, number])
    spread = params.slices // 5
    count = params.slices + int(rng.integers(-spread, spread + 1))
    head = Head(rng, np.linspace(SKULL_BASE, VERTEX, count + 2)[1:-1], params.size)
    scanner = SCANNERS[institution]
    coil = rng.uniform(-scanner.bias, scanner.bias, (3, 3))
    for index, height in enumerate(head.heights.tolist()):
        signal, mask = head.cut(index)
        image = _scan(signal, scanner, coil, height, rng)
        if number % 17 == 5:
            image[..., 0] = image[..., 1]
        if number % 11 == 3:
            image[..., 2] = image[..., 1]
        stem = f"{name}_{index + 1}"
        yield Pair(
            name, institution, index + 1, f"{stem}.tif", f"{stem}_mask.tif", _encode_tif(image), _encode_tif(mask)
        )


def _scan(signal: np.ndarray, scanner: Scanner, coil: np.ndarray, z: float, rng: np.random.Generator) -> np.ndarray:
    """Blur, shade, scale and add noise to a signal (3, size, size): uint8 (size, size, 3)."""
    size = signal.shape[-1]
    x = np.linspace(-1, 1, size, dtype=np.float32)
    y, channels = x[:, None], []
    rim = 0.25 * scanner.bias * (x * x + y * y - 0.6)  # tissue near the coils is brighter
    for plane, gain, (a, b, c) in zip(signal, scanner.gain, coil.tolist(), strict=True):
        image = cv2.GaussianBlur(plane, (0, 0), scanner.blur * size / 256)
        image *= gain * np.exp(0.4 * a * x + 0.5 * b * y + 0.4 * c * z + rim)
        noise = scanner.noise * rng.standard_normal(image.shape, dtype=np.float32)
        channels.append(np.abs(image + noise))  # a magnitude image: noise in the air becomes positive
    return np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255).astype(np.uint8)


def _encode_tif(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="TIFF", compression=None)
    return buffer.getvalue()
