"""Folders to the bottom, also those that links lead to, each read once."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class PassedOver(NamedTuple):
    """What is not read. ``kind``: a word to count it by, such as hidden or link. ``why``: follows the label."""

    label: str
    kind: str
    why: str


class Folder(NamedTuple):
    """A folder, the names of the folders in it and of everything else, sorted; what is hidden is left out."""

    path: Path
    folders: list[str]
    names: list[str]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden: by a dot, or what macOS puts beside others in a zip."""
    return name.startswith((".", "__MACOSX"))


class Walk:
    """One pass through folders. ``unread``: the errors of folders that cannot be listed.

    Args:
        skip: a folder to leave out wherever it lies.
    """

    def __init__(self, skip: Path | None = None):
        self.unread: list[OSError] = []
        self.passed: list[PassedOver] = []
        self._skip = os.path.realpath(skip) if skip else None
        self._reached: dict[str, Path] = {}  # real path → the path by which it was reached first

    def folders(self, tops: Iterable[Path]) -> Iterator[Folder]:
        """All folders at and below ``tops``. Links come last, so that a folder is read where it lies, if it is there.

        A link to a folder that it lies in, and a folder that was reached before, are passed over.
        """
        waiting = deque(tops)
        while waiting:
            for place, folders, names in os.walk(waiting.popleft(), onerror=self.unread.append):
                here = Path(place)
                if not self._enter(here):
                    folders.clear()
                    continue
                inside = [here / name for name in sorted(folders) if self._is_shown(here / name)]
                inside = [path for path in inside if not self._skip or os.path.realpath(path) != self._skip]
                links = [path for path in inside if path.is_symlink()]
                waiting += [path for path in links if not self._is_loop(path)]
                folders[:] = [path.name for path in inside if path not in links]
                yield Folder(
                    here,
                    [path.name for path in inside],
                    [name for name in sorted(names) if self._is_shown(here / name)],
                )

    def _enter(self, folder: Path) -> bool:
        first = self._reached.setdefault(os.path.realpath(folder), folder)
        if os.path.abspath(first) == os.path.abspath(folder):
            return True
        self.passed.append(PassedOver(str(folder), "link", f"is the same folder as {first}, which is read"))
        return False

    def _is_loop(self, link: Path) -> bool:
        target, home = Path(os.path.realpath(link)), Path(os.path.realpath(link.parent))
        if is_loop := home.is_relative_to(target):
            self.passed.append(PassedOver(str(link), "link", "is a link to a folder that it lies in"))
        return is_loop

    def _is_shown(self, path: Path) -> bool:
        if is_hidden(path.name):
            self.passed.append(PassedOver(str(path), "hidden", "is hidden"))
            return False
        return True
