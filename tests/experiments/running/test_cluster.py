"""Trainings on a node: what travels there and back, with calls of Ray that run here; and nodes that are lost."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from brainseg import config
from brainseg.errors import DataError, IntegrityError, MachineError
from brainseg.experiments.running import cached, cluster, connection, local, node, node_task
from brainseg.experiments.running.cluster import RayRunner
from brainseg.experiments.running.connection import Share
from brainseg.experiments.running.runner import Place, Training, TrainingError
from tests.support import fake_ray, prepared_toy
from tests.support.fake_ray import FakeRay
from tests.support.toy_pipeline import PROJECT, Repository

TRAIN = config.Train(**config.read_yaml(PROJECT / "params.yaml")["train"])
CHANGED = {"split": {"test_fold": 1}, "train": {"epochs": 3}}
BEGIN = {"node": "node1", "host": "one"}
EPOCH = {"line": "epoch 1/9  loss 0.4  validation volume Dice 0.512 (best\n"}


def ignore(seen):
    return False


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The prepared project, in whose environment this process and all that it starts work."""
    repository = prepared_toy.create(tmp_path / "driver/project")
    for name in [name for name in os.environ if name.startswith(("DVC_", "GIT_"))]:
        monkeypatch.delenv(name)
    for name, value in repository.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(node_task.FOLDER, str(tmp_path / "node"))
    return repository


def connect(monkeypatch, *script):
    ray = FakeRay(*script)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(connection, "connect", lambda address: ray)
    return ray


def tree(repository, name):
    (reference,) = [
        line for line in repository.git("for-each-ref", "--format=%(refname)").split() if line.endswith(name)
    ]
    return repository.git("rev-parse", f"{reference}^{{tree}}"), reference


@pytest.mark.slow  # a pipeline runs twice
def test_a_training_on_a_node_leaves_here_what_one_here_leaves(project, tmp_path, monkeypatch):
    """Edits that are not committed count too, as they do for ``dvc exp run``; data is sent to a node once."""
    (project.folder / "stages/train.py").write_text(prepared_toy.TRAIN.replace('"a")', '"edited")'))
    here = Repository(tmp_path / "here/project")
    here.folder.parent.mkdir()
    subprocess.run(["cp", "-r", project.folder, here.folder], check=True)
    assert local.LocalRunner(here.folder, 1).run(Training("x-0", CHANGED, tmp_path / "state"), ignore) is False
    before, told = project.git("status", "--porcelain"), []

    def watch(seen):
        told.append(seen)
        return False

    ray = connect(monkeypatch)
    state = project.folder / ".brainseg/folds"
    with RayRunner(project.folder, Place("ray"), TRAIN) as runner:
        assert runner.run(Training("x-0", CHANGED, state), watch) is False
        assert ray.names() == ["run", "bring", "run"]
        assert runner.run(Training("x-1", {"train": {"epochs": 4}}, state), watch) is False
        assert ray.names() == ["run", "bring", "run", "run"]
    assert ray.is_shut_down
    assert [seen.state for seen in told[:8]] == [
        "waiting",
        "starts",
        "data",
        "waiting",
        "starts",
        "split",
        "train",
        "train",
    ]
    assert told[7].epoch == 1 and told[7].dice == 0.0 and told[7].where
    assert tree(project, "x-0")[0] == tree(here, "x-0")[0]
    assert project.git("status", "--porcelain") == before  # the workspace is as it was
    baseline = project.git("rev-parse", "HEAD").strip()
    assert tree(project, "x-0")[1] == f"refs/exps/{baseline[:2]}/{baseline[2:]}/x-0"
    for name in ("x-0", "x-1"):
        assert name in project.dvc("exp", "show", "--csv")[1]
    assert project.dvc("exp", "apply", "x-0")[0] == 0
    assert (project.folder / "models/folder/a").read_text() == "edited"  # a folder of results
    assert "up to date" in project.dvc("status")[1]
    (project.folder / "dvc.lock").unlink()  # then the run cache is asked
    code, output = project.dvc("repro")
    assert code == 0 and "Running stage" not in output, output


