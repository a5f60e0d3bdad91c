"""Metrics on masks a person can count, and on random ones against scikit-learn and brute force."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from brainseg.evaluation import metrics

NAN = math.nan

# reference, prediction, (tp, fp, fn, tn), (dice, iou, precision, recall, pixel_accuracy), hd95, surface Dice at 0 and 1
GOLDEN = {
    "identical": ([".##.", ".##."], [".##.", ".##."], (4, 0, 0, 4), (1, 1, 1, 1, 1), 0, (1, 1)),
    "shifted": (["##..", "##.."], [".##.", ".##."], (2, 2, 2, 2), (1 / 2, 1 / 3, 1 / 2, 1 / 2, 1 / 2), 1, (1 / 2, 1)),
    "too small": (["####"], ["##.."], (2, 0, 2, 0), (2 / 3, 1 / 2, 1, 1 / 2, 1 / 2), 1.85, (4 / 6, 5 / 6)),
    "too large": ([".#..."], [".####"], (1, 3, 0, 1), (2 / 5, 1 / 4, 1 / 4, 1, 2 / 5), 2.85, (2 / 5, 3 / 5)),
    "apart": (["#...."], ["....#"], (0, 1, 1, 3), (0, 0, 0, 0, 3 / 5), 4, (0, 0)),
    "missed": (["##.."], ["...."], (0, 0, 2, 2), (0, 0, NAN, 0, 1 / 2), NAN, (0, 0)),
    "invented": (["...."], [".#.."], (0, 1, 0, 3), (0, 0, 0, NAN, 3 / 4), NAN, (0, 0)),
    "both empty": (["...."], ["...."], (0, 0, 0, 4), (NAN, NAN, NAN, NAN, 1), NAN, (NAN, NAN)),
    "one pixel": (["#"], ["#"], (1, 0, 0, 0), (1, 1, 1, 1, 1), 0, (1, 1)),
    "full": (["###", "###", "###"], ["###", "###", "###"], (9, 0, 0, 0), (1, 1, 1, 1, 1), 0, (1, 1)),
}


def mask(rows: list[str]) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def random_masks(number: int = 300, side: int = 12):
    """Pairs from empty to full, one-pixel masks among them; every eighth prediction equals its reference."""
    rng = np.random.default_rng(5)
    single = np.zeros((side, side), bool)
    single[3, 7] = True
    special = [np.zeros((side, side), bool), np.ones((side, side), bool), single, single.T]
    yield from ((a, b) for a in special for b in special)
    for number_of_pair in range(number):
        density = rng.choice([0.02, 0.1, 0.5, 0.9], size=2)
        reference, prediction = (rng.random((side, side)) < d for d in density)
        yield reference, reference.copy() if number_of_pair % 8 == 0 else prediction


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_counts_and_scores(case):
    reference, prediction, expected, scores, _, _ = GOLDEN[case]
    c = metrics.counts(mask(reference), mask(prediction))
    assert c == expected
    got = [f(c) for f in (metrics.dice, metrics.iou, metrics.precision, metrics.recall, metrics.pixel_accuracy)]
    assert got == pytest.approx(scores, nan_ok=True)


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_borders(case):
    reference, prediction, _, _, hd95, shares = GOLDEN[case]
    distances = metrics.surface_distances(mask(reference), mask(prediction))
    assert metrics.hd95(distances) == pytest.approx(hd95, nan_ok=True)
    assert [metrics.surface_dice(distances, t) for t in (0, 1)] == pytest.approx(shares, nan_ok=True)


def test_boundary_is_one_pixel_thick_and_keeps_the_image_edge():
    ring = ["#####", "#...#", "#...#", "#####"]
    assert (metrics.boundary(mask(["#####"] * 4)) == mask(ring)).all()


def test_spacing_scales_rows_and_columns_apart():
    reference, prediction = mask(["#..", "...", "..."]), mask(["...", "...", "..#"])
    assert metrics.hd95(metrics.surface_distances(reference, prediction)) == pytest.approx(math.sqrt(8))
    assert metrics.hd95(metrics.surface_distances(reference, prediction, (3.0, 0.5))) == pytest.approx(math.sqrt(37))


def test_scores_agree_with_scikit_learn_on_random_masks():
    pairs = list(random_masks())
    columns = [np.stack([pair[side].ravel() for pair in pairs], axis=1) for side in (0, 1)]  # a mask is a label
    ours = [metrics.counts(*pair) for pair in pairs]
    for score, theirs in (
        (metrics.dice, f1_score),
        (metrics.iou, jaccard_score),
        (metrics.precision, precision_score),
        (metrics.recall, recall_score),
    ):
        # scikit-learn cannot say "undefined" for IoU: 0 there, NaN here
        expected = theirs(*columns, average=None, zero_division=0 if theirs is jaccard_score else np.nan)
        if theirs is jaccard_score:
            expected[[not (reference | prediction).any() for reference, prediction in pairs]] = NAN
        np.testing.assert_allclose([score(counts) for counts in ours], expected)
    for counts, (reference, prediction) in zip(ours, pairs, strict=True):
        expected = accuracy_score(reference.ravel(), prediction.ravel())
        assert metrics.pixel_accuracy(counts) == pytest.approx(expected)


def test_borders_agree_with_brute_force_on_random_masks():
    for reference, prediction in random_masks():
        distances = metrics.surface_distances(reference, prediction, (1.0, 1.5))
        expected = brute_force_distances(reference, prediction, (1.0, 1.5))
        for ours, theirs in zip(distances, expected, strict=True):
            assert ours == pytest.approx(theirs)
        if reference.any() and prediction.any():
            assert metrics.hd95(distances) == pytest.approx(max(np.quantile(way, 0.95) for way in expected))
            close = sum((way <= 1.5).sum() for way in expected) / sum(map(len, expected))
            assert metrics.surface_dice(distances, 1.5) == pytest.approx(close)
        else:
            assert math.isnan(metrics.hd95(distances))


def brute_force_distances(reference: np.ndarray, prediction: np.ndarray, spacing: tuple) -> list[np.ndarray]:
    """All pairs of border pixels; a border pixel has one of its four neighbours outside the mask."""
    points = []
    for image in (reference, prediction):
        framed = np.pad(image, 1)
        inner = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
        points.append(np.argwhere(image & ~inner) * spacing)
    table = cdist(*points)
    return [table.min(axis=1, initial=np.inf), table.min(axis=0, initial=np.inf)]


def test_properties_on_random_masks():
    for reference, prediction in random_masks(60):
        c, swapped = metrics.counts(reference, prediction), metrics.counts(prediction, reference)
        assert sum(c) == reference.size
        assert metrics.dice(c) == pytest.approx(2 * metrics.iou(c) / (1 + metrics.iou(c)), nan_ok=True)
        assert metrics.dice(swapped) == pytest.approx(metrics.dice(c), nan_ok=True)
        assert metrics.precision(swapped) == pytest.approx(metrics.recall(c), nan_ok=True)


def test_counts_per_slice_add_up_to_those_of_the_volume():
    reference, prediction = (np.stack(kind) for kind in zip(*random_masks(20), strict=True))
    slices = metrics.counts(reference, prediction, axis=(1, 2))
    assert [kind.shape for kind in slices] == [(36,)] * 4
    assert tuple(kind.sum() for kind in slices) == metrics.counts(reference, prediction)


def test_counts_refuse_masks_of_two_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        metrics.counts(np.zeros((2, 3)), np.zeros((3, 2)))


def test_histogram_counts_equal_a_thresholding_at_every_level():
    rng = np.random.default_rng(2)
    reference, probability = rng.random((3, 9, 7)) < 0.3, rng.integers(0, 256, (3, 9, 7), dtype=np.uint8)
    at = metrics.counts_at(metrics.histogram(reference, probability), range(1, 256))
    for level in range(1, 256):
        assert tuple(kind[level - 1] for kind in at) == metrics.counts(reference, probability >= level)


def test_last_of_the_test_batches_dropped():
    """33 slices of 10 x 10: 32 empty ones (1), and one full of tumour that is missed, (0 + 100) / (100 + 100)."""
    reference = np.zeros((33, 10, 10), np.uint8)
    reference[32] = 1
    nothing = np.zeros_like(reference)
    assert metrics.keras_dice_batch_soft(reference, nothing) == pytest.approx((1 + 1 / 2) / 2)
    assert metrics.keras_iou_batch_soft(reference, nothing) == pytest.approx((1 + 1 / 2) / 2)


def test_keras_scores_are_soft_and_smoothed():
    """Four tumour pixels at p = 0.2 (51 / 255), one elsewhere: sum(rp) 0.8, sum(r) 4, sum(p) 1."""
    reference, probability = np.zeros((1, 5, 5), np.uint8), np.zeros((1, 5, 5), np.uint8)
    reference[0, 0, :4], probability[0, 0, :] = 1, 51
    assert metrics.keras_dice_batch_soft(reference, probability) == pytest.approx(101.6 / 105)
    assert metrics.keras_iou_batch_soft(reference, probability) == pytest.approx(100.8 / 104.2)
