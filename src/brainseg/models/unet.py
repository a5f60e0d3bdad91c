"""U-Net (Ronneberger, Fischer, Brox, 2015, arXiv:1505.04597), and the plan that its relatives fill in."""

from collections.abc import Callable

import keras
from keras import layers

from brainseg.config import Network
from brainseg.models import blocks

Block = Callable  # (x, filters, params, name) -> x at the same resolution
Gate = Callable  # (skip, coarse, filters, params, name) -> skip


def unet(params: Network, size: int | None, channels: int) -> keras.Model:
    """Each level two 3x3 convolutions, normalised and rectified; the skip is taken behind the second."""
    return assemble(params, size, channels)


def assemble(
    params: Network, size: int | None, channels: int, block: Block = blocks.plain, gate: Gate | None = None,
    early: int = 0,
) -> keras.Model:  # fmt: skip
    """Down by ``params.depth`` halvings, up again with a skip at each level.

    With ``stem`` a strided convolution takes 2x2 or 4x4 pixels together first and the answer is laid
    out again at the full resolution: a quarter, or a sixteenth, of the work.

    Args:
        size: side of the grid; None: any.
        block: the convolutions of a level.
        gate: what a skip passes through.
        early: further answers, from the levels below the last, one output channel each.
    """
    inputs = keras.Input((size, size, channels), name="image")
    x = blocks.scaled(inputs, params)
    if params.stem:
        x = blocks.convolution(x, params.filters, params, "stem", kernel=4, strides=params.stem)
    skips = []
    for level in range(params.depth):
        x = block(x, params.filters * 2**level, params, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"down{level}_pool")(x)
    x = block(x, params.filters * 2**params.depth, params, "bottom")
    x = layers.Dropout(params.dropout, name="bottom_dropout")(x)
    answers = []
    for level in reversed(range(params.depth)):
        filters, name = params.filters * 2**level, f"up{level}"
        skip = skips[level] if gate is None else gate(skips[level], x, filters, params, name)
        x = blocks.upsampled(x, filters, params, name)
        x = layers.Concatenate(name=f"{name}_skip")([x, skip])
        x = block(x, filters, params, name)
        if 0 < level <= early:
            answers.append(blocks.early_answer(x, max(1, params.stem) * 2**level, name))
    logits = blocks.answer(x, params)
    if answers:
        logits = layers.Concatenate(dtype="float32", name="answers")([logits, *reversed(answers)])
    return keras.Model(inputs, logits, name=params.name)
