"""Parts that the networks share: intensity scaling, normalised convolutions, upsampling, output logits."""

import keras
from keras import layers, ops

from brainseg.config import Network
from brainseg.models import backend, devices

# The lowest level that a slice is divided by; LGG's darkest slice with tumour has a level of 15.
LOWEST_LEVEL = 0.05 * 255
INITIAL_LOGIT = -4.6  # initial bias of the output: the logit of 1 %, the share of tumour among all pixels


class BatchNormalization(layers.BatchNormalization):
    """Keras' layer, computed by the engine's fused kernel where there is one. Weights and results are the same."""

    def call(self, inputs, training=None, mask=None):
        fused = backend.batch_normalisation(
            inputs, self.gamma, self.beta, self.moving_mean, self.moving_variance, self.epsilon, bool(training)
        )
        if fused is None:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = fused
        if training:
            self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1 - self.momentum))
            self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1 - self.momentum))
        return outputs


class Dropout(layers.Dropout):
    """Keras' layer. What it drops of a sample does not depend on the number of devices."""

    def call(self, inputs, training=False):
        if not training or not self.rate or devices.replicas() == 1:
            return super().call(inputs, training=training)
        count, *shape = ops.shape(inputs)

        def drop(count):
            return keras.random.dropout(ops.ones((count, *shape), inputs.dtype), self.rate, seed=self.seed_generator)

        return inputs * devices.draw(drop, count)


class Gain(layers.Layer):
    """Divides each channel of each slice by its level, because scanners differ in gain. Air stays 0.

    The level is the mean of the intensities weighted by themselves (contraharmonic mean). Air has no weight in it, so a
    window and the whole slice have nearly the same level. The level is at least ``LOWEST_LEVEL``: otherwise the noise
    of a slice above the head would become as bright as brain. It is always computed in float32, because bfloat16 rounds
    intensities above 128 to whole numbers.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        squares, total = (_sum(values) for values in (ops.square(x), x))
        level = squares / ops.maximum(total, 1)
        return ops.cast(x / ops.maximum(level, LOWEST_LEVEL), self.compute_dtype)


def _sum(x):
    """The sum over rows and columns, (B, 1, 1, C)."""
    return ops.sum(ops.sum(x, 1, keepdims=True), 2, keepdims=True)


def scale_intensities(inputs, params: Network):
    """Scale intensities from 0..255 to values around 1."""
    return Gain(name="gain")(inputs) if params.scaling == "gain" else layers.Rescaling(1 / 255, name="scale")(inputs)


def convolution(x, filters: int, params: Network, name: str, kernel: int = 3, strides: int = 1, active: bool = True):
    """Convolution, normalisation, and ReLU if ``active``."""
    x = layers.Conv2D(
        filters, kernel, strides, padding="same", use_bias=params.norm == "none",
        kernel_initializer="he_normal", name=name,
    )(x)  # fmt: skip
    if params.norm == "batch":
        x = BatchNormalization(name=f"{name}_norm")(x)
    elif params.norm == "group":
        x = layers.GroupNormalization(min(8, filters), name=f"{name}_norm")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x) if active else x


def plain_block(x, filters: int, params: Network, name: str):
    """Two 3x3 convolutions."""
    x = convolution(x, filters, params, f"{name}_conv1")
    return convolution(x, filters, params, f"{name}_conv2")


def upsample(x, filters: int, params: Network, name: str):
    """Double the resolution. ``resize``: a 1x1 convolution first, where it is cheaper, then bilinear interpolation."""
    if params.upsampling == "transpose":
        return layers.Conv2DTranspose(filters, 2, strides=2, name=f"{name}_transpose")(x)
    x = layers.Conv2D(filters, 1, name=f"{name}_reduce")(x)
    return layers.UpSampling2D(interpolation="bilinear", name=f"{name}_resize")(x)


def output_logits(x, params: Network):
    """One float32 logit for each pixel of the full grid.

    After a stem each position predicts a block of 2x2 or 4x4 logits (sub-pixel convolution, Shi et al., 2016,
    arXiv:1609.05158). Resizing from a part of the resolution would lose the border of the mask.
    """
    last = {"bias_initializer": keras.initializers.Constant(INITIAL_LOGIT), "dtype": "float32"}
    if not params.stem:
        return layers.Conv2D(1, 1, name="logits", **last)(x)
    return layers.Conv2DTranspose(1, params.stem, strides=params.stem, name="logits", **last)(x)


def auxiliary_logits(x, scale: int, name: str):
    """One float32 logit for each pixel, from a level at 1/``scale`` of the resolution, for deep supervision."""
    bias = keras.initializers.Constant(INITIAL_LOGIT)
    x = layers.Conv2D(1, 1, bias_initializer=bias, dtype="float32", name=f"{name}_logits_small")(x)
    return layers.UpSampling2D(scale, interpolation="bilinear", dtype="float32", name=f"{name}_logits")(x)
