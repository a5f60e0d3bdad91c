"""Probability maps beside the masks, in the same grids and file types."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from brainseg import files
from brainseg.inference.cases import Case
from brainseg.io import nifti
from brainseg.predict.output import ResultFolder

SCALE = "probability of tumour = value / 255"


def write(folder: ResultFolder, masks: Sequence[str], case: Case, probability: np.ndarray) -> list[str]:
    """Write the probabilities: as NIfTI float32, 0 to 1; as PNG and TIF 8 bits, 0 to 255, and the file says so.

    Args:
        masks: paths of the case's masks, relative to the folder; the maps have the same names in ``probabilities/``.
        probability: (S, H, W) uint8, 255ths.

    Returns:
        Their paths, relative to the folder.
    """
    written = [f"probabilities/{path.removeprefix('masks/')}" for path in masks]
    if case.volume:
        nifti.write(folder.place(written[0]), probability / np.float32(255), case.volume.geometry)
    elif case.kind == "tif":
        first, *further = map(Image.fromarray, probability)
        _save(folder.place(written[0]), first, "TIFF", save_all=True, append_images=further,
              compression="tiff_adobe_deflate", description=SCALE)  # fmt: skip
    else:
        for path, page in zip(written, probability, strict=True):
            note = PngInfo()
            note.add_text("Description", SCALE)
            _save(folder.place(path), Image.fromarray(page), "PNG", pnginfo=note)
    return written


def _save(path: Path, page: Image.Image, form: str, **settings: Any) -> None:
    with files.replacing(path) as temporary:
        page.save(temporary, form, **settings)
