"""The folder of results: what is damaged is outlined again, and nothing else."""

import errno
import json

import pytest

from brainseg.errors import DataError
from brainseg.predict import output
from brainseg.predict.output import JOURNAL, LOCK, SUMMARY, Record, open_folder

NAMES = ("a", "b", "c")


def answer(folder, name: str, digest: str = "1", text: str = "mask") -> None:
    written = [f"masks/{name}.png", f"overlays/{name}.png"]
    for path in written:
        folder.place(path).write_text(f"{text} of {name}")
    row = dict.fromkeys(output.COLUMNS, "") | {"case": name, "slices": 1, "slices_with_tumour": 1, "area_pixels": 4711}
    folder.add(
        Record(name, f"flair: file /in/{name}.png", "model", digest, written, row, lesions=[{"lesion": 1, "voxels": 9}])
    )


@pytest.fixture
def out(tmp_path):
    """Three cases are answered."""
    with open_folder(tmp_path / "out") as folder:
        for name in NAMES:
            answer(folder, name)
        folder.write_summary()
    return tmp_path / "out"


def kept(out, digest: str = "1") -> set[str]:
    """The cases that a further run does not outline again; it writes the summary too."""
    with open_folder(out) as folder:
        folder.write_summary()
        return {name for name in NAMES if folder.kept(name, "model", digest)}


def change(out, edit) -> None:
    """Edit the line of case b."""
    lines = (out / JOURNAL).read_bytes().split(b"\n")
    lines[2] = edit(lines[2])
    (out / JOURNAL).write_bytes(b"\n".join(lines))


DAMAGE = {
    "cut": lambda line: line[:-20],
    "another number": lambda line: line.replace(b"4711", b"4712"),
    "another digest": lambda line: line.translate(bytes.maketrans(b"0123", b"1032"))[:64] + line[64:],
    "no UTF-8": lambda line: line.replace(b"4711", b"\xff711"),
    "a line end within": lambda line: line.replace(b"masks", b"\nasks"),
    "not ours": lambda _: b'{"name": "b"}',
    "a row that cannot be shown": lambda line: with_row(line, warnings="Icon\r"),
    "a row that is not text": lambda line: with_row(line, area_pixels="many"),
}


def with_row(line: bytes, **cells) -> bytes:
    """A line whose digest is right."""
    found = json.loads(line.partition(b" ")[2])
    return output._write_line(found | {"row": found["row"] | cells}).strip()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_costs_its_case_alone(damage, out, capsys):
    change(out, DAMAGE[damage])
    assert kept(out) == {"a", "c"}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"WARNING {out / JOURNAL}: ") and "damaged" in line
    assert "4712" not in (out / SUMMARY).read_text() and "b," not in (out / SUMMARY).read_text()
    assert kept(out) == {"a", "c"} and capsys.readouterr().err == ""  # said once


@pytest.mark.parametrize("head", [b"", b"{", b"\xff", b'{"brainseg predict": 3}'])
def test_without_a_good_first_line_what_is_proven_stays(head, out, capsys):
    (out / JOURNAL).write_bytes(head + b"\n" + (out / JOURNAL).read_bytes().partition(b"\n")[2])
    assert kept(out) == set(NAMES)
    assert "1 of its lines are damaged" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"x\n" * 9])
def test_a_journal_that_holds_nothing_is_begun_again(content, out):
    (out / JOURNAL).write_bytes(content)
    assert kept(out) == set()
    with open_folder(out) as folder:
        answer(folder, "a")
    assert kept(out) == {"a"}


def test_a_journal_without_digests_is_of_an_earlier_version(out, capsys):
    rows = [line.partition(b" ")[2] for line in (out / JOURNAL).read_bytes().splitlines()[1:]]
    (out / JOURNAL).write_bytes(b"\n".join([b'{"brainseg predict": 1}', *rows, b""]))
    assert kept(out) == set()
    (line,) = capsys.readouterr().err.splitlines()
    assert "earlier version" in line
    assert kept(out) == set() and capsys.readouterr().err == ""


@pytest.mark.parametrize("file", ["masks/b.png", "overlays/b.png"])
def test_a_damaged_file_is_not_kept(file, out, capsys):
    (out / file).write_text("mask OF b")
    assert kept(out) == {"a", "c"}
    assert capsys.readouterr().err.startswith(f"WARNING {out / file}: ")


def test_numbers_never_stand_beside_another_mask(out, capsys):
    """As after a kill between a new mask and its line in the journal, or an edit."""
    (out / "masks/b.png").write_text("another mask")
    with open_folder(out) as folder:
        answer(folder, "a", digest="2")
        folder.write_summary(is_last=False)
        folder.write_summary()
    assert cases(out) == ["a", "c"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"WARNING {out / 'masks/b.png'}: is not as it was written, so b is left out of the tables")
    with open_folder(out) as folder:
        folder.write_summary()
        answer(folder, "b")
        folder.write_summary()
    assert cases(out) == ["a", "b", "c"]