@pytest.mark.slow
def test_the_data_of_a_remote_is_fetched_by_the_node(project, tmp_path, monkeypatch):
    assert project.dvc("remote", "add", "--default", "storage", str(tmp_path / "storage"))[0] == 0
    assert project.dvc("push", "--remote", "storage", "data/images.npy", "data/brains.npy")[0] == 0
    ray = connect(monkeypatch)
    with RayRunner(project.folder, Place("ray"), TRAIN) as runner:
        assert runner.run(Training("x-0", {}, tmp_path / "state"), ignore) is False
    assert ray.names() == ["run", "bring", "run"]
    (_, _, (sent,)) = ray.calls[1]
    assert list(sent) == [runner.data["data/split.csv"]]  # which the remote lacks


@pytest.mark.slow
def test_a_project_in_a_folder_of_a_repository(project, tmp_path, monkeypatch):
    whole = Repository(tmp_path / "whole")
    (whole.folder / "below").mkdir(parents=True)
    subprocess.run(["cp", "-r", project.folder, whole.folder / "below/project"], check=True)
    inner = Repository(whole.folder / "below/project")
    subprocess.run(["rm", "-r", inner.folder / ".git"], check=True)
    whole.git("init", "--quiet")
    whole.git("add", "--all")
    whole.git("commit", "--quiet", "--message", "all")
    connect(monkeypatch)
    with RayRunner(inner.folder, Place("ray"), TRAIN) as runner:
        runner.run(Training("x-0", CHANGED, tmp_path / "state"), ignore)
    assert "models/weights" in inner.git("show", "--format=", f"{tree(inner, 'x-0')[1]}:below/project/dvc.lock")


@pytest.mark.slow  # a pipeline runs
def test_a_training_that_its_parameters_break_says_so_as_here(project, tmp_path, monkeypatch):
    connect(monkeypatch)
    with RayRunner(project.folder, Place("ray"), TRAIN) as runner:
        with pytest.raises(TrainingError, match=r"params\.yaml: train\.epochs: is above 8") as caught:
            runner.run(Training("x-0", {"train": {"epochs": 9}}, tmp_path / "state"), ignore)
        assert caught.value.by_parameters
        assert caught.value.problems[0].path == str(tmp_path / "state/x-0.log")
    assert "x-0" not in project.git("for-each-ref")


@pytest.mark.slow
def test_another_experiment_of_the_name_is_not_replaced(project, tmp_path, monkeypatch):
    same = Training("x-0", {"train": {"epochs": 5}}, tmp_path / "state")
    assert local.LocalRunner(project.folder, 1).run(same, ignore) is False
    before = tree(project, "x-0")
    ray = connect(monkeypatch)
    with RayRunner(project.folder, Place("ray"), TRAIN) as runner:
        with pytest.raises(IntegrityError, match="x-0: is there already"):
            runner.run(Training("x-0", CHANGED, tmp_path / "state"), ignore)
        assert ray.names() == []  # nothing was trained for it
    assert tree(project, "x-0") == before


@pytest.fixture
def scripted(project, tmp_path, monkeypatch):
    """A call that runs a training whose tasks tell what is written down. Its answer, and Ray's calls."""

    def run(*script, watch=ignore, alive=("node1",)):
        ray = connect(monkeypatch, *script)
        ray.alive = {"node1": "node1" in alive, "node2": True}
        with RayRunner(project.folder, Place("ray"), TRAIN) as runner:
            monkeypatch.setattr(runner, "_take_over", lambda training, heard: None)
            runner.training = Training("x-0", {}, tmp_path / "state")
            return runner.run(runner.training, watch), ray

    return run


GONE, ENDED = fake_ray.RayError("the node is dead\nand more"), {"end": 0}


