"""imagesTr, labelsTr and dataset.json: nnU-Net has a file for each sequence, the Medical Decathlon one 4-D file."""

import re
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from brainseg import config
from brainseg.data.layouts import finding, pairing
from brainseg.data.layouts.finding import FLAIR, POST, PRE, Found, Listing
from brainseg.data.layouts.pairing import PairedFiles
from brainseg.errors import DataError, Problem
from brainseg.io.sequences import CHANNELS

IMAGES, LABELS, FACTS = "imagesTr", "labelsTr", "dataset.json"
_CHANNEL = re.compile(r"(.+)_([0-9]{4})")
_GENERIC = re.compile(r"((mri?|image|img|scan|volume|channel|sequence|brain|noname|[0-9])[-_ ]*)*", re.IGNORECASE)
_TUMOUR = re.compile(r"tumou?r|lesion|glioma|metasta|o?edema|enhanc|necro|core|hyperintens", re.IGNORECASE)
_NO_TUMOUR = re.compile(
    r"ignore|brain|gr[ae]y|white|csf|cerebrospinal|ventric|healthy|normal|skull|scalp|cavity|resection|other|vessel",
    re.IGNORECASE,
)


def recognise_nnunet(listing: Listing) -> str:
    """Why it is nnU-Net's layout; empty if it is not."""
    return next(
        (
            f"{image}, and {mask} without the channel's number"
            for image, mask in _match(listing)
            if _CHANNEL.fullmatch(pairing.find_stem(image)) and pairing.find_stem(image) != pairing.find_stem(mask)
        ),
        "",
    )


def recognise_decathlon(listing: Listing) -> str:
    """Why it is the layout of the Medical Decathlon; empty if it is not."""
    has_facts = any(PurePosixPath(name).name == FACTS for name in listing.names)
    pairs = ((image, mask) for image, mask in _match(listing) if pairing.find_stem(image) == pairing.find_stem(mask))
    return next((f"{FACTS}, and {image} has the name of {mask}" for image, mask in pairs if has_facts), "")


def read_nnunet(listing: Listing, params: config.Download) -> Found:
    home = finding.only_home(listing, IMAGES)
    facts = finding.read_json(listing.root / home / FACTS)
    (images, doubles), (masks, more) = _list(listing, home + IMAGES), _list(listing, home + LABELS)
    cases: dict[str, dict[int, str]] = defaultdict(dict)
    for case, name in images.items():
        if match := _CHANNEL.fullmatch(case):
            cases[match[1]][int(match[2])] = name
    count = 1 + max((number for files in cases.values() for number in files), default=0)
    channels, remarks = _name_channels(facts, count, listing.root / home / FACTS)
    labels, told = _read_labels(facts)
    built: dict[str, PairedFiles | Problem] = {}
    passed = {home + FACTS: ""}
    for case, numbered in sorted(cases.items()):
        files = {channels.get(number, ""): name for number, name in numbered.items()}
        passed |= {name: f"{kind or 'its channel'} is not used" for kind, name in files.items() if kind not in CHANNELS}
        files = {kind: name for kind, name in files.items() if kind}
        built[case] = finding.build_case(case, files, masks.get(case, ""), home + case, **labels)
    own = {case: [*numbered.values(), *filter(None, [masks.get(case)])] for case, numbered in cases.items()}
    kept, later = finding.keep_one_scan(built, own, every=bool(params.patients))
    kept += [*doubles, *more, *pairing.find_lonely(masks, cases)]
    return finding.sort_out(listing, kept, passed | later, remarks + told)


