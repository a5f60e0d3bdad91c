"""Networks as Keras functional models, by name.

Input: (B, H, W, K C) intensities 0..255, a slice in the middle of its K - 1 neighbours, behind one
another along the channels. Output: (B, H, W, M) float32 logits, of the slice (M = 1) or of all (M = K).
"""

from pathlib import Path

import keras

from brainseg.config import Network
from brainseg.models import backend, manifest
from brainseg.models.attention_unet import attention_unet
from brainseg.models.residual_unet import residual_unet
from brainseg.models.unet import unet
from brainseg.models.unet3d import unet3d

KNOWN = {"unet": unet, "attention_unet": attention_unet, "residual_unet": residual_unet, "unet3d": unet3d}


def build(params: Network, size: int | None, channels: int) -> keras.Model:
    """The network that ``params`` name, as it is used, for a square grid of ``size`` pixels (None: any).

    Args:
        channels: of one slice; the network takes those of its neighbours as well.

    Raises:
        KeyError: no such network (params.yaml's check comes first).
    """
    return without_early(supervised(params, size, channels))


def supervised(params: Network, size: int | None, channels: int) -> keras.Model:
    """The network as it is trained: with the further answers, behind the last, that deep supervision asks for."""
    return KNOWN[params.name](params, size, channels * (2 * params.context + 1))


def without_early(network: keras.Model) -> keras.Model:
    """The same layers, up to the last answer."""
    last = network.get_layer("logits").output
    network = network if network.output is last else keras.Model(network.input, last, name=network.name)
    network.compile(jit_compile=backend.jit_compile())  # predict() would compile with XLA on its own account
    return network


def fixed(trained: keras.Model, params: Network, size: int, channels: int) -> keras.Model:
    """The network for use on a grid of ``size`` pixels, with the weights of one that was trained."""
    network = build(params, size, channels)
    for layer in network.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    return network


def begin(trained: keras.Model, source: keras.Model) -> None:
    """Give the network that will be trained the weights of a model as it is used; further answers keep their own."""
    for layer in source.layers:
        trained.get_layer(layer.name).set_weights(layer.get_weights())


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
