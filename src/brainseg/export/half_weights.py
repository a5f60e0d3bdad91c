"""Weights stored in 16 bits and computed with in 32: half the file.

ONNX Runtime widens them when it loads the file, so that a slice takes as long as before. A weight moves by at most
1/2048 of itself, or by 3e-8 where it is smaller than 6.1e-5 (IEEE 754, binary16).
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEWEST = 1024  # numbers of an array from which on 16 bits save more than the operation takes that widens them


def store(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large arrays of float32 are float16, each widened under its own name.

    An array with a number beyond the range of float16 stays as it is.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    widening = []
    for tensor in found.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < FEWEST or np.abs(array).max() > np.finfo(np.float16).max:
            continue
        name, stored = tensor.name, f"{tensor.name}_16"
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), stored))
        widening.append(helper.make_node("Cast", [stored], [name], name=f"{name}_widened", to=TensorProto.FLOAT))
    nodes = [*widening, *found.graph.node]
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    onnx.checker.check_model(found)
    return found
