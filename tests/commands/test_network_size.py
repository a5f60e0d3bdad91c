"""The estimate of a network's size is that of the Keras model."""

import numpy as np
import pytest

from brainseg import config
from brainseg.commands import network_size
from brainseg.models import networks
from tests.support import toy_pipeline

DEFAULT = config.load("network", path=toy_pipeline.PROJECT / "params.yaml").network
CHANGES = [
    {},
    {"stem": 0, "upsampling": "transpose"},
    {"stem": 2, "norm": "group", "context": 1},
    {"norm": "none", "depth": 1},
    {"name": "attention_unet", "stem": 0},
    {"name": "attention_unet", "filters": 1, "upsampling": "transpose"},
    {"name": "residual_unet", "stem": 2, "depth": 4},
    {"name": "residual_unet", "depth": 1, "norm": "none"},
    {"name": "unet3d", "context": 1},
    {"name": "unet3d", "context": 2, "stem": 0, "norm": "group", "upsampling": "transpose"},
]


def count_products(layer) -> int:
    """The multiplications of a convolution: each number of its kernel once for each pixel, of the coarser side."""
    if "Conv" not in type(layer).__name__:
        return 0
    sides = layer.input if "Transpose" in type(layer).__name__ else layer.output
    return int(np.prod(layer.kernel.shape) * np.prod(sides.shape[1:-1]))


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_size_of_a_network_is_that_of_the_keras_model(changes):
    params = DEFAULT.model_copy(update={"filters": 8} | changes)
    model = networks.build_supervised(params, 64, 3)
    found = network_size.measure(params, 64)
    assert found.weights == model.count_params()
    assert found.outputs == sum(int(np.prod(layer.output.shape[1:])) for layer in model.layers)
    assert found.products == sum(count_products(layer) for layer in model.layers)
