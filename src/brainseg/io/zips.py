"""Untrusted zips of scans: members are read one by one, within limits. No name of a member ever becomes a path.

The whole directory is checked before the first byte is read. :mod:`brainseg.io.untrusted_zip` does the same for
archives of slices, which have a smaller limit for each file.
"""

import re
import shutil
import stat
import zipfile
from functools import lru_cache
from pathlib import Path

from brainseg.errors import IntegrityError, Problem, raise_all
from brainseg.io.untrusted_zip import DAMAGE_ERRORS

MAX_MEMBERS = 20_000
MAX_MEMBER_BYTES = 2**30  # the largest volume as float64
MAX_TOTAL_BYTES = 3 * 2**30
_CHUNK = 2**20
_FIX = "pack it again with an ordinary zip program, or unpack it and name the folder"


def list_names(path: Path) -> list[str]:
    """The names of the files in a zip, sorted, without hidden files and folders.

    Raises:
        IntegrityError: not a whole zip; every member that its entry in the directory makes unacceptable.
    """
    members = _open(path).infolist()
    if len(members) > MAX_MEMBERS:
        raise IntegrityError(path, f"holds more than {MAX_MEMBERS:,} files", _FIX)
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL_BYTES:
        raise IntegrityError(path, f"unpacks to {total:,} bytes, at most {MAX_TOTAL_BYTES:,} are accepted", _FIX)
    problems = [
        Problem(f"{path}:{member.orig_filename}", what, _FIX) for member in members if (what := _find_fault(member))
    ]
    found = [member.filename for member in members if not member.is_dir()]
    problems += [Problem(f"{path}:{name}", "is there twice", _FIX) for name in set(found) if found.count(name) > 1]
    raise_all(problems, IntegrityError)
    return sorted(name for name in found if not _is_hidden(name))


def unpack(path: Path, name: str, target: Path) -> None:
    """Write one member, named as in ``list_names``, to ``target``.

    Raises:
        IntegrityError: it is damaged, or holds more than the directory says.
    """
    try:
        with _open(path).open(name) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)  # zipfile reads no more than the directory declares
    except (*DAMAGE_ERRORS, KeyError) as error:
        what = f"is damaged ({type(error).__name__})"
        raise IntegrityError(f"{path}:{name}", what, "restore the zip, or pack it again") from None


@lru_cache(maxsize=4)  # each directory is read once, and few files stay open
def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except DAMAGE_ERRORS:
        raise IntegrityError(path, "is not a whole zip archive", "restore it, or pack it again") from None


def _find_fault(member: zipfile.ZipInfo) -> str | None:
    """Why a member is not accepted, by its directory entry alone."""
    name, mode = member.orig_filename, member.external_attr >> 16
    if "\\" in name or "\0" in name:
        return "has a backslash or NUL in its name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or {"..", "."} & set(name.split("/")):
        return "leads out of the zip"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed by a method other than deflate"
    if name.lower().endswith(".zip"):
        return "is an archive within an archive"
    if member.file_size > MAX_MEMBER_BYTES:
        return f"unpacks to {member.file_size:,} bytes, at most {MAX_MEMBER_BYTES:,} are accepted"
    return None


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
