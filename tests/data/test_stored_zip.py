"""Stored archives: the bytes of zipfile, in memory that does not grow; damage is an error."""

import io
import tracemalloc
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from brainseg.data import stored_zip
from brainseg.data.stored_zip import DAMAGE_ERRORS, SpooledDirectory, StoredZip

FOLDERS = {"A": {"A_2.tif": b"two", "A_10.tif": b"ten"}, "A-1": {"1.tif": b""}, "B é": {"ä.tif": b"ae", "a.tif": b"a"}}
INDEX = b'name,text\nA,"a line\nand another"\nB,last'


def write(path: Path, folders: dict[str, dict[str, bytes]] = FOLDERS, comment: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.filelist = SpooledDirectory(io.BytesIO())
        archive.comment = comment
        for folder, members in folders.items():
            for name, data in members.items():
                archive.writestr(stored_zip.describe(f"{folder}/{name}"), data)
            archive.filelist.end_group(archive)
        archive.writestr(stored_zip.describe("index.csv"), INDEX)


def write_by_zipfile(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for folder, members in FOLDERS.items():
            for name, data in members.items():
                archive.writestr(stored_zip.describe(f"{folder}/{name}"), data)
        archive.writestr(stored_zip.describe("index.csv"), INDEX)
        archive.infolist().sort(key=lambda member: (member.filename != "index.csv", member.filename))


def read(path: Path) -> tuple[dict[str, bytes], list[str]]:
    with closing(StoredZip(path)) as archive:
        members = {member.name: archive.read(member) for member in archive.scan()}
        return members, list(archive.read_lines(archive.read_first()))


LIMITS = {"usual": {}, "offsets of 64 bits": {"ZIP64_LIMIT": 60}, "many members": {"ZIP_FILECOUNT_LIMIT": 3}}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_the_bytes_are_those_of_zipfile_and_come_back(tmp_path, monkeypatch, limits):
    """Lower limits make zipfile write what it writes of archives above 2 GiB, or of more than 65,535 members."""
    for name, value in limits.items():
        monkeypatch.setattr(zipfile, name, value)
    write(tmp_path / "ours.zip")
    write_by_zipfile(tmp_path / "plain.zip")
    assert (tmp_path / "ours.zip").read_bytes() == (tmp_path / "plain.zip").read_bytes()
    members, lines = read(tmp_path / "ours.zip")
    expected = {f"{folder}/{name}": data for folder, inside in FOLDERS.items() for name, data in inside.items()}
    assert members == expected | {"index.csv": INDEX}
    assert list(members)[:2] == ["A/A_2.tif", "A/A_10.tif"]  # as they lie, not by name
    assert "".join(lines).encode() == INDEX and len(lines) == 4


def test_the_comment_comes_back(tmp_path):
    write(tmp_path / "a.zip", comment="a note: é".encode())
    with closing(StoredZip(tmp_path / "a.zip")) as archive:
        assert archive.comment.decode() == "a note: é"


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_no_flipped_bit_gives_other_bytes_in_silence(tmp_path, monkeypatch, limits):
    for name, value in limits.items():
        monkeypatch.setattr(zipfile, name, value)
    write(tmp_path / "a.zip")
    whole = read(tmp_path / "a.zip")
    data = (tmp_path / "a.zip").read_bytes()
    refused = 0
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / "b.zip").write_bytes(flipped)
        try:
            found = read(tmp_path / "b.zip")
        except DAMAGE_ERRORS:
            refused += 1
        else:  # a date, or an entry that is not read; a name that is another is one of no row of the index
            assert list(found[0].values()) == list(whole[0].values()) and found[1] == whole[1]
    assert refused > 2 * len(data)


def test_a_shorter_file_is_refused(tmp_path):
    write(tmp_path / "a.zip")
    data = (tmp_path / "a.zip").read_bytes()
    for length in range(len(data)):
        (tmp_path / "b.zip").write_bytes(data[:length])
        with pytest.raises(DAMAGE_ERRORS):
            read(tmp_path / "b.zip")


def test_compressed_members_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.csv", b"a" * 100)
    with pytest.raises(zipfile.BadZipFile, match="no stored member starts at byte 0"):
        read(tmp_path / "a.zip")


def test_memory_does_not_grow_with_the_members(tmp_path):
    folders = {f"{number:04d}": {f"{member:02d}": b"" for member in range(40)} for number in range(500)}
    tracemalloc.start()
    write_peaks = []
    for some in (dict(list(folders.items())[:50]), folders):
        tracemalloc.reset_peak()
        with open(tmp_path / "spool", "w+b") as spool, zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.filelist = SpooledDirectory(spool)
            for folder, members in some.items():
                for name, data in members.items():
                    archive.writestr(stored_zip.describe(f"{folder}/{name}"), data)
                archive.filelist.end_group(archive)
            archive.close()
        write_peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with closing(StoredZip(tmp_path / "a.zip")) as archive:
        assert sum(1 for _ in archive.scan()) == 20_000
    read_peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert write_peaks[1] - write_peaks[0] < 2**18  # of 18,000 members more; zipfile's list takes 10 MiB
    assert read_peak < 2**18
