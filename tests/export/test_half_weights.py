"""Weights in 16 bits: half the file, the same answers but for the rounding of weights."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from brainseg.export import half_weights


def convolution(kernel):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8, 6, 6]) for name in ("x", "y")]
    weights = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.ones(8, np.float32), "bias")]
    node = helper.make_node("Conv", ["x", "kernel", "bias"], ["y"], pads=[2, 2, 2, 2])
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def answer(model, x):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


@pytest.fixture
def kernel():
    return np.random.default_rng(1).normal(0, 0.1, (8, 8, 5, 5)).astype(np.float32)  # 1,600 numbers


def test_half_the_file_and_nearly_the_same_answers(kernel):
    model = convolution(kernel)
    found = half_weights.store(model)
    assert [each.data_type for each in found.graph.initializer] == [TensorProto.FLOAT16, TensorProto.FLOAT]
    assert 0.5 < found.ByteSize() / model.ByteSize() < 0.6
    x = np.random.default_rng(2).uniform(0, 1, (2, 8, 6, 6)).astype(np.float32)
    rounded = kernel.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(answer(found, x), answer(convolution(rounded), x), rtol=0, atol=1e-5)
    assert 0 < np.abs(answer(found, x) - answer(model, x)).max() < np.abs(kernel).sum() / 2048
    assert numpy_helper.to_array(model.graph.initializer[0]).dtype == np.float32  # a copy


@pytest.mark.parametrize("kept", ["beyond the range", "few"])
def test_what_stays_as_it_is(kernel, kept):
    kernel = kernel[:1].repeat(8, 0)[:, :, :1, :1].copy() if kept == "few" else kernel
    if kept != "few":
        kernel[0, 0, 0, 0] = 70_000
    model = convolution(kernel)
    assert half_weights.store(model) == model


def test_a_whole_file_of_both_is_valid(kernel):
    onnx.checker.check_model(half_weights.store(convolution(kernel)), full_check=True)
