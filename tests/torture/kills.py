"""SIGKILL at a random moment of `brainseg repro`; the next `brainseg repro` must end with the bytes of a whole run.

Half of the moments are drawn from the run's time. The others come right after a file that must never be half was
touched, since a write takes a thousandth of the run. Half of the kills take the process group, as a closed terminal or
a job's end does, the others only the process that the user started. Its stage then runs on as an orphan.
"""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from tests.torture import project
from tests.torture.report import Result, attempt_each

COUNT = 200
RECOVERED, WAITED = "recovered", "recovered after its orphan ended"
GOOD = frozenset((RECOVERED, WAITED))
WRITTEN = {  # path → how often a run writes it
    "dvc.lock": 7, ".dvc/tmp/rwlock": 20, ".dvc/cache/files/md5": 5, ".brainseg/checkpoints": 1, "mlflow.db": 3,
    "data/raw": 2, "data/processed": 3, "data/splits": 2, "data/predictions": 2, "models": 6, "metrics": 8,
}  # fmt: skip
STEP = 0.0005  # seconds between two looks at a file


def run(seeds: Iterable[int], work: Path) -> Iterator[Result]:
    whole = project.make(work)
    yield from attempt_each(seeds, work / "kill", lambda seed, folder: attempt(seed, whole, folder), GOOD)


def attempt(seed: int, whole: project.Undisturbed, folder: Path) -> Result:
    rng = random.Random(f"kills {seed}")
    alone = rng.random() < 0.5
    while True:  # until a kill came before the end
        shutil.rmtree(folder, ignore_errors=True)
        project.copy(whole.empty, folder)
        path = rng.choice([None, *WRITTEN]) if rng.random() < 0.5 else None
        moment = (path, rng.randint(1, WRITTEN[path])) if path else rng.uniform(0.02, 0.95) * whole.seconds
        group = start_and_kill(folder, moment, alone, rng.uniform(0, 0.004))
        if group:
            break
    at_once = rng.random() < 0.5
    name = f"{'parent alone' if alone else 'process group'}, {'while writing' if path else 'any moment'}"
    detail = f"{moment}, next run {'at once' if at_once else 'when all had ended'}"
    waited = False
    if not at_once:
        wait_for_group(group)
    again = project.brainseg(folder, "repro")
    if alone and again.code == 3 and "is still running" in again.errors:
        waited = True
        wait_for_group(group)
        again = project.brainseg(folder, "repro")
    if again.code != 0:
        return Result(seed, name, "not recovered", f"{detail}: {' '.join(again.error_lines[:3])}")
    if other := project.differences(whole.digests, project.digests(folder)):
        return Result(seed, name, "other bytes", f"{detail}: {other}")
    if fault := find_store_fault(folder / "mlflow.db"):
        return Result(seed, name, "damaged store", f"{detail}: {fault}")
    return Result(seed, name, WAITED if waited else RECOVERED)


def start_and_kill(folder: Path, moment: float | tuple[str, int], alone: bool, later: float) -> int | None:
    """Start a run and kill it at a time in seconds, or ``later`` seconds after the n-th write of a path.

    Returns:
        Its process group, None if it ended before.
    """
    with (folder.parent / "killed.log").open("wb") as log:
        process = subprocess.Popen(
            project.command("repro"), cwd=folder, env=project.environment(folder), stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        if isinstance(moment, tuple):
            wait_for_writes(folder / moment[0], moment[1], process)
            time.sleep(later)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
    except BaseException:  # Ctrl-C does not reach another session
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.poll() is not None:
        return None
    (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
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
    while time.monotonic() < end and any(is_in_group(process, group) for process in psutil.process_iter()):
        time.sleep(0.1)


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
