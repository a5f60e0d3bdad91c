"""Networks as ONNX files: each kind gives the outputs of Keras, bytes are reproducible, and faults are found."""

import errno
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from keras import ops

from brainseg import files
from brainseg.config import Export, Network
from brainseg.data import dataset
from brainseg.errors import IntegrityError, RunError
from brainseg.evaluation.results import Evaluation
from brainseg.export import metadata, onnx_files
from brainseg.inference import onnx_session
from brainseg.inference.outlining import Outliner
from brainseg.models import blocks, networks
from brainseg.models.manifest import Manifest
from tests.support import onnx_toy, run_files
from tests.support.cohort import write_cohort
from tests.support.tiny_network import TINY

CONVERT = onnx_files.convert
SIDE = 32
IMAGES = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.float32)


def built(**changes):
    """A network whose weights are unlike the initial ones."""
    keras.utils.set_random_seed(0)
    network = networks.build(Network(**{**TINY.model_dump(), **changes}), SIDE, 3)
    random = np.random.default_rng(2)
    network.set_weights([np.abs(w) + random.uniform(0.1, 0.4, w.shape).astype(w.dtype) if w.ndim == 1 else w
                         for w in network.get_weights()])  # fmt: skip
    return network


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A function that gives the file of ``built(**changes)``, converted once. Nobody may write into it."""
    folder, made = tmp_path_factory.mktemp("converted"), {}

    def file(**changes):
        key = repr(TINY.model_copy(update=changes))
        if key not in made:
            path = folder / f"{len(made)}.onnx"
            CONVERT(onnx_files.rebuild(built(**changes), "float32"), path)
            made[key] = path
        return made[key]

    return file


slow = pytest.mark.slow  # five seconds each; of a unet3d the fast tests of inference/outlining.py convert one


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling": "gain", "stem": 4},
        pytest.param({"scaling": "full", "stem": 2}, marks=slow),
        pytest.param({"stem": 0, "upsampling": "transpose"}, marks=slow),
        pytest.param({"norm": "group"}, marks=slow),
        pytest.param({"norm": "none"}, marks=slow),
        pytest.param({"name": "attention_unet"}, marks=slow),
        pytest.param({"name": "residual_unet"}, marks=slow),
        pytest.param({"context": 1}, marks=slow),
        pytest.param({"name": "unet3d", "context": 1, "upsampling": "transpose"}, marks=slow),
    ],
    ids=str,
)
def test_a_file_answers_as_its_network(tmp_path, converted, changes):
    network = built(**changes)
    path = shutil.copy(converted(**changes), tmp_path / "unet.onnx")
    metadata.write_metadata(path, onnx_toy.facts())
    given = np.concatenate([IMAGES] * (network.input_shape[-1] // 3), axis=-1)
    expected = ops.convert_to_numpy(ops.sigmoid(network.predict_on_batch(given)))
    found = onnx_session.Session(path, threads=2).run(given)
    assert found.shape == expected.shape and expected.std() > 1e-3
    assert np.abs(found - expected).max() <= 1e-5


def test_the_gain_of_a_file_is_the_gain():
    """Bright, dark enough for the floor, and black slices."""
    random = np.random.default_rng(0)
    slices = np.stack([random.integers(0, top, (256, 256, 3)) for top in (256, 9, 1)]).astype(np.float32)
    exact = slices.astype(np.float64)
    level = (exact**2).sum((1, 2), keepdims=True) / np.maximum(exact.sum((1, 2), keepdims=True), 1)
    exact = exact / np.maximum(level, blocks.LOWEST_LEVEL)
    assert level[1].max() < blocks.LOWEST_LEVEL < level[0].min()
    found = ops.convert_to_numpy(onnx_files.RowGain()(slices))
    assert np.abs(found - exact).max() < 2e-6
    assert np.abs(found - ops.convert_to_numpy(blocks.Gain()(slices))).max() < 2e-6
    double = ops.convert_to_numpy(onnx_files.RowGain(dtype="float64")(slices.astype(np.float64)))
    assert np.abs(double - exact).max() < 1e-12


def test_a_file_divides_by_rows(converted):
    """By three numbers a pixel ONNX Runtime takes 15 times as long."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(converted(scaling="gain"))).graph
    last = [node for node in graph.node if node.op_type == "Div"][-1]
    (divisor,) = (each for each in graph.value_info if each.name == last.input[1])
    assert [axis.dim_value for axis in divisor.type.tensor_type.shape.dim][1:] == [1, SIDE, 3]


@pytest.mark.slow
def test_the_same_network_gives_the_same_bytes(tmp_path, converted):
    shutil.copy(converted(), tmp_path / "a")
    CONVERT(onnx_files.rebuild(built(), "float32"), tmp_path / "b")
    for name in ("a", "b"):
        onnx_files.quantise(tmp_path / name, [IMAGES, IMAGES[:1]], tmp_path / f"{name}8")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a8").read_bytes() == (tmp_path / "b8").read_bytes()


