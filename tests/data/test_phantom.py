"""The phantom cohort: the same parameters give the same bytes, and the images have what a network must learn from."""

import hashlib

import numpy as np
import pytest

from brainseg import config
from brainseg.data.phantom import cohort
from brainseg.io import pictures

PARAMS = config.Phantom(patients=12, slices=8, size=64, seed=7)
FLAIR = 1


def drawn(**changes) -> list:
    return list(cohort.pairs(PARAMS.model_copy(update=changes)))


def digest(pairs: list) -> str:
    return hashlib.sha256(b"".join(pair.image + pair.mask for pair in pairs)).hexdigest()


def volumes(pairs: list) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (S, H, W, 3) and masks (S, H, W) of each patient."""
    found: dict[str, list] = {}
    for pair in pairs:
        images = pictures.decode(pair.image, pair.image_name), pictures.decode(pair.mask, pair.mask_name)
        found.setdefault(pair.patient, []).append(images)
    return {patient: tuple(np.stack(part) for part in zip(*slices, strict=True)) for patient, slices in found.items()}


@pytest.fixture(scope="module")
def drawn_pairs() -> list:
    return drawn()


@pytest.fixture(scope="module")
def patients(drawn_pairs) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return volumes(drawn_pairs)


def test_same_parameters_give_the_same_bytes(drawn_pairs):
    assert digest(drawn()) == digest(drawn_pairs)
    assert digest(drawn(seed=8)) != digest(drawn_pairs)


def test_more_patients_leave_the_others_as_they_were(drawn_pairs):
    fewer = drawn(patients=3)
    names = {pair.patient for pair in fewer}
    assert digest([pair for pair in drawn_pairs if pair.patient in names]) == digest(fewer)


def test_sorted_by_patient_and_slice_without_gaps(drawn_pairs):
    order = [(pair.patient, pair.slice) for pair in drawn_pairs]
    assert order == sorted(order)
    numbers = [number for patient, number in order if patient == order[0][0]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_names_as_lgg_has_them(drawn_pairs):
    first = drawn_pairs[0]
    assert (first.patient, first.institution) == ("PHANTOM_PA_0000", "PA")
    assert (first.image_name, first.mask_name) == ("PHANTOM_PA_0000_1.tif", "PHANTOM_PA_0000_1_mask.tif")


def test_drawing_shows_a_bar_of_patients(monkeypatch):
    bars = []
    monkeypatch.setattr(cohort, "tqdm", lambda names, **options: bars.append((len(names), options)) or names)
    drawn(patients=2, slices=1)
    assert bars == [(2, {"desc": "draw", "unit": "patients", "disable": None})]


def test_several_institutions(drawn_pairs):
    assert {pair.institution for pair in drawn_pairs} == set(cohort.SCANNERS)


def test_uint8_colour_images_and_0_255_masks(patients):
    for images, masks in patients.values():
        assert images.dtype == masks.dtype == np.uint8
        assert images.shape == (*masks.shape, 3) and masks.shape[1:] == (64, 64)
        assert set(np.unique(masks)) == {0, 255}


@pytest.mark.parametrize("slices", [1, 2, 3, 30])
def test_every_patient_has_a_tumour(slices):
    found = volumes(drawn(slices=slices, patients=8, seed=slices))
    assert len(found) == 8
    assert all(masks.any() for _, masks in found.values())


def test_slices_without_tumour_always_at_the_vertex_and_often_at_the_base(patients):
    empty = [~masks.any(axis=(1, 2)) for _, masks in patients.values()]
    assert all(slices[-1] for slices in empty)
    assert 0.3 < np.mean([slices[0] for slices in empty]) < 0.8
    assert 0.3 < np.concatenate(empty).mean() < 0.8


def test_tumours_of_many_sizes(patients):
    sizes = [np.count_nonzero(masks) for _, masks in patients.values()]
    assert max(sizes) > 8 * min(sizes)


def test_missing_sequences_are_replaced_by_flair(patients):
    for patient, (images, _) in patients.items():
        number = int(patient.split("_")[-1])
        assert np.array_equal(images[..., 0], images[..., FLAIR]) == (number == 5)
        assert np.array_equal(images[..., 2], images[..., FLAIR]) == (number == 3)


def test_tumour_is_brighter_than_the_brain_on_flair_but_a_threshold_fails(patients):
    scores = []
    for images, masks in patients.values():
        flair, tumour = images[..., FLAIR], masks > 0
        assert flair[tumour].mean() > 1.3 * np.median(flair[flair > 20])
        scores.append(
            [2 * (tumour & (flair >= t)).sum() / (tumour.sum() + (flair >= t).sum()) for t in range(40, 200, 8)]
        )
    assert np.mean(scores, axis=0).max() < 0.6


def test_background_is_noise_and_no_slice_is_constant(patients):
    for images, _ in patients.values():
        corner = images[:, :6, :6]
        assert corner.mean() < 8 and corner.std() > 0
        assert (images.max(axis=(1, 2, 3)) > images.min(axis=(1, 2, 3))).all()
