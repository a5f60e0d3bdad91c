"""The temperature that calibrates: found again where it is known, and harmless where nothing can be learned."""

import numpy as np
import pytest

from brainseg.evaluation import temperature
from brainseg.inference import probabilities

LEVELS = np.arange(256, dtype=np.uint8)


def observed(true_temperature: float) -> np.ndarray:
    """The histogram of a network whose probabilities are right when they are scaled by this temperature."""
    odds = np.clip(LEVELS, 0.5, 254.5) / (255 - np.clip(LEVELS, 0.5, 254.5))
    share = 1 / (1 + odds ** (-1 / true_temperature))
    return np.stack([1e6 * (1 - share), 1e6 * share])


@pytest.mark.parametrize("true", [0.5, 1.0, 2.0, 4.0])
def test_the_true_temperature_is_found(true):
    assert temperature.fit(observed(true)) == pytest.approx(true, rel=0.01)


def test_what_is_given_0_does_not_count():
    joint = observed(2.0)
    joint[:, 0] = 1e12, 0
    assert temperature.fit(joint) == pytest.approx(2.0, rel=0.01)


def test_a_network_that_is_always_right_or_wrong_stays_within_bounds():
    right, wrong = np.zeros((2, 2, 256))
    right[0, 1:100] = right[1, 200:] = wrong[1, 1:100] = wrong[0, 200:] = 10
    assert temperature.fit(right) == pytest.approx(temperature.LEAST, abs=0.01)
    assert temperature.fit(wrong) == pytest.approx(temperature.MOST, abs=0.1)


@pytest.mark.parametrize("kinds", [[0], [1], []])
def test_pixels_of_one_kind_say_nothing(kinds):
    joint = np.zeros((2, 256))
    joint[kinds, 5:] = 3
    joint[:, 0] = 9
    assert temperature.fit(joint) == temperature.NONE


@pytest.mark.parametrize("value", [0.25, 0.7, 2.1, 8.0])
def test_calibrated_levels_keep_their_order_their_0_and_their_half(value):
    found = probabilities.calibrate(LEVELS, value).astype(int)
    assert (np.diff(found) >= 0).all() and found[0] == 0
    assert ((found >= 128) == (LEVELS >= 128)).all()
    exact = 1 / (1 + (255 / np.clip(LEVELS[1:], 0, 254.5) - 1) ** (1 / value))
    assert np.abs(found[1:] - 255 * exact).max() <= 0.5


def test_a_temperature_of_1_changes_nothing():
    assert probabilities.calibrate(LEVELS, 1.0).tolist() == list(range(256))
    assert temperature.apply({"model": LEVELS}, 1.0)["model"] is LEVELS


def test_intensities_are_no_probabilities():
    found = temperature.apply({"model": LEVELS, "flair": LEVELS}, 2.0)
    assert found["flair"] is LEVELS and (found["model"] != LEVELS).any()
