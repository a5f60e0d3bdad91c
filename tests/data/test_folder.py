"""The user's own images and masks: how they are paired and ordered, and what is refused."""

import errno
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from brainseg import config
from brainseg.data import archive, folder
from brainseg.data.layouts import pairing, recognition
from brainseg.errors import DataError
from brainseg.io import pictures
from tests.support.fake_lgg import tif, write_folder

TIF = tif(np.zeros((16, 16), np.uint8))


def params(root, **changes) -> config.Download:
    values = {"source": "folder", "path": str(root), "images": "**/*", "masks": "**/*_mask.*", "patient": "folder"}
    return config.Download(**values | changes)


def place(root, *names: str):
    return write_folder(root / "own", {name: TIF + name.encode("utf-8", "surrogateescape") for name in names})


def found(root, **changes) -> list[tuple]:
    return [tuple(item)[:4] for item in pairing.find(root, params(root, **changes))]


def problems(root, **changes) -> dict[str, str]:
    """Relative path → what is wrong with it."""
    with pytest.raises(DataError) as caught:
        found(root, **changes)
    return {os.path.relpath(problem.path, root): problem.what for problem in caught.value.problems}


def test_patient_folders_in_numeric_order(tmp_path):
    """P7: ``_10`` after ``_2``, a gap, a patient with one slice."""
    names = [f"{p}/{p}_{n}{end}.tif" for p, n in (("a", 10), ("a", 2), ("b", 5)) for end in ("", "_mask")]
    assert found(place(tmp_path, *names)) == [
        ("a", 2, "a/a_2.tif", "a/a_2_mask.tif"),
        ("a", 10, "a/a_10.tif", "a/a_10_mask.tif"),
        ("b", 5, "b/b_5.tif", "b/b_5_mask.tif"),
    ]


def test_dicom_segs_are_masks_where_there_is_nothing_else(tmp_path):
    for name in ("scans/p1/1.dcm", "masks/p1.dcm", "answers/p1.dcm", "answers/p1.nii.gz"):
        place(tmp_path, name)
    series = {"images": "scans/*/", "patient": "each_volume"}
    for pattern, mask in {
        "masks/*.dcm": "masks/p1.dcm",
        "masks/*": "masks/p1.dcm",
        "answers/*": "answers/p1.nii.gz",
    }.items():
        assert found(tmp_path / "own", masks=pattern, **series) == [("p1", 1, "scans/p1", mask)]
    assert (
        "no picture or volume"
        in problems(tmp_path / "own", images="masks/*", masks="answers/*", patient="each_volume")["."]
    )


def test_a_dicom_seg_is_read_on_the_grid_of_its_series(tmp_path):
    pytest.importorskip("highdicom")
    from brainseg.inference import cases
    from brainseg.inference.answers import seg_files
    from tests.support import dicom_study

    stored = np.random.default_rng(0).integers(0, 4000, (4, 20, 24), np.uint16)
    dicom_study.save(tmp_path / "scans/p1", stored, step=-5)
    case = cases.read(tmp_path / "scans/p1", "p1")
    mask = (case.voxels > 3000).astype(np.uint8)
    facts = {"model": {"weights_sha256": "ab" * 32}, "variant": "float32"}
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/p1.dcm").write_bytes(seg_files.encode_mask(mask, case, facts))
    given = params(tmp_path, images="scans/*/", masks="masks/*", patient="each_volume")
    read = [pictures.decode_labels(pair.mask, pair.mask_name) for pair in folder.pairs(given)]
    np.testing.assert_array_equal(read, mask)
    (tmp_path / "scans/p1/3.dcm").write_bytes(b"no")
    with pytest.raises(DataError) as caught:
        list(folder.pairs(given))
    assert {problem.path.split("/")[-1] for problem in caught.value.problems} == {"3.dcm"}  # not of the mask


