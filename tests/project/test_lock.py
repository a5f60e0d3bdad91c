"""dvc.lock and weights/ are of this tree; a lock of another one is found."""

import shutil
from pathlib import Path

import pytest

from brainseg.data import inputs
from tests.support import toy_pipeline
from tests.support.locked import lock_faults

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / "dvc.lock").exists(), reason="no run is committed yet")
def test_the_lock_is_of_this_tree():
    assert lock_faults(ROOT) == []


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The toy pipeline with its model pushed into weights/."""
    toy = toy_pipeline.create(tmp_path_factory.mktemp("lock") / "toy")
    assert toy.dvc("push", *toy_pipeline.MODEL)[0] == 0
    return toy.folder


def replaced(name: str, old: str, new: str):
    def tamper(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return tamper


def an_object(root: Path) -> Path:
    return min((root / "weights/files/md5").glob("*/*"))


TAMPERED = {
    "train: another cmd": replaced("dvc.yaml", "python stages/train.py", "python -O stages/train.py"),
    "train: stages/train.py changed": replaced("stages/train.py", "import hashlib", "import  hashlib"),
    "data: stages/data.py changed": lambda root: (root / "stages/data.py").unlink(),
    "train: data/images.npy changed": lambda root: replaced("dvc.lock", images(root), 32 * "f")(root),
    "train: other deps": replaced("dvc.yaml", "deps: [stages/train.py, ", "deps: [params.yaml, stages/train.py, "),
    "train: train.epochs changed": replaced("params.yaml", "epochs: 2", "epochs: 3"),
    "train: train.loss changed": replaced("params.yaml", "  loss: dice", ""),
    "train: other params": replaced("dvc.yaml", "[train.epochs, train.loss]", "[train.epochs]"),
    "train: other outs": replaced("dvc.yaml", "      - metrics/training.csv: {cache: false}\n", ""),
    "dvc.lock has the stages data, train": replaced("dvc.yaml", "  data:", "  date:"),
    "metrics/training.csv: not": replaced("metrics/training.csv", "training", "trainings"),
    "metrics/plots: not": replaced("metrics/plots/more/a.png", "a", "b"),
    "metrics/plots: not the": lambda root: shutil.rmtree(root / "metrics/plots"),
    "weights/files": lambda root: an_object(root).unlink(),
    "weights/files/md5": lambda root: toy_pipeline.flip(an_object(root)),
    "weights/more.txt": lambda root: (root / "weights/more.txt").touch(),
}


def images(root: Path) -> str:
    return inputs.md5(root / "data/images.npy")


@pytest.mark.parametrize("fault", TAMPERED)
def test_a_lock_of_another_tree_is_found(fault, released, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(released, root, ignore=shutil.ignore_patterns(".git", ".dvc"))
    assert lock_faults(root) == []
    TAMPERED[fault](root)
    assert [found for found in lock_faults(root) if found.startswith(fault)]


def test_weights_of_a_clone_are_bounded(released):
    size = sum(path.stat().st_size for path in (released / "weights").rglob("*") if path.is_file())
    assert lock_faults(released, size) == []
    assert lock_faults(released, size - 1) == [f"weights/ has {size:,} bytes"]
