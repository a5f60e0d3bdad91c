"""Opening what preprocess and split wrote."""

import numpy as np
import pandas as pd
import pytest

from brainseg.data import dataset
from brainseg.errors import DataError, IntegrityError
from tests.support.cohort import write_cohort


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def test_rows_and_counts(tmp_path):
    processed, split = write_cohort(tmp_path)
    data = dataset.load(processed, split, "patient")
    assert data.counts("patient") == {"train": 4, "val": 2, "test": 2}
    assert data.counts("row") == {"train": 16, "val": 8, "test": 8}
    assert (data.slices["subset"].to_numpy()[data.rows("val", "test")] != "train").all()
    assert isinstance(data.images, np.memmap)


def test_s2_a_patient_in_two_subsets_is_refused_again(tmp_path):
    processed, split = write_cohort(tmp_path)
    edit(split, "0,P0,1,train", "0,P0,1,test")
    with pytest.raises(IntegrityError, match="p0 is in test and train"):
        dataset.load(processed, split, "patient")
    assert dataset.load(processed, split, "slice").counts("row")["test"] == 9


def test_s2_ids_of_one_patient_have_one_form():
    ids = pd.Series(["M\u00fcller", "Mu\u0308LLER", "stra\u00dfe", "STRASSE", "P1"], index=[5, 4, 3, 2, 1])
    assert dataset.normalise_ids(ids).to_dict() == {
        5: "m\u00fcller",
        4: "m\u00fcller",
        3: "strasse",
        2: "strasse",
        1: "p1",
    }


@pytest.mark.parametrize("names", [("P0", "p0"), ("M\u00fc", "Mu\u0308")], ids=["case", "NFC and NFD"])
def test_s2_ids_that_differ_by_case(tmp_path, names):
    processed, split = write_cohort(tmp_path)
    for path in (processed / "slices.csv", split):
        edit(path, "P0", names[0])
        edit(path, "P7", names[1])
    with pytest.raises(IntegrityError, match=f"{names[0].lower()} is in test and train"):
        dataset.load(processed, split, "patient")


def test_split_of_other_slices(tmp_path):
    processed, split = write_cohort(tmp_path)
    split.write_text("\n".join(split.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(IntegrityError, match="31 rows that do not match the 32 slices"):
        dataset.load(processed, split, "patient")


def test_brain_masks_of_other_slices(tmp_path):
    processed, split = write_cohort(tmp_path)
    np.save(processed / "brains.npy", np.load(processed / "brains.npy")[1:])
    with pytest.raises(IntegrityError, match="do not fit 32 slices"):
        dataset.load(processed, split, "patient")


def test_empty_subset(tmp_path):
    processed, split = write_cohort(tmp_path)
    edit(split, "val", "train")
    with pytest.raises(DataError, match="no val slices"):
        dataset.load(processed, split, "patient")


def test_every_file_that_a_model_is_trained_on_has_a_digest(tmp_path):
    """Another spacing or institution in the table of the slices is other data too."""
    processed, split = write_cohort(tmp_path)
    before = dataset.digests(processed, split)
    for name in ("images.npy", "masks.npy", "brains.npy", "slices.csv", "../split.csv"):
        path = processed / name
        whole = path.read_bytes()
        path.write_bytes(whole + b"\n")
        changed = {name for name, digest in dataset.digests(processed, split).items() if digest != before[name]}
        assert changed == {f"{path.stem}_sha256"}
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "brains.npy", "slices.csv", "split.csv"])
@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, b'a,b\n"', b"row\n1\n", b"patient\n1,2\n"]
)
def test_a_damaged_file_is_named_and_no_bug(tmp_path, name, content):
    processed, split = write_cohort(tmp_path)
    path = split if name == split.name else processed / name
    path.write_bytes(content)
    with pytest.raises(IntegrityError) as error:
        dataset.load(processed, split, "patient")
    assert error.value.problems[0].path in (str(path), str(split)) and "dvc repro" in error.value.problems[0].fix


def of_lengths(*lengths):
    slices = pd.DataFrame({"patient": [f"P{i}" for i, length in enumerate(lengths) for _ in range(length)]})
    return dataset.Dataset(np.zeros((len(slices), 1, 1, 3), np.uint8), np.zeros((len(slices), 1, 1), np.uint8), slices)


def test_neighbours_are_the_patients_own_and_the_ends_are_repeated():
    data = of_lengths(3, 1, 4)
    assert data.windows_around(np.arange(8), 1).tolist() == [
        [0, 0, 1], [0, 1, 2], [1, 2, 2], [3, 3, 3], [4, 4, 5], [4, 5, 6], [5, 6, 7], [6, 7, 7],
    ]  # fmt: skip
    assert data.windows_around(np.array([6, 0]), 2).tolist() == [[4, 5, 6, 7, 7], [0, 0, 0, 1, 2]]
    assert data.windows_around(np.array([2]), 0).tolist() == [[2]]


def of_patients(names, **kind):
    slices = pd.DataFrame({"patient": pd.Series(list(names), **kind)})
    return dataset.Dataset(np.zeros((len(slices), 1, 1, 3), np.uint8), np.zeros((len(slices), 1, 1), np.uint8), slices)


@pytest.mark.parametrize("kind", [{}, {"dtype": "category"}], ids=["text", "categories"])
def test_patients_are_numbered_by_id_whatever_their_order(kind):
    data = of_patients("BBACCC", **kind)
    assert data.patient.tolist() == [1, 1, 0, 2, 2, 2]
    first, last = data.ends
    assert (first.tolist(), last.tolist()) == ([0, 0, 2, 3, 3, 3], [1, 1, 2, 5, 5, 5])


def test_rows_are_split_by_patient():
    data = of_patients("BBACCCDD")
    split = data.split_by_patient(np.array([0, 1, 3, 5, 6]))
    assert [rows.tolist() for rows in split] == [[0, 1], [3, 5], [6]]
    assert [rows.tolist() for rows in data.split_by_patient(np.arange(8))] == [[0, 1], [2], [3, 4, 5], [6, 7]]
    assert data.split_by_patient(np.array([], int)) == []


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("lengths", [(5,), (6,), (11, 1, 4), (3, 20, 5)])
def test_tiles_cover_every_slice_within_its_patient(lengths, stride):
    data = of_lengths(*lengths)
    windows = data.tiles(np.arange(sum(lengths)), 2, stride)
    assert set(windows.ravel()) == set(range(sum(lengths)))
    patients = data.slices["patient"].to_numpy()
    assert (patients[windows] == patients[windows[:, :1]]).all()
    assert (np.isin(np.diff(windows), [0, 1])).all()
    assert len({tuple(window) for window in windows}) == len(windows)


def test_slices_of_a_window_stand_behind_one_another():
    images = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    made = dataset.stack_channels(images, np.array([[0, 1, 2], [1, 2, 2]]))
    assert made.shape == (2, 2, 2, 9)
    np.testing.assert_array_equal(made[1, ..., :3], images[1])
    np.testing.assert_array_equal(made[1, ..., 3:6], images[2])
    np.testing.assert_array_equal(dataset.stack_channels(images, np.array([[3], [0]])), images[[3, 0]])