def test_flat_folders_with_a_regular_expression(tmp_path):
    root = place(tmp_path, *(f"{kind}/p{p}_z{n}.png" for kind in ("images", "masks") for p in (1, 2) for n in (1, 2)))
    flat = {"images": "images/*", "masks": "masks/*"}
    pairs = found(root, **flat, patient=r"(p\d+)_")
    assert [pair[:2] for pair in pairs] == [("p1", 1), ("p1", 2), ("p2", 1), ("p2", 2)]
    assert pairs[0][2:] == ("images/p1_z1.png", "masks/p1_z1.png")
    assert "belong to no patient" in problems(root, **flat)["images/p1_z1.png"]


@pytest.mark.parametrize(
    ("images", "masks"), [("./images/*", "images/../masks/*"), ("/images/*", "masks/*"), ("../own/images/*", "masks/*")]
)
def test_patterns_that_lead_out_are_refused(tmp_path, images, masks):
    root = place(tmp_path, "images/a_1.png", "masks/a_1.png")
    with pytest.raises(DataError, match=r"leads out of download\.path"):
        found(root, images=images, masks=masks, patient="(a)_")


@pytest.mark.parametrize(
    ("images", "masks"),
    [("./lgg/**/*", "lgg/**/*_mask.*"), ("./**/*", "lgg/**/*_mask.*"), ("lgg//a/*", "./lgg/a/*_mask.*")],
)
def test_spellings_of_one_folder(tmp_path, images, masks):
    root = place(tmp_path, "lgg/a/a_1.png", "lgg/a/a_1_mask.png")
    pair = ("a", 1, "lgg/a/a_1.png", "lgg/a/a_1_mask.png")
    if images == "./**/*":  # other wildcards, other keys
        assert "has no mask" in problems(root, images=images, masks=masks, patient="(a)_")["lgg/a/a_1.png"]
    else:
        assert found(root, images=images, masks=masks, patient="(a)_") == [pair]


def test_what_lies_beside_the_folders_that_patterns_name_is_not_looked_at(tmp_path):
    root = place(tmp_path, "images/a_1.png", "masks/a_1.png", "old/a_1.png")
    (root / "broken.png").symlink_to(root / "nowhere.png")
    pairs = found(root, images="images/*", masks="masks/*", patient="(a)_")
    assert pairs == [("a", 1, "images/a_1.png", "masks/a_1.png")]


def test_patterns_by_which_nothing_is_paired_are_one_fault(tmp_path):
    root = place(tmp_path, *(f"{kind}/p_{n}.png" for kind in ("images", "masks") for n in range(9)))
    with pytest.raises(DataError) as caught:
        found(root)
    (problem,) = (each for each in caught.value.problems if "no image has a mask" in each.what)
    assert (
        "download.images (**/*) fits 9 in images/ and 9 in masks/, download.masks (**/*_mask.*) fits none"
        in problem.what
    )
    assert not [each for each in caught.value.problems if "has no mask" in each.what]
    root = place(tmp_path / "b", *(f"{p}/{name}.png" for p in ("p1", "p2") for name in ("Flair_a", "OT")))
    (problem,) = problems(root, images="*/Flair*", masks="*/OT*", patient="each_volume").values()
    assert (
        "in p1/Flair_a.png the wildcards match 'p1' and '_a', in p1/OT.png the wildcards match 'p1' and ''" in problem
    )


