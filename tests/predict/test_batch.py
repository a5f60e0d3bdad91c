"""brainseg predict: masks in the grid and file type of the input, the table, continued runs, errors in one case."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from brainseg import __version__, cli
from brainseg.errors import DataError, RunError
from brainseg.inference import predictor
from brainseg.inference.chosen_rule import RuleChoice
from brainseg.inference.decoding import Decoders
from brainseg.io import nifti as niftis
from brainseg.predict import batch, output
from tests.support import dicom_study, itk_files
from tests.support.dicom_series import save_series
from tests.support.fake_outliner import Fake, heads
from tests.support.nifti_files import ORIENTATIONS, nifti
from tests.support.shifted_zip import shifted_zip

ROOT = Path(__file__).parents[2]


def run(paths, out, fake=None, wanted=None, **options) -> Fake:
    fake = fake or Fake()
    paths = [str(path) for path in (paths if isinstance(paths, list) else [paths])]
    batch.run(batch.Inputs(paths, **options), out, fake, wanted=wanted)
    return fake


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file, strict=True)}


def failed(out: Path) -> dict[str, str]:
    """Case → why it has no outline."""
    return {name: row["error"] for name, row in table(out).items() if row["error"]}


def answered(out: Path) -> set[str]:
    return set(table(out)) - set(failed(out))


def tif(path: Path, pages: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (Image.fromarray(page) for page in pages)
    first.save(path, save_all=True, append_images=rest)
    return path


def pages(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        found = []
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            found.append(np.array(image))
    return np.stack(found)


def slices(folder: Path, voxels: np.ndarray, name: str = "", ending: str = ".tif") -> Path:
    for n, page in enumerate(voxels, 1):
        tif(folder / f"{name or folder.name}_{n}{ending}", page[None])
    return folder


def test_a_picture_gives_a_png_of_its_size(tmp_path):
    voxels = heads(1, tumour=(0,))
    run(tif(tmp_path / "a.png", voxels), tmp_path / "out")
    np.testing.assert_array_equal(pages(tmp_path / "out/masks/a.png")[0], 255 * (voxels[0] == 230))
    row = table(tmp_path / "out")["a"]
    area = int((voxels == 230).sum())
    assert row == {
        "case": "a", "source": str(tmp_path / "a.png"), "kind": "picture", "channels": "FLAIR, FLAIR, FLAIR",
        "slices": "1", "slices_with_tumour": "1", "largest_slice": "1", "area_mm2": "", "area_pixels": str(area),
        "volume_ml": "", "volume_ml_low": "", "volume_ml_high": "", "mean_probability": "0.800",
        "warnings": row["warnings"], "seconds": row["seconds"],
        "mask": "masks/a.png", "seg": "", "overlay": "overlays/a.png", "probabilities": "", "model": "ab" * 32,
        "variant": "float32", "error": "",
    }  # fmt: skip
    assert float(row["seconds"]) >= 0 and (tmp_path / "out/overlays/a.png").stat().st_size > 1000


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_a_nifti_gives_a_mask_of_its_own_geometry(tmp_path, orientation):
    voxels = heads(5).astype(np.int16)
    path = nifti(tmp_path / "scan.nii", voxels, orientation)
    run(path, tmp_path / "out")
    given, mask = nibabel.load(path), nibabel.load(tmp_path / "out/masks/scan.nii.gz")
    np.testing.assert_allclose(mask.affine, given.affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(given.dataobj) == 230)
    row = table(tmp_path / "out")["scan"]
    area = int((voxels[1] == 230).sum())
    assert (row["kind"], row["slices"], row["slices_with_tumour"], row["largest_slice"]) == ("nifti", "5", "2", "2")
    assert float(row["area_mm2"]) == pytest.approx(area * 1.1 * 0.9, abs=0.051)
    assert float(row["volume_ml"]) == pytest.approx(2 * area * 1.1 * 0.9 * 5 / 1000, abs=0.0006)


@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd", "mgz"])
def test_other_formats_give_a_nifti_of_their_geometry_from_folders_and_zips(tmp_path, ending):
    voxels = heads(5).astype(np.int16)
    given = nibabel.load(nifti(tmp_path / "scan.nii", voxels, ORIENTATIONS[5]))
    path = tmp_path / f"in/p/scan.{ending}"
    path.parent.mkdir(parents=True)
    if ending == "mgz":
        nibabel.save(nibabel.MGHImage(np.asarray(given.dataobj), given.affine), path)
    else:
        itk_files.write(path, np.asarray(given.dataobj), given.affine)
    shutil.make_archive(str(tmp_path / "in/zipped"), "zip", path.parent)
    run(tmp_path / "in", tmp_path / "out")
    rows = table(tmp_path / "out")
    assert len(rows) == 2 and not any(row["error"] for row in rows.values())
    for row in rows.values():
        mask = nibabel.load(tmp_path / "out" / row["mask"])
        np.testing.assert_allclose(mask.affine, given.affine, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(given.dataobj) == 230)
        assert row["kind"] == {"n": "nrrd", "m": "metaimage"}[ending[0]] if ending != "mgz" else "mgh"


def test_a_dicom_series_gives_nifti(tmp_path):
    voxels = heads(4).astype(np.uint16)
    save_series(tmp_path / "in/s1", voxels)
    run(tmp_path / "in", tmp_path / "out")
    mask = niftis.read_labels(tmp_path / "out/masks/s1.nii.gz", "mask")
    np.testing.assert_array_equal(mask.voxels, voxels == 230)
    assert table(tmp_path / "out")["s1"]["kind"] == "dicom"


def test_names_that_are_not_utf8_cost_nothing(tmp_path):
    """On an old disc a report lies beside the slices."""
    save_series(tmp_path / "series", heads(4).astype(np.uint16))
    (tmp_path / "series" / os.fsdecode(b"Bericht_M\xfcller.pdf")).write_text("%PDF-1.4")
    (tmp_path / "series/Icon\r").write_text("")
    run(tmp_path / "series", tmp_path / "out")
    (row,) = table(tmp_path / "out").values()
    assert not row["error"] and r"Bericht_M\udcfcller.pdf" in row["warnings"] and r"Icon\r" in row["warnings"]
    run(tmp_path / "series", tmp_path / "out")
    assert list(table(tmp_path / "out").values()) == [row]


def test_a_complete_dicom_series_gives_a_seg_too(tmp_path, capsys):
    pydicom = pytest.importorskip("pydicom")
    dicom_study.save(tmp_path / "in/s1", heads(4).astype(np.uint16))
    run(tmp_path / "in", tmp_path / "out")
    seg = tmp_path / "out" / table(tmp_path / "out")["s1"]["seg"]
    found = pydicom.dcmread(seg)
    assert found.pixel_array.sum() == (heads(4) == 230).sum() and found.NumberOfFrames == 2
    whole = seg.read_bytes()
    seg.write_bytes(whole[:-1])
    assert len(run(tmp_path / "in", tmp_path / "out").asked) == 1 and seg.read_bytes() == whole
    assert f"WARNING {seg}: " in capsys.readouterr().err
    assert run(tmp_path / "in", tmp_path / "out").asked == []


def test_an_incomplete_dicom_series_gives_nifti_and_the_reason(tmp_path):
    dicom_study.save(tmp_path / "in/s1", heads(4).astype(np.uint16), FrameOfReferenceUID=None)
    run(tmp_path / "in", tmp_path / "out")
    row = table(tmp_path / "out")["s1"]
    assert not row["seg"] and (tmp_path / "out" / row["mask"]).exists()
    assert "no DICOM SEG" in row["warnings"] and "FrameOfReferenceUID" in row["warnings"]


@pytest.mark.parametrize("lacking", ["pre", "flair"])
def test_only_flair_decides_whether_there_is_a_seg_and_what_is_told_of_it(tmp_path, lacking):
    for role in ("flair", "pre"):
        changes = {"FrameOfReferenceUID": None} if role == lacking else {}
        dicom_study.save(tmp_path / role, heads(4).astype(np.uint16), **changes)
    run(tmp_path / "flair", tmp_path / "out", pre=str(tmp_path / "pre"))
    (row,) = table(tmp_path / "out").values()
    assert ("no DICOM SEG" in row["warnings"]) == (lacking == "flair") == (not row["seg"])


def test_a_seg_that_lacked_its_library_is_made_once_that_is_there(tmp_path, monkeypatch):
    pytest.importorskip("highdicom")
    dicom_study.save(tmp_path / "s", heads(4).astype(np.uint16))
    with monkeypatch.context() as without:
        without.setattr("brainseg.io.dicom.seg_writer.is_available", lambda: False)
        run(tmp_path / "s", tmp_path / "out")
        assert "pip install 'brainseg-lgg[medical]'" in table(tmp_path / "out")["s"]["warnings"]
        assert run(tmp_path / "s", tmp_path / "out").asked == []
    assert len(run(tmp_path / "s", tmp_path / "out").asked) == 1
    row = table(tmp_path / "out")["s"]
    assert (tmp_path / "out" / row["seg"]).is_file() and "SEG" not in row["warnings"]
    monkeypatch.setattr("brainseg.io.dicom.seg_writer.is_available", lambda: False)
    assert run(tmp_path / "s", tmp_path / "out").asked == []


def test_a_tif_of_pages_gives_one(tmp_path):
    voxels = heads(4)
    run(tif(tmp_path / "a.tif", voxels), tmp_path / "out")
    np.testing.assert_array_equal(pages(tmp_path / "out/masks/a.tif"), 255 * (voxels == 230))
    assert table(tmp_path / "out")["a"]["kind"] == "tif"


def test_numbered_slices_are_one_volume_with_a_mask_each(tmp_path):
    voxels = heads(12, tumour=(1, 10))
    slices(tmp_path / "lgg/TCGA_7", voxels)
    for n in range(1, 13):
        tif(tmp_path / f"lgg/TCGA_7/TCGA_7_{n}_mask.tif", voxels[:1])
    fake = run(tmp_path / "lgg", tmp_path / "out")
    assert fake.asked == [((12, 80, 64), (1.0, 1.0))]
    for n in range(1, 13):
        mask = pages(tmp_path / f"out/masks/TCGA_7/TCGA_7_{n}.png")[0]
        np.testing.assert_array_equal(mask, 255 * (voxels[n - 1] == 230))
    row = table(tmp_path / "out")["TCGA_7"]
    assert (row["kind"], row["slices"], row["mask"]) == ("slices", "12", "masks/TCGA_7/")


@pytest.mark.parametrize(("numbers", "named"), [
    ((1, 3, 5), "3 of 3 slices have no neighbours (1, 3, 5):"), ((1, 2, 4), "1 of 3 slices have no neighbours (4):"),
    ((1, 3, 5, 7, 9), "5 of 5 slices have no neighbours (1, 3, 5 and 2 more):"), ((1, 2, 4, 5), ""),
])  # fmt: skip
def test_numbered_slices_without_neighbours_are_told(tmp_path, numbers, named):
    for number, page in zip(numbers, heads(len(numbers)), strict=True):
        tif(tmp_path / f"in/a_{number}.tif", page[None])
    run(tmp_path / "in", tmp_path / "out")
    warnings = table(tmp_path / "out")["a"]["warnings"]
    assert named in warnings and ("neighbours" in warnings) == bool(named)


def test_a_blank_slice_of_a_volume_in_colour_is_of_three_sequences(tmp_path):
    colours = np.stack([heads(3), heads(3) // 2, heads(3)], axis=-1)
    colours[0] = 0
    slices(tmp_path / "colour", colours)
    slices(tmp_path / "gray", np.stack([heads(3)] * 3, axis=-1))
    run([tmp_path / "colour", tmp_path / "gray"], tmp_path / "out")
    rows = table(tmp_path / "out")
    assert rows["colour"]["channels"] == "pre-contrast, FLAIR, post-contrast"
    assert rows["gray"]["channels"] == "FLAIR, FLAIR, FLAIR"


def test_slices_that_do_not_belong_together_are_refused_by_name(tmp_path, capsys):
    slices(tmp_path / "a", heads(3))
    tif(tmp_path / "a/a_4.tif", heads(1, 64))
    with pytest.raises(DataError, match=r"a_\*\.tif: are slices of different kinds"):
        run(tmp_path / "a", tmp_path / "out")
    run(tmp_path / "a", tmp_path / "out", each_picture=True)
    assert len(table(tmp_path / "out")) == 4
    tif(tmp_path / "b/b_1.tif", heads(1))
    tif(tmp_path / "b/b_01.tif", heads(1))
    with pytest.raises(DataError, match="several are number 1"):
        run(tmp_path / "b", tmp_path / "out2")


def test_an_empty_answer_is_an_answer(tmp_path, capsys):
    run([nifti(tmp_path / "a.nii.gz", heads(4, tumour=()))], tmp_path / "out")
    assert "a: no tumour on 4 slices, " in capsys.readouterr().out
    row = table(tmp_path / "out")["a"]
    assert (row["area_mm2"], row["area_pixels"], row["volume_ml"], row["mean_probability"]) == ("0.0", "0", "0.000", "")
    assert (row["slices_with_tumour"], row["largest_slice"]) == ("0", "")
    assert (tmp_path / "out/masks/a.nii.gz").exists() and (tmp_path / "out/overlays/a.png").exists()


def test_three_series_are_assigned_and_named(tmp_path):
    flair = heads(3)
    for name, voxels in (("flair", flair), ("pre", flair // 2), ("post", flair // 3)):
        nifti(tmp_path / f"{name}.nii.gz", voxels)
    given = {"pre": str(tmp_path / "pre.nii.gz"), "post": str(tmp_path / "post.nii.gz")}
    fake = run(tmp_path / "flair.nii.gz", tmp_path / "out", **given)
    assert fake.asked[0][0] == (3, 80, 64, 3)
    assert table(tmp_path / "out")["flair"]["channels"] == "pre-contrast, FLAIR, post-contrast"
    assert run(tmp_path / "flair.nii.gz", tmp_path / "out", **given).asked == []
    fake = run(tmp_path / "flair.nii.gz", tmp_path / "out", post=given["post"])  # another question, another answer
    rows = table(tmp_path / "out")
    assert len(fake.asked) == 1 and rows["flair-2"]["channels"] == "FLAIR, FLAIR, post-contrast"
    nifti(tmp_path / "far.nii.gz", flair, shift=9)
    with pytest.raises(DataError, match="lies elsewhere"):
        run(tmp_path / "flair.nii.gz", tmp_path / "out", pre=str(tmp_path / "far.nii.gz"))
    with pytest.raises(DataError, match="FLAIR is 2 cases"):
        run([tmp_path / "flair.nii.gz", tmp_path / "far.nii.gz"], tmp_path / "out", **given)


def test_the_same_name_in_two_folders(tmp_path):
    for name in ("a/x.nii.gz", "b/x.nii.gz"):
        nifti(tmp_path / "in" / name, heads(3))
    tif(tmp_path / "in/a/x.png", heads(1))
    run([tmp_path / "in/a", tmp_path / "in/b/x.nii.gz"], tmp_path / "out")
    rows = table(tmp_path / "out")
    assert set(rows) == {"a/x", "a/x-2", "b/x"}
    assert {row["mask"] for row in rows.values()} == {"masks/a/x.nii.gz", "masks/a/x-2.png", "masks/b/x.nii.gz"}


HOSTILE = ["a\nb", "-rf", "=1+1", "..", "ü" * 90, "x" * 250, "a\x1b[2J", "CON:", "\u202eabc", "A", "a", " ", "..."]


def test_names_of_all_kinds_stay_within_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in HOSTILE:
        tif(Path(f"in/{name}/x{name}.png" if name != ".." else "in/...a/..b.png"), heads(1))
    before = set(tmp_path.iterdir())
    run("in", Path("out"))
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out"}
    rows = table(Path("out"))
    assert len(rows) == len(HOSTILE) - 2  # those that begin with a dot are hidden
    for row in rows.values():
        assert Path(row["mask"]).is_relative_to("masks") and (Path("out") / row["mask"]).is_file()
        assert all(text.isprintable() and not text.startswith(("=", "-", "+", "@")) for text in row.values())
        assert all(not part.startswith(("-", ".", "=")) for part in Path(row["case"]).parts)
    assert len({row["mask"].casefold() for row in rows.values()}) == len(rows)
    assert run("in", Path("out")).asked == []


def test_no_cell_is_a_formula(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tif(Path("=1+1.png"), heads(1)), Path("out"))
    assert table(Path("out"))["_1+1"]["source"] == "./=1+1.png"


def test_a_pair_in_a_folder_and_in_a_zip_is_answered(tmp_path):
    nifti(tmp_path / "in/scan.img", heads(3))
    with zipfile.ZipFile(tmp_path / "in/z.zip", "w") as archive:
        for half in ("scan.hdr", "scan.img"):
            archive.write(tmp_path / "in" / half, half)
    run(tmp_path / "in", tmp_path / "out")
    rows = table(tmp_path / "out")
    assert len(rows) == 2 and all((row["kind"], row["slices"]) == ("nifti", "3") for row in rows.values())


def test_a_zip_is_answered_member_by_member(tmp_path):
    voxels = heads(4).astype(np.uint16)
    paths = save_series(tmp_path / "d", voxels)
    nifti(tmp_path / "n.nii.gz", heads(3))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in paths:
            archive.write(path, f"dicom/{path.name}")
        archive.write(tmp_path / "n.nii.gz", "n.nii.gz")
    run(tmp_path / "z.zip", tmp_path / "out")
    assert set(table(tmp_path / "out")) == {"dicom", "n"}
    mask = niftis.read_labels(tmp_path / "out/masks/dicom.nii.gz", "mask")
    np.testing.assert_array_equal(mask.voxels, voxels == 230)
    assert not [path for path in (tmp_path / "out").iterdir() if "unpacked" in path.name]


def test_bad_files_are_told_and_passed_over(tmp_path, capsys):
    good = nifti(tmp_path / "in/b.nii.gz", heads(3))
    (tmp_path / "in/a.nii.gz").write_bytes(good.read_bytes()[:200])
    (tmp_path / "in/c.png").write_bytes(b"no")
    with pytest.raises(DataError) as caught:
        run([tmp_path / "in", tmp_path / "nowhere.tif"], tmp_path / "out")
    assert [Path(problem.path).name for problem in caught.value.problems] == ["nowhere.tif", "a.nii.gz", "c.png"]
    told = capsys.readouterr()
    assert told.err.count("ERROR 2 ") == 3 and answered(tmp_path / "out") == {"b"}
    assert "1 case answered, 1 with tumour, 3 errors" in told.out
    assert failed(tmp_path / "out") == {
        "a": "is damaged or cut short (its gzip stream is not whole)", "c": "is neither a TIFF nor a PNG nor a JPEG",
        str(tmp_path / "nowhere.tif"): "is not there",
    }  # fmt: skip
    row = table(tmp_path / "out")["a"]
    assert row["source"] == str(tmp_path / "in/a.nii.gz") and not row["slices"] + row["mask"] + row["model"]
    nifti(tmp_path / "in/a.nii.gz", heads(3))
    (tmp_path / "in/c.png").unlink()
    run(tmp_path / "in", tmp_path / "out")
    assert answered(tmp_path / "out") == {"a", "b"} and not failed(tmp_path / "out")


def test_a_fault_that_nobody_foresaw_costs_one_case(tmp_path):
    class Failing(Fake):
        def segment(self, voxels, pixel=(1, 1), **options):
            if len(voxels) == 4:
                raise ValueError("odd")
            return super().segment(voxels, pixel, **options)

    nifti(tmp_path / "in/a.nii.gz", heads(4))
    nifti(tmp_path / "in/b.nii.gz", heads(3))
    with pytest.raises(DataError, match=r"a\.nii\.gz: ValueError: odd"):
        run(tmp_path / "in", tmp_path / "out", Failing())
    assert answered(tmp_path / "out") == {"b"} and failed(tmp_path / "out") == {"a": "ValueError: odd"}


def test_an_answer_that_is_no_number_costs_one_case(tmp_path, capsys):
    class Broken(Fake):
        def segment(self, voxels, pixel=(1, 1), *, name, **options):
            if len(voxels) == 4:
                raise RunError(f"{name}, slice 2 of 4", "the network's answer is not a number", "train it again")
            return super().segment(voxels, pixel, **options)

    path = nifti(tmp_path / "in/a.nii.gz", heads(4))
    nifti(tmp_path / "in/b.nii.gz", heads(3))
    with pytest.raises(RunError):
        run(tmp_path / "in", tmp_path / "out", Broken())
    reason = f"{path}, slice 2 of 4: the network's answer is not a number"
    assert answered(tmp_path / "out") == {"b"} and failed(tmp_path / "out") == {"a": reason}
    assert f"ERROR 5 {reason}" in capsys.readouterr().err


def test_a_file_that_kills_its_reader_or_never_ends_costs_one_case(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
    for name in ("a", "fill", "kill", "z"):
        nifti(tmp_path / f"in/{name}.nii.gz", heads(3))
    hanging = nifti(tmp_path / "in/hang.nii.gz", heads(8)).stat().st_size

    def limit(size):
        return 1.0 if size == hanging else 30.0

    monkeypatch.setattr(batch, "Decoders", lambda count, seconds: Decoders(count, limit, "tests.support.dying_worker"))
    with pytest.raises(RunError):
        run(tmp_path / "in", tmp_path / "out")
    assert answered(tmp_path / "out") == {"a", "z"}
    assert failed(tmp_path / "out") == {
        "fill": "needs more memory than it may use", "hang": "takes more than 1.0 s to decode",
        "kill": "crashed the process that decodes it",
    }  # fmt: skip


def test_what_looking_for_cases_finds_damaged_costs_one_case(tmp_path):
    """A zip whose end lies about the place of its directory; a DICOM file whose UID has a kind that does not exist."""
    tif(tmp_path / "in/good.png", heads(1))
    (series,) = save_series(tmp_path / "in/series", heads(1).astype(np.uint16))
    series.write_bytes(series.read_bytes().replace(b"\x20\x00\x0e\x00UI", b"\x20\x00\x0e\x00ZZ"))
    shifted_zip(tmp_path / "in/z.zip", {"p_1.tif": b"x" * 300, "p_2.tif": b"x" * 300, "d/1.dcm": b"x" * 300})
    with pytest.raises(DataError):
        run(tmp_path / "in", tmp_path / "out")
    assert answered(tmp_path / "out") == {"good"}
    assert set(failed(tmp_path / "out")) == {"series", "z/p", "z/d"}
    assert all("is damaged" in reason for reason in failed(tmp_path / "out").values())


def test_what_is_no_head_is_refused_and_what_may_be_none_is_marked(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (1, 80, 80)).astype(np.uint8)
    tif(tmp_path / "in/noise.png", noise)
    tif(tmp_path / "in/wide.png", heads(1, 64, 90))
    with pytest.raises(DataError, match=r"noise\.png: does not look like an axial brain slice"):
        run(tmp_path / "in", tmp_path / "out")
    assert "does not look like" in table(tmp_path / "out")["wide"]["warnings"]


def test_a_model_of_phantoms_says_so_in_every_row(tmp_path):
    run(tif(tmp_path / "a.png", heads(1)), tmp_path / "out", Fake(source="phantom"))
    assert "trained on drawn phantoms" in table(tmp_path / "out")["a"]["warnings"]


def test_what_is_passed_over_is_counted_and_listed_when_asked(tmp_path, capsys):
    for name in ("a.png", "a_mask.png", ".hidden.png"):
        tif(tmp_path / "in" / name, heads(1))
    (tmp_path / "in/notes.txt").touch()
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    run(tmp_path / "in", tmp_path / "out")
    said = capsys.readouterr().out
    counted = "4 passed over (link: 1; hidden: 1; mask: 1; other file: 1; --verbose lists them)"
    assert "1 case answered" in said and counted in said
    assert [line for line in said.splitlines() if line.startswith("passed over")] == [
        f"passed over {tmp_path / 'in/loop'}: is a link to a folder that it lies in"
    ]
    batch.run(batch.Inputs([str(tmp_path / "in")]), tmp_path / "out", Fake(), verbose=True)
    said = capsys.readouterr().out
    for name in ("a_mask.png", ".hidden.png", "notes.txt", "loop"):
        assert f"passed over {tmp_path / 'in' / name}: " in said


def test_what_must_be_known_of_the_model_is_said(tmp_path, capsys):
    run(tif(tmp_path / "a.png", heads(1)), tmp_path / "out")
    assert "\nof the model: 20 of 110 patients\n" in capsys.readouterr().out


def test_nothing_to_answer_is_one_fault_that_names_what_is_there(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="there is no image or volume, nor anything else"):
        run(tmp_path / "in", tmp_path / "out")
    for name in ("a.txt", "b.pdf", "c.docx", "sub/d.xlsx", "e_mask.png"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("no image")
    with pytest.raises(DataError, match=r"no image or volume but (\w+\.\w+ \(is .*\), ){2}.* and 2 more$") as caught:
        run(tmp_path / "in", tmp_path / "out")
    assert len(caught.value.problems) == 1 and not (tmp_path / "out/summary.csv").exists()
    with pytest.raises(DataError, match="no image or volume but a"):
        run(tmp_path / "in/*.txt", tmp_path / "out", pre=str(tmp_path / "in/a.txt"))
    assert "ERROR" not in capsys.readouterr().err


def test_a_folder_of_masks_alone_says_why_and_the_way_out_works(tmp_path):
    mask = nifti(tmp_path / "in/x_mask.nii.gz", heads(3))
    with pytest.raises(DataError, match=r"but x_mask\.nii\.gz \(is a mask, by its name\)") as caught:
        run(tmp_path / "in", tmp_path / "out")
    assert "the file itself" in caught.value.problems[0].fix and "NRRD, MetaImage, MGH" in caught.value.problems[0].fix
    assert len(run(mask, tmp_path / "out").asked) == 1


def test_a_single_case_of_simpleitk_is_decoded_in_a_process_of_its_own(tmp_path, monkeypatch):
    path = itk_files.write(tmp_path / "a.nrrd", heads(5).transpose(2, 1, 0), np.diag([-1.0, -1, 5, 1]))
    monkeypatch.setattr(batch.cases, "read", None)
    assert len(run(path, tmp_path / "out").asked) == 1


def test_other_numbers_of_the_same_slices_are_another_case(tmp_path):
    slices(tmp_path / "a", heads(4))
    run(tmp_path / "a", tmp_path / "out")
    for old, new in ((4, 10), (3, 9)):
        (tmp_path / f"a/a_{old}.tif").rename(tmp_path / f"a/a_{new}.tif")
    assert len(run(tmp_path / "a", tmp_path / "out").asked) == 1
    assert {path.stem for path in (tmp_path / "out/masks/a").iterdir()} == {"a_1", "a_2", "a_9", "a_10"}


def test_a_second_run_keeps_what_is_done(tmp_path, capsys):
    for name in "ab":
        nifti(tmp_path / f"in/{name}.nii.gz", heads(3))
    out = tmp_path / "out"
    assert len(run(tmp_path / "in", out).asked) == 2
    first = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    assert run(tmp_path / "in", out).asked == [] and capsys.readouterr().out.count(", kept") == 2
    assert {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()} == first
    nifti(tmp_path / "in/a.nii.gz", heads(4))  # other bytes
    assert [shape for shape, _ in run(tmp_path / "in", out).asked] == [(4, 80, 64)]
    (out / "masks/b.nii.gz").unlink()
    assert [shape for shape, _ in run(tmp_path / "in", out).asked] == [(3, 80, 64)]
    assert len(run(tmp_path / "in", out, Fake(weights="cd" * 32)).asked) == 2
    assert {row["model"] for row in table(out).values()} == {"cd" * 32}
    other = Fake(weights="cd" * 32)
    other.digest = "ef" * 32  # in 8 bits, or exported with another calibration
    assert len(run(tmp_path / "in", out, other).asked) == 2


def test_answers_gather_in_one_folder_under_stable_names(tmp_path):
    out = tmp_path / "out"
    run(nifti(tmp_path / "in/a/x.nii.gz", heads(3)), out)
    assert set(table(out)) == {"x"}
    nifti(tmp_path / "in/b/x.nii.gz", heads(4))
    fake = run(tmp_path / "in/b/x.nii.gz", out)  # the name is another case's
    assert len(fake.asked) == 1 and set(table(out)) == {"x", "x-2"}
    assert run(tmp_path / "in", out).asked == [] and set(table(out)) == {"x", "x-2"}
    (tmp_path / "in").rename(tmp_path / "moved")
    assert run(tmp_path / "moved/a/x.nii.gz", out).asked == []
    assert table(out)["x"]["source"] == str(tmp_path / "moved/a/x.nii.gz")


def test_the_answer_to_what_was_changed_and_is_damaged_now_is_taken_back(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", heads(3))
    run(path, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError):
        run(path, tmp_path / "out")
    assert answered(tmp_path / "out") == set() and not list((tmp_path / "out").rglob("*.nii.gz"))


def test_what_an_earlier_answer_left_over_is_removed(tmp_path):
    slices(tmp_path / "a", heads(3))
    run(tmp_path / "a", tmp_path / "out")
    (tmp_path / "a/a_3.tif").unlink()
    run(tmp_path / "a", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out/masks/a").iterdir()} == {"a_1.png", "a_2.png"}


def test_a_folder_of_other_things_is_refused(tmp_path):
    path = tif(tmp_path / "in/a.png", heads(1))
    (tmp_path / "file").touch()
    for out in (tmp_path / "in", tmp_path / "file"):
        with pytest.raises(DataError, match=r"holds other things|is a file"):
            run(path, out)
    assert [each.name for each in (tmp_path / "in").iterdir()] == ["a.png"]


def test_one_process_at_a_time(tmp_path):
    path = tif(tmp_path / "a.png", heads(1))
    with output.open_folder(tmp_path / "out"), pytest.raises(RunError, match="another brainseg predict"):
        run(path, tmp_path / "out")


def test_a_link_in_the_folder_leads_nowhere(tmp_path):
    path = tif(tmp_path / "a.png", heads(1))
    run(path, tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    for each in (tmp_path / "out/masks").iterdir():
        each.unlink()
    (tmp_path / "out/masks").rmdir()
    (tmp_path / "out/masks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is reached through a link"):
        run(path, tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_journal_of_others_removes_nothing_outside(tmp_path):
    path = tif(tmp_path / "a.png", heads(1))
    run(path, tmp_path / "out")
    (tmp_path / "precious").touch()
    journal = tmp_path / "out" / output.JOURNAL
    journal.write_text(journal.read_text().replace('"masks/a.png"', '"masks/../../precious"', 1))
    tif(path, heads(1, tumour=(0,)))
    run(path, tmp_path / "out")
    assert (tmp_path / "precious").exists()


def test_a_name_that_the_terminal_cannot_show(tmp_path):
    tif(tmp_path / "in/ü.png", heads(1))
    code = (
        "import sys; from pathlib import Path; from brainseg.predict import batch\n"
        "from tests.support.fake_outliner import Fake\n"
        "batch.run(batch.Inputs([sys.argv[1]]), Path(sys.argv[2]), Fake())"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", code, tmp_path / "in", tmp_path / "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "\\xfc: no tumour" in done.stdout and set(table(tmp_path / "out")) == {"ü"}


def test_what_cannot_be_answered_any_more_but_is_unchanged_stays(tmp_path):
    class Failing(Fake):
        def segment(self, *given, **options):
            raise MemoryError

    path = tif(tmp_path / "a.png", heads(1))
    run(path, tmp_path / "out")
    with pytest.raises(RunError, match="out of memory"):
        run(path, tmp_path / "out", Failing(weights="cd" * 32))
    row = table(tmp_path / "out")["a"]
    assert (row["model"], row["mask"], row["error"]) == ("ab" * 32, "masks/a.png", "out of memory")


MAPS = batch.Wanted(maps=True)


def lesions(out: Path) -> list[dict[str, str]]:
    with (out / "lesions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.mark.parametrize("orientation", ORIENTATIONS[::13])
def test_a_probability_map_of_a_volume_lies_on_its_grid(tmp_path, orientation):
    path = nifti(tmp_path / "scan.nii", heads(4).astype(np.int16), orientation)
    run(path, tmp_path / "out", wanted=MAPS)
    given, mask, found = (
        nibabel.load(each)
        for each in (path, tmp_path / "out/masks/scan.nii.gz", tmp_path / "out/probabilities/scan.nii.gz")
    )
    np.testing.assert_array_equal(found.affine, mask.affine)
    expected = np.where(np.asarray(given.dataobj) == 230, np.float32(204 / 255), np.float32(10 / 255))
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    assert found.get_data_dtype() == np.float32
    assert table(tmp_path / "out")["scan"]["probabilities"] == "probabilities/scan.nii.gz"


def test_probability_maps_of_pictures_say_their_scale(tmp_path):
    tif(tmp_path / "in/a.png", heads(1, tumour=(0,)))
    tif(tmp_path / "in/b.tif", heads(3))
    slices(tmp_path / "in/c", heads(2, tumour=(1,)))
    run(tmp_path / "in", tmp_path / "out", wanted=MAPS)
    home = tmp_path / "out/probabilities"
    for name, voxels in (("a.png", heads(1, tumour=(0,))), ("b.tif", heads(3)), ("c/c_2.png", heads(2)[1:])):
        np.testing.assert_array_equal(pages(home / name), np.where(voxels == 230, 204, 10))
        with Image.open(home / name) as image:
            assert "value / 255" in (image.text["Description"] if name.endswith("png") else image.tag_v2[270])
    shown = {name: row["probabilities"] for name, row in table(tmp_path / "out").items()}
    assert shown == {"a": "probabilities/a.png", "b": "probabilities/b.tif", "c": "probabilities/c/"}


def test_maps_that_are_asked_for_later_are_made_and_then_kept(tmp_path):
    path, out = nifti(tmp_path / "a.nii.gz", heads(3)), tmp_path / "out"
    run(path, out)
    assert not (out / "probabilities").exists() and not table(out)["a"]["probabilities"]
    assert len(run(path, out, wanted=MAPS).asked) == 1
    made = out / "probabilities/a.nii.gz"
    first = made.read_bytes()
    assert run(path, out, wanted=MAPS).asked == [] and run(path, out).asked == []
    made.write_bytes(first[:-1])
    assert len(run(path, out, wanted=MAPS).asked) == 1 and made.read_bytes() == first


def test_an_answer_by_another_rule_is_told_and_made_again(tmp_path, capsys):
    path, out = nifti(tmp_path / "a.nii.gz", heads(3)), tmp_path / "out"
    run(path, out)
    assert "threshold" not in table(out)["a"]["warnings"] + capsys.readouterr().out
    for choice in (RuleChoice(threshold=0.25), RuleChoice(min_component=7), RuleChoice(0.25, 7)):
        wanted = batch.Wanted(choice)
        assert len(run(path, out, wanted=wanted).asked) == 1 and run(path, out, wanted=wanted).asked == []
        texts = table(out)["a"]["warnings"], capsys.readouterr().out.partition("of these answers:")[2]
        for text in texts:
            assert ("threshold 0.25 (the model's: 0.5)" in text) == (choice.threshold is not None)
            assert ("smallest component 7 voxels" in text) == (choice.min_component is not None)
    assert len(run(path, out).asked) == 1 and "threshold" not in table(out)["a"]["warnings"]
    assert run(path, out, wanted=batch.Wanted(RuleChoice(threshold=0.5))).asked == []  # the model's own


def test_lesions_have_a_table(tmp_path):
    voxels = heads(12, tumour=(1, 2, 8)).astype(np.int16)
    nifti(tmp_path / "in/b.nii.gz", voxels)
    nifti(tmp_path / "in/none.nii.gz", heads(4, tumour=()))
    tif(tmp_path / "in/a.png", heads(1, tumour=(0,)))
    run(tmp_path / "in", tmp_path / "out")
    picture, larger, smaller = lesions(tmp_path / "out")
    assert [(row["case"], row["lesion"]) for row in (picture, larger, smaller)] == [("a", "1"), ("b", "1"), ("b", "2")]
    assert [(row["first_slice"], row["last_slice"]) for row in (larger, smaller)] == [("2", "3"), ("9", "9")]
    assert float(larger["volume_ml"]) + float(smaller["volume_ml"]) == pytest.approx(
        float(table(tmp_path / "out")["b"]["volume_ml"]), abs=0.002
    )
    assert larger["area_mm2"] == table(tmp_path / "out")["b"]["area_mm2"]
    assert (picture["voxels"], picture["mean_probability"]) == (table(tmp_path / "out")["a"]["area_pixels"], "0.800")
    assert picture["volume_ml"] == picture["area_mm2"] == picture["centroid_x_mm"] == ""


def test_very_many_lesions_are_cut_and_that_is_said(tmp_path, monkeypatch):
    nifti(tmp_path / "a.nii.gz", heads(9, tumour=(1, 4, 7)))
    for most, told in ((2, True), (3, False)):
        monkeypatch.setattr("brainseg.inference.answers.lesions.MOST", most)
        run(tmp_path / "a.nii.gz", tmp_path / f"out{most}")
        warnings = table(tmp_path / f"out{most}")["a"]["warnings"]
        assert len(lesions(tmp_path / f"out{most}")) == most and (f"only the {most} largest" in warnings) == told


def test_the_table_of_lesions_stays_as_it_was_when_a_run_goes_on(tmp_path):
    for name in "ab":
        nifti(tmp_path / f"in/{name}.nii.gz", heads(6, tumour=(1, 4)))
    run(tmp_path / "in/b.nii.gz", tmp_path / "parts")
    run(tmp_path / "in", tmp_path / "parts")
    run(tmp_path / "in", tmp_path / "whole")
    first = (tmp_path / "whole/lesions.csv").read_bytes()
    assert len(first.splitlines()) == 5 and (tmp_path / "parts/lesions.csv").read_bytes() == first
    run(tmp_path / "in", tmp_path / "whole")
    assert (tmp_path / "whole/lesions.csv").read_bytes() == first


SLOW = """
import sys, time
from pathlib import Path
from brainseg.predict import batch
from tests.support.fake_outliner import Fake
class Slow(Fake):
    def segment(self, *given, **options):
        time.sleep(0.3)
        return super().segment(*given, **options)
