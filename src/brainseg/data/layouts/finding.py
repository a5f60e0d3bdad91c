"""What all layouts share: the files below a folder, the cases found among them, and the sequences by their words."""

import json
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from brainseg.data.layouts import pairing
from brainseg.data.layouts.pairing import PairedFiles
from brainseg.errors import DataError, Problem
from brainseg.io import nifti, scans
from brainseg.io.folders import Walk
from brainseg.io.sequences import CHANNELS

PRE, FLAIR, POST = CHANNELS
T2 = "T2"
NO_PART = "no part of this layout"
LATER = "another time point of a patient, of whom one is read"

_AGENT = "ce|c|gd|gad|post|contrast|km|kontrast|enhanced|gadolinium"
_WORDS = {
    FLAIR: re.compile(r"(t2)?w?(space)?flair(w|3d|2d)?|t2f"),
    POST: re.compile(rf"t1w?({_AGENT})+w?|({_AGENT})+t1w?|t1contrastenhanced|postt1w?"),
    PRE: re.compile(r"t1w?(n|pre|native)?w?|(pre|native)t1w?"),
    T2: re.compile(r"t2w?w?"),
}
_OTHER = re.compile(r"ct|dwi|adc|swi|pet|pdw?|dti|asl|mra|bold")  # what is no sequence of CHANNELS, and none like it
_VISIT = (
    r"(fu|ses|session|tp|time|timepoint|visit|week|month)[-_]?[0-9]+[a-z]?|baseline|follow-?up[-_]?[0-9]*|preop|postop"
    r"|(19|20)[0-9]{2}[-_.]?[01][0-9][-_.]?[0-3][0-9]"
)
_TIME_POINT = re.compile(rf"(?P<brats>BraTS-[A-Z]+-[0-9]+)-[0-9]+|(?P<other>.+?)[-_.]({_VISIT})", re.IGNORECASE)


class Listing(NamedTuple):
    """The files below ``root``, relative and sorted.

    ``problems`` of folders that cannot be listed; ``remarks`` on folders that are left out, as they are read elsewhere.
    """

    root: Path
    names: list[str]
    problems: list[Problem]
    remarks: Sequence[str] = ()


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
    links = (each for each in walk.passed if each.kind == "link")
    remarks = [f"{PurePosixPath(each.label).relative_to(root.as_posix())} {each.why}" for each in links]
    return Listing(root, sorted(names), problems, remarks)


def is_volume_name(name: str) -> bool:
    """Whether it is a volume by its name; of a pair of files the header."""
    return bool(scans.kind_of(name)) and not name.lower().endswith((".img", ".img.gz"))


def name_sequence(word: str) -> str:
    """One of CHANNELS or T2, as ``t1ce``, ``T2-FLAIR`` or ``t2f`` name it; empty for any other word."""
    plain = re.sub(r"[^a-z0-9]", "", word.lower()).replace("weighted", "w")
    plain = re.sub(r"^mri?(?=.)|(?<=.)(mri?|image)$", "", plain)
    return next((name for name, pattern in _WORDS.items() if pattern.fullmatch(plain)), "")


def split_sequence(name: str) -> tuple[str, str]:
    """``p1`` and FLAIR of ``p1_flair``: what stands before a sequence's word at the end, and the sequence.

    Of CT, DWI and the like the word itself; of a name that ends in none, the whole name and an empty word.
    """
    match = re.fullmatch(r"(?:(.*?)[-_ .])?([A-Za-z0-9]+)", name)
    word = match[2] if match else ""
    sequence = name_sequence(word) or (word.upper() if _OTHER.fullmatch(word.lower()) else "")
    return (match[1] or "", sequence) if match and sequence else (name, "")


def describe_sequence(image: str, sequence: str) -> Problem:
    """An image that is named as another sequence than FLAIR, where one image of a case is read."""
    fix = "move it away, or list FLAIR, pre and post in a CSV of pairs (columns flair, pre, post, mask, patient)"
    return Problem(image, f"is named as {sequence}, and would be taken as FLAIR", fix)


def is_time_point(name: str) -> bool:
    """Whether a folder is named as a visit or a date, which is no patient."""
    return re.fullmatch(_VISIT, name, re.IGNORECASE) is not None


def name_patients(cases: Iterable[str]) -> dict[str, str]:
    """Case → patient: the case itself, unless others are time points of the same patient.

    Names of time points end in ``-001`` after BraTS's number, in ``_FU003d``, ``_ses-2``, a date and the like.
    """
    names = list(dict.fromkeys(cases))
    matches = {name: _TIME_POINT.fullmatch(name) for name in names}
    own = {name: (match["brats"] or match["other"]) if match else name for name, match in matches.items()}
    shared = Counter(own.values())
    return {name: patient if shared[patient] > 1 else name for name, patient in own.items()}


