"""Masks and probability maps, in the grid and file type of their case."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from brainseg import files
from brainseg.inference.cases import Case
from brainseg.io import nifti
from brainseg.predict.output import ResultFolder

_SCALE = "probability of tumour = value / 255"


def write_masks(folder: ResultFolder, paths: Sequence[str], case: Case, mask: np.ndarray) -> None:
    """Write ``mask`` (S, H, W) in {0, 1}: as NIfTI so, as PNG and TIF of 0 and 255.

    ``paths``: relative to the folder, one, or of pictures one for each slice.
    """
    if case.volume:
        nifti.write(folder.place(paths[0]), mask, case.volume.geometry)
    else:
        _write_pictures(folder, paths, case, 255 * mask)


def write_probabilities(folder: ResultFolder, masks: Sequence[str], case: Case, probability: np.ndarray) -> list[str]:
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
    else:
        _write_pictures(folder, written, case, probability, _SCALE)
    return written


def _write_pictures(
    folder: ResultFolder, paths: Sequence[str], case: Case, pages: np.ndarray, description: str = ""
) -> None:
    """Write ``pages`` (S, H, W) uint8 as one TIF, or as a PNG each."""
    images = [Image.fromarray(page) for page in pages]
    if case.kind == "tif":
        told = {"description": description} if description else {}
        with files.replacing(folder.place(paths[0])) as temporary:
            images[0].save(temporary, "TIFF", save_all=True, append_images=images[1:],
                           compression="tiff_adobe_deflate", **told)  # fmt: skip
        return
    for path, image in zip(paths, images, strict=True):
        note = PngInfo()
        if description:
            note.add_text("Description", description)
        with files.replacing(folder.place(path)) as temporary:
            image.save(temporary, "PNG", pnginfo=note)
