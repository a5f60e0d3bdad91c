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
from tests.support.tiny_training import params

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
    found = soft_masks.load(params(soft_masks=named).train, data, digests)  # as the train stage opens it
    learned = data.rows("train", "val")
    expected = np.rint(data.images[learned][..., :2].mean(axis=-1))
    assert np.abs(found.array[learned] - expected).max() <= 1 and expected.max() > 100
    assert data.images[data.rows("test")].any() and not found.array[data.rows("test")].any()
    assert len(json.loads((folds / "soft/a-b/fold-0.json").read_text())["made_by"]) == 2


def test_one_network_may_teach_too(folds):
    assert "what 1 network of each of 2 folds" in teaching.run(["cv-a"], folds / "soft")


def rewrite(path, mark=None, subset="train"):
    """Write the toy that answers FLAIR again, as one with this mark that was trained on these patients."""
    told = onnx_toy.facts(model=Outliner(path).facts["model"])
    told["model"]["protocol"]["marks"] = [mark] if mark else []
    told["model"]["training"]["parameters"]["train"]["subset"] = subset
    onnx_toy.write(path, told, channel=1)


def test_one_of_several_that_learned_from_validation_patients_says_so(folds):
    rewrite(folds / "flair.onnx", manifest.VALIDATION_SEEN, "train_and_val")
    teaching.run(["cv-b", "cv-a"], folds / "soft")
    assert json.loads((folds / "soft/b-a/fold-1.json").read_text())["subset"] == "train_and_val"


def test_networks_of_all_patients_teach_one_of_all_patients(folds, monkeypatch):
    monkeypatch.setattr(revision, "fetched", lambda path, name, root: nullcontext(folds / path))
    with pytest.raises(DataError, match=r"was not trained on all patients, but with train\.subset train"):
        teaching.run(["flair.onnx"], folds / "soft")
    rewrite(folds / "flair.onnx", manifest.TRAINED_ON_ALL, "all")
    said = teaching.run(["flair.onnx"], folds / "soft")
    named = said.rpartition("set train.soft_masks: ")[2]
    assert named == f"{folds}/soft/66666666/all.npy" and "of all patients" in said  # the digest of "flair"
    data, digests = load()
    found = soft_masks.load(params(soft_masks=named, subset="all").train, data, digests)
    assert np.abs(found.array.astype(int) - data.images[..., 1]).max() <= 1


@pytest.mark.parametrize(
    ("names", "what"), [(["cv-a", "all"], "is no cross-validation"), (["cv-0123abcd-1"], "is one")]
)
def test_names_that_do_not_go_together(folds, names, what):
    with pytest.raises(DataError, match=f"{names[-1]}: {what}"):
        teaching.run(names, folds / "soft")


@pytest.mark.parametrize("mark", [manifest.TRAINED_ON_ALL, fingerprints.SEEN, fingerprints.UNKNOWN])
def test_networks_that_may_have_seen_the_test_patients_do_not_teach(folds, mark):
    rewrite(folds / "flair.onnx", mark)
    with pytest.raises(DataError, match="cv-a-0: would tell of the test patients"):
        teaching.run(["cv-a"], folds / "soft")
    assert not (folds / "soft").exists()


def test_networks_of_another_split_do_not_teach(folds):
    split = folds / "data/splits/split.csv"
    split.write_text(split.read_text() + "\n")
    with pytest.raises(IntegrityError, match="the model was trained with"):
        teaching.run(["cv-a", "cv-b"], folds / "soft")
    assert not (folds / "soft").exists()
