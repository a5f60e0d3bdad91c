"""A mask that is drawn on: brush, eraser, filling, undo and redo, also of a moved threshold."""

import json
import subprocess

import numpy as np
import pytest

from tests.support import golden, shared
from tests.support.site import needs_libraries
from tools import build_page

pytestmark = needs_libraries
SHAPE = 3, 7, 8
RING = np.zeros(SHAPE, int)
RING[1, [1, 1, 1, 2, 2, 3, 3, 3], [2, 3, 4, 1, 5, 2, 3, 4]] = 1


@pytest.fixture(scope="module")
def told():
    """What ``web/tests/editing.ts`` says after each step."""
    program = shared.folder("golden-program", golden.build) / "editing.js"
    node = build_page.node_folder(golden.WEB) / "node"
    done = subprocess.run([node, program], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    for step in found.values():
        if isinstance(step, dict):
            step["mask"] = np.array(step["mask"]).reshape(SHAPE)
    return found


def test_a_stroke_is_discs_in_one_plane_and_one_step(told):
    expected = np.zeros(SHAPE, int)
    for column in (3, 4):
        expected[1, 3, column - 1 : column + 2] = 1
        expected[1, 2:5, column] = 1
    assert np.array_equal(told["stroke"]["mask"], expected)
    assert told["stroke"]["edited"] == expected.sum() and told["stroke"]["undo"] and not told["stroke"]["redo"]


def test_an_eraser_takes_away_and_steps_go_back_and_forth(told):
    erased = told["stroke"]["mask"].copy()
    erased[1, 3, 2:5] = erased[1, 2:5, 3] = 0
    assert np.array_equal(told["erased"]["mask"], erased)
    assert np.array_equal(told["back"]["mask"], told["stroke"]["mask"]) and told["back"]["redo"]
    assert np.array_equal(told["forth"]["mask"], erased) and told["forth"]["edited"] == erased.sum()
    assert told["begin"]["mask"].sum() == 0 and told["begin"]["edited"] == 0 and not told["begin"]["undo"]


def test_a_moved_threshold_is_one_step_and_no_edit(told):
    assert np.array_equal(told["ruled"]["mask"], RING) and told["ruled"]["edited"] == 0
    assert told["rule"] == "first"  # the one in between is no step
    assert told["unruled"]["mask"].sum() == 0 and told["unruled"]["edited"] == 0 and not told["unruled"]["undo"]
    assert told["again"] == "second" and np.array_equal(told["reruled"]["mask"], RING)


def test_only_a_closed_outline_is_filled(told):
    assert told["open"] is False and told["closed"] is True
    filled = RING.copy()
    filled[1, 2, 2:5] = 1
    assert np.array_equal(told["filled"]["mask"], filled) and told["filled"]["edited"] == 3


def test_a_brush_is_as_wide_in_every_plane_as_its_voxels_are(told):
    added = told["coronal"]["mask"] - RING
    expected = np.zeros(SHAPE, int)
    expected[1, 3, 1:6] = expected[[0, 2], 3, 3] = 1
    assert np.array_equal(added > 0, (expected > 0) & (RING == 0))
