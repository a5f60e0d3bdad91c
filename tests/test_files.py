"""Writes that never leave half a file."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from brainseg import files


def test_replacing_keeps_the_old_file_when_the_body_fails(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.name != "root"] == ["a.txt"]


def test_replacing_a_folder(tmp_path):
    path = tmp_path / "plots"
    for name in ("one", "two"):
        with files.replacing(path) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [p.name for p in path.iterdir()] == ["two"]


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(IsADirectoryError, match="a file was to be written"):
        files.write_text(tmp_path / "mine", "page")
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"


def test_text_has_the_same_bytes_everywhere(tmp_path):
    files.write_text(tmp_path / "a", "ä\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa4\n"
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"\xc3\xa4\n").hexdigest()


def test_free_bytes_of_a_path_that_is_not_there(tmp_path):
    assert files.free_bytes(tmp_path / "no" / "such") > 0


def test_what_a_killed_writer_left_is_removed(tmp_path):
    gone, alive = tmp_path / ".a.txt.999999999.x", tmp_path / f".a.txt.{os.getpid()}.y"
    gone.mkdir()
    alive.mkdir()
    files.write_text(tmp_path / "a.txt", "new")
    assert not gone.exists()
    assert alive.exists()


def test_what_a_killed_writer_of_the_same_number_left_is_removed(tmp_path):
    """In a container each run has the same process number."""
    left = tmp_path / f".a.txt.{os.getpid()}.x"
    left.mkdir()
    os.utime(left, (1e9, 1e9))
    files.write_text(tmp_path / "a.txt", "new")
    assert not left.exists()


def test_a_temporary_is_known_by_its_name():
    assert files.is_temporary(".a.nii.gz.12.x_9", "a.nii.gz")
    for name in ("a.nii.gz.12.x", ".a.nii.gz.x.y", ".b.nii.gz.12.x", ".a.nii.gz"):
        assert not files.is_temporary(name, "a.nii.gz")


def write_to(path: str) -> None:
    with open(path, "w") as full:
        full.write("x")


def fail_to_count() -> None:
    """As NumPy does."""
    raise OSError("1000 requested and 0 written")


def fail_in_the_temporary(temporary: Path) -> None:
    raise OSError(errno.ENOSPC, "no space", str(temporary))


@pytest.mark.parametrize("fail", [lambda _: write_to("/dev/full"), lambda _: fail_to_count(), fail_in_the_temporary])
def test_a_full_disk_is_named_by_the_file_that_was_to_be(fail, tmp_path, monkeypatch):
    """Full of what is half written: when that is removed there is space again."""
    monkeypatch.setattr(files, "free_bytes", lambda _: 0 if list(tmp_path.glob(".a.npy.*")) else 10**9)
    with pytest.raises(OSError) as caught, files.replacing(tmp_path / "a.npy") as temporary:
        fail(temporary)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.npy"))


def test_an_error_of_another_file_or_kind_is_left_as_it_is(tmp_path):
    elsewhere = OSError(errno.ENOSPC, "a log, or a file in the folder for temporary ones; here is space")
    for error in (
        OSError(errno.ENOSPC, "full", "/other"),
        elsewhere,
        OSError(errno.EACCES, "no"),
        OSError("odd"),
        KeyError(),
    ):
        with pytest.raises(type(error)) as caught, files.replacing(tmp_path / "a.npy"):
            raise error
        assert caught.value is error


def test_a_hard_link_becomes_a_copy_that_can_be_written_to(tmp_path):
    held, path = tmp_path / "held", tmp_path / "data.npy"
    held.write_bytes(b"images")
    held.chmod(0o444)
    path.hardlink_to(held)
    files.give_own_copy(path)
    path.write_bytes(b"other")
    assert held.read_bytes() == b"images" and path.stat().st_mode & 0o600 == 0o600
    before = path.stat()
    files.give_own_copy(path)
    assert path.stat().st_ino == before.st_ino  # nothing to do


def test_without_space_for_a_copy_a_hard_link_stays(tmp_path, monkeypatch):
    held, path = tmp_path / "held", tmp_path / "data.npy"
    held.write_bytes(b"images")
    path.hardlink_to(held)
    monkeypatch.setattr(files.shutil, "copyfile", lambda *_: fail_in_the_temporary(path))
    files.give_own_copy(path)
    assert path.samefile(held) and not list(tmp_path.glob(".data.npy.*"))