def test_a_training_whose_node_is_lost_begins_again_on_another(scripted, capsys, tmp_path):
    gone = fake_ray.NodeDiedError("the node is dead. And more")  # Ray's list of nodes may not know it yet
    is_stopped, ray = scripted([BEGIN, EPOCH, gone], [BEGIN, EPOCH, ENDED])
    assert is_stopped is False
    first, second = (options["scheduling_strategy"] for _, options, _ in ray.calls)
    assert first == second == "SPREAD"
    told = "x-0 was lost on one (the node is dead); it begins again on another node"
    assert f"WARNING {told}\n" in capsys.readouterr().err
    assert (tmp_path / "state/x-0.log").read_text() == EPOCH["line"] + told + "\n" + EPOCH["line"]


def test_a_training_that_is_lost_alone_goes_on_where_its_checkpoint_is(scripted, capsys):
    _, ray = scripted([BEGIN, EPOCH, GONE], [BEGIN, ENDED])
    assert ray.calls[1][1]["scheduling_strategy"] == ("node1", True)
    assert "it goes on there from its last checkpoint" in capsys.readouterr().err


def test_a_node_that_is_no_longer_there_is_not_asked_for(scripted):
    _, ray = scripted([BEGIN, GONE], [BEGIN, ENDED], alive=())
    assert ray.calls[1][1]["scheduling_strategy"] == "SPREAD"


def test_a_training_that_is_lost_again_and_again_is_given_up(scripted):
    with pytest.raises(MachineError, match=f"x-0: was lost {cluster.LIVES} times, the last time on one: the node"):
        scripted(*[[BEGIN, GONE]] * cluster.LIVES)


def test_an_answer_that_is_cut_off_is_lost(scripted, capsys):
    scripted([BEGIN, EPOCH], [BEGIN, ENDED])
    assert "it ended without a word" in capsys.readouterr().err


def test_a_training_that_falls_behind_is_stopped_and_forgotten(scripted):
    is_stopped, ray = scripted([BEGIN, EPOCH, EPOCH, ENDED], watch=lambda seen: seen.epoch == 1)
    assert is_stopped is True and len(ray.cancelled) == 1
    assert ray.names() == ["run", "forget"] and ray.calls[1][1]["scheduling_strategy"] == ("node1", False)


@pytest.mark.parametrize("end", [GONE, fake_ray.RayTaskError(OSError("no space left"))])
def test_one_that_was_stopped_is_not_begun_again_when_its_node_dies_meanwhile(scripted, end):
    is_stopped, ray = scripted([BEGIN, EPOCH, end], watch=lambda seen: seen.epoch == 1)
    assert is_stopped is True and ray.names() == ["run", "forget"]


def test_what_a_node_lacks_is_named_with_the_way_out(scripted):
    for event in ({"lacks": "dulwich"}, {"broken": "x\nModuleNotFoundError: No module named 'dulwich'\n", "code": 1}):
        with pytest.raises(MachineError, match="one: has no package dulwich") as caught:
            scripted([BEGIN, event])
        assert "pip install -r requirements.txt" in caught.value.problems[0].fix
    with pytest.raises(MachineError, match="what ran x-0 there ended with code 7") as caught:
        scripted([BEGIN, {"broken": "Traceback", "code": 7}])
    with pytest.raises(MachineError, match="what ran it broke: no space left"):
        scripted([BEGIN, fake_ray.RayTaskError(OSError("no space left"))])


def test_other_versions_are_warned_of_once(scripted, capsys):
    scripted([BEGIN, {"warn": "has other versions of keras"}, {"warn": "has other versions of keras"}, ENDED])
    assert capsys.readouterr().err.count("WARNING one: has other versions of keras") == 1


def test_a_warning_comes_before_the_training_ends(scripted, capsys):
    told = []

    def watch(seen):
        told.append(capsys.readouterr().err)
        return False

    scripted([BEGIN, {"warn": "has other versions of keras"}, EPOCH, ENDED], watch=watch)
    assert "WARNING one: has other versions of keras" in told[-1]


