"""The trained network as self-contained ONNX files, and how close their outputs are to those of the network.

``models/unet.onnx`` computes in float32. ``models/unet.int8.onnx`` has its convolutions in 8-bit integers, calibrated
on training slices (Jacob et al., 2018, arXiv:1712.05877), and is faster on a processor. The metadata of the files hold
what else a prediction needs: preprocessing, threshold and components, training data, evaluation.
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
from google.protobuf.message import DecodeError
from keras import ops
from onnxruntime import quantization

from brainseg import config, files
from brainseg.data.dataset import Dataset, stack_channels
from brainseg.errors import IntegrityError, RunError
from brainseg.evaluation import metrics
from brainseg.evaluation.results import Evaluation
from brainseg.export import metadata
from brainseg.inference import onnx_session, postprocessing, probabilities
from brainseg.inference.onnx_session import MAX_DICE_DIFFERENCE, MAX_DIFFERENCE
from brainseg.inference.outlining import Outliner
from brainseg.models import blocks, prediction
from brainseg.models.manifest import Manifest

QUANTISED = ("Conv", "Relu", "MaxPool", "Resize", "Concat")  # the operations that are quantised
RANGED = 8  # slices of a batch whose ranges are averaged; of more the ranges would be wider
PROBED = 32  # validation slices whose probabilities are compared; few, because double precision is slow


class RowGain(blocks.Gain):
    """``blocks.Gain`` that repeats the level along a row before the division, and can compute in double precision.

    ONNX Runtime divides by three values one pixel at a time, but uses vector instructions to divide by a whole row. For
    16 slices in 8 bits on two cores the row takes 0.4 milliseconds, the three values 6 of 40.
    """

    def call(self, inputs):
        x = ops.cast(inputs, "float64" if self.compute_dtype == "float64" else "float32")
        squares, total = (ops.sum(ops.sum(each, 1, keepdims=True), 2, keepdims=True) for each in (ops.square(x), x))
        level = ops.maximum(squares / ops.maximum(total, 1), blocks.LOWEST_LEVEL)
        return ops.cast(x / ops.tile(level, (1, 1, x.shape[2], 1)), self.compute_dtype)


def run(
    network: keras.Model, model: Manifest, report: Evaluation, data: Dataset, params: config.Export, out: Path
) -> dict:
    """Write both files into ``out`` and return the content of metrics/export.json.

    Args:
        network: as evaluated.
        model: its manifest.
        report: its metrics/evaluation.json.
        data: training slices for calibration, validation slices for the comparison; test slices are not used.

    Raises:
        IntegrityError: the report is of other weights, or the output of the float32 file differs from the network's.
    """
    if report.protocol.weights_sha256 != model.weights_sha256:
        raise IntegrityError("metrics/evaluation.json", "has the numbers of another model", "run: dvc repro evaluate")
    context = prediction.context_of(network, data.images)
    every = np.linspace(0, len(data.rows("val")) - 1, PROBED).round().astype(int)
    probe = stack_channels(data.images, data.windows_around(data.rows("val")[every], context)).astype(np.float32)
    exact = _predict(rebuild(network, "float64"), probe)
    found: dict[str, Any] = {
        "weights_sha256": model.weights_sha256,
        "probed_slices": len(probe),
        "keras": {"max_abs_difference": _largest_difference(_predict(network, probe), exact)},
    }
    with files.replacing(out / "unet.onnx") as whole, files.replacing(out / "unet.int8.onnx") as small:
        convert(rebuild(network, "float32"), whole)
        metadata.write_metadata(whole, metadata.build_metadata(model, report, "float32"))
        found["float32"] = measure(whole, probe, exact, data, report)
        _check(found["float32"], whole.name)
        rows = np.linspace(0, len(data.rows("train")) - 1, params.calibration_slices).round().astype(int)
        windows = data.windows_around(data.rows("train")[np.unique(rows)], context)
        quantise(
            whole,
            (stack_channels(data.images, part) for part in np.array_split(windows, -(-len(windows) // RANGED))),
            small,
        )
        metadata.write_metadata(small, metadata.build_metadata(model, report, "int8"))
        found["int8"] = measure(small, probe, exact, data, report)
        if abs(found["int8"]["dice_difference"]) > MAX_DICE_DIFFERENCE["int8"]:
            mark = f"8-bit integers change its validation Dice by {found['int8']['dice_difference']:+.4f}"
            metadata.write_metadata(small, metadata.build_metadata(model, report, "int8", mark))
    return found


def write(found: dict, path: Path) -> str:
    """Write metrics/export.json and return the summary line."""
    files.write_text(path, json.dumps(found, indent=2, allow_nan=False) + "\n")
    return "; ".join(
        f"{name}: {each['bytes'] / 1e6:.1f} MB, largest difference {each['max_abs_difference']:.1e}, "
        f"validation Dice {each['dice_difference']:+.4f}"
        for name, each in found.items()
        if name in MAX_DICE_DIFFERENCE
    )


def rebuild(network: keras.Model, dtype: str) -> keras.Model:
    """The network with the same weights and ``RowGain``, which computes in ``float32`` or ``float64``."""

    def copy_layer(layer):
        kind = RowGain if isinstance(layer, blocks.Gain) else type(layer)
        return kind.from_config(layer.get_config() | {"dtype": dtype})

    copy = keras.models.clone_model(network, clone_function=copy_layer)
    copy.set_weights(network.get_weights())
    return copy


def convert(network: keras.Model, path: Path) -> None:
    """Write a network as ONNX: ``image`` (N, H, W, C) to ``probability`` (N, H, W, M), the sigmoid of its logits."""
    model = keras.Model(network.input, ops.sigmoid(network.output))
    model.predict_on_batch(np.zeros((1, *network.input_shape[1:]), np.float32))  # Keras exports only called models
    with _silence(), files.temporary_beside(path) as folder:
        model.export(folder / "whole.onnx", format="onnx", verbose=False)
        graph = onnx.load(folder / "whole.onnx")
    _rename_nodes(graph.graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def quantise(whole: Path, batches: Iterable[np.ndarray], path: Path) -> None:
    """Write the float32 file ``whole`` with its ``QUANTISED`` operations in 8 bits to ``path``.

    Weights are scaled for each channel, activations by the least and the greatest value of a batch, each the mean
    over ``batches``; what lies outside is clipped. The extremes of a few slices would make the steps coarse for all
    others. The scaling of intensities stays float32, because its values are unbounded, and so does the last layer,
    because it is the output.
    """
    nodes = [node.name for node in onnx.load(whole).graph.node if node.op_type in QUANTISED]
    try:
        with _silence():
            quantization.quantize_static(
                whole, path, _Reader(batches), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
                nodes_to_quantize=nodes, extra_options={"CalibMovingAverage": True},
            )  # fmt: skip
    except DecodeError as error:  # it reads a file that ONNX wrote beside, which on a full disk says nothing
        raise RuntimeError(f"{whole.name}: what ONNX wrote of it cannot be read: {error}") from error


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, batches: Iterable[np.ndarray]):
        self.batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict | None:
        batch = next(self.batches, None)
        return None if batch is None else {onnx_session.INPUT: batch.astype(np.float32)}


def measure(path: Path, probe: np.ndarray, exact: np.ndarray, data: Dataset, report: Evaluation) -> dict:
    """Measure the file's size, its largest difference from ``exact``, and its mean validation Dice by volume.

    Args:
        probe: (n, H, W, C) float32 slices.
        exact: (n, H, W, M) their probabilities in double precision.
    """
    outliner = Outliner(path)
    given = outliner.session.run(probe)
    scores = []
    for patient, rows in data.slices[data.slices["subset"] == "val"].groupby("patient", sort=False, observed=True):
        probability = outliner.on_grid(np.asarray(data.images[rows.index]), name=f"patient {patient}")
        mask = postprocessing.binarise(probability, outliner.rule)
        scores.append(metrics.dice(metrics.counts(data.masks[rows.index] > 0, mask)))
    defined = np.array(scores, float)
    dice, before = float(np.nanmean(defined)), report.val.volume.dice.mean
    before = np.nan if before is None else before
    return {
        "bytes": path.stat().st_size,
        "max_abs_difference": _largest_difference(given, exact),
        "val_volume_dice": round(dice, 6),
        "dice_difference": round(dice - before, 6),
    }


def _check(found: dict, name: str) -> None:
    limits = {"max_abs_difference": MAX_DIFFERENCE, "dice_difference": MAX_DICE_DIFFERENCE["float32"]}
    for key, limit in limits.items():
        if abs(found[key]) > limit:
            raise IntegrityError(name, f"{key} is {found[key]:.2e}, at most {limit:g}", "report it, with params.yaml")


def _predict(network: keras.Model, batch: np.ndarray) -> np.ndarray:
    parts = [network.predict_on_batch(part) for part in np.split(batch, range(8, len(batch), 8))]
    logits = np.concatenate([ops.convert_to_numpy(part) for part in parts]).astype(np.float64)
    return 0.5 * (1 + np.tanh(0.5 * logits))


def _largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Rounded to three digits, because further digits depend on the processor. Raises RunError: one is not a number."""
    found = np.abs(a.astype(np.float64) - b).max()
    if not np.isfinite(found):
        raise RunError("models/unet.weights.h5", probabilities.BROKEN, "train again: dvc repro -f train")
    return float(f"{found:.2e}")


