"""Untrusted zips of scans: members are read one by one, within limits. No name of a member becomes a path by itself:
only the voxels that a header names keep their name when they are unpacked, which :mod:`brainseg.io.itk` has checked.

The whole directory is checked before the first byte is read. :mod:`brainseg.io.untrusted_zip` does the same for
archives of slices, which have a smaller limit for each file.
"""

import shutil
import zipfile
from collections import Counter
from functools import lru_cache
from pathlib import Path

from brainseg.errors import IntegrityError, Problem, guard, raise_all
from brainseg.io import folders
from brainseg.io.untrusted_zip import DAMAGE_ERRORS, find_fault, open_zip

MAX_MEMBERS = 20_000
MAX_MEMBER_BYTES = 2**30  # the largest volume as float64
MAX_TOTAL_BYTES = 3 * 2**30
_CHUNK = 2**20
_RESTORE = "restore it, or pack it again"
_FIX = "pack it again with an ordinary zip program, or unpack it and name the folder"


def list_names(path: Path) -> list[str]:
    """The names of the files in a zip, sorted; see ``is_hidden``.

    Raises:
        IntegrityError: not a whole zip; every member that its entry in the directory makes unacceptable.
    """
    members = _open(path).infolist()
    if len(members) > MAX_MEMBERS:
        raise IntegrityError(path, f"holds more than {MAX_MEMBERS:,} files", _FIX)
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL_BYTES:
        raise IntegrityError(path, f"unpacks to {total:,} bytes, at most {MAX_TOTAL_BYTES:,} are accepted", _FIX)
    faults = [(member, _find_fault(member)) for member in members]
    problems = [Problem(f"{path}:{member.orig_filename}", what, _FIX) for member, what in faults if what]
    found = Counter(member.filename for member, what in faults if not (what or member.is_dir()))
    problems += [Problem(f"{path}:{name}", "is there twice", _FIX) for name in found if found[name] > 1]
    raise_all(problems, IntegrityError)
    return sorted(found)


def unpack(path: Path, name: str, target: Path) -> None:
    """Write one member, named as in ``list_names``, to ``target``.

    Raises:
        IntegrityError: it is damaged, or holds more than the directory says.
    """
    archive = _open(path)
    with (
        guard(f"{path}:{name}", "restore the zip, or pack it again", IntegrityError),
        archive.open(name) as source,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(source, file, _CHUNK)  # zipfile reads no more than the directory declares


@lru_cache(maxsize=4)  # each directory is read once, and few files stay open
def _open(path: Path) -> zipfile.ZipFile:
    with guard(path, _RESTORE, IntegrityError):
        try:
            return open_zip(path)
        except DAMAGE_ERRORS:
            raise IntegrityError(path, "is not a whole zip archive", _RESTORE) from None


def _find_fault(member: zipfile.ZipInfo) -> str | None:
    if member.file_size > MAX_MEMBER_BYTES:
        return f"unpacks to {member.file_size:,} bytes, at most {MAX_MEMBER_BYTES:,} are accepted"
    return find_fault(member, archives=(".zip",))  # a .nii.gz is a volume


def is_hidden(name: str) -> bool:
    """Whether the file or a folder in its name is hidden."""
    return any(map(folders.is_hidden, name.split("/")))
