"""Opening what preprocess and split wrote."""

import numpy as np
import pandas as pd
import pytest

from brainseg import dataset
from brainseg.errors import DataError, IntegrityError
from tests.cohort import write_cohort


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
    assert dataset.same(ids).to_dict() == {5: "m\u00fcller", 4: "m\u00fcller", 3: "strasse", 2: "strasse", 1: "p1"}


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


def test_empty_subset(tmp_path):
    processed, split = write_cohort(tmp_path)
    edit(split, "val", "train")
    with pytest.raises(DataError, match="no val slices"):
        dataset.load(processed, split, "patient")
