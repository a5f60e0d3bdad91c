"""Slices that others packed: an untrusted zip or folder, read within limits.

The limits apply to the bytes that are read, not only to the declared sizes. Nothing is read if a name leaves the
folder, two names collide, members overlap, or a member is a link or an archive.
"""

import errno
import itertools
import os
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from brainseg.errors import IntegrityError, MachineError, Problem, raise_all

MAX_MEMBERS = 20_000
MAX_TOTAL_BYTES = 3 * 2**30
MAX_MEMBER_BYTES = 2**20

_FIX = "fetch the archive again from where its authors published it"
_LOCAL_HEADER_BYTES = 30
_UTF8 = 0x800  # the flag of a member whose name is UTF-8
_CP437_TEXT = {*range(0xA6), 0xE1}  # ASCII and the Latin letters of cp437; those of cp1252 lie above
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
# What zipfile raises on damaged or crafted bytes.
DAMAGE_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class UntrustedFiles:
    """Named files in a zip or a folder. ``sizes`` maps each name to its declared bytes."""

    def __init__(self, path: Path, sizes: dict[str, int]):
        self.path, self.sizes = path, sizes
        self._read_bytes = 0
        problems = [self._problem(name, f"holds {size:,} bytes, at most {MAX_MEMBER_BYTES:,} are accepted")
                    for name, size in sizes.items() if size > MAX_MEMBER_BYTES]  # fmt: skip
        if sum(sizes.values()) > MAX_TOTAL_BYTES:
            what = f"holds {sum(sizes.values()):,} bytes, at most {MAX_TOTAL_BYTES:,} are accepted"
            problems.append(Problem(str(path), what, _FIX))
        raise_all(problems, IntegrityError)

    def read(self, name: str) -> bytes:
        """Read the bytes of one file.

        Raises:
            IntegrityError: it is damaged, larger than allowed, or an archive.
        """
        data = self._read(name, MAX_MEMBER_BYTES + 1)
        self._read_bytes += len(data)
        if len(data) > MAX_MEMBER_BYTES or self._read_bytes > MAX_TOTAL_BYTES:
            raise self.error(name, "holds more bytes than are accepted")
        if data.startswith(b"PK\x03\x04"):
            raise self.error(name, "is an archive within an archive")
        return data

    def error(self, name: str, what: str) -> IntegrityError:
        return IntegrityError("", problems=[self._problem(name, what)])

    def _problem(self, name: str, what: str) -> Problem:
        return Problem(f"{self.path}:{name}", what, _FIX)

    def _read(self, name: str, limit: int) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        """Close what a subclass opened."""


class UntrustedFolder(UntrustedFiles):
    """The regular files of a folder. Links to folders are not followed."""

    def __init__(self, path: Path):
        sizes = dict(itertools.islice(_list_files(path), MAX_MEMBERS + 1))  # it may be a whole disk, by mistake
        _check_count(path, len(sizes))
        super().__init__(path, sizes)

    def _read(self, name: str, limit: int) -> bytes:
        try:
            with open(self.path / name, "rb") as handle:
                return handle.read(limit)
        except OSError as error:
            raise _unreadable_error(self.path / name, error) from None