def test_the_engines_are_among_the_versions_that_are_compared():
    assert {"jaxlib"} | {name for name in ("tensorflow", "tensorflow-cpu") if node.find_versions([name])} <= set(
        node.find_versions(cluster.VERSIONS)
    )


def test_data_for_which_there_is_no_room_is_an_error_that_leaves_nothing_lent(project, monkeypatch):
    ray = connect(monkeypatch)
    with RayRunner(project.folder, Place("ray"), TRAIN) as runner:
        full = fake_ray.RayError("the object store is full. And more")
        monkeypatch.setattr(ray, "put", lambda value: (_ for _ in ()).throw(full))
        with pytest.raises(MachineError, match="Ray's object store: the object store is full"):
            runner._bring("node1", [runner.data["data/images.npy"]])
        assert not runner._lent and not +runner._borrowers


def test_data_on_its_way_to_a_node_is_cancelled_too_and_at_last_by_force(project, monkeypatch):
    ray = connect(monkeypatch)
    monkeypatch.setattr(cluster, "FORCE", 0.1)
    forced, at_work = threading.Event(), threading.Event()
    cancelled = []

    def cancel(task, *, force=False):
        cancelled.append((task, force))
        if force:
            forced.set()

    def get(reference):
        at_work.set()
        assert forced.wait(20)
        raise fake_ray.TaskCancelledError

    monkeypatch.setattr(ray, "cancel", cancel)
    monkeypatch.setattr(ray, "get", get)
    with RayRunner(project.folder, Place("ray"), TRAIN) as runner:
        ending = threading.Thread(target=lambda: at_work.wait(20) and runner.end_all())
        ending.start()
        with pytest.raises(cluster.LostError):
            runner._call_on("node1", node_task.forget, "x-0")
        ending.join()
    assert [force for _, force in cancelled] == [False, True]


def test_jobs_that_fit_no_node_are_warned_of(project, monkeypatch, capsys):
    connect(monkeypatch)
    with RayRunner(project.folder, Place("ray", jobs=2, gpus=1), TRAIN) as runner:
        assert runner.jobs == 2
    assert capsys.readouterr().err.count("WARNING Ray: no node has") == 1
    with RayRunner(project.folder, Place("ray", jobs=2, cpus=1), TRAIN):
        pass
    assert capsys.readouterr().err == ""


