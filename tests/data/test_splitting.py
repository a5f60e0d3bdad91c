"""No patient in two subsets, similar folds, and the same split for any order of rows."""

import tracemalloc

import pandas as pd
import pytest

from brainseg import config
from brainseg.data import dataset, splitting
from brainseg.errors import DataError, IntegrityError

PARAMS = config.Split(unit="patient", folds=5, test_fold=0, val_fraction=0.125, patients=None, file=None, seed=2019)


def params(**changes) -> config.Split:
    return PARAMS.model_copy(update=changes)


def cohort(patients: int = 110, slices: int = 3, tumour_patients: int | None = None) -> pd.DataFrame:
    """Patients P000, P001, ... of three institutions; the second slice of the first ``tumour_patients`` has tumour."""
    with_tumour = patients if tumour_patients is None else tumour_patients
    rows = [
        (f"P{p:03d}", "AABABC"[p % 6], s, (p * 37 % 101 + 1) * 10 if s == 2 and p < with_tumour else 0)
        for p in range(patients)
        for s in range(1, slices + 1)
    ]
    table = pd.DataFrame(rows, columns=["patient", "institution", "slice", "tumour_pixels"])
    return table.assign(row=range(len(table)))


def patients_of(split: pd.DataFrame) -> dict[str, set[str]]:
    return {subset: set(group["patient"]) for subset, group in split.groupby("subset")}


def test_lgg_sized_cohort_gives_77_11_22():
    parts = patients_of(splitting.split(cohort(), PARAMS))
    assert {name: len(patients) for name, patients in parts.items()} == {"train": 77, "val": 11, "test": 22}


@pytest.mark.parametrize("patients", [7, 23, 61, 110])
def test_subsets_are_disjoint_and_complete(patients):
    slices = cohort(patients)
    parts = patients_of(splitting.split(slices, PARAMS))
    assert sorted(p for part in parts.values() for p in part) == sorted(set(slices["patient"]))
    assert set(parts) == {"train", "val", "test"}


def test_masks_that_are_all_empty_are_refused():
    with pytest.raises(DataError, match="every mask is empty: there is nothing to learn"):
        splitting.split(cohort(tumour_patients=0), PARAMS)


def test_every_patient_is_tested_once_over_the_folds():
    slices = cohort(53)
    splits = [splitting.split(slices, params(test_fold=k)) for k in range(5)]
    tested = [p for split in splits for p in patients_of(split)["test"]]
    assert sorted(tested) == sorted(set(slices["patient"]))
    assert all(split["fold"].equals(splits[0]["fold"]) for split in splits)
    assert all(((split["subset"] == "test") == (split["fold"] == k)).all() for k, split in enumerate(splits))


def test_one_institution_left_out():
    """A has 27 patients, B 18, C 9: too few for a fold. The patients of C and D are tested together, last."""
    slices = cohort(54)
    slices.loc[slices["patient"] == "P005", "institution"] = "D"
    institution = slices.groupby("patient")["institution"].first()
    tested = []
    for fold in range(3):
        parts = patients_of(splitting.split(slices, params(unit="institution", test_fold=fold)))
        tested.append("".join(sorted(set(institution[list(parts["test"])]))))
        assert not set(institution[list(parts["train"] | parts["val"])]) & set(tested[-1])
        assert parts["val"] and parts["train"]
    assert tested == ["A", "B", "CD"]
    with pytest.raises(DataError, match="test_fold is 3, there are 3 folds"):
        splitting.split(slices, params(unit="institution", test_fold=3))
    with pytest.raises(DataError, match="all patients are of one institution"):
        splitting.split(slices.assign(institution="A"), params(unit="institution"))


def test_folds_are_stratified_by_institution_and_tumour_burden():
    slices = cohort(120)
    table = slices.assign(fold=splitting.split(slices, PARAMS)["fold"])
    patients = table.groupby("patient").agg({"institution": "first", "tumour_pixels": "sum", "fold": "first"})
    by_institution = patients.groupby(["institution", "fold"]).size().unstack()
    assert ((by_institution.max(axis=1) - by_institution.min(axis=1)) <= 2).all()
    burden = patients.groupby("fold")["tumour_pixels"].mean()
    assert burden.max() / burden.min() < 1.1


def test_another_seed_gives_another_split():
    slices = cohort()
    assert patients_of(splitting.split(slices, PARAMS)) != patients_of(splitting.split(slices, params(seed=1)))


def test_unit_slice_shares_patients_and_keeps_slices_apart():
    split = splitting.split(cohort(40, slices=10), params(unit="slice"))
    assert split["subset"].value_counts().to_dict() == {"train": 280, "val": 40, "test": 80}
    parts = patients_of(split)
    assert parts["train"] & parts["test"]