def test_masks_in_colours_are_named_by_the_users_files(tmp_path):
    place(tmp_path, *(f"i/p{n}.tif" for n in range(9)))
    colours = tif(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    write_folder(tmp_path / "own", {f"m/p{n}.tif": colours for n in range(9)})
    with pytest.raises(DataError) as caught:
        list(folder.pairs(params(tmp_path, images="own/i/*", masks="own/m/*", patient="(p)")))
    first, *others = caught.value.problems
    assert first.path == str(tmp_path / "own/m/p0.tif") and "colours beside black" in first.what
    assert len(others) == 8


def test_a_header_and_its_voxels_are_one_image(tmp_path):
    names = ("i/a.hdr", "i/a.img", "m/a.nhdr", "m/a.raw", "i/b.mgz", "m/b.HDR.GZ", "m/b.img.gz", "i/c.img", "i/c.hdr")
    place(tmp_path, *names, "m/c.mhd")
    pairs = found(tmp_path, images="own/i/*", masks="own/m/*", patient="each_volume")
    assert [each[2:] for each in pairs] == [
        ("own/i/a.hdr", "own/m/a.nhdr"), ("own/i/b.mgz", "own/m/b.HDR.GZ"), ("own/i/c.hdr", "own/m/c.mhd")
    ]  # fmt: skip


def test_each_image_its_own_patient(tmp_path):
    root = place(tmp_path, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in ("x7", "y7", "left")))
    pairs = found(root, images="images/*.png", masks="masks/*.png", patient="each_image")
    assert [pair[:2] for pair in pairs] == [("left", 1), ("x7", 1), ("y7", 1)]


@pytest.mark.parametrize(
    ("images", "masks", "image", "mask"),
    [
        ("*/images/*", "*/masks/*", "p1/images/1.png", "p1/masks/1.png"),
        ("images/**/*", "masks/**/*", "images/site/p1/1.png", "masks/site/p1/1.png"),
        ("images/**", "masks/**", "images/p1/1.png", "masks/p1/1.tif"),
        ("**/img_*.png", "**/seg_*.png", "p1/img_1.png", "p1/seg_1.png"),
        ("**/*.tif", "**/*_seg.png", "p1/a.v2_1.tif", "p1/a.v2_1_seg.png"),
        ("**/flair?.*", "**/truth?.*", "p1/flair1.png", "p1/truth1.png"),
        ("**/*", "**/*[m].*", "p1/a1.png", "p1/a1[m].png"),
    ],
)
def test_patterns(tmp_path, images, masks, image, mask):
    [pair] = found(place(tmp_path, image, mask), images=images, masks=masks, patient=r"(p\d)")
    assert pair[2:] == (image, mask)
    [pair] = found(tmp_path / "own", images=images, masks=masks)
    assert pair[:2] == ("p1", 1)


def test_two_patients_are_told_before_anything_is_read(tmp_path, capsys):
    names = [f"{p}/anat/{p}_FLAIR{end}.nii" for p in ("sub-01", "sub-02") for end in ("", "_mask")]
    packing = folder.pairs(params(place(tmp_path, *names), images="**/*_FLAIR.nii", masks="**/*_FLAIR_mask.nii"))
    with pytest.raises(DataError):  # these are no volumes
        next(packing)
    assert "2 patients (download.patient: folder): sub-01/anat -> patient sub-01; sub-02/anat -> patient sub-02\n" in (
        capsys.readouterr().err
    )


def test_sessions_that_are_taken_as_patients_are_told(tmp_path, capsys):
    stems = [f"sub-01/{s}/anat/sub-01_{s}_FLAIR" for s in ("ses-1", "ses-2")]
    root = place(tmp_path, *(f"{stem}{end}.nii" for stem in stems for end in ("", "_mask")))
    given = params(root, images="**/*_FLAIR.nii", masks="**/*_FLAIR_mask.nii", patient="each_volume")
    cases = recognition.find(given).found.cases
    assert [case.patient for case in cases] == ["sub-01_ses-1", "sub-01_ses-2"]
    assert "WARNING sub-01: several images, each taken as another patient" in capsys.readouterr().err