def read_decathlon(listing: Listing, params: config.Download) -> Found:
    home = finding.only_home(listing, IMAGES)
    facts = finding.read_json(listing.root / home / FACTS)
    (images, doubles), (masks, more) = _list(listing, home + IMAGES), _list(listing, home + LABELS)
    channels, remarks = _name_channels(facts, 1, listing.root / home / FACTS)
    where = {kind: number for number, kind in channels.items()}
    if FLAIR not in where:
        raise _describe_no_flair(listing.root / home / FACTS, channels)
    order = tuple(where.get(kind, where[FLAIR]) for kind in (PRE, FLAIR, POST))
    volumes = order if len(set(order)) > 1 else order[:1]
    labels, told = _read_labels(facts)
    built: dict[str, PairedFiles | Problem] = {}
    for case, image in sorted(images.items()):
        each = finding.build_case(case, {FLAIR: image}, masks.get(case, ""), image, **labels)
        if isinstance(each, PairedFiles) and len(channels) > 1:
            each = each._replace(volumes=volumes, sequences=len(channels))
        built[case] = each
    own = {case: [image, *filter(None, [masks.get(case)])] for case, image in images.items()}
    kept, later = finding.keep_one_scan(built, own, every=bool(params.patients))
    kept += [*doubles, *more, *pairing.find_lonely(masks, images)]
    return finding.sort_out(listing, kept, {home + FACTS: ""} | later, remarks + told)


def _match(listing: Listing) -> list[tuple[str, str]]:
    """Image and mask of each case whose names agree, with or without the number of the channel."""
    pairs = []
    for home in finding.find_homes(listing, IMAGES):
        at = f"{home}/" if home else ""
        masks = _list(listing, at + LABELS)[0]
        for case, image in _list(listing, at + IMAGES)[0].items():
            channel = _CHANNEL.fullmatch(case)
            mask = masks.get(case) or masks.get(channel[1] if channel else "")
            pairs += [(image, mask)] if mask else []
    return pairs


def _list(listing: Listing, folder: str) -> tuple[dict[str, str], list[Problem]]:
    """Name without ending → file, of the volumes right in a folder, and those whose name is taken."""
    names = (name for name in listing.names if name.rpartition("/")[0] == folder and finding.is_volume_name(name))
    return finding.keep_first((pairing.find_stem(name), name) for name in names)


def _name_channels(facts: dict[str, Any], count: int, path: Any) -> tuple[dict[int, str], list[str]]:
    """Number → sequence, or the word itself where it is none; a single channel that only says image counts as FLAIR.

    Raises:
        DataError: several channels, and none is named FLAIR.
    """
    words = facts.get("channel_names") or facts.get("modality") or {}
    if not isinstance(words, dict) or not all(re.fullmatch("[0-9]{1,4}", key) for key in words):
        raise DataError(path, "does not number its channels", 'write "channel_names": {"0": "FLAIR"}')
    named = {int(key): finding.name_sequence(str(word)) or str(word) for key, word in words.items()}
    if not named and count == 1:
        return {0: FLAIR}, [f"there is no {FACTS} that names the channel: it is taken as FLAIR"]
    if len(named) == 1 and _GENERIC.fullmatch(word := str(next(iter(words.values())))):
        return {next(iter(named)): FLAIR}, [f"the channel is named {word}: it is taken as FLAIR"]
    if FLAIR not in named.values():
        raise _describe_no_flair(path, named)
    return named, []


def _describe_no_flair(path: Any, channels: dict[int, str]) -> DataError:
    shown = ", ".join(channels.values())
    what = f"names no channel FLAIR, only {shown}" if shown else "is missing, or does not name the channels"
    return DataError(path, what, 'name them: "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}')


def _read_labels(facts: dict[str, Any]) -> tuple[dict[str, bool], list[str]]:
    """What build_case is told of labels, and a remark that names them: all are tumour, unless some plainly are not."""
    labels = facts.get("labels")
    pairs = labels.items() if isinstance(labels, dict) else ()
    each = [(name, label) if not str(name).isdecimal() else (label, name) for name, label in map(_to_text, pairs)]
    named = {name: label for name, label in each if label != "0" and name.lower() != "background"}
    others = [name for name in named if _NO_TUMOUR.search(name) and not _TUMOUR.search(name)]
    shown = ", ".join(f"{label} ({name})" for name, label in list(named.items())[:8])
    if others:
        remark = f"{FACTS} has labels that are no tumour, so preprocess.foreground must name those that are: {shown}"
        return {"mixed": True}, [remark]
    return {"any_label": True}, [f"labels of {FACTS} that are taken as tumour: {shown}"] if named else []


def _to_text(pair: tuple[Any, Any]) -> tuple[str, str]:
    return str(pair[0]), str(pair[1])
