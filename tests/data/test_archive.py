"""The canonical archive: its bytes are fixed, and any error keeps the old one."""

import errno
import io
import tracemalloc
import zipfile

import pandas as pd
import pytest

from brainseg import files
from brainseg.data import archive
from brainseg.data.archive import Archive, Pair
from brainseg.data.stored_zip import SpooledDirectory
from brainseg.errors import DataError, IntegrityError, MachineError


def pair(patient: str, number: int, size: int = 4) -> Pair:
    stem = f"{patient}_{number}"
    return Pair(patient, "XX", number, f"{stem}.tif", f"{stem}_mask.tif", b"i" * size, f"{number}".encode())


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


PAIRS = [pair("A", 2), pair("A", 10), pair("A-1", 1), pair("B é", 1)]


def test_members_are_sorted_dated_stored_and_unchanged(raw):
    summary = archive.write(raw / "slices.zip", PAIRS)
    with zipfile.ZipFile(raw / "slices.zip") as opened:
        members = opened.infolist()
        names = [member.filename for member in members]
        assert opened.testzip() is None
        assert opened.read("A/A_10_mask.tif") == b"10"
    assert names[0] == "index.csv" and names[1:] == sorted(names[1:]) and len(names) == 9
    assert {(m.date_time, m.compress_type, m.external_attr) for m in members} == {
        ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED, 0o100644 << 16)
    }
    assert "3 patients, 4 slices" in summary


def test_bytes_depend_on_the_pairs_alone(raw):
    for name in ("a.zip", "b.zip"):
        archive.write(raw / name / "slices.zip", iter(PAIRS))
    assert files.sha256(raw / "a.zip/slices.zip") == files.sha256(raw / "b.zip/slices.zip")


def test_index_comes_back_as_written(raw):
    pairs = [pair("001", 1), pair("NA", 1)]  # neither a number nor a missing value
    archive.write(raw / "slices.zip", pairs)
    index = archive.read_index(raw / "slices.zip")
    expected = [
        ("001", "XX", 1, "001/001_1.tif", "001/001_1_mask.tif", "", "", ""),
        ("NA", "XX", 1, "NA/NA_1.tif", "NA/NA_1_mask.tif", "", "", ""),
    ]
    pd.testing.assert_frame_equal(index, pd.DataFrame(expected, columns=[*archive.INDEX, *archive.FURTHER]))


def test_spacing_is_written_where_there_is_one(raw):
    archive.write(raw / "slices.zip", [pair("A", 1)._replace(spacing="1 x 1 x 5"), pair("B", 1)])
    assert archive.read_index(raw / "slices.zip")["spacing"].tolist() == ["1 x 1 x 5", ""]
    archive.write(raw / "plain.zip", PAIRS)
    with zipfile.ZipFile(raw / "plain.zip") as opened:
        assert opened.read("index.csv").splitlines()[0] == b"patient,institution,slice,image,mask"


@pytest.mark.parametrize("pairs", [[], PAIRS[::-1], [PAIRS[0], PAIRS[0]]], ids=["none", "unsorted", "twice"])
def test_pairs_that_make_no_archive_are_refused(raw, pairs):
    with pytest.raises(DataError):
        archive.write(raw / "slices.zip", pairs)
    assert list(raw.iterdir()) == []


def test_a_file_without_index_is_refused(raw):
    with zipfile.ZipFile(raw / "other.zip", "w") as other:
        other.writestr("a.txt", "a")
    (raw / "text.zip").write_text("text")
    for name in ("other.zip", "text.zip"):
        with pytest.raises(IntegrityError, match=name):
            archive.read_index(raw / name)


def test_d1_old_archive_is_kept_when_a_source_fails_at_its_end(raw):
    def failing():
        yield PAIRS[0]
        raise IntegrityError("kaggle.zip", "was changed", "fetch it again")

    archive.write(raw / "slices.zip", PAIRS)
    before = files.sha256(raw / "slices.zip")
    with pytest.raises(IntegrityError):
        archive.write(raw / "slices.zip", failing())
    assert files.sha256(raw / "slices.zip") == before
    assert [path.name for path in raw.iterdir()] == ["slices.zip"]


