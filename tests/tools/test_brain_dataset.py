"""Brain masks as data of their own: pictures that the pipeline reads, and the splits of the project."""

import csv

import cv2
import numpy as np
import pytest

from brainseg import config
from brainseg.data import folder, inputs
from brainseg.errors import DataError
from brainseg.io import pictures
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
    for name, expected in (("P1", images[5]), ("P1-without-scalp", images[5] * brain[..., None])):
        place = project / "out/images" / name
        assert np.array_equal(cv2.imread(str(place / "2.png"))[..., ::-1], expected)
        assert np.array_equal(cv2.imread(str(place / "2_mask.png"), cv2.IMREAD_GRAYSCALE), 255 * brain)
        assert len(list(place.iterdir())) == 8


def test_both_views_of_a_patient_are_trained_on_and_each_patient_is_tested_once_whole(project):
    brain_dataset.run(project / "out", project)
    tested = []
    for fold in range(2):
        with (project / f"out/fold-{fold}.csv").open() as file:
            subsets = {row["patient"]: row["subset"] for row in csv.DictReader(file)}
        whole = {patient: subset for patient, subset in subsets.items() if not patient.endswith("-without-scalp")}
        assert set(whole) == {f"P{n}" for n in range(8)} and set(whole.values()) == {"train", "val", "test"}
        trained = {f"{patient}-without-scalp" for patient, subset in whole.items() if subset == "train"}
        assert subsets == whole | dict.fromkeys(trained, "train")
        tested += [patient for patient, subset in whole.items() if subset == "test"]
    assert sorted(tested) == [f"P{n}" for n in range(8)]
    with (project / "out/all.csv").open() as file:
        both = {row["patient"]: row["subset"] for row in csv.DictReader(file)}
    assert len(both) == 16 and all(both[f"P{n}"] == both[f"P{n}-without-scalp"] for n in range(8))


def test_the_pipeline_reads_the_same_pixels(project):
    """So that a network's test patients are known again by their fingerprints."""
    brain_dataset.run(project / "out", project)
    defaults = config.load("download", path=project / "params.yaml").download
    own = defaults.model_copy(update={"source": "folder", "path": str(project / "out/images")})
    images = {(pair.patient, pair.slice): pair.image for pair in folder.pairs(own)}
    assert len(images) == 64
    assert np.array_equal(pictures.decode(images["P1", 2], "2.png"), np.load(project / "data/processed/images.npy")[5])


@pytest.mark.parametrize("change", ["unit: institution", "file: own.csv", "inner_folds: 2"])
def test_splits_that_are_not_those_of_the_folds(project, change):
    name = change.partition(":")[0]
    params = (project / "params.yaml").read_text()
    block = params.index("\nsplit:")
    place = params.index(f"  {name}:", block)
    (project / "params.yaml").write_text(params[:place] + f"  {change}" + params[params.index("\n", place) :])
    with pytest.raises(DataError, match=r"params\.yaml: has split\.unit"):
        brain_dataset.run(project / "out", project)


def test_pictures_of_other_data_are_not_mixed_in(project):
    brain_dataset.run(project / "out", project)
    with pytest.raises(DataError, match="is there already"):
        brain_dataset.run(project / "out", project)


def test_data_whose_brains_are_not_known(project):
    np.save(project / "data/processed/brains.npy", np.full((32, 32, 4), 255, np.uint8))
    with pytest.raises(DataError, match="knows no brain"):
        brain_dataset.run(project / "out", project)