def test_extremes_of_one_slice_do_not_make_8_bits_coarse_for_the_others(tmp_path, converted):
    """One batch of twenty has a bright pixel on dark ground, which becomes many times brighter than usual."""
    usual, spot = [IMAGES / 16 + 100] * 19, np.full_like(IMAGES, 10)
    spot[:, SIDE // 2, SIDE // 2] = 255
    whole, steps = Path(shutil.copy(converted(scaling="gain"), tmp_path / "whole")), []
    for name, batches in (("without", usual), ("with", [*usual, spot])):
        onnx_files.quantise(whole, batches, tmp_path / name)
        graph = onnx.load(tmp_path / name).graph
        values = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
        quantised = [node for node in graph.node if node.op_type == "QuantizeLinear"]
        steps.append({node.input[0]: values[node.input[1]] for node in quantised})
    assert len(steps[0]) > 9 and steps[0].keys() == steps[1].keys()
    # The pixel is about 15 times as bright as usual; of the mean of 20 batches that is 1.7 times, of the extremes 15.
    assert 1.2 < max(steps[1][name] / step for name, step in steps[0].items()) < 2


def test_a_full_disk_that_onnx_does_not_mention_is_named(tmp_path, converted, monkeypatch):
    def write_a_part(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:-999])

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes_path", write_a_part)
    monkeypatch.setattr(files, "free_bytes", lambda _: 0)
    shutil.copy(converted(), tmp_path / "whole.onnx")
    with pytest.raises(OSError) as error, files.replacing(tmp_path / "small.onnx") as small:
        onnx_files.quantise(tmp_path / "whole.onnx", [IMAGES], small)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / "small.onnx"))


def shuffled(graph, seed: int) -> None:
    """The same computation: nodes in another order that computes it, tensors under other names."""
    random = np.random.default_rng(seed)
    waiting, nodes = list(graph.node), []
    known = {graph.input[0].name, *(each.name for each in graph.initializer)}
    while waiting:
        ready = [node for node in waiting if all(name in known for name in node.input)]
        nodes.append(ready[random.integers(len(ready))])
        waiting.remove(nodes[-1])
        known |= set(nodes[-1].output)
    called = {name: f"x{random.integers(1 << 40)}" for name in sorted(known)}
    constants = [onnx.TensorProto.FromString(each.SerializeToString()) for each in graph.initializer]
    random.shuffle(constants)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    for node in nodes:
        node.input[:], node.output[:] = ([called[name] for name in each] for each in (node.input, node.output))
    for each in (*constants, *graph.input, *graph.output):
        each.name = called[each.name]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


@pytest.mark.parametrize(
    "name", ["unet", *(pytest.param(f"{kind}_unet", marks=slow) for kind in ("attention", "residual"))]
)
def test_neither_order_nor_names_of_the_converter_reach_the_file(converted, name):
    """They depend on Python's hashes, which differ in each process."""
    first = onnx.load(converted(name=name))
    for seed in range(3):
        other = onnx.load(converted(name=name))
        shuffled(other.graph, seed)
        assert other.SerializeToString() != first.SerializeToString()
        onnx_files._rename_nodes(other.graph)
        assert other.SerializeToString(deterministic=True) == first.SerializeToString(deterministic=True)


@pytest.fixture(scope="module")
def network():
    return built(scaling="gain")


@pytest.fixture
def cohort(tmp_path, network, converted, monkeypatch):
    """A network, its manifest, a report of its validation Dice, data, and a folder for the files.

    The network is not converted again, which takes most of the time; another one is refused.
    """
    file = converted(scaling="gain")

    def convert(given, path):
        for found, expected in zip(given.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)
        shutil.copy(file, path)

    monkeypatch.setattr(onnx_files, "convert", convert)
    processed, split = write_cohort(tmp_path)
    model = Manifest.model_validate(run_files.manifest(
        network=TINY.model_dump(), contract={"size": [SIDE, SIDE]}, preprocess={"size": SIDE},
    ))  # fmt: skip
    report = run_files.evaluation(protocol={
        "weights_sha256": model.weights_sha256, "threshold": 0.5, "tta": "none", "marks": ["a mark"],
        "temperature": 1.0, "bias": 0.0, "skew": 0.0, "postprocessing": {"min_component": 0},
    })  # fmt: skip
    data = dataset.load(processed, split, "patient")
    out = tmp_path / "models"
    return network, model, report, data, out


def measured(cohort) -> float:
    """Mean validation Dice of the file, so that the report can say it."""
    network, _, _, data, out = cohort
    out.mkdir(exist_ok=True)
    onnx_files.convert(onnx_files.rebuild(network, "float32"), out / "first.onnx")
    metadata.write_metadata(out / "first.onnx", onnx_toy.facts())
    probe = np.zeros((1, SIDE, SIDE, 3), np.float32)
    found = onnx_files.measure(out / "first.onnx", probe, probe[..., :1], data, Evaluation.model_validate(cohort[2]))
    return found["val_volume_dice"]


