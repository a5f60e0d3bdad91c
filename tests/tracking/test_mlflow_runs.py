"""MLflow: what is logged, runs found by digests, and faults that give a warning and lose no result."""

import contextlib
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from brainseg import config, files
from brainseg.errors import DataError, MachineError
from brainseg.models import networks
from brainseg.tracking import live_run, logged_model, mlflow_runs, run_store
from tests.support import run_files

PARAMS = Path(__file__).parents[2] / "params.yaml"
NETWORK = config.Network(
    name="unet", context=0, scaling="full", filters=2, depth=1, norm="batch", dropout=0.0, upsampling="resize", stem=0
)
VOLUME = {"volume": {"dice": {"mean": 0.75, "hi": None}}}


pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Weights of an untrained network."""
    path = tmp_path_factory.mktemp("saved") / "unet.weights.h5"
    networks.build(NETWORK, 32, 3).save_weights(path)
    return path


@pytest.fixture
def tree(tmp_path, saved):
    """A working folder in which train, evaluate and render have run."""
    tree = tmp_path / "tree"
    for folder in ("models", "metrics/plots"):
        (tree / folder).mkdir(parents=True)
    weights = tree / "models/unet.weights.h5"
    shutil.copy(saved, weights)
    manifest = run_files.manifest(
        weights_sha256=files.sha256(weights),
        network=NETWORK.model_dump(),
        contract={"size": [32, 32]},
        protocol={"source": "phantom", "marks": ["phantom data"]},
        training={"kept_epoch": 2},
        data={"images_sha256": "1" * 64, "masks_sha256": "2" * 64},
    )
    report = run_files.evaluation(protocol={"marks": ["phantom data"]}, val=VOLUME, test=VOLUME)
    contents = {
        "models/unet.json": json.dumps(manifest),
        "metrics/training.csv": "epoch,loss,val_volume_dice\n1,0.9,0.2\n2,0.5,0.6\n3,0.4,\n",
        "metrics/evaluation.json": json.dumps(report),
        "metrics/summary.json": json.dumps(run_files.summary(volume_dice_mean=0.75, hd95_median=None)),
        "metrics/per_patient.csv": "patient,dice\na,0.75\n",
        "metrics/plots/curves.png": "png",
        "metrics/report.html": "<p>",
        "params.yaml": PARAMS.read_text(encoding="utf-8"),
    }
    for name, text in contents.items():
        (tree / name).write_text(text, encoding="utf-8")
    return tree


def runs(client, stage):
    experiment = client.get_experiment_by_name("brainseg")
    return client.search_runs([experiment.experiment_id], f"tags.stage = '{stage}'") if experiment else []


def digest(tree):
    return json.loads((tree / "models/unet.json").read_text())["weights_sha256"]


def test_a_training_is_logged_whole(tree, client):
    mlflow_runs.log_training(tree)
    (run,) = runs(client, "train")
    assert run.info.status == "FINISHED"
    assert run.data.tags["model.sha256"] == digest(tree)
    assert run.data.tags["data.images_sha256"] == "1" * 64
    assert run.data.tags["marks"] == "phantom data"
    assert run.data.params["train.epochs"] == str(config.load(path=PARAMS).train.epochs)
    assert run.data.metrics["kept_epoch"] == 2
    history = client.get_metric_history(run.info.run_id, "val_volume_dice")
    assert [(m.step, m.value) for m in history] == [(1, 0.2), (2, 0.6)]  # an undefined value is left out
    assert run.inputs.dataset_inputs[0].dataset.digest == "1" * 36


def go_live(tree, key, rows):
    """A training that has these epochs and did not get to its end."""
    digests = json.loads((tree / "models/unet.json").read_text())["data"]
    with live_run.LiveRun(tree / "checkpoints" / key, digests, "phantom", tree) as live:
        live.update(rows)
        end = time.monotonic() + 10
        while not (live._run and len(run_store.RunStore()._losses(live._run)) == len(rows)):
            assert time.monotonic() < end
            time.sleep(0.02)
    return live


def test_a_live_run_is_completed_and_lasts_as_long_as_the_training(tree, client):
    live = go_live(tree, "a", [{"epoch": 1, "loss": 0.9000001, "val_volume_dice": 0.2}])  # the table has six digits
    time.sleep(0.3)
    assert live.finish()
    (run,) = runs(client, "train")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.9000001), (2, 0.5), (3, 0.4)]
    assert run.info.status == "FINISHED" and run.data.tags["model.sha256"] == digest(tree)
    took = (run.info.end_time - run.info.start_time) / 1000
    assert took == pytest.approx(live.ended - live.started, abs=0.01)


def test_parameters_that_are_edited_meanwhile_are_not_those_of_the_training(tree, client):
    live = go_live(tree, "a", [{"epoch": 1, "loss": 0.9, "val_volume_dice": 0.2}])
    path = tree / "params.yaml"
    path.write_text(path.read_text().replace("bootstrap: ", "bootstrap: 1"))
    assert live.finish()
    (run,) = runs(client, "train")
    assert run.info.status == "FINISHED"
    assert run.data.params["evaluate.bootstrap"] == str(config.load(path=PARAMS).evaluate.bootstrap)


def test_a_training_whose_store_was_down_lasts_as_long_too(tree, client):
    assert mlflow_runs.log_training(tree, attempt="a", started=1000.0, ended=1060.5)
    (run,) = runs(client, "train")
    assert (run.info.start_time, run.info.end_time) == (1_000_000, 1_060_500)


def test_track_completes_the_run_of_this_training_alone(tree, client):
    """The store was down at its end. Others of the same data are not taken for it, nor one without an epoch."""
    go_live(tree, "another", [{"epoch": 1, "loss": 0.8, "val_volume_dice": 0.2}])
    own = go_live(tree, "own", [{"epoch": 1, "loss": 0.9, "val_volume_dice": 0.2}])
    go_live(tree, "just started", [])
    assert mlflow_runs.log_training(tree, once=True)
    found = {run.info.run_id: run.info.status for run in runs(client, "train")}
    assert sorted(found.values()) == ["FINISHED", "RUNNING", "RUNNING"] and found[own._run] == "FINISHED"


def test_the_model_has_a_signature_and_loads(tree, client):
    import mlflow

    mlflow_runs.log_training(tree)
    (model,) = client.search_logged_models([runs(client, "train")[0].info.experiment_id])
    loaded = mlflow.pyfunc.load_model(model.model_uri)
    assert loaded.metadata.metadata == {"images": "(n, 32, 32, 3), whole numbers from 0 to 255 of any type"}
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    answer = loaded.predict(images)
    assert answer.shape == (2, 32, 32) and answer.dtype == np.float32
    for other in (images.astype(np.float32), images.astype(np.int64)):
        np.testing.assert_array_equal(loaded.predict({"images": other}), answer)
        np.testing.assert_array_equal(logged_model.as_pixels(other, (32, 32, 3)), images)
    for wrong in (images / 255, images - 256.0, np.full((1, 32, 32, 3), np.nan), images[0], images[..., :2]):
        with pytest.raises(ValueError, match="images"):
            loaded.predict(wrong)
    assert not list(files.project_root().rglob("*.pkl"))


def test_an_evaluation_is_a_child_of_the_training_with_its_weights(tree, client):
    mlflow_runs.log_training(tree)
    mlflow_runs.log_evaluation(tree)
    (child,), (parent,) = runs(client, "evaluate"), runs(client, "train")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.run_name == "evaluate"
    assert parent.data.metrics["val.volume.dice.mean"] == parent.data.metrics["test.volume.dice.mean"] == 0.75
    assert parent.data.params["evaluate.bootstrap"] and parent.info.status == "FINISHED"
    found = child.data.metrics
    assert found["volume_dice_mean"] == found["val.volume.dice.mean"] == found["test.volume.dice.mean"] == 0.75
    assert not {"hd95_median", "val.volume.dice.hi"} & set(found)  # undefined
    assert set(child.data.params) == {f"evaluate.{name}" for name in config.Evaluate.model_fields}


def test_an_evaluation_of_an_unknown_model_stands_alone(tree, client):
    mlflow_runs.log_evaluation(tree)
    (run,) = runs(client, "evaluate")
    assert "mlflow.parentRunId" not in run.data.tags


def test_figures_join_their_evaluation_or_stand_alone(tree, client):
    mlflow_runs.log_figures(tree)
    (alone,) = runs(client, "render")
    mlflow_runs.log_evaluation(tree)
    (run,) = runs(client, "evaluate")
    mlflow_runs.log_figures(tree)
    names = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert names == {"evaluation.json", "per_patient.csv", "plots", "report.html"}
    assert {a.path for a in client.list_artifacts(alone.info.run_id)} == {"plots", "report.html"}


def test_a_cross_validation_takes_in_its_folds(tree, client, monkeypatch):
    """One fold's training was logged here, the other's came from a cache: both are children, once."""
    monkeypatch.setenv("DVC_EXP_NAME", "cv-0a-0")
    assert mlflow_runs.log_training(tree)
    monkeypatch.delenv("DVC_EXP_NAME")
    folder = tree / "metrics/cross_validation"
    folder.mkdir()
    summary = run_files.cross_validation(protocol={"marks": ["a mark"]}, test=VOLUME)
    summary["params"] = {"train": {"loss": "dice", "seed": 1}}
    dice = [{"experiment": f"cv-0a-{k}", "volume_dice": {"mean": 0.5 + k / 4, "lo": None}} for k in range(2)]
    summary["folds"] = [run_files.change(fold, own) for fold, own in zip(summary["folds"], dice, strict=False)]
    (folder / "summary.json").write_text(json.dumps(run_files.sealed(summary)))
    for _ in range(2):
        assert mlflow_runs.log_cross_validation(tree)
    (parent,) = runs(client, "cross-validation")
    assert parent.data.metrics["test.volume.dice.mean"] == 0.75
    assert parent.data.params == {"train.loss": "dice", "train.seed": "1"}
    assert (parent.info.run_name, parent.data.tags["marks"]) == ("cv-0a", "a mark")
    (trained,), (fold,) = runs(client, "train"), runs(client, "fold")
    assert trained.data.tags["mlflow.parentRunId"] == fold.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert fold.info.run_name == "cv-0a-1"
    assert fold.data.metrics["test.volume.dice.mean"] == 0.75
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["summary.json"]


@pytest.mark.parametrize(("name", "old", "new"), [
    ("summary.json", '"grid": 256', '"grid": 255'), ("per_patient.csv", "TCGA_CS_4941", "TCGA_CS_4943"),
])  # fmt: skip
def test_a_cross_validation_with_another_digit_is_not_logged(name, old, new, tree, client, capsys):
    folder = Path(shutil.copytree(PARAMS.parent / mlflow_runs.FOLDS, tree / mlflow_runs.FOLDS))
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    assert not mlflow_runs.log_cross_validation(tree)
    said = capsys.readouterr().err
    assert f"{name}: " in said and "sha256" in said and "git restore it" in said
    assert runs(client, "cross-validation") == []


SEARCH = Path("metrics/tune/x")
TRIALS = (
    "trial,state,dice,epochs,train.learning_rate,train.patience,experiments,reason\n"
    "0,done,0.7,8,0.001,null,tune-x-0a0a0a0a-0,\n1,stopped,,3,0.1,4,tune-x-0b0b0b0b-0,\n"
    "2,failed,,1,0.2,4,tune-x-0c0c0c0c-0,no number\n3,done,0.6,8,0.01,4,tune-x-0d0d0d0d-0,\n"
)


@pytest.fixture
def searched(tree, client, monkeypatch):
    """A tree with a search: the trainings of trials 0 to 2 are logged, the last two have not come to their end."""
    monkeypatch.setenv("DVC_EXP_NAME", "tune-x-0a0a0a0a-0")
    assert mlflow_runs.log_training(tree)
    monkeypatch.delenv("DVC_EXP_NAME")
    for name in ("tune-x-0b0b0b0b-0", "tune-x-0c0c0c0c-0"):
        store = run_store.RunStore()
        run = store.open(tree, {"stage": "train"}, name=name, started=1000.0)
        store.client.log_metric(run, "loss", 0.5, timestamp=1_060_000)
    (tree / SEARCH).mkdir(parents=True)
    best = {"train.learning_rate": 0.001, "train.patience": None}
    told = {"fixed": {"train.epochs": 8}, "best": best, "dice": 0.7, "verdict": None}
    (tree / SEARCH / "summary.json").write_text(json.dumps(told))
    (tree / SEARCH / "trials.csv").write_text(TRIALS)
    return tree


def test_a_search_takes_in_its_trials_and_their_trainings(searched, client):
    """Trained and logged (0), stopped (1), failed (2), not here (3)."""
    for _ in range(2):
        assert mlflow_runs.log_search(SEARCH, searched)
    (parent,) = runs(client, "tune")
    assert parent.info.run_name == "tune-x" and parent.data.metrics == {"dice": 0.7, "trials": 4}
    best = {"best.train.learning_rate": "0.001", "best.train.patience": "None"}
    assert parent.data.params == {"train.epochs": "8"} | best
    trials = {run.info.run_name: run for run in runs(client, "trial")}
    assert set(trials) == {f"x, trial {number}" for number in range(4)}
    assert {run.data.tags["mlflow.parentRunId"] for run in trials.values()} == {parent.info.run_id}
    assert trials["x, trial 0"].data.params == {"train.learning_rate": "0.001", "train.patience": "None"}
    assert trials["x, trial 1"].data.metrics == {"epochs": 3} and trials["x, trial 1"].data.tags["state"] == "stopped"
    trained = {run.info.run_name: run for run in runs(client, "train")}
    above = {name: run.data.tags["mlflow.parentRunId"] for name, run in trained.items()}
    assert above == {
        f"tune-x-{4 * key}-0": trials[f"x, trial {n}"].info.run_id for n, key in enumerate(("0a", "0b", "0c"))
    }
    stopped, failed = trained["tune-x-0b0b0b0b-0"].info, trained["tune-x-0c0c0c0c-0"].info
    assert (stopped.status, stopped.end_time, failed.status) == ("KILLED", 1_060_000, "RUNNING")


def test_a_search_that_went_on_is_one_run(searched, client):
    """More trials, or a verdict alone: what was logged before gives way, and the trainings move."""
    assert mlflow_runs.log_search(SEARCH, searched)
    first = runs(client, "tune")[0].info.run_id
    summary = json.loads((searched / SEARCH / "summary.json").read_text())
    (searched / SEARCH / "summary.json").write_text(json.dumps(summary | {"verdict": {"mean": 0.1}}))
    assert mlflow_runs.log_search(SEARCH, searched)
    (again,), trials = runs(client, "tune"), runs(client, "trial")
    assert again.info.run_id != first and len(trials) == 4
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {again.info.run_id}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs(client, "train")} < {run.info.run_id for run in trials}


@pytest.mark.parametrize(("name", "text"), [
    ("summary.json", "{"), ("trials.csv", TRIALS.replace("tune-x-0a0a0a0a-0", "x' OR 'a' = 'a")),
])  # fmt: skip
def test_a_damaged_search_is_not_logged(name, text, searched, client, capsys):
    (searched / SEARCH / name).write_text(text)
    assert not mlflow_runs.log_search(SEARCH, searched)
    assert "git restore it" in capsys.readouterr().err and runs(client, "tune") == []


def test_once_logs_nothing_twice(tree, client):
    for _ in range(2):
        mlflow_runs.log_training(tree, once=True)
        mlflow_runs.log_evaluation(tree, once=True)
    assert len(runs(client, "train")) == len(runs(client, "evaluate")) == 1
    mlflow_runs.log_training(tree)
    assert len(runs(client, "train")) == 2


def test_a_run_is_named_after_the_experiment_or_the_commit(tree, client, monkeypatch):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *command], cwd=tree, check=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=tree, text=True).strip()
    mlflow_runs.log_evaluation(tree)
    monkeypatch.setenv("DVC_EXP_NAME", "jaccard-20")
    mlflow_runs.log_evaluation(tree)
    assert {run.info.run_name for run in runs(client, "evaluate")} == {commit[:7], "jaccard-20"}
    assert {run.data.tags["mlflow.source.git.commit"] for run in runs(client, "evaluate")} == {commit}


def test_a_deleted_experiment_is_told_with_the_command_that_restores_it(tree, client, capsys):
    from mlflow.cli import cli

    own = client.create_experiment("brainseg")
    client.delete_experiment(own)
    with pytest.raises(DataError) as caught:
        run_store.check_store(60)
    (problem,) = caught.value.problems
    assert mlflow_runs.log_evaluation(tree, seconds=60) is False
    warned = capsys.readouterr().err
    assert warned.count("WARNING") == 1 and f"Fix: {problem.fix}" in warned
    *settings, program, group, action, option, value = shlex.split(problem.fix.partition(", or ")[0])
    env = dict(setting.split("=", 1) for setting in settings)
    assert env == {"MLFLOW_TRACKING_URI": run_store.store_uri(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    assert program == "mlflow"
    done = CliRunner().invoke(cli, [group, action, option, value], env=env)
    assert done.exit_code == 0, done.output
    run_store.check_store(60)
    assert mlflow_runs.log_evaluation(tree, seconds=60) is True


def test_another_name_goes_round_a_deleted_experiment(client, monkeypatch):
    client.delete_experiment(client.create_experiment("brainseg"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    run_store.check_store(60)


def test_a_store_that_is_none_is_told(project_root):
    (project_root / "mlflow.db").write_text("no database, but more than a hundred bytes of something else" * 3)
    with pytest.raises(MachineError, match="DatabaseError"):
        run_store.check_store(60)


def test_settings_of_the_user_win(tree, tmp_path, empty_store, monkeypatch):
    import mlflow

    own = shutil.copy(empty_store, tmp_path / "own.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{own}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    mlflow_runs.log_evaluation(tree)
    client = mlflow.MlflowClient(f"sqlite:///{own}")
    assert len(client.search_runs([client.get_experiment_by_name("mine").experiment_id])) == 1
    assert mlflow.environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 7


class Faulty(BaseHTTPRequestHandler):
    """A tracking server that is ill; ``midway`` answers the first question and hangs from then on."""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.fault == "500":
            return self.reply(500, {})
        if self.server.fault == "midway" and "get-by-name" in self.path:
            return self.reply(200, {"experiment": {"experiment_id": "1", "name": "brainseg"}})
        if self.server.fault == "dripping":
            self.drip()
        self.server.released.wait(30)

    def drip(self):
        """An answer that never ends; each byte comes in time."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            while not self.server.released.wait(0.1):
                self.wfile.write(b" ")

    def reply(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 (the names that http.server calls)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    server.released = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("fault", ["down", "500", "hanging", pytest.param("midway", marks=pytest.mark.slow)])
def test_m1_tracking_server_down_answering_500_hanging(fault, tree, server, monkeypatch, capsys):
    server.fault = fault
    if fault == "down":
        server.server_close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    start = time.monotonic()
    mlflow_runs.log_training(tree)
    assert time.monotonic() - start < 10
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("WARNING MLflow (http://127.0.0.1:") and line.endswith("brainseg track")


def test_m1_a_server_that_drips_is_left_in_time(tree, server, monkeypatch, capsys):
    import mlflow  # noqa: F401  # its import takes seconds and is not counted

    assert run_store.STAGE_SECONDS <= 10
    server.fault = "dripping"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    start = time.monotonic()
    assert not mlflow_runs.log_training(tree, seconds=1)
    assert time.monotonic() - start < 5
    assert "it did not answer within 1 seconds. The results are complete" in capsys.readouterr().err


def test_m1_a_process_ends_though_the_store_still_drips(tree, server):
    server.fault = "dripping"
    code = (
        "import time; from brainseg.tracking import mlflow_runs; mlflow_runs.log_evaluation(seconds=1); "
        "print(time.time(), flush=True)"
    )
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{server.server_port}"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=120)
    assert time.time() - float(done.stdout) < 5 and "did not answer" in done.stderr


@pytest.mark.parametrize("damage", [Path.mkdir, lambda path: path.write_bytes(b"no database" * 999)])
def test_a_store_that_is_no_database_is_told_at_once(damage, tree, project_root, capsys):
    import mlflow  # noqa: F401  # its import takes seconds and is not counted

    damage(project_root / "mlflow.db")
    start = time.monotonic()
    assert not mlflow_runs.log_training(tree)
    assert time.monotonic() - start < 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("WARNING MLflow (sqlite:") and line.endswith("brainseg track")


@pytest.mark.slow  # its tables are made again
def test_a_new_store_is_there_whole_or_not_at_all(tree, project_root, monkeypatch, capsys):
    import mlflow

    class Killed(BaseException):
        pass

    def kill(client):
        (half,) = project_root.glob(".mlflow.db.*")
        assert client.tracking_uri == f"sqlite:///{half}/mlflow.db"
        (half / "mlflow.db").write_bytes(b"the first tables")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "search_experiments", kill)
        with pytest.raises(Killed):
            mlflow_runs.log_training(tree)
    assert [path.name for path in project_root.iterdir()] == [".brainseg"]
    assert mlflow_runs.log_training(tree)
    assert capsys.readouterr().err == ""


