"""Several networks as one ONNX file that answers the mean of their probabilities."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import compose, helper

from brainseg.config import reason
from brainseg.errors import DataError, IntegrityError, Problem, raise_all
from brainseg.inference import onnx_session, sealed
from brainseg.models.manifest import ExportedManifest, Part

COMPUTES = {"float32": "float32", "int8": "8-bit integers"}
SAME = ("contract", "preprocess", "data")  # what parts must share: input, output, and who was trained on


def merge(paths: Sequence[Path]) -> onnx.ModelProto:
    """One graph: the parts, side by side on one input, and the mean of what they answer. It has no metadata.

    Args:
        paths: at least two files of ``onnx_files``.
    """
    parts = [onnx.load(path) for path in paths]
    versions = [[(each.domain, each.version) for each in part.opset_import] for part in parts]
    if any(each != versions[0] for each in versions):
        what = "the parts are of different versions of ONNX's operations"
        raise DataError(paths[0], what, "export them with one version of this program: dvc repro export")
    graphs = [
        compose.add_prefix_graph(part.graph, f"part{number}_", rename_inputs=False) for number, part in enumerate(parts)
    ]
    answers = [graph.output[0].name for graph in graphs]
    mean = helper.make_node("Mean", answers, [onnx_session.OUTPUT], name="mean")
    whole = helper.make_graph(
        [node for graph in graphs for node in graph.node] + [mean], "ensemble", list(parts[0].graph.input),
        list(parts[0].graph.output), [values for graph in graphs for values in graph.initializer],
    )  # fmt: skip
    merged = helper.make_model(whole, opset_imports=list(parts[0].opset_import), ir_version=parts[0].ir_version)
    onnx.checker.check_model(merged)
    return merged


def read_facts(name: str, path: Path, variant: str = "float32") -> tuple[ExportedManifest, list[str]]:
    """The manifest and the marks of a part.

    Args:
        name: what errors call it.
        variant: ``float32`` or ``int8``.

    Raises:
        DataError: it is of another variant, or an ensemble itself. IntegrityError: it is damaged or of another version.
    """
    facts = onnx_session.Session(path).facts
    try:
        model = ExportedManifest.model_validate(facts["model"])
    except ValueError as error:
        what = f"its metadata are of another version: {reason(error)}"
        raise IntegrityError(name, what, sealed.REMEDY) from None
    if model.parts or facts["variant"] != variant:
        what = "is an ensemble" if model.parts else f"computes in {COMPUTES[facts['variant']]}"
        raise DataError(name, f"{what}, so it cannot be a part", "name the runs, or their models/unet.onnx")
    return model, facts["marks"]


def join(
    names: Sequence[str], paths: Sequence[Path], models: Sequence[ExportedManifest]
) -> tuple[onnx.ModelProto, ExportedManifest]:
    """The graph and the manifest of several networks, or of one, which stays as it is."""
    if len(paths) == 1:
        return onnx.load(paths[0]), models[0]
    return merge(paths), describe(names, models, [model.protocol.marks for model in models])


def describe(
    names: Sequence[str], models: Sequence[ExportedManifest], marks: Sequence[Sequence[str]] = ()
) -> ExportedManifest:
    """The manifest of an ensemble of ``models``.

    Args:
        names: what errors call them. marks: of each.

    Raises:
        DataError: one differs from the first in what they must share, or is there twice.
    """
    first, digests = models[0], [model.weights_sha256 for model in models]
    problems = [
        Problem(name, f"has another {key} than {names[0]}", "name runs of one data set, split and preparation")
        for name, model in zip(names[1:], models[1:], strict=True)
        for key in SAME
        if getattr(model, key) != getattr(first, key)
    ]
    problems += [
        Problem(name, "has the weights of another one, so it would count twice", "name each run once")
        for place, name in enumerate(names)
        if digests[place] in digests[:place]
    ]
    raise_all(problems, DataError)
    parts = [
        Part(weights_sha256=model.weights_sha256, network=model.network, training=model.training) for model in models
    ]
    all_marks = list(dict.fromkeys(mark for each in marks for mark in each))
    return first.model_copy(
        update={
            "weights_sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
            "parameters": sum(model.parameters for model in models),
            "protocol": first.protocol.model_copy(update={"marks": all_marks}),
            "parts": parts,
        }
    )
