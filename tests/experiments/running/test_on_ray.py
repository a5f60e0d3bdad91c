"""Folds and trials on Ray clusters that lose a node: all there at the end, byte for byte those that were run without.

``make test-cluster`` installs Ray and runs these.
"""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from brainseg.experiments import cross_validation, revision
from tests.support import machines, tiny_pipeline
from tests.support.tiny_pipeline import TINY
from tests.support.toy_pipeline import PROJECT, Repository, environment

pytest.importorskip("ray", reason="Ray is not installed (make test-cluster installs it)")
pytestmark = pytest.mark.slow

FOLDS, EPOCHS = 4, 40
FEW = TINY | {
    "split": {"folds": FOLDS},
    "phantom": {"patients": 9, "slices": 4, "size": 64},
    "train": TINY["train"] | {"epochs": EPOCHS, "threads": 1, "ema": 0.9},
}
# On a fast machine too it trains for half a minute, while Ray takes seconds to notice that a task was killed.
LONG = FEW | {"phantom": FEW["phantom"] | {"slices": 40}, "train": FEW["train"] | {"epochs": 100}}
WAIT = 2400  # seconds, also on a busy machine
BRAINSEG = [sys.executable, "-c", "from brainseg import cli; cli.main()"]


def results(repository: Repository, written: Path | str = cross_validation.FOLDER) -> dict[str, str]:
    """Each fold's experiment by Git's digests of dvc.lock, which has the MD5s of models, of metrics and of parameters.

    And what the cross-validation has written.
    """
    found = {path.name: path.read_bytes().hex() for path in (repository.folder / written).iterdir()}
    for reference in repository.git("for-each-ref", "--format=%(refname)", "refs/exps").split():
        parts = [f"{reference}:{name}" for name in ("dvc.lock", "metrics", "params.yaml")]
        found[reference.rpartition("/")[2]] = repository.git("rev-parse", *parts)
    return found


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """The results of a cross-validation without Ray."""
    repository = tiny_pipeline.create(tmp_path_factory.mktemp("here") / "project", FEW)
    code, output = repository.brainseg("cross-validate", "--quiet")
    assert code == 0, output
    found = results(repository)
    assert sum(name.startswith("cv-") for name in found) == FOLDS and "summary.json" in found
    return found


@pytest.fixture
def repository(tmp_path):
    return tiny_pipeline.create(tmp_path / "project", FEW)


def start(repository: Repository, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*BRAINSEG, *arguments], cwd=repository.folder, env=repository.environment | more, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def follow(process: subprocess.Popen[str], act: Callable[[str], None]) -> tuple[int, str]:
    """Wait for a command and ``act`` on each of its lines. Its exit code and all lines."""
    end, lines = time.monotonic() + WAIT, []
    for line in process.stdout:
        lines.append(line)
        assert time.monotonic() < end, "".join(lines)
        act(line)
    with process:
        return process.wait(), "".join(lines)


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a cluster, and what kills its second node. The folders ``first`` and ``second`` are the nodes'."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.two_nodes", str(folder)], cwd=PROJECT, stdin=subprocess.PIPE,
        env=environment(folder), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        address = process.stdout.readline().strip()

        def kill():
            process.stdin.write("kill\n")
            process.stdin.flush()

        yield address, kill
        process.stdin.close()


