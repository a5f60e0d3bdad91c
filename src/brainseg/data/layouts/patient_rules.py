"""Which patient an image is of, as ``download.patient`` finds it in the path."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TypeVar

K = TypeVar("K")
Key = tuple[str, ...]  # the folders that wildcards match, then what they match in the name

_BIDS = re.compile(r"(sub-[A-Za-z0-9+]+)((?:_[a-z]+-[A-Za-z0-9+]+)*)_[A-Za-z0-9]+")


def is_expression(rule: str) -> bool:
    """Whether ``download.patient`` is a regular expression."""
    return rule not in ("folder", "each_image", "each_volume")


def find_patients(images: Mapping[Key, str], rule: str, base: str = "") -> dict[Key, str]:
    """Key → the patient's id, empty if ``rule`` finds none.

    Args:
        images: key → path.
        base: folder, ending in ``/``, from which on a regular expression sees the path.
    """
    if rule in ("each_image", "each_volume"):
        return name_each(images)
    if is_expression(rule):
        return {key: match_patient(image.removeprefix(base), rule) for key, image in images.items()}
    return {key: _name_by_folder(key, image) for key, image in images.items()}


def match_patient(image: str, expression: str) -> str:
    """What the group of a regular expression matches in the path, empty if nothing."""
    match = re.search(expression, image)
    return (match[1] or "").replace("/", "_") if match else ""


def name_each(images: Mapping[Key, str]) -> dict[Key, str]:
    """A name for each image, which is of another patient: no part of it twice, as long as all names differ."""
    for names in (name_subjects(images), _join_once(images)):
        if names and len(set(names.values())) == len(names):
            return names
    return {key: "_".join(_list_parts(key)) for key in images}


def name_subjects(images: Mapping[K, str]) -> dict[K, str]:
    """Key → ``sub-01``, with ``_ses-2_run-1`` where a subject has several images; empty if any is not named by BIDS."""
    found = {key: match for key, image in images.items() if (match := _match_bids(image))}
    counts = Counter(match[1] for match in found.values())
    names = {key: match[1] if counts[match[1]] == 1 else match[1] + match[2] for key, match in found.items()}
    return names if len(names) == len(images) else {}


def find_subjects(images: Mapping[K, str]) -> dict[K, str]:
    """Key → ``sub-01``, the same for all sessions and runs of a subject; empty if any is not named by BIDS."""
    found = {key: match[1] for key, image in images.items() if (match := _match_bids(image))}
    return found if len(found) == len(images) else {}


def find_shared_subjects(images: Mapping[K, str]) -> list[str]:
    """The subjects of BIDS that have several images."""
    counts = Counter(match[1] for match in map(_match_bids, images.values()) if match)
    return sorted(name for name, count in counts.items() if count > 1)


def _name_by_folder(key: Key, image: str) -> str:
    """The last folder that wildcards match; of ``sub-01/anat`` in BIDS the subject."""
    match = _match_bids(image)
    return match[1] if match and match[1] in PurePosixPath(image).parts[:-1] else PurePosixPath(key[0]).name


def _join_once(images: Mapping[Key, str]) -> dict[Key, str]:
    """All parts of each key but those that a later part begins with; empty unless these are the same in every key."""
    parts = {key: _list_parts(key) for key in images}
    again = {tuple(n for n, part in enumerate(own) if _is_repeated(part, own[n + 1 :])) for own in parts.values()}
    if len(again) != 1:
        return {}
    (dropped,) = again
    return {key: "_".join(part for n, part in enumerate(own) if n not in dropped) for key, own in parts.items()}


def _is_repeated(part: str, later: list[str]) -> bool:
    return any(re.match(rf"{re.escape(part)}(?![A-Za-z0-9])", each) for each in later)


def _list_parts(key: Key) -> list[str]:
    return [part for each in key for part in each.split("/") if part]


def _match_bids(image: str) -> re.Match[str] | None:
    return _BIDS.fullmatch(PurePosixPath(image).name.partition(".")[0])
