"""Attention U-Net (Oktay et al., 2018, arXiv:1804.03999): the coarser level weighs the pixels of a skip connection."""

import keras
from keras import layers

from brainseg.config import Network
from brainseg.models import unet


def attention_unet(params: Network, size: int | None, channels: int) -> keras.Model:
    """A U-Net with an attention gate in each skip connection."""
    return unet.assemble(params, size, channels, gate=gate_skip)


def gate_skip(skip, coarse, filters: int, params: Network, name: str):
    """Multiply ``skip`` (H, W) by an attention in 0..1 that is computed from ``skip`` and ``coarse`` (H/2, W/2).

    Additive attention at the coarser resolution, one value for each pixel, resized to the resolution of ``skip``.
    """
    inner = max(1, filters // 2)
    fine = layers.Conv2D(inner, 2, strides=2, use_bias=False, name=f"{name}_gate_skip")(skip)
    context = layers.Conv2D(inner, 1, name=f"{name}_gate_coarse")(coarse)
    both = layers.Activation("relu", name=f"{name}_gate_relu")(layers.Add(name=f"{name}_gate_add")([fine, context]))
    attention = layers.Conv2D(1, 1, activation="sigmoid", name=f"{name}_gate_attention")(both)
    attention = layers.UpSampling2D(interpolation="bilinear", name=f"{name}_gate_resize")(attention)
    return layers.Multiply(name=f"{name}_gate")([skip, attention])