def keep_one_scan(
    built: Mapping[str, PairedFiles | Problem], files: Mapping[str, Sequence[str]], *, every: bool = False
) -> tuple[list[PairedFiles | Problem], dict[str, str]]:
    """Of several time points of a patient the first that is whole; and what is passed over, with its reason.

    Args:
        built, files: of each case, which is named with its time point.
        every: keep all, also faults, since ``download.patients`` says whose they are.
    """
    scans_of: dict[str, list[str]] = defaultdict(list)
    for case, patient in name_patients(sorted(built)).items():
        scans_of[patient].append(case)
    kept, passed = [], dict[str, str]()
    for cases in scans_of.values():
        whole = [case for case in cases if isinstance(built[case], PairedFiles)]
        chosen = cases if every else whole[:1] or cases[:1]
        kept += [built[case] for case in chosen]
        passed |= {name: LATER for case in cases if case not in chosen for name in files[case]}
        if not whole:
            passed |= dict.fromkeys(files[chosen[0]], "")  # the problem tells them
    return kept, passed


def keep_first(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, str], list[Problem]]:
    """Key → file, and each further file of the same key, between which nobody can choose."""
    found: dict[str, str] = {}
    doubles = [(name, found[key]) for key, name in pairs if found.setdefault(key, name) != name]
    return found, [
        Problem(name, f"and {first} have the same name", "keep one, or rename it") for name, first in doubles
    ]


def build_case(
    patient: str, files: Mapping[str, str], mask: str, place: str, *, any_label: bool = False, mixed: bool = False
) -> PairedFiles | Problem:
    """A volume of FLAIR and, where they are there, pre- and post-contrast.

    Args:
        files: sequence → file.
        place: what a fault is called by: the folder or the case.
    """
    if FLAIR not in files:
        there = f"only {', '.join(sorted(files))}" if files else "nothing that is named as a sequence"
        return Problem(place, f"has no FLAIR, {there}", "add it; T2 is not taken for FLAIR, but a column flair can")
    if not mask:
        return Problem(files[FLAIR], "has no mask", "add it, or list the cases that have one in a CSV of pairs")
    further = files.get(PRE, ""), files.get(POST, "")
    return PairedFiles(patient, 1, files[FLAIR], mask, True, *further, any_label=any_label, mixed=mixed)


def sort_out(
    listing: Listing, built: Iterable[PairedFiles | Problem], passed: Mapping[str, str], remarks: Iterable[str] = ()
) -> Found:
    """Cases and problems apart; every file that no case uses is passed over, as ``passed`` says or as no part.

    An empty reason: the file is read, and holds no case.
    """
    both = list(built)
    cases = [each for each in both if isinstance(each, PairedFiles)]
    problems = [each for each in both if isinstance(each, Problem)]
    read = [problem.path for problem in problems] + [name for each in cases for name in list_used(each)]
    used = {posixpath.normpath(name) for name in read}
    rest = {name: passed.get(name, NO_PART) for name in listing.names if not _is_used(name, used)}
    return Found(cases, problems, {name: why for name, why in rest.items() if why}, [*listing.remarks, *remarks])


def _is_used(name: str, used: set[str]) -> bool:
    """Whether a file is read: itself, as a part of a DICOM series, or as the other half of a pair."""
    parts = {name, *map(str, PurePosixPath(name).parents)} - {"."}
    return not used.isdisjoint(parts) or not used.isdisjoint(nifti.other_names(name))


def name_cases(cases: Sequence[PairedFiles]) -> list[str]:
    """What each case is called: its folder if all in it are of one patient, else the image's path without ending."""
    patients: dict[str, set[str]] = defaultdict(set)
    homes = [posixpath.dirname(case.image) for case in cases]
    for home, case in zip(homes, cases, strict=True):
        patients[home].add(case.patient)
    return [
        home if home and len(patients) > 1 and len(patients[home]) == 1 else pairing.split_name(case.image)[0]
        for home, case in zip(homes, cases, strict=True)
    ]


def show_patients(cases: Sequence[PairedFiles]) -> list[str]:
    """Two cases, of two patients if there are two, each with its patient: ``sub-01/anat -> patient sub-01``."""
    pairs = list(dict.fromkeys(zip(name_cases(cases), (case.patient for case in cases), strict=True)))
    others = [pair for pair in pairs[1:] if pair[1] != pairs[0][1]] or pairs[1:]
    return [f"{name} -> patient {patient}" for name, patient in (*pairs[:1], *others[:1])]


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
    check_homes(listing, homes)
    return f"{homes[0]}/" if homes[0] else ""


def check_homes(listing: Listing, homes: list[str]) -> None:
    """Refuse several data sets below one folder.

    Raises:
        DataError: it names them.
    """
    if len(homes) > 1:
        shown = ", ".join(home or "." for home in homes[:5])
        what = f"holds {len(homes)} data sets: {shown}"
        raise DataError(listing.root, what, "set download.path to one of these folders")
