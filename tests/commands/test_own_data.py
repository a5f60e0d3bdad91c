"""`brainseg data`: what it says of a folder, and its exit code."""

import json
import sys
import typing
from pathlib import Path

import numpy as np
import pytest

from brainseg import cli, config
from brainseg.data import folder
from tests.support import dicom_study, own_layouts
from tests.support.nifti_files import nifti


def call(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["brainseg", "data", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


def rows(told: str) -> dict[str, str]:
    """First words of a line → the rest."""
    return dict(line.split("  ", 1) for line in told.splitlines() if "  " in line.strip())


def test_a_readable_folder(tmp_path, monkeypatch, capsys):
    root = own_layouts.brats(tmp_path / "own")
    monkeypatch.chdir(tmp_path)  # no project is needed
    assert call(monkeypatch, "own") == 0
    told = {name: text.strip() for name, text in rows(capsys.readouterr().out).items()}
    assert told["layout"].startswith("BraTS folders (download.layout: brats), ")
    assert (told["patients"], told["volumes"], told["slices"]) == ("2", "2", "4")
    assert told["cases"] == "BraTS20_Training_001 -> patient BraTS20_Training_001"
    assert told["sequences"] == "pre-contrast in 2, FLAIR in 2, post-contrast in 2"
    assert told["masks"] == "2 found, 0 missing, 0 empty of 2 looked at"
    assert (told["size"], told["spacing, mm"]) == ("8 x 8 x 2 in 2", "0.9 x 1.1 x 5 in 2")
    case = "BraTS20_Training_002"
    assert told[f"patient {case}"].split(", ") == [
        f"{case}/{case}_{kind}.nii.gz" for kind in ("t1", "flair", "t1ce", "seg")
    ]
    assert told["passed over"] == "2 files"
    assert not list(root.parent.glob("*.json"))


@pytest.mark.parametrize("name", ["brats", "nnunet", "decathlon", "bids", "table", "folders"])
def test_the_lines_for_params_yaml_read_the_same(name, tmp_path, monkeypatch, capsys):
    root = getattr(own_layouts, name)(tmp_path)
    assert call(monkeypatch, root, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    block = config.parse_yaml(content["params"], "x")["download"]
    download = config.Download(**{"images": "**/*", "masks": "**/*_mask.*", "patient": "folder"} | block)
    pairs = list(folder.pairs(download))
    assert len({pair.patient for pair in pairs}) == int(content["rows"]["patients"])
    assert len(pairs) == int(content["rows"]["slices"])


def test_faults_are_told_and_end_with_2(tmp_path, monkeypatch, capsys):
    cases = [f"BraTS20_Training_{number:03}" for number in range(9)]
    root = own_layouts.brats(tmp_path, cases)
    for case in cases[:8]:
        (root / case / f"{case}_seg.nii.gz").unlink()
    nifti(root / f"{cases[8]}/{cases[8]}_seg.nii.gz", np.ones((3, 8, 8), np.uint8))
    assert call(monkeypatch, root) == 2
    told = capsys.readouterr()
    assert "1 found, 8 missing" in told.out and "params.yaml" not in told.out
    assert told.err.count("has no mask") == 5 and "ERROR 2 and 3 more like these" in told.err
    assert f"{cases[8]}_seg.nii.gz: is 8 x 8 x 3, its image 8 x 8 x 2" in told.err


def test_masks_that_are_all_empty(tmp_path, monkeypatch, capsys):
    root = own_layouts.nnunet(tmp_path)
    for path in (root / "labelsTr").iterdir():
        own_layouts.mask(path, ())
    assert call(monkeypatch, root) == 2
    told = capsys.readouterr()
    assert "2 empty of 2 looked at" in told.out and "there is nothing to learn" in told.err


def test_what_is_asked_if_it_could_be_two(tmp_path, monkeypatch, capsys):
    root = own_layouts.folders(own_layouts.bids(tmp_path))
    assert call(monkeypatch, root) == 2
    assert "layout: bids or layout: folders" in capsys.readouterr().err
    assert call(monkeypatch, root, "--layout", "folders") == 0


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_nothing_there(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    assert call(monkeypatch, tmp_path / name) == 2
    assert str(Path(tmp_path / name)) in capsys.readouterr().err


def test_the_command_knows_the_layouts_of_params_yaml():
    assert typing.get_args(cli.Layout) == typing.get_args(config.Layout)


def test_what_was_asked_is_written_in_the_lines(tmp_path, monkeypatch, capsys):
    """Slices that need a rule, and patterns: what the message says can be done in the same command."""
    root = own_layouts.folders(tmp_path, ["img_1", "img_2"])
    assert call(monkeypatch, root) == 2 and "each_image" in capsys.readouterr().err
    assert call(monkeypatch, root, "--patient", "each_image") == 0
    assert 'patient: "each_image"' in capsys.readouterr().out
    assert call(monkeypatch, root, "--images", "images/*", "--masks", "masks/*", "--patient", "(img)_") == 0
    content = config.parse_yaml(capsys.readouterr().out.partition("params.yaml:")[2], "x")["download"]
    assert content == {
        "source": "folder", "path": str(root), "layout": "patterns", "images": "images/*", "masks": "masks/*",
        "patient": "(img)_",
    }  # fmt: skip
    assert call(monkeypatch, root, "--patient", "(a)(b)") == 2 and "--patient" in capsys.readouterr().err


def test_patients_by_a_table(tmp_path, monkeypatch, capsys):
    own_layouts.nnunet(tmp_path / "own")
    (tmp_path / "cases.csv").write_text("case,patient,institution\nA_1,p,North\nA_2,q,South\n")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "own", "--patients", "cases.csv") == 0
    told = capsys.readouterr().out
    assert "imagesTr/A_1_0003 -> patient p" in told and "North 1, South 1" in told
    block = config.parse_yaml(told.partition("params.yaml:")[2], "x")["download"]
    assert block["patients"] == str(tmp_path / "cases.csv") and block["patient"] == "folder"
    assert call(monkeypatch, "own", "--patients", "cases.csv", "--patient", "(A)") == 2
    assert "leave one of the two out" in capsys.readouterr().err


def test_a_dicom_seg_is_looked_at_on_its_image(tmp_path, monkeypatch, capsys):
    highdicom = pytest.importorskip("highdicom")
    drawn = np.zeros((4, 16, 16), bool)
    drawn[1:3, 4:9, 4:9] = True
    paths = dicom_study.save(tmp_path / "scans/p1", np.arange(4 * 256, dtype=np.uint16).reshape(4, 16, 16))
    word = highdicom.sr.CodedConcept("108369006", "SCT", "Neoplasm")
    segment = highdicom.seg.SegmentDescription(1, "tumour", word, word, "MANUAL")
    sources = [highdicom.imread(path) for path in paths]
    (tmp_path / "masks").mkdir()
    highdicom.seg.Segmentation(
        sources, drawn, "BINARY", [segment], "1.2.3", 9, "1.2.3.4", 1, "others", "tool", "1", "0"
    ).save_as(tmp_path / "masks/p1.dcm")
    rule = "--images", "scans/*/", "--masks", "masks/*.dcm", "--patient", "each_volume"
    assert call(monkeypatch, tmp_path, *rule) == 0
    assert "1 found, 0 missing, 0 empty of 1 looked at" in capsys.readouterr().out


def test_a_mask_that_vanishes_is_told(tmp_path, monkeypatch, capsys):
    root = own_layouts.folders(tmp_path)
    (root / "masks/p1_1.tif").unlink()
    (root / "masks/p1_1.tif").symlink_to(root / "nowhere")
    assert call(monkeypatch, root) == 2
    told = capsys.readouterr().err
    assert "p1_1.tif: is a link that leads nowhere" in told and "Traceback" not in told


def test_an_image_of_an_unnamed_sequence_is_not_called_flair(tmp_path, monkeypatch, capsys):
    own_layouts.sequence(tmp_path / "images/p1.nii.gz", "t1")
    own_layouts.mask(tmp_path / "masks/p1.nii.gz", (1,))
    assert call(monkeypatch, tmp_path) == 0
    assert "an unnamed sequence, taken as FLAIR, in 1" in capsys.readouterr().out


def test_a_mask_in_another_place_is_told_by_its_header(tmp_path, monkeypatch, capsys):
    root = own_layouts.brats(tmp_path, ["p1"])
    voxels = np.ones((own_layouts.SLICES, own_layouts.SIDE, own_layouts.SIDE), np.uint8)
    nifti(root / "p1/p1_seg.nii.gz", voxels, shift=40)
    assert call(monkeypatch, root) == 2
    assert "p1_seg.nii.gz: lies elsewhere in space than its image" in capsys.readouterr().err


def test_patterns_of_names_that_are_the_same_for_all_are_spelled_out(tmp_path, monkeypatch, capsys):
    for name in ("p1", "p2"):
        own_layouts.sequence(tmp_path / name / "Flair_a.nii.gz", "flair")
        own_layouts.mask(tmp_path / name / "OT.nii.gz", (1,))
    rule = "--patient", "each_volume", "--images"
    assert call(monkeypatch, tmp_path, *rule, "*/Flair*.nii.gz", "--masks", "*/OT*.nii.gz") == 2
    assert "as */Flair_a.nii.gz and */OT.nii.gz" in capsys.readouterr().err
    assert call(monkeypatch, tmp_path, *rule, "*/Flair_a.nii.gz", "--masks", "*/OT.nii.gz") == 0
