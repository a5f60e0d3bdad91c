"""`brainseg data PATH`: what download would read of a folder, before anything is copied."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from brainseg import config
from brainseg.data import folder
from brainseg.data.layouts import finding, pairing, recognition
from brainseg.data.layouts.pairing import PairedFiles
from brainseg.data.layouts.recognition import Recognised
from brainseg.errors import DataError, Problem, guard, printable, raise_all
from brainseg.io import nifti, pictures, scans, volumes
from brainseg.io.sequences import CHANNELS, FLAIR

_TAKEN = "an unnamed sequence, taken as FLAIR,"
MASKS_READ = 100  # whose voxels are looked at, of the first patients; headers are read of all
_UNNAMED = ("table", "folders", recognition.PATTERNS)  # layouts whose image is not known to be FLAIR


class Grid(NamedTuple):
    """A volume as its header says: sides as the file has them, mm between rows x columns x slices, axial slices."""

    sides: str
    spacing: str
    slices: int


class Summary(NamedTuple):
    """What would be read; ``rows``: words → what the table says; ``problems``: every fault that was found."""

    rows: dict[str, str]
    lines: list[str]
    problems: list[Problem]


def run(
    path: str,
    layout: config.Layout,
    patient: str = "folder",
    images: str = recognition.UNSET[0],
    masks: str = recognition.UNSET[1],
    patients: str | None = None,
    *,
    as_json: bool = False,
) -> None:
    """Print what would be read of ``path``.

    Args:
        layout, patient, images, masks, patients: as in ``download``; the last relative to the current folder.

    Raises:
        DataError: it could not be read, with all that is wrong; what could be found is printed before.
    """
    place = os.path.abspath(os.path.expanduser(path))
    table = os.path.abspath(os.path.expanduser(patients)) if patients else None
    if table and patient != "folder":
        raise DataError("--patients", f"--patient {patient} names patients as well", "leave one of the two out")
    try:
        params = config.Download(
            source="folder", path=place, layout=layout, images=images, masks=masks, patient=patient, patients=table
        )
    except ValidationError as error:
        fix = "folder, each_volume, each_image, or a regular expression with one group"
        raise DataError("--patient", f"{patient}: {config.reason(error)}", fix) from None
    summary = summarise(params)
    print(_format_json(summary) if as_json else _format_table(summary))
    if summary.problems:
        raise DataError("", problems=summary.problems)


def summarise(params: config.Download) -> Summary:
    """Look at names of files, headers of volumes and the first masks."""
    read = recognition.find(params)
    cases, problems = read.found.cases, list(read.found.problems)
    grids: Counter[Grid] = Counter()
    told = {problem.path for problem in problems}
    cases = [case for case in cases if not told & {str(read.root / name) for name in finding.list_used(case)}]
    for case in cases:
        try:
            grids[_read_grid(read.root, case)] += 1
        except DataError as error:
            problems += error.problems
    empty, looked, faults = _count_empty(read.root, cases)
    problems += faults
    if looked and looked == empty == len(cases):
        what = "holds masks that are all empty: there is nothing to learn"
        problems.append(Problem(str(read.root), what, "export the masks again; tumour is 1, 255 or a label above 0"))
    cases = read.found.cases
    lacking = sum(problem.what.startswith("has no mask") for problem in problems)
    rows = {
        "layout": f"{read.title} (download.layout: {read.layout}), {read.why}",
        "patients": f"{len({case.patient for case in cases}):,}",
        **({"cases": "\n".join(finding.show_patients(cases))} if cases else {}),
        **({"institutions": shown} if (shown := _describe_institutions(cases)) else {}),
        **_describe_cases(cases, grids),
        **({"sequences": shown} if (shown := _describe_sequences(read)) else {}),
        "masks": f"{len(cases):,} found, {lacking:,} missing, {empty:,} empty of {looked:,} looked at",
        **_describe_grids(grids),
        **_describe_examples(read),
        **_describe_rest(read),
    }
    lines = [] if problems else _write_params(params, read)
    return Summary(rows, lines, list(dict.fromkeys(problems)))


def _read_grid(root: Path, case: PairedFiles) -> Grid:
    """The image's grid, empty where it is no NIfTI.

    Raises:
        DataError: a damaged header, or a mask of another shape or place.
    """
    if scans.kind_of(case.image) != "nifti":
        return Grid("", "", 0)
    image = nifti.read_geometry(root / case.image, str(root / case.image))
    if scans.kind_of(case.mask) == "nifti":
        mask = nifti.read_geometry(root / case.mask, str(root / case.mask))
        if volumes.axial_shape(mask) != volumes.axial_shape(image) and mask.shape != image.shape:
            what = f"is {_show(mask.shape)}, its image {_show(image.shape)}"
            raise DataError(root / case.mask, what, "draw it on this image, or resample it to the image's grid")
        raise_all(scans.find_problems(_place(image), _place(mask), str(root / case.mask)))
    sides = np.linalg.norm(image.affine[:3, :3], axis=0)
    shown = (f"{side:.3g}" for side in sides)
    return Grid(_show(image.shape), " x ".join(shown), volumes.axial_shape(image)[0])


def _place(grid: volumes.Geometry) -> scans.Scan:
    """A volume without voxels of its own, for its shape and place."""
    voxels = np.broadcast_to(np.uint8(0), volumes.axial_shape(grid))
    rows, columns, slices = map(float, np.linalg.norm(grid.affine[:3, :3], axis=0))
    return scans.Scan(voxels, volumes.Volume(voxels, (rows, columns, slices), grid))


def _show(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _count_empty(root: Path, cases: list[PairedFiles]) -> tuple[int, int, list[Problem]]:
    """Empty masks, masks looked at, and faults of masks that cannot be read."""
    empty, looked, problems = 0, 0, []
    for case in cases[:MASKS_READ]:
        path = root / case.mask
        try:
            labels = _read_mask(root, case) if case.is_volume else _read_picture(path)
        except DataError as error:
            problems += error.problems
            continue
        looked += 1
        empty += not labels.any()
    return empty, looked, problems


def _read_mask(root: Path, case: PairedFiles) -> np.ndarray:
    """The labels of a volume; a DICOM SEG is placed on its image."""
    path, image = root / case.mask, root / case.image
    place = scans.read_image(image, str(image)).volume if scans.is_dicom(path) else None
    return scans.read_labels(path, str(path), place).voxels


def _read_picture(path: Path) -> np.ndarray:
    with guard(path):
        data = path.read_bytes()
    return pictures.decode_labels(data, str(path))


def _describe_cases(cases: list[PairedFiles], grids: Counter[Grid]) -> dict[str, str]:
    whole = sum(case.is_volume for case in cases)
    rows = {"volumes": f"{whole:,}"} if whole else {}
    known = sum(grid.slices * count for grid, count in grids.items())
    counted = known + len(cases) - whole
    open_ended = sum(count for grid, count in grids.items() if not grid.slices) > len(cases) - whole
    return rows | {"slices": f"{counted:,}" + (" and those of volumes that are no NIfTI" if open_ended else "")}


def _describe_institutions(cases: list[PairedFiles]) -> str:
    """How many patients each has, if ``download.patients`` or a CSV of pairs names any."""
    counts = Counter(institution for _, institution in sorted({(case.patient, case.institution) for case in cases}))
    if not any(counts):
        return ""
    return ", ".join(f"{name or folder.INSTITUTION} {count:,}" for name, count in counts.most_common())


def _describe_sequences(read: Recognised) -> str:
    counts: Counter[str] = Counter()
    for case in (case for case in read.found.cases if case.is_volume):
        words = finding.split_sequence(pairing.find_stem(case.image))[1], case.pre, case.post
        is_named = read.layout not in _UNNAMED or any(words)
        counts[CHANNELS[FLAIR] if is_named else _TAKEN] += 1
        pre, flair, post = case.volumes if len(case.volumes) > 1 else (0, 0, 0)
        counts[CHANNELS[0]] += bool(case.pre) or pre != flair
        counts[CHANNELS[2]] += bool(case.post) or post != flair
    return ", ".join(f"{name} in {counts[name]:,}" for name in (*CHANNELS, _TAKEN) if counts[name])


def _describe_grids(grids: Counter[Grid]) -> dict[str, str]:
    rows: dict[str, str] = {}
    for name, field in (("size", "sides"), ("spacing, mm", "spacing")):
        counts: Counter[str] = Counter()
        for grid, count in grids.items():
            counts[getattr(grid, field)] += count
        counts.pop("", None)
        shown = [f"{value} in {count:,}" for value, count in counts.most_common(3)]
        more = [f"{len(counts) - 3:,} others"] if len(counts) > 3 else []
        rows |= {name: "; ".join([*shown, *more])} if shown else {}
    return rows


def _describe_examples(read: Recognised) -> dict[str, str]:
    first = {case.patient: case for case in reversed(read.found.cases)}
    chosen = sorted(first)[:2]
    return {f"patient {name}": ", ".join(finding.list_used(first[name])) for name in chosen}


def _describe_rest(read: Recognised) -> dict[str, str]:
    rows = {"remark": "; ".join(read.found.remarks)} if read.found.remarks else {}
    if read.found.passed:
        lines = [line.removeprefix("passed over, ") for line in folder.count_reasons(read.found.passed)]
        rows["passed over"] = f"{len(read.found.passed):,} files\n" + "\n".join(lines)
    return rows


def _write_params(params: config.Download, read: Recognised) -> list[str]:
    """The lines of params.yaml that read this."""
    names = ("path", "images", "masks", "patient", *(["patients"] if params.patients else []))
    values = {name: getattr(params, name) for name in names}
    written = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}  # is YAML, too
    lines = {"source": "folder", "path": written.pop("path"), "layout": read.layout, **written}
    return ["download:", *(f"  {name}: {value}" for name, value in lines.items())]


def _format_table(summary: Summary) -> str:
    width = max(map(len, summary.rows)) + 2
    lines = []
    for name, text in summary.rows.items():
        first, *more = text.split("\n")
        lines += [f"{name:{width}}{printable(first)}", *(" " * width + printable(line) for line in more)]
    if summary.lines:
        lines += ["", "It can be read. In params.yaml:", "", *summary.lines]
    return "\n".join(lines)


def _format_json(summary: Summary) -> str:
    content: dict[str, Any] = {"rows": summary.rows, "params": "\n".join(summary.lines)}
    content["problems"] = [problem._asdict() for problem in summary.problems]
    return json.dumps(content, indent=1, ensure_ascii=False)
