"""The registry: which model becomes champion, what a version holds, what is refused, and that a server answers."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests

from brainseg import errors, files
from brainseg.data import inputs
from brainseg.evaluation.results import Evaluation
from brainseg.inference import onnx_session
from brainseg.models.manifest import Manifest
from brainseg.reporting import model_card
from brainseg.tracking import registry, run_store
from tests.support import onnx_toy
from tests.support.locked import released_manifest

ROOT = Path(__file__).parents[2]
SIDE = onnx_toy.SIDE
pytestmark = pytest.mark.usefixtures("no_settings")


def exported(tree, weights="a", *, shift=0.0, parity=1e-7, **protocol):
    """What export leaves behind, with the committed run's numbers, each test patient's Dice ``shift`` higher."""
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "metrics").mkdir(parents=True)
    for name in ("per_patient.csv", "evaluation.json", "calibration.csv"):
        shutil.copy(ROOT / "metrics" / name, tree / "metrics")
    table = pd.read_csv(tree / "metrics/per_patient.csv")
    test = table["subset"] == "test"
    table.loc[test, "dice"] = (table.loc[test, "dice"] + shift).clip(0, 1)
    table.to_csv(tree / "metrics/per_patient.csv", index=False)
    report = json.loads((tree / "metrics/evaluation.json").read_text(encoding="utf-8"))
    report["protocol"] |= {"weights_sha256": weights * 64, **protocol}
    report["test"]["volume"]["dice"]["mean"] = round(float(table.loc[test, "dice"].mean()), 6)
    (tree / "metrics/evaluation.json").write_text(json.dumps(report), encoding="utf-8")
    export = {"weights_sha256": weights * 64, "float32": {"max_abs_difference": parity, "dice_difference": 0.0}}
    (tree / "metrics/export.json").write_text(json.dumps(export))
    model = Manifest.model_validate(released_manifest(ROOT) | {"weights_sha256": weights * 64})
    facts = model_card.collect_facts(model, Evaluation.model_validate(report)).model_dump(exclude_unset=True)
    facts |= {"format": onnx_session.FORMAT, "variant": "float32"}
    (tree / "models").mkdir()
    onnx_toy.write(tree / "models/unet.onnx", facts)
    return tree


@pytest.fixture
def tree(tmp_path):
    return exported(tmp_path / "tree")


def versions(client):
    """Version -> its tags."""
    return {int(each.version): each.tags for each in client.search_model_versions("name = 'brainseg'")}


def champion(client):
    return int(client.get_model_version_by_alias("brainseg", "champion").version)


def test_the_first_one_becomes_champion_with_all_that_the_next_one_needs(tree, client, capsys):
    import mlflow

    said = registry.run(tree)
    assert champion(client) == 1 and said.startswith("version 1 of brainseg is champion in sqlite:")
    assert capsys.readouterr().out.count("PASS") == 3
    tags = versions(client)[1]
    assert tags["weights.sha256"] == "a" * 64 and tags["onnx.sha256"] == files.sha256(tree / "models/unet.onnx")
    folder = Path(mlflow.artifacts.download_artifacts("models:/brainseg@champion"))
    assert (folder / "model.onnx").read_bytes() == (tree / "models/unet.onnx").read_bytes()
    for name in ("per_patient.csv", "evaluation.json", "calibration.csv", "export.json"):
        assert (folder / "extra_files" / name).read_bytes() == (tree / "metrics" / name).read_bytes()
    facts = model_card.ModelFacts.model_validate(onnx_session.Session(tree / "models/unet.onnx").facts)
    assert (folder / "extra_files/model-card.md").read_text(encoding="utf-8") == model_card.render_markdown(facts)
    needed = (folder / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in needed} == {"mlflow", "onnx", "onnxruntime", "numpy"}
    assert all("==" in line for line in needed)


def test_it_loads_with_its_signature_and_answers_as_the_file_does(tree, client):
    import mlflow

    registry.run(tree)
    loaded = mlflow.pyfunc.load_model("models:/brainseg@champion")
    (taken,), (given,) = loaded.metadata.signature.inputs, loaded.metadata.signature.outputs
    assert (taken.name, taken.type.name, taken.shape) == ("image", "float32", (-1, SIDE, SIDE, 3))
    assert (given.name, given.type.name, given.shape) == ("probability", "float32", (-1, SIDE, SIDE, 1))
    images = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.float32)
    answer = loaded.predict({"image": images})["probability"]
    assert np.array_equal(answer, onnx_session.Session(tree / "models/unet.onnx").run(images))
    with pytest.raises(mlflow.MlflowException, match="shape"):
        loaded.predict({"image": images[:, :-1]})


def test_it_stands_beside_its_training_and_carries_its_numbers(tree, client):
    import mlflow

    with run_store.RunStore().run(tree, {"stage": "train", "model.sha256": "a" * 64}) as trained:
        pass
    registry.run(tree)
    run = mlflow.get_run(client.get_model_version_by_alias("brainseg", "champion").run_id)
    assert run.data.tags["mlflow.parentRunId"] == trained and run.info.status == "FINISHED"
    mean = json.loads((tree / "metrics/evaluation.json").read_text())["test"]["volume"]["dice"]["mean"]
    assert run.data.metrics["test.volume.dice.mean"] == mean


def test_the_same_model_is_no_second_version(tree, client):
    registry.run(tree)
    assert "is this model, and champion already" in registry.run(tree)
    assert list(versions(client)) == [1]


def test_a_better_one_takes_the_place_and_the_former_stays_a_version(tree, client, capsys):
    registry.run(tree)
    said = registry.run(exported(tree, "b", shift=0.01))
    assert champion(client) == 2 and "before it version 1" in said
    assert set(versions(client)) == {1, 2}
    assert "22 patients: better" in capsys.readouterr().out


def test_a_former_champion_comes_back_without_a_new_version(tree, client):
    registry.run(tree)
    registry.run(exported(tree, "b"))
    said = registry.run(exported(tree, "a"))
    assert champion(client) == 1 and said.startswith("version 1 of brainseg is champion")
    assert set(versions(client)) == {1, 2}


def test_a_version_that_was_cut_off_before_its_alias_gets_it(tree, client):
    registry.run(tree)
    client.delete_registered_model_alias("brainseg", "champion")
    registry.run(tree)
    assert champion(client) == 1 and list(versions(client)) == [1]


def refused(tree, **options):
    with pytest.raises(errors.DataError) as caught:
        registry.run(tree, **options)
    return caught.value.lines()


@pytest.mark.parametrize(("change", "named", "way_out"), [
    ({"shift": -0.1}, "gate not worse: volume Dice", "keep the champion"),
    ({"grid": 128}, "gate not worse: not compared: this model: its grid is 128", "brainseg register --new-line"),
    ({"marks": ["one"]}, "gate not worse: not compared: the protocols differ in marks", "brainseg register --new-line"),
    ({"parity": 0.01}, "gate parity: probabilities differ by at most 0.01 ", "dvc repro export"),
])  # fmt: skip
def test_a_refused_one_leaves_nothing_behind(change, named, way_out, tree, client, capsys):
    registry.run(tree)
    before = client.search_runs([client.get_experiment_by_name("brainseg").experiment_id])
    (line,) = refused(exported(tree, "b", **change))
    assert line.startswith(f"ERROR 2 {named}") and way_out in line.partition("Fix: ")[2]
    assert "version 1 stays champion" in capsys.readouterr().out
    assert champion(client) == 1 and list(versions(client)) == [1]
    assert len(client.search_runs([client.get_experiment_by_name("brainseg").experiment_id])) == len(before)


def test_all_gates_that_refuse_are_named(tree, client):
    registry.run(tree)
    new = exported(tree, "b", shift=-0.1, parity=0.01)
    report = json.loads((new / "metrics/evaluation.json").read_text())
    report["test"]["calibration"]["ece_from_tenth"] = 0.5
    rewritten(new, report)
    lines = refused(new)
    assert [line.split(":")[0] for line in lines] == [
        f"ERROR 2 gate {name}" for name in ("parity", "not worse", "calibration")
    ]


def rewritten(tree, report):
    """Another evaluation, in the model too."""
    (tree / "metrics/evaluation.json").write_text(json.dumps(report))
    facts = onnx_session.Session(tree / "models/unet.onnx").facts
    onnx_toy.write(tree / "models/unet.onnx", facts | {"evaluation": report})


def test_a_new_line_begins_with_another_protocol(tree, client):
    registry.run(tree)
    registry.run(exported(tree, "b", grid=128), new_line=True)
    assert champion(client) == 2
    assert refused(exported(tree, "c", shift=-0.2, grid=128), new_line=True)


def test_parity_is_asked_of_the_first_one_too(tree, client, capsys):
    assert refused(exported(tree, parity=1))
    assert "there is no champion" in capsys.readouterr().out
    assert versions(client) == {}


def test_a_champion_that_brainseg_did_not_register_has_no_numbers(tree, client):
    registry.run(tree)
    other = client.create_model_version("brainseg", str(tree / "models"))
    client.set_registered_model_alias("brainseg", "champion", other.version)
    (line,) = refused(exported(tree, "b"))
    assert "models:/brainseg/2: holds no per_patient.csv" in line and "give the alias" in line


def kept(client, version):
    """The folder in which the store has a version's numbers."""
    return Path(client.get_model_version_download_uri("brainseg", str(version)).removeprefix("file://")) / "extra_files"


