"""Several networks in one file."""

import numpy as np
import onnx
import pytest

from brainseg.errors import BrainsegError, DataError
from brainseg.export import ensemble, metadata
from brainseg.inference.onnx_session import Session
from brainseg.models.manifest import TRAINED_ON_ALL, ExportedManifest
from tests.support import onnx_toy, run_files

FIELDS = set(ExportedManifest.model_fields) - {"parts", "brain"}
WHOLE = {name: value for name, value in run_files.manifest().items() if name in FIELDS}


def model(**changes) -> ExportedManifest:
    return ExportedManifest.model_validate(WHOLE | changes)


def test_the_mean_of_what_the_parts_answer(tmp_path):
    """The toys answer one channel each, divided by 255: the third counts once, the first twice."""
    paths = [onnx_toy.write(tmp_path / f"{n}.onnx", channel=channel) for n, channel in enumerate((0, 2, 0))]
    metadata.write_model(tmp_path / "all.onnx", ensemble.merge(paths), onnx_toy.facts())
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    expected = (2 * images[..., :1] + images[..., 2:]) / 3 / 255
    assert Session(tmp_path / "all.onnx").run(images) == pytest.approx(expected, abs=1e-6)


def test_with_a_network_of_the_brain_each_part_answers_twice(tmp_path):
    """The third channel is the brain, above a half; elsewhere the first two count as 0 in two of four answers."""
    paths = [onnx_toy.write(tmp_path / f"{n}.onnx", channel=n) for n in range(3)]
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    images[0, 0, 0, 2], images[0, 0, 1, 2] = 127, 128  # either side of a half
    brain = images[..., 2:] > 127.5
    for asked in (paths[:1], paths[:2]):
        metadata.write_model(tmp_path / "all.onnx", ensemble.merge(asked, paths[2]), onnx_toy.facts())
        mean = images[..., : len(asked)].mean(axis=-1, keepdims=True) / 255
        assert Session(tmp_path / "all.onnx").run(images) == pytest.approx((mean + mean * brain) / 2, abs=1e-6)
    again = ensemble.merge(paths[:2], paths[2], whole=False)
    metadata.write_model(tmp_path / "again.onnx", again, onnx_toy.facts())
    assert Session(tmp_path / "again.onnx").run(images) == pytest.approx(mean * brain, abs=1e-6)
    graph = onnx.load(tmp_path / "all.onnx").graph
    assert len(graph.initializer) == 2 * len(paths) + 1  # weights are there once


def test_the_manifest_names_the_network_of_the_brain(tmp_path):
    one, outlined = model(weights_sha256="1" * 64), model(weights_sha256="3" * 64, parameters=7, data={"other": "data"})
    marked = onnx_toy.write(tmp_path / "brain.onnx", channel=2)
    brain = ensemble.Brain("brain", marked, outlined, ["phantom data"])
    merged, found = ensemble.join(["one"], [onnx_toy.write(tmp_path / "one.onnx")], [one], brain)
    assert any(node.name == ensemble.STRIPPED for node in merged.graph.node)
    assert found.brain == outlined and [part.weights_sha256 for part in found.parts] == ["1" * 64]
    assert found.parameters == one.parameters + 7 and found.protocol.marks == ["the network of the brain: phantom data"]
    as_part = ensemble.describe(["one", "brain"], [one, outlined.model_copy(update={"data": one.data})])
    assert len({found.weights_sha256, as_part.weights_sha256, "1" * 64, "3" * 64}) == 4
    assert ExportedManifest.model_validate(found.exported()) == found and "brain" not in one.exported()


OTHER_MASKS = {"data": WHOLE["data"] | {"masks_sha256": "9" * 64}}


@pytest.mark.parametrize(("changes", "what"), [
    ({"contract": WHOLE["contract"] | {"size": [64, 64]}}, "has another input than one"),
    ({"preprocess": WHOLE["preprocess"] | {"size": 64}}, "has another input than one"),
    ({"data": WHOLE["data"]}, "learned the masks of one, so it outlines no brain"),
    ({"protocol": WHOLE["protocol"] | {"marks": [TRAINED_ON_ALL]}}, "which one was not: it knows the test patients"),
])  # fmt: skip
def test_networks_that_cannot_tell_what_scalp_is(changes, what):
    brain = ensemble.Brain("brain", None, model(**(OTHER_MASKS | changes)))
    with pytest.raises(DataError, match=what) as error:
        ensemble.describe(["one"], [model()], (), brain)
    assert [problem.path for problem in error.value.problems] == ["brain"]