def test_p1_missing_mask_mask_without_image_and_two_masks_are_all_listed(tmp_path):
    place(tmp_path, "a/1.tif", "b/2_mask.tif", "fine/5.tif", "fine/5_mask.tif")
    root = place(tmp_path, "c/3.tif", "c/3_mask.tif", "c/3_mask.png", "d/4.tif", "d/4.png", "d/4_mask.tif")
    assert problems(root) == {
        "a/1.tif": "has no mask",
        "b/2_mask.tif": "is a mask without image",
        "c/3.tif": "has two masks: c/3_mask.png, c/3_mask.tif",
        "d/4.tif": "and d/4.png match the pattern with the same text, so a mask cannot be assigned",
    }


def test_p1_nothing_is_written(tmp_path):
    root = place(tmp_path, "a/1.tif", "a/2.tif", "a/2_mask.tif")
    with pytest.raises(DataError, match="has no mask"):
        archive.write(tmp_path / "raw/slices.zip", folder.pairs(params(root)))
    assert list((tmp_path / "raw").iterdir()) == []


def test_slices_need_numbers_and_different_ones(tmp_path):
    root = place(tmp_path, *(f"a/{name}{end}.png" for name in ("left", "x_3", "y_3") for end in ("", "_mask")))
    assert problems(root) == {
        "a/left.png": "has no number in its name, so slices have no order",
        "a/y_3.png": "and a/x_3.png are both slice 3 of patient a",
    }


def test_two_folders_of_one_name_are_not_one_patient(tmp_path):
    root = place(tmp_path, "s1/p/1.png", "s1/p/1_mask.png", "s2/p/2.png", "s2/p/2_mask.png")
    assert problems(root) == {"s2/p/2.png": "and s1/p have the same patient, p"}
    assert [pair[0] for pair in found(root, patient=r"(.*)/")] == ["s1_p", "s2_p"]


def test_archive_has_the_files_as_they_are_in_any_listing_order(tmp_path, monkeypatch):
    names = [f"{kind}/p{p}_{n}.png" for kind in ("images", "masks") for p in (1, 2) for n in range(1, 12)]
    root = place(tmp_path, *names)
    chosen = params(root, images="images/*", masks="masks/*", patient="(p.)_")
    archive.write(tmp_path / "1.zip", folder.pairs(chosen))
    walk = os.walk

    def shuffled(top, **options):
        for at, folders, entries in walk(top, **options):
            random.Random(1).shuffle(entries)
            yield at, folders, entries

    monkeypatch.setattr(os, "walk", shuffled)
    archive.write(tmp_path / "2.zip", folder.pairs(chosen))
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    index = archive.read_index(tmp_path / "1.zip")
    assert index["mask"][0] == "p1/p1_1_mask.png" and index.slice.tolist() == [*range(1, 12)] * 2
    assert set(index.institution) == {folder.INSTITUTION}


def test_p8_odd_names_work_or_are_refused(tmp_path):
    stems = ["-lead 1", "é_2", "e\u0301_3", "x" * 240 + "_4", "back`tick$_5"]
    root = place(tmp_path, *(f"p q/{stem}{end}.png" for stem in stems for end in ("", "_mask")))
    assert [pair[1] for pair in found(root)] == [1, 2, 3, 4, 5]
    odd = ["p q/new\nline_6.png", os.fsdecode(b"p q/\xff_7.png")]
    odd = odd[:1] if sys.platform == "darwin" else odd  # macOS refuses to create the second
    place(tmp_path, *odd)
    assert problems(root) == dict.fromkeys(odd, "has characters in its name that cannot be printed")


def test_p9_links_hidden_files_and_pipes(tmp_path):
    root = place(
        tmp_path, "p/1.png", "p/1_mask.png", "p/.DS_Store", "p/._1.png", "__MACOSX/p/1.png", "p/notes.txt", "q/real.tif"
    )
    (root / "p/2.png").symlink_to(root / "p/1.png")
    (root / "p/2_mask.png").symlink_to("1_mask.png")
    (root / "q/real.tif").unlink()
    (root / "p/.hidden").symlink_to(root)
    os.mkfifo(root / "p/3.png")
    assert [pair[:2] for pair in found(root)] == [("p", 1), ("p", 2)]
    (root / "p/4.png").symlink_to(tmp_path / "outside.png")
    (root / "p/5.png").symlink_to("5.png")
    (root / "r").symlink_to("/no/such/patient")
    assert problems(root) == dict.fromkeys(("p/4.png", "p/5.png", "r"), "is a link that leads nowhere")


