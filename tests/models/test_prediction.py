"""From slices to probabilities: none is lost, and slices and channels keep their order."""

import dataclasses
import resource

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops

from brainseg.data import dataset
from brainseg.errors import RunError
from brainseg.evaluation import metrics
from brainseg.models import prediction
from brainseg.training import losses
from brainseg.training.training_model import ValidationStep
from tests.support.cohort import write_cohort


def channel_network(channel: int, size: int = 32) -> keras.Model:
    """A network that returns one channel of its input: logit = value / 255 * 8 - 4."""
    inputs = keras.Input((size, size, 3))
    network = keras.Model(inputs, keras.layers.Lambda(lambda x: x[..., channel : channel + 1] / 255 * 8 - 4)(inputs))
    network.compile(jit_compile=False)
    return network


def expected(values):
    return np.rint(255 / (1 + np.exp(-(values / 255 * 8 - 4))))


def one_patient():
    slices = pd.DataFrame({"patient": ["A"] * len(IMAGES)})
    return dataset.Dataset(IMAGES, np.zeros(IMAGES.shape[:3], np.uint8), slices)


IMAGES = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_channels_keep_their_order(channel):
    """Pre-contrast, FLAIR, post-contrast; not BGR at prediction and RGB in training."""
    found = prediction.predict_slices(channel_network(channel), IMAGES, np.arange(11), mirror=False, batch_size=4)
    assert np.abs(found - expected(IMAGES[..., channel])).max() <= 1


def test_the_last_batch_is_neither_dropped_nor_padded():
    rows = np.array([3, 0, 10, 7, 2, 9])
    found = prediction.predict_slices(channel_network(0), IMAGES, rows, mirror=False, batch_size=4)
    assert found.shape == (6, 32, 32)
    assert np.abs(found - expected(IMAGES[rows, ..., 0])).max() <= 1
    parts = list(prediction.validate_batches(ValidationStep(channel_network(0), losses.bce), one_patient(), rows, 4))
    assert np.concatenate([part for part, *_ in parts]).tolist() == rows.tolist()
    marked = np.concatenate([counts for _, counts, _ in parts])[:, 1]  # false alarms: no slice has a mask
    assert marked.tolist() == (IMAGES[rows, ..., 0] > 127).sum((1, 2)).tolist()


def test_mirrored_answers_are_turned_back():
    """This network depends on left and right: its mirrored output for the mirrored slice is averaged in."""
    inputs = keras.Input((32, 32, 3))
    ramp = np.linspace(-4, 4, 32, dtype="float32").reshape(1, 1, 32, 1)
    network = keras.Model(inputs, keras.layers.Lambda(lambda x: 0 * x[..., :1] + ops.convert_to_tensor(ramp))(inputs))
    network.compile(jit_compile=False)
    found = prediction.predict_slices(network, IMAGES, np.arange(2), mirror=True)
    sigmoid = 1 / (1 + np.exp(-ramp[0, 0, :, 0]))
    assert np.abs(found[0, 0] - np.rint(255 * (sigmoid + sigmoid[::-1]) / 2)).max() <= 1


def test_flair_alone_is_given_in_every_channel():
    alone = dataset.Changed(IMAGES, dataset.repeat_flair)
    found = prediction.predict_slices(channel_network(2), alone, np.arange(3), mirror=False)
    assert np.abs(found - expected(IMAGES[:3, ..., 1])).max() <= 1


@pytest.mark.parametrize(("channels", "depth"), [(lambda x: x[..., 1::3], 9), (lambda x: x[..., 7:8], 9)])
def test_arrays_on_disk_are_those_in_memory(channels, depth, tmp_path):
    """Of a network that answers all slices of a window, and of one that answers the slice in the middle."""
    data = dataset.load(*write_cohort(tmp_path), "patient")
    network = lambda_network(channels, depth)
    (tmp_path / "arrays").mkdir()
    kept, held = (
        prediction.predict_for_evaluation(network, data, mirror=True, folder=folder).arrays
        for folder in (tmp_path / "arrays", None)
    )
    assert list(kept) == list(held)
    for name in kept:
        np.testing.assert_array_equal(kept[name][:], held[name][:])
        assert name == "flair" or isinstance(kept[name], np.memmap)
    prediction.write(tmp_path / "kept.npz", prediction.Predictions(data.rows("val", "test"), kept))
    prediction.write(tmp_path / "held.npz", prediction.Predictions(data.rows("val", "test"), held))
    assert (tmp_path / "kept.npz").read_bytes() == (tmp_path / "held.npz").read_bytes()


