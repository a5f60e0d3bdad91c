"""One case: from its files to its mask, its overlay and its row of summary.csv."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from brainseg import errors, files
from brainseg.errors import DataError, Problem
from brainseg.inference import cases, chosen_rule, numbered, plausibility
from brainseg.inference.answers import measurements, overlays, seg_files
from brainseg.inference.cases import Case
from brainseg.inference.outlining import Outliner, Segmentation
from brainseg.io import itk
from brainseg.io.dicom.seg_writer import NoSegError
from brainseg.predict import grids
from brainseg.predict.discover import Source
from brainseg.predict.output import ResultFolder

Reader = Callable[[Path, str], Case]  # as ``cases.read``

_SHOWN = 3  # problems in a cell of the table


def read(source: Source, scratch: Path, reader: Reader) -> Case:
    """Decode a case.

    Args:
        scratch: a folder for unpacked files, and for the files of a series side by side.
        reader: decodes a file, or the folder of a series.

    Raises:
        BrainsegError: it cannot be read. OSError: ``scratch`` cannot be written.
    """
    if source.form == "slices":
        return _read_slices(source, scratch, reader)
    if source.form == "series":
        return _read_series(source, scratch, reader)
    header, *voxels = source.files
    named = [file.name if header.ending in itk.DETACHED_SUFFIXES else "" for file in voxels]
    own_name = next((f"{name}{header.ending}" for name in named if name), "")  # another one than that of the voxels
    with files.temporary_beside(scratch / "case") as own, ExitStack() as opened:
        path = opened.enter_context(header.on_disk(own, own_name))
        for file, name in zip(voxels, named, strict=True):
            opened.enter_context(file.on_disk(own, name))
        return reader(path, source.label)


def segment(
    case: Case, source: Source, predictor: Outliner, progress: Callable[[int, int], None]
) -> tuple[Segmentation, list[str]]:
    """Outline a case. Return the result, and the warnings for its reader.

    Raises:
        DataError: it is clearly no axial slice of a head. RunError: the network's answer is not a number.
    """
    no_scalp = plausibility.describe_no_scalp(predictor.facts)
    refused, marks = plausibility.assess(predictor.prepared(case.voxels, case.pixel), no_scalp)
    if refused:
        raise DataError(source.label, "; ".join(marks), "give axial FLAIR slices of a head")
    answer = predictor.segment(case.voxels, case.pixel, numbers=case.slice_numbers, name=case.name, progress=progress)
    phantom = [measurements.PHANTOM_WARNING] * measurements.is_of_phantoms(predictor.facts)
    return answer, [*phantom, *chosen_rule.remarks(predictor.facts), *source.remarks, *case.warnings, *marks]


def write(
    folder: ResultFolder, name: str, source: Source, case: Case, result: Segmentation, facts: dict,
    row: dict[str, Any], with_maps: bool = False,
) -> list[str]:  # fmt: skip
    """Write mask and overlay into the folder and their names into ``row``. Return the relative paths of all files.

    Args:
        with_maps: write the probabilities too.
    """
    masks = _name_masks(folder, name, source, case)
    grids.write_masks(folder, masks, case, result.mask)
    segs = _write_seg(folder, name, case, result.mask, facts, row)
    overlay = f"overlays/{name}.png"
    drawn = overlays.OverlayInput(case.voxels, result.mask, case.pixel, case.volume is not None, case.slice_numbers)
    with files.replacing(folder.place(overlay)) as temporary:
        overlays.draw_sheet(drawn, _make_headline(row)).save(temporary, "PNG")
    row |= {"mask": masks[0] if len(masks) == 1 else f"masks/{name}/", "overlay": overlay}
    maps = grids.write_probabilities(folder, masks, case, result.probability) if with_maps else []
    if maps:
        row["probabilities"] = maps[0] if len(maps) == 1 else f"probabilities/{name}/"
    return [*masks, *segs, overlay, *maps]


def make_row(
    name: str, label: str, source: Source, case: Case, result: Segmentation, warnings: list[str], facts: dict
) -> dict[str, Any]:
    """A row of summary.csv without the names of files. Values that are not known are empty."""
    measured = measurements.measure(case, result.mask, result.probability)
    low, high = measurements.estimate_interval(measured.volume_ml, facts, case.channels) or (None, None)
    return {
        "case": name,
        "source": to_cell(label),
        "kind": case.kind,
        "channels": ", ".join(case.channels),
        "slices": len(measured.pixels),
        "slices_with_tumour": int(np.count_nonzero(measured.pixels)),
        "largest_slice": "" if measured.largest is None else case.slice_numbers[measured.largest],
        "area_mm2": _format(measured.area_mm2, 1),
        "area_pixels": measured.area_pixels,
        "volume_ml": _format(measured.volume_ml, 3),
        "volume_ml_low": _format(low, 3),
        "volume_ml_high": _format(high, 3),
        "mean_probability": _format(measured.mean, 3),
        "warnings": errors.printable("; ".join(warnings)),
        "model": facts["model"]["weights_sha256"],
        "variant": facts["variant"],
    }


def add_warnings(row: dict[str, Any], warnings: Sequence[str]) -> None:
    """Add to those that the row has."""
    row["warnings"] = errors.printable("; ".join(filter(None, [row["warnings"], *warnings])))


def make_failed_row(name: str, label: str, problems: Sequence[Problem]) -> dict[str, Any]:
    """A row of summary.csv for what has no outline: its name and why."""
    told = [problem.what if problem.path == label else f"{problem.path}: {problem.what}" for problem in problems]
    more = [f"and {len(told) - _SHOWN:,} more"] if len(told) > _SHOWN else []
    return {"case": name, "source": to_cell(label), "error": to_cell("; ".join(told[:_SHOWN] + more))}


def _read_slices(source: Source, scratch: Path, reader: Reader) -> Case:
    """Read the slices of one volume, in order."""
    read, problems = [], []
    for file in source.files:
        try:
            with file.on_disk(scratch) as path:
                read.append(reader(path, file.label))
        except DataError as error:
            problems += error.problems
    errors.raise_all(problems)
    return numbered.stack(read, source.numbers, source.label, "treat each as a separate picture: --each-picture")


def _read_series(source: Source, scratch: Path, reader: Reader) -> Case:
    """Read the files of one series, side by side in a folder of their own."""
    with files.temporary_beside(scratch / "series") as own:
        for n, file in enumerate(source.files):
            target = own / file.name if len(file.name.encode(errors="replace")) <= 255 else own / f"{n:04}"
            with file.on_disk(scratch) as path:
                path.rename(target) if file.member else target.symlink_to(path.absolute())
        return reader(own, source.label)


def _name_masks(folder: ResultFolder, name: str, source: Source, case: Case) -> list[str]:
    """The paths of the case's masks, relative to the folder: one, or of numbered slices one each."""
    if case.volume:
        return [f"masks/{name}.nii.gz"]
    if source.form == "slices":
        return [f"masks/{name}/{stem}.png" for stem in folder.parts([file.stem for file in source.files])]
    return [f"masks/{name}{'.tif' if case.kind == 'tif' else '.png'}"]