def test_d6_disk_full_before(raw, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda _: 2**20 + 1)
    with pytest.raises(MachineError, match=r"2,000,001 bytes needed, 1,048,577 free"):
        archive.write(raw / "slices.zip", [pair("A", 1, size=2_000_000)])
    assert list(raw.iterdir()) == []


def test_d6_disk_full_during(raw, monkeypatch):
    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(MachineError, match=r"No space left on device \(5 bytes needed, [\d,]+ free\)"):
        archive.write(raw / "slices.zip", PAIRS)
    assert list(raw.iterdir()) == []


def test_d6_disk_full_on_closing_does_not_hide_the_first_error(raw, monkeypatch):
    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "_write_end_record", full)
    with pytest.raises(DataError, match="out of order"):
        archive.write(raw / "slices.zip", PAIRS[::-1])
    with pytest.raises(MachineError, match="No space left"):
        archive.write(raw / "slices.zip", PAIRS)
    assert list(raw.iterdir()) == []


def test_d6_read_only_folder(raw, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", denied)
    with pytest.raises(MachineError, match=r"Permission denied \([\d,]+ bytes needed, [\d,]+ free\)"):
        archive.write(raw / "slices.zip", PAIRS)


def test_memory_is_that_of_one_pair(raw):
    tracemalloc.start()
    archive.write(raw / "slices.zip", (pair("A", number, size=2**20) for number in range(1, 33)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize("change", [{"patient": "A\rB"}, {"institution": "X\r"}], ids=["patient", "institution"])
def test_a_carriage_return_in_a_name_is_refused(raw, change):
    with pytest.raises(DataError, match="has a carriage return in its name"):
        archive.write(raw / "slices.zip", [pair("A", 1)._replace(**change)])
    assert list(raw.iterdir()) == []


def test_d6_disk_full_of_the_directory_that_waits(raw, monkeypatch):
    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "SpooledDirectory", lambda _: SpooledDirectory(Full()))
    with pytest.raises(MachineError, match="No space left on device"):
        archive.write(raw / "slices.zip", PAIRS)
    assert list(raw.iterdir()) == []


@pytest.fixture
def patients(raw):
    """Write PAIRS, then by zipfile what is made of their members; read it: the members' names of each patient."""

    def read(change):
        archive.write(raw / "slices.zip", PAIRS)
        with zipfile.ZipFile(raw / "slices.zip") as opened:
            lying = sorted(opened.infolist(), key=lambda member: member.header_offset)
            members = {member.filename: opened.read(member) for member in lying}
        index = members.pop("index.csv")
        with zipfile.ZipFile(raw / "other.zip", "w") as other:
            for name, data in {"index.csv": index, **change(members)}.items():
                other.writestr(name, data)
        with Archive(raw / "other.zip") as found:
            return {rows[0].patient: list(members) for rows, members in found.patients()}

    return read


def test_each_patient_has_its_members_as_they_lie(patients):
    assert patients(lambda members: members) == {
        "A": ["A/A_2.tif", "A/A_2_mask.tif", "A/A_10.tif", "A/A_10_mask.tif"],
        "A-1": ["A-1/A-1_1.tif", "A-1/A-1_1_mask.tif"],
        "B é": ["B é/B é_1.tif", "B é/B é_1_mask.tif"],
    }


def test_a_patient_of_whom_no_member_is_there_has_none(patients):
    whole = patients(lambda members: members)
    lacking = patients(lambda members: {name: members[name] for name in members if not name.startswith("A-1/")})
    assert lacking == whole | {"A-1": []}


@pytest.mark.parametrize(("name", "named"), [("A/more.tif", "A/more.tif"), ("Z/1.tif", "Z"), ("more.txt", "more.txt")])
def test_a_member_that_is_in_no_row_of_the_index_is_named(patients, name, named):
    def add(members):
        first = {each: members[each] for each in members if each.startswith("A/")}
        return {**first, name: b"", **members}

    with pytest.raises(IntegrityError, match="is in no row of the archive's index") as error:
        patients(add)
    assert error.value.problems[0].path == named


def test_members_in_another_order_than_the_index_are_refused(patients):
    with pytest.raises(IntegrityError, match=r"^A-1: is in no row of the archive's index, or not at its place"):
        patients(lambda members: dict(reversed(members.items())))
