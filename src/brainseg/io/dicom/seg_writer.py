"""An outline as DICOM SEG, so that viewers draw it on the series that it was made from.

The file repeats what the standard wants of its source: patient, study, frame of reference, and the files referred to.
:func:`pick_origin` takes that from the headers where files are decoded; :func:`encode` needs no file. The same outline
of the same series gives the same bytes: UIDs are digests, and dates are those of the study.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainseg import __version__
from brainseg.errors import BrainsegError, describe_install
from brainseg.io.dicom import slice_header

NOTE = "Research use only, not for clinical use"
NO_LIBRARY = "highdicom is not installed"
MAX_BYTES = 2**24  # of the headers of a series: 4 KiB for each of 4,096 files

_OF_SERIES = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")  # the same in all files
_NEEDED = (*_OF_SERIES, "SOPClassUID", "SOPInstanceUID", "Rows", "Columns")
_PLACE = ("ImageOrientationPatient", "PixelSpacing", "ImagePositionPatient")
_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
          "StudyTime", "ReferringPhysicianName")  # that the standard wants, at least without a value  # fmt: skip
_OTHER = ("SeriesNumber", "SliceThickness", "SpacingBetweenSlices", "NumberOfFrames", "PositionReferenceIndicator",
          "StudyDescription", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved",
          "DeidentificationMethod")  # fmt: skip
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PlanePositionSequence",
           "PlaneOrientationSequence", "PixelMeasuresSequence")  # fmt: skip
_PICKED = (*_NEEDED, *_PLACE, *_EMPTY, *_OTHER, *_GROUPS)
_SEXES = ("M", "F", "O")
_NO_DATE, _NO_TIME = "19000101", "000000"  # the standard wants some, and the study may have none
_SERIES = 1000  # added to the number of the source's series


class Origin(NamedTuple):
    """What a SEG refers to.

    ``headers``: DICOM JSON of the files, in the order of slices; or of one file of many frames. ``frames``: the frame,
    from 0, of each slice in that file; empty where each slice is a file.
    """

    headers: tuple[dict[str, Any], ...]
    frames: tuple[int, ...] = ()


class NoSegError(Exception):
    """A series of which no SEG can be made. Its text says why and holds nothing of a header."""


def is_available() -> bool:
    """Whether the library that writes a SEG is installed."""
    return find_spec("highdicom") is not None


def pick_origin(slices: Sequence[tuple[Path, int]], name: str) -> Origin:
    """Take from the files' headers what a SEG repeats, and check that it is complete.

    Args:
        slices: file and frame, from 0, of each slice, in order. Either each is a file of one frame, or all are frames
            of one file.
        name: what errors call the series.

    Raises:
        NoSegError: something is missing, invalid, or not the same in all files; highdicom is not installed.
        DataError: a file cannot be read.
    """
    if not is_available():
        raise NoSegError(f"{NO_LIBRARY}: {describe_install('medical')}")
    with _no_seg_of_failures():
        return _pick_origin(slices, name)


def _pick_origin(slices: Sequence[tuple[Path, int]], name: str) -> Origin:
    paths = list(dict.fromkeys(path for path, _ in slices))
    headers = [_pick(slice_header.read_dataset(path, f"{name}/{path.name}", _PICKED)[0]) for path in paths]
    several = len(paths) == 1 and "NumberOfFrames" in headers[0] and "PerFrameFunctionalGroupsSequence" in headers[0]
    _check_complete(headers, _NEEDED if several else (*_NEEDED, *_PLACE))
    found = tuple(header.to_json_dict() for header in headers)
    if sum(len(json.dumps(header)) for header in found) > MAX_BYTES:
        raise NoSegError("its headers are too large")
    return Origin(found, tuple(frame for _, frame in slices) if several else ())


def encode(mask: np.ndarray, origin: Origin, model: str, parameters: Mapping[str, str]) -> bytes:
    """The file: a binary segmentation with one segment. Frames without tumour are left out unless all are.

    Args:
        mask: ``(slices, rows, columns)`` of 0 and 1, in the source's own order.
        origin: of these slices.
        model: names the model; with the mask, the series and the version it decides the UIDs.
        parameters: of the algorithm, as the file names them: which weights, which threshold.

    Raises:
        NoSegError: the headers contradict each other or the standard; highdicom cannot be loaded.
    """
    with _no_seg_of_failures():
        from pydicom import Dataset

        sources = [Dataset.from_json(header) for header in origin.headers]
        first = sources[0]
        _fill_thickness(sources)
        frames = _to_frames(mask, origin, first)
        what = [str(first.SeriesInstanceUID), model, __version__, hashlib.sha256(frames.tobytes()).hexdigest()]
        found = _make_segmentation(sources, frames, parameters, what)
        _make_repeatable(found, _make_uid("dimensions", *what))
        buffer = BytesIO()
        found.save_as(buffer)
        return buffer.getvalue()


@contextmanager
def _no_seg_of_failures() -> Iterator[None]:
    """Whatever making a SEG raises as NoSegError: it is an extra, and must not cost the mask.

    highdicom and pydicom raise anything on odd headers, and may not be importable. Their text may quote a header.
    """
    try:
        yield
    except (NoSegError, BrainsegError, MemoryError):
        raise
    except ImportError:
        raise NoSegError(f"highdicom cannot be loaded: {describe_install('medical')}") from None
    except Exception as error:
        raise NoSegError(f"its headers do not fit the standard ({type(error).__name__})") from None


def _describe_segment(parameters: Mapping[str, str]) -> Any:
    """What the only segment is, and what drew it."""
    from highdicom import AlgorithmIdentificationSequence, seg
    from pydicom.sr.codedict import codes

    family = codes.DCM.ArtificialIntelligence
    algorithm = AlgorithmIdentificationSequence("brainseg", family, __version__, parameters=dict(parameters) or None)
    return seg.SegmentDescription(
        segment_number=1,
        segment_label="Glioma",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=[codes.SCT.Brain],
    )


def _make_segmentation(
    sources: Sequence[Any], frames: np.ndarray, parameters: Mapping[str, str], what: Sequence[str]
) -> Any:
    """The data set of the SEG; ``what`` decides its UIDs."""
    from highdicom import seg

    first = sources[0]
    told = json.dumps(dict(parameters), separators=(",", ":"))  # as JavaScript writes it: the page's files say the same
    return seg.Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe_segment(parameters)],
        series_instance_uid=_make_uid("series", *what),
        series_number=_SERIES + min(max(int(first.get("SeriesNumber") or 0), 0), 10**6),
        sop_instance_uid=_make_uid("instance", *what),
        instance_number=1,
        manufacturer="brainseg",
        manufacturer_model_name="brainseg",
        software_versions=__version__,
        device_serial_number=hashlib.sha256(told.encode()).hexdigest()[:16],
        content_label="GLIOMA",
        content_description=NOTE,
        series_description="brainseg: tumour outline, research only",
        content_date=str(first.get("StudyDate") or _NO_DATE),
        content_time=str(first.get("StudyTime") or _NO_TIME),
        omit_empty_frames=bool(frames.any()),
        specific_character_set="ISO_IR 192",
    )


def _pick(dataset: Any, keywords: Sequence[str] = _PICKED) -> Any:
    """The elements of ``_PICKED`` that are valid, also inside of sequences."""
    from pydicom import Dataset

    picked = Dataset()
    for keyword, value in _read_valid(dataset, keywords):
        inside = [_pick(item, (*_PLACE, *_OTHER, *_GROUPS)) for item in value] if keyword in _GROUPS else value
        setattr(picked, keyword, inside)
    return picked


def _read_valid(dataset: Any, keywords: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Keyword and value of the elements that are there, not empty, and as their kind of value demands."""
    import pydicom
    from pydicom.dataelem import DataElement

    for keyword in keywords:
        try:
            element = dataset.get(pydicom.tag.Tag(keyword))
            if element is None or element.is_empty:
                continue
            if element.VR != "SQ":
                DataElement(element.tag, element.VR, element.value, validation_mode=pydicom.config.RAISE)
            if keyword != "PatientSex" or element.value in _SEXES:
                yield keyword, element.value
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError, NotImplementedError):
            continue


