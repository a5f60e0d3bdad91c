"""DICOMDIR: the list of the DICOM files on a medium. The files are found without it; it tells which are missing."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from brainseg.errors import BrainsegError, guard
from brainseg.io.dicom import slice_header

NAME = "DICOMDIR"
_PART = re.compile("[A-Z0-9_]{1,8}")  # of the name of a file, by the standard; other text is not shown


def is_one(path: Path) -> bool:
    """Whether a file of this name is a DICOMDIR."""
    return path.name.upper() == NAME


def find_missing(path: Path) -> list[Path]:
    """Files that a DICOMDIR names and that are not there; none if it cannot be read."""
    missing: list[Path] = []
    with suppress(BrainsegError), guard(path):
        dataset, _ = slice_header.read_dataset(path, str(path), ("DirectoryRecordSequence",))
        for record in dataset.get("DirectoryRecordSequence") or ():
            parts = _read_parts(record)
            if parts and not any(path.parent.joinpath(*names).exists() for names in (parts, [*map(str.lower, parts)])):
                missing.append(path.parent.joinpath(*parts))
    return missing


def _read_parts(record: Any) -> list[str]:
    """The folders and the name of the file of a record; nothing if it names none, or no proper one."""
    value = record.get("ReferencedFileID") or ()
    parts = [value] if isinstance(value, str) else [str(part) for part in value]
    return parts if all(map(_PART.fullmatch, parts)) else []
