"""A model file small enough to know on paper: the probability is FLAIR's intensity, divided by 255."""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from brainseg.inference import onnx_session, sealed
from brainseg.io.sequences import CHANNELS, FLAIR

SIDE = 32


def facts(source: str = "kaggle", **changes) -> dict:
    """What such a file says of itself."""
    model = {
        "weights_sha256": "c" * 64, "parameters": 0,
        "contract": {"size": [SIDE, SIDE], "slices": 1, "channels": CHANNELS},
        "preprocess": {"size": SIDE, "channels": "all", "foreground": None, "window": [0.5, 99.5]},
        "protocol": {"source": source, "unit": "patient", "grid": SIDE, "marks": []},
    }  # fmt: skip
    rule = {"threshold": 0.5, "min_component": 0, "mirror": False}
    return {"format": 1, "variant": "float32", "marks": [], "model": model, "rule": rule, "evaluation": {}} | changes


def write(path: Path, told: dict | None = None, side: int = SIDE, channel: int = FLAIR) -> Path:
    """Write the file; ``told``: its metadata, None for ``facts()``; ``channel``: of another sequence than FLAIR."""
    picked = [numpy_helper.from_array(np.array([channel], np.int64), "flair")]
    picked.append(numpy_helper.from_array(np.array(255, np.float32), "full"))
    nodes = [
        helper.make_node("Gather", [onnx_session.INPUT, "flair"], ["one"], axis=3),
        helper.make_node("Div", ["one", "full"], [onnx_session.OUTPUT]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", side, side, channels])
        for name, channels in ((onnx_session.INPUT, 3), (onnx_session.OUTPUT, 1))
    ]
    graph = helper.make_graph(nodes, "toy", ends[:1], ends[1:], picked)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    helper.set_model_props(model, {onnx_session.KEY: json.dumps(facts() if told is None else told)})
    path.write_bytes(sealed.seal(model.SerializeToString()))
    return path