def test_without_mlflow_a_stage_goes_on(tree, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    mlflow_runs.log_training(tree)
    assert capsys.readouterr().err.startswith("WARNING MLflow")


def test_m2_database_locked(tree, client, project_root):
    holder = sqlite3.connect(project_root / "mlflow.db", check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(2, holder.rollback).start()
    start = time.monotonic()
    mlflow_runs.log_evaluation(tree)
    assert time.monotonic() - start > 1
    assert len(runs(client, "evaluate")) == 1


@pytest.mark.slow
def test_m2_four_first_starts_at_once(tree, project_root):
    import mlflow

    command = [sys.executable, "-c", "from brainseg.tracking import mlflow_runs; mlflow_runs.log_training()"]
    started = [subprocess.Popen(command, cwd=tree, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=3000)[1] for process in started]
    assert not [line for text in errors for line in text.splitlines() if "WARNING MLflow" in line]
    client = mlflow.MlflowClient(f"sqlite:///{project_root}/mlflow.db")
    assert [run.info.status for run in runs(client, "train")] == ["FINISHED"] * 4


@pytest.mark.parametrize(("uri", "shown"), [
    ("http://ann:secret@runs.example:5001/a", "http://runs.example:5001/a"),
    ("http://127.0.0.1:5001", "http://127.0.0.1:5001"),
    ("sqlite:////home/ann/a@b/mlflow.db", "sqlite:////home/ann/a@b/mlflow.db"),
])  # fmt: skip
def test_a_password_of_the_store_is_not_shown(uri, shown, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert run_store.store_name() == shown


def test_what_mlflow_says_of_an_address_is_told_without_its_password(monkeypatch, capsys, project_root):
    """Before it is cut: half a password has no @ behind it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")

    @mlflow_runs._optional
    def fail():
        raise ValueError("x" * 185 + " http://ann:secret@127.0.0.1:9/api")

    assert not fail()
    assert "ann" not in capsys.readouterr().err
