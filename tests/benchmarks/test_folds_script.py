"""The scripts that run folds without DVC and that profile a training step."""

import pytest

from brainseg import config
from brainseg.models import networks
from tests.support.toy_pipeline import PROJECT


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    import folds
    import step_profile

    return folds, step_profile


def test_values_are_numbers_or_words(scripts):
    folds, _ = scripts
    found = folds.overrides(None, ["train.engine=jax", "train.epochs=60", "network.stem=2", "train.patience=null"])
    assert found == {"train": {"engine": "jax", "epochs": 60, "patience": None}, "network": {"stem": 2}}


def test_a_recipe_comes_first(scripts):
    folds, _ = scripts
    found = folds.overrides("best", ["train.epochs=3"])
    assert found["network"]["name"] == "residual_unet" and found["train"]["epochs"] == 3


def test_idle_is_what_no_kernel_covers(scripts):
    _, step_profile = scripts
    events = [(0, 300, "sm90_xmma_fprop"), (200, 400, "input_reduce_fusion"), (700, 900, "loop_add_fusion")]
    found = step_profile.by_kernel(events, 1000e-9)
    assert found["idle"] == pytest.approx(0.4)  # 400 and 200 of 1,000 nanoseconds are covered
    assert found["kinds"] == {"convolutions": 0.3, "reductions": 0.2, "elementwise": 0.2}


def test_operations_are_counted_by_kind_and_step(scripts):
    _, step_profile = scripts
    events = [(0, 2_000_000, "a/conv:Conv2D"), (0, 4_000_000, "b/conv:Conv2D"), (0, 9, "Session::Run(x)")]
    assert step_profile.by_operation(events, steps=2) == {"Conv2D": 3.0}


def test_operations_of_convolutions_as_by_hand(scripts):
    """A stem of 4 x 4 pixels, two blocks, a 1 x 1 and a transposed convolution, for windows of 32 x 32 pixels."""
    _, step_profile = scripts
    params = config.load()
    network = params.network.model_copy(update={"name": "unet", "filters": 4, "depth": 1, "stem": 4})
    params = params.model_copy(update={"network": network})
    built = networks.build(network, None, 3)
    stem, down, bottom = 64 * 16 * 3 * 4, 64 * 9 * (4 * 4 + 4 * 4), 16 * 9 * (4 * 8 + 8 * 8)
    up, answer = 16 * 8 * 4 + 64 * 9 * (8 * 4 + 4 * 4), 64 * 16 * 4
    side = round(32 / params.augmentation.window)
    assert step_profile.forward_flops(built, params, side) == 2 * (stem + down + bottom + up + answer)
