"""imagesTr, labelsTr and dataset.json: nnU-Net has a file for each sequence, the Medical Decathlon one 4-D file."""

import re
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from brainseg import config
from brainseg.data.layouts import finding
from brainseg.data.layouts.finding import FLAIR, POST, PRE, Found, Listing
from brainseg.data.pairing import PairedFiles
from brainseg.errors import DataError, Problem
from brainseg.io.sequences import CHANNELS

IMAGES, LABELS, FACTS = "imagesTr", "labelsTr", "dataset.json"
_CHANNEL = re.compile(r"(.+)_([0-9]{4})")


def recognise_nnunet(listing: Listing) -> str:
    """Why it is nnU-Net's layout; empty if it is not."""
    return next(
        (
            f"{image}, and {mask} without the channel's number"
            for image, mask in _match(listing)
            if _CHANNEL.fullmatch(finding.stem(image)) and finding.stem(image) != finding.stem(mask)
        ),
        "",
    )


def recognise_decathlon(listing: Listing) -> str:
    """Why it is the layout of the Medical Decathlon; empty if it is not."""
    has_facts = any(PurePosixPath(name).name == FACTS for name in listing.names)
    pairs = ((image, mask) for image, mask in _match(listing) if finding.stem(image) == finding.stem(mask))
    return next((f"{FACTS}, and {image} has the name of {mask}" for image, mask in pairs if has_facts), "")


def read_nnunet(listing: Listing, params: config.Download) -> Found:
    home = finding.only_home(listing, IMAGES)
    facts = finding.read_json(listing.root / home / FACTS)
    masks = _list(listing, home + LABELS)
    cases: dict[str, dict[int, str]] = defaultdict(dict)
    for case, name in _list(listing, home + IMAGES).items():
        if match := _CHANNEL.fullmatch(case):
            cases[match[1]][int(match[2])] = name
    count = 1 + max((number for files in cases.values() for number in files), default=0)
    channels, remarks = _name_channels(facts, count, listing.root / home / FACTS)
    built: list[PairedFiles | Problem] = []
    passed = {home + FACTS: ""}
    for case, numbered in sorted(cases.items()):
        files = {channels.get(number, ""): name for number, name in numbered.items()}
        passed |= {name: f"{kind or 'its channel'} is not used" for kind, name in files.items() if kind not in CHANNELS}
        files = {kind: name for kind, name in files.items() if kind}
        built.append(finding.build_case(case, files, masks.get(case, ""), home + case, any_label=not _ignores(facts)))
    built += _find_lonely(masks, set(cases))
    return finding.sort_out(listing, built, passed, remarks)


def read_decathlon(listing: Listing, params: config.Download) -> Found:
    home = finding.only_home(listing, IMAGES)
    facts = finding.read_json(listing.root / home / FACTS)
    images, masks = _list(listing, home + IMAGES), _list(listing, home + LABELS)
    channels, remarks = _name_channels(facts, 1, listing.root / home / FACTS)
    where = {kind: number for number, kind in channels.items()}
    if FLAIR not in where:
        raise _describe_no_flair(listing.root / home / FACTS, channels)
    order = tuple(where.get(kind, where[FLAIR]) for kind in (PRE, FLAIR, POST))
    volumes = order if len(set(order)) > 1 else order[:1]
    built: list[PairedFiles | Problem] = []
    for case, image in sorted(images.items()):
        each = finding.build_case(case, {FLAIR: image}, masks.get(case, ""), image, any_label=not _ignores(facts))
        if isinstance(each, PairedFiles) and len(channels) > 1:
            each = each._replace(volumes=volumes, sequences=len(channels))
        built.append(each)
    built += _find_lonely(masks, set(images))
    return finding.sort_out(listing, built, {home + FACTS: ""}, remarks)


def _match(listing: Listing) -> list[tuple[str, str]]:
    """Image and mask of each case whose names agree, with or without the number of the channel."""
    pairs = []
    for home in finding.find_homes(listing, IMAGES):
        at = f"{home}/" if home else ""
        masks = _list(listing, at + LABELS)
        for case, image in _list(listing, at + IMAGES).items():
            channel = _CHANNEL.fullmatch(case)
            mask = masks.get(case) or masks.get(channel[1] if channel else "")
            pairs += [(image, mask)] if mask else []
    return pairs


def _list(listing: Listing, folder: str) -> dict[str, str]:
    """Name without ending → file, of the NIfTI files right in a folder."""
    names = (name for name in listing.names if name.rpartition("/")[0] == folder and finding.is_volume(name))
    return {finding.stem(name): name for name in names}


def _name_channels(facts: dict[str, Any], count: int, path: Any) -> tuple[dict[int, str], list[str]]:
    """Number → sequence, or the word itself where it is none; a single channel of another name counts as FLAIR.

    Raises:
        DataError: several channels, and none is named FLAIR.
    """
    words = facts.get("channel_names") or facts.get("modality") or {}
    if not isinstance(words, dict) or not all(str(key).isdecimal() for key in words):
        raise DataError(path, "does not number its channels", 'write "channel_names": {"0": "FLAIR"}')
    named = {int(key): finding.name_sequence(str(word)) or str(word) for key, word in words.items()}
    if not named and count == 1:
        return {0: FLAIR}, [f"there is no {FACTS} that names the channel: it is taken as FLAIR"]
    if len(named) == 1 and finding.name_sequence(word := next(iter(words.values()))) == "":
        return {next(iter(named)): FLAIR}, [f"the channel is named {word}: it is taken as FLAIR"]
    if FLAIR not in named.values():
        raise _describe_no_flair(path, named)
    return named, []


def _describe_no_flair(path: Any, channels: dict[int, str]) -> DataError:
    shown = ", ".join(channels.values())
    what = f"names no channel FLAIR, only {shown}" if shown else "is missing, or does not name the channels"
    return DataError(path, what, 'name them: "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}')


def _ignores(facts: dict[str, Any]) -> bool:
    """Whether a label marks voxels that are to be ignored, which must not count as tumour."""
    labels = facts.get("labels")
    return isinstance(labels, dict) and any(str(part).lower() == "ignore" for pair in labels.items() for part in pair)


def _find_lonely(masks: dict[str, str], cases: set[str]) -> list[Problem]:
    fix = "add the image, or remove the mask"
    return [Problem(name, "is a mask without image", fix) for case, name in masks.items() if case not in cases]
