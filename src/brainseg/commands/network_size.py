"""The size of a network from its parameters alone, for `brainseg check`: Keras takes seconds to start.

It follows ``models``: the numbers in the layers' outputs and the weights are those of the Keras model.
"""

from typing import NamedTuple

from brainseg.config import Network, Params
from brainseg.io.sequences import CHANNELS

AUXILIARY = 2  # outputs of a residual_unet for deep supervision


class NetworkSize(NamedTuple):
    """For one slice: numbers in the outputs of all layers, multiplications of the convolutions; and the weights."""

    outputs: int
    products: int
    weights: int


class _Sum:
    """Adds layers up. A volumetric network computes each of ``slices`` with kernels of three slices."""

    def __init__(self, network: Network):
        self.network, self.outputs, self.products, self.weights = network, 0, 0, 0
        self.slices = 2 * network.context + 1 if network.name == "unet3d" else 1

    def add(self, pixels: int, channels: int) -> None:
        """A layer without weights."""
        self.outputs += pixels * channels * self.slices

    def convolve(self, pixels: int, source: int, channels: int, kernel: int, *, bias: bool = True) -> None:
        """A convolution from ``source`` to ``channels`` with ``kernel`` numbers for each pair of them."""
        self.add(pixels, channels)
        self.products += pixels * source * channels * kernel * self.slices
        self.weights += source * channels * kernel + channels * bias

    def normalise(self, pixels: int, channels: int) -> None:
        if (norm := self.network.norm) != "none":
            self.add(pixels, channels)
            self.weights += channels * (4 if norm == "batch" else 2)

    def unit(self, pixels: int, source: int, channels: int, kernel: int, *, active: bool = True) -> None:
        """Convolution, normalisation, ReLU."""
        self.convolve(pixels, source, channels, kernel, bias=self.network.norm == "none")
        self.normalise(pixels, channels)
        if active:
            self.add(pixels, channels)

    def block(self, pixels: int, source: int, channels: int) -> None:
        """Two convolutions, in a residual network with a shortcut."""
        kernel = 27 if self.network.name == "unet3d" else 9
        is_residual = self.network.name == "residual_unet"
        if is_residual and source != channels:
            self.unit(pixels, source, channels, 1, active=False)
        self.unit(pixels, source, channels, kernel)
        self.unit(pixels, channels, channels, kernel, active=not is_residual)
        if is_residual:
            self.add(pixels, 2 * channels)  # the sum and its ReLU

    def gate(self, pixels: int, channels: int) -> None:
        """The attention for a skip connection of ``channels``, computed at half of its resolution."""
        inner, coarse = max(1, channels // 2), pixels // 4
        self.convolve(coarse, channels, inner, 4, bias=False)
        self.convolve(coarse, 2 * channels, inner, 1)
        self.add(coarse, 2 * inner)  # the sum and its ReLU
        self.convolve(coarse, inner, 1, 1)
        self.add(pixels, 1 + channels)  # resized, multiplied

    def upsample(self, pixels: int, channels: int) -> None:
        """From twice the ``channels`` at half of the resolution."""
        if self.network.name == "unet3d" or self.network.upsampling == "transpose":
            self.convolve(pixels, 2 * channels, channels, 4)
            self.products -= pixels * 2 * channels * channels * 3 * self.slices  # each pixel has one of the four
        else:
            self.convolve(pixels // 4, 2 * channels, channels, 1)
            self.add(pixels, channels)

    def answer(self, whole: int, channels: int) -> None:
        """The logits at the full resolution, of ``whole`` pixels: blocks as large as the stem's."""
        block = max(1, self.network.stem) ** 2
        self.convolve(whole, channels, 1, block)
        self.products -= whole * channels * (block - 1) * self.slices  # each pixel has one of its block


def find_side(params: Params) -> int:
    """The side in pixels of what the network is trained on: windows of the slices, or whole ones."""
    return round(params.augmentation.window * params.preprocess.size) or params.preprocess.size


def measure(network: Network, side: int, channels: int = len(CHANNELS)) -> NetworkSize:
    """The size for square slices of ``side`` pixels, as the network is trained.

    Args:
        channels: of one slice; the input also has those of its neighbours.
    """
    total, whole, stem = _Sum(network), side * side, max(1, network.stem)
    inputs = channels * (2 * network.context + 1)
    total.outputs += 2 * whole * inputs  # and scaled
    pixels, source = whole // stem**2, inputs
    if network.name == "unet3d":
        source = channels
        total.add(whole, channels)  # its slices apart
    if network.stem:
        total.unit(pixels, source, network.filters, 16)
        source = network.filters
    for level in range(network.depth):
        filters = network.filters * 2**level
        total.block(pixels, source, filters)
        source, pixels = filters, pixels // 4
        total.add(pixels, filters)
    deepest = network.filters * 2**network.depth
    total.block(pixels, source, deepest)
    total.add(pixels, deepest)  # dropout
    early = 0
    for level in reversed(range(network.depth)):
        filters, pixels = network.filters * 2**level, pixels * 4
        if network.name == "attention_unet":
            total.gate(pixels, filters)
        total.upsample(pixels, filters)
        total.add(pixels, 2 * filters)
        total.block(pixels, 2 * filters, filters)
        if network.name == "residual_unet" and 0 < level <= AUXILIARY:
            total.convolve(pixels, filters, 1, 1)
            total.add(whole, 1)
            early += 1
    total.answer(whole, network.filters)
    if network.name == "unet3d":
        total.add(whole, 1)  # its slices as channels
    if early:
        total.add(whole, 1 + early)
    return NetworkSize(total.outputs, total.products, total.weights)
