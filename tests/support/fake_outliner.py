"""A fake model: pixels brighter than a level are tumour. It answers at once and records what it was asked."""

import numpy as np

from brainseg.inference.outlining import Segmentation
from brainseg.io import grid

SIDE = 64


class Fake:
    """As outlining.Outliner."""

    def __init__(self, level: int = 200, weights: str = "ab" * 32, source: str = "kaggle"):
        self.level, self.asked, self.digest = level, [], weights
        self.facts = {
            "variant": "float32",
            "marks": ["20 of 110 patients"],
            "model": {"weights_sha256": weights, "protocol": {"source": source}},
            "rule": {"threshold": 0.5, "min_component": 20, "mirror": True},
        }

    def prepared(self, voxels, pixel):
        shown = (255.0 * voxels / max(1, voxels.max())).astype(np.uint8)
        return np.stack([grid.resize_image(page, SIDE, pixel) for page in shown])

    def segment(self, voxels, pixel=(1, 1), *, numbers=(), name="array", progress=None, cancelled=None):
        self.asked.append((voxels.shape, tuple(pixel)))
        flair = voxels[..., 1] if voxels.ndim == 4 else voxels
        mask = (flair >= self.level).astype(np.uint8)
        if progress:
            progress(len(mask), len(mask))
        return Segmentation(mask, np.where(mask, np.uint8(204), np.uint8(10)))


def heads(slices: int, height: int = 80, width: int = 64, tumour: tuple[int, ...] = (1, 2)) -> np.ndarray:
    """(S, H, W) uint8: an oval of 120 in a ring of 180; the slices in ``tumour`` have a disc of 230 on the left."""
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1) - 0.5
    oval, disc = (x / 0.36) ** 2 + (y / 0.42) ** 2, (x + 0.15) ** 2 + (y + 0.05) ** 2 < 0.008
    plain = np.where(oval < 0.8, 120, np.where(oval < 1, 180, 0)).astype(np.uint8)
    return np.stack([np.where(disc, 230, plain).astype(np.uint8) if k in tumour else plain for k in range(slices)])
