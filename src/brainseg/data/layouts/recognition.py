"""Which layout a folder has, and what is read of it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from brainseg import config, files
from brainseg.data.layouts import (
    bids,
    brats,
    finding,
    image_folders,
    image_labels,
    pair_table,
    pairing,
    patient_rules,
    patient_table,
)
from brainseg.data.layouts.finding import Found, Listing
from brainseg.data.layouts.pairing import PairedFiles, Scope
from brainseg.errors import DataError, Problem, show_some

PATTERNS = "patterns"
PATIENTS = "patients.csv"  # at the top of a folder: columns patient, institution
_NONE = "no layout is recognised"
UNSET = ("**/*", "**/*_mask.*")  # images and masks of params.yaml where nobody has named patterns


class Layout(NamedTuple):
    """``recognise`` says why a folder has the layout, empty if it has not; ``read`` finds its cases."""

    title: str
    recognise: Callable[[Listing], str]
    read: Callable[[Listing, config.Download], Found]


LAYOUTS = {
    "brats": Layout("BraTS folders", brats.recognise, brats.read),
    "nnunet": Layout("nnU-Net raw data", image_labels.recognise_nnunet, image_labels.read_nnunet),
    "decathlon": Layout("Medical Decathlon", image_labels.recognise_decathlon, image_labels.read_decathlon),
    "bids": Layout("BIDS with derivatives", bids.recognise, bids.read),
    "table": Layout("a CSV of pairs", pair_table.recognise, pair_table.read),
    "folders": Layout("folders of images and masks", image_folders.recognise, image_folders.read),
}
PATTERNS_TITLE = "patterns of images and masks"


class Recognised(NamedTuple):
    """What would be read. Files in ``found`` are relative to ``root``; ``why`` follows "because of"."""

    layout: str
    title: str
    why: str
    root: Path
    found: Found


def find(params: config.Download, scope: Scope = pairing.ALL) -> Recognised:
    """The cases below ``download.path``, sorted by patient and slice number.

    ``found.problems`` are the faults of single files and of ``download.patients``; those of patterns are raised.

    Raises:
        DataError: no such folder, a layout that cannot be told, or one that the folder does not have.
    """
    recognised = _find(params, scope)
    if params.patient == "each_volume" and not params.patients:
        shared = patient_rules.find_shared_subjects({case.image: case.image for case in recognised.found.cases})
        if shared:
            what = "several images, each taken as another patient: one may be trained on and another tested on"
            print(f"WARNING {show_some(shared, 3)}: {what}", file=sys.stderr)
    return recognised


def _find(params: config.Download, scope: Scope) -> Recognised:
    root = find_root(params)
    if params.layout == PATTERNS or (params.layout == "auto" and (params.images, params.masks) != UNSET):
        why = f"{params.images} and {params.masks}"
        return Recognised(PATTERNS, PATTERNS_TITLE, why, root, _find_by_patterns(root, params, scope))
    listing = _list(root, Path(params.path or ""))
    name, why = (params.layout, "download.layout") if params.layout != "auto" else _choose(listing, params)
    if name == PATTERNS:
        try:
            return Recognised(name, PATTERNS_TITLE, why, root, _find_by_patterns(root, params, scope))
        except DataError as error:
            if why != _NONE:
                raise
            raise DataError("", problems=[_describe_unknown(listing), *error.problems]) from None
    layout = LAYOUTS[name]
    found = layout.read(listing, params)
    return Recognised(name, layout.title, why, root, _check(listing, found, params, name))


def find_root(params: config.Download) -> Path:
    """The folder of ``download.path``, or the one that holds it if it is a CSV."""
    place = "to the folder that holds your images and masks"
    if params.path is None:
        raise DataError("params.yaml", "download.path is null", f"set it {place}")
    path = files.project_root() / Path(params.path).expanduser()
    if path.suffix.lower() == ".csv" and path.is_file():
        return path.parent
    if not path.is_dir():
        raise DataError(path, "is not a folder", f"set download.path {place}")
    return path


def name_rule(params: config.Download) -> str:
    """The parameter that says whose each case is."""
    return f"download.patients: {params.patients}" if params.patients else f"download.patient: {params.patient}"


def find_table(name: str) -> Path:
    """The file of ``download.patients``, relative to the project as ``download.path`` is.

    Raises:
        DataError: it is no file.
    """
    path = files.project_root() / Path(name).expanduser()
    if not path.is_file():
        fix = f"set download.patients to a CSV of {', '.join(patient_table.COLUMNS)}, or to null"
        raise DataError(path, "is no file", fix)
    return path


def _list(root: Path, path: Path) -> Listing:
    listing = finding.list_files(root)
    if path.suffix.lower() != ".csv":
        return listing
    others = [name for name in listing.names if "/" in name or not name.lower().endswith(".csv")]
    return listing._replace(names=sorted([*others, path.name]))  # the other tables are not asked


def _choose(listing: Listing, params: config.Download) -> tuple[str, str]:
    """Name of the layout and why.

    Raises:
        DataError: it could be several.
    """
    if (params.path or "").lower().endswith(".csv"):
        return "table", "download.path is a CSV"
    reasons = {name: why for name, layout in LAYOUTS.items() if (why := layout.recognise(listing))}
    if why := _recognise_patterns(listing):
        reasons[PATTERNS] = why
    if len(reasons) > 1:
        shown = "; ".join(f"{name} ({_title(name)}: {why})" for name, why in reasons.items())
        what = f"could be read as {len(reasons)} layouts: {shown}"
        lines = " or ".join(f"layout: {name}" for name in reasons)
        raise DataError(listing.root, what, f"write one line below download in params.yaml: {lines}")
    return next(iter(reasons.items()), (PATTERNS, _NONE))


def _describe_unknown(listing: Listing) -> Problem:
    root, what = listing.root, f"has none of the layouts {', '.join(LAYOUTS)}"
    places = sorted(image_folders.find_places(listing))
    if len(places) > 1:
        what = f"{what}: {len(places)} folders hold images and masks: {', '.join(name or '.' for name in places[:5])}"
        return Problem(str(root), what, "set download.path to one of them, or move their files together")
    fix = "set download.images and download.masks, or set download.path to a CSV of pairs (image, mask, patient)"
    return Problem(str(root), what, fix)


def _title(name: str) -> str:
    return LAYOUTS[name].title if name in LAYOUTS else PATTERNS_TITLE


def _recognise_patterns(listing: Listing) -> str:
    names = {pairing.split_name(name)[0]: name for name in listing.names if name.lower().endswith(pairing.ENDINGS)}
    pairs = ((image, names.get(f"{key}_mask", "")) for key, image in names.items())
    return next((f"{mask} beside {image}" for image, mask in pairs if mask), "")


def _find_by_patterns(root: Path, params: config.Download, scope: Scope) -> Found:
    found = Found(pairing.find(root, params, scope), [], {}, [])
    if not params.patients:
        return found
    found = patient_table.apply(found, find_table(params.patients))
    problems = [*found.problems, *_check_identities(found.cases, params, PATTERNS)]
    return found._replace(problems=[problem._replace(path=str(root / problem.path)) for problem in problems])


def _check_identities(cases: list[PairedFiles], params: config.Download, name: str) -> list[Problem]:
    where = "the column patient" if name == "table" and params.patient == "folder" else "download.patient"
    where = "download.patients" if params.patients else where
    return pairing.check_identities(cases, params.patient, by_folder=False, names=where)


def _check(listing: Listing, found: Found, params: config.Download, name: str) -> Found:
    """Patients by a table or a rule, faults of identities and links, and all faults by their whole paths."""
    if params.patients:
        found = patient_table.apply(found, find_table(params.patients))
    cases, rule = found.cases, params.patient
    if patient_rules.is_expression(rule) and name not in ("table", "folders"):  # these have applied it
        cases = [case._replace(patient=patient_rules.match_patient(case.image, rule)) for case in cases]
    problems = [*found.problems, *_check_identities(cases, params, name)]
    used = {name: listing.root / name for case in cases for name in finding.list_used(case)}
    faults = {name: fault for name, path in used.items() if (fault := pairing.check_path(path))}
    problems += [Problem(name, *fault) for name, fault in faults.items()]
    if not cases and not problems:
        layout = LAYOUTS[name]
        problems = [Problem("", f"holds no case of {layout.title} (download.layout: {name})", "correct path or layout")]
    tables = {listing.root / PATIENTS, *([find_table(params.patients)] if params.patients else [])}
    passed = {name: why for name, why in found.passed.items() if listing.root / name not in tables}
    whole = [problem._replace(path=str(listing.root / problem.path)) for problem in problems]
    return found._replace(cases=sorted(cases), passed=passed, problems=[*listing.problems, *whole])
