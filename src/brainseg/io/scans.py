"""Volumes on disk in every accepted form: files that know their place in space, DICOM series, TIFs of several pages."""

import json
import os
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainseg.errors import DataError, Problem, guard
from brainseg.io import itk, mgh, nifti, pictures, spacing, volumes
from brainseg.io.dicom import seg_reader, series_reader, slice_header
from brainseg.io.volumes import Volume

READERS = {  # kind → what reads it, by the ending of the file's name
    "nifti": (nifti, (*nifti.SUFFIXES, *nifti.PAIR_SUFFIXES)),
    "nrrd": (itk, itk.NRRD_SUFFIXES),
    "metaimage": (itk, itk.META_SUFFIXES),
    "mgh": (mgh, mgh.SUFFIXES),
}
SUFFIXES = tuple(suffix for _, suffixes in READERS.values() for suffix in suffixes)
IN_TWO_SUFFIXES = (*nifti.PAIR_SUFFIXES, *itk.DETACHED_SUFFIXES)  # a header, and its voxels in a file of their own


class Scan(NamedTuple):
    """``voxels`` (S, H, W) or (S, H, W, 3), axial; ``volume`` has their position in space, None where it is unknown.

    ``remarks``: for the reader of the answer, what was assumed or passed over.
    """

    voxels: np.ndarray
    volume: Volume | None
    remarks: tuple[str, ...] = ()

    @property
    def spacing(self) -> str:
        """``"row x column x slice"`` in mm, empty where it is unknown."""
        return spacing.format_cell(self.volume.spacing) if self.volume else ""


def kind_of(name: str) -> str:
    """One of READERS for a file of this name, or half of a pair; empty if it is none. A TIF is told by its bytes."""
    return next((kind for kind, (_, suffixes) in READERS.items() if name.lower().endswith(suffixes)), "")


def find_other_half(path: Path, name: str) -> Path | None:
    """The other file of a volume that lies in two, in the same folder; None if there is none.

    Raises:
        DataError: a header that cannot be read, or that names a file elsewhere.
    """
    if not path.name.lower().endswith(itk.DETACHED_SUFFIXES):
        return nifti.find_other_half(path)
    with guard(name), path.open("rb") as file:
        voxels = itk.find_voxels(file.read(itk.MAX_HEADER), name)
    return path.with_name(voxels) if voxels and os.path.isfile(path.with_name(voxels)) else None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its ending or its first bytes."""
    return path.name.lower().endswith(slice_header.ENDINGS) or (not kind_of(path.name) and slice_header.is_dicom(path))


def read_image(path: Path, name: str) -> Scan:
    """Read intensities: uint8, uint16, int16 or float32.

    Args:
        path: a file, or a folder that holds one DICOM series.
        name: what errors call it.

    Raises:
        DataError: not a whole volume of an accepted kind.
    """
    with guard(name):
        if path.is_dir():
            return _to_scan(series_reader.read_series(_find_files(path, name), name))
        if kind := kind_of(path.name):
            return _to_scan(READERS[kind][0].read_image(path, name))
        return Scan(pictures.decode_pages(path.read_bytes(), name), None)


def read_labels(path: Path, name: str, image: Volume | None = None) -> Scan:
    """Read a mask: uint8 or uint16 labels, of a TIF from all its pages. Errors as in ``read_image``.

    ``image``: what the mask was drawn on; a DICOM SEG is placed on its grid.
    """
    if path.is_dir():
        raise DataError(name, "is a folder, masks are files", "name the file of the DICOM SEG, or a NIfTI mask")
    with guard(name):
        if is_dicom(path):
            return _to_scan(seg_reader.read_labels(path, name, image))
        if kind := kind_of(path.name):
            return _to_scan(READERS[kind][0].read_labels(path, name))
        return Scan(pictures.decode_label_pages(path.read_bytes(), name), None)


def _find_files(folder: Path, name: str) -> list[Path]:
    """The files of the only series at or below a folder."""
    found = series_reader.find_series(folder, name)
    if len(found) > 1:
        what = f"holds {len(found)} folders of DICOM files, a volume is one series"
        raise DataError(name, what, "name the folder of the one that the mask was drawn on")
    return next(iter(found.values()))


def _to_scan(volume: Volume) -> Scan:
    return Scan(volume.voxels, volume, volume.remarks)


def find_problems(image: Scan, mask: Scan, name: str) -> list[Problem]:
    """Why the mask ``name``, a path, does not fit the image: another shape or place, or only one has a place."""
    fix = "draw it on this image, or resample it to the image's grid (nearest neighbour)"
    if image.volume and mask.volume and _has_lost_header(image.volume, mask.volume):
        what = "lies elsewhere in space than its image: its orientation is the identity, so its header was lost"
        return [Problem(name, what, _describe_affine_copy(image.volume, name))]
    if mask.voxels.shape[:3] != image.voxels.shape[:3]:
        shapes = (" x ".join(map(str, scan.voxels.shape[:3])) for scan in (mask, image))
        what = "has {} axial slices, rows and columns, its image {}".format(*shapes)
        return [Problem(name, what, fix)]
    if (image.volume is None) != (mask.volume is None):
        what = "and its image are of different kinds, one with a place in space and one without"
        return [Problem(name, what, "save both as NIfTI, or both as TIF")]
    if image.volume and mask.volume and not volumes.same_place(image.volume, mask.volume):
        return [Problem(name, "lies elsewhere in space than its image: their orientation matrices differ", fix)]
    return []


def _has_lost_header(image: Volume, mask: Volume) -> bool:
    """Whether a mask of the image's shape has the orientation of no header: the identity, or voxel sizes alone."""
    affine = mask.geometry.affine
    plain = np.array_equal(affine, np.diag([*np.abs(np.diag(affine))[:3], 1.0]))
    return plain and mask.geometry.shape == image.geometry.shape and not volumes.same_place(image, mask)


def _describe_affine_copy(image: Volume, name: str) -> str:
    """What gives the mask ``name`` the image's orientation, as a command where nibabel writes its format."""
    fix = "if it was drawn on this image, copy the image's affine"
    if kind_of(name) not in ("nifti", "mgh"):
        return f"{fix}: with SimpleITK, mask.CopyInformation(image)"
    rows = [[float(f"{value:.9g}") for value in row] for row in image.geometry.affine]
    code = (
        f"import nibabel, numpy; path = {json.dumps(name, ensure_ascii=False)}; mask = nibabel.load(path); "
        f"nibabel.save(type(mask)(numpy.array(mask.dataobj), numpy.array({rows}), mask.header), path)"
    )
    return f"{fix}: python -c {shlex.quote(code)}"
