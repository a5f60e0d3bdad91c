"""Calibration: found again where it is known, harmless where nothing can be learned, measured on folds left out."""

import numpy as np
import pytest

from brainseg.evaluation import calibration, scoring
from brainseg.evaluation.calibration import Asked
from brainseg.inference import probabilities
from brainseg.inference.probabilities import Calibration

LEVELS = np.arange(256, dtype=np.uint8)
LOGITS = np.log(np.clip(LEVELS, 0.5, 254.5) / (255 - np.clip(LEVELS, 0.5, 254.5)))


def observed(true: Calibration, pixels: float = 1e6) -> np.ndarray:
    """The histogram of a network whose probabilities are right when they are calibrated so."""
    sure = LOGITS + true.skew * np.log(4 / (1 + np.exp(LOGITS)) / (1 + np.exp(-LOGITS)))
    share = 1 / (1 + np.exp(-sure / true.temperature - true.bias))
    return np.stack([pixels * (1 - share), pixels * share])


@pytest.mark.parametrize("true", [Calibration(*each) for each in ((0.5, 0), (1, 0), (2, -0.8), (4, 0.5), (1, -1.5))])
def test_the_true_calibration_is_found(true):
    assert calibration.fit(observed(true)) == pytest.approx(true, rel=0.02, abs=0.02)


@pytest.mark.parametrize("true", [Calibration(*each) for each in ((2, -0.8, -0.4), (1.5, 0.3, 0.5), (1, 0, -0.8))])
def test_the_true_skew_is_found(true):
    """Platt scaling cannot: what it leaves is off by more."""
    joint = observed(true)
    found = calibration.fit(joint, Asked(skew="auto"))
    assert found == pytest.approx(true, rel=0.02, abs=0.03)
    left = [
        scoring.calibration_block(scoring.calibration_table(calibration.apply_to_counts(joint, each)))["ece_from_tenth"]
        for each in (found, calibration.fit(joint))
    ]
    assert left[0] < 0.003 < 2 * left[1]


def test_what_is_fixed_stays():
    joint = observed(Calibration(2.0, -0.8))
    assert calibration.fit(joint, Asked(1.5, -0.25)) == (1.5, -0.25, 0)
    assert calibration.fit(joint, Asked(bias=-0.8)) == pytest.approx((2.0, -0.8, 0), rel=0.02)
    assert calibration.fit(joint, Asked(2.0)) == pytest.approx((2.0, -0.8, 0), rel=0.02)
    assert calibration.fit(joint, Asked(1.0, 0.0)) == calibration.NONE
    assert calibration.fit(joint, Asked(skew=0.3)).skew == 0.3


def test_what_is_given_0_does_not_count():
    joint = observed(Calibration(2.0, 0.3))
    joint[:, 0] = 1e12, 0
    assert calibration.fit(joint) == pytest.approx((2.0, 0.3, 0), rel=0.05)


def test_a_network_that_is_always_right_or_wrong_stays_within_bounds():
    right, wrong = np.zeros((2, 2, 256))
    right[0, 1:100] = right[1, 200:] = wrong[1, 1:100] = wrong[0, 200:] = 10
    for joint in (right, wrong):
        found = calibration.fit(joint)
        assert calibration.LEAST <= found.temperature <= calibration.MOST
        assert abs(found.bias) <= calibration.FARTHEST
    assert calibration.fit(right, Asked(bias=0.0)).temperature == pytest.approx(calibration.LEAST, abs=0.01)
    assert calibration.fit(wrong, Asked(bias=0.0)).temperature == pytest.approx(calibration.MOST, abs=0.1)


@pytest.mark.parametrize("kinds", [[0], [1], []])
def test_pixels_of_one_kind_say_nothing(kinds):
    joint = np.zeros((2, 256))
    joint[kinds, 5:] = 3
    joint[:, 0] = 9
    assert calibration.fit(joint) == calibration.NONE


