"""``download.patients``: a CSV that says of which patient, and from which institution, each case is.

Its column ``case`` names a file or folder below ``download.path``, with or without ending and the folders before it:
``sub-01``, ``sub-01/ses-1``, ``BRATS_001``, ``images/p1_z012.png``. A folder stands for all cases in it.
"""

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from brainseg.data.layouts import finding, pair_table, pairing
from brainseg.data.layouts.finding import Found
from brainseg.data.layouts.pairing import PairedFiles
from brainseg.errors import DataError, Problem, raise_all

COLUMNS = ("case", "patient", "institution")  # the last one may be left out
LATER = "another volume of a patient, of whom the first in download.patients is read"

Group = frozenset[int]  # positions of cases
Places = dict[str, dict[Group, str]]  # end of a path → the cases there → the whole path


class Row(NamedTuple):
    """A line of the table; ``case`` is a path without ending, ``institution`` may be empty."""

    line: int
    case: str
    patient: str
    institution: str


class _Matches(NamedTuple):
    """Case → its rows; rows → the places that each may be; rows of files that are not read, and of no file at all."""

    claims: dict[int, list[Row]]
    doubts: dict[Row, dict[Group, str]]
    idle: list[Row]
    lost: list[Row]


def read(path: Path) -> list[Row]:
    """The rows of the table, in their order.

    Raises:
        DataError: it is no CSV, lacks a column, or has cells that are empty or say the same case twice.
    """
    head, lines = pair_table.read_cells(path, ", ".join(COLUMNS))
    own = {name.strip().lower(): number for number, name in reversed(list(enumerate(head)))}
    if lacking := [name for name in COLUMNS[:2] if name not in own]:
        what = f"has no column {' and none '.join(lacking)}, only {', '.join(head)}"
        raise DataError(path, what, f"give it the columns {', '.join(COLUMNS)}")
    rows = []
    for number, cells in enumerate(lines, 2):
        case, patient, institution = (_take_cell(cells, own.get(name, len(cells))) for name in COLUMNS)
        if case or patient:
            rows.append(Row(number, _clean_path(case), patient, institution))
    raise_all([*_check_cells(path, rows), *_check_doubles(path, rows)])
    return rows


def apply(found: Found, path: Path) -> Found:
    """The cases with the patients and institutions of the table; of several volumes of a patient the first is kept.

    Further problems, besides those of :func:`read`: rows and cases without each other, and what contradicts itself.
    """
    matches = _match(read(path), found)
    problems = [*_check_matches(path, found, matches), *_check_rest(path, found, matches)]
    named = []
    for number, (row, *_) in matches.claims.items():
        case = found.cases[number]
        case = case._replace(patient=row.patient, institution=row.institution or case.institution)
        named.append((row.line, case))
    cases, passed = _keep_one_volume(named)
    idle = len(matches.idle)
    remarks = [f"{path.name} has {_count(idle, 'row')} of files that are not read"] if idle else []
    return Found(sorted(cases), [*found.problems, *problems], found.passed | passed, [*found.remarks, *remarks])


def _match(rows: Iterable[Row], found: Found) -> _Matches:
    places, others = _list_places(found.cases), _list_others(found)
    matches = _Matches({}, {}, [], [])
    claims: dict[int, list[tuple[Row, Group]]] = defaultdict(list)
    for row in rows:
        groups = places.get(row.case, {})
        if row.case in groups.values():  # the path from the top is meant, not the end of another one
            groups = {group: place for group, place in groups.items() if place == row.case}
        if len(groups) > 1:
            matches.doubts[row] = groups
        elif groups:
            (group,) = groups
            for number in group:
                claims[number].append((row, group))
        else:
            (matches.idle if row.case in others else matches.lost).append(row)
    for number, own in claims.items():
        _, nearest = min(own, key=lambda claim: len(claim[1]))
        matches.claims[number] = [row for row, group in own if not nearest < group]  # a folder within another counts
    return matches


def _take_cell(cells: Sequence[str], number: int) -> str:
    return unicodedata.normalize("NFC", cells[number].strip()) if number < len(cells) else ""


