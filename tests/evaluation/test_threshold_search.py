"""The rule chosen: brute force, ties."""

import numpy as np
import pytest

from brainseg import config
from brainseg.evaluation import metrics, threshold_search
from brainseg.evaluation.threshold_search import THRESHOLDS, Search, Smallest
from brainseg.inference import postprocessing
from brainseg.inference.postprocessing import Rule


def random_volumes(number: int = 4):
    rng = np.random.default_rng(9)
    for _ in range(number):
        yield rng.random((5, 12, 12)) < 0.2, rng.integers(0, 256, (5, 12, 12), dtype=np.uint8)


def found(dice: list[list[float]], thresholds: tuple, sizes: tuple) -> Search:
    """A search over one patient whose Dice under each rule is ``dice`` (of 2,000 predicted and true pixels)."""
    tp = np.round(np.array([dice]) * 1000).astype(int)
    return Search(
        thresholds, tuple(Smallest(*each) for each in sizes), metrics.Counts(tp, 1000 - tp, 1000 - tp, tp * 0)
    )


def test_sizes_scale_with_the_area_of_the_grid():
    assert threshold_search.min_components((256, 256)) == (0, 20, 50, 100, 200)
    assert threshold_search.min_components((128, 128)) == (0, 5, 12, 25, 50)
    assert threshold_search.min_components((512, 512)) == (0, 80, 200, 400, 800)


@pytest.mark.parametrize(
    "sizes",
    [[(0, 0.0)], [(0, 0.0), (2, 0.0), (5, 0.0)], [(3, 0.0)], [(0, 0.3), (0, 1.0)], [(0, 0.0), (4, 0.1), (2, 0.6)]],
)
def test_search_equals_making_every_mask(sizes):
    sizes = [Smallest(*each) for each in sizes]
    volumes = [*random_volumes(), (np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), np.uint8))]
    counts = threshold_search.search(volumes, THRESHOLDS, sizes).counts
    assert counts.tp.shape == (5, 19, len(sizes))
    for patient, (reference, probability) in enumerate(volumes):
        for t, threshold in enumerate(THRESHOLDS):
            for m, size in enumerate(sizes):
                mask = postprocessing.binarise(probability, Rule(threshold, *size))
                assert tuple(kind[patient, t, m] for kind in counts) == metrics.counts(reference, mask)


def test_mean_dice_leaves_out_undefined_patients():
    counts = metrics.Counts(*(np.array(kind).reshape(3, 1, 1) for kind in ([4, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 9])))
    assert Search((0.5,), (Smallest(0),), counts).mean_dice().tolist() == [[0.5]]
    nobody = metrics.Counts(*(np.zeros((1, 1, 1), int) for _ in range(4)))
    assert np.isnan(Search((0.5,), (Smallest(0),), nobody).mean_dice()).all()


@pytest.mark.parametrize(
    ("dice", "rule"),
    [
        ([[0.70, 0.70], [0.80, 0.80], [0.70, 0.70]], Rule(0.5, 0)),  # a tie: nothing removed
        ([[0.70, 0.70], [0.80, 0.90], [0.70, 0.70]], Rule(0.5, 20)),  # worth it
        ([[0.80, 0.80], [0.80, 0.80], [0.80, 0.80]], Rule(0.5, 0)),  # nothing to choose by
        ([[0.81, 0.70], [0.80, 0.70], [0.81, 0.70]], Rule(0.4, 0)),  # equally far from 0.5: the lower
        ([[0.90, 0.70], [0.80, 0.70], [0.70, 0.70]], Rule(0.4, 0)),
    ],
)
def test_choice_of_the_best_rule_and_of_the_simpler_one(dice, rule):
    search = found(dice, (0.4, 0.5, 0.6), ((0,), (20,)))
    assert threshold_search.choose(search, threshold_search.best_threshold(search)) == rule


def several(*dice: list[float]) -> Search:
    """A search over patients by threshold 0.5, 0.6, 0.9, one size."""
    tp = np.round(np.array(dice)[..., None] * 1000).astype(int)
    return Search((0.5, 0.6, 0.9), (Smallest(0),), metrics.Counts(tp, 1000 - tp, 1000 - tp, tp * 0))


def test_a_best_threshold_that_one_patient_makes_is_not_taken():
    """0.9 is ahead of 0.5 by 0, -0.02, 0.12, 0: 0.025 in the mean, with a standard error of 0.032.

    Were all patients as much better, it would be taken.
    """
    search = several([0.80, 0.80, 0.80], [0.80, 0.80, 0.78], [0.70, 0.72, 0.82], [0.92, 0.92, 0.92])
    assert search.mean_dice()[:, 0].tolist() == pytest.approx([0.805, 0.81, 0.83])
    assert threshold_search.best_threshold(search, errors=1) == 0.5
    assert threshold_search.best_threshold(search, errors=0.5) == threshold_search.best_threshold(search) == 0.9
    search = several([0.80, 0.80, 0.83], [0.80, 0.80, 0.82], [0.70, 0.70, 0.73], [0.90, 0.90, 0.92])
    assert threshold_search.best_threshold(search, errors=1) == 0.9


def test_patients_without_a_dice_have_no_say_in_the_threshold():
    counts = metrics.Counts(*(np.zeros((2, 3, 1), int) for _ in range(4)))
    assert threshold_search.best_threshold(Search((0.4, 0.5, 0.6), (Smallest(0),), counts), errors=1) == 0.5


def test_gains_below_a_thousandth_do_not_count():
    tp = np.array([[[99_950], [99_900]]])  # Dice 0.9995 at threshold 0.1, 0.9990 at 0.5
    counts = metrics.Counts(tp, 100_000 - tp, 100_000 - tp, tp * 0)
    assert threshold_search.best_threshold(Search((0.1, 0.5), (Smallest(0),), counts)) == 0.5


def test_a_given_threshold_is_kept_and_the_size_still_chosen():
    search = found([[0.9, 0.9], [0.5, 0.6]], (0.4, 0.37), ((0,), (20,)))
    assert threshold_search.choose(search, 0.37) == Rule(0.37, 20)


def test_of_rules_as_good_the_one_with_the_lowest_share_is_chosen_then_the_fewest_voxels():
    smallest = ((0, 0.0), (50, 0.0), (0, 0.1), (50, 0.1), (0, 0.2))
    for dice, expected in (
        ([0.80, 0.80, 0.85, 0.85, 0.85], (0, 0.1)),
        ([0.80, 0.80, 0.84, 0.85, 0.85], (50, 0.1)),
        ([0.80, 0.85, 0.85, 0.85, 0.85], (50, 0.0)),
        ([0.80, 0.80, 0.80, 0.80, 0.85], (0, 0.2)),
    ):
        assert threshold_search.choose(found([dice], (0.5,), smallest), 0.5) == Rule(0.5, *expected)


def test_what_is_fixed_is_not_searched():
    params = config.load("evaluate").evaluate
    every = threshold_search.list_smallest((256, 256))
    assert len(every) == 20 and every == threshold_search.list_smallest((256, 256), params)
    fixed = params.model_copy(update={"min_component": 7, "min_share": 0.3})
    assert threshold_search.list_smallest((256, 256), fixed) == [Smallest(7, 0.3)]
    share = params.model_copy(update={"min_share": 0.3})
    assert [each.min_component for each in threshold_search.list_smallest((256, 256), share)] == [0, 20, 50, 100, 200]
