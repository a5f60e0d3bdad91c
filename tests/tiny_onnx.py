"""An ONNX file of ours whose network is one line: bright FLAIR is tumour."""

import copy
import json
from pathlib import Path

import pytest

from tests.server_fixture import FACTS

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

SIDE = 256


def write(path: Path, source: str = "kaggle", level: float = 130.0) -> Path:
    """``probability`` = sigmoid((FLAIR - level) / 8)."""
    facts = copy.deepcopy(FACTS)
    facts["model"] |= {
        "contract": {"size": SIDE, "slices": 1, "channels": ["pre-contrast", "FLAIR", "post-contrast"]},
        "preprocess": {"size": SIDE, "channels": "all", "foreground": None, "window": [1, 99.7]},
        "protocol": {"source": source, "marks": []},
    }
    nodes = [
        helper.make_node("Gather", ["image", "one"], ["flair"], axis=3),
        helper.make_node("Sub", ["flair", "level"], ["above"]),
        helper.make_node("Div", ["above", "width"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("level", TensorProto.FLOAT, [], [level]),
        helper.make_tensor("width", TensorProto.FLOAT, [], [8.0]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIDE, SIDE, channels])
            for name, channels in (("image", 3), ("probability", 1))]  # fmt: skip
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"brainseg": json.dumps(facts)})
    onnx.save(model, path)
    return path
