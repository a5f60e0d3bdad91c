"""What an epoch is made of."""

import numpy as np
import pytest

from brainseg.training.sampling import sample_epoch

HAS_TUMOUR = np.array([True] * 10 + [False] * 30)


def test_share_and_size():
    rows = sample_epoch(HAS_TUMOUR, epoch=0, seed=1, batch_size=8, tumour_share=0.5)
    assert len(rows) == 40
    assert HAS_TUMOUR[rows].sum() == 20


def test_everything_takes_its_turn_before_anything_comes_again():
    epochs = [sample_epoch(HAS_TUMOUR, e, seed=1, batch_size=8, tumour_share=0.5) for e in range(6)]
    times = np.bincount(np.concatenate(epochs), minlength=40)
    assert set(times[:10]) == {12}  # 6 epochs x 20 / 10
    assert set(times[10:]) == {4}  # 6 x 20 / 30


@pytest.mark.parametrize("share", [None, 0.5])
def test_the_natural_share_and_whole_batches(share):
    rows = sample_epoch(HAS_TUMOUR[:-3], epoch=2, seed=1, batch_size=8, tumour_share=share)
    assert len(rows) == 32
    assert HAS_TUMOUR[rows].sum() == (round(10 / 37 * 32) if share is None else 16)


def test_fewer_slices_than_a_batch():
    assert len(sample_epoch(np.array([True, False, False]), 0, 1, 8, 0.5)) == 8


@pytest.mark.parametrize("value", [True, False])
def test_one_kind_only(value):
    rows = sample_epoch(np.full(8, value), 0, 1, 8, 0.5)
    assert sorted(rows) == list(range(8))


def test_a_pure_function_of_seed_and_epoch():
    def draw(epoch, seed):
        return sample_epoch(HAS_TUMOUR, epoch, seed, 8, 0.5).tolist()

    assert draw(3, 1) == draw(3, 1)
    assert draw(3, 1) != draw(4, 1)
    assert draw(3, 1) != draw(3, 2)


PATIENTS = np.repeat(["A", "B", "C", "D"], [2, 8, 10, 20])  # A and B have tumour in all slices


def test_of_patients_each_is_drawn_once_before_any_comes_again():
    epochs = [sample_epoch(HAS_TUMOUR, e, 1, 8, 0.5, PATIENTS) for e in range(6)]
    drawn = np.concatenate(epochs)
    assert all(HAS_TUMOUR[rows].sum() == 20 for rows in epochs)
    times = np.bincount(drawn, minlength=40)
    assert set(times[:2]) == {30} and set(times[2:10]) <= {7, 8}  # 6 x 20 / 2 patients, 2 and 8 slices
    assert times[10:20].sum() == times[20:].sum() == 60
    assert set(times[10:20]) == {6} and set(times[20:]) == {3}
    assert epochs[3].tolist() == sample_epoch(HAS_TUMOUR, 3, 1, 8, 0.5, PATIENTS).tolist()
    assert epochs[3].tolist() != sample_epoch(HAS_TUMOUR, 3, 2, 8, 0.5, PATIENTS).tolist()


def test_one_patient_alone_is_drawn_as_its_slices_are():
    rows = sample_epoch(HAS_TUMOUR, 0, 1, 8, 0.25, np.repeat("A", 40))
    assert sorted(rows[HAS_TUMOUR[rows]]) == list(range(10)) and sorted(rows[~HAS_TUMOUR[rows]]) == list(range(10, 40))
