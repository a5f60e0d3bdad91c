"""``brains.npy``: the brain mask of each prepared slice, a bit a pixel.

LGG's masks come with the program, in ``lgg.xz``: bits of (3929, 256, 256) in the order of ``slices.csv``. They were
made with deepbet 1.0.2 (Fisch et al., 2024, arXiv:2308.07003): its coarse network, the union of pre-contrast and
FLAIR, the largest component, holes filled. They do not mark tumours.
"""

import hashlib
import lzma
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from brainseg import config, files
from brainseg.data import dataset
from brainseg.errors import IntegrityError

FILE = "brains.npy"
SHIPPED = Path(__file__).with_name("lgg.xz")
SHIPPED_SHA256 = "e7af04da04fb95e0c774b950ba71788c618b31680d4258541721c2d0a5338a7e"
SIDE = 256  # pixels of a slice of LGG
ORDER_SHA256 = "d98633210dde286c7546d1e7c092604b74849b3c027cd05199495653c0807c4d"  # of the lines "patient slice"
AT_ONCE = 256  # slices that are unpacked together


def run(processed: Path, params: config.Brains, source: str) -> str:
    """Write ``brains.npy`` (N, S, ceil(S / 8)) uint8 into ``processed``: ``np.packbits`` of each row of pixels.

    Of slices whose brain is not known every bit is set, so that nothing is removed from them.

    Args:
        processed: holds what preprocess wrote.
        source: download.source.

    Returns:
        A one-line summary.

    Raises:
        IntegrityError: the slices are not those of LGG although ``source`` says so, or a file is damaged.
    """
    images, _ = dataset.open_arrays(processed)
    known, kept = 0, 0
    shape = (len(images), images.shape[1], -(-images.shape[2] // 8))
    with files.replacing(processed / FILE) as temporary, open(temporary, "wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for masks in _make(processed, images.shape[:3], params, source):
            out.write(np.packbits(masks, axis=-1).tobytes())
            known += int((~masks.all(axis=(1, 2))).sum())
            kept += int(masks.sum())
    if not known:
        return f"{processed / FILE}: no brain masks for these images (brains.method: {params.method})"
    share = kept / len(images) / images.shape[1] / images.shape[2]
    return f"{processed / FILE}: brain masks of {known:,} of {len(images):,} slices, {100 * share:.0f} % of the pixels"


def _make(
    processed: Path, shape: tuple[int, int, int], params: config.Brains, source: str
) -> Iterator[np.ndarray]:  # fmt: skip
    """The masks (n, H, W) bool, some slices at a time; ``shape``: (N, H, W) of all."""
    count, height, width = shape
    if params.method == "shipped" and source == "kaggle":
        yield from _read_shipped(dataset.read_slices(processed / "slices.csv"), height)
        return
    for start in range(0, count, AT_ONCE):
        yield np.ones((min(AT_ONCE, count - start), height, width), bool)


def _read_shipped(slices: pd.DataFrame, side: int) -> Iterator[np.ndarray]:
    lines = "".join(f"{patient} {number}\n" for patient, number in zip(slices["patient"], slices["slice"], strict=True))
    if hashlib.sha256(lines.encode()).hexdigest() != ORDER_SHA256:
        what = "does not have the slices of LGG, whose brain masks come with the program"
        raise IntegrityError(
            "data/processed/slices.csv", what, "run: dvc repro -f download; or set brains.method: none"
        )
    bits = unpack_shipped()
    for start in range(0, len(bits), AT_ONCE):
        masks = np.unpackbits(bits[start : start + AT_ONCE], axis=-1)
        if side != SIDE:
            masks = np.stack([cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST) for mask in masks])
        yield masks.astype(bool)


def unpack_shipped() -> np.ndarray:
    """LGG's masks, (N, SIDE, SIDE / 8) uint8, a bit a pixel, in the order of its slices.

    Raises:
        IntegrityError: the file that comes with the program is damaged.
    """
    packed = SHIPPED.read_bytes()
    if (found := hashlib.sha256(packed).hexdigest()) != SHIPPED_SHA256:
        raise IntegrityError(SHIPPED, f"sha256 is {found}, the program says {SHIPPED_SHA256}", f"git restore {SHIPPED}")
    return np.frombuffer(lzma.decompress(packed), np.uint8).reshape(-1, SIDE, SIDE // 8)
