"""Training that begins with a model of ours: which it may be, what becomes of it, what is said of its scores."""

from pathlib import Path

import numpy as np
import pytest

from brainseg.data import dataset, fingerprints
from brainseg.errors import DataError, IntegrityError
from brainseg.models import manifest, networks
from brainseg.training import checkpoints, description, finetuning, trainer
from tests.support.cohort import write_cohort
from tests.support.engine import RUNNING
from tests.support.tiny_training import params, release, released_once, train

OUT = Path("models/unet.weights.h5")
BRIEF = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-6, "ema": 0.0}


@pytest.fixture(scope="module")
def model():
    """Weights and manifest of a model that was trained a little on the cohort, and the cohort."""
    return released_once()


@pytest.fixture
def data(tmp_path):
    return dataset.load(*write_cohort(tmp_path), "patient")


def weights_of(trained):
    return [np.asarray(array) for array in trained.network.get_weights()]


@pytest.mark.slow
def test_it_begins_where_the_model_ended(model, data):
    settings = params(**BRIEF, initial_weights=str(model[0]))
    initial = finetuning.load(settings, OUT)
    further = train(data, settings, trainer.identity(settings, {}, RUNNING, initial), initial)
    afresh = train(data, params(**BRIEF))
    assert further.history["loss"].iloc[0] < 0.7 * afresh.history["loss"].iloc[0]
    for before, after in zip(weights_of(initial), weights_of(further), strict=True):
        assert before.shape == after.shape
    trainable = [(a, b) for a, b in zip(weights_of(initial), weights_of(further), strict=True) if a.ndim == 4]
    assert all(0 < np.abs(a - b).max() < 1e-3 for a, b in trainable)


