"""From arrays to outlines: the grid, the rule, types, neighbouring slices, and equality with the pipeline."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from brainseg.config import Network
from brainseg.data import dataset
from brainseg.errors import DataError, RunError
from brainseg.export import metadata, onnx_files
from brainseg.inference.outlining import Outliner, windows
from brainseg.models import networks, prediction
from tests.support import onnx_toy
from tests.support.tiny_network import TINY

SIDE = onnx_toy.SIDE


def outliner(tmp_path, **rule) -> Outliner:
    """Tumour is FLAIR of at least half the scale."""
    told = onnx_toy.facts()
    return Outliner(onnx_toy.write(tmp_path / "toy.onnx", told | {"rule": told["rule"] | rule}), threads=1)


def disc(shape=(60, 44), centre=(0.4, 0.6), radius=0.2) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y / shape[0] - centre[0]) ** 2 + (x / shape[1] - centre[1]) ** 2 < radius**2) * np.uint8(200)


@pytest.mark.parametrize(
    "given",
    [disc(), np.stack([disc()] * 3, -1), np.stack([disc()] * 5), np.stack([np.stack([disc()] * 3, -1)] * 5)],
    ids=["(H, W)", "(H, W, 3)", "(S, H, W)", "(S, H, W, 3)"],
)
def test_the_answer_has_the_grid_of_what_was_given(tmp_path, given):
    answer = outliner(tmp_path).segment(given)
    shape = given.shape[:-1] if given.shape[-1] == 3 else given.shape
    assert answer.mask.shape == answer.probability.shape == shape
    assert answer.mask.dtype == answer.probability.dtype == np.uint8 and set(np.unique(answer.mask)) == {0, 1}
    expected = np.broadcast_to(disc() > 0, shape)
    assert 2 * (answer.mask & expected).sum() / (answer.mask.sum() + expected.sum()) > 0.93


def test_of_three_channels_the_second_is_flair(tmp_path):
    given = np.zeros((SIDE, SIDE, 3), np.uint8)
    given[4:9, 4:9, 0], given[20:25, 20:25, 1], given[4:9, 20:25, 2] = 255, 255, 255
    rows, columns = np.nonzero(outliner(tmp_path).segment(given).mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 24, 20, 24)


def test_small_components_go_from_the_outline_and_stay_in_the_probability(tmp_path):
    given = np.zeros((3, SIDE, SIDE), np.uint8)
    given[:, 5:10, 5:10], given[1, 25, 25] = 255, 255
    answer = outliner(tmp_path, min_component=20).segment(given)
    assert answer.mask.sum() == 75 and not answer.mask[1, 25, 25]
    assert answer.probability[1, 25, 25] == 255


@pytest.mark.parametrize("several", [False, True], ids=["(H, W)", "(1, H, W)"])
def test_a_slice_alone_keeps_small_components(tmp_path, several):
    """The rule for them was chosen on volumes."""
    given = np.zeros((SIDE, SIDE), np.uint8)
    given[10:13, 10:13] = 255
    assert outliner(tmp_path, min_component=20).segment(given[None] if several else given).mask.sum() == 9


def test_slices_with_a_gap_between_their_numbers_are_no_neighbours(tmp_path):
    given = np.zeros((4, SIDE, SIDE), np.uint8)
    given[:, 10:13, 10:13] = 255
    made = outliner(tmp_path, min_component=20)
    assert made.segment(given).mask.sum() == made.segment(given, numbers=(5, 6, 7, 8)).mask.sum() == 36
    assert not made.segment(given, numbers=(1, 2, 4, 5)).mask.any()
    assert made.segment(given, numbers=(1, 2, 3, 5)).mask.sum() == 36


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64])
def test_deeper_values_are_windowed_by_the_whole_volume(tmp_path, dtype):
    """One slice is half as bright as the other. With a window of its own it would be equally bright."""
    given = np.stack([disc((SIDE, SIDE)), disc((SIDE, SIDE)) // 2.5]).astype(dtype) * 10
    given[:, :4, :4] = 1  # the faintest that is no air
    probability = outliner(tmp_path).segment(given).probability
    assert probability[0].max() == 255 and 99 < probability[1].max() < 105


def test_pixels_that_are_not_square_become_so_and_come_back(tmp_path):
    given = np.zeros((64, 32), np.uint8)
    given[16:32, 8:24] = 255
    answer = outliner(tmp_path).segment(given, (1.0, 2.0))
    assert outliner(tmp_path).prepared(given, (1.0, 2.0))[0, ..., 1].all(axis=0).sum() == 0
    assert np.abs(np.argwhere(answer.mask).mean(axis=0) - [23.5, 15.5]).max() < 0.6


def test_mirrored_answers_are_averaged(tmp_path):
    """The toy network treats each pixel alone, so that the average equals its output."""
    given = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE), np.uint8)
    assert (outliner(tmp_path, mirror=True).segment(given).probability == given).all()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((0, 8, 8), np.uint8), "shape"),
        (np.zeros((2, 8, 8, 4), np.uint8), "shape"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.zeros((8, 8), bool), "bool"),
        (np.full((8, 8), np.nan), "NaN"),
    ],
)
def test_arrays_that_cannot_be_answered_are_refused(tmp_path, given, why):
    with pytest.raises(DataError, match=why):
        outliner(tmp_path).segment(given)


def test_progress_is_told_and_a_cancelled_answer_stops(tmp_path):
    given, told = np.zeros((20, SIDE, SIDE), np.uint8), []
    outliner(tmp_path).segment(given, progress=lambda *done: told.append(done))
    assert told == [(8, 20), (16, 20), (20, 20)]
    with pytest.raises(RunError, match="cancelled"):
        outliner(tmp_path).segment(given, cancelled=lambda: True)


def patients(*slices: int) -> dataset.Dataset:
    names = [f"P{i}" for i, count in enumerate(slices) for _ in range(count)]
    images = np.random.default_rng(3).integers(0, 256, (len(names), SIDE, SIDE, 3), np.uint8)
    return dataset.Dataset(images, np.zeros(images.shape[:3], np.uint8), pd.DataFrame({"patient": names}))


@pytest.mark.parametrize("context", [0, 1, 2])
@pytest.mark.parametrize("slices", [1, 2, 3, 4, 5, 9, 10])
def test_windows_are_those_of_the_pipeline(slices, context):
    data, rows, size = patients(slices), np.arange(slices), 2 * context + 1
    assert windows(slices, size, 1).tolist() == data.windows_around(rows, context).tolist()
    if context:
        assert windows(slices, size, size).tolist() == data.tiles(rows, context, max(1, context)).tolist()


@pytest.mark.parametrize("changes", [
    {}, pytest.param({"context": 1}, marks=pytest.mark.slow),
    {"name": "unet3d", "context": 2, "upsampling": "transpose"},
])  # fmt: skip
def test_probabilities_are_those_of_the_pipeline(tmp_path, changes):
    """The same network in Keras and as a file, on patients of 1, 3 and 11 slices: equal except for the last digit."""
    network = networks.build(Network(**{**TINY.model_dump(), **changes}), SIDE, 3)
    told = onnx_toy.facts()
    onnx_files.convert(onnx_files.rebuild(network, "float32"), tmp_path / "real.onnx")
    data = patients(1, 3, 11)
    for mirror in (False, True):
        metadata.write_metadata(tmp_path / "real.onnx", told | {"rule": told["rule"] | {"mirror": mirror}})
        file = Outliner(tmp_path / "real.onnx", threads=1)
        for rows in (np.arange(1), np.arange(1, 4), np.arange(4, 15)):
            expected = prediction.predict_patients(network, data, rows, mirror=mirror).astype(int)
            assert np.abs(file.on_grid(data.images[rows]) - expected).max() <= 1


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.0])
def test_an_answer_that_is_no_number_is_no_answer(tmp_path, monkeypatch, value, mirror):
    """A cast would make 0 of it, and "no tumour" of that."""
    made = outliner(tmp_path, mirror=mirror)
    given, run = np.zeros((20, SIDE, SIDE), np.uint8), made.session.run

    def broken(images):
        answer = np.array(run(images))
        answer[images[..., 1].max(axis=(1, 2)) == 255, 3, 4] = value
        return answer

    monkeypatch.setattr(made.session, "run", broken)
    assert not made.segment(given).mask.any()
    given[13, 0, 0] = 255
    with pytest.raises(RunError, match=r"a\.nii, slice 14 of 20: the network's answer is not a number") as caught:
        made.segment(given, name="a.nii")
    assert caught.value.code == 5


def test_a_window_names_the_slice_whose_answer_is_no_number():
    made = outliner_of_windows()
    with pytest.raises(RunError, match="array, slice 4 of 7"):
        made.on_grid(np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, SIDE, SIDE, 3), np.uint8))


def outliner_of_windows() -> Outliner:
    """Of three slices at once; its answer for slices of brightness 3 is NaN."""
    made = Outliner.__new__(Outliner)
    made.mirror = False
    answer = lambda images: np.where(images[..., ::3] == 3, np.nan, 0.5)  # noqa: E731
    made.session = SimpleNamespace(slices=3, answers=3, run=answer)
    return made
