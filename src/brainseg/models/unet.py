"""U-Net (Ronneberger, Fischer, Brox, 2015, arXiv:1505.04597), and the structure that its variants share."""

from collections.abc import Callable

import keras
from keras import layers

from brainseg.config import Network
from brainseg.models import blocks

BlockBuilder = Callable  # (x, filters, params, name) -> x at the same resolution
GateBuilder = Callable  # (skip, coarse, filters, params, name) -> skip


def unet(params: Network, size: int | None, channels: int) -> keras.Model:
    """Two 3x3 convolutions at each level, each with normalisation and ReLU; the skip starts after the second."""
    return assemble(params, size, channels)


def assemble(
    params: Network, size: int | None, channels: int, block: BlockBuilder = blocks.plain_block,
    gate: GateBuilder | None = None, early: int = 0,
) -> keras.Model:  # fmt: skip
    """Halve the resolution ``params.depth`` times, then double it as often, with a skip connection at each level.

    With ``stem`` a strided convolution first combines 2x2 or 4x4 pixels, and the output is brought back to the full
    resolution: a quarter, or a sixteenth, of the work.

    Args:
        size: side of the grid in pixels; None: any size.
        channels: of the input.
        block: builds the convolutions of a level.
        gate: builds what a skip connection passes through.
        early: number of auxiliary outputs, from the levels below the last, one output channel each.
    """
    inputs = keras.Input((size, size, channels), name="image")
    x = blocks.scale_intensities(inputs, params)
    if params.stem:
        x = blocks.convolution(x, params.filters, params, "stem", kernel=4, strides=params.stem)
    skips = []
    for level in range(params.depth):
        x = block(x, params.filters * 2**level, params, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"down{level}_pool")(x)
    x = block(x, params.filters * 2**params.depth, params, "bottom")
    x = blocks.Dropout(params.dropout, name="bottom_dropout")(x)
    auxiliary = []
    for level in reversed(range(params.depth)):
        filters, name = params.filters * 2**level, f"up{level}"
        skip = skips[level] if gate is None else gate(skips[level], x, filters, params, name)
        x = blocks.upsample(x, filters, params, name)
        x = layers.Concatenate(name=f"{name}_skip")([x, skip])
        x = block(x, filters, params, name)
        if 0 < level <= early:
            auxiliary.append(blocks.auxiliary_logits(x, max(1, params.stem) * 2**level, name))
    logits = blocks.output_logits(x, params)
    if auxiliary:
        logits = layers.Concatenate(dtype="float32", name="answers")([logits, *reversed(auxiliary)])
    return keras.Model(inputs, logits, name=params.name)
