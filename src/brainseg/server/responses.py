"""The answers about one case: a JSON summary, an overlay as PNG, a mask as NIfTI or DICOM SEG."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainseg.inference import chosen_rule
from brainseg.inference.answers import lesions, measurements, nifti_files, overlays, seg_files
from brainseg.inference.answers.lesions import Lesion
from brainseg.inference.answers.measurements import Measurements
from brainseg.inference.answers.overlays import DISCLAIMER
from brainseg.inference.cases import Case
from brainseg.io.dicom.seg_writer import NoSegError
from brainseg.server.refusals import Refusal
from brainseg.server.schema.answers import (
    Answer,
    AnsweringModel,
    Input,
    LesionRow,
    Rule,
    SliceNumbers,
    Summary,
    Volumes,
)
from brainseg.server.schema.media_types import NIFTI
from brainseg.server.schema.wanted import Wanted

NUMBERS_ALONE = Wanted()


class OutlinedCase(NamedTuple):
    """All that an answer is made from."""

    case: Case
    mask: np.ndarray  # (S, H, W) uint8 in {0, 1}
    probability: np.ndarray  # (S, H, W) uint8, in steps of 1/255
    facts: Mapping[str, Any]  # of the model
    warnings: list[str]
    seconds: float


def build_answer(given: OutlinedCase, wanted: Wanted = NUMBERS_ALONE) -> Answer:
    """The JSON answer. Areas are null if the pixel size is not known."""
    case, mask = given.case, given.mask
    spacing = case.volume.spacing if case.volume else None
    read = measurements.measure(case, mask, given.probability)
    found, cut = lesions.find_largest(case, mask, given.probability, case.numbers)
    answer = Answer(
        disclaimer=DISCLAIMER,
        model=AnsweringModel(
            weights_sha256=given.facts["model"]["weights_sha256"], variant=given.facts["variant"],
            marks=marks(given.facts),
        ),
        input=Input(
            kind=case.kind,  # type: ignore[arg-type]
            numbers=list(case.numbers) or None, slices=mask.shape[0], height=mask.shape[1], width=mask.shape[2],
            spacing_mm=(round(spacing[0], 6), round(spacing[1], 6), round(spacing[2], 6)) if spacing else None,
            orientation="known" if case.volume else "unknown", channels=list(case.channels),
        ),
        seg=case.origin is not None,
        warnings=[*given.warnings, *cut],
        summary=_summarise(read, given.seconds),
        slices=_list_slices(read),
        rule=Rule(**chosen_rule.describe(given.facts)),
        lesions=[_to_row(lesion, case.numbers) for lesion in found],
    )  # fmt: skip
    return answer.model_copy(update={"volumes": _encode_volumes(given, wanted.image)}) if wanted.volumes else answer


def _summarise(read: Measurements, seconds: float) -> Summary:
    return Summary(
        tumour_pixels=sum(read.pixels), slices_with_tumour=int(np.count_nonzero(read.pixels)),
        largest_slice=None if read.largest is None else read.largest + 1,
        area_mm2=_round(read.area_mm2), area_pixels=read.area_pixels, volume_ml=_round(read.volume_ml),
        mean_probability=_round(read.mean, 4), seconds=round(seconds, 3),
    )  # fmt: skip


def _list_slices(read: Measurements) -> list[SliceNumbers]:
    areas: Sequence[float | None] = read.areas_mm2 or [None] * len(read.pixels)
    return [
        SliceNumbers(slice=number, pixels=pixels, area_mm2=_round(area), mean_probability=_round(mean, 4))
        for number, (pixels, area, mean) in enumerate(zip(read.pixels, areas, read.means, strict=True), 1)
    ]


def marks(facts: Mapping[str, Any]) -> list[str]:
    """Remarks that must accompany every number of this model."""
    return list(facts.get("marks") or facts["model"]["protocol"].get("marks", []))


def _to_row(lesion: Lesion, numbers: Sequence[int]) -> LesionRow:
    """A lesion with its slices counted from 1, also where their files have other ``numbers``."""
    places = {number: place for place, number in enumerate(numbers, 1)}
    row = lesions.to_row(lesion)
    row |= {name: places.get(row[name], row[name]) for name in ("first_slice", "last_slice", "largest_slice")}
    return LesionRow(**row)


def _encode_volumes(given: OutlinedCase, with_image: bool) -> Volumes:
    grids = {"mask": given.mask, "probability": given.probability}
    if with_image:
        grids["image"] = to_display(given.case.voxels)
    packed = {name: nifti_files.encode_axial(grid, given.case) for name, grid in grids.items()}
    return Volumes(**{name: base64.b64encode(data).decode() for name, data in packed.items()})


def to_display(voxels: np.ndarray) -> np.ndarray:
    """Voxels as uint8, each channel windowed over its volume; without the channel axis if all channels are equal."""
    if voxels.ndim == 3:
        return overlays.scale_for_display(voxels)
    if (voxels[..., :1] == voxels).all():
        return overlays.scale_for_display(voxels[..., 0])
    return np.stack([overlays.scale_for_display(voxels[..., channel]) for channel in range(3)], axis=-1)


def draw_slice(given: OutlinedCase, number: int | None) -> bytes:
    """A PNG of one slice: number ``number``, else the one with the largest area, else the middle one.

    Raises:
        Refusal: there is no slice with this number.
    """
    pixels = given.mask.reshape(len(given.mask), -1).sum(axis=1, dtype=np.int64)
    k = number - 1 if number else int(pixels.argmax()) if pixels.any() else len(pixels) // 2
    if k >= len(pixels):
        raise Refusal(422, f"slice: there are only {len(pixels)}", "give one of their numbers, counted from 1")
    grey = overlays.scale_for_display(given.case.voxels)
    drawn = overlays.OverlayInput(
        grey[k : k + 1], given.mask[k : k + 1], given.case.pixel, given.case.volume is not None, [k + 1]
    )
    line = f"slice {k + 1} of {len(pixels)}, {pixels[k]:,} pixels"
    buffer = io.BytesIO()
    overlays.draw_sheet(drawn, line).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def encode_nifti(given: OutlinedCase, folder: Path, with_probability: bool = False) -> bytes:
    """The mask, or the probabilities as float32 from 0 to 1, as .nii.gz, in the geometry of the file that was sent."""
    voxels = given.probability / np.float32(255) if with_probability else given.mask
    return nifti_files.encode_file_order(voxels, given.case, folder)


def encode_seg(given: OutlinedCase) -> bytes:
    """The mask as DICOM SEG on the series that was sent. Raises Refusal: it was none, or lacks what a SEG needs."""
    try:
        encoded = seg_files.encode_mask(given.mask, given.case, given.facts)
    except NoSegError as error:
        raise Refusal(422, f"no DICOM SEG can be made: {error}", f"accept {NIFTI}") from None
    if encoded is None:
        why = given.case.no_seg or "what was sent is no DICOM series"
        raise Refusal(422, f"no DICOM SEG can be made: {why}", f"accept {NIFTI}")
    return encoded


def _round(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
