"""BIDS: ``sub-01/[ses-1/]anat/sub-01_FLAIR.nii.gz``, and the masks of lesions anywhere else.

Usually below ``derivatives/``; a ``dseg`` only where its name or its folder there says lesion or tumour.
"""

import re
from collections import defaultdict
from typing import NamedTuple

from brainseg import config
from brainseg.data.layouts import finding, pairing
from brainseg.data.layouts.finding import FLAIR, POST, PRE, T2, Found, Listing
from brainseg.data.layouts.pairing import PairedFiles
from brainseg.errors import Problem

_NAME = re.compile(r"(?P<patient>sub-[A-Za-z0-9+]+)(?P<rest>(?:_[a-z]+-[A-Za-z0-9+]+)*)_(?P<suffix>[A-Za-z0-9]+)")
_SUFFIXES = {"FLAIR": FLAIR, "T1w": PRE, "T2w": T2}
_MASKS = ("dseg", "mask", "roi")
_TUMOUR = re.compile(r"lesion|tumou?r|glioma|(desc|label)-L(_|$)", re.IGNORECASE)
_OTHER = re.compile(r"(desc|label)-(brain|head|skull|GM|WM|CSF|aseg|aparc|vent)", re.IGNORECASE)


class _Scans(NamedTuple):
    """The files of one session: sequence → files, and masks."""

    images: dict[str, list[str]]
    masks: list[str]


def recognise(listing: Listing) -> str:
    """Why it is this layout; empty if it is not."""
    return next((name for name in listing.names if _is_image(name)), "")


def read(listing: Listing, params: config.Download) -> Found:
    """A patient is a subject; of several sessions the first that has FLAIR and mask is read.

    With ``download.patients`` each such session is a case.

    Raises:
        DataError: several data sets, whose subjects of one number are different patients.
    """
    finding.check_homes(listing, sorted({_find_home(name) for name in listing.names if _is_image(name)}))
    sessions, passed = _group(listing)
    built: list[PairedFiles | Problem] = []
    for patient in sorted({patient for patient, _ in sessions}):
        own = {session: scans for (owner, session), scans in sorted(sessions.items()) if owner == patient}
        whole = [name for name, scans in own.items() if scans.images.get(FLAIR) and scans.masks]
        first = (whole or sorted(own, key=lambda name: FLAIR not in own[name].images))[:1]
        begun = [name for name, scans in own.items() if scans.images.get(FLAIR) or scans.masks]
        chosen = begun or first if params.patients else first
        for session in set(own) - set(chosen):
            files = [*own[session].masks, *(name for names in own[session].images.values() for name in names)]
            passed |= dict.fromkeys(files, "another session of a patient, of whom one is read")
        built += [_build(patient, session, own[session], passed) for session in chosen]
    return finding.sort_out(listing, built, passed)


def _build(patient: str, session: str, scans: _Scans, passed: dict[str, str]) -> PairedFiles | Problem:
    files = {}
    for kind, (name, *others) in scans.images.items():
        files[kind] = name
        passed |= dict.fromkeys(others, f"a second {kind} of the patient")
    passed |= {name: "T2 is not used" for name in scans.images.get(T2, [])}
    masks = [name for name in scans.masks if _names_tumour(name)]
    masks = masks or [name for name in scans.masks if not pairing.find_stem(name).endswith("_dseg")]
    place = "/".join(filter(None, (patient, session)))
    if scans.masks and not masks:
        what = f"has only {scans.masks[0]}, which does not say that it is of a tumour"
        return Problem(files.get(FLAIR, place), what, "name it label-lesion, or list the pairs in a CSV")
    passed |= dict.fromkeys(set(scans.masks) - set(masks), "a mask that does not say that it is of a tumour")
    if len(masks) > 1:
        shown = ", ".join(masks[:3])
        what = f"has {len(masks)} masks: {shown}"
        return Problem(files.get(FLAIR, place), what, "keep one, or list the pairs in a CSV")
    return finding.build_case(patient, files, "".join(masks), place)


def _names_tumour(mask: str) -> bool:
    """Whether a mask's name, or its folder right below ``derivatives``, says that it is of a tumour."""
    match = _NAME.fullmatch(pairing.find_stem(mask))
    pipeline = re.search(r"(?:^|/)derivatives/([^/]+)/", mask)
    return any(map(_TUMOUR.search, (match["rest"] if match else "", pipeline[1] if pipeline else "")))


def _find_home(image: str) -> str:
    """The folder of the data set: that which holds the subject's."""
    patient = pairing.find_stem(image).partition("_")[0]
    return image[: f"/{image}".rindex(f"/{patient}/")].rstrip("/")


def _group(listing: Listing) -> tuple[dict[tuple[str, str], _Scans], dict[str, str]]:
    """Subject and session → files; and what is passed over with its reason."""
    sessions: dict[tuple[str, str], _Scans] = defaultdict(lambda: _Scans({}, []))
    passed = {}
    for name in filter(finding.is_volume_name, listing.names):
        match = _NAME.fullmatch(pairing.find_stem(name))
        if not match:
            continue
        session = re.search(r"_(ses-[A-Za-z0-9+]+)", match["rest"])
        place = match["patient"], session[1] if session else ""
        if _is_image(name):
            kind = _SUFFIXES[match["suffix"]]
            kind = POST if kind == PRE and "_ce-" in match["rest"] else kind
            sessions[place].images.setdefault(kind, []).append(name)
        elif match["suffix"] in _MASKS and _OTHER.search(match["rest"]):
            passed[name] = "a mask of something else than a tumour"
        elif match["suffix"] in _MASKS:
            sessions[place].masks.append(name)
    return _lend_masks(sessions), passed


def _lend_masks(sessions: dict[tuple[str, str], _Scans]) -> dict[tuple[str, str], _Scans]:
    """A mask whose name has no session goes to the patient's only one."""
    for (patient, session), scans in list(sessions.items()):
        others = [key for key in sessions if key[0] == patient and key[1] and sessions[key].images]
        if not session and not scans.images and len(others) == 1:
            sessions[others[0]].masks.extend(scans.masks)
            del sessions[patient, session]
    return sessions


def _is_image(name: str) -> bool:
    match = _NAME.fullmatch(pairing.find_stem(name)) if finding.is_volume_name(name) else None
    if not match or match["suffix"] not in _SUFFIXES or "derivatives" in name.split("/"):
        return False
    return re.search(rf"(^|/){re.escape(match['patient'])}/(ses-[^/]+/)?anat/[^/]+$", name) is not None
