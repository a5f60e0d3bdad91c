"""A disk that is full at a random byte, under each place that the program writes to. Linux: a tmpfs is that disk.

It is mounted in a mount namespace of this process alone (``unshare``, as root or in a user namespace), so that nobody
else sees it and nothing stays. The program must say which disk is full, and once there is space the next run must end
with the bytes of an undisturbed one; what was there before may not be lost.
"""

import csv
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.torture import flip_uses, flip_world, project
from tests.torture.report import Result, attempt_each

COUNT = 60
NAMED = "named its disk, nothing lost"
GOOD = frozenset((NAMED,))
INSIDE = "BRAINSEG_TORTURE_NAMESPACE"
PAGE = 4096
PLACES = {  # path → bytes that a run needs there, about; the disk gets a random share of them
    "data/raw": 2_000_000, "data/processed": 1_500_000, "models": 500_000, "metrics": 500_000, ".brainseg": 600_000,
    ".dvc/cache": 3_000_000, "answers": 200_000, "store": 1_000_000,
}  # fmt: skip
CASES = 4  # copies of the pictures that answers/ gets


def run(seeds: Iterable[int], work: Path) -> Iterator[Result]:
    enter_namespace(work)
    whole = project.make(work)
    flip_world.draw_inputs(whole.done)
    for n in range(CASES):
        shutil.copy(whole.done / flip_uses.GOOD_CASE, whole.done / f"inputs/pictures/{'abcd'[n]}.png")
    answered = flip_uses.predict(flip_world.PICTURES).act(project.copy(whole.done, work / "answered"))
    assert answered.finished.code == 0, answered.finished.text
    yield from attempt_each(
        seeds, work / "full", lambda seed, folder: attempt(seed, whole, answered.results, folder), GOOD
    )


def enter_namespace(work: Path) -> None:
    """Start this process again in a namespace where it may mount; it makes itself another folder for the work."""
    if os.environ.get(INSIDE):
        return
    ways = [["unshare", "--mount"]] if os.geteuid() == 0 else []
    for way in [*ways, ["unshare", "--user", "--map-root-user", "--mount"]]:
        tried = [*way, "sh", "-c", f"mount -t tmpfs -o size={PAGE} none /mnt"]
        if shutil.which("unshare") and subprocess.run(tried, capture_output=True).returncode == 0:
            os.environ[INSIDE] = "1"
            work.rmdir()
            os.execvp(way[0], [*way, sys.executable, "-m", "tests.torture", *sys.argv[1:]])
    sys.exit("full_disks: no tmpfs can be mounted here. Fix: run it on Linux as root, or allow user namespaces")


def attempt(seed: int, whole: project.Undisturbed, answered: dict[str, str], folder: Path) -> Result:
    rng = random.Random(f"full disks {seed}")
    place = list(PLACES)[seed % len(PLACES)]
    project.copy(whole.done if place == "answers" else whole.empty, folder)
    size = int(PLACES[place] * rng.random())
    while True:  # a smaller disk, until it is full
        with disk(folder / place, size):
            full = act(folder, place)
            if place_is_full(full):
                return Result(seed, place, *judge(place, full, size, folder, whole, answered))
        size //= 2
        if size < PAGE:
            return Result(seed, place, "is never full", full.text[-300:])
        shutil.rmtree(folder)
        project.copy(whole.done if place == "answers" else whole.empty, folder)


@contextmanager
def disk(path: Path, size: int) -> Iterator[None]:
    """Put a disk in the place of a folder: with what is in the folder, and so many free bytes. Then it is gone."""
    path.mkdir(parents=True, exist_ok=True)
    before = path.with_name(f".{path.name}.before")
    shutil.copytree(path, before, symlinks=True)
    held = sum(-(-file.stat().st_size // PAGE) * PAGE + PAGE for file in before.rglob("*"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={held + max(size, PAGE)}", "none", path], check=True)
    shutil.copytree(before, path, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(before)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def act(folder: Path, place: str) -> project.Finished:
    if place == "answers":
        return project.brainseg(folder, "predict", flip_world.PICTURES, "-o", "answers")
    more = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/store/mlflow.db"} if place == "store" else {}
    return project.brainseg(folder, "repro", **more)


def place_is_full(done: project.Finished) -> bool:
    """Whether anything went wrong. A store that is full costs a warning."""
    return done.code != 0 or "WARNING MLflow" in done.text


def judge(
    place: str, full: project.Finished, size: int, folder: Path, whole: project.Undisturbed, answered: dict[str, str]
) -> tuple[str, str]:
    """The outcome of the run on the full disk and of the next one, which has space."""
    shown = f"{size:,} bytes: {' '.join(full.error_lines[:3])[:500] or full.text[-300:]}"
    if full.code is None:
        return "hangs", shown
    if full.is_bug:
        return "reported as a bug", shown
    if full.code < 0:
        return "killed by a signal", f"signal {-full.code}, {shown}"
    if not says_full(place, full, folder):
        return "does not name its disk", shown
    done_before = rows(folder)
    subprocess.run(["mount", "-o", "remount,size=1G", folder / place], check=True)
    again = act(folder, place)
    if place == "store" and again.code == 0:
        again = project.brainseg(folder, "track", MLFLOW_TRACKING_URI=f"sqlite:///{folder}/store/mlflow.db")
    if again.code != 0:
        return "not recovered", f"{shown}; then {' '.join(again.error_lines[:2])[:300] or again.text[-300:]}"
    if place == "answers":
        other = project.differences(answered, flip_uses.answers(folder / "answers"))
        if again.text.count(", kept") < len(done_before):
            other = f"{len(done_before)} cases were answered, {again.text.count(', kept')} kept {other}"
    else:
        other = project.differences(whole.digests, project.digests(folder))
    return ("something was lost", f"{shown}; then {other}") if other else (NAMED, "")


def says_full(place: str, done: project.Finished, folder: Path) -> bool:
    """Whether a line says that a disk is full and names a path on it; a number of free bytes must be its own."""
    for line in done.text.splitlines():
        words = ("disk is full", "No space left", "bytes needed", "disk I/O error", "database or disk is full")
        if any(word in line for word in words) and (place in line or f"/{Path(place).name}/" in line):
            free = re.search(r"\(?([\d,]+)(?: bytes)? free", line)
            own = shutil.disk_usage(folder / place).total
            return free is None or int(free[1].replace(",", "")) <= own
    return False


def rows(folder: Path) -> list[str]:
    """The cases that summary.csv says are answered."""
    path = folder / "answers/summary.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row["case"] for row in csv.DictReader(file) if row["mask"]]
