"""`brainseg teach`: soft masks of each fold, of the patients that its networks were trained on and no others."""

import json
from contextlib import nullcontext

import numpy as np
import pytest

from brainseg.commands.several import teaching
from brainseg.data import dataset, fingerprints, splitting
from brainseg.errors import DataError, IntegrityError
from brainseg.experiments import revision
from brainseg.inference.outlining import Outliner
from brainseg.models import manifest
from brainseg.training import soft_masks
from tests.commands.several.test_ensemble import project  # noqa: F401  # a fixture
from tests.support import onnx_toy

SPLIT = {"split": {"folds": 2, "test_fold": 0, "unit": "patient", "val_fraction": 0.1, "patients": None,
                   "file": None, "seed": 5}}  # fmt: skip


FILES = {"a": "flair.onnx", "b": "plain.onnx"}


@pytest.fixture
def folds(project, monkeypatch):  # noqa: F811
    """Two folds of two cross-validations, with the networks of ``project`` each; the split is that of fold 1."""
    held = {f"cv-{name}-{fold}": file for name, file in FILES.items() for fold in range(2)}
    monkeypatch.setattr(revision, "reader", lambda name, root: name)
    monkeypatch.setattr(revision, "params", lambda read: SPLIT)
    monkeypatch.setattr(splitting, "count_folds", lambda path, split: 2)

    def fetched(path, name, root):
        return nullcontext(project / (held[name] if path.endswith(".onnx") else path))

    monkeypatch.setattr(revision, "fetched", fetched)
    return project


def load():
    data = dataset.load(teaching.runs.PROCESSED, teaching.runs.SPLIT, "patient")
    return data, dataset.digests(teaching.runs.PROCESSED, teaching.runs.SPLIT)


def test_it_is_the_mean_of_the_networks_and_nothing_for_test_patients(folds):
    said = teaching.run(["cv-a", "cv-b"], folds / "soft")
    assert "what 2 networks of each of 2 folds answered" in said
    named = said.rpartition("set train.soft_masks: ")[2]
    assert named == f"{folds}/soft/a-b/fold-{{fold}}.npy"  # another name for what others answer
    data, digests = load()
    assert data.slices["fold"].iloc[data.rows("test")[0]] == 1
    found = soft_masks.load(named, data, digests)  # as the train stage opens it
    learned = data.rows("train", "val")
    expected = np.rint(data.images[learned][..., :2].mean(axis=-1))
    assert np.abs(found.array[learned] - expected).max() <= 1 and expected.max() > 100
    assert data.images[data.rows("test")].any() and not found.array[data.rows("test")].any()
    assert len(json.loads((folds / "soft/a-b/fold-0.json").read_text())["made_by"]) == 2


def test_one_network_may_teach_too(folds):
    assert "what 1 network of each of 2 folds" in teaching.run(["cv-a"], folds / "soft")


@pytest.mark.parametrize(
    "mark", [manifest.TRAINED_ON_ALL, manifest.VALIDATION_SEEN, fingerprints.SEEN, fingerprints.UNKNOWN]
)
def test_networks_that_have_seen_more_than_their_training_patients_do_not_teach(folds, mark):
    told = onnx_toy.facts(model=Outliner(folds / "flair.onnx").facts["model"])
    told["model"]["protocol"]["marks"] = [mark]
    onnx_toy.write(folds / "flair.onnx", told, channel=1)
    with pytest.raises(DataError, match="cv-a-0: would tell more than the training patients"):
        teaching.run(["cv-a"], folds / "soft")
    assert not (folds / "soft").exists()


def test_networks_of_another_split_do_not_teach(folds):
    split = folds / "data/splits/split.csv"
    split.write_text(split.read_text() + "\n")
    with pytest.raises(IntegrityError, match="the model was trained with"):
        teaching.run(["cv-a", "cv-b"], folds / "soft")
    assert not (folds / "soft").exists()