def test_subset_of_patients_is_even_and_the_rest_unused():
    slices = cohort()
    split = splitting.split(slices, params(patients=20))
    parts = patients_of(split)
    assert len(parts["unused"]) == 90
    assert {name: len(parts[name]) for name in splitting.SUBSETS} == {"train": 14, "val": 2, "test": 4}
    assert (split.loc[split["subset"] == "unused", "fold"] == -1).all()
    used = slices[slices["patient"].isin(set(slices["patient"]) - parts["unused"])]
    assert used.drop_duplicates("patient")["institution"].value_counts()["A"] in (9, 10, 11)  # half of all are A


def test_own_file(project_root):
    (project_root / "mine.csv").write_text("patient,subset\nP000,train\nP001,val\nP002,test\n")
    split = splitting.split(cohort(4), params(file="mine.csv"))
    assert split.drop_duplicates("patient")["subset"].tolist() == ["train", "val", "test", "unused"]
    assert (split["fold"] == -1).all()


def test_own_file_that_does_not_fit_lists_everything(project_root):
    (project_root / "mine.csv").write_text("patient,subset\nP000,train\nP001,valid\nP009,test\n")
    with pytest.raises(DataError) as error:
        splitting.split(cohort(4), params(file="mine.csv"))
    assert len(error.value.problems) == 2
    assert "valid" in str(error.value) and "P009" in str(error.value)


@pytest.mark.parametrize("changes", [{"unit": "slice"}, {"patients": 3}])
def test_own_file_decides_alone(changes):
    with pytest.raises(DataError, match="can be used only with"):
        splitting.split(cohort(4), params(file="mine.csv", **changes))


