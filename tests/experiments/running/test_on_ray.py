"""Folds and trials on Ray clusters that lose a node: all there at the end, byte for byte those that were run without.

``make test-cluster`` installs Ray and runs these.
"""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brainseg.experiments import cross_validation
from tests.support import tiny_pipeline
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
WAIT = 2400  # seconds, also on a busy machine
BRAINSEG = [sys.executable, "-c", "from brainseg import cli; cli.main()"]


def results(repository: Repository) -> dict[str, str]:
    """The content of each fold's experiment: Git's digest of all its files, dvc.lock with the models' MD5s among them.

    And of what the cross-validation writes.
    """
    listed = repository.git("for-each-ref", "--format=%(refname)", "refs/exps").split()
    found = {name.rpartition("/")[2]: repository.git("rev-parse", f"{name}^{{tree}}").strip() for name in listed}
    folder = repository.folder / cross_validation.FOLDER
    return found | {path.name: path.read_bytes().hex() for path in folder.iterdir()}


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


def follow(
    command: list[str], repository: Repository, act: Callable[[str], None], **more: str
) -> tuple[int, str]:  # fmt: skip
    """Run a command and ``act`` on each of its lines. Its exit code and all lines."""
    end, lines = time.monotonic() + WAIT, []
    with subprocess.Popen(
        command, cwd=repository.folder, env=repository.environment | more, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        for line in process.stdout:
            lines.append(line)
            assert time.monotonic() < end, "".join(lines)
            act(line)
    return process.returncode, "".join(lines)


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
    code, told = repository.brainseg("show", "P", "--of", names[0])  # its predictions came too
    assert code in (0, 2) and "is not in DVC's cache" not in told, told
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

        command = [*BRAINSEG, "cross-validate", "--quiet", "--on", "ray", "--address", address, "--cpus", "1"]
        code, output = follow(command, repository, act)
    assert code == 0 and killed, output
    assert len(re.findall(r"was lost on .* begins again on another node", output)) == 1, output
    require_all(repository, wanted, output)