def test_an_answer_that_is_no_number_names_patient_and_slice(tmp_path, monkeypatch):
    data = dataset.load(*write_cohort(tmp_path), "patient")
    file = onnx_toy.write(tmp_path / "toy.onnx")
    monkeypatch.setattr(Outliner, "_answers", lambda _, batch: np.full((*batch.shape[:3], 1), np.nan, np.float32))
    probe = np.zeros((1, SIDE, SIDE, 3), np.float32)
    with pytest.raises(RunError, match="patient P4, slice 1 of 4: the network's answer is not a number"):
        onnx_files.measure(file, probe, probe[..., :1], data, None)


def test_export_writes_both_files_and_says_how_near_they_are(cohort):
    network, model, report, data, out = cohort
    report["val"]["volume"]["dice"]["mean"] = measured(cohort)
    found = onnx_files.run(network, model, Evaluation.model_validate(report), data, Export(calibration_slices=8), out)
    assert found["float32"]["max_abs_difference"] <= onnx_session.MAX_DIFFERENCE
    assert found["float32"]["dice_difference"] == 0
    assert 0 < found["int8"]["bytes"] < found["float32"]["bytes"]
    for name, variant in (("unet", "float32"), ("unet.int8", "int8")):
        told = Outliner(out / f"{name}.onnx").facts
        assert told["variant"] == variant and told["evaluation"] == report and "a mark" in told["marks"]
        kept = report["protocol"]["postprocessing"]
        assert told["rule"] == {"threshold": 0.5, **kept, "mirror": False, "temperature": 1, "bias": 0}
        assert "layers" not in told["model"] and "seen" not in told["model"]
    kinds = [node.op_type for node in onnx.load(out / "unet.int8.onnx").graph.node]
    assert "QuantizeLinear" in kinds
    line = onnx_files.write(found, out / "export.json")
    assert json.loads((out / "export.json").read_text()) == found and "int8" in line


def test_test_slices_are_not_looked_at(cohort):
    network, model, report, data, out = cohort
    report["val"]["volume"]["dice"]["mean"] = measured(cohort)
    params = Export(calibration_slices=8)
    first = onnx_files.run(network, model, Evaluation.model_validate(report), data, params, out)
    before = [(out / name).read_bytes() for name in ("unet.onnx", "unet.int8.onnx")]
    changed = np.array(data.images)
    changed[data.rows("test")] = 255
    other = dataset.Dataset(changed, data.masks, data.slices)
    assert onnx_files.run(network, model, Evaluation.model_validate(report), other, params, out) == first
    assert [(out / name).read_bytes() for name in ("unet.onnx", "unet.int8.onnx")] == before


def test_an_8_bit_file_that_is_off_says_so(cohort, monkeypatch):
    network, model, report, data, out = cohort
    report["val"]["volume"]["dice"]["mean"] = measured(cohort)
    monkeypatch.setitem(onnx_session.MAX_DICE_DIFFERENCE, "int8", -1.0)
    onnx_files.run(network, model, Evaluation.model_validate(report), data, Export(calibration_slices=8), out)
    assert any("8-bit" in mark for mark in Outliner(out / "unet.int8.onnx").facts["marks"])
    assert not any("8-bit" in mark for mark in Outliner(out / "unet.onnx").facts["marks"])


def test_a_file_that_answers_otherwise_is_not_kept(cohort, converted, monkeypatch):
    network, model, report, data, out = cohort
    right = converted(scaling="gain")
    report["val"]["volume"]["dice"]["mean"] = measured(cohort)

    def wrong(_, path):
        model = onnx.load(right)
        for each in model.graph.initializer:
            if each.data_type == onnx.TensorProto.FLOAT:
                each.CopyFrom(onnx.numpy_helper.from_array(1.01 * onnx.numpy_helper.to_array(each), each.name))
        onnx.save(model, path)

    monkeypatch.setattr(onnx_files, "convert", wrong)
    with pytest.raises(IntegrityError, match="max_abs_difference"):
        onnx_files.run(network, model, Evaluation.model_validate(report), data, Export(calibration_slices=8), out)
    assert not (out / "unet.onnx").exists()


def test_a_dice_that_is_not_the_reports_is_refused(cohort):
    network, model, report, data, out = cohort
    report["val"]["volume"]["dice"]["mean"] = measured(cohort) + 0.01
    with pytest.raises(IntegrityError, match="dice_difference"):
        onnx_files.run(network, model, Evaluation.model_validate(report), data, Export(calibration_slices=8), out)


def test_numbers_of_another_model_are_refused(cohort):
    network, model, report, data, out = cohort
    report["protocol"]["weights_sha256"] = "d" * 64
    with pytest.raises(IntegrityError, match="another model"):
        onnx_files.run(network, model, Evaluation.model_validate(report), data, Export(calibration_slices=8), out)
