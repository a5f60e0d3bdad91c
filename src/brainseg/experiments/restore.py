"""`brainseg restore`: parameters, numbers, and the results that can be had, back to those of the last commit.

`git restore . && dvc checkout` would take unsaved changes along, and fails where a result is in no cache, as the data
are in every clone that has not rebuilt them. Here nothing is lost: changes go to Git's stash, results that DVC's cache
does not hold to ``.brainseg/before-restore``.
"""

import contextlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

from brainseg import files
from brainseg.data import inputs
from brainseg.errors import DataError, IntegrityError, MachineError, Problem, raise_all
from brainseg.experiments import demo, integrity, repro

TRACKED = ("params.yaml", "dvc.lock", "metrics")
ASIDE = "before-restore"  # in the folder of the project's state


def run(root: Path = Path()) -> None:
    """Bring the committed run back; of its results those that DVC's cache or ``weights/`` has.

    Prints what was done, what is kept where, and what is not here, with the command that makes it: each line when it
    is true, so that nothing is moved without a word if a later step fails.

    Raises:
        DataError: the last commit has no run.
        MachineError: another run is going on, or Git or DVC refuses.
        IntegrityError: what the cache has is damaged.
    """
    integrity.check_git(root)
    if not demo.git(root, "ls-tree", "--name-only", "HEAD", "dvc.lock"):
        what = "the last commit has none, so there is no run to go back to"
        raise DataError(root / "dvc.lock", what, "brainseg repro, then commit params.yaml, dvc.lock and metrics")
    repro.refuse_running(root)
    repro.clean_up(root)
    _restore_tracked(root)
    wrong = [out for out in integrity.list_outs(root) if out.cached and integrity.check_out(root, out)]
    _put_away(root, wrong)
    _check_out(root, [out.path for out in wrong])
    for out in wrong:
        files.give_own_copy(root / out.path)
    _report(root, wrong)


def _restore_tracked(root: Path) -> None:
    """Put what differs from the last commit into a stash, from where it can be had again."""
    changed = demo.git(root, "status", "--porcelain", "--untracked-files=all", "--", *TRACKED).splitlines()
    if changed:
        demo.git(root, "stash", "push", "--include-untracked", "--message", "before brainseg restore", "--", *TRACKED)
        what = "1 changed file is" if len(changed) == 1 else f"{len(changed):,} changed files are"
        print(f"{what} kept: git stash show --include-untracked names, git stash pop brings back")
    commit = demo.git(root, "log", "-1", "--format=%h").strip()
    print(f"params.yaml, dvc.lock and metrics/ are those of commit {commit}")


def _put_away(root: Path, outs: Sequence[integrity.Entry]) -> None:
    """Remove other results from the place of the committed ones; those that no cache holds are moved.

    Damaged objects of the cache are moved as well: DVC would hand them out, and take no good one for them.
    """
    cache = integrity.find_cache(root) / "files/md5"
    aside = _free_folder(files.state_dir() / ASIDE)
    for out in outs:
        path = root / out.path
        if path.is_file() and _holds(cache, path):
            path.unlink()
        elif path.exists():
            (aside / out.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, aside / out.path)
            print(f"{out.path}, which DVC's cache does not hold, is kept in {aside}")
        held = cache / out.md5[:2] / out.md5[2:]
        if held.is_file() and inputs.md5(held) != out.md5.removesuffix(".dir"):
            (aside / "cache" / out.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(held, aside / "cache" / out.path)
            print(f"the object of {out.path} in DVC's cache was damaged; it is kept in {aside / 'cache'}")


def _holds(cache: Path, path: Path) -> bool:
    """Whether a cache has a file, undamaged."""
    name = inputs.md5(path)
    held = cache / name[:2] / name[2:]
    return held.is_file() and inputs.md5(held) == name


def _free_folder(folder: Path) -> Path:
    """A folder of this run's own below ``folder``."""
    number = 1 + max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()), default=0)
    return folder / str(number)


def _check_out(root: Path, paths: list[str]) -> None:
    from dvc.cli import main as run_dvc

    models = [path for path in paths if path.startswith("models/")]
    if models:  # it ends with an error where a model is not released: the report has it as not here
        with contextlib.redirect_stderr(io.StringIO()):
            run_dvc(["--cd", str(root), "fetch", "--quiet", *models])
    if paths and (code := run_dvc(["--cd", str(root), "checkout", "--quiet", "--allow-missing", *paths])):
        raise MachineError("dvc checkout", f"ended with code {code}", f"read what it says: dvc checkout {paths[0]}")


def _report(root: Path, outs: Sequence[integrity.Entry]) -> None:
    """Say what came back, and what did not."""
    problems: list[Problem] = []
    there = [out for out in outs if (root / out.path).exists()]
    for out in there:
        problems += integrity.check_out(root, out)
    raise_all(problems, IntegrityError)
    if there:
        print(f"restored: {', '.join(out.path for out in there)}")
    if missing := [out.path for out in outs if out not in there]:
        print(f"not here: {', '.join(missing)}")
        print("brainseg repro makes them again; dvc pull fetches them where a remote of yours has them")
