"""The batches of an epoch: read ahead, in order, and the augmentations that are done before the step."""

import dataclasses
import time

import numpy as np
import pytest

from brainseg.data import dataset
from brainseg.data.brains import stripping
from brainseg.models import backend
from brainseg.training.batches import Batches
from tests.support.cohort import write_cohort
from tests.support.tiny_training import params


@pytest.fixture
def data(tmp_path):
    return dataset.load(*write_cohort(tmp_path), "patient")


NEITHER = {"lesion_mix": 0.0, "scalp_dropout": 0.0}


def augmented(changes, **of_training):
    """What params.yaml has, but lesions and scalps as ``changes`` say."""
    settings = params(**of_training)
    augmentation = settings.augmentation.model_copy(update=NEITHER | changes)
    return settings.model_copy(update={"augmentation": augmentation})


def test_the_scalp_is_removed_from_some_samples_by_seed_epoch_and_batch(data):
    """So a batch that is read again, or by a training that goes on, is the same."""
    whole, batches = Batches(data, augmented({})), Batches(data, augmented({"scalp_dropout": 0.5}))
    brain = data.brain(np.zeros(1, int))[0]
    air = stripping.resize_mask(brain, 1) == 0
    stripped = []
    for epoch in range(20):
        for each in (whole, batches):
            each.start(epoch)
        old, new = whole[1], batches[1]
        assert (old["mask"] == new["mask"]).all() and (new["image"] == batches[1]["image"]).all()
        changed = (old["image"] != new["image"]).any(axis=(1, 2, 3))
        assert not new["image"][changed][:, air].any()
        stripped.append(changed.mean())
    assert 0.3 < np.mean(stripped) < 0.7 and len(set(stripped)) > 2


def test_a_training_says_whose_scalp_it_keeps(data, capsys):
    settings = augmented({"scalp_dropout": 0.5})
    Batches(data, settings).report_scalps()
    assert capsys.readouterr().out == ""
    brains = np.array(data.brains)
    brains[data.slices["patient"] == "P1"] = 0  # which cuts the whole tumour
    Batches(dataclasses.replace(data, brains=brains), settings).report_scalps()
    assert "augmentation.scalp_dropout leaves out P1: no brain mask, or one that cuts" in capsys.readouterr().out
    Batches(dataclasses.replace(data, brains=np.full_like(brains, 255)), settings).report_scalps()
    assert "augmentation.scalp_dropout is off" in capsys.readouterr().out
    Batches(dataclasses.replace(data, brains=None), augmented({})).report_scalps()
    assert capsys.readouterr().out == ""


def test_batches_are_read_ahead_each_once_and_in_order(data):
    """While a step runs the next batch is read: the first that is asked for brings others with it."""
    batches = Batches(data, params(batch_size=2))
    expected = [batches[index] for index in range(len(batches))]
    asked = []

    class Watched(Batches):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    stream = iter(backend.stream(Watched(data, params(batch_size=2))))
    asked.clear()  # one is built beforehand, for the shapes
    seen = [next(stream)]
    for _ in range(100):
        if len(asked) > 1:
            break
        time.sleep(0.05)
    assert len(asked) > 1  # in whatever order: tf.data may read two at once, and gives them in theirs
    seen += list(stream)
    assert sorted(asked) == list(range(len(batches)))
    for given, made in zip(seen, expected, strict=True):
        for name in made:
            np.testing.assert_array_equal(given[name], made[name])


def test_an_epoch_does_not_wait_for_a_thread_that_tunes(data):
    """With tf.data's tuning the end of an epoch took up to as long as the epoch."""
    assert backend.stream(Batches(data, params())).options().autotune.enabled is False


def test_lesions_are_mixed_before_the_scalp_is_removed(data):
    """Each batch is the same when it is read again; masks change with the images; C has no other patient's tumour."""
    plain, batches = Batches(data, augmented({})), Batches(data, augmented({"lesion_mix": 0.5, "scalp_dropout": 0.5}))
    old, new, again = plain[0], batches[0], batches[0]
    assert all((new[name] == again[name]).all() for name in new)
    grown = (new["mask"] != old["mask"]).any(axis=(1, 2, 3))
    assert grown.any() and not grown.all()
    assert set(np.unique(new["mask"])) == {0, 1}
    assert (data.images[batches.order[:8]] == old["image"]).all()  # nothing is written into the data


@pytest.mark.parametrize("chosen", [("train",), ("train", "val"), ("train", "val", "test")])
def test_who_is_trained_on_is_a_parameter(data, chosen):
    batches = Batches(data, params(subset={1: "train", 2: "train_and_val", 3: "all"}[len(chosen)], tumour_share=None))
    drawn = {row for epoch in range(8) for row in (batches.start(epoch), batches.order)[1]}
    assert drawn == set(data.rows(*chosen))


def test_patients_are_drawn_alike_where_asked(data):
    batches = Batches(data, params(sampling="patient"))
    drawn = data.slices["patient"].to_numpy()[batches.order]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 4 and counts.max() - counts.min() <= 2  # 9 slices with tumour and 7 without