def _write_seg(
    folder: ResultFolder, name: str, case: Case, mask: np.ndarray, facts: dict, row: dict[str, Any]
) -> list[str]:
    """Write the outline of a DICOM series as SEG, its name into ``row``, or why there is none into its warnings."""
    try:
        encoded = seg_files.encode_mask(mask, case, facts)
    except NoSegError as error:
        add_warnings(row, [cases.describe_no_seg(str(error))])
        return []
    if encoded is None:
        return []
    row["seg"] = f"masks/{name}.dcm"
    with files.replacing(folder.place(row["seg"])) as temporary:
        temporary.write_bytes(encoded)
    return [row["seg"]]


def _make_headline(row: dict[str, Any]) -> str:
    """The line above the overlay."""
    if not row["slices_with_tumour"]:
        return "No tumour found"
    parts = []
    if row["slices"] > 1:
        parts.append(f"tumour on {row['slices_with_tumour']} of {row['slices']} slices")
    if row["volume_ml"] and row["slices"] > 1:
        parts.append(f"{float(row['volume_ml']):.1f} ml")
    area = f"{float(row['area_mm2']):,.0f} mm2" if row["area_mm2"] else f"{row['area_pixels']:,} pixels"
    parts.append(f"largest area {area}" if row["slices"] > 1 else f"area {area}")
    parts.append(f"mean probability inside {row['mean_probability']}")
    line = ", ".join(parts)
    return line[0].upper() + line[1:]


def _format(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def to_cell(text: str) -> str:
    """Text for a table cell: printable, and no formula for a spreadsheet."""
    text = errors.printable(text)
    return f"./{text}" if text.startswith(("=", "+", "-", "@")) else text
