"""The networks at tiny size: shapes, numbers of weights, save and load."""

import itertools

import keras
import numpy as np
import pytest

from brainseg.models import blocks, networks, unet3d
from tests.support.tiny_network import TINY


def tiny(**changes):
    return networks.build(TINY.model_copy(update=changes), 32, 3)


@pytest.mark.parametrize(
    ("norm", "upsampling", "stem"),
    list(itertools.product(["batch", "group", "none"], ["transpose", "resize"], [0, 2, 4])),
)
def test_every_variant_answers_one_float32_logit_a_pixel(norm, upsampling, stem):
    network = tiny(norm=norm, upsampling=upsampling, stem=stem)
    answer = np.asarray(network(np.zeros((2, 32, 32, 3), np.uint8)))
    assert answer.shape == (2, 32, 32, 1)
    assert answer.dtype == np.float32


@pytest.mark.parametrize("stem", [0, 2, 4])
@pytest.mark.parametrize(
    ("name", "answered"), [("unet", 1), ("attention_unet", 1), ("residual_unet", 1), ("unet3d", 5)]
)
def test_every_network_takes_neighbours(name, answered, stem):
    network = tiny(name=name, context=2, stem=stem)
    answer = np.asarray(network(np.zeros((2, 32, 32, 15), np.uint8)))
    assert answer.shape == (2, 32, 32, answered)
    assert answer.dtype == np.float32
    assert np.isfinite(answer).all()


@pytest.mark.parametrize("name", ["attention_unet", "residual_unet"])
def test_relatives_have_more_weights_than_the_unet(name):
    assert tiny(name=name).count_params() > tiny().count_params()


def test_attention_scales_the_skip():
    network = tiny(name="attention_unet")
    for level in range(TINY.depth):
        gate = network.get_layer(f"up{level}_gate")
        assert [tensor.shape[-1] for tensor in gate.input] == [TINY.filters * 2**level, 1]
        assert gate.output in network.get_layer(f"up{level}_skip").input
    maps = keras.Model(network.input, [network.get_layer(f"up{i}_gate_resize").output for i in range(TINY.depth)])
    for values in maps.predict_on_batch(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)):
        assert 0 < values.min() <= values.max() < 1


def test_a_residual_block_adds_what_went_in():
    """If the second normalisation gives zero, the block is the ReLU of its shortcut."""
    network = tiny(name="residual_unet")
    norm = network.get_layer("bottom_conv2_norm")
    norm.gamma.assign(np.zeros(norm.gamma.shape))
    norm.beta.assign(np.zeros(norm.beta.shape))
    seen = keras.Model(network.input, [network.get_layer(n).output for n in ("bottom_shortcut_norm", "bottom_relu")])
    shortcut, out = seen.predict_on_batch(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8))
    np.testing.assert_allclose(np.maximum(shortcut, 0), out, atol=1e-6)


def test_deep_supervision_answers_early_in_training_alone():
    trained = networks.build_supervised(TINY.model_copy(update={"name": "residual_unet", "depth": 3}), 32, 3)
    used = networks.remove_auxiliary_outputs(trained)
    assert trained.output_shape == (None, 32, 32, 3)
    assert used.output_shape == (None, 32, 32, 1)
    assert used.count_params() < trained.count_params()
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(trained(images)[..., :1], used(images), atol=1e-6)
    again = networks.fix_size(trained, TINY.model_copy(update={"name": "residual_unet", "depth": 3}), 32, 3)
    np.testing.assert_allclose(again(images), used(images), atol=1e-6)


def test_slices_of_a_volume_come_out_where_they_went_in():
    volume = np.asarray(unet3d.StackSlices(3)(np.arange(2 * 4 * 5 * 6, dtype="float32").reshape(2, 4, 5, 6)))
    assert volume.shape == (2, 3, 4, 5, 2)
    np.testing.assert_array_equal(volume[1, 2, :, :, 0], np.arange(240).reshape(2, 4, 5, 6)[1, :, :, 4])
    np.testing.assert_array_equal(
        np.asarray(unet3d.UnstackSlices()(volume[..., :1]))[0, :, :, 1], volume[0, 1, :, :, 0]
    )