def flipped(path):
    """One more calibration error, so that a badly calibrated model would pass; the mean Dice tells nothing of it."""
    report = json.loads(path.read_text())
    report["test"]["calibration"]["ece_from_tenth"] = 0.9
    path.write_text(json.dumps(report))


def badly_calibrated(tree):
    new = exported(tree, "b")
    report = json.loads((new / "metrics/evaluation.json").read_text())
    report["test"]["calibration"]["ece_from_tenth"] = 0.5
    rewritten(new, report)
    return new


@pytest.mark.parametrize("name", registry.KEPT)
def test_a_champion_with_another_digit_is_no_measure(name, tree, client):
    registry.run(tree)
    assert versions(client)[1][f"{name}.sha256"] == files.sha256(tree / "metrics" / name)
    path = kept(client, 1) / name
    path.write_bytes(path.read_bytes() + b"\n") if name != "evaluation.json" else flipped(path)
    for new_line in (False, True):
        with pytest.raises(errors.IntegrityError) as caught:
            registry.run(badly_calibrated(tree), new_line=new_line)
        (problem,) = caught.value.problems
        assert problem.path == f"models:/brainseg/1/extra_files/{name}"
        assert problem.what.startswith(f"its sha256 is {files.sha256(path)}, the version's tag {name}.sha256 is ")
        assert "delete version 1 in MLflow" in problem.fix and "give the alias champion" in problem.fix
    assert champion(client) == 1 and list(versions(client)) == [1]


