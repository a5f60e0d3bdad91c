"""Parts that the networks share: scaling, normalised convolutions, upsampling, the answer in logits."""

import keras
from keras import layers, ops

from brainseg.config import Network
from brainseg.models import backend

NOISE = 0.05 * 255  # the level of a slice without a head; LGG's darkest slice with tumour has 15
RARITY = -4.6  # logit of 1 %, the share of tumour among all pixels: where a network starts


class BatchNormalization(layers.BatchNormalization):
    """Keras' layer with the engine's fused kernel where there is one; the same weights and meaning."""

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


class Gain(layers.Layer):
    """Each channel of each slice divided by its level: scanners differ in gain, air stays 0.

    The level is the mean of the intensities weighted by themselves (contraharmonic mean). Air weighs nothing in it,
    so that a window and the whole slice have nearly the same. It is at least ``NOISE``: a slice above the head, divided
    by its own level, would be as bright as a brain. Taken of float32 where the network computes in bfloat16 too: there
    intensities above 128 are whole numbers.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        squares, total = (_sum(values) for values in (ops.square(x), x))
        level = squares / ops.maximum(total, 1)
        return ops.cast(x / ops.maximum(level, NOISE), self.compute_dtype)


def _sum(x):
    """Over rows and columns, (B, 1, 1, C)."""
    return ops.sum(ops.sum(x, 1, keepdims=True), 2, keepdims=True)


def scaled(inputs, params: Network):
    """Intensities 0..255 to numbers around 1."""
    return Gain(name="gain")(inputs) if params.scaling == "gain" else layers.Rescaling(1 / 255, name="scale")(inputs)


def convolution(x, filters: int, params: Network, name: str, kernel: int = 3, strides: int = 1, active: bool = True):
    """Convolution, normalisation, and ReLU unless ``active`` is false."""
    x = layers.Conv2D(
        filters, kernel, strides, padding="same", use_bias=params.norm == "none",
        kernel_initializer="he_normal", name=name,
    )(x)  # fmt: skip
    if params.norm == "batch":
        x = BatchNormalization(name=f"{name}_norm")(x)
    elif params.norm == "group":
        x = layers.GroupNormalization(min(8, filters), name=f"{name}_norm")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x) if active else x


def plain(x, filters: int, params: Network, name: str):
    """Two 3x3 convolutions."""
    x = convolution(x, filters, params, f"{name}_conv1")
    return convolution(x, filters, params, f"{name}_conv2")


def upsampled(x, filters: int, params: Network, name: str):
    """Twice the resolution. ``resize``: 1x1 convolution, then bilinear (convolving the small side is cheaper)."""
    if params.upsampling == "transpose":
        return layers.Conv2DTranspose(filters, 2, strides=2, name=f"{name}_transpose")(x)
    x = layers.Conv2D(filters, 1, name=f"{name}_reduce")(x)
    return layers.UpSampling2D(interpolation="bilinear", name=f"{name}_resize")(x)


def answer(x, params: Network):
    """One float32 logit a pixel of the full grid.

    A stem of 4 is undone by a learned 4x4 block of logits (sub-pixel convolution, Shi et al., 2016,
    arXiv:1609.05158): a mask resized from a quarter of the resolution has lost its border.
    """
    last = {"bias_initializer": keras.initializers.Constant(RARITY), "dtype": "float32"}
    if not params.stem:
        return layers.Conv2D(1, 1, name="logits", **last)(x)
    if params.upsampling == "transpose" or params.stem == 4:
        return layers.Conv2DTranspose(1, params.stem, strides=params.stem, name="logits", **last)(x)
    x = layers.Conv2D(1, 1, name="logits_half", **last)(x)
    return layers.UpSampling2D(interpolation="bilinear", dtype="float32", name="logits")(x)


def early_answer(x, scale: int, name: str):
    """One float32 logit a pixel from a level at 1/``scale`` of the grid, for deep supervision."""
    bias = keras.initializers.Constant(RARITY)
    x = layers.Conv2D(1, 1, bias_initializer=bias, dtype="float32", name=f"{name}_logits_small")(x)
    return layers.UpSampling2D(scale, interpolation="bilinear", dtype="float32", name=f"{name}_logits")(x)
