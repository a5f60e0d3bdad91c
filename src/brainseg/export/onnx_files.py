"""The trained network as ONNX files that need nothing else, and how near their answers are to the network's.

``models/unet.onnx`` computes in float32; ``models/unet.int8.onnx`` has its convolutions in 8-bit integers, calibrated
on training slices (Jacob et al., 2018, arXiv:1712.05877), and is faster on a processor. What else an answer needs
(preparation, rule, what the weights were trained on, their numbers) is in the files' metadata.
"""

import contextlib
import io
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from keras import ops
from onnx import helper
from onnxruntime import quantization

from brainseg import config, files
from brainseg.data.dataset import Dataset, stacked
from brainseg.errors import IntegrityError
from brainseg.evaluation import metrics
from brainseg.inference import onnx_session, postprocessing
from brainseg.inference.onnx_session import MAX_DICE_DIFFERENCE, MAX_DIFFERENCE
from brainseg.inference.outlining import Outliner
from brainseg.models import blocks, prediction

PRIVATE = ("layers", "seen")  # of the manifest: for drawing and training, not for answering
INTEGER = ("Conv", "Relu", "MaxPool", "Resize", "Concat")  # the kinds of operation that are quantised
PROBED = 32  # validation slices whose probabilities are compared; double precision is slow


class RowGain(blocks.Gain):
    """``blocks.Gain``, the level written out along a row before it divides, and in double precision where asked.

    ONNX Runtime divides by three numbers a pixel at a time, by a row of them with vector instructions: on two cores
    6 of 40 milliseconds for 16 slices in 8 bits, instead of 0.4.
    """

    def call(self, inputs):
        x = ops.cast(inputs, "float64" if self.compute_dtype == "float64" else "float32")
        squares, total = (ops.sum(ops.sum(each, 1, keepdims=True), 2, keepdims=True) for each in (ops.square(x), x))
        level = ops.maximum(squares / ops.maximum(total, 1), blocks.NOISE)
        return ops.cast(x / ops.tile(level, (1, 1, x.shape[2], 1)), self.compute_dtype)