def test_a_remote_that_hangs_keeps_no_node(tmp_path, monkeypatch):
    (tmp_path / "dvc.py").write_text(
        "import sys, time; print('storage') if 'config' in sys.argv else time.sleep(600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(node, "FETCHED", 0.5)
    assert node.fetch(tmp_path, ["data/images.npy"]) is False


def test_ctrl_c_cancels_tasks_and_begins_none(project, tmp_path, monkeypatch):
    ray = connect(monkeypatch, [BEGIN, EPOCH, ENDED])
    with RayRunner(project.folder, Place("ray"), TRAIN) as runner:
        stopping = threading.Event()

        def watch(seen):
            if seen.epoch:
                runner.end_all()
                stopping.set()
            return False

        with pytest.raises(MachineError, match="was ended"):
            runner.run(Training("x-0", {}, tmp_path / "state"), watch)
        assert stopping.is_set() and len(ray.cancelled) == 1
        with pytest.raises(MachineError, match="was ended"):
            runner.run(Training("x-1", {}, tmp_path / "state"), watch)
        assert ray.names() == ["run"]


def test_a_task_of_which_a_piece_is_lost_is_cancelled_once_and_its_end_awaited(scripted):
    """It still has things to tell, which nobody hears; it runs on where its checkpoint is."""
    lost = fake_ray.OutOfDiskError("the object store is full. And more")
    is_stopped, ray = scripted([BEGIN, EPOCH, lost, EPOCH, ENDED], [BEGIN, EPOCH, ENDED])
    assert is_stopped is False and ray.names() == ["run", "run"]
    assert ray.calls[1][1]["scheduling_strategy"] == ("node1", True)
    assert len(ray.cancelled) == 1 and ray.waited == ray.cancelled


def test_a_task_that_has_ended_is_not_cancelled(scripted):
    _, ray = scripted([BEGIN, EPOCH, fake_ray.WorkerCrashedError("it was killed")], [BEGIN, EPOCH, ENDED])
    assert ray.names() == ["run", "run"] and not ray.cancelled and not ray.waited


def test_a_training_that_fails_cancels_nothing(project, tmp_path, monkeypatch):
    ray = connect(monkeypatch, [BEGIN, EPOCH, {"end": 1}])
    with RayRunner(project.folder, Place("ray"), TRAIN) as runner:
        with pytest.raises(TrainingError, match="the training ended with code 1"):
            runner.run(Training("x-0", {}, tmp_path / "state"), ignore)
        assert not ray.cancelled and not ray.waited and not runner._tasks


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_task_that_nobody_hears_any_more_is_cancelled_once_and_its_end_awaited(project, tmp_path, monkeypatch, error):
    def watch(seen):
        if seen.epoch:
            raise error
        return False

    ray = connect(monkeypatch, [BEGIN, EPOCH, EPOCH, ENDED])
    with RayRunner(project.folder, Place("ray"), TRAIN) as runner:
        with pytest.raises(error):
            runner.run(Training("x-0", {}, tmp_path / "state"), watch)
        assert len(ray.cancelled) == 1 and ray.waited == ray.cancelled and not runner._tasks


def test_the_end_of_all_while_a_task_is_stopped_cancels_it_once_in_all(project, tmp_path, monkeypatch):
    """Before the stop, while that is on its way to Ray, and while the task's end is waited for."""
    ray = connect(monkeypatch, [BEGIN, EPOCH, EPOCH, ENDED])
    cancel, wait = ray.cancel, ray.wait
    with RayRunner(project.folder, Place("ray"), TRAIN) as runner:

        def watch(seen):
            if seen.epoch:
                runner.end_all()
            return bool(seen.epoch)

        monkeypatch.setattr(ray, "cancel", lambda task: (cancel(task), runner.end_all()))
        monkeypatch.setattr(ray, "wait", lambda tasks, timeout: (runner.end_all(), wait(tasks, timeout)))
        assert runner.run(Training("x-0", {}, tmp_path / "state"), watch) is True
    (task,) = ray.waited
    assert ray.cancelled.count(task) == 1


def test_a_result_with_a_strange_name_is_no_file_here(scripted, tmp_path):
    with pytest.raises(IntegrityError, match="was sent, and is no result"):
        scripted([BEGIN, {"file": "../../x", "piece": b"x"}, ENDED])


def test_objects_are_known_by_their_names(tmp_path):
    sent, cache = tmp_path / "sent", tmp_path / "cache"
    sent.write_bytes(b"hello")
    md5 = "5d41402abc4b2a76b9719d911017c592"
    cached.keep(cache, cached.name(md5), sent)
    kept = cache / cached.name(md5)
    assert kept.read_bytes() == b"hello" and kept.stat().st_mode & 0o777 == 0o444
    sent.write_bytes(b"hallo")
    with pytest.raises(IntegrityError, match="damaged on its way"):
        cached.keep(tmp_path / "other", cached.name(md5), sent)
    with pytest.raises(IntegrityError, match="no file of DVC's cache"):
        cached.keep(cache, "files/md5/../../x", sent)
    assert cached.find_missing(cache, [md5, "0" * 32, "0" * 32]) == ["0" * 32]


def test_a_damaged_object_is_not_kept_on_a_node(tmp_path, monkeypatch):
    monkeypatch.setenv(node_task.FOLDER, str(tmp_path / "node"))
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(ValueError, match="damaged on its way"):
        node_task.bring({"0" * 32: [ray.put(b"x")]})
    assert not [path for path in (tmp_path / "node/cache").rglob("*") if path.is_file()]


def test_a_folder_of_another_user_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(node_task.os, "getuid", lambda: 4711)
    monkeypatch.setattr(node_task.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv(node_task.FOLDER, raising=False)
    with pytest.raises(PermissionError, match="brainseg-4711 is of another user"):
        node_task.make_home()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a link of another user")
def test_a_link_that_another_user_has_planted_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "ours").mkdir()
    (tmp_path / "node").symlink_to(tmp_path / "ours")
    monkeypatch.setenv(node_task.FOLDER, str(tmp_path / "node"))
    assert node_task.make_home() == tmp_path / "node"  # our own may be one
    os.lchown(tmp_path / "node", 4711, 4711)
    with pytest.raises(PermissionError, match="is of another user"):
        node_task.make_home()


def test_nobody_else_reads_the_folder_of_a_node(tmp_path, monkeypatch):
    (tmp_path / "node").mkdir(mode=0o755)
    monkeypatch.setenv(node_task.FOLDER, str(tmp_path / "node"))
    assert node_task.make_home().stat().st_mode & 0o777 == 0o700


def test_the_stages_of_nodes_and_their_data():
    """Of this project: all that reads the prepared slices; what prepares them is not run there."""
    stages, data = node.choose_stages(PROJECT)
    assert stages == ["brains", "split", "train", "evaluate", "render", "export"]
    processed = [f"data/processed/{name}" for name in ("brains.npy", "images.npy", "masks.npy", "slices.csv")]
    assert list(data) == [*processed, "data/splits/split.csv"]


def test_versions_are_compared():
    assert node.find_other_versions({"numpy": node.importlib.metadata.version("numpy")}) == []
    assert node.find_other_versions({"no-such-package": "1.0"}) == ["no-such-package none (1.0 there)"]


CPU, GPU = {"CPU": 16.0}, {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "place", "train", "share", "room"),
    [
        ([CPU, {"CPU": 8.0}], {}, {}, Share(8, 0), 3),  # threads: auto uses the cores of a whole node
        ([CPU], {}, {"threads": 4}, Share(4, 0), 4),
        ([CPU, {"CPU": 0.0}, {}], {"cpus": 2.5}, {}, Share(2.5, 0), 6),
        ([GPU, CPU], {}, {}, Share(8, 1), 2),
        ([GPU], {"gpus": 0.25}, {}, Share(2, 0.25), 8),
        ([GPU, CPU], {}, {"device": "cpu", "threads": 4}, Share(4, 0), 8),
    ],
)
def test_what_a_training_takes_of_a_node(nodes, place, train, share, room):
    found = connection.choose_share(nodes, Place("ray", **place), TRAIN.model_copy(update=train))
    assert found == share
    assert connection.count_room(nodes, found) == room


