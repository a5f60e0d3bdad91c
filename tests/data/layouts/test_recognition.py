"""Layouts of public data sets: recognised by themselves, and read to patients, channels and masks of these values."""

import json
from pathlib import Path

import numpy as np
import pytest

from brainseg import config
from brainseg.data import archive, folder, preprocessing
from brainseg.data.archive import Pair
from brainseg.data.layouts import image_labels, recognition
from brainseg.errors import DataError
from brainseg.io import pictures
from tests.support import own_layouts
from tests.support.fake_lgg import tif
from tests.support.own_layouts import ALONE, SLICES, THREE

PREPROCESS = config.Preprocess(size=32, channels="all", foreground=None, window=[0.0, 100.0])


def params(root: Path, layout="auto", patient="folder") -> config.Download:
    """As in params.yaml, with nothing set but source and path."""
    patterns = {"images": "**/*", "masks": "**/*_mask.*"}
    return config.Download(source="folder", path=str(root), layout=layout, patient=patient, **patterns)


def read(root: Path, **changes) -> list[Pair]:
    return list(folder.pairs(params(root, **changes)))


def channels(pair: Pair):
    """The value of each channel, or the only one's."""
    pixels = pictures.decode(pair.image, "x")
    values = np.unique(pixels.reshape(-1, *pixels.shape[2:]), axis=0)
    assert len(values) == 1
    return values[0].tolist()


def labels(pair: Pair) -> list[int]:
    return np.unique(pictures.decode(pair.mask, "x")).tolist()


def problems(root: Path, **changes) -> dict[str, str]:
    """Relative path → what is wrong with it and how to correct it."""
    with pytest.raises(DataError) as caught:
        read(root, **changes)
    return {str(Path(p.path).relative_to(root)): f"{p.what}. Fix: {p.fix}" for p in caught.value.problems}