def test_the_brain_of_a_slice_is_not_that_of_its_neighbours():
    three = model(contract=WHOLE["contract"] | {"slices": 3})
    brain = ensemble.Brain("brain", None, three.model_copy(update=OTHER_MASKS))
    with pytest.raises(DataError, match="does not tell the brains of neighbouring slices"):
        ensemble.describe(["one"], [three], (), brain)


def test_the_same_parts_give_the_same_bytes(tmp_path):
    paths = [onnx_toy.write(tmp_path / f"{n}.onnx", channel=n) for n in range(2)]
    for name in ("one", "two"):
        metadata.write_model(tmp_path / name, ensemble.merge(paths), onnx_toy.facts())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_manifest_names_each_part():
    one, other = model(weights_sha256="1" * 64), model(weights_sha256="2" * 64, parameters=5)
    found = ensemble.describe(["one", "other"], [one, other])
    assert [part.weights_sha256 for part in found.parts] == ["1" * 64, "2" * 64]
    assert found.parameters == one.parameters + 5 and found.network == one.network
    assert found.weights_sha256 not in ("1" * 64, "2" * 64)
    assert ExportedManifest.model_validate(found.exported()) == found
    swapped = ensemble.describe(["other", "one"], [other, one])
    assert swapped.weights_sha256 != found.weights_sha256
    assert "parts" not in one.exported()


@pytest.mark.parametrize("changes", [{"data": {"split_sha256": "5" * 64}}, {"preprocess": {"size": 64}}])
def test_parts_that_do_not_belong_together(changes):
    other = WHOLE | {"weights_sha256": "2" * 64}
    for key, values in changes.items():
        other[key] = {**other[key], **values}
    with pytest.raises(DataError, match=f"has another {next(iter(changes))} than a") as error:
        ensemble.describe(["a", "b"], [model(), ExportedManifest.model_validate(other)])
    assert error.value.problems[0].path == "b"


def test_a_part_that_is_there_twice_would_count_twice():
    with pytest.raises(DataError, match="it would count twice"):
        ensemble.describe(["a", "b"], [model(), model()])


@pytest.mark.parametrize(("changes", "what"), [
    ({"variant": "int8"}, "computes in 8-bit integers"), ({"model": WHOLE | {"parts": []}}, ""),
    ({"model": WHOLE | {"parts": [{}]}}, "parts.0.weights_sha256"),
])  # fmt: skip
def test_files_that_cannot_be_parts(tmp_path, changes, what):
    path = onnx_toy.write(tmp_path / "a.onnx", onnx_toy.facts(model=WHOLE) | {"variant": "float32"} | changes)
    if not what:
        assert ensemble.read_facts("a", path)[0].weights_sha256 == WHOLE["weights_sha256"]
        return
    with pytest.raises(BrainsegError, match=what) as error:
        ensemble.read_facts("a", path)
    assert error.value.problems[0].path == "a"


def test_an_ensemble_cannot_be_a_part(tmp_path):
    whole = ensemble.describe(["a", "b"], [model(), model(weights_sha256="2" * 64)], [["one"], ["one", "two"]])
    assert whole.protocol.marks == ["one", "two"]
    path = onnx_toy.write(tmp_path / "a.onnx", onnx_toy.facts(model=whole.exported()))
    with pytest.raises(DataError, match="is an ensemble, so it cannot be a part"):
        ensemble.read_facts("a", path)


def test_parts_of_other_versions_of_the_operations(tmp_path):
    paths = [onnx_toy.write(tmp_path / f"{n}.onnx") for n in range(2)]
    graph = onnx.load(paths[1])
    graph.opset_import[0].version -= 1
    onnx.save(graph, paths[1])
    with pytest.raises(DataError, match="different versions"):
        ensemble.merge(paths)
