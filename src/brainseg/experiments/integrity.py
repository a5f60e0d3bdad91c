"""`brainseg verify-data`: read every object and compare its digest with its name.

DVC trusts a read-only file in its cache and does not notice a flipped bit in it.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from brainseg import config
from brainseg.data import inputs
from brainseg.errors import DataError, IntegrityError, MachineError, Problem, raise_all
from brainseg.inference import sealed
from brainseg.models import manifest

INSTALL_GIT = "install Git: apt install git, brew install git, or https://git-scm.com/downloads"


class Entry(NamedTuple):
    """An out of dvc.lock: path from the root, MD5 (ends in ``.dir`` for a folder), whether DVC's cache holds it."""

    path: str
    md5: str
    cached: bool


def run(root: Path = Path()) -> str:
    """Check DVC's cache, the released weights, the workspace's outs and the model.

    Raises:
        IntegrityError: all objects whose bytes do not fit their name, each with the command that restores it.
    """
    outs = list(list_outs(root))
    users = {entry.md5: entry.path for entry in outs}
    cached = find_cache(root) / "files/md5"
    cache, released = _list_objects(cached), _list_objects(root / "weights/files/md5")
    present = [entry for entry in outs if (root / entry.path).exists()]
    problems: list[Problem] = []
    with tqdm(total=len(cache) + len(released) + len(present), desc="verify", unit="object", disable=None) as bar:
        for path in cache:
            problems += _check_object(path, _restore_command(path, users.get(_name(path))))
            bar.update()
        for path in released:
            problems += _check_object(path, f"git checkout {path}")
            bar.update()
        told = {Path(problem.path) for problem in problems}
        for entry in present:
            if cached / entry.md5[:2] / entry.md5[2:] not in told:  # else a check-out would bring the damage back
                problems += check_out(root, entry)
            bar.update()
    problems += _check_model(root / "models")
    raise_all(problems, IntegrityError)
    read = f"{len(cache)} objects in the cache, {len(released)} released, {len(present)} of {len(outs)} outs"
    return f"verified {read}: all intact"


def list_outs(root: Path) -> Iterator[Entry]:
    pipeline = config.read_yaml(root / "dvc.yaml")["stages"]
    for name, stage in inputs.read_stages(root).items():
        declared = pipeline.get(name, {})
        outs = [out for key in ("outs", "metrics", "plots") for out in declared.get(key, [])]
        options = [out for out in outs if isinstance(out, dict)]
        uncached = {path for out in options for path, flags in out.items() if flags.get("cache") is False}
        for out in stage.get("outs", []):
            yield Entry(out["path"], out["md5"], out["path"] not in uncached)


def find_cache(root: Path) -> Path:
    """The folder of DVC's cache, as DVC is configured."""
    asked = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], cwd=root, capture_output=True, text=True)
    if asked.returncode:
        raise MachineError("dvc cache dir", asked.stderr.strip(), "run in the project's top folder, after: make setup")
    return root / asked.stdout.strip()


def _list_objects(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9a-f][0-9a-f]/*") if path.is_file())


def _name(path: Path) -> str:
    return path.parent.name + path.name


def _check_object(path: Path, fix: str) -> list[Problem]:
    found, name = inputs.md5(path), _name(path)
    return [] if found == name.removesuffix(".dir") else [Problem(str(path), f"its MD5 is {found}, not its name", fix)]


def _restore_command(path: Path, user: str | None) -> str:
    """The command that restores an object of the cache."""
    if user is None:
        return f"rm -f {path} (nothing here needs it)"
    return f"rm -f {path} {user}, then dvc pull {user} (from a remote), or dvc repro (builds it again)"


def check_out(root: Path, entry: Entry) -> list[Problem]:
    """What is wrong with an out; nothing if it is what dvc.lock says."""
    path = root / entry.path
    if not path.exists():
        return [Problem(str(path), "there is no such file", "dvc repro")]
    found = inputs.name_md5(path)
    if found == entry.md5:
        return []
    fix = f"rm -rf {entry.path} && dvc checkout {entry.path}" if entry.cached else f"git checkout {entry.path}"
    return [Problem(str(path), f"its MD5 is {found}, dvc.lock says {entry.md5}", f"{fix}, or dvc repro")]


def _check_model(models: Path) -> list[Problem]:
    """The weights by the manifest, the exported files by their own digests; what is not there needs no check."""
    problems: list[Problem] = []
    for path in sorted(models.glob("unet.*")):
        try:
            if path.name == "unet.json":
                manifest.check(manifest.read(path), models / "unet.weights.h5")
            elif path.suffix == ".onnx":
                sealed.read(path)
        except IntegrityError as error:
            problems += error.problems
    return problems


def check_git(root: Path) -> None:
    """Refuse a folder in no Git repository, or in one without a commit: the download of a zip has none.

    DVC does nothing without a repository, and tries no other parameters without a commit.
    """
    git, fix = shutil.which("git"), "git init && git add . && git commit -m start"
    if not any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents)):
        what = "is in no Git repository, which DVC needs"
        raise DataError(root.resolve(), what, fix if git else f"{INSTALL_GIT}; then: {fix}")
    if not git:
        return
    head = subprocess.run([git, "rev-parse", "-q", "--verify", "HEAD"], cwd=root, capture_output=True, check=False)
    if head.returncode == 1:  # other codes are faults of Git itself, such as a repository of another owner
        raise DataError(root.resolve(), "is in a Git repository without a commit, which DVC needs", fix)
