"""Several networks as one ONNX file that answers the mean of their probabilities.

With a network that outlines the brain they are asked twice, for the image and for the image without scalp.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from brainseg.config import reason
from brainseg.errors import DataError, IntegrityError, Problem, raise_all
from brainseg.inference import onnx_session, sealed
from brainseg.models.manifest import TRAINED_ON_ALL, ExportedManifest, Part

COMPUTES = {"float32": "float32", "int8": "8-bit integers"}
SAME = ("contract", "preprocess", "data")  # what parts must share: input, output, and who was trained on
STRIPPED = "stripped"  # the image without scalp


def merge(paths: Sequence[Path], brain: Path | None = None, *, whole: bool = True) -> onnx.ModelProto:
    """One graph: the parts, side by side on one input, and the mean of what they answer. It has no metadata.

    Args:
        paths: files of ``onnx_files``.
        brain: another one, which answers the probability of brain. With it each part answers twice, for the image and
            for the image where this is above a half, with the same weights.
        whole: False to leave out what they answer for the image as it is.
    """
    parts = [onnx.load(path) for path in (*paths, *([brain] if brain else []))]
    versions = [[(each.domain, each.version) for each in part.opset_import] for part in parts]
    if any(each != versions[0] for each in versions):
        what = "the parts are of different versions of ONNX's operations"
        raise DataError(paths[0], what, "export them with one version of this program: dvc repro export")
    graphs = [
        compose.add_prefix_graph(part.graph, f"part{number}_", rename_inputs=False) for number, part in enumerate(parts)
    ]
    nodes = [node for graph in (graphs if whole else graphs[-1:]) for node in graph.node]
    values = [each for graph in graphs for each in graph.initializer]
    answers = [graph.output[0].name for graph in graphs]
    if brain:
        outlined = answers.pop()
        values.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
        nodes += [
            helper.make_node("Greater", [outlined, "half"], ["is_brain"], name="is_brain"),
            helper.make_node("Cast", ["is_brain"], ["brain"], name="brain", to=TensorProto.FLOAT),
            helper.make_node("Mul", [onnx_session.INPUT, "brain"], [STRIPPED], name=STRIPPED),
            *(node for graph in graphs[:-1] for node in _repeat(graph, STRIPPED)),
        ]
        answers = [*(answers if whole else []), *(f"{STRIPPED}_{answer}" for answer in answers)]
    mean = helper.make_node("Mean", answers, [onnx_session.OUTPUT], name="mean")
    ends = list(parts[0].graph.input), list(parts[0].graph.output)
    joined = helper.make_graph([*nodes, mean], "ensemble", *ends, values)
    merged = helper.make_model(joined, opset_imports=list(parts[0].opset_import), ir_version=parts[0].ir_version)
    onnx.checker.check_model(merged)
    return merged


def _repeat(graph: onnx.GraphProto, image: str) -> list[onnx.NodeProto]:
    """The nodes of a graph for another input, with the same weights; ``image_`` begins the names of their values."""
    kept = {onnx_session.INPUT: image, "": ""} | {each.name: each.name for each in graph.initializer}
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    for node in nodes:
        node.name = node.name and f"{image}_{node.name}"
        for names in (node.input, node.output):
            names[:] = [kept.get(name, f"{image}_{name}") for name in names]
    return nodes


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


class Brain(NamedTuple):
    """The network that outlines the brain: what errors call it, its file, its manifest, its marks."""

    name: str
    path: Path
    model: ExportedManifest
    marks: Sequence[str] = ()


def join(
    names: Sequence[str], paths: Sequence[Path], models: Sequence[ExportedManifest], brain: Brain | None = None
) -> tuple[onnx.ModelProto, ExportedManifest]:
    """The graph and the manifest of several networks, or of one alone, which stays as it is."""
    if len(paths) == 1 and brain is None:
        return onnx.load(paths[0]), models[0]
    merged = merge(paths, brain.path if brain else None)
    return merged, describe(names, models, [model.protocol.marks for model in models], brain)


def describe(
    names: Sequence[str], models: Sequence[ExportedManifest], marks: Sequence[Sequence[str]] = (),
    brain: Brain | None = None,
) -> ExportedManifest:  # fmt: skip
    """The manifest of an ensemble of ``models``.

    Args:
        names: what errors call them. marks: of each.

    Raises:
        DataError: one differs from the first in what they must share, or is there twice; the network of the brain does
            not fit them.
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
    raise_all([*problems, *(_find_misfits(brain, names, models) if brain else [])], DataError)
    all_marks = dict.fromkeys(mark for each in marks for mark in each)
    if brain:
        all_marks |= dict.fromkeys(f"the network of the brain: {mark}" for mark in brain.marks if mark not in all_marks)
        digests = [*digests, f"brain {brain.model.weights_sha256}"]  # not as one more part
    parts = [
        Part(weights_sha256=model.weights_sha256, network=model.network, training=model.training) for model in models
    ]
    return first.model_copy(
        update={
            "weights_sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
            "parameters": sum(model.parameters for model in (*models, *([brain.model] if brain else []))),
            "protocol": first.protocol.model_copy(update={"marks": list(all_marks)}),
            "parts": parts,
            **({"brain": brain.model} if brain else {}),
        }
    )


def _find_misfits(brain: Brain, names: Sequence[str], models: Sequence[ExportedManifest]) -> list[Problem]:
    """Why a network cannot tell these what scalp is."""
    first, own = models[0], brain.model
    is_of_all = [TRAINED_ON_ALL in model.protocol.marks for model in (own, *models)]
    found = {
        f"has another input than {names[0]}": (
            (own.contract, own.preprocess) != (first.contract, first.preprocess),
            "train both with the same preprocess block, and with network.context: 0",
        ),
        "does not tell the brains of neighbouring slices": (
            first.contract.slices > 1,
            "name networks with network.context: 0",
        ),
        f"learned the masks of {names[0]}, so it outlines no brain": (
            own.data.get("masks_sha256") == first.data.get("masks_sha256"),
            "name one that was trained by recipes/brain.yaml",
        ),
        f"was trained on all patients, which {names[0]} was not: it knows the test patients": (
            is_of_all[0] and not all(is_of_all),
            "name one with train.subset: train, of the same fold",
        ),
    }
    return [Problem(brain.name, what, fix) for what, (applies, fix) in found.items() if applies]