def test_a_full_disk_is_an_error_before_the_first_answer(tmp_path):
    """A write to a memory map for which there is no space would kill the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            prediction.allocate_on_disk(tmp_path, (4, 1024, 1024), np.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not prediction.allocate_on_disk(tmp_path, (4, 1024, 1024), np.uint8)[:].any()


def test_scored_and_written(tmp_path):
    data = dataset.load(*write_cohort(tmp_path), "patient")
    predictions = prediction.predict_for_evaluation(channel_network(1), data, mirror=True)
    assert predictions.rows.tolist() == list(range(16, 32))
    np.testing.assert_array_equal(predictions.arrays["flair"][:], data.images[16:, ..., 1])
    np.testing.assert_array_equal(predictions.arrays["flair_only"], predictions.arrays["model"])
    brains = data.brain(data.rows("val", "test"))
    nothing = predictions.arrays["stripped"][brains == 0]
    assert (nothing == nothing[0]).all() and nothing[0] < predictions.arrays["model"][brains == 0].min()
    np.testing.assert_array_equal(predictions.arrays["stripped"][brains > 0], predictions.arrays["model"][brains > 0])
    unknown = prediction.predict_for_evaluation(channel_network(1), dataclasses.replace(data, brains=None), mirror=True)
    assert "stripped" not in unknown.arrays
    prediction.write(tmp_path / "p.npz", predictions)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as kept:
        np.testing.assert_array_equal(kept["row"], predictions.rows)
        np.testing.assert_array_equal(kept["probability"], predictions.arrays["model"])
        assert set(kept) == {"row", "probability", "flair_only", "stripped"}
        np.testing.assert_array_equal(kept["stripped"], predictions.arrays["stripped"])


def lambda_network(function, depth: int) -> keras.Model:
    inputs = keras.Input((32, 32, depth))
    network = keras.Model(inputs, keras.layers.Lambda(lambda x: function(x / 255 * 8 - 4))(inputs))
    network.compile(jit_compile=False)
    return network


def test_neighbours_are_given_in_order(tmp_path):
    """A network that returns FLAIR of the next slice; the last slice of a patient is its own neighbour."""
    data = dataset.load(*write_cohort(tmp_path), "patient")
    network = lambda_network(lambda x: x[..., 7:8], 9)
    rows = data.rows("test")
    after = np.minimum(rows + 1, rows // 4 * 4 + 3)
    found = prediction.predict_patients(network, data, rows, mirror=True, batch_size=3)
    assert np.abs(found - expected(data.images[after, ..., 1])).max() <= 1
    alone = prediction.predict_slices(network, data.images, rows, mirror=False)
    assert np.abs(alone - expected(data.images[rows, ..., 1])).max() <= 1
    scored = prediction.predict_for_evaluation(network, data, mirror=False).arrays
    np.testing.assert_array_equal(scored["one_slice"][8:], alone)
    assert (scored["one_slice"] != scored["model"]).any()


@pytest.mark.parametrize("depth", [3, 5, 9])
def test_windows_of_a_volumetric_network_agree_with_its_slices(tmp_path, depth):
    """A network that returns FLAIR of each slice of a window: for all windows the result is the patient's FLAIR."""
    data = dataset.load(*write_cohort(tmp_path, slices=7), "patient")
    network = lambda_network(lambda x: x[..., 1::3], 3 * depth)
    rows = data.rows("val", "test")
    found = prediction.predict_patients(network, data, rows, mirror=True, batch_size=4)
    assert np.abs(found - expected(data.images[rows, ..., 1])).max() <= 1
    parts = list(prediction.validate_batches(ValidationStep(network, losses.bce), data, rows, 4))
    answered = np.concatenate([part for part, *_ in parts])
    assert sorted(answered) == rows.tolist()
    wanted = metrics.counts(data.masks[answered], data.images[answered, ..., 1] > 127, axis=(1, 2))
    np.testing.assert_array_equal(np.concatenate([counts for _, counts, _ in parts]).T, wanted)
    assert np.abs(prediction.predict_for_evaluation(network, data, mirror=False).arrays["one_slice"] - found).max() <= 1


def test_overlapping_windows_are_averaged(tmp_path):
    """A network that returns a value for each place in the window: a slice gets the mean over its places."""
    data = dataset.load(*write_cohort(tmp_path), "patient")
    places = np.array([-2.0, 0.0, 2.0], "float32")
    network = lambda_network(lambda x: 0 * x[..., ::3] + ops.convert_to_tensor(places), 9)
    found = prediction.predict_patients(network, data, data.rows("test"), mirror=False)[:4, 0, 0]
    p = 255 / (1 + np.exp(-places))
    windows = [[0, 1, 2], [1, 2, 3]]  # rows of the first patient
    wanted = [np.mean([p[w.index(row)] for w in windows if row in w]) for row in range(4)]
    assert np.abs(found - wanted).max() <= 1


@pytest.fixture
def marked(tmp_path):
    """A cohort, of whose third validation slice one pixel of FLAIR is 0; no other is."""
    data = dataset.load(*write_cohort(tmp_path), "patient")
    images = np.array(data.images)
    images[data.rows("val")[2], 5, 6, 1] = 0
    return dataset.Dataset(images, data.masks, data.slices)


UNSOUND = {
    "NaN": lambda x: 0 * x / x,
    "infinity": lambda x: 1 / x,
    "minus infinity": lambda x: -1 / x,
}


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("kind", UNSOUND)
def test_an_answer_that_is_no_number_names_patient_and_slice(marked, kind, depth):
    """In evaluation and in validation, slice by slice or in windows. A cast would make 0 of it."""
    inputs = keras.Input((32, 32, 3 * depth))
    network = keras.Model(inputs, keras.layers.Lambda(lambda x: UNSOUND[kind](x[..., 1::3]))(inputs))
    network.compile(jit_compile=False)
    what = "patient P4, slice 3: the network's answer is not a number"
    for mirror in (False, True):
        with pytest.raises(RunError, match=what) as caught:
            prediction.predict_for_evaluation(network, marked, mirror=mirror)
        assert caught.value.code == 5
    with pytest.raises(RunError, match=what):
        list(prediction.validate_batches(ValidationStep(network, losses.bce), marked, marked.rows("val"), 4))
    rows = np.setdiff1d(marked.rows("test"), marked.rows("val"))
    assert len(prediction.predict_patients(network, marked, rows, mirror=True)) == len(rows)


def test_without_a_table_the_row_is_named():
    images = np.zeros((3, 32, 32, 3), np.uint8)
    network = lambda_network(lambda x: x[..., :1] * float("nan"), 3)
    with pytest.raises(RunError, match="row 0: the network's answer"):
        prediction.predict_slices(network, images, np.arange(3), mirror=False)
