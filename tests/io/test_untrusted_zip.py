"""Untrusted zips and folders: one hostile member stops the reading before its first byte."""

import io
import os
import stat
import struct
import zipfile

import pytest

from brainseg.errors import IntegrityError
from brainseg.io import untrusted_zip


def zipped(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def refused(path, member: str) -> str:
    """The error message, which must name ``member``."""
    with pytest.raises(IntegrityError) as caught:
        store = untrusted_zip.open_files(path)
        for name in store.sizes:
            store.read(name)
    assert any(problem.path.endswith(member) for problem in caught.value.problems), caught.value.problems
    return str(caught.value)


def test_zip_and_folder_give_the_same_bytes(tmp_path):
    content = {"a/1.tif": b"one", "a/2.tif": b"two" * 1000}
    (tmp_path / "folder/a").mkdir(parents=True)
    for name, data in content.items():
        (tmp_path / "folder" / name).write_bytes(data)
    for path in (tmp_path / "folder", zipped(tmp_path / "a.zip", {"a/": b"", **content})):
        store = untrusted_zip.open_files(path)
        assert {name: store.read(name) for name in store.sizes} == content
        store.close()


@pytest.mark.parametrize("name", ["../evil.tif", "a/../../evil.tif", "/etc/evil.tif", "C:/evil.tif", "C:evil.tif"])
def test_d2_members_that_leave_the_folder(tmp_path, name):
    refused(zipped(tmp_path / "a.zip", {"fine.tif": b"1", name: b"2"}), name)


@pytest.mark.parametrize(
    "name", ["..\\evil.tif", "a\\..\\..\\evil.tif", "C:\\evil.tif", "\\\\host\\evil.tif", "\\evil.tif"]
)
def test_d2_backslashes_that_leave_the_folder(tmp_path, name):
    assert "leads out of the zip" in refused(zipped(tmp_path / "a.zip", {"fine.tif": b"1", name: b"2"}), name)


def test_d2_a_backslash_is_a_separator_so_two_names_of_one_file_collide(tmp_path):
    assert "collides" in refused(zipped(tmp_path / "a.zip", {"a/1.tif": b"1", "a\\1.tif": b"2"}), "a/1.tif")


def test_zips_made_on_windows_are_read(tmp_path):
    """Backslashes; names in UTF-8 without its mark, in cp437, in cp1252."""
    names = {"ä/é.tif": "utf-8", "Böß.tif": "cp437", "Müller Ø.tif": "cp1252"}
    stored = {f"DICOM\\{name}".replace("/", "\\").encode(coding): name for name, coding in names.items()}
    blanks = {f"{n}".ljust(len(raw), "?"): raw for n, raw in enumerate(stored)}  # of equal length, replaced below
    path = zipped(tmp_path / "a.zip", {"DICOM\\": b""} | {blank: raw for blank, raw in blanks.items()})
    data = path.read_bytes()
    for blank, raw in blanks.items():
        data = data.replace(blank.encode(), raw)
    path.write_bytes(data)
    store = untrusted_zip.open_files(path)
    assert {name: store.read(name) for name in store.sizes} == {f"DICOM/{name}": raw for raw, name in stored.items()}
    store.close()


def test_d2_symlink_and_device(tmp_path):
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        member = zipfile.ZipInfo("a/link.tif")
        member.external_attr = (kind | 0o777) << 16
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(member, "/etc/passwd")
        assert "link or a device" in refused(tmp_path / "a.zip", "a/link.tif")


@pytest.mark.parametrize(
    "names", [("a/X.tif", "a/x.tif"), ("é.tif", "e\u0301.tif"), ("a", "A/")], ids=["case", "form", "folder"]
)
def test_d2_names_that_collide(tmp_path, names):
    assert f"collides with {names[0]}" in refused(zipped(tmp_path / "a.zip", dict.fromkeys(names, b"")), names[1])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_d2_one_name_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.tif", "1")
        archive.writestr("a.tif", "2")
    assert "collides" in refused(tmp_path / "a.zip", "a.tif")


def test_d2_all_bad_members_are_listed_and_nul_is_one(tmp_path):
    path = zipped(tmp_path / "a.zip", {"../1.tif": b"", "/2.tif": b"", "bad.tif!x": b""})
    path.write_bytes(path.read_bytes().replace(b"bad.tif!x", b"bad.tif\0x"))
    with pytest.raises(IntegrityError) as caught:
        untrusted_zip.open_files(path)
    assert len(caught.value.problems) == 3


def test_d3_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted_zip, "MAX_MEMBERS", 3)
    zipped(tmp_path / "a.zip", {f"{n}.tif": b"" for n in range(4)})
    assert "more than 3 files" in refused(tmp_path / "a.zip", "a.zip")
    for n in range(4):
        (tmp_path / f"{n}.tif").write_bytes(b"")
    assert "more than 3 files" in refused(tmp_path, tmp_path.name)