def test_written_file_is_the_same_twice(tmp_path):
    cohort().to_csv(tmp_path / "slices.csv", index=False)
    summary = splitting.run(tmp_path / "slices.csv", PARAMS, tmp_path / "a.csv")
    splitting.run(tmp_path / "slices.csv", PARAMS, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv").read_text().startswith("row,patient,fold,subset\n0,P000,")
    assert "train 77 patients, 231 slices; val 11 patients" in summary


def test_patients_called_like_missing_values(tmp_path):
    names = {"P000": "NA", "P001": "nan", "P002": "007"}
    cohort(5).replace(names).to_csv(tmp_path / "slices.csv", index=False)
    splitting.run(tmp_path / "slices.csv", PARAMS, tmp_path / "split.csv")
    written = pd.read_csv(tmp_path / "split.csv", dtype=str, keep_default_na=False)
    assert set(written["patient"]) == {"NA", "nan", "007", "P003", "P004"}


@pytest.mark.parametrize(
    ("patients", "changes", "counts"),
    [
        (0, {}, "0 patients"),
        (1, {}, "1 patients"),
        (2, {}, "2 patients"),
        (2, {"folds": 2}, "1 of 1 patients"),
        (4, {}, "4 patients cannot be divided into 5 folds"),
        (10, {"test_fold": 5}, "test_fold is 5, there are 5 folds"),
        (10, {"patients": 11}, "is 11, there are 10"),
        (10, {"val_fraction": 0.99}, "8 of 8"),
    ],
)
def test_s1_too_few_patients(patients, changes, counts):
    with pytest.raises(DataError, match=counts):
        splitting.split(cohort(patients), params(**changes))


def test_s1_three_patients_work():
    parts = patients_of(splitting.split(cohort(3), params(folds=3)))
    assert {name: len(patients) for name, patients in parts.items()} == {"train": 1, "val": 1, "test": 1}


@pytest.mark.parametrize("names", [("P000", "p000"), ("M\u00fcller", "Mu\u0308ller")], ids=["case", "NFC and NFD"])
def test_s2_ids_that_differ_by_case(names):
    slices = cohort(10).replace({"P000": names[0], "P001": names[1]})
    with pytest.raises(IntegrityError, match="different ways"):
        splitting.split(slices, PARAMS)


@pytest.mark.parametrize("line", ["P000,test", "p000,test"])
def test_s2_patient_in_two_splits(project_root, line):
    (project_root / "mine.csv").write_text(f"patient,subset\nP000,train\nP001,val\nP002,test\n{line}\n")
    with pytest.raises(IntegrityError) as error:
        splitting.split(cohort(4), params(file="mine.csv"))
    assert error.value.code == 4


def test_a_line_with_a_cell_too_many_moves_no_column(project_root):
    """Of lines that are all longer than the first pandas makes an index, and `train` would be a patient."""
    (project_root / "mine.csv").write_text("patient,subset\n" + "".join(f"site,P00{n},train\n" for n in range(4)))
    with pytest.raises(DataError, match="the first line has 3 cells, the header 2"):
        splitting.split(cohort(4), params(file="mine.csv"))


def test_s3_listing_order_does_not_matter():
    slices = cohort(37)
    split = splitting.split(slices, PARAMS).set_index("row")
    shuffled = splitting.split(slices.sample(frac=1, random_state=5), PARAMS).set_index("row")
    pd.testing.assert_frame_equal(shuffled.sort_index(), split)


@pytest.mark.parametrize("unit", ["patient", "slice"])
def test_s3_row_numbers_do_not_matter(unit):
    slices = cohort(37)
    turned = slices.iloc[::-1].assign(row=range(len(slices)))
    split = splitting.split(slices, params(unit=unit))
    assert splitting.split(turned, params(unit=unit))["subset"].tolist()[::-1] == split["subset"].tolist()


@pytest.mark.parametrize("unit", ["patient", "slice", "institution"])
def test_s3_slices_of_a_patient_that_lie_apart_are_added_up(unit):
    """Each patient's tumour is in both parts: of one alone the burden, and so the order, would be another."""
    slices = cohort(54)
    slices["tumour_pixels"] += slices["slice"] % 2 * (slices["row"] * 53 % 97)
    apart = pd.concat([slices[slices["slice"] < 3], slices[slices["slice"] == 3]])
    found = splitting.split(apart, params(unit=unit, folds=3))
    assert found["row"].tolist() == apart["row"].tolist() != slices["row"].tolist()
    pd.testing.assert_frame_equal(found.sort_index(), splitting.split(slices, params(unit=unit, folds=3)))


@pytest.mark.parametrize("seed", range(8))
def test_s3_restratified_until_every_part_has_tumour(seed):
    slices = cohort(30, tumour_patients=8)
    split = splitting.split(slices, params(seed=seed))
    tumour = slices.assign(subset=split["subset"], fold=split["fold"])
    tumour = tumour[tumour["tumour_pixels"] > 0]
    assert set(tumour["subset"]) == {"train", "val", "test"}
    assert set(tumour["fold"]) == set(range(5))


def test_s3_refused_when_a_part_cannot_have_tumour(project_root):
    with pytest.raises(DataError, match="with tumour"):
        splitting.split(cohort(30, tumour_patients=4), PARAMS)
    (project_root / "mine.csv").write_text("patient,subset\nP000,train\nP001,val\nP003,test\n")
    with pytest.raises(DataError, match="the test subset has 1 patients, 3 slices, none with tumour"):
        splitting.split(cohort(4, tumour_patients=3), params(file="mine.csv"))


def test_inner_folds_leave_out_the_patients_of_the_test_fold():
    """Each patient outside of it is tested once; those in it are unused, whatever the inner fold is."""
    slices = cohort()
    outer = patients_of(splitting.split(slices, params(test_fold=2)))
    parts = [patients_of(splitting.split(slices, params(test_fold=2, inner_folds=4, inner_fold=k))) for k in range(4)]
    assert all(part["unused"] == outer["test"] for part in parts)
    tested = [patient for part in parts for patient in part["test"]]
    assert sorted(tested) == sorted(outer["train"] | outer["val"])
    assert all(part["train"] and part["val"] and not part["val"] & part["test"] for part in parts)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A table of 40,000 slices as preprocess writes it, 3.2 MB."""
    path = tmp_path_factory.mktemp("large") / "slices.csv"
    table = cohort(1000, slices=40)
    named = table.assign(
        source=[f"{name}/{name}_{n}.tif" for name, n in zip(table["patient"], table["slice"], strict=True)]
    )
    columns = ["row", "patient", "institution", "slice", "tumour_pixels", "source", "spacing"]
    named.assign(spacing="0.9 x 0.9 x 5")[columns].to_csv(path, index=False)
    return path


def peak_of(use) -> float:
    """The most bytes that a call takes, the second time."""
    use()
    tracemalloc.start()
    use()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_the_table_of_slices_takes_twenty_bytes_a_slice(large):
    table = dataset.read_slices(large)
    assert table.memory_usage(deep=True).sum() < 40_000 * 21
    assert peak_of(lambda: dataset.read_slices(large)) < 40_000 * 100


@pytest.mark.parametrize("unit", ["patient", "institution"])
def test_splitting_takes_little_memory(large, tmp_path, unit):
    table = dataset.read_slices(large)
    assert peak_of(lambda: splitting.split(table, params(unit=unit))) < 40_000 * 60
    assert peak_of(lambda: splitting.run(large, params(unit=unit), tmp_path / "split.csv")) < 40_000 * 100


@pytest.mark.parametrize("unit", ["patient", "slice", "institution"])
def test_the_split_of_a_table_that_was_read_is_that_of_its_text(large, unit):
    text = pd.read_csv(large)
    compact, plain = (splitting.split(each, params(unit=unit)) for each in (dataset.read_slices(large), text))
    assert compact.to_csv() == plain.to_csv()