batch.run(batch.Inputs([sys.argv[1]]), Path(sys.argv[2]), Slow())
"""


def test_a_kill_loses_nothing_that_was_done(tmp_path):
    for n in range(9):
        nifti(tmp_path / f"in/{chr(97 + n)}.nii.gz", heads(3))
    out = tmp_path / "out"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    child = subprocess.Popen([sys.executable, "-c", SLOW, tmp_path / "in", out], env=environment)
    while child.poll() is None and len(list(out.glob("overlays/*.png"))) < 3:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = len((out / output.JOURNAL).read_text().splitlines()) - 1
    with (out / output.JOURNAL).open("a") as journal:
        journal.write('{"name": "cut sho')
    fake = run(tmp_path / "in", out)
    assert 2 <= done < 9 and len(fake.asked) == 9 - done
    assert len(table(out)) == 9 and not [path for path in out.rglob(".*") if path.is_dir()]
    assert run(tmp_path / "in", out).asked == []


def test_a_full_disk_ends_the_run(tmp_path, monkeypatch):
    for name in "ab":
        nifti(tmp_path / f"in/{name}.nii.gz", heads(3))

    def full(*_):
        raise OSError(28, "No space left on device", "masks")

    monkeypatch.setattr("brainseg.io.nifti.write", full)
    with pytest.raises(OSError, match="No space"):
        run(tmp_path / "in", tmp_path / "out")


def test_no_name_or_date_of_a_header_comes_out(tmp_path, capsys):
    save_series(tmp_path / "in/s", heads(4).astype(np.uint16))
    save_series(tmp_path / "in/t", heads(4).astype(np.uint16)[::-1])
    (tmp_path / "in/t/3.dcm").write_bytes((tmp_path / "in/t/3.dcm").read_bytes()[:-50])
    with pytest.raises(DataError) as caught:
        run(tmp_path / "in", tmp_path / "out")
    told = capsys.readouterr()
    texts = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    texts += [told.out.encode(), told.err.encode(), str(caught.value).encode()]
    assert b"DOE" in (tmp_path / "in/s/7.dcm").read_bytes() and len(texts) > 6
    for word in (b"DOE", b"JANE", b"19700101", b"1.2.1970"):
        assert not [text for text in texts if word in text]


WITHOUT = """
import sys
sys.modules |= dict.fromkeys("tensorflow keras mlflow pandas scipy matplotlib sklearn torch jax dvc".split())
from pathlib import Path
from brainseg.predict import batch
from tests.support.fake_outliner import Fake
batch.run(batch.Inputs([sys.argv[1]]), Path(sys.argv[2]), Fake())
"""


def test_it_runs_where_nothing_heavy_is_installed(tmp_path):
    nifti(tmp_path / "in/a.nii.gz", heads(3))
    save_series(tmp_path / "in/s", heads(4).astype(np.uint16))
    tif(tmp_path / "in/p.tif", heads(3))
    code = [sys.executable, "-c", WITHOUT, tmp_path / "in", tmp_path / "out"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    # what tests share imports nothing heavy either, so a ModuleNotFoundError would be of the package
    subprocess.run(code, env=environment, check=True)
    assert set(table(tmp_path / "out")) == {"a", "p", "s"}


def test_the_command_works_anywhere_and_names_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.setattr(sys, "argv", ["brainseg", "predict", "a.png", "-o", "out"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr().err
    assert end.value.code == 4 and "models/unet.onnx" in told and "--model FILE" in told
    assert {path.name for path in tmp_path.iterdir()} <= {"root"}


def test_without_a_project_it_takes_the_model_of_the_package_and_says_so(tmp_path, monkeypatch, capsys):
    packaged = tmp_path / "site-packages/brainseg/released/unet.onnx"
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.setattr(predictor, "PACKAGED", packaged)
    assert cli._find_model(cli.MODEL) == packaged
    assert capsys.readouterr().err == (
        f"model: {packaged}, released with brainseg-lgg {__version__}; another: --model FILE\n"
    )
    assert cli._find_model(Path("other.onnx")) == Path("other.onnx")
    opened = []
    monkeypatch.setattr(predictor.Outliner, "__init__", lambda self, path, **_: opened.append(path))
    predictor.Predictor()
    (tmp_path / "models").mkdir()
    (tmp_path / "models/unet.onnx").touch()
    predictor.Predictor()
    assert opened == [packaged, cli.MODEL]
    (tmp_path / "dvc.yaml").touch()
    assert cli._find_model(cli.MODEL) == cli.MODEL and not capsys.readouterr().err


def test_a_subfolder_of_a_project_has_its_model(tmp_path, monkeypatch):
    def opened() -> Path:
        said = []
        monkeypatch.setattr("brainseg.inference.predictor.Predictor", lambda path, **_: said.append(path))
        monkeypatch.setattr(batch, "run", lambda *_, **__: None)
        monkeypatch.setattr(sys, "argv", ["brainseg", "predict", "a.png", "-o", "out"])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        return said[0]

    (tmp_path / "scans/today/models").mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path / "scans/today")
    assert opened() == tmp_path / "models/unet.onnx"
    (tmp_path / "scans/today/models/unet.onnx").touch()
    assert opened() == Path("models/unet.onnx")
    monkeypatch.chdir(tmp_path)
    assert opened() == Path("models/unet.onnx")


def test_the_command_hands_on_what_was_said(tmp_path, monkeypatch):
    said = {}
    monkeypatch.setattr("brainseg.inference.predictor.Predictor", lambda path, **options: (path, options))
    monkeypatch.setattr(batch, "run", lambda *given, **options: said.update(given=given, options=options))
    monkeypatch.chdir(tmp_path)
    line = "brainseg predict a b/*.nii -o out --pre p --post q --model m.onnx --threads 3 --each-picture --verbose"
    line += " --probabilities --threshold 0.25 --min-component 0"
    monkeypatch.setattr(sys, "argv", line.split())
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    given = batch.Inputs(["a", "b/*.nii"], "p", "q", True)
    assert said["given"] == (given, Path("out"), (Path("m.onnx"), {"threads": 3}))
    assert said["options"] == {"verbose": True, "wanted": batch.Wanted(RuleChoice(0.25, 0), maps=True)}


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--threshold", value, "above 0 and below 1") for value in ("0", "1", "-0.1", "nan", "inf")]
    + [("--min-component", "-1", "greater than or equal to 0")],
)
def test_a_rule_out_of_range_is_refused_with_the_range(tmp_path, monkeypatch, capsys, option, value, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["brainseg", "predict", "a.png", "-o", "out", f"{option}={value}"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2 and told in " ".join(capsys.readouterr().err.split())