def run(network: keras.Model, model: dict, report: dict, data: Dataset, params: config.Export, out: Path) -> dict:
    """Write both files into ``out`` and return what metrics/export.json says of them.

    Args:
        network: as evaluated. model: its manifest. report: its metrics/evaluation.json.
        data: training slices calibrate, validation slices measure; test slices are not looked at.

    Raises:
        IntegrityError: the report is of other weights, or the float32 file answers otherwise than the network.
    """
    if report["protocol"]["weights_sha256"] != model["weights_sha256"]:
        raise IntegrityError("metrics/evaluation.json", "has the numbers of another model", "run: dvc repro evaluate")
    context = prediction.context_of(network, data.images)
    every = np.linspace(0, len(data.rows("val")) - 1, PROBED).round().astype(int)
    probe = stacked(data.images, data.around(data.rows("val")[every], context)).astype(np.float32)
    exact = _probabilities(rebuilt(network, "float64"), probe)
    found: dict[str, Any] = {
        "weights_sha256": model["weights_sha256"],
        "probed_slices": len(probe),
        "keras": {"max_abs_difference": _largest(_probabilities(network, probe), exact)},
    }
    with files.replacing(out / "unet.onnx") as whole, files.replacing(out / "unet.int8.onnx") as small:
        convert(rebuilt(network, "float32"), whole)
        describe(whole, described(model, report, "float32"))
        found["float32"] = measured(whole, probe, exact, data, report)
        _check(found["float32"], whole.name)
        rows = np.linspace(0, len(data.rows("train")) - 1, params.calibration_slices).round().astype(int)
        windows = data.around(data.rows("train")[np.unique(rows)], context)
        quantise(whole, (stacked(data.images, part) for part in np.array_split(windows, -(-len(windows) // 8))), small)
        describe(small, described(model, report, "int8"))
        found["int8"] = measured(small, probe, exact, data, report)
        if abs(found["int8"]["dice_difference"]) > MAX_DICE_DIFFERENCE["int8"]:
            mark = f"8-bit integers change its validation Dice by {found['int8']['dice_difference']:+.4f}"
            describe(small, described(model, report, "int8", mark))
    return found


def write(found: dict, path: Path) -> str:
    """Write metrics/export.json; the closing line."""
    files.write_text(path, json.dumps(found, indent=2, allow_nan=False) + "\n")
    return "; ".join(
        f"{name}: {each['bytes'] / 1e6:.1f} MB, largest difference {each['max_abs_difference']:.1e}, "
        f"validation Dice {each['dice_difference']:+.4f}"
        for name, each in found.items()
        if name in MAX_DICE_DIFFERENCE
    )


def described(model: dict, report: dict, variant: str, *marks: str) -> dict:
    """What the metadata of a file says: see ``onnx_session``."""
    rule = postprocessing.read(report["protocol"])
    return {
        "format": onnx_session.FORMAT,
        "variant": variant,
        "marks": [*report["protocol"]["marks"], *marks],
        "model": {key: value for key, value in model.items() if key not in PRIVATE},
        "rule": {**rule._asdict(), "mirror": report["protocol"]["tta"] != "none"},
        "evaluation": report,
    }


def describe(path: Path, facts: dict) -> None:
    """Write ``facts`` into the metadata of an ONNX file, in place of what it said before."""
    graph = onnx.load(path)
    graph.producer_name, graph.producer_version = "brainseg", ""
    helper.set_model_props(graph, {onnx_session.KEY: json.dumps(facts, sort_keys=True, allow_nan=False)})
    onnx.save(graph, path)


def rebuilt(network: keras.Model, dtype: str) -> keras.Model:
    """The network with ``RowGain``, computing in ``float32`` or ``float64``, with the same weights."""

    def anew(layer):
        kind = RowGain if isinstance(layer, blocks.Gain) else type(layer)
        return kind.from_config(layer.get_config() | {"dtype": dtype})

    copy = keras.models.clone_model(network, clone_function=anew)
    copy.set_weights(network.get_weights())
    return copy


def convert(network: keras.Model, path: Path) -> None:
    """Keras' logits become probabilities, the file ONNX: ``image`` (N, H, W, C) to ``probability`` (N, H, W, M)."""
    answering = keras.Model(network.input, ops.sigmoid(network.output))
    answering.predict_on_batch(np.zeros((1, *network.input_shape[1:]), np.float32))  # export asks for a call
    with _silenced(), files.beside(path) as room:
        answering.export(room / "whole.onnx", format="onnx", verbose=False)
        graph = onnx.load(room / "whole.onnx")
    _name_anew(graph.graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def quantise(whole: Path, batches: Iterable[np.ndarray], path: Path) -> None:
    """The float32 file with ``INTEGER`` operations in 8 bits, weights channel by channel, ranges those of ``batches``.

    Scaling of the intensities and the last layer stay float32: the first sees numbers without bounds, the second is
    the answer itself.
    """
    nodes = [node.name for node in onnx.load(whole).graph.node if node.op_type in INTEGER]
    with _silenced():
        quantization.quantize_static(
            whole, path, _Reader(batches), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=nodes,
        )  # fmt: skip


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, batches: Iterable[np.ndarray]):
        self.batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict | None:
        batch = next(self.batches, None)
        return None if batch is None else {onnx_session.INPUT: batch.astype(np.float32)}


def measured(path: Path, probe: np.ndarray, exact: np.ndarray, data: Dataset, report: dict) -> dict:
    """Size, largest difference of a probability to ``exact``, mean volume Dice of validation and its difference."""
    outliner = Outliner(path)
    given = outliner.session.run(probe)
    scores = []
    for _, rows in data.slices[data.slices["subset"] == "val"].groupby("patient", sort=False):
        probability = outliner.on_grid(np.asarray(data.images[rows.index]))
        mask = postprocessing.binarise(probability, outliner.rule)
        scores.append(metrics.dice(metrics.counts(data.masks[rows.index] > 0, mask)))
    defined = np.array(scores, float)
    dice, before = float(np.nanmean(defined)), report["val"]["volume"]["dice"]["mean"]
    return {
        "bytes": path.stat().st_size,
        "max_abs_difference": _largest(given, exact),
        "val_volume_dice": round(dice, 6),
        "dice_difference": round(dice - before, 6),
    }


def _check(found: dict, name: str) -> None:
    limits = {"max_abs_difference": MAX_DIFFERENCE, "dice_difference": MAX_DICE_DIFFERENCE["float32"]}
    for key, limit in limits.items():
        if abs(found[key]) > limit:
            raise IntegrityError(name, f"{key} is {found[key]:.2e}, at most {limit:g}", "report it, with params.yaml")


def _probabilities(network: keras.Model, batch: np.ndarray) -> np.ndarray:
    parts = [network.predict_on_batch(part) for part in np.split(batch, range(8, len(batch), 8))]
    logits = np.concatenate([ops.convert_to_numpy(part) for part in parts]).astype(np.float64)
    return 0.5 * (1 + np.tanh(0.5 * logits))


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    """Three digits: what comes after them depends on the processor."""
    return float(f"{np.abs(a.astype(np.float64) - b).max():.2e}")


def _in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes, each behind those it needs, in the order in which the answer asks for them."""
    makers = {name: node for node in graph.node for name in node.output}
    ordered: dict[str, onnx.NodeProto] = {}
    waiting = [graph.output[0].name]
    while waiting:
        node = makers[waiting[-1]]
        missing = [name for name in node.input if name in makers and makers[name].output[0] not in ordered]
        if missing:
            waiting.append(missing[0])
        else:
            waiting.pop()
            ordered[node.output[0]] = node
    return list(ordered.values())


def _name_anew(graph: onnx.GraphProto) -> None:
    """Order nodes and constants by their place in the computation, and name them so.

    The converter's order, names and sharing of constants change from process to process.
    """
    names = {graph.input[0].name: onnx_session.INPUT, "": ""}
    values = {constant.name: constant for constant in graph.initializer}
    nodes, constants = [onnx.NodeProto.FromString(node.SerializeToString()) for node in _in_order(graph)], []
    for number, node in enumerate(nodes):
        node.name = f"{number:02d}_{node.op_type}"
        for place, name in enumerate(node.input):
            if name in values:
                constants.append(onnx.TensorProto.FromString(values[name].SerializeToString()))
                constants[-1].name = node.input[place] = f"{node.name}_in{place}"
            else:
                node.input[place] = names[name]
        for place, name in enumerate(node.output):
            is_answer = name == graph.output[0].name
            names[name] = node.output[place] = onnx_session.OUTPUT if is_answer else f"{node.name}_out{place}"
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    for each in (*graph.input, *graph.output):
        each.name = names[each.name]
        each.type.tensor_type.shape.dim[0].dim_param = "N"
    graph.name, graph.doc_string = "unet", ""


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """What converters print and log of their own progress."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
