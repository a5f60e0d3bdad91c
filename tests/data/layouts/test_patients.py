"""Which files of a layout are one patient's, and which of them are read: what is not certain is a fault or a remark."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from brainseg import config
from brainseg.data import archive, folder, preprocessing
from brainseg.data.layouts import finding, recognition
from brainseg.data.layouts.finding import Found
from brainseg.errors import DataError
from tests.support import own_layouts
from tests.support.nifti_files import nifti

PATTERNS = {"images": "**/*", "masks": "**/*_mask.*"}


def find(root: Path, patient: str = "folder", layout="auto") -> Found:
    return recognition.find(
        config.Download(source="folder", path=str(root), layout=layout, patient=patient, **PATTERNS)
    ).found


def faults(root: Path, **rule) -> str:
    """All that is wrong, in one text; empty if nothing is."""
    try:
        problems = find(root, **rule).problems
    except DataError as error:
        problems = error.problems
    return "\n".join(" | ".join(map(str, problem)).replace(f"{root}/", "") for problem in problems)


def preprocess(root: Path, out: Path) -> None:
    params = config.Preprocess(size=32, channels="all", foreground=None, window=[0.0, 100.0])
    download = config.Download(source="folder", path=str(root), layout="auto", patient="folder", **PATTERNS)
    archive.write(out / "raw.zip", folder.pairs(download))
    preprocessing.run(out / "raw.zip", params, out / "processed")


def volumes(root: Path, names: list[str]) -> Path:
    for name in names:
        own_layouts.sequence(root / f"images/{name}.nii.gz", "flair")
        own_layouts.mask(root / f"masks/{name}.nii.gz", (1,))
    return root


def test_a_table_of_slices_says_which_are_of_one_patient(tmp_path):
    root = own_layouts.folders(tmp_path)
    lines = [f"./images/{name}.tif,masks/{name}.tif" for name in ("p1_1", "p1_2", "p2_1", "p2_2")]
    (root / "pairs.csv").write_text("\n".join(["image,mask", *lines]))
    table = root / "pairs.csv"
    assert "has no column patient, and lists slices" in faults(table)
    assert {case.patient for case in find(table, "each_image").cases} == {"p1_1", "p1_2", "p2_1", "p2_2"}
    found = find(table, "(p[0-9])_")
    assert {case.patient for case in found.cases} == {"p1", "p2"} and not found.problems
    assert not found.passed  # ./images/p1_1.tif is images/p1_1.tif


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["p1/2001", "p1/2003"], "are both of patient p1"),
        (["p1_flair", "p1_t1"], "images/p1_t1.nii.gz | is named as pre-contrast"),
        (["p1", "p2_CT"], "images/p2_CT.nii.gz | is named as CT"),
        (["p1_ses-1", "p1_ses-2"], "are both of patient p1"),
        (["UCSF-PDGM-0429", "UCSF-PDGM-0429_FU003d"], "are both of patient UCSF-PDGM-0429"),
        (["a_20010203", "a_20030405"], "are both of patient a"),
        (["p1/ses1/x", "p2/ses1/x"], "which of them is the patient?"),
    ],
)
def test_two_volumes_of_a_patient_are_not_two_patients(names, told, tmp_path):
    assert told in faults(volumes(tmp_path, names))


def test_volumes_in_a_folder_each(tmp_path):
    root = volumes(tmp_path, ["p1/x_flair", "p2/x_flair"])
    assert [case.patient for case in find(root).cases] == ["p1", "p2"]
    assert [case.patient for case in find(volumes(tmp_path / "flat", ["p1_flair"])).cases] == ["p1"]


def test_folders_in_folders_of_slices_need_a_rule_and_the_one_that_is_shown_works(tmp_path):
    root = own_layouts.folders(tmp_path, ["p1/a/1", "p1/b/2", "p2/a/1"])
    assert 'set download.patient: "images/([^/]+)/"' in faults(root)
    assert [case.patient for case in find(root, "images/([^/]+)/").cases] == ["p1", "p1", "p2"]


def test_names_before_the_number_are_told(tmp_path):
    root = own_layouts.folders(tmp_path, ["glioma_1", "glioma_2", "other_1", "other_2"])
    assert find(root).remarks == ["patients are the names before the number: glioma, other"]


def test_a_slice_of_another_sequence_is_refused(tmp_path):
    assert "is named as T2" in faults(own_layouts.folders(tmp_path, ["p1_t2_1", "p1_t2_2", "p2_t2_1", "p2_t2_2"]))


def test_doubles_are_named(tmp_path):
    root = own_layouts.folders(tmp_path)
    shutil.copy(root / "masks/p1_1.tif", root / "masks/p1_1_mask.tif")
    shutil.copy(root / "images/p2_1.tif", root / "images/p2_1.png")
    told = faults(root, layout="folders")
    assert "masks/p1_1_mask.tif | and masks/p1_1.tif have the same name" in told
    assert "images/p2_1.tif | and images/p2_1.png have the same name" in told
    own_layouts.sequence(own_layouts.nnunet(tmp_path / "n") / "imagesTr/A_1_0003.nii", "flair")
    assert "have the same name" in faults(tmp_path / "n")


def test_time_points_of_one_patient_are_one_in_every_layout(tmp_path):
    for name, cases in {
        "brats": ["UCSF-PDGM-0429", "UCSF-PDGM-0429_FU003d"],
        "nnunet": ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001"],
        "decathlon": ["p_2001-02-03", "p_2002-02-03"],
    }.items():
        found = find(getattr(own_layouts, name)(tmp_path / name, cases=cases))
        assert [case.patient for case in found.cases] == cases[:1]
        assert finding.LATER in found.passed.values()


def test_the_first_time_point_with_a_mask_is_the_one(tmp_path):
    cases = ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"]
    root = own_layouts.brats_2023(tmp_path, cases)
    (root / cases[0] / f"{cases[0]}-seg.nii.gz").unlink()
    assert [case.patient for case in find(root).cases] == cases[1:]


def test_two_masks_of_a_case_are_refused_and_nothing_else_of_it_is_told(tmp_path):
    root = own_layouts.brats(tmp_path)
    folder = root / "BraTS20_Training_001"
    own_layouts.mask(folder / "BraTS20_Training_001_mask.nii.gz", (1,))
    assert "has 2 masks: " in faults(root) and "keep one" in faults(root)
    assert not [name for name, why in find(root).passed.items() if why == finding.NO_PART]


@pytest.mark.parametrize("name", ["p1_brain_seg", "hippocampus_seg"])
def test_a_mask_of_another_name_is_not_adopted(name, tmp_path):
    root = own_layouts.brats(tmp_path, ["p1"])
    (root / "p1/p1_seg.nii.gz").rename(root / f"p1/{name}.nii.gz")
    assert "has no mask" in faults(root, layout="brats")


def test_bare_names_in_folders_of_visits_need_a_rule(tmp_path):
    for place in ("p1/20010203", "p1/20020304", "p2/x"):
        own_layouts.sequence(tmp_path / place / "flair.nii.gz", "flair")
        own_layouts.mask(tmp_path / place / "seg.nii.gz", (1,))
    assert 'set download.patient: "^([^/]+)/"' in faults(tmp_path)
    shutil.rmtree(tmp_path / "p1/20020304")
    for rule, patients in (("^([^/]+)/", ["p1", "p2"]), ("([^/]+)/[^/]+$", ["20010203", "x"])):
        found = find(tmp_path, rule)
        assert [case.patient for case in found.cases] == patients and not found.problems


def test_a_dseg_of_bids_is_of_a_tumour_only_where_it_says_so(tmp_path):
    root = own_layouts.bids(tmp_path, ["sub-01"])
    (mask,) = root.rglob("*lesion_mask*")
    mask.rename(mask.with_name("sub-01_dseg.nii.gz"))
    assert "does not say that it is of a tumour" in faults(root)
    (root / "derivatives/manual").rename(root / "derivatives/lesions")
    assert [case.mask for case in find(root).cases] == ["derivatives/lesions/sub-01/anat/sub-01_dseg.nii.gz"]


def test_two_bids_data_sets_are_not_mixed(tmp_path):
    for name in ("a", "b"):
        own_layouts.bids(tmp_path / name, ["sub-01"])
    assert "holds 2 data sets: a, b" in faults(tmp_path)


@pytest.mark.parametrize(
    ("word", "sequence"),
    [
        ("T1-weighted", finding.PRE),
        ("T2-weighted", "T2"),
        ("FLAIR MRI", finding.FLAIR),
        ("T1w post-contrast", finding.POST),
        ("CT", ""),
    ],
)
def test_words_of_sequences(word, sequence):
    assert finding.name_sequence(word) == sequence


@pytest.mark.parametrize("word", ["T2-weighted", "CT", "DWI"])
def test_a_single_channel_of_another_kind_is_not_flair(word, tmp_path):
    root = own_layouts.nnunet(tmp_path, ["MR"])
    facts = root / "dataset.json"
    facts.write_text(facts.read_text().replace('"MR"', f'"{word}"'))
    assert "names no channel FLAIR" in faults(root)


def test_a_table_may_say_that_an_image_is_flair(tmp_path):
    root = own_layouts.table(tmp_path)
    table = root / "pairs.csv"
    for head in ("image", "flair"):
        table.write_text(f"{head},mask,patient\n../x/t1.nii.gz,../x/mask.nii.gz,p\n")
        assert ("name the column flair" in faults(table)) == (head == "image")


def test_a_table_is_corrected_in_its_column(tmp_path):
    root = own_layouts.table(tmp_path)
    (root / "pairs.csv").write_text(
        "flair,mask,patient\n../x/flair.nii.gz,../x/mask.nii.gz,p\n../y/flair.nii.gz,../y/mask.nii.gz,p\n"
    )
    assert "or correct the column patient" in faults(root)


def test_a_linked_folder_that_is_left_out_is_told(tmp_path):
    root = own_layouts.brats(tmp_path)
    (root / "again").symlink_to(root / "BraTS20_Training_001")
    assert any(remark.startswith("again is the same folder as") for remark in find(root).remarks)


@pytest.mark.parametrize("name", ["nnunet", "decathlon"])
def test_labels_that_are_no_tumour_must_be_told_apart(name, tmp_path):
    """Also in a patient in whom only one of them is there."""
    root = getattr(own_layouts, name)(tmp_path / "own", cases=["A_1"])
    own_layouts.mask(root / "labelsTr/A_1.nii.gz", (1,))
    facts = json.loads((root / "dataset.json").read_text())
    labels = {"background": 0, "brain": 1, "lesion": 2}
    facts["labels"] = labels if name == "nnunet" else {str(label): word for word, label in labels.items()}
    (root / "dataset.json").write_text(json.dumps(facts))
    assert (
        "no tumour, so preprocess.foreground must name those that are: 1 (brain), 2 (lesion)" in find(root).remarks[0]
    )
    with pytest.raises(DataError, match="some are none by dataset"):
        preprocess(root, tmp_path)


def test_labels_that_are_taken_as_tumour_are_told(tmp_path, capsys):
    root = own_layouts.nnunet(tmp_path / "own", cases=["A_1"])
    assert find(root).remarks == ["labels of dataset.json that are taken as tumour: 1 (tumour), 4 (core)"]
    preprocess(root, tmp_path)
    assert "each label above 0 was taken as tumour: 1, 4" in capsys.readouterr().err


def test_a_parcellation_of_the_brain_is_no_tumour(tmp_path):
    root = own_layouts.brats(tmp_path / "own", ["p1"])
    labels = np.arange(own_layouts.SIDE**2 * own_layouts.SLICES, dtype=np.uint8) % 40
    nifti(root / "p1/p1_seg.nii.gz", labels.reshape(own_layouts.SLICES, own_layouts.SIDE, own_layouts.SIDE))
    with pytest.raises(DataError, match="more than the parts of a tumour"):
        preprocess(root, tmp_path)
