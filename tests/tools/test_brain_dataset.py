"""Brain masks as data of their own: pictures that the pipeline reads, and the splits of the project."""

import csv

import cv2
import numpy as np
import pytest

from brainseg.data import inputs
from brainseg.errors import DataError
from tests.support.cohort import draw_brains, write_cohort
from tests.support.tiny_pipeline import PROJECT
from tools import brain_dataset


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "data/splits").mkdir(parents=True)
    write_cohort(tmp_path / "data")[1].rename(tmp_path / "data/splits/split.csv")
    params = (PROJECT / "params.yaml").read_text().replace("folds: 5 ", "folds: 2 ")
    (tmp_path / "params.yaml").write_text(params)
    monkeypatch.setattr(inputs, "verify", lambda names, root: None)  # there is no dvc.lock
    return tmp_path


def test_each_slice_is_there_whole_and_without_scalp_with_the_mask_of_its_brain(project):
    assert "32 slices of 8 patients, each twice; 2 splits" in brain_dataset.run(project / "out", project)
    images, brain = np.load(project / "data/processed/images.npy"), draw_brains(1, 32)[0]
    for folder, expected in (("P1", images[5]), ("P1-without-scalp", images[5] * brain[..., None])):
        place = project / "out/images" / folder
        assert np.array_equal(cv2.imread(str(place / "2.png"))[..., ::-1], expected)
        assert np.array_equal(cv2.imread(str(place / "2_mask.png"), cv2.IMREAD_GRAYSCALE), 255 * brain)
        assert len(list(place.iterdir())) == 8


def test_both_views_of_a_patient_are_in_the_same_subset_and_each_patient_is_tested_once(project):
    brain_dataset.run(project / "out", project)
    tested = []
    for fold in range(2):
        with (project / f"out/fold-{fold}.csv").open() as file:
            subsets = {row["patient"]: row["subset"] for row in csv.DictReader(file)}
        assert len(subsets) == 16 and set(subsets.values()) == {"train", "val", "test"}
        assert all(subsets[f"P{n}"] == subsets[f"P{n}-without-scalp"] for n in range(8))
        tested += [f"P{n}" for n in range(8) if subsets[f"P{n}"] == "test"]
    assert sorted(tested) == [f"P{n}" for n in range(8)]


def test_data_whose_brains_are_not_known(project):
    np.save(project / "data/processed/brains.npy", np.full((32, 32, 4), 255, np.uint8))
    with pytest.raises(DataError, match="knows no brain"):
        brain_dataset.run(project / "out", project)