def test_a_champion_with_another_digit_comes_back_by_its_way_out(tree, client):
    """Delete the version, register its model at its commit: then the next one is measured by the right numbers."""
    registry.run(tree)
    flipped(kept(client, 1) / "evaluation.json")
    client.delete_model_version("brainseg", "1")
    registry.run(exported(tree, "a"))
    assert champion(client) == 2
    (line,) = refused(badly_calibrated(tree))
    assert line.startswith("ERROR 2 gate calibration")


def test_a_tag_that_is_gone_is_another_digit(tree, client):
    registry.run(tree)
    client.delete_model_version_tag("brainseg", "1", "evaluation.json.sha256")
    with pytest.raises(errors.IntegrityError, match=r"tag evaluation\.json\.sha256 is missing"):
        registry.run(exported(tree, "b"))


def test_a_version_of_an_earlier_commit_is_compared_by_what_it_holds(tree, client):
    """It has no such tags. Its table must fit the mean Dice of its report."""
    registry.run(tree)
    for name in registry.KEPT:
        client.delete_model_version_tag("brainseg", "1", f"{name}.sha256")
    registry.run(exported(tree, "b"))
    for name in registry.KEPT:
        client.delete_model_version_tag("brainseg", "2", f"{name}.sha256")
    path = kept(client, 2) / "per_patient.csv"
    table = pd.read_csv(path)
    table.assign(dice=table["dice"] / 2).to_csv(path, index=False)
    with pytest.raises(
        errors.IntegrityError, match=r"the champion:per_patient\.csv: its test patients have a mean Dice"
    ):
        registry.run(exported(tree, "c"))
    assert champion(client) == 2


