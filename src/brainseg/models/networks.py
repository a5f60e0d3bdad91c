"""Networks as Keras functional models, by name.

Input: (B, H, W, K C) intensities 0..255: a slice between its K - 1 neighbours, concatenated along the channels.
Output: (B, H, W, M) float32 logits, of the slice in the middle (M = 1) or of all slices (M = K).
"""

from pathlib import Path

import keras

from brainseg.config import Network
from brainseg.errors import IntegrityError
from brainseg.models import backend, manifest
from brainseg.models.attention_unet import attention_unet
from brainseg.models.manifest import Manifest
from brainseg.models.residual_unet import residual_unet
from brainseg.models.unet import unet
from brainseg.models.unet3d import unet3d

FORMER_OUTPUT = "logits_half"  # the layer of logits before they were resized
KNOWN = {"unet": unet, "attention_unet": attention_unet, "residual_unet": residual_unet, "unet3d": unet3d}


def build(params: Network, size: int | None, channels: int) -> keras.Model:
    """The network that ``params`` name, without auxiliary outputs, for a square grid of ``size`` pixels (None: any).

    Args:
        channels: of one slice; the input also has those of its neighbours.

    Raises:
        KeyError: no such network; the check of params.yaml finds that earlier.
    """
    return remove_auxiliary_outputs(build_supervised(params, size, channels))


def build_supervised(params: Network, size: int | None, channels: int) -> keras.Model:
    """The network as it is trained: with auxiliary outputs for deep supervision, in the channels after the output."""
    return KNOWN[params.name](params, size, channels * (2 * params.context + 1))


def remove_auxiliary_outputs(network: keras.Model) -> keras.Model:
    """The same layers without the auxiliary outputs."""
    last = network.get_layer("logits").output
    network = network if network.output is last else keras.Model(network.input, last, name=network.name)
    network.compile(jit_compile=backend.jit_compile())  # otherwise Keras may choose XLA for predict()
    return network


def fix_size(trained: keras.Model, params: Network, size: int, channels: int) -> keras.Model:
    """The network for prediction on a grid of ``size`` pixels, with the weights of a trained one."""
    network = build(params, size, channels)
    for layer in network.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    return network


def set_initial_weights(trained: keras.Model, source: keras.Model) -> None:
    """Copy the weights of ``source`` into the network that will be trained; auxiliary outputs keep their own."""
    for layer in source.layers:
        trained.get_layer(layer.name).set_weights(layer.get_weights())


def is_volumetric(params: Network) -> bool:
    """Whether the output has all slices of the input."""
    return params.name == "unet3d"


def restore(model: Manifest, weights: Path, size: tuple[int, int] | None = None) -> keras.Model:
    """Build the network of a manifest from code and load its weights, after checking digest and grid.

    Raises:
        IntegrityError: see manifest.check; or the weights are of a network that this version does not build.
    """
    manifest.check(model, weights, size)
    if any(layer.name == FORMER_OUTPUT for layer in model.layers):
        what = "is of an earlier version, whose network with a stem of 2 resized its answer"
        raise IntegrityError(weights, what, "use its exported .onnx file, or train it again")
    network = build(model.network, model.contract.size[0], len(model.contract.channels))
    network.load_weights(weights)
    manifest.check(model, weights)  # what was loaded is what was checked
    return network
