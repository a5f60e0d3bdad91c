"""Trainings on this machine: each is a ``dvc exp run`` in a folder and a process group of its own."""

import contextlib
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import psutil

from brainseg import hardware
from brainseg.experiments import repro
from brainseg.experiments.running.runner import Training, TrainingError, Watch, read_line

GRACE = 10  # seconds from SIGINT to SIGKILL

_leaders: set[subprocess.Popen[str]] = set()  # each leads a group of processes
_lock = threading.Lock()


class LocalRunner:
    """Runs ``jobs`` trainings at once, each on a GPU of its own as far as there are enough. See ``Runner``."""

    def __init__(self, root: Path, jobs: int):
        self.root, self.jobs = root, jobs
        self.is_over = threading.Event()
        self._free = queue_devices(jobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def run(self, training: Training, watch: Watch) -> bool:
        device = self._free.get()
        try:
            return execute(training, self.root, watch, device, is_over=self.is_over)
        finally:
            self._free.put(device)

    def end_all(self) -> None:
        self.is_over.set()
        end_groups()


def queue_devices(jobs: int) -> SimpleQueue[dict[str, str]]:
    """A queue of ``jobs`` environments: each names a GPU, in turn if there are fewer, or none if there is none."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = hardware.list_gpus() if given is None else given.split(",")
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for job in range(jobs):
        free.put({"CUDA_VISIBLE_DEVICES": found[job % len(found)]} if found else {})
    return free


def execute(
    training: Training, root: Path, watch: Watch, environment: Mapping[str, str], *, is_over: threading.Event,
    stages: Sequence[str] = (), hear: Callable[[str], None] = lambda line: None,
) -> bool:  # fmt: skip
    """``dvc exp run`` in a folder of its own. Whether ``watch`` has stopped it.

    Args:
        environment: more of it; the device to use.
        is_over: it is not begun any more.
        stages: run these alone, for a machine without what the others need; else all.
        hear: is told every line.

    Raises:
        TrainingError: it ended with a code.
    """
    training.state.mkdir(parents=True, exist_ok=True)
    command = ["dvc", "--wait-for-lock", "exp", "run", "--temp", "--name", training.name]
    command += [*repro.options(training.overrides), *(["--single-item", *stages] if stages else [])]
    places = {"BRAINSEG_CHECKPOINTS": str(training.checkpoints.resolve())}
    variables = repro.environment() | {"PYTHONUNBUFFERED": "1"} | places
    is_stopped = False
    with open(training.log, "w", encoding="utf-8") as kept, subprocess.Popen(
        [sys.executable, "-m", *command], cwd=root, env={**variables, **environment}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as process, _leading(process):  # fmt: skip
        if is_over.is_set():  # since the call
            end_group(process)
        for line in itertools.chain([f"+ {shlex.join(command)}\n"], process.stdout or ()):
            print(line, end="", file=kept, flush=True)
            hear(line)
            if (seen := read_line(line)) and not is_stopped and watch(seen):
                is_stopped = True
                end_group(process)
    if is_stopped or process.returncode == 0:
        shutil.rmtree(training.checkpoints, ignore_errors=True)
    if process.returncode and not is_stopped:
        raise TrainingError(training.log, training.log.read_text(encoding="utf-8"), process.returncode)
    return is_stopped


@contextlib.contextmanager
def _leading(process: subprocess.Popen[str]) -> Iterator[None]:
    """Note within the block that a process leads a group, so that ``end_groups`` finds it. An error ends it."""
    with _lock:
        _leaders.add(process)
    try:
        yield
    except BaseException:  # nobody reads what it prints any more
        end_group(process)
        raise
    finally:
        with _lock:
            _leaders.discard(process)


def end_groups() -> None:
    """End all trainings that this process has started: what has a session of its own gets no Ctrl-C."""
    with _lock:
        leaders = list(_leaders)
    with ThreadPoolExecutor(max(1, len(leaders))) as pool:
        list(pool.map(end_group, leaders))


def end_group(leader: subprocess.Popen[str] | psutil.Process) -> None:
    """End a process and all that it started: as Ctrl-C does, so that DVC removes its folder, then by SIGKILL."""
    with contextlib.suppress(psutil.Error):
        begun, children = time.monotonic(), psutil.Process(leader.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGINT)
        # A child of ours is waited for by its own Popen alone, which would else take its end for code 0.
        with contextlib.suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
            leader.wait(GRACE)
        _, alive = psutil.wait_procs(children, timeout=max(0.0, begun + GRACE - time.monotonic()))
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        leader.kill()


def end_leftovers(root: Path, name: re.Pattern[str]) -> None:
    """End the trainings of such names in a project, which nobody waits for: whoever started them was killed."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            is_ours = {"exp", "run"} <= set(words) and any(name.fullmatch(word) for word in words)
            if is_ours and Path(process.cwd()).is_relative_to(root):
                end_group(process)