CASES = {  # layout, patients, channels, labels
    "brats": ("brats", ["BraTS20_Training_001", "BraTS20_Training_002"], THREE, [0, 1, 4]),
    "brats_2023": ("brats", ["BraTS-GLI-00000-000", "BraTS-GLI-00002-000"], THREE, [0, 1, 3]),
    "nnunet": ("nnunet", ["A_1", "A_2"], THREE, [0, 1, 4]),
    "decathlon": ("decathlon", ["BRATS_001", "BRATS_002"], THREE, [0, 1, 2, 3]),
    "bids": ("bids", ["sub-01", "sub-02"], THREE, [0, 1]),
    "table": ("table", ["px", "py"], THREE, [0, 1]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_recognised_and_read(name, tmp_path):
    layout, patients, values, kept = CASES[name]
    root = getattr(own_layouts, name)(tmp_path)
    assert recognition.find(params(root)).layout == layout
    found = read(root)
    assert [(pair.patient, pair.slice) for pair in found] == [(p, n + 1) for p in patients for n in range(SLICES)]
    assert {tuple(channels(pair)) for pair in found} == {tuple(values)}
    assert labels(found[0]) == kept
    assert read(root, layout=layout) == found  # by its name as by itself


@pytest.mark.parametrize("name", ["brats", "nnunet", "decathlon"])
def test_every_label_of_brats_is_tumour_unless_some_are_named(name, tmp_path):
    root = getattr(own_layouts, name)(tmp_path / "own", cases=["A_1"])  # of several the images would be the same
    archive.write(tmp_path / "raw.zip", folder.pairs(params(root)))
    preprocessing.run(tmp_path / "raw.zip", PREPROCESS, tmp_path / "all")
    for kind, chosen in {"named": [1, 2, 3, 4], "one": [1]}.items():
        named = PREPROCESS.model_copy(update={"foreground": chosen})
        preprocessing.run(tmp_path / "raw.zip", named, tmp_path / kind)
    whole, named, one = (np.load(tmp_path / kind / "masks.npy") for kind in ("all", "named", "one"))
    assert (whole == named).all() and whole.sum() > one.sum() > 0


def test_a_label_to_be_ignored_is_no_tumour_in_silence(tmp_path):
    root = own_layouts.nnunet(tmp_path / "own", labels={"background": 0, "tumour": 1, "ignore": 4}, cases=["A_1"])
    archive.write(tmp_path / "raw.zip", folder.pairs(params(root)))
    with pytest.raises(DataError, match=r"the mask holds 3 values \(0, 1, 4\)"):
        preprocessing.run(tmp_path / "raw.zip", PREPROCESS, tmp_path / "out")


def test_a_data_set_in_a_folder_of_its_own(tmp_path):
    own_layouts.nnunet(tmp_path / "nnUNet_raw/Dataset001_X")
    assert [pair.patient for pair in read(tmp_path)][::SLICES] == ["A_1", "A_2"]
    own_layouts.nnunet(tmp_path / "nnUNet_raw/Dataset002_Y")
    with pytest.raises(DataError, match="holds 2 data sets: nnUNet_raw/Dataset001_X, nnUNet_raw/Dataset002_Y"):
        read(tmp_path)


def test_flair_alone_is_one_channel(tmp_path, capsys):
    """As of a volume today: preprocess repeats it."""
    for number, kind in enumerate(("t1", "t1ce")):
        (tmp_path / str(number)).mkdir()
        root = own_layouts.brats(tmp_path / str(number))
        for path in root.rglob(f"*_{kind}.nii.gz"):
            path.unlink()
    assert {tuple(channels(pair)) for pair in read(tmp_path / "0")} == {(ALONE, ALONE, THREE[2])}
    assert "001_flair.nii.gz, BraTS20_Training_002/" in (told := capsys.readouterr().err)
    assert "pre-contrast is missing, so FLAIR is in its place" in told
    assert {tuple(channels(pair)) for pair in read(tmp_path / "1")} == {(THREE[0], ALONE, ALONE)}
    for path in (tmp_path / "1").rglob("*_t1.nii.gz"):
        path.unlink()
    assert [channels(pair) for pair in read(tmp_path / "1")] == [ALONE] * 2 * SLICES
    assert [channels(pair) for pair in read(own_layouts.decathlon(tmp_path / "2", ["FLAIR"]))] == [ALONE] * 2 * SLICES


def test_a_sequence_that_lies_elsewhere_is_replaced_and_told(tmp_path, capsys):
    root = own_layouts.bids(tmp_path, ["sub-01"])
    own_layouts.sequence(root / "sub-01/anat/sub-01_T1w.nii.gz", "t1", shift=5)
    assert channels(read(root)[0]) == [ALONE, ALONE, THREE[2]]
    assert "pre-contrast lies elsewhere in space, so FLAIR is in its place" in capsys.readouterr().err


def test_t2_is_not_taken_for_flair(tmp_path):
    root = own_layouts.brats(tmp_path / "a")
    (root / "BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz").unlink()
    (fault,) = problems(root).values()
    assert "has no FLAIR, only FLAIR" not in fault and "T2 is not taken for FLAIR" in fault
    with pytest.raises(DataError, match="names no channel FLAIR, only pre-contrast, T2"):
        read(own_layouts.nnunet(tmp_path / "b", ["T1", "T2"]))
    with pytest.raises(DataError, match="names no channel FLAIR, only T2"):
        read(own_layouts.nnunet(tmp_path / "c", ["T2"]))


def test_the_only_channel_of_another_name_is_flair_and_told(tmp_path, capsys):
    assert channels(read(own_layouts.nnunet(tmp_path, ["MR"]))[0]) == ALONE
    assert "the channel is named MR: it is taken as FLAIR" in capsys.readouterr().err


def test_one_scan_of_each_patient(tmp_path, capsys):
    own_layouts.bids(tmp_path / "a", ["sub-01"], "ses-1")
    own_layouts.bids(tmp_path / "a", ["sub-01"], "ses-2")
    assert [pair.image_file for pair in read(tmp_path / "a")] == [
        "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz"
    ] * SLICES
    assert "another session of a patient" in capsys.readouterr().err
    own_layouts.brats_2023(tmp_path / "b", ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"])
    assert {pair.patient for pair in read(tmp_path / "b")} == {"BraTS-GLI-00005-000"}
    assert "another time point of a patient" in capsys.readouterr().err


def test_a_session_without_mask_is_not_the_one(tmp_path):
    own_layouts.bids(tmp_path, ["sub-01"], "ses-1")
    own_layouts.bids(tmp_path, ["sub-01"], "ses-2")
    for path in tmp_path.rglob("*ses-1_label-lesion*"):
        path.unlink()
    assert read(tmp_path)[0].image_file.startswith("sub-01/ses-2/")


def test_the_misnamed_mask_of_brats_2020(tmp_path):
    root = own_layouts.brats(tmp_path)
    path = root / "BraTS20_Training_002/BraTS20_Training_002_seg.nii.gz"
    path.rename(path.with_name("W39_1998.09.19_Segm.nii.gz"))
    assert read(root)[-1].mask_file.endswith("W39_1998.09.19_Segm.nii.gz")


def test_sequences_named_alone_in_the_folder_of_a_case(tmp_path):
    for kind in ("flair", "t1", "t2"):
        own_layouts.sequence(tmp_path / f"North/p1/{kind}.nii.gz", kind)
    own_layouts.mask(tmp_path / "North/p1/mask.nii.gz", (1,))
    own_layouts.mask(tmp_path / "North/p1/brain_mask.nii.gz", (1,))
    found = read(tmp_path)
    assert {pair.patient for pair in found} == {"p1"} and channels(found[0]) == [THREE[0], ALONE, ALONE]
    assert found[0].mask_file == "North/p1/mask.nii.gz" and found[0].mask_name.endswith("_mask.npy")


def test_a_mask_of_the_brain_is_no_tumour(tmp_path):
    root = own_layouts.brats(tmp_path, ["BraTS20_Training_001"])
    path = root / "BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz"
    path.rename(path.with_name("BraTS20_Training_001_brain_mask.nii.gz"))
    assert next(iter(problems(root).values())).startswith("has no mask")


@pytest.mark.parametrize("name", ["brats", "nnunet", "decathlon", "bids"])
def test_a_case_without_mask_is_named(name, tmp_path):
    root = getattr(own_layouts, name)(tmp_path)
    masks = [path for word in ("*_seg.nii.gz", "labelsTr/*", "*lesion_mask*") for path in root.rglob(word)]
    masks[0].unlink()
    ((path, fault),) = problems(root).items()
    assert (root / path).is_file() and fault.startswith("has no mask")


def test_the_table_names_patients_and_institutions(tmp_path, capsys):
    root = own_layouts.table(tmp_path)
    found = read(root / "pairs.csv")
    assert [(pair.patient, pair.institution) for pair in found][::SLICES] == [("px", "North"), ("py", "South")]
    assert "columns that are not read: age" in capsys.readouterr().err


def test_a_table_without_patients_names_them_by_file(tmp_path):
    root = own_layouts.table(tmp_path)
    (root / "pairs.csv").write_text("flair;mask\n../x/flair.nii.gz;../x/mask.nii.gz\n../y/t1.nii.gz;../y/mask.nii.gz\n")
    assert [pair.patient for pair in read(root)][::SLICES] == ["flair", "t1"]


def test_a_table_of_slices_is_in_the_order_of_their_numbers_or_lines(tmp_path):
    own_layouts.folders(tmp_path, ["z_9", "z_10"])
    for named, order in (("z_10,z_9", [9, 10]), ("b,a", [2, 3])):
        names = named.split(",")
        for old, new in zip(("z_10", "z_9"), names, strict=True):
            for kind in ("images", "masks"):
                (tmp_path / kind / f"{new}.tif").write_bytes((tmp_path / kind / f"{old}.tif").read_bytes())
        lines = [f"images/{name}.tif,masks/{name}.tif,p" for name in names]
        (tmp_path / "pairs.csv").write_text("\n".join(["image,mask,patient", *lines]))
        assert [pair.slice for pair in read(tmp_path / "pairs.csv")] == order


def test_other_tables_are_no_pairs(tmp_path):
    root = own_layouts.brats(tmp_path)
    (root / "name.csv").write_text("name\nx\n")
    (root / "empty.csv").write_text("")
    (root / "bytes.csv").write_bytes(bytes(range(256)))
    assert recognition.find(params(root)).layout == "brats"


def test_a_table_of_bids_without_patients_names_the_subjects(tmp_path):
    root = own_layouts.bids(tmp_path)
    lines = [
        f"{p}/anat/{p}_FLAIR.nii.gz,derivatives/manual/{p}/anat/{p}_label-lesion_mask.nii.gz"
        for p in ("sub-01", "sub-02")
    ]
    (root / "pairs.csv").write_text("\n".join(["image,mask", *lines]))
    assert [pair.patient for pair in read(root / "pairs.csv")][::SLICES] == ["sub-01", "sub-02"]


def test_faults_of_a_table_name_the_line(tmp_path):
    root = own_layouts.table(tmp_path)
    (root / "pairs.csv").write_text("image,mask\n../x/flair.nii.gz,\n../z.nii.gz,../x/mask.nii.gz\n")
    assert problems(root) == {
        "line 2": "has no mask. Fix: fill the cell, or remove the line",
        "../z.nii.gz": "does not exist (line 3). Fix: correct the table; files are relative to the CSV",
    }


def test_a_table_that_a_spreadsheet_wrote(tmp_path):
    root = own_layouts.table(tmp_path)
    (root / "pairs.csv").write_text("image,mask,patient\n../x/flair.nii.gz,../x/mask.nii.gz,p\n", "utf-8-sig")
    assert {pair.patient for pair in read(root)} == {"p"}


@pytest.mark.parametrize(
    ("line", "at", "what"),
    [
        ("../x/flair.nii.gz,../x/mask.nii.gz", "line 2", "has no patient"),
        ("../x/flair.nii.gz", "line 2", "has no mask"),
        (f"{'x' * 5000}.tif,m.tif,p", f"{'x' * 5000}.tif", "does not exist"),
        ("../x/a,b.nii.gz,../x/mask.nii.gz,p", "pairs.csv", "has more cells in line 2 than in the first"),
    ],
    ids=["no patient", "no mask", "long name", "comma"],
)
def test_lines_of_a_table_that_are_too_short_or_too_long(tmp_path, line, at, what):
    root = own_layouts.table(tmp_path)
    (root / "pairs.csv").write_text(f"image,mask,patient\n{line}\n")
    if at == "line 2" and "patient" in what:
        with (root / "pairs.csv").open("a") as table:
            table.write("../y/flair.nii.gz,../y/mask.nii.gz,q\n")
    assert what in problems(root, layout="table")[at]


@pytest.mark.parametrize("end", ["", "_mask", "_seg"])
def test_two_folders_of_slices(end, tmp_path, capsys):
    root = own_layouts.folders(tmp_path, mask_end=end)
    found = read(root)
    assert [(pair.patient, pair.slice) for pair in found] == [("p1", 1), ("p1", 2), ("p2", 1), ("p2", 2)]
    assert [channels(pair) for pair in found] == [0, 1, 2, 3] and labels(found[1]) == [255]
    assert "4 images in images/, 4 files in masks/" in capsys.readouterr().err


def test_two_folders_within_another_and_names_that_begin_with_the_kind(tmp_path):
    root = own_layouts.folders(tmp_path / "own/data", ["image_p1_1", "image_p1_2", "image_p2_1", "image_p2_2"])
    for path in list((root / "masks").iterdir()):
        path.rename(path.with_name(path.name.replace("image_", "mask_")))
    (root / "masks").rename(root / "Segmentations")
    found = read(tmp_path / "own")
    assert [(pair.patient, pair.slice) for pair in found] == [("p1", 1), ("p1", 2), ("p2", 1), ("p2", 2)]
    assert found[0].mask_file == "data/Segmentations/mask_p1_1.tif"


def test_train_and_test_folders_are_not_mixed_up(tmp_path):
    for part in ("train", "test"):
        own_layouts.folders(tmp_path / part)
    with pytest.raises(DataError, match="2 folders hold images and masks: test, train"):
        read(tmp_path)


def test_faults_of_the_pixels_name_the_users_own_file(tmp_path):
    root = own_layouts.folders(tmp_path / "own")
    (root / "masks/p1_2.tif").write_bytes(tif(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    archive.write(tmp_path / "raw.zip", folder.pairs(params(root)))
    with pytest.raises(DataError) as caught:
        preprocessing.run(tmp_path / "raw.zip", PREPROCESS, tmp_path / "out")
    assert [problem.path for problem in caught.value.problems] == ["masks/p1_2.tif"]


def test_patients_of_two_folders(tmp_path):
    assert {p.patient for p in read(own_layouts.folders(tmp_path / "a", ["p1/1", "p1/2", "p2/1"]))} == {"p1", "p2"}
    numbered = own_layouts.folders(tmp_path / "b", ["img_1", "img_2", "img_3"])
    ((path, fault),) = problems(numbered).items()
    assert path == "images" and "which are of one patient, such as img_1 and img_2" in fault
    assert [p.patient for p in read(numbered, patient="each_image")] == ["img_1", "img_2", "img_3"]
    assert {p.patient for p in read(numbered, patient="img_([0-9])")} == {"1", "2", "3"}


def test_volumes_in_two_folders_are_of_a_patient_each(tmp_path):
    for name in ("a", "b"):
        own_layouts.sequence(tmp_path / f"images/{name}.nii.gz", "flair")
        own_layouts.mask(tmp_path / f"masks/{name}.nii.gz", (1,))
    assert [pair.patient for pair in read(tmp_path)][::SLICES] == ["a", "b"]


def test_patterns_are_read_as_before(tmp_path):
    """Those of params.yaml where files are so named, and any that are set."""
    root = own_layouts.folders(tmp_path)
    (root / "masks").rename(root / "others")
    for path in list((root / "others").iterdir()):
        path.rename(root / "images" / path.name.replace(".tif", "_mask.tif"))
    assert recognition.find(params(root, patient="(p.)_")).layout == "patterns"
    own = own_layouts.folders(tmp_path / "set")
    chosen = params(own, patient="each_image").model_copy(update={"images": "images/p1*", "masks": "masks/p1*"})
    assert [case.image for case in recognition.find(chosen).found.cases] == ["images/p1_1.tif", "images/p1_2.tif"]


def test_what_could_be_two_layouts_is_asked(tmp_path):
    root = own_layouts.folders(own_layouts.bids(tmp_path))
    with pytest.raises(DataError) as caught:
        read(root)
    ((_, what, fix),) = caught.value.problems
    assert "could be read as 2 layouts: bids (" in what and "folders (" in what
    assert fix.endswith("layout: bids or layout: folders")
    assert read(root, layout="bids")[0].patient == "sub-01"


def test_a_layout_that_the_folder_does_not_have(tmp_path):
    for layout in ("brats", "nnunet", "bids", "decathlon"):
        with pytest.raises(DataError):
            read(own_layouts.folders(tmp_path / layout), layout=layout)


def test_a_decathlon_file_of_another_length_is_refused(tmp_path):
    root = own_layouts.decathlon(tmp_path)
    facts = {"modality": {"0": "FLAIR", "1": "T1w"}}
    (root / "dataset.json").write_text(json.dumps(facts))
    assert "not 2 volumes one after another as dataset.json says" in next(iter(problems(root).values()))


@pytest.mark.parametrize("number", ["x", "-1", "1.0", "", "9" * 5000])
def test_a_channel_whose_number_is_none_is_refused(number):
    """Python refuses to read a number of more than 4,300 digits."""
    with pytest.raises(DataError, match="does not number its channels"):
        image_labels._name_channels({"channel_names": {number: "FLAIR"}}, 1, "dataset.json")
