"""3D U-Net (Çiçek et al., 2016, arXiv:1606.06650) for volumes whose slices are farther apart than their pixels."""

import keras
from keras import layers, ops

from brainseg.config import Network
from brainseg.models import blocks, devices

FLAT = (1, 2, 2)  # pooling within each slice only, because between slices the resolution is already low


class StackSlices(layers.Layer):
    """(B, H, W, K C) → (B, K, H, W, C): the slices of a window, from the channel axis to an axis of their own."""

    def __init__(self, slices: int, **kwargs):
        super().__init__(**kwargs)
        self.slices = slices

    def call(self, inputs):
        _, height, width, channels = ops.shape(inputs)
        x = ops.reshape(inputs, (-1, height, width, self.slices, channels // self.slices))
        return ops.transpose(x, (0, 3, 1, 2, 4))


class UnstackSlices(layers.Layer):
    """(B, K, H, W, 1) → (B, H, W, K): the logits of the slices, as channels."""

    def call(self, inputs):
        return ops.transpose(inputs[..., 0], (0, 2, 3, 1))


def unet3d(params: Network, size: int | None, channels: int) -> keras.Model:
    """A U-Net with 3x3x3 convolutions. It pools within the slices only, so any number of slices fits.

    The output has the logits of all slices of the window. Prediction slides the window along the patient. Upsampling is
    always a transposed convolution.
    """
    inputs = keras.Input((size, size, channels), name="image")
    x = StackSlices(2 * params.context + 1, name="volume")(blocks.scale_intensities(inputs, params))
    if params.stem:
        x = _convolution(x, params.filters, params, "stem", (1, 4, 4), (1, params.stem, params.stem))
    skips = []
    for level in range(params.depth):
        x = _block(x, params.filters * 2**level, params, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling3D(FLAT, name=f"down{level}_pool")(x)
    x = _block(x, params.filters * 2**params.depth, params, "bottom")
    x = blocks.Dropout(params.dropout, name="bottom_dropout")(x)
    for level in reversed(range(params.depth)):
        filters, name = params.filters * 2**level, f"up{level}"
        x = layers.Conv3DTranspose(filters, FLAT, strides=FLAT, name=f"{name}_transpose")(x)
        x = layers.Concatenate(name=f"{name}_skip")([x, skips[level]])
        x = _block(x, filters, params, name)
    side = max(1, params.stem)
    bias = keras.initializers.Constant(blocks.INITIAL_LOGIT)
    x = layers.Conv3DTranspose(
        1, (1, side, side), strides=(1, side, side), bias_initializer=bias, dtype="float32", name="logits_volume"
    )(x)
    return keras.Model(inputs, UnstackSlices(dtype="float32", name="logits")(x), name="unet3d")


def _block(x, filters: int, params: Network, name: str):
    x = _convolution(x, filters, params, f"{name}_conv1")
    return _convolution(x, filters, params, f"{name}_conv2")


def _convolution(x, filters: int, params: Network, name: str, kernel=(3, 3, 3), strides=(1, 1, 1)):
    x = layers.Conv3D(
        filters, kernel, strides, padding="same", use_bias=params.norm == "none",
        kernel_initializer="he_normal", name=name,
    )(x)  # fmt: skip
    if params.norm == "batch":
        x = layers.BatchNormalization(synchronized=devices.replicas() > 1, name=f"{name}_norm")(x)
    elif params.norm == "group":
        x = layers.GroupNormalization(min(8, filters), name=f"{name}_norm")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)
