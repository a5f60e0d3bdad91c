"""BraTS: the sequences and the mask of a case side by side, ``CASE_flair.nii.gz`` or ``CASE-t2f.nii.gz``.

Also in a folder of the case without its name, ``CASE/flair.nii.gz``. Each label above 0 is tumour, except in a file
that is named a mask.
"""

import re
from collections import defaultdict
from pathlib import PurePosixPath

from brainseg import config
from brainseg.data.layouts import finding, pairing, patient_rules
from brainseg.data.layouts.finding import Found, Listing
from brainseg.data.layouts.pairing import PairedFiles
from brainseg.errors import Problem

_MASKS = ("seg", "segm", "segmentation", "tumor_segmentation", "mask")
_NAME = re.compile(
    rf"(?:(?P<case>.+?)[-_])?(?P<word>flair|t1|t1ce|t1c|t1gd|t1n|t2|t2w|t2f|{'|'.join(_MASKS)})", re.IGNORECASE
)
_MISNAMED = re.compile(r"W[0-9]+_[0-9.]+_Segm\.nii(\.gz)?")
_MASK = "mask"

Cases = dict[tuple[str, str], dict[str, list[str]]]  # folder and case → sequence or _MASK → files


def recognise(listing: Listing) -> str:
    """Why it is this layout; empty if it is not."""
    for (_, case), files in _group(listing).items():
        if finding.FLAIR in files and (_MASK in files or case.lower().startswith("brats")):
            beside = f" beside {PurePosixPath(files[_MASK][0]).name}" if _MASK in files else ""
            return f"{files[finding.FLAIR][0]}{beside}"
    return ""


def read(listing: Listing, params: config.Download) -> Found:
    """A patient is a case; of several time points of one patient the first whole one is read."""
    found = {key: files for key, files in sorted(_group(listing).items()) if set(files) != {_MASK}}
    passed: dict[str, str] = {}
    cases: dict[str, list[tuple[str, dict[str, list[str]]]]] = defaultdict(list)
    for (folder, case), files in found.items():
        cases[case].append((folder, files))
        passed |= {name: "T2 is not used" for name in files.get(finding.T2, [])}
    built, own = {}, {}
    twice: list[PairedFiles | Problem] = []
    for case, places in cases.items():
        (folder, files), *others = places
        built[case] = _build(case, folder, files)
        own[case] = [name for names in files.values() for name in names]
        twice += [_build(case, *place) for place in others]
    kept, later = finding.keep_one_scan(built, own, every=bool(params.patients))
    is_named = params.patients or patient_rules.is_expression(params.patient)
    faults = [] if is_named else _check_folders(found)
    return finding.sort_out(listing, [*kept, *twice, *faults], passed | later)


def _build(case: str, folder: str, files: dict[str, list[str]]) -> PairedFiles | Problem:
    for kind, names in files.items():
        if len(names) > 1 and kind != finding.T2:
            word = "masks" if kind == _MASK else f"files of {kind}"
            return Problem(f"{folder}/{case}".lstrip("/"), f"has {len(names)} {word}: {', '.join(names)}", "keep one")
    first = {kind: names[0] for kind, names in files.items()}
    mask = first.pop(_MASK, "")
    labels = not pairing.find_stem(mask).lower().endswith("mask")
    return finding.build_case(case, first, mask, f"{folder}/{case}".lstrip("/"), any_label=labels)


def _check_folders(cases: Cases) -> list[Problem]:
    """A fault where files that do not name their case lie so that a folder may be a visit instead of a patient."""
    bare = sorted(folder for folder, case in cases if any(map(_is_bare, cases[folder, case].get(finding.FLAIR, []))))
    parents = {folder.rpartition("/")[0] for folder in bare}
    visits = [folder for folder in bare if finding.is_time_point(PurePosixPath(folder).name)]
    if len(parents) < 2 and not visits:
        return []
    what = f"and the like: which of the folders is the patient? ({', '.join([*visits, *bare][:3])})"
    fix = """set download.patient: "^([^/]+)/" if it is the first one, "([^/]+)/[^/]+$" if it is the last"""
    return [Problem((visits or bare)[0], what, fix)]


def _is_bare(name: str) -> bool:
    match = _NAME.fullmatch(pairing.find_stem(name))
    return match is not None and not match["case"]


def _group(listing: Listing) -> Cases:
    cases: Cases = defaultdict(lambda: defaultdict(list))
    for name in filter(finding.is_volume_name, listing.names):
        if match := _NAME.fullmatch(pairing.find_stem(name)):
            word = match["word"].lower()
            kind = _MASK if word in _MASKS else finding.name_sequence(word)
            folder = name.rpartition("/")[0]
            cases[folder, match["case"] or PurePosixPath(folder).name][kind].append(name)
    _join_misnamed(cases)
    return cases


def _join_misnamed(cases: Cases) -> None:
    """A mask of another name goes to the only case in its folder: BraTS20_Training_355 has W39_1998.09.19_Segm.nii."""
    folders = defaultdict(list)
    for key in cases:
        folders[key[0]].append(key)
    for keys in folders.values():
        masks = [key for key in keys if any(map(_MISNAMED.fullmatch, _list_names(cases[key].get(_MASK, []))))]
        others = [key for key in keys if key not in masks and _MASK not in cases[key]]
        if len(keys) == 2 and len(masks) == len(others) == 1:
            cases[others[0]] |= cases.pop(masks[0])


def _list_names(files: list[str]) -> list[str]:
    return [PurePosixPath(name).name for name in files]
