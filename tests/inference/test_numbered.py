"""Which pictures are the slices of one volume, by their names alone, and in what order."""

import numpy as np
import pytest

from brainseg.errors import DataError
from brainseg.inference import cases, numbered


@pytest.mark.parametrize(("names", "found"), [
    (["P_10.tif", "P_2.tif", "P_1.tif"], ([2, 1, 0], [1, 2, 10], 0)),
    (["P_1.tif", "P_1_mask.tif", "P_2.TIF", "P_2.seg.tif"], ([0, 2], [1, 2], 2)),
    (["a/P_1.tif", "a/P_2.tif"], ([0, 1], [1, 2], 0)),
    (["1.png", "0.png"], ([1, 0], [0, 1], 0)),
    (["whatever.png", "whatever_mask.png"], ([0], [1], 1)),
    (["P_1.tif", "P_1.tif"], ([0, 1], [1, 1], 0)),  # ``stack`` refuses two of one number
    (["a/P_1.tif", "b/P_2.tif"], None), (["P_1.tif", "Q_2.tif"], None), (["P_1.tif", "P_2.png"], None),
    (["P_1.tif", "P.tif"], None), (["P_1_mask.tif"], None), ([], None)])  # fmt: skip
def test_slices_are_put_in_the_order_of_their_numbers(names, found):
    assert numbered.order(names) == found


def slice_case(value: int, side: int = 16) -> cases.Case:
    return cases.make_case(f"slice {value}", "picture", np.full((1, side, side), value, np.uint8), None, ("odd",))


def test_a_stack_has_its_numbers_and_each_remark_once():
    case = numbered.stack([slice_case(7), slice_case(8), slice_case(20)], [7, 8, 20], "P")
    assert (case.kind, case.numbers, case.voxels[:, 0, 0].tolist()) == ("slices", (7, 8, 20), [7, 8, 20])
    assert case.remarks[0] == "odd" and "1 of 3 slices have no neighbours (20)" in case.remarks[1]


@pytest.mark.parametrize("number", [0, 3])
def test_two_slices_of_one_number_are_refused(number):
    with pytest.raises(DataError, match=f"several are number {number}") as caught:
        numbered.stack([slice_case(1), slice_case(2)], [number, number], "P", "do that")
    assert caught.value.problems[0].fix == "give each its own number, or do that"
