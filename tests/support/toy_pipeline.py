"""A repository with this project's DVC settings and a pipeline that takes no time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support import run_files, shared

PROJECT = Path(__file__).parents[2]
MODEL = ("models/unet.weights.h5", "models/unet.json")
PIPELINE = """\
stages:
  data:
    cmd: python stages/data.py
    deps: [stages/data.py]
    outs: [data/images.npy]
  train:
    cmd: python stages/train.py
    deps: [stages/train.py, data/images.npy]
    params: [train.epochs, train.loss]
    outs:
      - models/unet.weights.h5: {remote: weights}
      - models/unet.json: {remote: weights}
    plots:
      - metrics/training.csv: {cache: false}
      - metrics/plots: {cache: false}
"""
DATA = """\
from pathlib import Path
Path("data").mkdir(exist_ok=True)
Path("data/images.npy").write_bytes(b"images" * 1000)
"""
TRAIN = """\
import hashlib, json
from pathlib import Path
weights = Path("data/images.npy").read_bytes() + Path("params.yaml").read_bytes()
for folder in ("models", "metrics/plots/more"):
    Path(folder).mkdir(parents=True, exist_ok=True)
Path("models/unet.weights.h5").write_bytes(weights)
digest = hashlib.sha256(weights).hexdigest()
Path("models/unet.json").write_text(json.dumps(MANIFEST | {"weights_sha256": digest}))
for name in ("training.csv", "plots/curves.png", "plots/more/a.png"):
    Path("metrics", name).write_text(name)
""".replace("MANIFEST", repr(run_files.manifest(seen=[])))


def environment(home: Path, **more: str) -> dict[str, str]:
    """An environment of its own for DVC and git: no settings, account or cache of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_", "AWS_", "MLFLOW_"))}
    identity = {f"GIT_{who}_{what}": "toy@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    own = {"HOME": str(home), "DVC_SITE_CACHE_DIR": str(home / "site"), "DVC_NO_ANALYTICS": "1"}
    here = os.pathsep.join([os.path.dirname(sys.executable), kept["PATH"]])
    return kept | identity | own | {"PATH": here, "PYTHONPATH": str(PROJECT / "src")} | more


HANGS = 3000  # seconds: no limit of speed, also not for trainings of several folds on a busy machine


class Repository:
    """A folder in which git, DVC and brainseg are run; each returns exit code and output."""

    def __init__(self, folder: Path, **more: str):
        self.folder = folder
        self.environment = environment(folder.parent, **more)

    def run(self, *command: str, timeout: float = HANGS) -> tuple[int, str]:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        return done.returncode, done.stdout + done.stderr

    def git(self, *arguments: str) -> str:
        code, output = self.run("git", *arguments)
        assert code == 0, output
        return output

    def dvc(self, *arguments: str, timeout: float = HANGS) -> tuple[int, str]:
        return self.run(sys.executable, "-m", "dvc", *arguments, timeout=timeout)

    def brainseg(self, *arguments: str) -> tuple[int, str]:
        return self.run(sys.executable, "-c", "from brainseg import cli; cli.main()", *arguments)

    def clone(self, folder: Path, **more: str) -> "Repository":
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.git("clone", "--quiet", str(self.folder), str(folder))
        return Repository(folder, **more)


def create(folder: Path) -> Repository:
    """The toy pipeline, reproduced and committed, made once and then copied."""
    shutil.copytree(shared.folder("toy", _make) / "toy", folder)
    return Repository(folder)


def write(folder: Path, contents: Mapping[str, str]) -> Repository:
    """A new repository with these files and the settings of DVC that the project has; nothing is committed."""
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(PROJECT / ".dvc" / name, folder / ".dvc" / name)
    repository = Repository(folder)
    repository.git("init", "--quiet", "--initial-branch=main")
    return repository


def _make(home: Path) -> None:
    folder = home / "toy"
    contents = {"dvc.yaml": PIPELINE, "stages/data.py": DATA, "stages/train.py": TRAIN, ".gitignore": "/.brainseg/\n"}
    contents |= {
        "params.yaml": "train:\n  epochs: 2\n  loss: dice\n",
        "recipes/more.yaml": "train: {epochs: 3, loss: a b}\n",
    }
    repository = write(folder, contents)
    code, output = repository.dvc("repro")
    assert code == 0, output
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "toy")


def flip(path: Path) -> None:
    """Flip one bit of a file and leave its mode and times as they were."""
    before = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
