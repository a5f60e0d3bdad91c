"""A disk that is full at a random byte, under each place that the program writes to. Linux: a tmpfs is that disk.

It is mounted in a mount namespace of this process alone (``unshare``, as root or in a user namespace), so that nobody
else sees it and nothing stays. The program must say which disk is full, and once there is space the next run must end
with the bytes of an undisturbed one.

Every second round over the places begins with a finished run, or with answers, and the disk is full while the same is
made with other parameters. What was there before must come back: by `brainseg restore`, or by a run with the
parameters of before, which finds in DVC's cache what it made.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from brainseg.experiments import demo
from tests.support import tiny_pipeline
from tests.torture import finished, flip_uses, flip_world, project
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
OTHER = {  # parameters with which every place needs more than before
    "phantom": {"slices": 12},
    "train": {"seed": 8},
    "network": {"filters": 8},
    "render": {"dpi": 100},
}
FREED = 0.3  # of those bytes: DVC removes what a stage made before it starts that stage, which leaves its space
CACHED = {"download", "preprocess", "split", "train"}  # all that these stages make is in DVC's cache


class World(NamedTuple):
    """``answered``: a finished project with answers, which are ``answers``."""

    whole: project.Undisturbed
    answered: Path
    answers: dict[str, str]
    threshold: str  # another one

    def start(self, place: str, is_second: bool) -> Path:
        if place == "answers":
            return self.answered if is_second else self.whole.done
        return self.whole.done if is_second else self.whole.empty


class Before(NamedTuple):
    """What a case begins with: other parameters for the disk to be full with, and what DVC's cache has."""

    is_second: bool
    objects: set[str]


def run(seeds: Iterable[int], work: Path) -> Iterator[Result]:
    enter_namespace(work)
    whole = project.make(work)
    flip_world.draw_inputs(whole.done)
    for n in range(CASES):
        shutil.copy(whole.done / flip_uses.GOOD_CASE, whole.done / f"inputs/pictures/{'abcd'[n]}.png")
    answered = project.copy(whole.done, work / "answered")
    used = flip_uses.predict(flip_world.PICTURES).act(answered)
    assert used.finished.code == 0, used.finished.text
    world = World(whole, answered, used.results, flip_world.find_threshold(answered))
    yield from attempt_each(seeds, work / "full", lambda seed, folder: attempt(seed, world, folder), GOOD)


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


def attempt(seed: int, world: World, folder: Path) -> Result:
    rng = random.Random(f"full disks {seed}")
    place, is_second = list(PLACES)[seed % len(PLACES)], seed // len(PLACES) % 2 == 1
    name = f"{place}, something there before" if is_second else place
    size = int(PLACES[place] * rng.random() * (FREED if is_second else 1))
    while size >= PAGE:  # a smaller disk, until it is full
        shutil.rmtree(folder, ignore_errors=True)
        project.copy(world.start(place, is_second), folder)
        before = Before(is_second, finished.list_objects(folder))
        if is_second:
            demo.override(folder / "params.yaml", OTHER)
            (folder / "mlflow.db").unlink(missing_ok=True)  # its artifacts lie where it was copied from
        with disk(folder / place, size):
            full = act(folder, place, *(["--threshold", world.threshold] if is_second else []))
            if place_is_full(full):
                return Result(seed, name, *judge(place, full, size, folder, world, before, rng))
        size //= 2
    return Result(seed, name, "is never full", full.text[-300:])


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


def act(folder: Path, place: str, *more_words: str) -> project.Finished:
    """Run what writes to the place; only ``predict`` takes ``more_words``."""
    if place == "answers":
        return project.brainseg(folder, "predict", flip_world.PICTURES, "-o", "answers", *more_words)
    more = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/store/mlflow.db"} if place == "store" else {}
    return project.brainseg(folder, "repro", **more)


def place_is_full(done: project.Finished) -> bool:
    """Whether anything went wrong. A store that is full costs a warning."""
    return done.code != 0 or "WARNING MLflow" in done.text


def judge(
    place: str, full: project.Finished, size: int, folder: Path, world: World, before: Before, rng: random.Random
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
    answered = [row["case"] for row in flip_uses.read_rows(folder / "answers/summary.csv") if row["mask"]]
    subprocess.run(["mount", "-o", "remount,size=1G", folder / place], check=True)
    if before.is_second:
        again, other = go_back(place, folder, world, before, rng)
    else:
        again, other = go_on(place, folder, world, answered)
    if again.code != 0:
        return "not recovered", f"{shown}; then {' '.join(again.error_lines[:2])[:300] or again.text[-300:]}"
    return ("something was lost", f"{shown}; then {other}") if other else (NAMED, "")


def go_on(place: str, folder: Path, world: World, answered: list[str]) -> tuple[project.Finished, str]:
    """Run again. Return that run, and what is not as of an undisturbed one. ``answered``: the cases that were done."""
    again = act(folder, place)
    if place == "store" and again.code == 0:
        again = project.brainseg(folder, "track", MLFLOW_TRACKING_URI=f"sqlite:///{folder}/store/mlflow.db")
    if place != "answers":
        return again, project.differences(world.whole.digests, project.digests(folder))
    other = project.differences(world.answers, flip_uses.answers(folder / "answers"))
    if (kept := again.text.count(", kept")) < len(answered):
        other = f"{len(answered)} cases were answered, {kept} kept {other}"
    return again, other


def go_back(
    place: str, folder: Path, world: World, before: Before, rng: random.Random
) -> tuple[project.Finished, str]:  # fmt: skip
    """Go back to what was there before. Return the command that does it, and what did not come back."""
    if place == "answers":
        again = act(folder, place)
        return again, project.differences(world.answers, flip_uses.answers(folder / "answers"))
    if rng.random() < 0.5:
        again = project.brainseg(folder, "restore")
    else:
        shutil.copy(world.whole.done / "params.yaml", folder / "params.yaml")
        again = act(folder, place)
    lost = [f"{stage} ran again" for stage in tiny_pipeline.stages_run(again.output) if stage in CACHED]
    lost += [f"DVC's cache lacks {name}" for name in sorted(before.objects - finished.list_objects(folder))]
    lost += filter(None, [project.differences(world.whole.digests, project.digests(folder))])
    return again, ", ".join(lost)


def says_full(place: str, done: project.Finished, folder: Path) -> bool:
    """Whether a line says that a disk is full and names a path on it; a number of free bytes must be its own."""
    for line in done.text.splitlines():
        words = ("disk is full", "No space left", "bytes needed", "disk I/O error", "database or disk is full")
        if any(word in line for word in words) and (place in line or f"/{Path(place).name}/" in line):
            free = re.search(r"\(?([\d,]+)(?: bytes)? free", line)
            own = shutil.disk_usage(folder / place).total
            return free is None or int(free[1].replace(",", "")) <= own
    return False
