"""A tumour of another patient in a slice: at its place, at its level, with its mask."""

import numpy as np
import pandas as pd
import pytest

from brainseg.data.dataset import Dataset
from brainseg.io.sequences import FLAIR
from brainseg.training import lesion_mixing
from brainseg.training.lesion_mixing import LesionMixer

SIDE = 256


def make(patients, tumours, brightness, brains=None):
    """Grey heads with a bright square of tumour; ``tumours``: (row, column, side) of each slice, or None."""
    count = len(patients)
    images = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    images[:, 40:216, 40:216] = np.array(brightness, np.uint8)[:, None, None, None]
    images[..., 0] //= 2
    images[..., 2] -= images[..., 2] // 4
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    for mask, image, tumour in zip(masks, images, tumours, strict=True):
        if tumour:
            row, column, side = tumour
            mask[row : row + side, column : column + side] = 1
            image[mask > 0, 1] += 40
    slices = pd.DataFrame({"patient": patients, "tumour_pixels": masks.sum((1, 2)), "subset": "train"})
    return Dataset(images, masks, slices, brains)


PATIENTS = list("AABBCC")
PLACES = [(100, 100, 20), None, None, (60, 150, 30), (150, 60, 5), (70, 70, 30)]


@pytest.fixture
def data():
    return make(PATIENTS, PLACES, [100, 100, 50, 50, 100, 100])


def mixed(data, rows, probability=1.0, seed=1):
    mixer, rows = LesionMixer(data, np.arange(6)), np.array(rows)
    masks = data.masks[rows][..., None]
    return mixer.mix(data.images[rows], masks, rows, probability, np.random.default_rng(seed))


def test_donors_are_other_patients_tumours_of_the_same_height_and_a_size(data):
    """B's first slice: A's first; C's is too small. A's second: B's second and C's, no first slices."""
    mixer = LesionMixer(data, np.arange(6))
    assert mixer.find_donors(2).tolist() == [0]
    assert mixer.find_donors(1).tolist() == [3, 5]
    assert mixer.find_donors(0).tolist() == []


def test_donors_lack_the_same_sequences(data):
    images = data.images.copy()
    images[4:, ..., 0] = images[4:, ..., 1]  # C has no pre-contrast
    changed = Dataset(images, data.masks, data.slices)
    assert LesionMixer(changed, np.arange(6)).find_donors(1).tolist() == [3]


def draw(lengths, lacking, *, side=64):
    """Noise of patients of so many slices; ``lacking``: the rows whose first channel is a copy of FLAIR."""
    rng = np.random.default_rng(4)
    patients = [f"P{number}" for number, length in enumerate(lengths) for _ in range(length)]
    images = rng.integers(0, 256, (len(patients), side, side, 3), np.uint8)
    images[lacking, ..., 0] = images[lacking, ..., FLAIR]
    pixels = rng.choice([0, 2, 3, 20], len(patients))  # at least 2.5 are needed
    masks = np.zeros((len(patients), side, side), np.uint8)
    for mask, count in zip(masks, pixels, strict=True):
        mask[0, :count] = 1
    return Dataset(images, masks, pd.DataFrame({"patient": patients, "tumour_pixels": pixels}))


