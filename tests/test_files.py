"""Writes that never leave half a file."""

import hashlib
import os

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
