"""A CSV of pairs: columns image and mask, and as wanted pre, post, patient, institution; files relative to the CSV."""

import csv
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from brainseg import config
from brainseg.data.layouts import finding, pairing, patient_rules
from brainseg.data.layouts.finding import POST, PRE, Found, Listing
from brainseg.data.layouts.pairing import PairedFiles
from brainseg.errors import DataError, Problem

_IMAGE, _MASK, _PATIENT, _INSTITUTION = "image", "mask", "patient", "institution"
_EXPLICIT = "flair"  # a column of images that are FLAIR whatever their files are named
_COLUMNS = {
    _IMAGE: ("image", "images", _EXPLICIT),
    PRE: ("pre", "t1", "pre-contrast"),
    POST: ("post", "t1ce", "t1c", "post-contrast"),
    _MASK: ("mask", "masks", "label", "seg"),
    _PATIENT: ("patient",),
    _INSTITUTION: ("institution",),
}
_SEPARATORS = ",;\t|"
_UNREADABLE = (ValueError, OSError, csv.Error)


def recognise(listing: Listing) -> str:
    """Why it is this layout; empty if it is not."""
    return next((f"{name} has a column of images and one of masks" for name in _find_tables(listing)), "")


def read(listing: Listing, params: config.Download) -> Found:
    """A patient is as the column says; without it as ``download.patient``, or each volume is of another one.

    Raises:
        DataError: no table, several, or one that is no CSV with these columns.
    """
    tables = _find_tables(listing)
    if len(tables) != 1:
        what = f"holds {len(tables)} CSVs with columns image and mask {', '.join(tables[:3])}".rstrip()
        raise DataError(listing.root, what, "set download.path to the CSV itself")
    head, lines = read_cells(listing.root / tables[0], "image, mask and patient")
    columns = _name_columns(head)
    cells = [dict(enumerate(line)) for line in lines]  # a line may end before the last column
    rows = [{kind: own.get(columns.get(kind, -1), "").strip() for kind in _COLUMNS} for own in cells]
    named = _name_patients(rows, params.patient)
    is_explicit = head[columns[_IMAGE]].strip().lower() == _EXPLICIT
    built = [_build(listing, row, patient, number, is_explicit) for number, (row, patient) in enumerate(named, 2)]
    has_patients = any(row[_PATIENT] for row in rows)
    if has_patients and params.patients:
        fix = "empty the column, or set download.patients: null"
        built.append(Problem(tables[0], "has a column patient, and download.patients names patients as well", fix))
    if not has_patients and not params.patients and params.patient in ("folder", "each_volume"):
        built += _check_slices(built, tables[0])
    found = finding.sort_out(listing, built, {tables[0]: ""})
    unused = [name for number, name in enumerate(head) if number not in columns.values()]
    remarks = [f"columns that are not read: {', '.join(unused[:5])}"] if unused else []
    return found._replace(remarks=[*found.remarks, *remarks])


def _find_tables(listing: Listing) -> list[str]:
    tables = [name for name in listing.names if "/" not in name and name.lower().endswith(".csv")]
    return [name for name in tables if {_IMAGE, _MASK} <= _name_columns(_read_head(listing.root / name)).keys()]


