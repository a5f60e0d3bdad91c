"""DICOM SEG as a mask: its frames, in any order and some left out, placed by their position on the grid of the image.

One segment is label 1. Of several each has its number as label, so that the labels that are tumour can be named. A
fractional segment holds a voxel from half of its maximum on. Its pixels must have the size of the image's voxels, and
its frames the distance of its slices. Only the tags in ``_TAGS`` are parsed, within the limits of
:mod:`brainseg.io.dicom.slice_header`.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainseg.errors import DataError, guard
from brainseg.io import volumes
from brainseg.io.dicom import multiframe, pixel_data, slice_header
from brainseg.io.volumes import TOLERANCE, Volume

_CONTOURS = "1.2.840.10008.5.1.4.1.1.481.3"  # RT structure set
_TAGS = ("SOPClassUID", "FrameOfReferenceUID", "SegmentationType", "SegmentSequence", "MaximumFractionalValue", "Rows",
         "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
         "HighBit", "PixelRepresentation", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
         "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData")  # fmt: skip
_SOURCE_TAGS = ("FrameOfReferenceUID", "SliceThickness", "SpacingBetweenSlices", *multiframe.WHOLE)
_EXPORT = "export the segmentation again, or convert it to NIfTI on the image's grid"
_GRID = "resample it to the image's grid (nearest neighbour), or name the series that it was drawn on"
_FEWER = "save fewer segments, or leave out the frames without any"
_ELSEWHERE = "lies on another grid than its image"
_ACROSS = 2  # the axis of an image in DICOM from slice to slice
_MOST = 255  # labels are uint8
_LARGEST = 8 * volumes.MAX_VOXELS  # pixels of all frames
_BYTES_PER_ITEM = 64  # a frame of bits takes few bytes, and has as many items as one of an image
_BITS = (1, 8, 16)  # allocated


class _Part(NamedTuple):
    """The pixels of a segment in one frame. Row, column and 1 times ``place`` are millimetres, RAS+."""

    number: int
    inside: np.ndarray  # (N, 2): row, column
    place: np.ndarray  # (3, 3)
    measures: Any  # what is said of the size of the frame's pixels
    is_alone: bool  # no frame lies elsewhere, so what is said of a distance between them means nothing


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
    with guard(name):
        slice_header.check_bytes(path, name, slice_header.MAX_FRAMES_BYTES, _FEWER)
        dataset, _ = slice_header.read_dataset(path, name, _TAGS, _BYTES_PER_ITEM)
        _check_kind(dataset, name)
        if image is None:
            raise DataError(name, "is DICOM, its image has no place in space", "give the image as the DICOM series")
        source = _read_source(image)
        _check_reference(dataset, name, source)
        numbers = _read_numbers(dataset, name)
        labels = np.zeros(image.geometry.shape, np.uint8)
        for part in _read_parts(dataset, name):
            _check_grid(part, image, source, name)
            _draw(labels, part.inside, 1 if len(numbers) == 1 else part.number, part.place, image, name)
        return volumes.to_axial(labels, image.geometry.affine)


def _check_kind(dataset: Any, name: str) -> None:
    kind = dataset.get("SOPClassUID")
    if kind == _CONTOURS:
        fix = "open it with its series in 3D Slicer (extension SlicerRT), and export the segmentation as DICOM SEG"
        raise DataError(name, "is an RTSTRUCT, which holds contours and no voxels", fix)
    if kind not in slice_header.SEGS:
        raise DataError(name, "is DICOM, but no segmentation (SEG)", "give the SEG, or a NIfTI mask")


def _read_source(image: Volume) -> Any:
    """What the first file of the image says of its frame of reference and its slices; nothing if it is no DICOM."""
    if not image.frames:
        return {}
    path = image.frames[0][0]
    source, _ = slice_header.read_dataset(path, str(path), _SOURCE_TAGS)
    shared, first = (_read_first(source, keyword) for keyword in multiframe.WHOLE)
    source.update(multiframe.find_group(first, shared, "PixelMeasuresSequence") or {})
    return source


def _read_first(dataset: Any, keyword: str) -> Any:
    """The first item of a sequence, an empty one without any."""
    return next(iter(dataset.get(keyword) or ()), {})


def _check_reference(dataset: Any, name: str, source: Any) -> None:
    """Refuse a segmentation that names another frame of reference than its image. Either may name none."""
    own, theirs = dataset.get("FrameOfReferenceUID"), source.get("FrameOfReferenceUID")
    if own and theirs and own != theirs:
        raise DataError(name, "lies in another frame of reference (FrameOfReferenceUID) than its image", _GRID)


def _check_grid(part: _Part, image: Volume, source: Any, name: str) -> None:
    """Refuse pixels that are larger or smaller than the voxels of the image: the mask would have holes.

    The centres of the pixels do not tell, those of a coarse grid may all be voxels.
    """
    affine, steps = image.geometry.affine[:3, :3], part.place[:2]
    voxels = np.rint(steps @ np.linalg.inv(affine).T)
    used = np.abs(voxels)
    apart = np.abs(steps - voxels @ affine.T).max()
    if (used.sum(1) != 1).any() or used.sum(0).max() > 1 or apart > TOLERANCE * min(image.spacing):
        raise DataError(name, f"{_ELSEWHERE}: its pixels are of another size, or turned", _GRID)
    axis = int(np.argmin(used.sum(0)))
    _check_step(part, float(np.linalg.norm(affine[:, axis])), source if axis == _ACROSS else {}, name)


def _check_step(part: _Part, step: float, source: Any, name: str) -> None:
    """Refuse frames that are further apart or thicker than the slices of the image are apart, ``step`` mm.

    Thinner ones have gaps between them, as many scans have, or the pixels of some are no voxels. What a SEG repeats
    from the header of its source fits, whatever it says.
    """
    for keyword in ("SliceThickness",) if part.is_alone else ("SpacingBetweenSlices", "SliceThickness"):
        if not (own := _read_mm(part.measures, keyword)):
            continue
        if own - max(step, _read_mm(source, keyword)) > TOLERANCE * step:
            what = f"{_ELSEWHERE}: its frames are of slices {own:g} mm apart or thick, those of the image {step:g} mm"
            raise DataError(name, what, _GRID)
        return


def _read_mm(dataset: Any, keyword: str) -> float:
    """0 if it is not known."""
    found = slice_header.read_numbers(dataset, keyword, 1)
    return 0.0 if found is None else abs(float(found[0]))


def _read_numbers(dataset: Any, name: str) -> list[int]:
    """The numbers of the segments, without that of a background."""
    numbers = sorted({int(item.SegmentNumber) for item in dataset.get("SegmentSequence") or []} - {0})
    if not numbers:
        raise DataError(name, "describes no segment", _EXPORT)
    if len(numbers) > 1 and numbers[-1] > _MOST:
        raise DataError(name, f"has a segment {numbers[-1]:,}, at most {_MOST} are read", "save fewer segments")
    return numbers


def _read_parts(dataset: Any, name: str) -> Iterator[_Part]:
    """The segments of each frame that is not empty."""
    shared = _read_first(dataset, multiframe.WHOLE[0])
    kind, half = dataset.get("SegmentationType"), int(dataset.get("MaximumFractionalValue") or 0) / 2
    groups = dataset.get(multiframe.WHOLE[1]) or []
    if not groups or len(groups) != int(dataset.get("NumberOfFrames") or 1):
        raise DataError(name, "does not say where its frames lie", _EXPORT)
    places = {multiframe.find_value(own, shared, "PlanePositionSequence", "ImagePositionPatient") for own in groups}
    for frame, own in zip(_read_pixels(dataset, len(groups), name), groups, strict=True):
        if not frame.any():
            continue
        measures = _find_group(own, shared, "PixelMeasuresSequence", name)
        part = _Part(0, np.empty((0, 2)), _find_place(own, shared, name), measures, len(places) == 1)
        if kind == "LABELMAP":
            for number in np.unique(frame[frame > 0]):
                yield part._replace(number=int(number), inside=np.argwhere(frame == number))
            continue
        number = int(_find_group(own, shared, "SegmentIdentificationSequence", name).ReferencedSegmentNumber)
        inside = np.argwhere(frame >= max(half, 1) if kind == "FRACTIONAL" else frame > 0)
        yield part._replace(number=number, inside=inside)


def _read_pixels(dataset: Any, count: int, name: str) -> np.ndarray:
    """``(count, rows, columns)``, as stored."""
    rows, columns, allocated = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    shape = count, rows, columns
    if min(shape) < 1 or allocated not in _BITS or int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise DataError(name, f"has frames that are not of one value of {', '.join(map(str, _BITS))} bits", _EXPORT)
    if math.prod(shape) > _LARGEST:
        raise DataError(name, f"has {math.prod(shape):,} pixels, at most {_LARGEST:,} are read", _FEWER)
    frames = pixel_data.read_frames(dataset, pixel_data.Frames(name, count, (rows, columns), allocated), range(count))
    return np.stack(frames)


def _find_group(own: Any, shared: Any, keyword: str, name: str) -> Any:
    """What is said of a frame: by the frame itself, or for all."""
    found = multiframe.find_group(own, shared, keyword)
    if found is None:
        raise DataError(name, f"does not say where its frames lie ({keyword})", _EXPORT)
    return found


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
        raise DataError(name, f"{_ELSEWHERE}: its pixels are no voxels of the image", _GRID)
    if (voxels < 0).any() or (voxels >= shape).any():
        raise DataError(name, "marks tissue outside of its image", _GRID)
    at = tuple(voxels.T)
    if ((labels[at] > 0) & (labels[at] != number)).any():
        what = f"has segments that overlap (segment {number} and another), so a voxel would have two labels"
        raise DataError(name, what, "save the tumour as one segment, or segments that do not overlap")
    labels[at] = number
