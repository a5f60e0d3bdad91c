"""Which patient an image is of, by its path."""

import pytest

from brainseg.data.layouts import patient_rules

SUBJECTS = ["sub-01/anat/sub-01_FLAIR.nii.gz", "sub-02/anat/sub-02_FLAIR.nii.gz"]
VISITS = ["sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz", "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz"]
RUNS = ["sub-01/anat/sub-01_run-1_FLAIR.nii.gz", "sub-01/anat/sub-01_run-2_FLAIR.nii.gz"]


def name(images: dict[tuple[str, ...], str], rule="each_volume") -> list[str]:
    return list(patient_rules.find_patients(images, rule).values())


def keys(images: list[str]) -> dict[tuple[str, ...], str]:
    """As of the pattern ``**/*_FLAIR.*``."""
    split = [image.removesuffix("_FLAIR.nii.gz").rpartition("/") for image in images]
    return {(folder, stem): image for (folder, _, stem), image in zip(split, images, strict=True)}


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (SUBJECTS, ["sub-01", "sub-02"]),
        (VISITS, ["sub-01_ses-1", "sub-01_ses-2"]),
        (RUNS, ["sub-01_run-1", "sub-01_run-2"]),
        ([*VISITS, SUBJECTS[1]], ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]),
    ],
    ids=["subjects", "sessions", "runs", "mixed"],
)
def test_subjects_of_bids_have_their_own_names(images, names):
    """Not ``sub-01_anat_sub-01``; what is of one subject stays apart."""
    assert name(keys(images)) == names


def test_the_folder_of_a_subject_is_not_anat():
    for images in (SUBJECTS, VISITS):
        assert name(keys(images), "folder") == [image.split("/")[0] for image in images]
    assert name({("anat",): "p7/anat/flair.nii.gz"}, "folder") == ["anat"]  # no BIDS


@pytest.mark.parametrize(
    ("images", "names"),
    [
        ({("p1", "p1"): "p1/p1_flair.nii", ("p2", "p2"): "p2/p2_flair.nii"}, ["p1", "p2"]),
        ({("p1", "p1_x"): "p1/p1_x.nii", ("p2", "p2_y"): "p2/p2_y.nii"}, ["p1_x", "p2_y"]),
        ({("1/2", "1", "2"): "a", ("3/4", "3", "4"): "b"}, ["1_2", "3_4"]),
        ({("p1", "p10"): "a", ("p2", "p20"): "b"}, ["p1_p10", "p2_p20"]),
        ({("1", "1"): "a", ("1", "2"): "b"}, ["1_1", "1_2"]),  # only one of them says it twice
        ({("a", "a_1"): "a/a_1.nii", ("", "a_1"): "a_1.nii"}, ["a_a_1", "a_1"]),
        ({("a", "a", "x"): "1", ("b", "b", "x"): "2"}, ["a_x", "b_x"]),
    ],
)
def test_no_part_of_a_name_is_there_twice_unless_names_would_be_the_same(images, names):
    assert name(images) == names


def test_a_regular_expression_sees_the_path_from_the_base_on():
    images = {("x",): "images/p1/x.nii"}
    assert patient_rules.find_patients(images, "^([^/]+)/", "images/") == {("x",): "p1"}
    assert patient_rules.find_patients(images, "(q)") == {("x",): ""}


def test_all_sessions_and_runs_of_a_subject_are_of_one_patient():
    names = ["sub-01_ses-pre_FLAIR.nii", "sub-01_ses-post_run-1_FLAIR.nii", "a/sub-02_FLAIR.nii.gz"]
    assert list(patient_rules.find_subjects(dict(enumerate(names))).values()) == ["sub-01", "sub-01", "sub-02"]
    assert patient_rules.find_subjects({0: names[0], 1: "p1_FLAIR.nii"}) == {}
