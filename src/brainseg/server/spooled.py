"""The names that uploaded files have while they are decoded, and what is said instead of them."""

import re

_NAME = re.compile(r"(/?)upload-([0-9]{4})(\.[a-z]+)?")


def name_file(number: int, ending: str = "") -> str:
    return f"upload-{number:04d}{ending}"


def name_slice(place: int, number: int, ending: str) -> str:
    """The place orders the files, the number is the one that the client's name has."""
    return f"{place:04d}-{number}{ending}"


def read_number(stem: str) -> int:
    """The number in a ``name_slice`` without its ending."""
    return int(stem.partition("-")[2])


def retell(text: str, count: int) -> str:
    """What a person can know of the files: their numbers among ``count``; nothing if there is one."""
    if count == 1:
        return _NAME.sub(lambda found: "" if found[1] else "it", text)
    return _NAME.sub(lambda found: f"{', ' if found[1] else ''}number {int(found[2])} of {count:,}", text)
