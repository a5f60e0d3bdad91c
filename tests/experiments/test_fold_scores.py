"""The numbers of all folds together, where they can be checked on paper."""

import math

import numpy as np
import pytest

from brainseg.experiments import fold_scores
from brainseg.inference.probabilities import Calibration

LEVELS = {0.2: 51, 0.8: 204}
NONE, DOUBLED = Calibration(), Calibration(1.0, math.log(0.4 / 0.6) - math.log(0.2 / 0.8))  # which makes 0.4 of 0.2


def count(probability, other, tumour):
    joint = np.zeros((2, 256), int)
    joint[:, LEVELS[probability]] = other, tumour
    return joint


def test_each_fold_is_calibrated_as_its_run_was():
    """0.2 is tumour in 4 of 10, and its fold calls it 0.4; in the other fold 0.8 is tumour in 9 of 10, uncalibrated."""
    joints = [count(0.2, 6, 4), count(0.8, 1, 9)]
    found = fold_scores._pool_calibration(joints, [DOUBLED, NONE])
    assert found["ece"] == found["ece_from_tenth"] == pytest.approx((0.0 + 0.1) / 2)
    assert found["ece_before"] == found["ece_from_tenth_before"] == pytest.approx((0.2 + 0.1) / 2)


def test_where_no_fold_is_calibrated_there_is_nothing_before():
    found = fold_scores._pool_calibration([count(0.2, 6, 4)], [NONE])
    assert found == {"ece": pytest.approx(0.2), "ece_from_tenth": pytest.approx(0.2)}
