"""Folders as archives and media have them: what is outlined, and that the rest is named with its reason."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainseg.errors import DataError
from brainseg.io import nifti
from brainseg.predict import batch

pytest.importorskip("pydicom")
pytest.importorskip("gdcm")
from pydicom import uid

from tests.support import tcia_download
from tests.support.dicom_compressed import compress
from tests.support.dicom_series import save, save_series
from tests.support.fake_outliner import Fake, heads


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file, strict=True)}


def run(path: Path, out: Path, capsys, **options) -> str:
    """What is said on stdout."""
    batch.run(batch.Inputs([str(path)]), out, Fake(), **options)
    return capsys.readouterr().out


AGAINST_FLAIR = "its times are not those of FLAIR: echo"


def test_a_download_of_tcia_gives_a_case_for_each_series_and_a_reason_for_the_rest(tmp_path, capsys):
    voxels = heads(4).astype(np.uint16)
    study, out = tcia_download.make(tmp_path / "in", voxels), tmp_path / "out"
    with pytest.raises(DataError) as caught:
        batch.run(batch.Inputs([str(tmp_path / "in")]), out, Fake())
    said = capsys.readouterr()
    assert [problem.path for problem in caught.value.problems] == [str(study / "1")]
    rows = table(out)
    assert {name for name, row in rows.items() if not row["error"]} == {"2", "3", "4", "5"}
    for number in "2345":
        mask = nifti.read_labels(next(out.rglob(f"masks/**/{number}.nii.gz")), "mask")
        np.testing.assert_array_equal(mask.voxels, voxels == 230)
        first, *others = rows[number]["warnings"].split("; ")
        assert first == "passed over 1 file that is not DICOM: LICENSE"
        times = "100 ms, repetition 4000" if number == "4" else "12 ms, repetition 600"
        assert (f"{AGAINST_FLAIR} {times} ms, inversion none" in others) == (number != "3")
    reasons = {
        "1": "holds 3 slices in several directions (axial, coronal, sagittal), as a localizer does",
        "6": "holds 1 file that is of another kind (Secondary Capture Image): 1-01.dcm",
        "7": "holds 1 file that is DICOM without an image: 1-01.dcm",
        "8": "holds 1 file that is DICOM without an image: 1-01.dcm",
    }
    assert {name: row["error"] for name, row in rows.items() if row["error"]} == reasons
    for number in "678":
        assert f"passed over {study / number}: {reasons[number]}" in said.out
    assert f"ERROR 2 {study / '1'}: {reasons['1']}" in said.err
    assert "DOE" not in said.out + said.err and "1970" not in said.out + said.err


def test_what_has_no_slices_is_an_error_only_if_it_was_named(tmp_path, capsys):
    study = tcia_download.make(tmp_path / "in", heads(4).astype(np.uint16))
    for number in "12":
        for path in (study / number).iterdir():
            path.unlink()
    assert "4 passed over" not in run(tmp_path / "in", tmp_path / "out", capsys)
    with pytest.raises(DataError, match="but a Secondary Capture Image"):
        run(study / "6/1-01.dcm", tmp_path / "named", capsys)


def test_what_has_no_slices_takes_no_row_of_a_case(tmp_path, capsys):
    """Slices as pictures, and beside them a report and a screenshot as DICOM: two reasons in one further row."""
    for n, page in enumerate(heads(4), 1):
        (tmp_path / "in/P1").mkdir(parents=True, exist_ok=True)
        Image.fromarray(page).save(tmp_path / f"in/P1/P1_{n}.tif")
    study = tcia_download.make(tmp_path / "study", heads(4).astype(np.uint16))
    for number in "68":
        (study / number / "1-01.dcm").rename(tmp_path / f"in/P1/{number}.dcm")
    for _ in range(2):
        run(tmp_path / "in", tmp_path / "out", capsys)
        first, second = table(tmp_path / "out").values()
        assert (first["case"], first["slices"], first["error"]) == ("P1", "4", "")
        assert second["case"] == "P1-2" and "Secondary Capture" in second["error"]
        assert "DICOM without an image: 8.dcm" in second["error"] and not second["mask"]


@pytest.mark.parametrize("named", ["", "DICOMDIR"])
def test_a_dicomdir_is_its_folder_and_tells_what_is_missing(tmp_path, capsys, named):
    medium = tmp_path / "cd"
    paths = save_series(medium / "IM", heads(4).astype(np.uint16))
    for n, path in enumerate(paths):
        path.rename(path.with_name(f"I{n}"))
    names = [["IM", f"I{n}"] for n in range(6)] + [["GONE", "I9"], ["DOE^JANE", "I1"]]
    tcia_download.make_dicomdir(medium, names)
    said = run(medium / named, tmp_path / "out", capsys)
    [row] = table(tmp_path / "out").values()
    assert row["warnings"].split("; ")[0] == "lacks 2 files that are named in DICOMDIR: I4, I5" and not row["error"]
    assert f"passed over {medium / 'GONE'}: lacks 1 file that is named in DICOMDIR: I9" in said


def test_a_damaged_dicomdir_hinders_nothing(tmp_path, capsys):
    save_series(tmp_path / "cd/IM", heads(4).astype(np.uint16))
    (tmp_path / "cd/DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"\xff" * 500)
    assert "1 case answered" in run(tmp_path / "cd/DICOMDIR", tmp_path / "out", capsys)


def test_a_single_compressed_series_is_decoded_in_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    compress(save(tmp_path / "in", tcia_download.stack(2, heads(4))), uid.RLELossless)
    monkeypatch.setattr(batch.cases, "read", None)
    assert "1 case answered" in run(tmp_path / "in", tmp_path / "out", capsys)


def test_several_series_of_a_folder_may_be_contrasts_of_one_study(tmp_path, capsys):
    voxels = heads(4).astype(np.uint16)
    study = tcia_download.make(tmp_path / "made", voxels)
    (tmp_path / "in").mkdir()
    for number in "35":
        for path in (study / number).glob("*.dcm"):
            path.rename(tmp_path / f"in/{number}{path.name}")
    told = "of these answers: each of 2 series that share 1 folder is taken as FLAIR; of one study, put each"
    assert told in run(tmp_path / "in", tmp_path / "out", capsys)
    assert "taken as FLAIR" not in run(study / "4", tmp_path / "alone", capsys)
