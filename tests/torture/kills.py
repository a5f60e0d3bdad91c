"""SIGKILL at a random moment of `brainseg repro`, every fourth time of `brainseg predict`; the next run must be right.

repro: it ends with the bytes of a whole run, and what was finished is not made again: what dvc.lock had recorded is not
run, a training goes on after its last whole checkpoint, and DVC's cache has what it had. predict: over a folder with
answers of another threshold; it ends with the bytes of a new folder, and answers that were complete are kept.

Half of the moments are drawn from the run's time. The others come right after a file that must never be half was
touched, since a write takes a thousandth of the run. Half of the kills take the process group, as a closed terminal or
a job's end does, the others only the process that the user started. Its stage then runs on as an orphan.
"""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from brainseg.predict import output
from tests.torture import finished, flip_uses, flip_world, project
from tests.torture.report import Result, attempt_each

COUNT = 200
RECOVERED, WAITED = "recovered", "recovered after its orphan ended"
GOOD = frozenset((RECOVERED, WAITED))
WRITTEN = {  # path → how often a run writes it
    "dvc.lock": 8, ".dvc/tmp/rwlock": 20, ".dvc/cache/files/md5": 5, ".brainseg/checkpoints": 1, "mlflow.db": 3,
    "data/raw": 2, "data/processed": 4, "data/splits": 2, "data/predictions": 2, "models": 6, "metrics": 8,
}  # fmt: skip
CASES = 6  # that predict outlines
ANSWERED = {
    "answers/.predict.jsonl": CASES,
    "answers/masks": CASES,
    "answers/overlays": CASES,
    "answers/summary.csv": 1,
}
PREDICT = ("predict", flip_world.PICTURES, "-o", "answers", "--threshold")
EARLIER = "0.9"  # threshold
STEP = 0.0005  # seconds between two looks at a file


class Predicted(NamedTuple):
    """``start``: a project with answers of the earlier threshold; seconds and answers of an undisturbed run."""

    start: Path
    threshold: str
    seconds: float
    answers: dict[str, str]


class Kill(NamedTuple):
    """``moment``: seconds after the start, or a path and how often it is written before. ``later``: seconds after."""

    alone: bool
    moment: float | tuple[str, int]
    later: float
    at_once: bool

    @property
    def name(self) -> str:
        by_path = isinstance(self.moment, tuple)
        return f"{'parent alone' if self.alone else 'process group'}, {'while writing' if by_path else 'any moment'}"

    def __str__(self) -> str:
        return f"{self.moment}, next run {'at once' if self.at_once else 'when all had ended'}"


def run(seeds: Iterable[int], work: Path) -> Iterator[Result]:
    whole = project.make(work)
    predicted = predict_undisturbed(project.copy(whole.done, work / "earlier"))

    def either(seed: int, folder: Path) -> Result:
        if seed % 4 == 3:
            return attempt_predict(seed, predicted, folder)
        return attempt(seed, whole, folder)

    yield from attempt_each(seeds, work / "kill", either, GOOD)


def predict_undisturbed(folder: Path) -> Predicted:
    """What the wanted threshold gives in a new folder; then the earlier one's answers take its place."""
    flip_world.draw_inputs(folder)
    for n in range(CASES - 2):
        shutil.copy(folder / flip_uses.GOOD_CASE, folder / flip_world.PICTURES / f"{'abcd'[n]}.png")
    wanted, found, start = flip_world.find_threshold(folder), {}, 0.0
    for threshold in (wanted, EARLIER):
        shutil.rmtree(folder / "answers", ignore_errors=True)
        start = time.monotonic()
        done = project.brainseg(folder, *PREDICT, threshold)
        assert done.code == 0, done.text
        found[threshold] = flip_uses.answers(folder / "answers")
    masks = [{name: value for name, value in each.items() if name.startswith("masks/")} for each in found.values()]
    assert masks[0] != masks[1], f"thresholds of {wanted} and {EARLIER} give the same masks"
    return Predicted(folder, wanted, time.monotonic() - start, found[wanted])


def draw(rng: random.Random, written: Mapping[str, int], seconds: float) -> Kill:
    """A moment within so many seconds, or after one of so many writes of a path."""
    path = rng.choice(list(written)) if rng.random() < 0.5 else None
    moment = (path, rng.randint(1, written[path])) if path else rng.uniform(0.02, 0.95) * seconds
    return Kill(rng.random() < 0.5, moment, rng.uniform(0, 0.004), rng.random() < 0.5)


def kill_a_run(
    rng: random.Random, source: Path, folder: Path, written: Mapping[str, int], seconds: float, *command: str
) -> tuple[Kill, int]:
    """Run it in new copies until a kill came before the end. Return the kill and the process group."""
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        project.copy(source, folder)
        kill = draw(rng, written, seconds)
        if group := start_and_kill(folder, kill, *command):
            return kill, group


