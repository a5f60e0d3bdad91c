"""One case from its files to its mask, overlay and row of summary.csv."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainseg import errors, files
from brainseg.errors import DataError
from brainseg.inference import cases, measurements, overlays, plausibility
from brainseg.inference.cases import Case
from brainseg.inference.outlining import Answer, Outliner
from brainseg.io import nifti
from brainseg.predict.discover import Source
from brainseg.predict.output import Answers

FULL = (errno.ENOSPC, errno.EDQUOT)  # of the disk that answers go to


def read(source: Source, scratch: Path) -> Case:
    """The case, decoded.

    Args:
        scratch: a folder for what is unpacked, and for a series' files side by side.

    Raises:
        BrainsegError: it cannot be read. OSError: nor can its file.
    """
    if source.form == "slices":
        return _stacked(source, scratch)
    if source.form == "series":
        return _series(source, scratch)
    with source.files[0].on_disk(scratch) as path:
        return cases.read(path, source.label)


def answer(
    case: Case, source: Source, predictor: Outliner, progress: Callable[[int, int], None]
) -> tuple[Answer, list[str]]:
    """The network's answer, and what a reader should be warned of.

    Raises:
        DataError: it is plainly no axial slice of a head.
    """
    refused, marks = plausibility.judge(predictor.prepared(case.voxels, case.pixel))
    if refused:
        raise DataError(source.label, "; ".join(marks), "give axial FLAIR slices of a head")
    answer = predictor.segment(case.voxels, case.pixel, progress=progress)
    return answer, [measurements.PHANTOM] * measurements.is_of_phantoms(predictor.facts) + marks


def write(folder: Answers, name: str, source: Source, case: Case, given: Answer, row: dict[str, Any]) -> list[str]:
    """Mask and overlay into the folder, named in ``row``; the paths of all files, relative."""
    masks = _write_masks(folder, name, source, case, given.mask)
    overlay = f"overlays/{name}.png"
    drawn = overlays.Drawn(case.voxels, given.mask, case.pixel, case.volume is not None, numbers(source, case))
    _save(folder.place(overlay), [overlays.sheet(drawn, _headline(row))], "PNG")
    row |= {"mask": masks[0] if len(masks) == 1 else f"masks/{name}/", "overlay": overlay}
    return [*masks, overlay]


def row(
    name: str, label: str, source: Source, case: Case, given: Answer, warnings: list[str], facts: dict
) -> dict[str, Any]:
    """A row of summary.csv, without the files; empty is what is not known."""
    read = measurements.of(case, given.mask, given.probability)
    return {
        "case": name,
        "source": cell(label),
        "kind": "slices" if source.form == "slices" else case.kind,
        "channels": ", ".join(case.channels),
        "slices": len(read.pixels),
        "slices_with_tumour": int(np.count_nonzero(read.pixels)),
        "largest_slice": "" if read.largest is None else numbers(source, case)[read.largest],
        "area_mm2": _digits(read.area_mm2, 1),
        "area_pixels": read.area_pixels,
        "volume_ml": _digits(read.volume_ml, 3),
        "mean_probability": _digits(read.mean, 3),
        "warnings": "; ".join(warnings),
        "model": facts["model"]["weights_sha256"],
        "variant": facts["variant"],
    }


def numbers(source: Source, case: Case) -> tuple[int, ...]:
    """What slices are called: by the numbers in their names, else 1, 2, ... (of a NIfTI or DICOM from the feet up)."""
    return source.numbers or tuple(range(1, len(case.voxels) + 1))


def _stacked(source: Source, scratch: Path) -> Case:
    """The slices of one volume, in order."""
    double = [n for n in source.numbers if source.numbers.count(n) > 1]
    fix = "or answer each by itself: --each-picture"
    if double:
        raise DataError(
            source.label, f"are slices of which several are number {double[0]}", f"number them apart, {fix}"
        )
    read, problems = [], []
    for file in source.files:
        try:
            with file.on_disk(scratch) as path:
                read.append(cases.read(path, file.label))
        except DataError as error:
            problems += error.problems
    errors.raise_all(problems)
    kinds = {(case.voxels.shape[1:], case.voxels.dtype.name) for case in read}
    if len(kinds) > 1:
        shown = ", ".join(f"{' x '.join(map(str, shape))} {kind}" for shape, kind in sorted(kinds))
        raise DataError(source.label, f"are slices of different kinds: {shown}", f"save them alike, {fix}")
    return read[0]._replace(name=source.label, voxels=np.concatenate([case.voxels for case in read]))


def _series(source: Source, scratch: Path) -> Case:
    """The files of one series, side by side in a folder of their own."""
    with files.beside(scratch / "series") as own:
        for n, file in enumerate(source.files):
            target = own / file.name if len(file.name.encode(errors="replace")) <= 255 else own / f"{n:04}"
            with file.on_disk(scratch) as path:
                path.rename(target) if file.member else target.symlink_to(path.absolute())
        return cases.read(own, source.label)


def _write_masks(folder: Answers, name: str, source: Source, case: Case, mask: np.ndarray) -> list[str]:
    """In the input's own kind and grid. Paths relative to the folder."""
    if case.volume:
        written = [f"masks/{name}.nii.gz"]
        nifti.write(folder.place(written[0]), mask, case.volume.geometry)
        return written
    if source.form == "slices":
        written = [f"masks/{name}/{stem}.png" for stem in folder.parts([file.stem for file in source.files])]
        for path, page in zip(written, mask, strict=True):
            _save(folder.place(path), [Image.fromarray(255 * page)], "PNG")
        return written
    written = [f"masks/{name}{'.tif' if case.kind == 'tif' else '.png'}"]
    _save(
        folder.place(written[0]),
        [Image.fromarray(255 * page) for page in mask],
        "TIFF" if case.kind == "tif" else "PNG",
    )
    return written


def _save(path: Path, pages: list[Image.Image], form: str) -> None:
    further: dict[str, Any] = {"save_all": True, "append_images": pages[1:], "compression": "tiff_adobe_deflate"}
    with files.replacing(path) as temporary:
        pages[0].save(temporary, form, **(further if form == "TIFF" else {}))


def _headline(row: dict[str, Any]) -> str:
    """What is written on top of the overlay."""
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


def _digits(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def cell(text: str) -> str:
    """Printable, and no formula to a spreadsheet."""
    text = errors.printable(text)
    return f"./{text}" if text.startswith(("=", "+", "-", "@")) else text