def test_one_network_answers_every_size():
    """The same weights predict windows, as in training, and whole slices."""
    any_size, fixed = networks.build(TINY, None, 3), tiny()
    fixed.set_weights(any_size.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(any_size.predict_on_batch(images), fixed.predict_on_batch(images), atol=1e-5)
    assert any_size.predict_on_batch(images[:, :16, :24]).shape == (1, 16, 24, 1)


def test_gain_of_the_scanner_does_not_matter():
    images = np.random.default_rng(0).integers(1, 120, (2, 32, 32, 3)).astype("float32")
    images[:, :8] = 0  # air
    scaled = np.asarray(blocks.Gain()(images))
    np.testing.assert_allclose(np.asarray(blocks.Gain()(images * [0.5, 1.0, 2.0])), scaled, rtol=1e-5)
    assert (scaled[:, :8] == 0).all()
    flair = images[0, :, :, 1]
    np.testing.assert_allclose(scaled[0, :, :, 1], flair / ((flair**2).sum() / flair.sum()), rtol=1e-5)
    assert np.isfinite(np.asarray(blocks.Gain()(np.zeros((1, 32, 32, 3))))).all()


def test_a_slice_of_noise_stays_darker_than_a_head():
    head = np.random.default_rng(0).integers(1, 120, (1, 32, 32, 3)).astype("float32")
    scaled = [np.asarray(blocks.Gain()(images)).mean() for images in (head, 0.5 * head, 0.05 * head)]
    assert scaled[0] == pytest.approx(scaled[1], rel=1e-5)
    assert scaled[2] < 0.4 * scaled[0]


def test_air_around_the_head_has_no_say_in_the_gain():
    """A window has less air than the slice, but its pixels must get the same values."""
    head = np.random.default_rng(0).integers(1, 120, (1, 16, 16, 3)).astype("float32")
    with_air = np.pad(head, ((0, 0), (8, 8), (8, 8), (0, 0)))
    np.testing.assert_allclose(
        np.asarray(blocks.Gain()(with_air))[:, 8:-8, 8:-8], np.asarray(blocks.Gain()(head)), rtol=1e-5
    )


def test_weight_count_by_hand():
    """Filters 2, depth 1, no norm. Down: 3x3x3x2+2, 3x3x2x2+2. Bottom: 3x3x2x4+4, 3x3x4x4+4.

    Up: 2x2x4x2+2, then 3x3x4x2+2, 3x3x2x2+2. Head: 2+1.
    """
    network = networks.build(TINY.model_copy(update={"filters": 2, "depth": 1, "norm": "none"}), 32, 3)
    assert network.count_params() == 56 + 38 + 76 + 148 + 34 + 74 + 38 + 3


def test_the_skip_is_taken_after_norm_and_activation():
    network = tiny()
    for level in range(TINY.depth):
        sources = network.get_layer(f"up{level}_skip").input
        names = {tensor._keras_history.operation.name for tensor in sources}
        assert f"down{level}_conv2_relu" in names


def test_dropout_and_norm_are_there():
    kinds = [type(layer).__name__ for layer in tiny().layers]
    assert kinds.count("BatchNormalization") == 10
    assert kinds.count("Dropout") == 1


def test_save_load_same_answer(tmp_path):
    first, second = tiny(), tiny()
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    first.save_weights(tmp_path / "a.weights.h5")
    second.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(first.predict_on_batch(images), second.predict_on_batch(images))


def test_weights_have_the_same_bytes_each_time(tmp_path):
    network = tiny()
    for name in ("a", "b"):
        network.save_weights(tmp_path / f"{name}.weights.h5")
    assert (tmp_path / "a.weights.h5").read_bytes() == (tmp_path / "b.weights.h5").read_bytes()


def test_fused_normalisation_is_keras_own():
    """The engine's kernel gives the outputs and moving statistics of Keras' own layer, with and without training."""
    x = np.random.default_rng(1).normal(3, 2, (4, 32, 32, 5)).astype("float32")
    ours, theirs = blocks.BatchNormalization(), keras.layers.BatchNormalization()
    for training in (True, True, False):
        np.testing.assert_allclose(ours(x, training=training), theirs(x, training=training), atol=1e-3)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, atol=1e-5)
    # The fused kernel uses the unbiased variance (n / (n - 1)), as PyTorch does.
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-3)


def test_the_gain_is_taken_of_what_the_augmentation_gives():
    """Keras alone would first round the images to bfloat16: to whole numbers above 128."""
    images = np.full((1, 8, 8, 3), 200.5, "float32")
    images[:, ::2] = 20.25
    level = (images[0, :, :, 0] ** 2).sum() / images[0, :, :, 0].sum()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((8, 8, 3))
        scaled = keras.Model(inputs, blocks.Gain()(inputs))(images)
    finally:
        keras.config.set_dtype_policy(before)
    assert keras.backend.standardize_dtype(scaled.dtype) == "bfloat16"
    exact = keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.cast(images / level, "bfloat16"), "float32"))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras.ops.cast(scaled, "float32")), exact)
