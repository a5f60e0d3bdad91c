"""A project with the stages that trainings find done, and a training that takes no time; real Git, real DVC."""

import shutil
from pathlib import Path

from tests.support import shared, toy_pipeline
from tests.support.toy_pipeline import Repository

PIPELINE = """\
stages:
  download: {cmd: python stages/download.py, deps: [stages/download.py], outs: [data/raw.txt]}
  preprocess: {cmd: python stages/preprocess.py, deps: [stages/preprocess.py, data/raw.txt], outs: [data/images.npy]}
  brains: {cmd: python stages/brains.py, deps: [stages/brains.py, data/images.npy], outs: [data/brains.npy]}
  split:
    cmd: python stages/split.py
    deps: [stages/split.py, data/images.npy]
    params: [split.test_fold]
    outs: [data/split.csv]
  train:
    cmd: python stages/train.py
    deps: [stages/train.py, data/images.npy, data/brains.npy, data/split.csv]
    params: [train.epochs]
    outs: [models/weights, models/folder]
    metrics: [metrics/summary.json: {cache: false}]
"""
COPY = """\
from pathlib import Path
Path("data").mkdir(exist_ok=True)
Path("data/{}").write_text(Path({!r}).read_text() + {!r})
"""
TRAIN = """\
import os
from pathlib import Path
epochs = int(Path("params.yaml").read_text().split("epochs: ")[1].split()[0])
if epochs > 8:
    raise SystemExit("ERROR 2 params.yaml: train.epochs: is above 8. Fix: lower it")
for epoch in range(epochs):
    print(f"epoch {epoch + 1}/{epochs}  loss 0.41  validation volume Dice 0.{epoch}00 (best", flush=True)
Path("models/folder").mkdir(parents=True, exist_ok=True)
Path("metrics").mkdir(exist_ok=True)
Path("models/weights").write_text(Path("data/split.csv").read_text() * epochs)
Path("models/folder/a").write_text("a")
Path("models/folder/b").write_text("b")
Path("metrics/summary.json").write_text("{}")
assert not os.environ.get("BROKEN")
"""
SPLIT = COPY.format("split.csv", "data/images.npy", "split ") + (
    "with open('data/split.csv', 'a') as file: file.write(Path('params.yaml').read_text().split('fold: ')[1][0])\n"
)


def create(folder: Path) -> Repository:
    """The project, whose data is prepared; its dvc.lock is not committed. Made once and then copied."""
    shutil.copytree(shared.folder("prepared", _make) / "prepared", folder)
    return Repository(folder)


def _make(home: Path) -> None:
    folder = home / "prepared"
    contents = {
        "dvc.yaml": PIPELINE,
        "params.yaml": "split:\n  test_fold: 0\ntrain:\n  epochs: 2\n",
        "stages/download.py": COPY.format("raw.txt", "dvc.yaml", "raw "),
        "stages/preprocess.py": COPY.format("images.npy", "data/raw.txt", "images "),
        "stages/brains.py": COPY.format("brains.npy", "data/images.npy", "brains "),
        "stages/split.py": SPLIT,
        "stages/train.py": TRAIN,
        ".gitignore": "/.brainseg/\n",
        "models/.gitignore": "/weights\n/folder\n",
    }
    repository = toy_pipeline.write(folder, contents)
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "toy")
    code, output = repository.dvc("repro", "brains", "split")
    assert code == 0, output
    repository.git("add", "data")  # the names of what DVC keeps
    repository.git("commit", "--quiet", "--message", "prepared")
