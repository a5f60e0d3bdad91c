"""Networks as Keras functional models, by name.

Input: (B, H, W, K C) intensities 0..255, a slice in the middle of its K - 1 neighbours, behind one
another along the channels. Output: (B, H, W, M) float32 logits, of the slice (M = 1) or of all (M = K).
"""

from pathlib import Path

import keras

from brainseg import engine, manifest
from brainseg.attention_unet import attention_unet
from brainseg.config import Network
from brainseg.residual_unet import residual_unet
from brainseg.unet import unet
from brainseg.unet3d import unet3d

KNOWN = {"unet": unet, "attention_unet": attention_unet, "residual_unet": residual_unet, "unet3d": unet3d}


def build(params: Network, size: int | None, channels: int, supervised: bool = False) -> keras.Model:
    """The network that ``params`` name, for a square grid of ``size`` pixels (None: any).

    Args:
        channels: of one slice; the network takes those of its neighbours as well.
        supervised: with the further outputs that deep supervision trains.

    Raises:
        KeyError: no such network (params.yaml's check comes first).
    """
    network = KNOWN[params.name](params, size, channels * (2 * params.context + 1))
    if not supervised and network.output.name != (kept := network.get_layer("logits").output).name:
        network = keras.Model(network.input, kept, name=network.name)
    network.compile(jit_compile=engine.jit_compile())  # predict() would compile with XLA on its own account
    return network


def answering(trained: keras.Model, params: Network, size: int, channels: int) -> keras.Model:
    """The network for use on a grid of ``size`` pixels, with the weights of one that was trained."""
    network = build(params, size, channels)
    for layer in network.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    return network


def is_volumetric(params: Network) -> bool:
    """Whether the network answers all slices that it is given."""
    return params.name == "unet3d"


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
