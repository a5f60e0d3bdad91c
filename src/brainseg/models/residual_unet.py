"""U-Net with residual blocks (Zhang, Liu, Wang, 2018, arXiv:1711.10684) and deep supervision (Lee et al., 2015)."""

import keras
from keras import layers

from brainseg.config import Network
from brainseg.models import blocks, unet

AUXILIARY_OUTPUTS = 2  # auxiliary outputs for deep supervision, from the levels below the last


def residual_unet(params: Network, size: int | None, channels: int) -> keras.Model:
    """A U-Net with residual blocks. Channel 0 is the output; channels 1 and 2 are auxiliary outputs for training."""
    return unet.assemble(params, size, channels, block=residual_block, early=AUXILIARY_OUTPUTS)


def residual_block(x, filters: int, params: Network, name: str):
    """Two 3x3 convolutions, added to the block's input, then ReLU (He et al., 2016, arXiv:1512.03385)."""
    if x.shape[-1] != filters:
        shortcut = blocks.convolution(x, filters, params, f"{name}_shortcut", kernel=1, active=False)
    else:
        shortcut = x
    x = blocks.convolution(x, filters, params, f"{name}_conv1")
    x = blocks.convolution(x, filters, params, f"{name}_conv2", active=False)
    return layers.Activation("relu", name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, shortcut]))