def _clean_path(name: str) -> str:
    """A path as the places are written: composed letters, ``/`` between folders, no ending."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return pairing.split_name(posixpath.normpath(plain))[0] if plain else ""


def _check_cells(path: Path, rows: Iterable[Row]) -> list[Problem]:
    problems = []
    for row in rows:
        for name in COLUMNS[:2]:
            if not getattr(row, name):
                problems.append(
                    Problem(str(path), f"has no {name} in line {row.line}", "fill the cell, or remove the line")
                )
        if "/" in row.patient or not row.patient.isprintable():
            what = f"has the patient {row.patient!r} in line {row.line}, which cannot be the name of a folder"
            problems.append(Problem(str(path), what, "write it without / and without control characters"))
    return problems


def _check_doubles(path: Path, rows: Iterable[Row]) -> list[Problem]:
    """Cases that are there twice, and patients of two institutions."""
    first: dict[str, Row] = {}
    homes: dict[str, Row] = {}
    problems = []
    for row in rows:
        earlier = first.setdefault(row.case, row)
        if row.case and earlier is not row:
            what = f"has the case {row.case} in line {earlier.line} and in line {row.line}"
            problems.append(Problem(str(path), what, "keep one of the lines"))
        home = homes.setdefault(row.patient, row) if row.institution else row
        if home.institution != row.institution:
            places = f"{home.institution} (line {home.line}) and {row.institution} (line {row.line})"
            problems.append(Problem(str(path), f"has patient {row.patient} in {places}", "write one institution"))
    return problems


def _list_places(cases: Sequence[PairedFiles]) -> Places:
    """Every end of each path that names cases."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, case in enumerate(cases):
        for place in _list_names(case):
            numbers[place].append(number)
    places: Places = defaultdict(dict)
    for place, own in numbers.items():
        group, parts = frozenset(own), place.split("/")
        for start in range(len(parts)):
            places["/".join(parts[start:])].setdefault(group, place)
    for place, own in numbers.items():  # the whole path, where an end of another is the same
        places[place][frozenset(own)] = place
    return places


def _list_names(case: PairedFiles) -> list[str]:
    """The places of a case, each once: its files, the image without the sequence's word, the image's folders."""
    image, *others = map(_clean_path, (case.image, *finding.list_used(case)))
    return list(dict.fromkeys(filter(None, (image, _drop_sequence(image), *_list_folders(image), *others))))


def _drop_sequence(path: str) -> str:
    """``anat/sub-01`` of ``anat/sub-01_FLAIR``."""
    return posixpath.join(posixpath.dirname(path), finding.split_sequence(posixpath.basename(path))[0])


def _list_folders(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _list_others(found: Found) -> set[str]:
    """What a row may name though it is no case: files that are passed over or at fault, and their folders."""
    names = [_clean_path(name) for name in (*found.passed, *(problem.path for problem in found.problems))]
    whole = {part for name in names for part in (name, *_list_folders(name))}
    whole |= set(map(_drop_sequence, names))
    return {"/".join(parts[start:]) for parts in (name.split("/") for name in whole) for start in range(len(parts))}


def _check_matches(path: Path, found: Found, matches: _Matches) -> list[Problem]:
    """Rows that may name one case or another, and cases that two rows name."""
    problems = []
    for row, groups in matches.doubts.items():
        first, second, *_ = groups.values()
        what = f"has the case {row.case} in line {row.line}, which may be {first} or {second}"
        problems.append(Problem(str(path), what, "write the folders before it, too"))
    names = finding.name_cases(found.cases)
    twice = {(own[0], own[1]): names[number] for number, own in matches.claims.items() if len(own) > 1}
    for (one, other), name in twice.items():
        what = f"names {name} in line {one.line} ({one.case}) and in line {other.line} ({other.case})"
        problems.append(Problem(str(path), what, "keep one of the lines"))
    return problems


def _check_rest(path: Path, found: Found, matches: _Matches) -> list[Problem]:
    """Rows that name no case, and cases that no row names."""
    names, lost = finding.name_cases(found.cases), matches.lost
    problems = []
    if lost:
        shown = " and ".join(f"{row.case} (line {row.line})" for row in lost[:2])
        known = " and ".join(list(dict.fromkeys(names))[:2])
        fix = f"correct or remove them; cases are {known}" if known else "correct or remove them"
        problems.append(Problem(str(path), f"has {_count(len(lost), 'row')} without a case, such as {shown}", fix))
    claimed = {*matches.claims, *(number for groups in matches.doubts.values() for own in groups for number in own)}
    if missing := list(dict.fromkeys(name for number, name in enumerate(names) if number not in claimed)):
        what = f"has no row for {_count(len(missing), 'case')}, such as {' and '.join(missing[:2])}"
        problems.append(Problem(str(path), what, f"add a line for each: {missing[0]},PATIENT,INSTITUTION"))
    return problems


def _keep_one_volume(named: Iterable[tuple[int, PairedFiles]]) -> tuple[list[PairedFiles], dict[str, str]]:
    """The cases, given with their lines, of several volumes of a patient the first; and what is passed over."""
    kept, passed, known = [], dict[str, str](), set[str]()
    for _, case in sorted(named):
        if case.is_volume and case.patient in known:
            passed |= dict.fromkeys(finding.list_used(case), LATER)
            continue
        known |= {case.patient} if case.is_volume else set()
        kept.append(case)
    return kept, passed


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