def _sort_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes in a fixed topological order: depth first from the output, so each comes after its inputs."""
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


def _rename_nodes(graph: onnx.GraphProto) -> None:
    """Order nodes and constants by their place in the computation, and name them by their number.

    Otherwise the bytes would change: the converter orders, names and shares constants differently in each process.
    """
    names = {graph.input[0].name: onnx_session.INPUT, "": ""}
    values = {constant.name: constant for constant in graph.initializer}
    nodes, constants = [onnx.NodeProto.FromString(node.SerializeToString()) for node in _sort_nodes(graph)], []
    for number, node in enumerate(nodes):
        node.name = f"{number:02d}_{node.op_type}"
        for place, name in enumerate(node.input):
            if name in values:
                constants.append(onnx.TensorProto.FromString(values[name].SerializeToString()))
                constants[-1].name = node.input[place] = f"{node.name}_in{place}"
            else:
                node.input[place] = names[name]
        for place, name in enumerate(node.output):
            is_output = name == graph.output[0].name
            names[name] = node.output[place] = onnx_session.OUTPUT if is_output else f"{node.name}_out{place}"
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    for each in (*graph.input, *graph.output):
        each.name = names[each.name]
        each.type.tensor_type.shape.dim[0].dim_param = "N"
    graph.name, graph.doc_string = "unet", ""


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide what the converters print and log within the block."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
