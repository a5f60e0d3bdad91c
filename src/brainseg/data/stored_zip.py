"""Zip archives whose members are stored without compression, written and read in memory that hardly grows with them.

``zipfile`` holds the entry of every member, about a kilobyte each, while it writes and while it reads. Here entries
wait on disk until the directory is written, and members are read in the order in which they lie, by the headers before
them.
The format: APPNOTE.TXT of PKWARE, sections 4.3.7 (local header) to 4.3.16 (end of the directory).
"""

import json
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

# What reading raises on damaged or crafted bytes.
DAMAGE_ERRORS = (zipfile.BadZipFile, struct.error, ValueError)
DATE = (1980, 1, 1, 0, 0, 0)
_REGULAR_0644 = 0o100644 << 16
_UTF8 = 0x800  # the flag of a member whose name is UTF-8; other names are ASCII here
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCATOR64 = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LONGEST_COMMENT = 2**16
_HEADER = 512  # bytes that hold a local header, and nearly every name
_BLOCK = 2**16  # bytes of text that are read at a time
_IN_64_BITS = 2**32 - 1  # in place of a number that does not fit into 32


def describe(name: str) -> zipfile.ZipInfo:
    """A member of this name as these archives have it: dated 1980-01-01, mode 0644, stored."""
    member = zipfile.ZipInfo(name, DATE)
    member.create_system = 3  # Unix, also when written on Windows
    member.external_attr = _REGULAR_0644
    return member


class SpooledDirectory:
    """Entries of a zip that is being written, in a file: takes the place of ``ZipFile.filelist``.

    Members come in groups, a folder each; iterated over, the entries are sorted by name.

    Args:
        file: empty, open to write and read bytes.
    """

    def __init__(self, file: IO[bytes]):
        self._file, self._count = file, 0
        self._group: list[zipfile.ZipInfo] = []
        self._starts: list[tuple[str, int]] = []  # a group's first name, and where it is in the file

    def append(self, member: zipfile.ZipInfo) -> None:
        """Called by ``ZipFile`` when a member is written."""
        self._group.append(member)
        self._count += 1

    def end_group(self, archive: zipfile.ZipFile) -> None:
        """Move the entries since the last group into the file, and let ``archive`` forget them."""
        entries = sorted((each.filename, each.CRC, each.file_size, each.header_offset) for each in self._group)
        if entries:
            start = self._file.tell()
            self._file.write(json.dumps(entries).encode() + b"\n")
            self._starts.append((entries[0][0], start))
        self._group.clear()
        archive.NameToInfo.clear()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[zipfile.ZipInfo]:
        yield from self._group  # what is in no folder comes first
        for _, start in sorted(self._starts):
            self._file.seek(start)
            for name, crc, size, offset in json.loads(self._file.readline()):
                member = describe(name)
                member.CRC, member.file_size, member.compress_size, member.header_offset = crc, size, size, offset
                yield member


class Member(NamedTuple):
    """Where the bytes of a member are, from the archive's first, and their CRC-32."""

    name: str
    start: int
    size: int
    crc: int


class StoredZip:
    """An archive to read, by several threads if need be.

    Raises:
        BadZipFile, or another of ``DAMAGE_ERRORS``: it is damaged, or holds a member that is compressed. Methods too.
    """

    def __init__(self, path: Path):
        self._lock = threading.Lock()
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # until it is closed
        try:
            self._size = path.stat().st_size
            self._directory, self.comment = self._find_directory()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def read_first(self) -> Member:
        """The first member by name."""
        entry = self._read(self._directory, _ENTRY.size)
        found = _ENTRY.unpack(entry)
        name_size, extra_size, offset = found[10], found[11], found[-1]
        if found[0] != b"PK\1\2":
            raise zipfile.BadZipFile("its directory is damaged")
        if offset == _IN_64_BITS:  # then the extra field holds nothing else: no size of these archives needs it
            if extra_size != 12:
                raise zipfile.BadZipFile("its directory is damaged")
            (offset,) = struct.unpack("<4xQ", self._read(self._directory + _ENTRY.size + name_size, extra_size))
        return self._read_header(offset)

    def scan(self) -> Iterator[Member]:
        """All members in the order in which they lie."""
        at = 0
        while at < self._directory:
            member = self._read_header(at)
            yield member
            at = member.start + member.size

    def read(self, member: Member) -> bytes:
        """The bytes of a member."""
        data = self._read(member.start, member.size)
        _check(member, zlib.crc32(data))
        return data

    def read_lines(self, member: Member) -> Iterator[str]:
        """The lines of a member that is text, each with its end. That they are whole is known after the last."""
        at, end, crc, rest = member.start, member.start + member.size, 0, b""
        while at < end:
            block = self._read(at, min(_BLOCK, end - at))
            crc, at = zlib.crc32(block, crc), at + len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from (f"{line.decode()}\n" for line in lines)
        if rest:
            yield rest.decode()
        _check(member, crc)

    def _read(self, at: int, size: int) -> bytes:
        """So many bytes from there on."""
        if at + size <= self._size:
            with self._lock:
                self._file.seek(at)
                data = self._file.read(size)
            if len(data) == size:
                return data
        raise zipfile.BadZipFile(f"it ends before byte {at + size:,}")

    def _read_header(self, at: int) -> Member:
        header = self._read(at, min(_HEADER, max(0, self._directory - at)))
        mark, _, flags, method, _, _, crc, packed, size, name_size, extra_size = _LOCAL.unpack_from(header)
        start = at + _LOCAL.size + name_size + extra_size
        if mark != b"PK\3\4" or method or flags & ~_UTF8 or packed != size or start + size > self._directory:
            raise zipfile.BadZipFile(f"no stored member starts at byte {at:,}")
        name = self._read(at + _LOCAL.size, name_size) if name_size > _HEADER - _LOCAL.size else header[_LOCAL.size :]
        return Member(name[:name_size].decode("utf-8" if flags & _UTF8 else "ascii"), start, size, crc)

    def _find_directory(self) -> tuple[int, bytes]:
        """Where the directory starts, and the comment after it."""
        before = max(0, self._size - _LOCATOR64.size - _END.size - _LONGEST_COMMENT)
        tail = self._read(before, self._size - before)
        end = tail.rfind(b"PK\5\6")
        if end < 0:
            raise zipfile.BadZipFile("it has no directory")
        *_, size, start, comment_size = _END.unpack_from(tail, end)
        comment, after = tail[end + _END.size :], before + end
        locator = tail[max(0, end - _LOCATOR64.size) : end]
        if locator.startswith(b"PK\6\7"):
            after = _LOCATOR64.unpack(locator)[2]
            mark, *_, size, start = _END64.unpack(self._read(after, _END64.size))
            if mark != b"PK\6\6":
                raise zipfile.BadZipFile("the end of its directory is damaged")
        if start + size != after or len(comment) != comment_size:
            raise zipfile.BadZipFile("its directory is not where its end says")
        return start, comment


def _check(member: Member, crc: int) -> None:
    if crc != member.crc:
        raise zipfile.BadZipFile(f"bad CRC-32 for {member.name}")