def _read_lines(path: Path, most: int | None = None) -> list[list[str]]:
    """The cells of all lines that are not empty, or of the first ``most``, split by what the first line has most of."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        separator = max(_SEPARATORS, key=file.readline(2**16).count)
        file.seek(0)
        lines = (line for line in csv.reader(file, delimiter=separator) if line)
        return list(itertools.islice(lines, most))


def _read_head(path: Path) -> list[str]:
    """The first line; empty where it is no CSV."""
    try:
        return next(iter(_read_lines(path, 1)), [])
    except _UNREADABLE:
        return []


def read_cells(path: Path, columns: str) -> tuple[list[str], list[list[str]]]:
    """The cells of the first line and those of the others.

    Args:
        columns: what the file should hold, for the remedy.

    Raises:
        DataError: it is no CSV, or a line has more cells than the first.
    """
    try:
        head, *lines = _read_lines(path)
    except _UNREADABLE as error:
        raise DataError(path, f"cannot be read ({error})", f"write a CSV of {columns}") from None
    for number, line in enumerate(lines, 2):
        if any(line[len(head) :]):
            what = f"has more cells in line {number} than in the first"
            raise DataError(path, what, "put a cell that holds a separator in quotes")
    return head, lines


def _name_columns(head: Sequence[str]) -> dict[str, int]:
    """What a column holds → its number; of two with one name the first."""
    own = {name.strip().lower(): number for number, name in reversed(list(enumerate(head)))}
    return {
        kind: own[names[0]] for kind, known in _COLUMNS.items() if (names := [name for name in known if name in own])
    }


def _check_slices(built: list[PairedFiles | Problem], table: str) -> list[Problem]:
    """Slices, of which nobody says which are of one patient."""
    slices = [each.image for each in built if isinstance(each, PairedFiles) and not each.is_volume]
    what = "has no column patient, and lists slices, of which several may be of one patient"
    fix = "add the column, or set download.patient: each_image if each is of another patient, or a regular expression"
    return [Problem(table, f"{what}: {slices[0]}", fix)] if slices else []


def _name_patients(rows: list[dict[str, str]], rule: str) -> list[tuple[dict[str, str], str]]:
    if any(row[_PATIENT] for row in rows):
        return [(row, row[_PATIENT].replace("/", "_")) for row in rows]
    if patient_rules.is_expression(rule):
        return [(row, patient_rules.match_patient(row[_IMAGE], rule)) for row in rows]
    stems = Counter(pairing.find_stem(row[_IMAGE].rstrip("/")) for row in rows)
    images = {number: row[_IMAGE] for number, row in enumerate(rows) if rule == "folder"}
    subjects = patient_rules.find_subjects(images)
    own = list(subjects.values()) or [_name_by_file(row[_IMAGE], stems) for row in rows]
    names = finding.name_patients(own)
    return [(row, names[name]) for row, name in zip(rows, own, strict=True)]


def _name_by_file(image: str, stems: Counter[str]) -> str:
    """The file's own name; where files of several folders share it, with its folders: ``p1_flair``."""
    path = PurePosixPath(image.rstrip("/"))
    own = pairing.find_stem(path.name)
    return own if stems[own] == 1 else "_".join((*path.parent.parts, own)).strip("/_")


def _build(
    listing: Listing, row: dict[str, str], patient: str, number: int, is_explicit: bool
) -> PairedFiles | Problem:
    place = f"line {number}"
    if missing := [kind for kind in (_IMAGE, _MASK) if not row[kind]]:
        return Problem(place, f"has no {missing[0]}", "fill the cell, or remove the line")
    if not patient:
        return Problem(place, "has no patient", "fill the cell, or correct download.patient: each image needs one")
    sequence = finding.split_sequence(pairing.find_stem(row[_IMAGE].rstrip("/")))[1]
    if sequence not in ("", finding.FLAIR) and not is_explicit:
        fix = "give the path of FLAIR, or name the column flair if it is to be read as FLAIR"
        return Problem(row[_IMAGE], f"is named as {sequence}, and would be taken as FLAIR ({place})", fix)
    for name in filter(None, (row[kind] for kind in (_IMAGE, PRE, POST, _MASK))):
        if not os.path.lexists(listing.root / name):
            return Problem(name, f"does not exist ({place})", "correct the table; files are relative to the CSV")
    is_volume = pairing.is_volume(listing.root, row[_IMAGE].rstrip("/"))
    if not is_volume and (row[PRE] or row[POST]):
        return Problem(row[_IMAGE], "is a slice, and has further sequences", "save its three channels as one picture")
    order = 1 if is_volume else pairing.find_number(row[_IMAGE])
    order = number if order < 0 else order
    further = row[PRE], row[POST]
    return PairedFiles(
        patient, order, row[_IMAGE].rstrip("/"), row[_MASK], is_volume, *further, institution=row[_INSTITUTION]
    )