def test_further_answers_of_deep_supervision_keep_their_own_weights(data, tmp_path):
    network = {"name": "residual_unet", "filters": 4, "depth": 2, "stem": 0}
    settings = params().model_copy(update={"network": params().network.model_copy(update=network)})
    trained = networks.build_supervised(settings.network, None, 3)
    source = networks.build(settings.network, 32, 3)
    early = {layer.name for layer in trained.layers} - {layer.name for layer in source.layers}
    before = {name: trained.get_layer(name).get_weights() for name in early}
    networks.set_initial_weights(trained, source)
    for layer in source.layers:
        for mine, theirs in zip(trained.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for name, arrays in before.items():
        for old, new in zip(arrays, trained.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_another_beginning_is_another_training(model):
    settings = params(initial_weights=str(model[0]))
    facts = [trainer.identity(settings, {}, RUNNING, start) for start in (None, finetuning.load(settings, OUT))]
    assert checkpoints.key(facts[0]) != checkpoints.key(facts[1])


@pytest.mark.slow
def test_the_manifest_says_what_it_began_with_and_whose_patients_were_seen(model, data, tmp_path):
    weights, path, _ = model
    first = manifest.read(path)
    assert first.training.initial_weights_sha256 is None and len(first.seen) == 6
    assert not fingerprints.recognise(first.seen, data.images, data.rows("test")).any()
    moved = dataset.Dataset(data.images, data.masks, data.slices.assign(subset=list(data.slices["subset"])[::-1]))
    settings = params(**BRIEF, initial_weights=str(weights))
    initial = finetuning.load(settings, OUT)
    for cohort, expected in ((data, []), (moved, [fingerprints.SEEN])):
        trained = train(cohort, settings, trainer.identity(settings, {}, RUNNING, initial), initial)
        _, written = release(trained, cohort, settings, tmp_path)
        facts = manifest.read(written)
        assert facts.training.initial_weights_sha256 == first.weights_sha256
        assert facts.protocol.marks == expected
    # the patients of the first model are still known, others are not taken for them
    strangers = 255 - data.images
    assert set(first.seen) < set(facts.seen)
    assert fingerprints.marks(facts.seen, data.images, data.rows("val")) == [fingerprints.SEEN]
    assert fingerprints.marks(first.seen, strangers, data.rows("test")) == []
    assert fingerprints.marks(facts.seen, strangers, data.rows("test")) == []


def test_images_prepared_otherwise_cannot_be_known_again_and_that_is_said(model, data):
    first = manifest.read(model[1])
    unknown, later = [fingerprints.UNKNOWN], first.model_copy(deep=True)
    later.protocol.marks.append(fingerprints.UNKNOWN)

    def marks(initial, **changes):
        now = initial.preprocess.model_copy(update=changes)
        return description.marks_of_initial(initial, now, data.images, data.rows("test"))

    assert marks(first) == marks(first, foreground=[1]) == []
    for change in ({"size": 64}, {"channels": "flair"}, {"window": [1.0, 99.0]}):
        assert marks(first, **change) == unknown
    assert marks(later) == unknown


def test_a_patient_is_known_by_its_brightest_slice_under_any_name(data):
    table = data.slices.assign(patient=["a"] * 16 + ["b"] * 16)
    seen = fingerprints.compute(data.images, table["patient"][:16])
    bright = int(np.argmax(data.images[:16].sum((1, 2, 3), dtype=int)))
    assert fingerprints.recognise(seen, data.images, np.arange(32)).tolist() == [row == bright for row in range(32)]


@pytest.mark.parametrize(
    ("name", "what"),
    [("unet.json", "names no file of weights"), ("../models/unet.weights.h5", "what the training writes")],
)
def test_what_is_no_model_to_begin_with(tmp_path, monkeypatch, name, what):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match=what):
        finetuning.load(params(initial_weights=f"x/{name}"), OUT)


def test_each_fold_may_have_its_own(model, tmp_path):
    (tmp_path / "fold-3.weights.h5").write_bytes(model[0].read_bytes())
    (tmp_path / "fold-3.json").write_bytes(model[1].read_bytes())
    settings = params(initial_weights=str(tmp_path / "fold-{fold}.weights.h5"))
    assert finetuning.load(settings, OUT, 3).manifest == manifest.read(model[1])
    with pytest.raises(DataError, match=r"fold-2\.weights\.h5: train\.initial_weights: there is no such file"):
        finetuning.load(settings, OUT, 2)
    with pytest.raises(DataError, match="the split comes from a file, without folds"):
        finetuning.load(settings, OUT)


def test_a_model_that_is_not_there_is_changed_or_of_another_network(model, tmp_path):
    weights, path, _ = model
    with pytest.raises(DataError, match=r"train\.initial_weights: there is no such file"):
        finetuning.load(params(initial_weights=str(tmp_path / "unet.weights.h5")), OUT)
    (tmp_path / "unet.weights.h5").write_bytes(weights.read_bytes())
    with pytest.raises(IntegrityError, match="there is no model"):
        finetuning.load(params(initial_weights=str(tmp_path / "unet.weights.h5")), OUT)
    other = params(initial_weights=str(weights))
    other = other.model_copy(update={"network": other.network.model_copy(update={"filters": 8, "dropout": 0.5})})
    with pytest.raises(DataError, match=r"network\.filters is 8, the initial weights have 4") as error:
        finetuning.load(other, OUT)
    (problem,) = error.value.problems  # dropout is free
    assert problem.fix == "set network.filters: 4, or train.initial_weights: null"
    (tmp_path / "unet.json").write_bytes(path.read_bytes())
    (tmp_path / "unet.weights.h5").write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match="the manifest says"):
        finetuning.load(params(initial_weights=str(tmp_path / "unet.weights.h5")), OUT)


def test_weights_of_a_network_that_resized_its_answer_are_refused(model, tmp_path):
    weights, path, _ = model
    former = manifest.read(path)
    former.layers[-1] = former.layers[-1].model_copy(update={"name": networks.FORMER_OUTPUT})
    with pytest.raises(IntegrityError, match="is of an earlier version") as error:
        networks.restore(former, weights)
    assert error.value.problems[0].fix == "use its exported .onnx file, or train it again"
