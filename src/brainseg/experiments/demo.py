"""`make demo`: the whole pipeline on phantoms, in a copy of the project, so that the project does not change.

The copy stays: a later call brings into it what changed in the project and nothing else, and DVC makes again what that
touches. What somebody changed in the copy is theirs.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from brainseg import config, files
from brainseg.data import inputs
from brainseg.errors import DataError, MachineError, RunError, show_some
from brainseg.evaluation import evaluate, results
from brainseg.experiments import cross_validation, integrity, repro

FOLDER = ".demo"
RECORD = Path(".brainseg/demo.json")  # in the copy: the MD5 of each file of the project as it was copied
MADE = ("dvc.lock", "metrics")  # what Git has and the stages write: in the copy they are those of its own run
AGAIN = "make demo FRESH=1 starts again, and removes what is in it"
WORKSPACE_SETTINGS = ("DVC_", "GIT_", "MLFLOW_")  # prefixes of settings of the workspace that must not reach the copy
SETTINGS = ("user.name=demo", "user.email=demo@localhost", "commit.gpgsign=false", "core.hooksPath=")
NO_GIT = "[core]\n    no_scm = true\n"  # DVC's setting for a folder in no repository


def run(root: Path = Path(), *, fresh: bool = False) -> str:
    """Bring ``.demo/`` up to date with the project and recipes/demo.yaml, and run ``dvc repro`` there.

    Args:
        fresh: remove an earlier ``.demo/`` first.

    Returns:
        The table of test numbers, and the paths of report and gallery.

    Raises:
        DataError: ``.demo/`` is not from here, so that nobody knows what was changed in it.
        MachineError: something is running in ``.demo/``.
        RunError: ``dvc repro`` failed; it has printed its own messages.
    """
    copy = root / FOLDER
    if copy.exists():
        repro.refuse_running(copy)
    if fresh:
        shutil.rmtree(copy, ignore_errors=True)
    prepare(root, copy)
    repro.clean_up(copy)
    done = subprocess.run([sys.executable, "-m", repro.DVC, "repro"], cwd=copy, env=environment())
    if done.returncode:
        raise RunError(copy, f"dvc repro ended with code {done.returncode}", "read the first ERROR above")
    report = results.read(copy / "metrics/evaluation.json", results.Evaluation)
    return f"{evaluate.table(report)}\nReport:  {copy}/metrics/report.html\nGallery: {copy}/metrics/plots"


def prepare(root: Path, copy: Path) -> None:
    """Make the copy, or bring an earlier one up to date.

    Raises:
        DataError: there is another folder of that name.
    """
    if copy.exists() and not (copy / RECORD).is_file():
        what = "is of an earlier version, or not a demo: nobody knows what was changed in it"
        raise DataError(copy, what, f"rename it, or: {AGAIN}")
    with files.temporary_beside(root / ".brainseg/demo") as folder:
        tree = folder / FOLDER
        copy_tracked(root, tree)
        override(tree / "params.yaml", repro.load_recipe("demo", root))
        _write_record(tree, {name: inputs.md5(tree / name) for name in _list_files(tree)})
        if copy.exists():
            print(f"{copy} is there: what is up to date in it is not made again ({AGAIN})", file=sys.stderr, flush=True)
            _update(tree, copy)
        else:
            commit(tree)
            os.replace(tree, copy)


def _list_files(tree: Path) -> Iterator[str]:
    """The files of a new copy that no stage writes."""
    for path in tree.rglob("*"):
        name = path.relative_to(tree)
        if path.is_file() and name.parts[0] not in MADE:
            yield name.as_posix()


def _update(tree: Path, copy: Path) -> None:
    """Bring what changed in the project since the last copy into ``copy``, except files that somebody changed there."""
    now, then = _read_record(tree), _read_record(copy)
    there = {name: inputs.name_md5(copy / name) for name in sorted({*now, *then})}
    theirs = [name for name, md5 in there.items() if md5 not in (then.get(name, ""), now.get(name, ""))]
    if "params.yaml" in theirs and _list_keys(tree) != _list_keys(copy):
        what = "was changed there, and the project's has other parameters now"
        raise DataError(copy / "params.yaml", what, f"rename {copy}, or: {AGAIN}")
    changed = [name for name, md5 in there.items() if name not in theirs and md5 != now.get(name, "")]
    for name in changed:
        if name in now:
            with files.replacing(copy / name) as written:
                shutil.copy2(tree / name, written)
        else:
            (copy / name).unlink()
    record = {name: md5 for name, md5 in now.items() if name not in theirs}
    _write_record(copy, record | {name: md5 for name, md5 in then.items() if name in theirs})
    if changed:
        print(f"brought into it from the project: {show_some(changed, 5)}", file=sys.stderr, flush=True)
        if (copy / ".git").exists() and shutil.which("git"):
            git(copy, "add", "--all", "--force", "--", *changed)
            _commit(copy, "the project has changed", "--allow-empty", "--", *changed)
    if theirs:
        print(f"as you changed them there: {show_some(theirs, 5)}", file=sys.stderr, flush=True)


def _list_keys(tree: Path) -> set[str]:
    return set(config.flatten(config.read_yaml(tree / "params.yaml")))


def _read_record(copy: Path) -> dict[str, str]:
    return json.loads((copy / RECORD).read_bytes())


def _write_record(copy: Path, record: dict[str, str]) -> None:
    files.write_text(copy / RECORD, json.dumps(record, indent=1) + "\n")


def copy_tracked(root: Path, copy: Path) -> None:
    """Copy what git tracks under ``root``, as it is in the workspace, to ``copy``, which is emptied first.

    The cross-validation is not copied: no stage replaces it, and it would be of other data than the copy's results.
    """
    shutil.rmtree(copy, ignore_errors=True)
    for name in list_tracked(root):
        if (root / name).is_file() and not Path(name).is_relative_to(cross_validation.FOLDER):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)


def list_tracked(root: Path) -> list[str]:
    """What git tracks under ``root``; in a zip of the sources, or without git, all that no .gitignore names."""
    if shutil.which("git"):
        done = subprocess.run(["git", "ls-files", "-z"], cwd=root, env=environment(), capture_output=True, text=True)
        names = done.stdout.split("\0")[:-1]
        if "dvc.yaml" in names:  # else it is a folder in another project's repository
            return names
    from dulwich.ignore import IgnoreFilterManager

    ignored, found = IgnoreFilterManager(str(root), [], False), []
    for place, folders, names in os.walk(root):
        here = Path(place).relative_to(root)
        folders[:] = {name for name in folders if not ignored.is_ignored(f"{(here / name).as_posix()}/")} - {".git"}
        found += [path for name in names if not ignored.is_ignored(path := (here / name).as_posix())]
    return sorted(found)


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
    """Make ``copy`` a git repository with one commit; where git is not installed, tell DVC that there is none."""
    if not shutil.which("git"):
        (copy / ".dvc/config.local").write_text(NO_GIT)
        return
    git(copy, "init", "--quiet")
    git(copy, "add", "--all")
    _commit(copy, "demo")


def _commit(copy: Path, message: str, *paths: str) -> None:
    settings = (part for setting in SETTINGS for part in ("-c", setting))
    git(copy, *settings, "commit", "--quiet", "--message", message, *paths)


def environment() -> dict[str, str]:
    return {name: value for name, value in repro.environment().items() if not name.startswith(WORKSPACE_SETTINGS)}


def git(folder: Path, *arguments: str) -> str:
    """Run git in ``folder`` without the settings of a surrounding git hook; return what it prints."""
    if not shutil.which("git"):
        raise MachineError("git", "is not installed, which this command needs", integrity.INSTALL_GIT)
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise MachineError(f"git {' '.join(arguments)}", done.stderr.strip(), "run this in a git clone of the project")
    return done.stdout