class UntrustedZip(UntrustedFiles):
    """The members of a zip file. Its whole directory is checked before any member is read."""

    def __init__(self, path: Path):
        try:
            self._zip = open_zip(path)
        except DAMAGE_ERRORS as error:
            raise IntegrityError(path, f"{_describe_content(path)} ({error})", _FIX) from None
        except OSError as error:
            if error.errno == errno.EINVAL:  # a seek to a place that damaged bytes name
                raise IntegrityError(path, _describe_content(path), _FIX) from None
            raise _unreadable_error(path, error) from None
        try:
            self.path = path
            super().__init__(path, self._check_members(self._zip.infolist()))
        except IntegrityError:
            self.close()
            raise

    def close(self) -> None:
        self._zip.close()

    def _read(self, name: str, limit: int) -> bytes:
        try:
            with self._zip.open(name) as handle:
                return handle.read(limit)
        except (*DAMAGE_ERRORS, OSError) as error:
            raise self.error(name, f"is damaged ({error})") from None

    def _check_members(self, members: list[zipfile.ZipInfo]) -> dict[str, int]:
        """The declared size of each file; any fault of any member is raised."""
        _check_count(self.path, len(members))
        if not members:
            raise IntegrityError(self.path, "is a zip archive without files", _FIX)
        problems = [self._problem(m.orig_filename, what) for m in members if (what := find_fault(m))]
        problems += [self._problem(b, f"collides with {a}") for a, b in _find_collisions([m.filename for m in members])]
        before = [m.orig_filename for m in members if m.header_offset < 0]
        problems += [self._problem(name, "lies before the archive's beginning") for name in before]
        problems += [self._problem(b, f"overlaps {a}") for a, b in _find_overlaps(members, self._zip.start_dir)]
        raise_all(problems, IntegrityError)
        return {member.filename: member.file_size for member in members if not member.is_dir()}


def open_files(path: Path) -> UntrustedFiles:
    """Open the zip or the folder at ``path``."""
    return UntrustedFolder(path) if path.is_dir() else UntrustedZip(path)


def _check_count(path: Path, count: int) -> None:
    if count > MAX_MEMBERS:
        raise IntegrityError(path, f"holds more than {MAX_MEMBERS:,} files", _FIX)


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip. Its members have the names of ``_read_name``."""
    archive = zipfile.ZipFile(path)
    for member in archive.infolist():
        member.filename = _read_name(member).partition("\0")[0]
    archive.NameToInfo = {member.filename: member for member in archive.infolist()}
    return archive


def _read_name(member: zipfile.ZipInfo) -> str:
    """The name with ``/`` as separator, for which programs on Windows write a backslash.

    A name that is not marked as UTF-8 should be cp437, as which zipfile reads it, but is UTF-8 or cp1252 as well.
    """
    name = member.orig_filename
    if not (name.isascii() or member.flag_bits & _UTF8):
        data = name.encode("cp437")
        coding = "cp437" if set(data) <= _CP437_TEXT else "cp1252"
        for each in ("utf-8", coding):
            with suppress(UnicodeDecodeError):
                name = data.decode(each)
                break
    return name.replace("\\", "/")


def find_fault(member: zipfile.ZipInfo, archives: tuple[str, ...] = _ARCHIVE_SUFFIXES) -> str | None:
    """Why a member is not accepted, by its directory entry alone. ``archives``: how names of archives end."""
    name, mode = _read_name(member), member.external_attr >> 16
    if not name or "\0" in name:
        return "has no name, or NUL in it"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or {"..", "."} & set(name.split("/")):
        return "leads out of the zip"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed by a method other than deflate"
    if name.lower().endswith(archives):
        return "is an archive within an archive"
    return None


def _find_collisions(names: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of names that are one file on some systems: equal, or different only in case or Unicode form."""
    seen: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", name.rstrip("/")).casefold()
        if key in seen:
            yield seen[key], name
        seen[key] = name


def _find_overlaps(members: list[zipfile.ZipInfo], directory: int) -> Iterator[tuple[str, str]]:
    """Pairs of members that share bytes, as in zip bombs that decompress the same bytes many times."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    ends = [m.header_offset + _LOCAL_HEADER_BYTES + len(m.orig_filename) + m.compress_size for m in ordered]
    starts = [member.header_offset for member in ordered[1:]] + [directory]
    following = [member.filename for member in ordered[1:]] + ["the directory"]
    for member, end, start, name in zip(ordered, ends, starts, following, strict=True):
        if end > start:
            yield member.filename, name


def _list_files(root: Path) -> Iterator[tuple[str, int]]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file():
                yield path.relative_to(root).as_posix(), path.stat().st_size


def _unreadable_error(path: Path, error: OSError) -> MachineError:
    return MachineError(path, f"cannot be read ({error.strerror})", "check the path and its permissions")


def _describe_content(path: Path) -> str:
    with open(path, "rb") as handle:
        head = handle.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "is a web page, perhaps a login, and not a zip archive"
    return "is not a whole zip archive"
