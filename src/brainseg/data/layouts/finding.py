"""What all layouts share: the files below a folder, the cases found among them, and the sequences by their words."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from brainseg.data import pairing
from brainseg.data.pairing import PairedFiles
from brainseg.errors import DataError, Problem
from brainseg.io import scans
from brainseg.io.folders import Walk
from brainseg.io.sequences import CHANNELS

PRE, FLAIR, POST = CHANNELS
T2 = "T2"
NO_PART = "no part of this layout"

_AGENT = "ce|c|gd|gad|post|contrast|km|kontrast|enhanced|gadolinium"
_WORDS = {
    FLAIR: re.compile(r"(t2)?w?(space)?flair(w|3d|2d)?|t2f"),
    POST: re.compile(rf"t1w?({_AGENT})+w?|({_AGENT})+t1w?|t1contrastenhanced|postt1w?"),
    PRE: re.compile(r"t1w?(n|pre|native)?w?|(pre|native)t1w?"),
    T2: re.compile(r"t2w?w?"),
}


class Listing(NamedTuple):
    """The files below ``root``, relative and sorted; ``problems`` of folders that cannot be listed."""

    root: Path
    names: list[str]
    problems: list[Problem]


class Found(NamedTuple):
    """The cases of a layout; ``passed``: file → why it is not read; ``remarks``: what was assumed."""

    cases: list[PairedFiles]
    problems: list[Problem]
    passed: dict[str, str]
    remarks: list[str]


def list_files(root: Path) -> Listing:
    """All files at and below a folder, links followed, hidden ones left out."""
    walk = Walk()
    names = [
        (folder.path / name).relative_to(root).as_posix() for folder in walk.folders([root]) for name in folder.names
    ]
    problems = [Problem(str(error.filename or root), *pairing.describe_read_error(error)) for error in walk.unread]
    return Listing(root, sorted(names), problems)


def is_volume(name: str) -> bool:
    """Whether it is a volume by its name; of a pair of files the header."""
    return bool(scans.kind_of(name)) and not name.lower().endswith((".img", ".img.gz"))


def stem(name: str) -> str:
    """The file's name without folders and ending."""
    return pairing.split_name(PurePosixPath(name).name)[0]


def name_sequence(word: str) -> str:
    """One of CHANNELS or T2, as ``t1ce``, ``T2-FLAIR`` or ``t2f`` name it; empty for any other word."""
    plain = re.sub(r"[^a-z0-9]", "", word.lower())
    return next((name for name, pattern in _WORDS.items() if pattern.fullmatch(plain)), "")


def build_case(
    patient: str, files: Mapping[str, str], mask: str, place: str, *, any_label: bool = False
) -> PairedFiles | Problem:
    """A volume of FLAIR and, where they are there, pre- and post-contrast.

    Args:
        files: sequence → file.
        place: what a fault is called by: the folder or the case.
    """
    if FLAIR not in files:
        there = f"only {', '.join(sorted(files))}" if files else "nothing that is named as a sequence"
        return Problem(place, f"has no FLAIR, {there}", "add it; T2 is not taken for FLAIR, a CSV of pairs can say so")
    if not mask:
        return Problem(files[FLAIR], "has no mask", "add it, or list the cases that have one in a CSV of pairs")
    return PairedFiles(
        patient, 1, files[FLAIR], mask, True, files.get(PRE, ""), files.get(POST, ""), any_label=any_label
    )


def sort_out(
    listing: Listing, built: Iterable[PairedFiles | Problem], passed: Mapping[str, str], remarks: Iterable[str] = ()
) -> Found:
    """Cases and problems apart; every file that no case uses is passed over, as ``passed`` says or as no part.

    An empty reason: the file is read, and holds no case.
    """
    both = list(built)
    cases = [each for each in both if isinstance(each, PairedFiles)]
    problems = [each for each in both if isinstance(each, Problem)]
    told = {problem.path for problem in problems}
    used = {name for each in cases for name in list_used(each)}
    rest = {name: passed.get(name, NO_PART) for name in listing.names if name not in used | told}
    return Found(cases, problems, {name: why for name, why in rest.items() if why}, list(remarks))


def list_used(case: PairedFiles) -> list[str]:
    """The files of a case: pre-contrast, FLAIR, post-contrast, mask, as far as they are there."""
    return [name for name in (case.pre, case.image, case.post, case.mask) if name]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; empty if there is none.

    Raises:
        DataError: it is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(path, f"is no JSON ({type(error).__name__})", "restore it, or save it again") from None
    if not isinstance(content, dict):
        raise DataError(path, "holds no names and values", "restore it, or save it again")
    return content


def find_homes(listing: Listing, folder: str) -> list[str]:
    """The folders that hold a folder of this name with files in it; ``""`` is the top."""
    parts = (PurePosixPath(name).parts[:-1] for name in listing.names)
    return sorted({"/".join(each[: each.index(folder)]) for each in parts if folder in each})


def only_home(listing: Listing, folder: str) -> str:
    """Where the one folder of this name lies, ending in ``/`` or empty.

    Raises:
        DataError: there are several, or none.
    """
    homes = find_homes(listing, folder)
    if not homes:
        raise DataError(listing.root, f"holds no folder {folder}", "correct download.layout or download.path")
    home, *others = homes
    if others:
        shown = ", ".join([home or ".", *others][:5])
        what = f"holds {len(others) + 1} data sets: {shown}"
        raise DataError(listing.root, what, "set download.path to one of these folders")
    return f"{home}/" if home else ""
