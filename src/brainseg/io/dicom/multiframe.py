"""The slices of one DICOM file: one, or the frames of an enhanced MR file, each with its own place.

An enhanced file may hold several volumes: stacks, echoes, weightings, time points, magnitude and phase. They are never
merged. One is chosen where the header tells which: the magnitude, and the only one of several slices.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brainseg.errors import DataError, guard
from brainseg.io.dicom import slice_header
from brainseg.io.dicom.slice_header import EXPORT, RESTORE, TAGS, SliceHeader

MAX_FRAMES = 4096

WHOLE = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_PLACE = {  # group of a frame → its tags that a slice needs
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
_PARTS = (  # group of a frame, its tag, and what it tells apart
    ("FrameContentSequence", "StackID", "stack"),
    ("FrameContentSequence", "TemporalPositionIndex", "time point"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset", "time point"),
    ("MREchoSequence", "EffectiveEchoTime", "echo time"),
    ("MRDiffusionSequence", "DiffusionBValue", "b value"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent", "component"),
    ("MRImageFrameTypeSequence", "FrameType", "kind of image"),
)
_COMPONENT = 5  # of _PARTS
_SPLIT = "convert it with dcm2niix, which writes a file for each, and give the FLAIR"


def read_headers(path: Path, label: str) -> tuple[list[SliceHeader], list[str]]:
    """Read the headers of the slices in one file.

    Args:
        path: the file.
        label: what errors call it.

    Returns:
        The slices of one volume, in the order of their frames; and remarks on what was left out.

    Raises:
        StrangerError: not DICOM, or DICOM of a kind that has no slices.
        DataError: no grayscale slices with a position, or several volumes.
        MachineError: pydicom is not installed.
    """
    dataset, assumed = slice_header.read_dataset(path, label, TAGS)
    with guard(label, RESTORE):
        slice_header.check_image(dataset, label)
        if str(dataset.get("SOPClassUID")) not in slice_header.ENHANCED:
            if _count_frames(dataset) > 1:
                what = "holds several slices in one file, but not as enhanced MR does"
                raise DataError(label, what, "split it into single slices, or convert it to NIfTI with dcm2niix")
            slice_header.check_bytes(path, label, slice_header.MAX_BYTES)
            return [slice_header.make_header(dataset, path, label)._replace(assumed=assumed)], []
        slice_header.check_bytes(path, label, slice_header.MAX_FRAMES_BYTES)
        groups, frames = dataset.get(WHOLE[1]) or (), _count_frames(dataset)
        if not 0 < len(groups) == frames <= MAX_FRAMES:
            what = f"has {len(groups):,} places for {frames:,} frames, 1 to {MAX_FRAMES:,} of each are accepted"
            raise DataError(label, what, EXPORT)
        shared: Any = next(iter(dataset.get(WHOLE[0]) or ()), {})
        parts: dict[tuple[str, ...], list[SliceHeader]] = defaultdict(list)
        for n, flat in enumerate(_flatten(dataset, shared, groups)):
            header = slice_header.make_header(flat, path, label, frame=n, frames=frames)
            key = tuple(find_value(groups[n], shared, group, tag) for group, tag, _ in _PARTS)
            parts[key].append(header._replace(assumed=assumed))
        return _choose(parts, label)


def _count_frames(dataset: Any) -> int:
    count = slice_header.read_numbers(dataset, "NumberOfFrames", 1)
    return 1 if count is None else int(count[0])


def _flatten(dataset: Any, shared: Any, groups: Any) -> Iterator[Any]:
    """For each frame, its tags in one data set, as a file of one slice has them."""
    common = [element for element in dataset if element.keyword not in WHOLE]
    for own in groups:
        flat = slice_header.load_pydicom().Dataset()
        for element in common:
            flat.add(element)
        for group, tags in _PLACE.items():
            found = find_group(own, shared, group) or {}
            for tag in tags:
                if tag in found:
                    flat.add(found[tag])
        flat.file_meta = dataset.file_meta
        yield flat


def find_group(own: Any, shared: Any, keyword: str) -> Any:
    """The only item of a group: of the frame itself, or of all frames; None without one."""
    return next((groups.get(keyword)[0] for groups in (own, shared) if groups.get(keyword)), None)


def find_value(own: Any, shared: Any, group: str, tag: str) -> str:
    """The value of a tag, compared and never shown; empty without one."""
    value = (find_group(own, shared, group) or {}).get(tag)
    return "" if value is None else str(value)


def _choose(parts: dict[tuple[str, ...], list[SliceHeader]], label: str) -> tuple[list[SliceHeader], list[str]]:
    """The volume to read, and what was left out.

    Raises:
        DataError: several volumes, of which the header does not tell one.
    """
    if len(parts) == 1:
        return next(iter(parts.values())), []
    magnitude = [own for key, own in parts.items() if key[_COMPONENT] == "MAGNITUDE"]
    several = [own for own in magnitude or parts.values() if len(own) > 1]
    differs = [part for n, (_, _, part) in enumerate(_PARTS) if len({key[n] for key in parts}) > 1]
    told = f"{len(parts):,} volumes, which differ in {', '.join(dict.fromkeys(differs))}"
    if len(magnitude) == 1:
        chosen, which = magnitude[0], "of magnitude"
    elif len(several) == 1:
        chosen, which = several[0], "of several slices"
    else:
        raise DataError(label, f"holds {told}", _SPLIT)
    return chosen, [f"of {told}, in one file, the one {which} was read"]
