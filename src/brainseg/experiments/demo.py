"""`make demo`: the whole pipeline on phantoms, in a copy of the project, so that the project does not change."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from brainseg.errors import MachineError, RunError
from brainseg.evaluation import evaluate, results
from brainseg.experiments import cross_validation, repro

FOLDER = ".demo"
WORKSPACE_SETTINGS = ("DVC_", "GIT_", "MLFLOW_")  # prefixes of settings of the workspace that must not reach the copy
SETTINGS = ("user.name=demo", "user.email=demo@localhost", "commit.gpgsign=false", "core.hooksPath=")


def run(root: Path = Path()) -> str:
    """Copy the tracked tree to ``.demo/``, apply recipes/demo.yaml there, run ``dvc repro``.

    Returns:
        The table of test numbers, and the paths of report and gallery.

    Raises:
        RunError: ``dvc repro`` failed; it has printed its own messages.
    """
    copy = root / FOLDER
    copy_tracked(root, copy)
    override(copy / "params.yaml", repro.load_recipe("demo", root))
    commit(copy)
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=copy, env=environment())
    if done.returncode:
        raise RunError(copy, f"dvc repro ended with code {done.returncode}", "read the first ERROR above")
    report = results.read(copy / "metrics/evaluation.json", results.Evaluation)
    return f"{evaluate.table(report)}\nReport:  {copy}/metrics/report.html\nGallery: {copy}/metrics/plots"


def copy_tracked(root: Path, copy: Path) -> None:
    """Copy what git tracks under ``root``, as it is in the workspace, to ``copy``, which is emptied first.

    The cross-validation is not copied: no stage replaces it, and it would be of other data than the copy's results.
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
    """Make ``copy`` a git repository with one commit, which DVC needs."""
    git(copy, "init", "--quiet")
    git(copy, "add", "--all")
    git(copy, *(part for setting in SETTINGS for part in ("-c", setting)), "commit", "--quiet", "--message", "demo")


def environment() -> dict[str, str]:
    return {name: value for name, value in repro.environment().items() if not name.startswith(WORKSPACE_SETTINGS)}


def git(folder: Path, *arguments: str) -> str:
    """Run git in ``folder`` without the settings of a surrounding git hook; return what it prints."""
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise MachineError(f"git {' '.join(arguments)}", done.stderr.strip(), "run this in a git clone of the project")
    return done.stdout
