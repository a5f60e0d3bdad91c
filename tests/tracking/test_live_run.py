"""The run of a training in MLflow while it trains: epochs that come, kills, faults, stores that are down."""

import shutil
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from brainseg import files
from brainseg.tracking import live_run, run_store

PARAMS = Path(__file__).parents[2] / "params.yaml"
ROWS = [{"epoch": n, "loss": 1 / n, "val_volume_dice": n / 4} for n in (1, 2, 3)]
DIGESTS = {"images_sha256": "1" * 64, "masks_sha256": "2" * 64}

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    shutil.copy(PARAMS, folder)
    return folder


def start(tree, key="a"):
    """A training; with the same key the same one again, in the folder of its checkpoints."""
    return live_run.LiveRun(tree / "checkpoints" / key, DIGESTS, "phantom", tree)


def find_runs(client):
    found = client.get_experiment_by_name("brainseg")
    return client.search_runs([found.experiment_id], order_by=["attributes.start_time"]) if found else []


def losses(client, run):
    return [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "loss")]


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return found


def epochs_there(client, count):
    return lambda: [run for run in find_runs(client) if len(losses(client, run)) == count]


def test_a_run_is_open_from_the_start_and_gets_each_epoch_while_it_happens(tree, client):
    with start(tree) as live:
        (run,) = wait_for(lambda: find_runs(client))
        assert run.info.status == "RUNNING"
        for count in (1, 2):
            live.update(ROWS[:count])
            (run,) = wait_for(epochs_there(client, count))
    assert losses(client, run) == [(1, 1.0), (2, 0.5)]
    assert run.data.params["train.loss"] and run.data.tags["data.images_sha256"] == "1" * 64
    assert run.inputs.dataset_inputs[0].dataset.digest == "1" * 36
    assert find_runs(client)[0].info.status == "RUNNING"  # until its model is logged


def test_a_killed_training_goes_on_in_its_run_with_no_epoch_twice(tree, client):
    with start(tree) as live:
        live.update(ROWS[:2])
        wait_for(epochs_there(client, 2))
    with start(tree) as live:  # from the checkpoint of the first epoch
        live.update(ROWS[:1])
        live.update(ROWS)
        (run,) = wait_for(epochs_there(client, 3))
    assert losses(client, run) == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    with start(tree, "of another training"):
        wait_for(lambda: len(find_runs(client)) == 2)


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_training_that_fails_says_so_and_goes_on_later(error, status, tree, client):
    with pytest.raises(error), start(tree) as live:
        live.update(ROWS[:1])
        wait_for(epochs_there(client, 1))
        raise error
    (run,) = find_runs(client)
    assert run.info.status == status
    with start(tree):
        wait_for(lambda: find_runs(client)[0].info.status == "RUNNING")
    assert len(find_runs(client)) == 1


def test_a_store_that_is_down_costs_the_training_nothing_and_gets_all_later(tree, client, monkeypatch):
    down, asked = threading.Event(), []
    down.set()
    reach = run_store.reach_store

    def reach_or_fail(seconds):
        asked.append(seconds)
        if down.is_set():
            raise ConnectionError
        return reach(seconds)

    monkeypatch.setattr(run_store, "reach_store", reach_or_fail)
    monkeypatch.setattr(live_run, "RETRY_SECONDS", 0.05)
    with start(tree) as live:
        began = time.monotonic()
        live.update(ROWS[:1])
        live.update(ROWS[:2])
        assert time.monotonic() - began < 0.05
        wait_for(lambda: len(asked) > 2)
        assert find_runs(client) == []
        down.clear()
        wait_for(epochs_there(client, 2))


def test_a_store_that_hangs_is_not_waited_for(tree, monkeypatch):
    hanging = threading.Event()
    monkeypatch.setattr(live_run.LiveRun, "_log", lambda *_: hanging.wait(30))
    monkeypatch.setattr(live_run, "END_SECONDS", 0.2)
    began = time.monotonic()
    with start(tree) as live:
        live.update(ROWS)
    assert time.monotonic() - began < 2
    hanging.set()


@pytest.mark.parametrize("error", [ImportError, TypeError, OSError])  # half of an installation raises anything
def test_without_mlflow_the_training_goes_on(error, tree, client, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(run_store, "import_mlflow", fail)
    with start(tree) as live:
        live.update(ROWS)
    assert find_runs(client) == [] and live.ended >= live.started


def test_others_who_train_the_same_have_runs_of_their_own(tree, client):
    """On a team's server, from equal parameters, data and code."""
    with start(tree) as mine:
        mine.update(ROWS[:1])
        wait_for(epochs_there(client, 1))
        (tree / "checkpoints/a").rename(tree / "mine")
        with start(tree):
            wait_for(lambda: len(find_runs(client)) == 2)
    assert [len(losses(client, run)) for run in find_runs(client)] == [1, 0]


def test_with_other_parameters_it_does_not_go_on_in_the_same_run(tree, client):
    """Of evaluation, for one, on which no checkpoint depends: MLflow keeps one value of a parameter."""
    with start(tree):
        wait_for(lambda: find_runs(client) and "train.loss" in find_runs(client)[0].data.params)
    path = tree / "params.yaml"
    path.write_text(path.read_text().replace("bootstrap: ", "bootstrap: 1"))
    with start(tree):
        wait_for(lambda: len(find_runs(client)) == 2)


def test_a_turn_that_comes_after_the_end_changes_nothing(tree, client, monkeypatch):
    """Another training had the local store; meanwhile this one ended and was logged."""
    monkeypatch.setattr(live_run, "END_SECONDS", 0.2)
    with FileLock(files.state_dir() / "mlflow.lock"):
        with start(tree) as live:
            live.update(ROWS)
            time.sleep(0.2)
        assert live._thread.is_alive()
    live._thread.join(10)
    assert not live._thread.is_alive() and find_runs(client) == []


def test_an_answer_that_does_not_come_is_told_at_the_end(tree, monkeypatch, capsys):
    hanging = threading.Event()
    monkeypatch.setattr(run_store, "RunStore", lambda: hanging.wait(30))
    monkeypatch.setattr(live_run, "END_SECONDS", 0.2)
    with start(tree) as live:
        wait_for(live._writing.locked)
    assert not live.finish()
    assert "it did not answer. The results are complete; to log them later: brainseg track" in capsys.readouterr().err
    hanging.set()


def test_the_system_is_watched_if_asked_for(tree, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with start(tree):
        wait_for(lambda: any("system/cpu_utilization_percentage" in run.data.metrics for run in find_runs(client)))
