"""What a prediction needs beside the graph of an ONNX file, written into the file itself; see ``onnx_session``."""

import json
from pathlib import Path

import onnx
from onnx import helper

from brainseg.evaluation import results
from brainseg.evaluation.results import Evaluation
from brainseg.inference import onnx_session, probabilities, sealed
from brainseg.models.manifest import ExportedManifest


def build_metadata(model: ExportedManifest, report: Evaluation, variant: str, *marks: str) -> dict:
    """The metadata of a file, see ``onnx_session``; ``marks`` are added to those of the report."""
    protocol = report.protocol
    rule = results.rule_of(protocol)._asdict() | results.calibration_of(protocol).describe()
    return {
        "format": onnx_session.format_of(rule),
        "variant": variant,
        "marks": [*protocol.marks, *marks],
        "model": model.exported(),
        "rule": rule | {"mirror": protocol.tta != "none"},
        "evaluation": report.model_dump(exclude_unset=True),
    }


def describe_unscored(model: ExportedManifest, *, mirror: bool) -> dict:
    """The metadata of a file that has not been evaluated yet: its probabilities are those of the network."""
    rule = {"threshold": 0.5, "min_component": 0, "mirror": mirror, **probabilities.Calibration().describe()}
    told = {"format": onnx_session.FORMAT, "variant": "float32", "marks": model.protocol.marks}
    return told | {"model": model.exported(), "rule": rule, "evaluation": {}}


def write_metadata(path: Path, facts: dict) -> None:
    """Replace the metadata of an ONNX file by ``facts``, and seal it."""
    write_model(path, onnx.load(path), facts)


def write_model(path: Path, graph: onnx.ModelProto, facts: dict) -> None:
    """Write a graph with ``facts`` as its metadata, sealed."""
    graph.producer_name, graph.producer_version = "brainseg", ""
    helper.set_model_props(graph, {onnx_session.KEY: json.dumps(facts, sort_keys=True, allow_nan=False)})
    path.write_bytes(sealed.seal(graph.SerializeToString()))
