"""`make demo`: the whole pipeline on phantoms, in a copy of the project, so that this one stays as it is."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from brainseg.errors import MachineError, RunError
from brainseg.evaluation import evaluate
from brainseg.experiments import cross_validation, repro

FOLDER = ".demo"
FOREIGN = ("DVC_", "GIT_", "MLFLOW_")  # settings of the workspace that must not reach the copy
SETTINGS = ("user.name=demo", "user.email=demo@localhost", "commit.gpgsign=false", "core.hooksPath=")


def run(root: Path = Path()) -> str:
    """Copy the tracked tree to ``.demo/``, apply recipes/demo.yaml there, run ``dvc repro``.

    Returns:
        The table of test numbers with the paths of report and gallery.

    Raises:
        RunError: ``dvc repro`` failed; its own messages are above.
    """
    copy = root / FOLDER
    copy_tracked(root, copy)
    override(copy / "params.yaml", repro.load("demo", root))
    commit(copy)
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=copy, env=environment())
    if done.returncode:
        raise RunError(copy, f"dvc repro ended with code {done.returncode}", "read the first ERROR above")
    report = json.loads((copy / "metrics/evaluation.json").read_text(encoding="utf-8"))
    return f"{evaluate.table(report)}\nReport:  {copy}/metrics/report.html\nGallery: {copy}/metrics/plots"


def copy_tracked(root: Path, copy: Path) -> None:
    """Copy what git tracks under ``root``, as it is in the workspace, to an emptied ``copy``.

    The cross-validation stays behind: no stage replaces it, and beside the copy's results it would be of other data.
    """
    shutil.rmtree(copy, ignore_errors=True)
    for name in git(root, "ls-files", "-z").split("\0"):
        if (root / name).is_file() and not Path(name).is_relative_to(cross_validation.FOLDER):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)


def override(params: Path, changes: dict) -> None:
    """Write ``changes``, nested like params.yaml, into it; the stages check the result."""
    editor = YAML()
    content = editor.load(params.read_text(encoding="utf-8"))
    for block, values in changes.items():
        content[block].update(values)
    text = io.StringIO()
    editor.dump(content, text)
    params.write_text(text.getvalue(), encoding="utf-8")


def commit(copy: Path) -> None:
    """Make ``copy`` a git repository of one commit: DVC wants one."""
    git(copy, "init", "--quiet")
    git(copy, "add", "--all")
    git(copy, *(part for setting in SETTINGS for part in ("-c", setting)), "commit", "--quiet", "--message", "demo")


def environment() -> dict[str, str]:
    return {name: value for name, value in repro.environment().items() if not name.startswith(FOREIGN)}


def git(folder: Path, *arguments: str) -> str:
    """Run git in ``folder``, free of a surrounding hook's settings; return what it prints."""
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise MachineError(f"git {' '.join(arguments)}", done.stderr.strip(), "run this in a git clone of the project")
    return done.stdout