def test_a_cluster_without_room_says_what_it_has():
    with pytest.raises(MachineError, match=r"no node has 4 CPUs and 1 GPUs.*the largest has 16 and 0"):
        connection.count_room([CPU], Share(4, 1))


def test_an_address_where_nobody_answers():
    """Ray itself would try for minutes."""
    with connection.socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(MachineError, match=f"127.0.0.1:{port}: does not answer") as caught:
        connection._ask(f"127.0.0.1:{port}")
    assert f"ray start --address=127.0.0.1:{port}" in caught.value.problems[0].fix
    with pytest.raises(DataError, match="is of Ray's client"):
        connection._ask("ray://head:10001")
    with pytest.raises(DataError, match="is no address of a Ray cluster"):
        connection._ask("head")


def test_the_handler_of_sigterm_outlives_the_start_of_ray():
    """Ray's own would end a cross-validation without a word on how to go on."""

    def handle(*_):
        pass

    before = signal.signal(signal.SIGTERM, handle)
    try:
        connection._keep_signals(lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        assert signal.getsignal(signal.SIGTERM) is handle
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_ray_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MachineError, match="needs Ray, which is not installed") as caught:
        connection.connect(None)
    assert "brainseg-lgg[cluster]" in caught.value.problems[0].fix
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
