"""Losses: values on paper, gradients where they are needed."""

import keras
import numpy as np
import pytest
from keras import ops

from brainseg import config
from brainseg.training import losses

PARAMS = config.load("train")
NAMES = ["bce", "dice", "jaccard", "bce_dice", "focal_tversky"]


def loss(name, reduction, smooth=1):
    changes = {"loss": name, "loss_reduction": reduction, "loss_smooth": smooth}
    return losses.build(PARAMS.train.model_copy(update=changes))


def masks(*rows):
    return np.array(rows, "float32").reshape(len(rows), 1, -1, 1)


SURE = 50.0  # a logit whose sigmoid is 1


def test_golden_values():
    """One image of four pixels, truth 1100, answer 1010: tp = fp = fn = 1, smooth 1."""
    y, logits = masks([1, 1, 0, 0]), (masks([1, 0, 1, 0]) - 0.5) * 2 * SURE
    assert float(loss("dice", "image")(y, logits)) == pytest.approx(1 - (2 + 1) / (4 + 1))
    assert float(loss("jaccard", "image")(y, logits)) == pytest.approx(1 - (1 + 1) / (3 + 1))
    assert float(loss("focal_tversky", "image")(y, logits)) == pytest.approx((1 - 2 / 3) ** 0.75)
    assert float(loss("bce", "image")(y, logits)) == pytest.approx(SURE / 2)
    assert float(loss("bce", "image")(y, logits * 0)) == pytest.approx(np.log(2))


def test_reduction_names_what_is_pooled():
    """Image 1: tp 2. Image 2: fn 2. Pooled: tp 2, fn 2."""
    y, logits = masks([1, 1], [1, 1]), (masks([1, 1], [0, 0]) - 0.5) * 2 * SURE
    assert float(loss("dice", "batch")(y, logits)) == pytest.approx(1 - (4 + 1) / (6 + 1))
    assert float(loss("dice", "image")(y, logits)) == pytest.approx((0 + 1 - 1 / 3) / 2)


def test_smoothing_is_above_and_below():
    """Truth 1100, answer 1010, 100 pixels more: what older projects call their Dice loss."""
    y, logits = masks([1, 1, 0, 0]), (masks([1, 0, 1, 0]) - 0.5) * 2 * SURE
    assert float(loss("dice", "batch", 100)(y, logits)) == pytest.approx(1 - (2 + 100) / (4 + 100))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["batch", "image"])
def test_a_perfect_answer_costs_nothing(name, reduction):
    y = masks([1, 0, 0, 1], [0, 0, 0, 0])
    assert float(loss(name, reduction)(y, (y - 0.5) * 2 * SURE)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_mask_has_a_gradient(name):
    gradient = gradient_of(loss(name, "image"), masks([0, 0, 0, 0]), np.zeros((1, 1, 4, 1), "float32"))
    assert np.isfinite(gradient).all()
    assert (gradient > 0).all()  # downwards is less tumour


@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_stay_finite(name):
    y = masks([1, 0])
    for logits in (masks([1e4, -1e4]), masks([-1e4, 1e4])):
        assert np.isfinite(float(loss(name, "batch")(y, logits)))
        assert np.isfinite(gradient_of(loss(name, "batch"), y, logits)).all()


def gradient_of(loss_of, y, logits):
    """Through a one-variable model, so that it is the engine's own gradient."""
    variable = keras.Variable(logits)
    optimizer = keras.optimizers.SGD(1.0)
    before = ops.convert_to_numpy(variable)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.v = variable

        def call(self, x):
            return self.v + 0 * ops.sum(x)

        def compute_loss(self, x=None, y_=None, y_pred=None, sample_weight=None, training=True, **_):
            return loss_of(y, y_pred)

    model = Model()
    model.compile(optimizer=optimizer, jit_compile=False, run_eagerly=True)
    model.train_on_batch(np.zeros((1, 1), "float32"))
    return before - ops.convert_to_numpy(variable)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["batch", "image"])
def test_the_best_answer_to_a_soft_mask_is_the_mask(name, reduction):
    """However each probability moves, the loss rises. A product of mask and probability would want 0 or 1."""
    changes = {"loss": name, "loss_reduction": reduction, "soft_masks": "x"}
    soft = losses.build(PARAMS.train.model_copy(update=changes))
    y = masks([0.0, 0.3, 0.5, 0.7, 1.0, 0.0], [0.9, 0.1, 0.0, 0.0, 0.2, 0.0])
    clipped = np.clip(y, 1e-6, 1 - 1e-6)
    best = np.log(clipped / (1 - clipped))
    least = float(soft(y, best))
    for place in zip(*np.nonzero((y > 0) & (y < 1)), strict=True):
        for step in (-0.5, 0.5):
            moved = best.copy()
            moved[place] += step
            assert float(soft(y, moved)) > least + 1e-5
    moved = np.sign(best) * SURE * (best != 0)
    assert float(soft(y, moved)) > least + 0.01


@pytest.mark.parametrize("name", NAMES)
def test_a_hard_mask_costs_the_same_as_a_soft_one(name):
    y, logits = masks([1, 0, 0, 1], [0, 0, 1, 0]), masks([1, -2, 0.5, 0], [0.1, 3, -1, 2])
    soft = losses.build(PARAMS.train.model_copy(update={"loss": name, "loss_reduction": "image", "soft_masks": "x"}))
    assert float(soft(y, logits)) == pytest.approx(float(loss(name, "image")(y, logits)), abs=1e-6)
