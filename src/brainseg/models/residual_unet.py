"""U-Net with residual blocks (Zhang, Liu, Wang, 2018, arXiv:1711.10684) and deep supervision (Lee et al., 2015)."""

import keras
from keras import layers

from brainseg.config import Network
from brainseg.models import blocks, unet

EARLY = 2  # answers from the levels below the last


def residual_unet(params: Network, size: int | None, channels: int) -> keras.Model:
    """Channel 0 is the answer; in training the two levels below answer too, in channels 1 and 2."""
    return unet.assemble(params, size, channels, block=residual, early=EARLY)


def residual(x, filters: int, params: Network, name: str):
    """Two 3x3 convolutions added to what went in, rectified after the sum (He et al., 2016, arXiv:1512.03385)."""
    if x.shape[-1] != filters:
        kept = blocks.convolution(x, filters, params, f"{name}_shortcut", kernel=1, active=False)
    else:
        kept = x
    x = blocks.convolution(x, filters, params, f"{name}_conv1")
    x = blocks.convolution(x, filters, params, f"{name}_conv2", active=False)
    return layers.Activation("relu", name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, kept]))