def attempt_predict(seed: int, predicted: Predicted, folder: Path) -> Result:
    rng = random.Random(f"kills {seed}")
    command = (*PREDICT, predicted.threshold)
    kill, group = kill_a_run(rng, predicted.start, folder, ANSWERED, predicted.seconds, *command)
    name = f"predict, {kill.name}"
    if not kill.at_once:
        wait_for_group(group)
    complete = count_new_answers(folder)
    again = project.brainseg(folder, *command)
    if again.code != 0:
        return Result(seed, name, "not recovered", f"{kill}: {' '.join(again.error_lines[:3])}")
    if other := project.differences(predicted.answers, flip_uses.answers(folder / "answers")):
        return Result(seed, name, "other bytes", f"{kill}: {other}")
    if (kept := again.output.count(", kept")) < complete:
        return Result(seed, name, "finished work lost", f"{kill}: {complete} cases were answered, {kept} are kept")
    return Result(seed, name, RECOVERED)


def count_new_answers(folder: Path) -> int:
    """The whole lines of the journal after those of the earlier answers, which a run writes again when it starts."""
    _, *lines = (folder / "answers" / output.JOURNAL).read_bytes().split(b"\n")
    return max(0, sum(is_whole_line(line) for line in lines) - CASES)


def is_whole_line(line: bytes) -> bool:
    digest, _, text = line.partition(b" ")
    return hashlib.sha256(text).hexdigest().encode() == digest


def attempt(seed: int, whole: project.Undisturbed, folder: Path) -> Result:
    rng = random.Random(f"kills {seed}")
    kill, group = kill_a_run(rng, whole.empty, folder, WRITTEN, whole.seconds, "repro")
    recorded, waited = finished.read_recorded(folder, whole.done), False
    if not kill.at_once:
        wait_for_group(group)
    before = finished.look(folder, recorded)
    if runs(group):  # an orphan may end its training, and remove the checkpoints, before the next run looks for it
        before = before._replace(epoch=0)
    again = project.brainseg(folder, "repro")
    if kill.alone and again.code == 3 and "is still running" in again.errors:
        waited = True
        wait_for_group(group)
        before = finished.look(folder, recorded)
        again = project.brainseg(folder, "repro")
    if again.code != 0:
        return Result(seed, kill.name, "not recovered", f"{kill}: {' '.join(again.error_lines[:3])}")
    if other := project.differences(whole.digests, project.digests(folder)):
        return Result(seed, kill.name, "other bytes", f"{kill}: {other}")
    if fault := find_store_fault(folder / "mlflow.db"):
        return Result(seed, kill.name, "damaged store", f"{kill}: {fault}")
    if lost := finished.find_lost(before, folder, again.output):
        return Result(seed, kill.name, "finished work lost", f"{kill}: {lost}")
    return Result(seed, kill.name, WAITED if waited else RECOVERED)


def start_and_kill(folder: Path, kill: Kill, *command: str) -> int | None:
    """Start a command and kill it.

    Returns:
        Its process group, None if it ended before.
    """
    with (folder.parent / "killed.log").open("wb") as log:
        process = subprocess.Popen(
            project.command(*command), cwd=folder, env=project.environment(folder), stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        if isinstance(kill.moment, tuple):
            wait_for_writes(folder / kill.moment[0], kill.moment[1], process)
            time.sleep(kill.later)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(kill.moment)
    except BaseException:  # Ctrl-C does not reach another session
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.poll() is not None:
        return None
    (os.kill if kill.alone else os.killpg)(process.pid, signal.SIGKILL)
    process.wait()
    return process.pid


def wait_for_writes(path: Path, count: int, process: subprocess.Popen) -> None:
    """Return after the path has changed so often, or when the process has ended."""
    before = stamp(path)
    while count and process.poll() is None:
        time.sleep(STEP)
        now = stamp(path)
        count -= now != before
        before = now


def stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def wait_for_group(group: int) -> None:
    """Wait until no process of the group runs. A container without an init keeps the dead ones as zombies."""
    end = time.monotonic() + project.TIMEOUT
    while time.monotonic() < end and runs(group):
        time.sleep(0.1)


def runs(group: int) -> bool:
    return any(is_in_group(process, group) for process in psutil.process_iter())


def is_in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


def find_store_fault(path: Path) -> str:
    """What SQLite finds wrong in MLflow's store."""
    if not path.exists():
        return "there is no store"
    with sqlite3.connect(path) as store:
        (answer,) = store.execute("pragma integrity_check").fetchone()
    return "" if answer == "ok" else answer
