"""A rule that a user chooses: what it changes, what it says, and what it leaves alone."""

import numpy as np
import pytest

from brainseg.inference import chosen_rule
from brainseg.inference.chosen_rule import RuleChoice
from brainseg.inference.outlining import Outliner
from tests.support import onnx_toy

SIDE = onnx_toy.SIDE


@pytest.fixture
def model(tmp_path) -> Outliner:
    """FLAIR of at least half the scale is tumour, in components of 20 voxels."""
    told = onnx_toy.facts()
    rule = {**told["rule"], "threshold": 0.5, "min_component": 20}
    return Outliner(onnx_toy.write(tmp_path / "toy.onnx", told | {"rule": rule}), threads=1)


def patches(*levels: int) -> np.ndarray:
    """(SIDE, SIDE) uint8: a patch of 3 x 3 pixels for each level."""
    image = np.zeros((SIDE, SIDE), np.uint8)
    for n, level in enumerate(levels):
        image[3 + 6 * n : 6 + 6 * n, 10:13] = level
    return image


def test_a_lower_threshold_outlines_more_and_the_model_stays(model):
    given = np.stack([patches(255, 120)] * 3)
    chosen = chosen_rule.apply(model, RuleChoice(threshold=0.02))
    assert model.segment(given).mask.sum() == 27 < chosen.segment(given).mask.sum()
    np.testing.assert_array_equal(model.segment(given).probability, chosen.segment(given).probability)
    assert model.facts["rule"]["threshold"] == 0.5 and chosen.facts["rule"]["threshold"] == 0.02


def test_the_lowest_threshold_outlines_no_impossible_pixel(model):
    chosen = chosen_rule.apply(model, RuleChoice(threshold=1e-300))
    answer = chosen.segment(np.stack([patches(255)] * 3))
    assert (answer.probability[answer.mask > 0] > 0).all()


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("smallest", [0, 9, 10, 27, 28])
def test_a_smallest_component_holds_for_volumes_and_for_single_slices(model, slices, smallest):
    given = np.stack([patches(255)] * slices)
    answer = chosen_rule.apply(model, RuleChoice(min_component=smallest)).segment(given)
    assert bool(answer.mask.any()) == (9 * slices >= smallest)


def test_slices_between_gaps_are_single(model):
    given = np.stack([patches(255)] * 4)
    answer = chosen_rule.apply(model, RuleChoice(min_component=10)).segment(given, numbers=(1, 2, 7, 9))
    assert answer.mask.any(axis=(1, 2)).tolist() == [True, True, False, False]


def test_only_what_differs_is_told(model):
    assert chosen_rule.apply(model, RuleChoice()) is model and chosen_rule.remarks(model.facts) == []
    assert chosen_rule.remarks(chosen_rule.apply(model, RuleChoice(threshold=0.5)).facts) == []
    (threshold,) = chosen_rule.remarks(chosen_rule.apply(model, RuleChoice(threshold=0.25)).facts)
    assert "0.25" in threshold and "0.5" in threshold
    (smallest,) = chosen_rule.remarks(chosen_rule.apply(model, RuleChoice(min_component=20)).facts)
    assert "single slices" in smallest