def test_d3_declared_sizes(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", {"large.tif": bytes(2**20 + 1), "fine.tif": bytes(2**20)})
    assert "1,048,577 bytes" in refused(path, "large.tif")
    monkeypatch.setattr(untrusted_zip, "MAX_TOTAL_BYTES", 5)
    assert "6 bytes" in refused(zipped(tmp_path / "b.zip", {"1.tif": b"123", "2.tif": b"456"}), "b.zip")


def test_d3_a_bomb_that_declares_less_than_it_holds(tmp_path):
    """10 MB of zeros, declared as 100 bytes in both headers."""
    path = zipped(tmp_path / "a.zip", {"bomb.tif": bytes(10_000_000)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 10_000_000), struct.pack("<I", 100)))
    assert "damaged" in refused(path, "bomb.tif")


def test_d3_real_bytes_are_counted(tmp_path):
    (tmp_path / "a").mkdir()
    for n in range(3):
        (tmp_path / f"a/{n}.tif").write_bytes(b"1")
    store = untrusted_zip.open_files(tmp_path / "a")
    (tmp_path / "a/0.tif").write_bytes(bytes(2**20 + 1))  # grew after it was listed
    with pytest.raises(IntegrityError, match=r"0\.tif: holds more"):
        store.read("0.tif")
    store._read_bytes = untrusted_zip.MAX_TOTAL_BYTES
    with pytest.raises(IntegrityError, match=r"1\.tif: holds more"):
        store.read("1.tif")


def test_d3_overlapping_members(tmp_path):
    """Two directory entries for one local file, as in a zip bomb."""
    path = zipped(tmp_path / "a.zip", {"1.tif": b"x" * 1000, "2.tif": b"x" * 1000})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    path.write_bytes(data)
    assert "overlaps" in refused(path, "2.tif")


def test_d3_nested(tmp_path):
    inner = io.BytesIO()
    zipped(inner, {"a.tif": b"1"})
    assert "archive within" in refused(zipped(tmp_path / "a.zip", {"inner.zip": b""}), "inner.zip")
    assert "archive within" in refused(zipped(tmp_path / "b.zip", {"inner.tif": inner.getvalue()}), "inner.tif")


def test_d1_what_is_no_whole_zip_says_what_it_looks_like(tmp_path):
    whole = zipped(tmp_path / "a.zip", {"a.tif": os.urandom(1000)}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:600])
    (tmp_path / "page.zip").write_bytes(b"\n<!DOCTYPE html><title>Sign in</title>")
    assert "not a whole zip" in refused(tmp_path / "cut.zip", "cut.zip")
    assert "web page" in refused(tmp_path / "page.zip", "page.zip")


def test_d1_an_empty_zip(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\5\6" + bytes(18))
    assert "without files" in refused(tmp_path / "a.zip", "a.zip")


@pytest.mark.parametrize(("field", "member", "what"), [(-6, "a.tif", "before the"), (-10, "a.zip", "not a whole zip")])
def test_d1_offsets_before_the_beginning(tmp_path, field, member, what):
    """The directory is declared 1,000 bytes late, so its member is at -1,000; or long, so it is at -1,000 itself."""
    data = bytearray(zipped(tmp_path / "a.zip", {"a.tif": b"a"}).read_bytes())
    [declared] = struct.unpack_from("<I", data, len(data) + field)
    struct.pack_into("<I", data, len(data) + field, declared + 1000)
    (tmp_path / "a.zip").write_bytes(data)
    assert what in refused(tmp_path / "a.zip", member)


def test_d1_a_flipped_byte_names_its_member(tmp_path):
    data = bytearray(zipped(tmp_path / "a.zip", {"a.tif": os.urandom(1000), "b.tif": b"b"}).read_bytes())
    data[500] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    assert "damaged" in refused(tmp_path / "a.zip", "a.tif")


def test_links_to_folders_and_fifos_are_no_files(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.tif").write_bytes(b"a")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    os.mkfifo(tmp_path / "data/pipe.tif")
    assert list(untrusted_zip.open_files(tmp_path / "data").sizes) == ["a.tif"]