def test_links_lead_to_files_and_folders_elsewhere_and_each_folder_is_read_once(tmp_path, capsys):
    store = place(tmp_path / "store", "p1/1.png", "p1/1_mask.png", "2.png", "2_mask.png")
    root = place(tmp_path / "set", "p0/1.png", "p0/1_mask.png")
    (root / "p1").symlink_to(store / "p1")
    (root / "p9").symlink_to(store / "p1")
    (root / "p1/loop").symlink_to(store)
    for name in ("2.png", "2_mask.png"):
        (root / "p0" / name).symlink_to(store / name)
    assert [pair[:2] for pair in found(root)] == [("p0", 1), ("p0", 2), ("p1", 1)]
    told = capsys.readouterr().err
    assert f"WARNING {root / 'p9'}: is the same folder as {root / 'p1'}" in told
    assert f"WARNING {root / 'p1/loop'}: is a link to a folder that it lies in" in told


def test_images_and_masks_may_be_two_links_to_one_folder(tmp_path):
    store = place(tmp_path / "store", "a_1.png", "a_1_mask.png")
    root = tmp_path / "set"
    root.mkdir()
    for name in ("images", "masks"):
        (root / name).symlink_to(store)
    pairs = found(root, images="images/*1.png", masks="masks/*1_mask.png", patient="(a)_")
    assert pairs == [("a", 1, "images/a_1.png", "masks/a_1_mask.png")]


def test_what_cannot_be_read_is_listed_and_not_left_out(tmp_path, monkeypatch):
    """A folder that cannot be listed, a file that cannot be reached; simulated, because root may read everything."""
    root = place(tmp_path, *(f"{p}/{name}.png" for p in "abc" for name in ("1", "1_mask")))
    scandir, stat = os.scandir, Path.stat

    def denied(call, path, name, *args, **options):
        if str(path).endswith(name):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return call(path, *args, **options)

    monkeypatch.setattr(os, "scandir", lambda path: denied(scandir, path, "/a"))
    monkeypatch.setattr(Path, "stat", lambda path, **options: denied(stat, path, "b/1.png", **options))
    assert problems(root) == dict.fromkeys(("a", "b/1.png"), "cannot be read (Permission denied)") | {
        "b/1_mask.png": "is a mask without image"
    }


def test_a_file_that_goes_while_it_is_packed_is_named(tmp_path):
    root = place(tmp_path, "p/1.png", "p/1_mask.png", "p/2.png", "p/2_mask.png")
    packing = folder.pairs(params(root))
    next(packing)
    (root / "p/2_mask.png").unlink()
    with pytest.raises(DataError, match=r"p/2_mask\.png: cannot be read \(No such file"):
        next(packing)


def test_p5_a_file_larger_than_any_image_is_not_read(tmp_path):
    root = place(tmp_path, "p/1.png", "p/1_mask.png")
    os.truncate(root / "p/1.png", pictures.MAX_BYTES)
    assert len(found(root)) == 1
    os.truncate(root / "p/1.png", pictures.MAX_BYTES + 1)
    assert problems(root)["p/1.png"] == "holds 68,157,441 bytes, at most 68,157,440 are accepted"


def test_a_folder_that_is_missing_or_holds_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, what in (
        (None, "is null"),
        (str(tmp_path / "none"), "not a folder"),
        (str(tmp_path / "empty"), "no picture or volume fits"),
    ):
        with pytest.raises(DataError, match=what):
            list(folder.pairs(params("").model_copy(update={"path": path})))
