"""BraTS: the sequences and the mask of a case side by side, ``CASE_flair.nii.gz`` or ``CASE-t2f.nii.gz``.

Also in a folder of the case without its name, ``CASE/flair.nii.gz``. Each label above 0 is tumour, except in a file
that is named a mask.
"""

import re
from collections import defaultdict
from pathlib import PurePosixPath

from brainseg import config
from brainseg.data.layouts import finding
from brainseg.data.layouts.finding import Found, Listing

_MASKS = ("seg", "segm", "segmentation", "tumor_segmentation", "mask")
_NAME = re.compile(
    rf"(?:(?P<case>.+?)[-_])?(?P<word>flair|t1|t1ce|t1c|t1gd|t1n|t2|t2w|t2f|{'|'.join(_MASKS)})", re.IGNORECASE
)
_TIME_POINT = re.compile(r"(BraTS-[A-Z]+-[0-9]+)-[0-9]+", re.IGNORECASE)
_SEGMENTED = re.compile(r"segm?\.nii(\.gz)?$", re.IGNORECASE)
_MASK = "mask"

Cases = dict[tuple[str, str], dict[str, str]]  # folder and case → sequence or _MASK → file


def recognise(listing: Listing) -> str:
    """Why it is this layout; empty if it is not."""
    for (_, case), files in _group(listing).items():
        if finding.FLAIR in files and (_MASK in files or case.lower().startswith("brats")):
            beside = f" beside {PurePosixPath(files[_MASK]).name}" if _MASK in files else ""
            return f"{files[finding.FLAIR]}{beside}"
    return ""


def read(listing: Listing, params: config.Download) -> Found:
    """A patient is a case; of several time points of one patient the first is read."""
    built, passed, first = [], dict[str, str](), dict[str, str]()
    for (folder, case), files in sorted(_group(listing).items()):
        point = _TIME_POINT.fullmatch(case)
        if point and first.setdefault(point[1], case) != case:
            passed |= dict.fromkeys(files.values(), "another time point of a patient, of whom the first is read")
            continue
        if set(files) == {_MASK}:
            continue
        passed |= {name: "T2 is not used" for key, name in files.items() if key == finding.T2}
        mask = files.pop(_MASK, "")
        labels = not finding.stem(mask).lower().endswith("mask")
        built.append(finding.build_case(case, files, mask, f"{folder}/{case}".lstrip("/"), any_label=labels))
    return finding.sort_out(listing, built, passed)


def _group(listing: Listing) -> Cases:
    cases: Cases = defaultdict(dict)
    for name in filter(finding.is_volume, listing.names):
        if match := _NAME.fullmatch(finding.stem(name)):
            word = match["word"].lower()
            kind = _MASK if word in _MASKS else finding.name_sequence(word)
            folder = name.rpartition("/")[0]
            cases[folder, match["case"] or PurePosixPath(folder).name].setdefault(kind, name)
    _join_misnamed(cases)
    return cases


def _join_misnamed(cases: Cases) -> None:
    """A mask of another name goes to the only case in its folder: BraTS20_Training_355 has W39_1998.09.19_Segm.nii."""
    folders = defaultdict(list)
    for key in cases:
        folders[key[0]].append(key)
    for keys in folders.values():
        masks = [key for key in keys if set(cases[key]) == {_MASK} and _SEGMENTED.search(cases[key][_MASK])]
        others = [key for key in keys if key not in masks and _MASK not in cases[key]]
        if len(keys) == 2 and len(masks) == len(others) == 1:
            cases[others[0]] |= cases.pop(masks[0])
