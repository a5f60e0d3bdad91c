"""Attention U-Net (Oktay et al., 2018, arXiv:1804.03999): the coarser level says where a skip matters."""

import keras
from keras import layers

from brainseg.config import Network
from brainseg.models import unet


def attention_unet(params: Network, size: int | None, channels: int) -> keras.Model:
    """The U-Net with a gate in each skip."""
    return unet.assemble(params, size, channels, gate=gated)


def gated(skip, coarse, filters: int, params: Network, name: str):
    """``skip`` (H, W) times an attention in 0..1 from itself and from ``coarse`` (H/2, W/2).

    Additive attention at the coarser resolution, one number a pixel, resized.
    """
    inner = max(1, filters // 2)
    here = layers.Conv2D(inner, 2, strides=2, use_bias=False, name=f"{name}_gate_skip")(skip)
    there = layers.Conv2D(inner, 1, name=f"{name}_gate_coarse")(coarse)
    both = layers.Activation("relu", name=f"{name}_gate_relu")(layers.Add(name=f"{name}_gate_add")([here, there]))
    attention = layers.Conv2D(1, 1, activation="sigmoid", name=f"{name}_gate_attention")(both)
    attention = layers.UpSampling2D(interpolation="bilinear", name=f"{name}_gate_resize")(attention)
    return layers.Multiply(name=f"{name}_gate")([skip, attention])
