"""How the phantoms in src/brainseg/server/phantoms were drawn.

``python -m tests.support.phantom_examples`` draws them again.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from brainseg import config
from brainseg.data.phantom import cohort

FOLDER = Path(__file__).parents[2] / "src/brainseg/server/phantoms"
DRAWN = config.Phantom(patients=2, slices=5, size=256, seed=2026)  # a seed that no committed recipe trains on


def pages() -> dict[str, list[np.ndarray]]:
    """File name → its slices, (H, W, 3) uint8."""
    found: dict[str, list[np.ndarray]] = {}
    for pair in cohort.pairs(DRAWN):
        found.setdefault(pair.patient, []).append(np.asarray(Image.open(io.BytesIO(pair.image))))
    return {f"phantom-{number}.tif": slices for number, (_, slices) in enumerate(sorted(found.items()), 1)}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, slices in pages().items():
        first, *others = [Image.fromarray(page) for page in slices]
        first.save(
            FOLDER / name, save_all=True, append_images=others, compression="tiff_adobe_deflate", tiffinfo={317: 2}
        )
