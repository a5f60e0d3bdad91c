"""DICOM SEG as a mask: its frames, in any order and some left out, placed by their position on the grid of the image.

One segment is label 1. Of several each has its number as label, so that the labels that are tumour can be named. A
fractional segment holds a voxel from half of its maximum on. Only the tags in ``_TAGS`` are parsed.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.errors import DataError, guard
from brainseg.io import volumes
from brainseg.io.dicom import slice_header
from brainseg.io.volumes import TOLERANCE, Volume

_SEGS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # segmentation, label map segmentation
_CONTOURS = "1.2.840.10008.5.1.4.1.1.481.3"  # RT structure set
_TAGS = ("SOPClassUID", "FrameOfReferenceUID", "SegmentationType", "SegmentSequence", "MaximumFractionalValue", "Rows",
         "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
         "HighBit", "PixelRepresentation", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
         "PixelData")  # fmt: skip
_EXPORT = "export the segmentation again, or convert it to NIfTI on the image's grid"
_GRID = "resample it to the image's grid (nearest neighbour), or name the series that it was drawn on"
_MOST = 255  # labels are uint8
_LARGEST = 8 * volumes.MAX_VOXELS  # pixels of all frames


def read_labels(path: Path, name: str, image: Volume | None) -> Volume:
    """Read a DICOM segmentation.

    Args:
        path: the file.
        name: what errors call it.
        image: what it was drawn on; its voxels are not used.

    Returns:
        uint8 labels on the grid of ``image``.

    Raises:
        DataError: no segmentation; of another frame of reference or grid; segments that overlap.
        MachineError: pydicom is not installed.
    """
    pydicom = slice_header.load_pydicom()
    with guard(name):
        dataset = pydicom.dcmread(path, specific_tags=list(_TAGS))
        _check_kind(dataset, name)
        if image is None:
            raise DataError(name, "is DICOM, its image has no place in space", "give the image as the DICOM series")
        _check_reference(dataset, name, image)
        numbers = _read_numbers(dataset, name)
        labels = np.zeros(image.geometry.shape, np.uint8)
        for number, inside, place in _read_frames(dataset, name):
            _draw(labels, inside, 1 if len(numbers) == 1 else number, place, image, name)
        return volumes.to_axial(labels, image.geometry.affine)


def _check_kind(dataset: Any, name: str) -> None:
    kind = dataset.get("SOPClassUID")
    if kind == _CONTOURS:
        fix = "open it with its series in 3D Slicer (extension SlicerRT), and export the segmentation as DICOM SEG"
        raise DataError(name, "is an RTSTRUCT, which holds contours and no voxels", fix)
    if kind not in _SEGS:
        raise DataError(name, "is DICOM, but no segmentation (SEG)", "give the SEG, or a NIfTI mask")


def _check_reference(dataset: Any, name: str, image: Volume) -> None:
    """Refuse a segmentation that names another frame of reference than its image. Either may name none."""
    if not image.frames:
        return
    path = image.frames[0][0]
    theirs = slice_header.read_tags(path, str(path), ("FrameOfReferenceUID",)).get("FrameOfReferenceUID")
    own = dataset.get("FrameOfReferenceUID")
    if own and theirs and own != theirs:
        raise DataError(name, "lies in another frame of reference (FrameOfReferenceUID) than its image", _GRID)


def _read_numbers(dataset: Any, name: str) -> list[int]:
    """The numbers of the segments, without that of a background."""
    numbers = sorted({int(item.SegmentNumber) for item in dataset.get("SegmentSequence") or []} - {0})
    if not numbers:
        raise DataError(name, "describes no segment", _EXPORT)
    if len(numbers) > 1 and numbers[-1] > _MOST:
        raise DataError(name, f"has a segment {numbers[-1]:,}, at most {_MOST} are read", "save fewer segments")
    return numbers


def _read_frames(dataset: Any, name: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each frame and label: its number, the pixels inside ``(N, 2)`` (row, column), and its place ``(3, 3)``.

    Row, column and 1 times the place are millimetres, RAS+.
    """
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    kind, half = dataset.get("SegmentationType"), int(dataset.get("MaximumFractionalValue") or 0) / 2
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if not groups or len(groups) != int(dataset.get("NumberOfFrames") or 1):
        raise DataError(name, "does not say where its frames lie", _EXPORT)
    shape = len(groups), int(dataset.Rows), int(dataset.Columns)
    if math.prod(shape) > _LARGEST:
        raise DataError(name, f"has {math.prod(shape):,} pixels, at most {_LARGEST:,} are read", "save fewer segments")
    frames = dataset.pixel_array.reshape(shape)
    for frame, own in zip(frames, groups, strict=True):
        if not frame.any():
            continue
        place = _find_place(own, shared, name)
        if kind == "LABELMAP":
            yield from ((int(number), np.argwhere(frame == number), place) for number in np.unique(frame[frame > 0]))
            continue
        number = int(_find_group(own, shared, "SegmentIdentificationSequence", name).ReferencedSegmentNumber)
        yield number, np.argwhere(frame >= max(half, 1) if kind == "FRACTIONAL" else frame > 0), place


def _find_group(own: Any, shared: Any, keyword: str, name: str) -> Any:
    """What is said of a frame: by the frame itself, or for all."""
    for groups in (own, shared):
        if groups is not None and groups.get(keyword):
            return groups[keyword][0]
    raise DataError(name, f"does not say where its frames lie ({keyword})", _EXPORT)


def _find_place(own: Any, shared: Any, name: str) -> np.ndarray:
    """``(3, 3)``: the steps of a row and of a column, and the first pixel, in millimetres, RAS+."""
    corner = _find_group(own, shared, "PlanePositionSequence", name).ImagePositionPatient
    axes = _find_group(own, shared, "PlaneOrientationSequence", name).ImageOrientationPatient
    between_rows, between_columns = _find_group(own, shared, "PixelMeasuresSequence", name).PixelSpacing
    across, down = np.array(axes, np.float64).reshape(2, 3)
    lps = np.array([down * float(between_rows), across * float(between_columns), np.array(corner, np.float64)])
    return lps * [-1, -1, 1]


def _draw(labels: np.ndarray, inside: np.ndarray, number: int, place: np.ndarray, image: Volume, name: str) -> None:
    """Write a label into the voxels ``(I, J, K)`` that the pixels of a frame are.

    Raises:
        DataError: a pixel lies between voxels or outside of the image, or in another segment.
    """
    affine, shape = image.geometry
    points = np.column_stack([inside, np.ones(len(inside))]) @ place
    exact = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    voxels = np.rint(exact).astype(np.int64)
    if len(exact) and np.abs((exact - voxels) @ affine[:3, :3].T).max() > TOLERANCE * min(image.spacing):
        raise DataError(name, "lies on another grid than its image: its pixels are no voxels of the image", _GRID)
    if (voxels < 0).any() or (voxels >= shape).any():
        raise DataError(name, "marks tissue outside of its image", _GRID)
    at = tuple(voxels.T)
    if ((labels[at] > 0) & (labels[at] != number)).any():
        what = f"has segments that overlap (segment {number} and another), so a voxel would have two labels"
        raise DataError(name, what, "save the tumour as one segment, or segments that do not overlap")
    labels[at] = number