def find_by_definition(data, rows, row):
    """The donors of a slice, one after the other."""
    patients = data.slices["patient"].tolist()

    def find_height(each):
        return (each - patients.index(patients[each])) / patients.count(patients[each])

    def find_missing(each):
        own = [other for other in rows if patients[other] == patients[each]]
        image = data.images[own[len(own) // 2]]
        return [np.array_equal(image[..., channel], image[..., FLAIR]) for channel in range(3)]

    least = lesion_mixing.SMALLEST * (data.images.shape[1] / lesion_mixing.GRID) ** 2
    return [
        other
        for other in rows
        if patients[other] != patients[row]
        and abs(find_height(other) - find_height(row)) <= lesion_mixing.HEIGHT
        and find_missing(other) == find_missing(row)
        and data.masks[other].sum() >= least
    ]


def test_donors_are_those_of_the_definition_for_every_slice():
    """P1 and P4 lack a sequence, P2 does in its middle slice, which decides, P3 in another; P5 is not trained on."""
    data = draw([19, 28, 12, 22, 26, 16], [*range(19, 47), 53, 61, *range(81, 107)])
    rows = np.setdiff1d(np.arange(107), [0, 24, 59, 90])
    mixer = LesionMixer(data, rows)
    expected = [find_by_definition(data, rows.tolist(), row) for row in rows]
    assert [mixer.find_donors(row).tolist() for row in rows] == expected
    assert np.ptp([len(donors) for donors in expected]) > 3 and mixer.missing[rows, 0].sum() == 27 + 12 + 25


def test_a_tumour_comes_with_its_mask_at_its_place_and_at_the_level_of_the_slice(data):
    """A's is bright on 100, B's slice has 50: the tumour of 140 comes to about half of that."""
    images, masks = mixed(data, [2])
    part = masks[0, ..., 0] > 0
    assert part.any() and not (part & (data.masks[0] == 0)).any()
    changed = (images[0] != data.images[2]).any(axis=-1)
    assert (changed | (data.images[2][..., 1] > 0))[part].all() and not changed[:70].any()
    inside = images[0][part]
    assert np.abs(inside[:, 1] - 70.0).max() <= 2 and np.abs(inside[:, 0] - 25.0).max() <= 1


def test_it_happens_to_as_many_samples_as_asked(data):
    happened = [(mixed(data, [2] * 8, 0.3, seed)[1].any(axis=(1, 2, 3))).mean() for seed in range(30)]
    assert 0.2 < np.mean(happened) < 0.4
    assert not mixed(data, [2] * 8, 0.0)[1].any()


def test_what_has_no_donor_stays_and_the_data_are_not_written_into(data):
    images, masks = mixed(data, [0, 2])
    assert (images[0] == data.images[0]).all() and (masks[0, ..., 0] == data.masks[0]).all()
    assert not data.masks[2].any() and masks[1].any()


def test_it_does_not_leave_the_brain():
    brains = np.zeros((6, SIDE, SIDE), np.uint8)
    brains[:, 105:200, 50:200] = 1
    data = make(PATIENTS, PLACES, [100] * 6, np.packbits(brains, axis=-1))
    images, masks = mixed(data, [2])
    assert masks[0].any() and not masks[0, :105].any()
    assert (images[0, :105] == data.images[2, :105]).all()


def put_in(rows, columns, seed):
    """Pixels of A's tumour (20 x 20 at 100, 100, carved at random) in B's slice, whose brain is this rectangle."""
    brains = np.zeros((6, SIDE, SIDE), np.uint8)
    brains[0, 40:216, 40:216] = brains[2, rows, columns] = 1
    data = make(PATIENTS, PLACES, [100] * 6, np.packbits(brains, axis=-1))
    return mixed(data, [2], seed=seed)[1].sum()


@pytest.mark.parametrize("side", [10, 25, 30])
def test_what_would_fill_most_of_the_brain_is_not_put_in(side):
    """The crown of the head is a few hundred pixels of brain, which a tumour carved from below covers altogether."""
    found = [put_in(slice(98, 98 + side), slice(98, 98 + side), seed) for seed in range(20)]
    assert max(found) <= side**2 / 2
    assert (max(found) > 0) == (side > 10) and min(found) == 0


@pytest.mark.parametrize(("first", "some"), [(105, True), (118, False)])
def test_what_would_lie_mostly_outside_the_brain_is_not_put_in(first, some):
    found = [put_in(slice(40, 216), slice(first, 216), seed) for seed in range(20)]
    assert (max(found) > 0) == some


@pytest.mark.parametrize(("side", "size", "width"), [(0.2, 0.0, 20), (0.2, 1.0, 12), (0.7, 0.0, 20), (0.7, 0.5, 30)])
def test_the_part_is_smaller_or_larger_than_the_tumour(side, size, width):
    """A square of 20 pixels is 10 deep: 5 pixels less on each side at most, 10 more."""
    tumour = np.zeros((64, 64), np.uint8)
    tumour[20:40, 20:40] = 1
    found = lesion_mixing.carve(tumour, side, size)
    assert abs(int(found.any(axis=0).sum()) - width) <= 2


def test_levels_are_those_of_the_network():
    pixels = np.zeros((8, 3), np.uint8)
    pixels[:4, 1] = 100
    pixels[:4, 2] = 200
    pixels[4:, 2] = 100
    assert lesion_mixing.measure_levels(pixels).tolist() == pytest.approx([lesion_mixing.LOWEST_LEVEL, 100, 500 / 3])
