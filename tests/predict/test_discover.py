"""Which cases are found in files, folders, zips and patterns; all kinds of names; zips that must be refused."""

import io
import os
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from brainseg.errors import IntegrityError
from brainseg.io import zips
from brainseg.predict import discover
from tests.support.dicom_series import one, save, save_series, series
from tests.support.shifted_zip import shifted_zip

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def picture(path: Path, pages: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    page = Image.fromarray(GREY)
    more = {"save_all": True, "append_images": [page] * (pages - 1)} if pages > 1 else {}
    page.save(path, **more)
    return path


def empty(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def find(*paths, tmp_path: Path, **options):
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    found = discover.find([str(path) for path in paths], scratch, **options)
    assert not list(scratch.iterdir())
    return found


def places(found, root: Path) -> dict[str, tuple[str, int]]:
    """Place below ``root`` → form and number of files."""
    return {
        str(source.place.relative_to(PurePosixPath(root))): (source.form, len(source.files)) for source in found.sources
    }


def test_slices_of_a_patient_are_one_volume_in_the_order_of_their_numbers(tmp_path):
    for n in (10, 2, 1, 9, 11):
        picture(tmp_path / "lgg/TCGA_7/TCGA_7_19970322_{}.tif".format(n))  # noqa: UP032
        picture(tmp_path / f"lgg/TCGA_7/TCGA_7_19970322_{n}_mask.tif")
    found = find(tmp_path / "lgg", tmp_path=tmp_path)
    [source] = found.sources
    assert source.numbers == (1, 2, 9, 10, 11) and source.form == "slices" and len(found.passed) == 5
    assert [file.name for file in source.files] == [f"TCGA_7_19970322_{n}.tif" for n in (1, 2, 9, 10, 11)]
    assert source.place == PurePosixPath(tmp_path, "lgg/TCGA_7/TCGA_7_19970322")
    assert find(tmp_path / "lgg/TCGA_7", tmp_path=tmp_path) == found
    shell = sorted((tmp_path / "lgg/TCGA_7").glob("*.tif"))  # as a shell writes out *.tif
    assert find(*shell, tmp_path=tmp_path) == found
    assert find(str(tmp_path / "lgg/**/*.tif"), tmp_path=tmp_path) == found


def test_a_folder_named_as_its_slices_gives_the_case_its_name(tmp_path):
    for name in ("P1/P1_1.png", "P1/P1_2.png", "P2/1.png", "P2/02.png"):
        picture(tmp_path / "in" / name)
    assert places(find(tmp_path / "in", tmp_path=tmp_path), tmp_path / "in") == {
        "P1": ("slices", 2), "P2": ("slices", 2)
    }  # fmt: skip


def test_a_pair_is_one_case_and_half_of_one_is_none_unless_named(tmp_path):
    for name in ("a.hdr", "a.img", "b.HDR", "b.img.gz", "photo.hdr", "disc.img", "a_mask.hdr", "a_mask.img"):
        empty(tmp_path / "in" / name)
    found = find(tmp_path / "in", tmp_path=tmp_path)
    assert places(found, tmp_path / "in") == {"a": ("file", 2), "b": ("file", 2)}
    assert [file.name for file in found.sources[0].files] == ["a.hdr", "a.img"]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in (tmp_path / "in").iterdir():
            archive.write(path, f"x/{path.name}")
    assert places(find(tmp_path / "z.zip", tmp_path=tmp_path), tmp_path / "z.zip") == {
        "x/a": ("file", 2), "x/b": ("file", 2)
    }  # fmt: skip
    for named in (["a.img"], ["a.hdr"], ["a.hdr", "a.img"], ["a.img", "a.hdr"]):
        assert places(find(*(tmp_path / "in" / name for name in named), tmp_path=tmp_path), tmp_path / "in") == {
            "a": ("file", 2)
        }
    assert places(find(tmp_path / "in/disc.img", tmp_path=tmp_path), tmp_path / "in") == {"disc": ("file", 1)}


def test_a_header_and_the_file_that_it_names_are_one_case(tmp_path):
    for name in ("a.mhd", "b.nhdr", "alone.nhdr", "c.nrrd", "x.seg.nrrd", "d.mgz"):
        empty(tmp_path / "in" / name)
    (tmp_path / "in/a.mhd").write_text("TransformMatrix = 1 0 0 0 1 0 0 0 1\nNDims = 3\nElementType = MET_SHORT\n"
                                       "ElementSpacing = 1 1 1\nElementDataFile = voxels of a.raw\n")  # fmt: skip
    (tmp_path / "in/b.nhdr").write_text("NRRD0004\ntype: short\nspace: RAS\ndimension: 3\nencoding: raw\n"
                                        "space directions: (1,0,0) (0,1,0) (0,0,1)\ndata file: b.raw\n")  # fmt: skip
    for name in ("voxels of a.raw", "b.raw", "other.raw"):
        empty(tmp_path / "in" / name)
    expected = {"a": ("file", 2), "alone": ("file", 1), "b": ("file", 2), "c": ("file", 1), "d": ("file", 1)}
    found = find(tmp_path / "in", tmp_path=tmp_path)
    assert places(found, tmp_path / "in") == expected
    assert {Path(each.label).name for each in found.passed} == {"other.raw", "x.seg.nrrd"}
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in (tmp_path / "in").iterdir():
            archive.write(path, path.name)
    assert places(find(tmp_path / "z.zip", tmp_path=tmp_path), tmp_path / "z.zip") == expected
    [source] = find(tmp_path / "in/a.mhd", tmp_path=tmp_path).sources
    assert [file.name for file in source.files] == ["a.mhd", "voxels of a.raw"]


def test_the_voxels_of_a_pair_count_for_its_digest(tmp_path):
    for name in ("a.hdr", "a.img"):
        empty(tmp_path / name)
    [source] = find(tmp_path / "a.hdr", tmp_path=tmp_path).sources
    before = source.digest(tmp_path)
    (tmp_path / "a.img").write_bytes(b"1")
    assert source.digest(tmp_path) != before


def test_other_pictures_are_cases_of_their_own(tmp_path):
    for name in ("a.png", "b.jpg", "c_1.tif", "d_1.png", "d_2.tif"):  # one number, other endings: no volume
        picture(tmp_path / "in" / name)
    picture(tmp_path / "in/e_1.tif", pages=3)
    picture(tmp_path / "in/e_2.tif", pages=3)
    found = places(find(tmp_path / "in", tmp_path=tmp_path), tmp_path / "in")
    assert found == {name: ("file", 1) for name in ("a", "b", "c_1", "d_1", "d_2", "e_1", "e_2")}


def test_numbered_pictures_can_be_asked_for_one_by_one(tmp_path):
    for n in range(3):
        picture(tmp_path / f"in/a_{n}.png")
    found = find(tmp_path / "in", tmp_path=tmp_path, each_picture=True)
    assert places(found, tmp_path / "in") == {f"a_{n}": ("file", 1) for n in range(3)}


def test_a_mask_named_itself_is_an_input_unless_its_image_is_there(tmp_path):
    mask = picture(tmp_path / "a_mask.png")
    assert places(find(mask, tmp_path=tmp_path), tmp_path) == {"a_mask": ("file", 1)}
    image = picture(tmp_path / "a.png")
    assert places(find(mask, image, tmp_path=tmp_path), tmp_path) == {"a": ("file", 1)}
    assert [each.kind for each in find(tmp_path, tmp_path=tmp_path).passed] == ["mask"]


def test_series_of_one_folder_are_told_apart(tmp_path):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in/study", series())
    for path in (tmp_path / "in/study").iterdir():
        path.rename(path.with_name(f"b{path.name}"))
    save(tmp_path / "in/study", series(SeriesInstanceUID="1.2.3"))
    save_series(tmp_path / "in/other/one", np.zeros((3, 16, 16), np.uint16))
    (tmp_path / "in/other/one/notes.txt").write_text("x")
    (tmp_path / "in/study/LICENSE").write_text("free")
    report = one(0, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", SeriesInstanceUID="1.2.9", Rows=None, PixelData=None)
    save(tmp_path / "report", [report])[0].rename(tmp_path / "in/study/SR1")
    empty(tmp_path / "in/other/one/DICOMDIR")
    found = find(tmp_path / "in", tmp_path=tmp_path)
    assert places(found, tmp_path / "in") == {
        "other/one": ("series", 3), "study/series-1": ("series", 6), "study/series-2": ("series", 4)
    }  # fmt: skip
    first = found.sources[1]
    assert {file.name for file in first.files} == {"0.dcm", "3.dcm", "4.dcm", "7.dcm", "LICENSE", "SR1"}
    assert "0.dcm" in first.label and "1.2" not in first.label


@pytest.mark.parametrize(("moved", "cases"), [(0, 1), (2, 4)])
def test_slices_of_one_stack_that_each_name_a_series_are_one_case(tmp_path, moved, cases):
    names = {"StudyInstanceUID": "1.2.19", "SeriesNumber": 5}
    datasets = [one(n, SeriesInstanceUID=f"1.2.{n}", **names) for n in range(4)]
    datasets[3] = one(3 + moved, SeriesInstanceUID="1.2.3", **names)
    save(tmp_path / "in", datasets)
    (tmp_path / "in/LICENSE").write_text("free")
    found = find(tmp_path / "in", tmp_path=tmp_path).sources
    assert [len(source.files) for source in found] == ([5] if cases == 1 else [2, 1, 1, 1])


def test_what_names_no_series_is_left_to_the_reader_to_refuse(tmp_path):
    save(tmp_path / "in", series())
    (tmp_path / "in/broken.dcm").write_bytes(b"x" * 200)
    assert places(find(tmp_path / "in", tmp_path=tmp_path), tmp_path) == {"in": ("series", 5)}


def test_dicom_files_named_one_by_one_are_one_series(tmp_path):
    paths = save(tmp_path / "in", series())
    (tmp_path / "in/note.pdf").write_text("x")
    assert places(find(*paths, tmp_path=tmp_path), tmp_path) == {"in": ("series", 4)}


def test_what_is_no_image_or_hidden_is_passed_over_in_folders(tmp_path):
    for name in (".a.png", ".git/a.png", "__MACOSX/a.png", "readme.txt", "report.pdf", "table.csv"):
        empty(tmp_path / "in" / name)
    picture(tmp_path / "in/a.png")
    found = find(tmp_path / "in", tmp_path=tmp_path)
    assert places(found, tmp_path / "in") == {"a": ("file", 1)} and not found.problems


def test_a_file_that_was_named_is_never_passed_over(tmp_path):
    [source] = find(empty(tmp_path / "report.pdf"), tmp_path=tmp_path).sources
    assert source.form == "file"


def test_paths_that_are_not_there_hide_no_others(tmp_path):
    path = picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe")
    found = find(tmp_path / "no", path, tmp_path / "*.nii", tmp_path / "pipe", tmp_path=tmp_path)
    assert places(found, tmp_path) == {"a": ("file", 1)}
    assert [(Path(p.path).name, p.what) for p in found.problems] == [
        ("no", "is not there"), ("*.nii", "matches no file or folder"), ("pipe", "is no file and no folder")
    ]  # fmt: skip


def test_links_to_files_are_followed_others_are_told_or_left(tmp_path):
    real = picture(tmp_path / "real/a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/b.png").symlink_to(real)
    (tmp_path / "in/gone.nii.gz").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    found = find(tmp_path / "in", tmp_path=tmp_path)
    (tmp_path / "in/p2").symlink_to(tmp_path / "nowhere")
    found = find(tmp_path / "in", tmp_path=tmp_path)
    assert places(found, tmp_path / "in") == {"b": ("file", 1)}
    assert {Path(p.path).name: p.what for p in found.problems} == dict.fromkeys(
        ("gone.nii.gz", "p2"), "is a link that leads nowhere"
    )


def links(found) -> dict[str, str]:
    return {Path(each.label).name: each.why for each in found.passed if each.kind == "link"}


def test_a_linked_folder_is_read_and_each_folder_once(tmp_path):
    picture(tmp_path / "store/p2/flair.png")
    picture(tmp_path / "cohort/p1/flair.png")
    (tmp_path / "cohort/a").symlink_to(tmp_path / "cohort/p1")
    (tmp_path / "cohort/p2").symlink_to(tmp_path / "store/p2")
    (tmp_path / "cohort/p3").symlink_to(tmp_path / "store/p2")
    (tmp_path / "store/p2/back").symlink_to(tmp_path / "store")
    for paths in ([tmp_path / "cohort"], [tmp_path / "cohort"] * 2):
        found = find(*paths, tmp_path=tmp_path)
        assert places(found, tmp_path / "cohort") == {"p1/flair": ("file", 1), "p2/flair": ("file", 1)}
        assert links(found) == {
            "a": f"is the same folder as {tmp_path / 'cohort/p1'}, which is read",
            "p3": f"is the same folder as {tmp_path / 'cohort/p2'}, which is read",
            "back": "is a link to a folder that it lies in",
        }


def test_a_pattern_that_goes_round_a_loop_finds_each_file_once(tmp_path):
    picture(tmp_path / "in/a.png")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    found = find(str(tmp_path / "in/**/*.png"), tmp_path=tmp_path)
    assert places(found, tmp_path / "in") == {"a": ("file", 1)}


def test_the_folder_of_answers_is_no_input_behind_a_link_either(tmp_path):
    picture(tmp_path / "store/out/a.png")
    picture(tmp_path / "store/b.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/store").symlink_to(tmp_path / "store")
    found = find(tmp_path / "in", tmp_path=tmp_path, skip=tmp_path / "store/out")
    assert places(found, tmp_path / "in") == {"store/b": ("file", 1)}


def test_a_file_named_twice_counts_once(tmp_path):
    path = picture(tmp_path / "in/a.png")
    found = find(path, tmp_path / "in", os.path.relpath(path), tmp_path=tmp_path)
    assert len(found.sources) == 1


def test_the_folder_of_answers_is_no_input(tmp_path):
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/out/masks/a.png")
    found = find(tmp_path / "in", tmp_path=tmp_path, skip=tmp_path / "in/out")
    assert places(found, tmp_path / "in") == {"a": ("file", 1)}


def test_names_of_all_kinds_are_found(tmp_path):
    names = ["a\nb.png", "-o.png", "ä ö.png", "a" * 251 + ".png", "[x]*.png", "UPPER.PNG"]
    for name in names:
        picture(tmp_path / "in" / name)
    assert len(find(tmp_path / "in", tmp_path=tmp_path).sources) == len(names)
    assert len(find(tmp_path / "in/[x]*.png", tmp_path=tmp_path).sources) == 1  # what is there is no pattern


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "PNG")
    return buffer.getvalue()


def test_zips_are_folders(tmp_path):
    slices = {f"study/s1/{path.name}": path.read_bytes() for path in save(tmp_path / "d", series())}
    path = zipped(
        tmp_path / "all.zip", slices | {"p/a_1.png": png(), "p/a_2.png": png(), "x.nii.gz": b"x", "r.txt": b""}
    )
    found = find(path, tmp_path=tmp_path)
    assert places(found, path) == {"p/a": ("slices", 2), "study/s1": ("series", 4), "x": ("file", 1)}
    assert [source.label for source in found.sources] == [f"{path}:p/a_*.png", f"{path}:study/s1", f"{path}:x.nii.gz"]
    (tmp_path / "in").mkdir()
    path.rename(tmp_path / "in/all.zip")
    assert len(find(tmp_path / "in", tmp_path=tmp_path).sources) == 3


def test_what_is_hidden_in_a_zip_is_listed_as_passed_over(tmp_path):
    path = zipped(tmp_path / "z.zip", {"a.png": png(), "__MACOSX/._a.png": b"", "r.txt": b""})
    found = find(path, tmp_path=tmp_path)
    assert places(found, path) == {"a": ("file", 1)}
    assert [(each.label, each.kind) for each in found.passed] == [
        (f"{path}:__MACOSX/._a.png", "hidden"), (f"{path}:r.txt", "other file")
    ]  # fmt: skip


def test_the_digest_is_of_all_bytes_in_order_wherever_they_lie(tmp_path):
    scratch = tmp_path / "scratch"
    for n in (1, 2):
        picture(tmp_path / f"in/a_{n}.png")
    path = zipped(tmp_path / "z.zip", {f"a_{n}.png": (tmp_path / f"in/a_{n}.png").read_bytes() for n in (1, 2)})
    [folder], [packed_] = (find(each, tmp_path=tmp_path).sources for each in (tmp_path / "in", path))
    assert folder.digest(scratch) == packed_.digest(scratch)
    Image.fromarray(GREY.T).save(tmp_path / "in/a_2.png")
    changed = folder.digest(scratch)
    assert changed != packed_.digest(scratch) and changed != folder._replace(files=folder.files[::-1]).digest(scratch)


def test_the_digest_is_of_the_numbers_of_slices_too(tmp_path):
    """Other numbers are other neighbours, and give other names to the masks."""
    paths = [picture(tmp_path / f"in/a_{n}.png") for n in (1, 2, 3)]
    [before] = find(tmp_path / "in", tmp_path=tmp_path).sources
    first = before.digest(tmp_path)
    paths[2].rename(tmp_path / "in/a_9.png")
    [after] = find(tmp_path / "in", tmp_path=tmp_path).sources
    assert after.numbers == (1, 2, 9) and after.digest(tmp_path) != first


@pytest.mark.parametrize("ending", ["mgz", "mgh", "nrrd", "nii.gz", "mha"])
@pytest.mark.parametrize("named", [False, True])
def test_a_volume_beside_dicom_is_a_case_of_its_own(tmp_path, ending, named):
    paths = save(tmp_path / "s", series())
    paths.append(empty(tmp_path / f"s/T1.{ending}"))
    found = find(*(paths if named else [tmp_path / "s"]), tmp_path=tmp_path)
    assert places(found, tmp_path) == {"s": ("series", 4), "s/T1": ("file", 1)} and not found.passed


def test_a_backslash_in_a_zip_is_a_separator(tmp_path):
    slices = {f"DICOM\\PA 1\\{path.name}": path.read_bytes() for path in save(tmp_path / "d", series())}
    path = zipped(tmp_path / "z.zip", slices)
    found = find(path, tmp_path=tmp_path)
    assert places(found, path) == {"DICOM/PA 1": ("series", 4)} and not found.problems
    assert found.sources[0].digest(tmp_path / "scratch")


BAD = {
    "../a.png": "leads out of the zip",
    "a/../../b.png": "leads out of the zip",
    "/etc/a.png": "leads out of the zip",
    "C:a.png": "leads out of the zip",
    "a\\..\\..\\b.png": "leads out of the zip",
    "inner.zip": "is an archive within an archive",
}


@pytest.mark.parametrize("name", BAD)
def test_d2_a_zip_that_leads_anywhere_is_refused_whole(tmp_path, name):
    path = zipped(tmp_path / "z.zip", {"good.png": png(), name: png()})
    found = find(path, tmp_path=tmp_path)
    assert not found.sources and [(p.path, p.what) for p in found.problems] == [(f"{path}:{name}", BAD[name])]


def test_d2_a_name_that_begins_with_nul_is_refused(tmp_path):
    """Of which Python's zipfile makes an empty one."""
    path = zipped(tmp_path / "z.zip", {"good.png": png(), "?b.png": png()})
    path.write_bytes(path.read_bytes().replace(b"?b.png", b"\0b.png"))
    (problem,) = find(path, tmp_path=tmp_path).problems
    assert problem.what == "has no name, or NUL in it"


def test_d2_links_and_names_twice_are_refused(tmp_path):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.png", b"1")
        with pytest.warns(UserWarning):
            archive.writestr("a.png", b"2")
    problems = find(tmp_path / "z.zip", tmp_path=tmp_path).problems
    assert sorted(p.what for p in problems) == ["is a link or a device", "is there twice"]


@pytest.mark.parametrize(("limit", "value"), [("MAX_MEMBER_BYTES", 999), ("MAX_TOTAL_BYTES", 1999), ("MAX_MEMBERS", 1)])
def test_d3_limits(tmp_path, monkeypatch, limit, value):
    path = zipped(tmp_path / "z.zip", {"a.png": bytes(1000), "b.png": bytes(1000)})
    assert len(zips.list_names(path)) == 2
    monkeypatch.setattr(zips, limit, value)
    with pytest.raises(IntegrityError):
        zips.list_names(path)


def test_d3_no_more_is_unpacked_than_was_declared(tmp_path):
    path = zipped(tmp_path / "z.zip", {"a.png": bytes(5000)})
    data = bytearray(path.read_bytes())
    for at in (data.find(b"PK\x03\x04") + 22, data.find(b"PK\x01\x02") + 24):
        data[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        zips.unpack(path, "a.png", tmp_path / "a")
    assert not (tmp_path / "a").exists() or (tmp_path / "a").stat().st_size <= 1000


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"<html>"])
def test_d1_what_is_no_zip(tmp_path, data):
    path = tmp_path / "z.zip"
    path.write_bytes(data)
    found = find(path, picture(tmp_path / "a.png"), tmp_path=tmp_path)
    assert len(found.sources) == 1 and [p.what for p in found.problems] == ["is not a whole zip archive"]


def test_a_damaged_member_is_named(tmp_path):
    path = zipped(tmp_path / "z.zip", {"a.png": os.urandom(5000)})
    data = bytearray(path.read_bytes())
    data[2000] ^= 255
    path.write_bytes(data)
    [source] = find(path, tmp_path=tmp_path).sources
    with pytest.raises(IntegrityError, match=r"z\.zip:a\.png: is damaged"):
        source.digest(tmp_path / "scratch")
    assert not list((tmp_path / "scratch").iterdir())


def test_a_zip_whose_members_lie_nowhere_is_found_and_its_cases_are_damaged(tmp_path):
    """The system's own error, 22, comes of seeking to a place before the file's beginning."""
    members = {"a_1.tif": b"x" * 200, "a_2.tif": b"x" * 200, "s/1.dcm": b"x" * 200, "s/IM2": b"x" * 200}
    path = shifted_zip(tmp_path / "z.zip", members)
    found = find(path, picture(tmp_path / "b.png"), tmp_path=tmp_path)
    assert {source.label for source in found.sources} == {str(tmp_path / "b.png"), f"{path}:a_*.tif", f"{path}:s"}
    for source in found.sources[1:]:
        with pytest.raises(IntegrityError, match=r"z\.zip:.*: is damaged"):
            source.digest(tmp_path / "scratch")


def test_whatever_a_library_raises_hides_no_other_case(tmp_path, monkeypatch):
    def foreign(*_):
        raise NotImplementedError("DOE^JANE")

    save(tmp_path / "in", series())
    (tmp_path / "in/IM1").write_bytes(bytes(128) + b"DICM")
    picture(tmp_path / "in/a_1.tif")
    picture(tmp_path / "in/a_2.tif")
    for module, name in ((discover.slice_header, "read_series_uid"), (discover.pictures, "has_pages")):
        monkeypatch.setattr(module, name, foreign)
    assert places(find(tmp_path / "in", tmp_path=tmp_path), tmp_path) == {"in": ("series", 5), "in/a": ("slices", 2)}
    monkeypatch.setattr(discover.zips, "list_names", foreign)
    path = zipped(tmp_path / "z.zip", {"a.png": png()})
    (problem,) = find(path, tmp_path=tmp_path).problems
    assert (problem.path, "DOE" in problem.what) == (str(path), False) and "is damaged" in problem.what


def test_a_folder_that_can_be_read_and_not_entered_is_told(tmp_path, monkeypatch):
    """Its files are listed, and nothing more is known of them."""
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "b.png")
    for name in ("isfile", "lexists"):
        real = getattr(os.path, name)
        monkeypatch.setattr(os.path, name, lambda path, real=real: real(path) and Path(path).name != "a.png")
    found = find(tmp_path / "in", tmp_path / "b.png", tmp_path=tmp_path)
    assert len(found.sources) == 1 and [(p.path, p.what) for p in found.problems] == [
        (str(tmp_path / "in/a.png"), "cannot be read")
    ]