@pytest.mark.parametrize("temperature", [0.25, 0.7, 2.1, 8.0])
@pytest.mark.parametrize("bias", [-3, -0.4, 0, 1.2])
@pytest.mark.parametrize("skew", [-0.95, 0, 0.5])
def test_calibrated_levels_keep_their_order_and_their_0(temperature, bias, skew):
    found = probabilities.calibrate(LEVELS, Calibration(temperature, bias, skew)).astype(int)
    assert (np.diff(found) >= 0).all() and found[0] == 0
    if bias == 0:
        assert ((found >= 128) == (LEVELS >= 128)).all()
    odds = 255 / np.clip(LEVELS[1:], 0, 254.5) - 1
    exact = 1 / (1 + np.exp((np.log(odds) - skew * np.log(4 * odds / (1 + odds) ** 2)) / temperature - bias))
    assert np.abs(found[1:] - 255 * exact).max() <= 0.5


def test_none_changes_nothing():
    assert probabilities.calibrate(LEVELS, calibration.NONE).tolist() == list(range(256))
    assert calibration.apply({"model": LEVELS}, calibration.NONE)["model"] is LEVELS


def test_intensities_are_no_probabilities():
    found = calibration.apply({"model": LEVELS, "flair": LEVELS}, Calibration(2.0, -1))
    assert found["flair"] is LEVELS and (found["model"] != LEVELS).any()


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.93])
@pytest.mark.parametrize("old_skew", [0, 0.6])
def test_a_threshold_moves_with_the_probabilities(threshold, old_skew):
    old, new = Calibration(1.4, 0.3, old_skew), Calibration(2.2, -0.9, -0.4)
    moved = calibration.move(threshold, old, new)
    assert calibration.move(moved, new, old) == pytest.approx(threshold)
    raw = calibration.move(threshold, old, calibration.NONE)
    assert calibration.move(raw, calibration.NONE, new) == pytest.approx(moved)
    around = probabilities.calibrate(np.array([np.floor(255 * raw), np.ceil(255 * raw)], np.uint8), old)
    assert around[0] - 0.5 <= 255 * threshold <= around[1] + 0.5


def test_counts_are_those_of_calibrated_pixels():
    joint = np.random.default_rng(0).integers(0, 50, (2, 256))
    found = calibration.apply_to_counts(joint, Calibration(1.7, -0.5))
    for kind, counted in zip(joint, found, strict=True):
        pixels = probabilities.calibrate(np.repeat(LEVELS, kind), Calibration(1.7, -0.5))
        assert np.bincount(pixels, minlength=256).tolist() == counted.tolist()


def test_each_fold_is_calibrated_by_the_others():
    """Of three folds one is of a network of another kind: its own pixels would calibrate it, the others do not."""
    folds = [observed(Calibration(2, -0.8)), observed(Calibration(2, -0.8)), observed(Calibration(1, 0.7))]

    def error(joint: np.ndarray) -> float:
        return scoring.calibration_block(scoring.calibration_table(joint))["ece_from_tenth"]

    own = sum(calibration.apply_to_counts(fold, calibration.fit(fold)) for fold in folds)
    assert error(own) < 0.01 < 0.05 < error(calibration.cross_fit(folds)) < error(sum(folds))


@pytest.mark.parametrize("old", [Calibration(8, -4, 0.95), Calibration(8, 4, -0.95), Calibration(0.25, 4, 0.95)])
@pytest.mark.parametrize("threshold", [1e-6, 0.01, 0.5, 0.99, 1 - 1e-6])
def test_a_threshold_moves_at_the_bounds_of_what_is_fitted(old, threshold):
    moved = calibration.move(threshold, old, calibration.NONE)
    assert 0 < moved < 1
    if 1e-6 < moved < 1 - 1e-6:
        assert calibration.move(moved, calibration.NONE, old) == pytest.approx(threshold, rel=1e-6)