def test_numbers_of_a_mask_that_was_replaced_are_not_written(out, capsys):
    """As after Ctrl-C between a new mask and its line, in a run that has looked at all files before."""
    with open_folder(out) as folder:
        folder.write_summary(is_last=False)
        assert folder.kept("b", "model", "1")
        folder.expect_change("b")
        (out / "masks/b.png").write_text("another mask")
        folder.write_summary(is_last=False)
        assert cases(out) == ["a", "c"] and capsys.readouterr().err == ""
        folder.write_summary()
    assert cases(out) == ["a", "c"] and "b is left out" in capsys.readouterr().err


def test_the_tables_ask_sizes_and_times_before_they_read(out, monkeypatch):
    read = []
    monkeypatch.setattr(output.files, "sha256", lambda path: read.append(path.name) or "")
    with open_folder(out) as folder:
        folder.write_summary()
    assert cases(out) == list(NAMES) and read == []


def cases(out) -> list[str]:
    return [line.split(",")[0] for line in (out / SUMMARY).read_text().splitlines()[1:]]


def test_what_a_damaged_line_replaced_does_not_come_back(out):
    with open_folder(out) as folder:
        answer(folder, "a", digest="2", text="better mask")
        folder.drop("flair: file /in/c.png", "2")
    lines = (out / JOURNAL).read_bytes().splitlines(keepends=True)
    (out / JOURNAL).write_bytes(b"".join(lines[:-2]) + b"damaged\ndamaged\n")
    assert kept(out) == {"b"}
    assert cases(out) == ["b"]


def test_a_folder_killed_at_the_first_write_is_used_again(tmp_path):
    out = tmp_path / "out"
    left = out / f".{JOURNAL}.999999999.abc"
    left.mkdir(parents=True)
    (left / JOURNAL).write_text('{"brains')
    (out / LOCK).touch()
    with open_folder(out) as folder:
        answer(folder, "a")
    assert kept(out) == {"a"} and not left.exists()


@pytest.mark.parametrize("name", [".thesis.txt.1.abc", f"{JOURNAL}.1.abc", f".{JOURNAL}.x.abc"])
def test_what_only_looks_like_a_temporary_is_not_ours(name, tmp_path):
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="holds other things"), open_folder(tmp_path / "out"):
        pass


def forge(out, **changes) -> None:
    """Change the record of case b and make its digest right again."""

    def edit(line):
        return output._write_line(json.loads(line.partition(b" ")[2]) | changes).rstrip()

    change(out, edit)


@pytest.mark.parametrize("path", ["../precious", "masks/../../precious", "/etc/precious"])
def test_a_journal_of_others_names_nothing_outside(path, out, tmp_path):
    (tmp_path / "precious").touch()
    forge(out, files=[path, "overlays/b.png"])
    with open_folder(out) as folder:
        assert not folder.kept("b", "model", "1")
        answer(folder, "b", digest="2")
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("changes", [
    {"row": {}}, {"row": []}, {"row": dict.fromkeys(output.COLUMNS, "\ud800")}, {"files": 1}, {"digests": []},
    {"name": 1}, {"name": "a\0"}, {"more": 1}, {"source": None}, {"files": ["x" * 999, "y" * 999]},
])  # fmt: skip
def test_a_journal_of_others_breaks_nothing(changes, out):
    forge(out, **changes)
    assert kept(out) == {"a", "c"}


def test_a_full_disk_names_the_journal(out):
    with open_folder(out) as folder:
        (out / JOURNAL).unlink()
        (out / JOURNAL).symlink_to("/dev/full")
        with pytest.raises(OSError) as caught:
            answer(folder, "a")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(out / JOURNAL)


def test_an_answer_of_a_version_without_lesions_stays_in_the_table_and_is_not_kept(out):
    with open_folder(out) as folder:
        record = folder.kept("b", "model", "1")
        folder.add(record._replace(lesions=None))
    assert kept(out) == {"a", "c"}
    assert [line.split(",")[0] for line in (out / SUMMARY).read_text().splitlines()] == ["case", *NAMES]
    assert [line.split(",")[0] for line in (out / output.LESIONS).read_text().splitlines()] == ["case", "a", "c"]


@pytest.mark.parametrize("lesions", [[{"shape": "round"}], [{"voxels": "1\n2"}], 7, "voxels"])
def test_lesions_that_are_not_as_they_are_written_are_not_believed(out, lesions):
    with open_folder(out) as folder:
        folder.add(folder.kept("b", "model", "1")._replace(digest="2", lesions=lesions))
    assert kept(out, "2") == set()
