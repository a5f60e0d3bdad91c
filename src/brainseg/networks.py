"""Networks as Keras functional models. Input: (B, H, W, C) intensities 0..255; output: (B, H, W, 1) float32 logits."""

from pathlib import Path

import keras
from keras import layers, ops

from brainseg import engine, manifest
from brainseg.config import Network


class BatchNormalization(layers.BatchNormalization):
    """Keras' layer with the engine's fused kernel where there is one; the same weights and meaning."""

    def call(self, inputs, training=None, mask=None):
        fused = engine.batch_normalisation(
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
    """Each channel of each slice divided by the mean of its brighter pixels: scanners differ in gain, air stays 0.

    Brighter: above the mean of all, which leaves out the air around the head.
    """

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        bright = ops.cast(x > ops.mean(x, (1, 2), keepdims=True), "float32")
        level = ops.sum(x * bright, (1, 2), keepdims=True) / ops.maximum(ops.sum(bright, (1, 2), keepdims=True), 1)
        return ops.cast(x / ops.maximum(level, 1), self.compute_dtype)


class Blocks(layers.Layer):
    """(B, H, W, side**2) → (B, side H, side W, 1): each pixel's channels laid out as a block of pixels.

    Sub-pixel convolution (Shi et al., 2016, arXiv:1609.05158).
    """

    def __init__(self, side: int, **kwargs):
        super().__init__(**kwargs)
        self.side = side

    def call(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        x = ops.reshape(inputs, (-1, height, width, self.side, self.side))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        return ops.reshape(x, (-1, height * self.side, width * self.side, 1))


def build(params: Network, size: int | None, channels: int) -> keras.Model:
    """The network that ``params`` name for a square grid of ``size`` pixels.

    Raises:
        KeyError: no such network (params.yaml's check comes first).
    """
    network = {"unet": unet}[params.name](params, size, channels)
    network.compile(jit_compile=engine.jit_compile())  # predict() would compile with XLA on its own account
    return network


def restore(model: dict, weights: Path, size: tuple[int, int] | None = None) -> keras.Model:
    """Build the network of a manifest from code and load its weights, after checking digest and grid.

    Raises:
        IntegrityError: see manifest.check.
    """
    manifest.check(model, weights, size)
    contract = model["contract"]
    network = build(manifest.network_params(model), contract["size"][0], len(contract["channels"]))
    network.load_weights(weights)
    return network


def unet(params: Network, size: int | None, channels: int) -> keras.Model:
    """U-Net (Ronneberger, Fischer, Brox, 2015, arXiv:1505.04597) with normalisation and dropout.

    Each level is two 3x3 convolutions, normalised and rectified; the skip is taken behind the second.
    With ``stem`` a strided convolution halves the resolution first and a learned upsampling answers at
    the full one, a quarter of the work.
    """
    inputs = keras.Input((size, size, channels), name="image")
    x = Gain(name="gain")(inputs) if params.scaling == "slice" else layers.Rescaling(1 / 255, name="scale")(inputs)
    if params.stem:
        x = _convolution(x, params.filters, params, "stem", kernel=4, strides=params.stem)
    skips = []
    for level in range(params.depth):
        x = _block(x, params.filters * 2**level, params, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"down{level}_pool")(x)
    x = _block(x, params.filters * 2**params.depth, params, "bottom")
    x = layers.Dropout(params.dropout, name="bottom_dropout")(x)
    for level in reversed(range(params.depth)):
        filters = params.filters * 2**level
        x = _upsample(x, filters, params, f"up{level}")
        x = layers.Concatenate(name=f"up{level}_skip")([x, skips[level]])
        x = _block(x, filters, params, f"up{level}")
    return keras.Model(inputs, _head(x, params), name="unet")


def _block(x, filters: int, params: Network, name: str):
    x = _convolution(x, filters, params, f"{name}_conv1")
    return _convolution(x, filters, params, f"{name}_conv2")


def _convolution(x, filters: int, params: Network, name: str, kernel: int = 3, strides: int = 1):
    x = layers.Conv2D(
        filters, kernel, strides, padding="same", use_bias=params.norm == "none",
        kernel_initializer="he_normal", name=name,
    )(x)  # fmt: skip
    if params.norm == "batch":
        x = BatchNormalization(name=f"{name}_norm")(x)
    elif params.norm == "group":
        x = layers.GroupNormalization(min(8, filters), name=f"{name}_norm")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _upsample(x, filters: int, params: Network, name: str):
    """Twice the resolution. ``resize``: 1x1 convolution, then bilinear (convolving the small side is cheaper)."""
    if params.upsampling == "transpose":
        return layers.Conv2DTranspose(filters, 2, strides=2, name=f"{name}_transpose")(x)
    x = layers.Conv2D(filters, 1, name=f"{name}_reduce")(x)
    return layers.UpSampling2D(interpolation="bilinear", name=f"{name}_resize")(x)


def _head(x, params: Network):
    """One logit a pixel in float32, started at the rarity of tumour (1 % of the pixels)."""
    bias = keras.initializers.Constant(-4.6)
    if not params.stem:
        return layers.Conv2D(1, 1, bias_initializer=bias, dtype="float32", name="logits")(x)
    x = layers.Conv2D(params.stem**2, 1, bias_initializer=bias, dtype="float32", name="logits_blocks")(x)
    return Blocks(params.stem, dtype="float32", name="logits")(x)