def _check_complete(headers: list[Any], needed: Sequence[str]) -> None:
    missing = [keyword for keyword in needed if any(keyword not in header for header in headers)]
    if missing:
        raise NoSegError(f"its headers lack a valid {', '.join(missing)}")
    differ = [keyword for keyword in _OF_SERIES if len({header[keyword].value for header in headers}) > 1]
    if differ:
        raise NoSegError(f"its files differ in {', '.join(differ)}")
    if len({header.SOPInstanceUID for header in headers}) < len(headers):
        raise NoSegError("several of its files have one SOPInstanceUID")
    for header in headers:
        for keyword in _EMPTY:
            if keyword not in header:
                setattr(header, keyword, None)


def _fill_thickness(sources: Sequence[Any]) -> None:
    """Where single slices do not say how thick they are: as thick as they are apart, which highdicom wants to know."""
    if len(sources) > 1 and not all(source.get("SliceThickness") for source in sources):
        a, b = (np.array(source.ImagePositionPatient, np.float64) for source in sources[:2])
        for source in sources:
            source.SliceThickness = float(np.linalg.norm(b - a).round(6))


def _to_frames(mask: np.ndarray, origin: Origin, first: Any) -> np.ndarray:
    """``(frames, rows, columns)``: for a source of many frames all of them, also those that no slice is of."""
    if not origin.frames:
        return np.ascontiguousarray(mask)
    frames = np.zeros((int(first.NumberOfFrames), *mask.shape[1:]), np.uint8)
    frames[list(origin.frames)] = mask
    return frames


def _make_uid(*parts: str) -> str:
    """A UID of the form that the standard derives from UUIDs, the same for the same parts."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(parts)).int}"


def _make_repeatable(found: Any, uid: str) -> None:
    """Replace what highdicom takes from the clock and from chance."""
    del found.InstanceCreationDate, found.InstanceCreationTime
    for item in found.ContributingEquipmentSequence:
        item.pop("ContributionDateTime", None)
    for item in (*found.DimensionOrganizationSequence, *found.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