def find_inside(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += [each] if Path(each.cwd()).is_relative_to(folder) else []
    return found


def count_epochs(folder: Path) -> list[int]:
    """The last epoch of each training that a node has begun."""
    logs = [path.read_text() for path in (folder / "trainings").glob("*.log")]
    return [len(re.findall(r"^epoch \d", text, re.MULTILINE)) for text in logs]


def require_all(repository: Repository, wanted: dict[str, str], output: str) -> None:
    """The experiments and numbers are those of folds that ran here, and DVC and brainseg know them."""
    assert results(repository) == wanted, output
    names = sorted(name for name in wanted if name.startswith("cv-"))
    shown = repository.dvc("exp", "show", "--csv")[1]
    assert all(name in shown for name in names)
    code, told = repository.brainseg("cross-validate", "--quiet")  # here: nothing is left to do
    assert code == 0 and told.count("is there") == FOLDS
    patients = revision.parse_table(revision.reader(names[0], repository.folder)("metrics/per_patient.csv"))
    tested = patients.loc[patients["subset"] == "test", "patient"].iloc[0]
    code, told = repository.brainseg("show", tested, "--of", names[0])  # its predictions came too
    assert code == 0, told
    code, told = repository.dvc("exp", "apply", names[-1])
    assert code == 0, told
    code, told = repository.dvc("status")
    assert code == 0 and "up to date" in told, told
    code, told = repository.brainseg("compare", names[0], names[0])
    assert code == 0, told


def test_a_node_is_killed_in_the_middle(repository, wanted, tmp_path):
    """Its fold begins again on the other node."""
    killed = []
    with two_nodes(tmp_path) as (address, kill):

        def act(line):
            epochs = count_epochs(tmp_path / "second") if ": epoch" in line and not killed else []
            if any(0 < epoch < EPOCHS // 2 for epoch in epochs):
                kill()
                killed.append(time.monotonic())

        place = ("--on", "ray", "--address", address, "--cpus", "1")
        code, output = follow(start(repository, "cross-validate", "--quiet", *place), act)
    assert code == 0 and killed, output
    assert len(re.findall(r"was lost on .* begins again on another node", output)) == 1, output
    require_all(repository, wanted, output)


def test_a_laptop(tmp_path):
    """A Ray of its own. A fold goes on from its checkpoint after its task was killed, and after Ctrl-C."""
    repository, plain = (tiny_pipeline.create(tmp_path / name, LONG) for name in ("project", "plain"))
    fold = ("cross-validate", "--quiet", "--folds", "0", "--output", "one")
    code, output = plain.brainseg(*fold)
    assert code == 0, output
    wanted = results(plain, "one")
    command = (*fold, "--on", "ray")
    more, told = {"BRAINSEG_NODE_FOLDER": str(tmp_path / "node")}, []
    ran = []
    process = start(repository, *command, **more)

    def act(line):
        epoch = int(found[1]) if (found := re.match(r"fold 0: epoch (\d+) of", line)) else 0
        if not told and epoch >= 5:
            for each in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if each.cmdline()[0].startswith("ray::cv-"):
                        each.kill()
                        told.append("killed")
        if told == ["killed"] and epoch >= 20:
            ran.extend(find_inside(tmp_path / "node"))
            process.send_signal(signal.SIGINT)
            told.append("stopped")

    code, output = follow(process, act)
    assert code == 5 and told == ["killed", "stopped"], output
    assert "it goes on there from its last checkpoint" in output and output.count("fold 0: epoch 1 of") == 1, output
    assert "was stopped; what is finished is kept" in output and "Fix: go on with the same command" in output
    _, left = psutil.wait_procs(ran, timeout=60)
    assert ran and not left and not find_inside(tmp_path / "node")
    assert list((tmp_path / "node/trainings").glob("cv-*-0/*/epoch-*.npz"))
    code, output = follow(start(repository, *command, **more), lambda line: None)
    assert code == 0 and "fold 0: epoch 10 of" not in output, output
    (name,) = [name for name in wanted if name.startswith("cv-")]
    assert "resumed after epoch" in (repository.folder / cross_validation.STATE / f"{name}.log").read_text()
    assert results(repository, "one")[name] == wanted[name]
    assert not list((tmp_path / "node/trainings").glob("*/*/*.npz"))  # no checkpoint is left


@pytest.fixture(scope="module")
def machines_can_be_made():
    if fault := machines.find_fault():
        pytest.skip(f"no machines can be made here: {fault}")


@pytest.mark.usefixtures("machines_can_be_made")
def test_two_machines_without_a_shared_folder(repository, wanted, tmp_path):
    """The second has Python, the requirements and Ray: no Git, and no file of the project but what Ray brought.

    Started as SLURM does (examples/cluster/slurm.sh). It is switched off while it trains its second fold.
    """
    ray = [str(Path(sys.executable).parent / "ray"), "symmetric-run", "--address", "10.77.0.1:6379", "--min-nodes", "2"]
    command = [*ray, "--num-cpus=1", "--", *BRAINSEG, "cross-validate", "--quiet", "--on", "ray", "--address", "auto"]
    own = {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT": "300", "PYTHONUNBUFFERED": "1",
        "BRAINSEG_NODE_FOLDER": str(machines.RAY / "node"),
    }  # fmt: skip
    hidden = [tmp_path, PROJECT / "src"]
    done, trained, lost = [], [], []
    with machines.Wire() as wire:
        first = wire.start(0, command, repository.environment | own, repository.folder)
        bare = {name: value for name, value in repository.environment.items() if name not in ("PYTHONPATH", "HOME")}
        second = wire.start(1, command, bare | own | {"HOME": "/tmp/ray"}, Path("/"), hidden, alone=True)

        def act(line):
            if found := re.match(r"fold (\d): train on machine1", line):
                trained.append(found[1])
            elif not lost and (found := re.match(r"fold (\d): done", line)) and found[1] in trained:
                done.append(found[1])
            elif done and not lost and (found := re.match(r"fold (\d): epoch", line)) and found[1] == trained[-1]:
                wire.cut(1)
                second.kill()
                lost.append(found[1])

        try:
            code, output = follow(first, act)
        finally:
            second.kill()
            first.kill()
    assert code == 0, output + second.stdout.read()
    assert done and lost, output
    assert f"-{lost[0]} was lost on machine1" in output and "begins again on another node" in output
    require_all(repository, wanted, output)


def test_a_search(repository, tmp_path):
    """Its trials run on both nodes; afterwards the study and the experiments are here, and nothing is run again."""
    space = "parameters:\n  train.learning_rate: {low: 0.0005, high: 0.02, log: true}\nfixed: {train: {epochs: 3}}\n"
    (repository.folder / "space.yaml").write_text(space)
    command = ("tune", "space.yaml", "--trials", "2", "--repeats", "0", "--no-verdict", "--quiet")
    with two_nodes(tmp_path) as (address, _):
        code, output = follow(start(repository, *command, "--on", "ray", "--address", address), lambda line: None)
    assert code == 0, output
    assert all((tmp_path / name / "trainings").is_dir() for name in ("first", "second")), output
    table = pd.read_csv(repository.folder / "metrics/tune/space/trials.csv")
    assert set(table["state"]) <= {"done", "stopped"} and len(table) == 2
    shown = repository.dvc("exp", "show", "--csv")[1]
    assert all(name in shown for name in table.loc[table["state"] == "done", "experiments"])
    code, output = repository.brainseg(*command)  # here
    assert code == 0 and "trial 0" not in output and "trial 2" not in output, output
