"""A cohort small enough to train on within a test: bright discs on noise, eight patients of four slices."""

from pathlib import Path

import numpy as np
import pandas as pd

SUBSETS = ["train"] * 4 + ["val"] * 2 + ["test"] * 2


def draw_brains(count: int, size: int) -> np.ndarray:
    """(count, size, size) uint8: a disc that holds every tumour of ``write_cohort``."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.repeat((y**2 + x**2 < (size * 0.49) ** 2)[None].astype(np.uint8), count, axis=0)


def write_cohort(folder: Path, size: int = 32, slices: int = 4) -> tuple[Path, Path]:
    """Write what preprocess and split write; return the folder of the arrays and the split's path."""
    rng = np.random.default_rng(5)
    count = len(SUBSETS) * slices
    images = rng.integers(30, 70, (count, size, size, 3)).astype(np.uint8)
    masks = np.zeros((count, size, size), np.uint8)
    y, x = np.mgrid[:size, :size]
    for row in range(count):
        if row % slices:  # the first slice of each patient stays empty
            cy, cx = rng.integers(size // 4, 3 * size // 4, 2)
            masks[row] = (y - cy) ** 2 + (x - cx) ** 2 < (size // 6) ** 2
    images[masks > 0, 1] += 120
    processed = folder / "processed"
    processed.mkdir()
    np.save(processed / "images.npy", images)
    np.save(processed / "masks.npy", masks)
    np.save(processed / "brains.npy", np.packbits(draw_brains(count, size), axis=-1))
    patients = [f"P{row // slices}" for row in range(count)]
    table = pd.DataFrame({
        "row": range(count), "patient": patients, "institution": "A", "slice": np.arange(count) % slices + 1,
        "tumour_pixels": masks.sum((1, 2)), "source": "made", "spacing": "",
    })  # fmt: skip
    table.to_csv(processed / "slices.csv", index=False)
    split = table[["row", "patient"]].assign(fold=1, subset=[SUBSETS[row // slices] for row in range(count)])
    split.to_csv(folder / "split.csv", index=False)
    return processed, folder / "split.csv"