DAMAGE = {
    "no model": (lambda tree: (tree / "models/unet.onnx").unlink(), errors.IntegrityError, "there is no model"),
    "no parity": (lambda tree: (tree / "metrics/export.json").unlink(), errors.DataError, "there is no such file"),
    "broken": (lambda tree: (tree / "metrics/export.json").write_text("{"), errors.DataError, "is damaged"),
    "numbers of another run": (
        lambda tree: shutil.copy(ROOT / "metrics/evaluation.json", tree / "metrics"),
        errors.IntegrityError, "not of one run",
    ),
    "export of another run": (
        lambda tree: (tree / "metrics/export.json").write_text('{"weights_sha256": "0"}'),
        errors.IntegrityError, "not of one run",
    ),
    "export that does not say of which": (
        lambda tree: (tree / "metrics/export.json").write_text("{}"),
        errors.IntegrityError, "not of one run",
    ),
    "patients of another run": (
        lambda tree: (tree / "metrics/per_patient.csv").write_text(
            (tree / "metrics/per_patient.csv").read_text().replace(",test,", ",val,", 1)
        ),
        errors.IntegrityError, "evaluation.json has",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_model_and_numbers_must_be_of_one_run(damage, tree, client):
    act, error, what = DAMAGE[damage]
    act(tree)
    with pytest.raises(error, match=what):
        registry.run(tree)
    assert versions(client) == {}


@pytest.mark.parametrize("name", ["models/unet.onnx", *(f"metrics/{name}" for name in registry.KEPT)])
def test_a_file_that_no_stage_made_is_not_registered(name, tree, client):
    """One more line end is read as the same numbers, so that the digest alone can tell; a model is read by its own."""
    outs = [{"path": name, "md5": inputs.md5(tree / name)}]
    (tree / "dvc.lock").write_text(json.dumps({"stages": {"all": {"outs": outs}}}))
    if name.startswith("models"):
        onnx_toy.write(tree / name, onnx_session.Session(tree / name).facts | {"marks": ["another"]})
    else:
        (tree / name).write_text((tree / name).read_text() + "\n")
    with pytest.raises(errors.IntegrityError, match=f"{name}: its MD5 is"):
        registry.run(tree)
    assert versions(client) == {}


@pytest.mark.parametrize("fault", ["down", "hanging"])
def test_m1_a_server_that_does_not_answer_is_told_at_once(fault, tree, monkeypatch):
    monkeypatch.setattr(registry, "ANSWER_SECONDS", "2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if fault == "down":
            server.close()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret@127.0.0.1:{port}")
        start = time.monotonic()
        with pytest.raises(errors.MachineError) as caught:
            registry.run(tree)
        assert time.monotonic() - start < 10
    (line,) = caught.value.lines()
    assert line.startswith(f"ERROR 3 MLflow (http://127.0.0.1:{port}): ") and "MLFLOW_TRACKING_URI" in line
    assert caught.value.code == 3


def test_an_upload_may_take_longer_than_a_question(tree, client, monkeypatch):
    import mlflow

    name, seen = registry.LIMIT, []
    log_model = mlflow.onnx.log_model
    monkeypatch.setattr(mlflow.onnx, "log_model", lambda *a, **k: seen.append(os.environ[name]) or log_model(*a, **k))
    registry.run(tree)
    assert seen == [registry.UPLOAD_SECONDS] and name not in os.environ
    monkeypatch.setenv(name, "7")  # whoever set a limit keeps it
    registry.run(exported(tree, "b"))
    assert seen[1:] == ["7"] and os.environ[name] == "7"


def test_without_mlflow_the_fix_is_to_install_it(tree, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(errors.MachineError) as caught:
        registry.run(tree)
    assert "pip install 'brainseg-lgg[train]'" in caught.value.lines()[0]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Started:
    """A program of MLflow's command line, ended with all its children when the block ends."""

    def __init__(self, folder, *arguments, **environment):
        self.log = (folder / f"{arguments[0]}.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments], cwd=folder, stdout=self.log, stderr=subprocess.STDOUT,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | environment,
            start_new_session=True,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)
        self.log.close()

    def answering(self, url, seconds=180):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if requests.get(url, timeout=5).ok:
                    return url
            except requests.RequestException:
                time.sleep(0.5)
        raise AssertionError(Path(self.log.name).read_text()[-3000:])


@pytest.mark.slow
def test_a_server_of_models_answers_with_the_champion(tree, tmp_path, monkeypatch, empty_store):
    """A team's set-up: register through a tracking server that keeps the files, then serve from it and ask."""
    port, serving = free_port(), free_port()
    uri, models = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{serving}"
    store = shutil.copy(empty_store, tmp_path / "team.db")
    server = ("server", "--backend-store-uri", f"sqlite:///{store}", "--artifacts-destination", str(tmp_path / "kept"))
    images = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.float32)
    expected = onnx_session.Session(tree / "models/unet.onnx").run(images)
    with Started(tmp_path, *server, "--port", str(port), "--workers", "1") as tracker:
        tracker.answering(f"{uri}/health")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv(registry.LIMIT, "60")  # a busy machine is no fault here
        assert f"champion in {uri}" in registry.run(tree)
        assert "champion already" in registry.run(tree)
        serve = ("models", "serve", "-m", "models:/brainseg@champion", "--env-manager", "local", "--port", str(serving))
        with Started(tmp_path, *serve, MLFLOW_TRACKING_URI=uri) as served:
            served.answering(f"{models}/ping")
            reply = requests.post(f"{models}/invocations", json={"inputs": {"image": images.tolist()}}, timeout=60)
            assert reply.status_code == 200, reply.text
            answer = np.array(reply.json()["predictions"]["probability"], np.float32)
            assert answer.shape == (2, SIDE, SIDE, 1) and np.abs(answer - expected).max() < 1e-6
            wrong = requests.post(f"{models}/invocations", json={"inputs": {"image": [[1.0]]}}, timeout=60)
            assert wrong.status_code == 400
