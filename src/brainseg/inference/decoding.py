"""Decode files in processes of their own. A process that takes too long, or dies, is replaced."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from brainseg.errors import BrainsegError, DataError, IntegrityError, MachineError, Problem, RunError, guard
from brainseg.inference.cases import Case
from brainseg.io import itk, scans
from brainseg.io.dicom import slice_header
from brainseg.io.dicom.seg_writer import Origin
from brainseg.io.volumes import Geometry, Volume

# Why not pebble.ProcessPool (5.1.3): a worker that dies while all are idle breaks the whole pool. Results are pickles:
# a file that takes over a worker could run code here, and pickling copies the voxels within the worker's limit of
# memory. The start method "spawn" imports the main module of this process in the worker.

WORKER = "brainseg.inference.decoding_worker"
START_SECONDS = 30.0
_KINDS = {kind.code: kind for kind in (DataError, MachineError, IntegrityError, RunError)}
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONNODEBUGRANGES": "1"}


class WorkerLostError(Exception):
    """A worker died, or was killed, during its work."""


class Worker:
    """One process of ``decoding_worker``."""

    def __init__(self, module: str):
        command = [sys.executable, "-P", "-m", module]  # -P: import nothing from the current folder
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, env=os.environ | _ENVIRONMENT)  # fmt: skip

    def ready(self) -> None:
        """Wait until it has loaded what it needs. Raises WorkerLostError."""
        with self._deadline(START_SECONDS):
            self._head()

    def ask(self, request: dict[str, str], seconds: float) -> tuple[dict[str, Any], bytearray]:
        """Send ``request``; return the answer and the voxels' bytes. Raises WorkerLostError."""
        with self._deadline(seconds):
            try:
                self._stdin.write(json.dumps(request).encode() + b"\n")
                self._stdin.flush()
            except OSError:
                raise WorkerLostError from None
            head = self._head()
            voxels = bytearray(head["bytes"])
            if _read_into(self._stdout, voxels) < len(voxels):
                raise WorkerLostError
        return head, voxels

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._stdin, self._stdout):
            with suppress(OSError):  # unsent data
                pipe.close()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    def _head(self) -> dict[str, Any]:
        line = self._stdout.readline(2**26)
        if not line.endswith(b"\n"):
            raise WorkerLostError
        head: dict[str, Any] = json.loads(line)
        return head

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _read_into(stream: BinaryIO, buffer: bytearray) -> int:
    filled = 0
    with memoryview(buffer) as view:
        while filled < len(buffer) and (read := stream.readinto(view[filled:])):  # type: ignore[attr-defined]
            filled += read
    return filled


class Decoders:
    """A pool of workers, usually one for each file in work. A lost worker is replaced in the background."""

    def __init__(self, count: int, seconds: Callable[[int], float], module: str = WORKER):
        """Start them.

        Args:
            count: of the processes.
            seconds: that a file of so many bytes may take.
            module: what they run.

        Raises:
            MachineError: they do not start.
        """
        self._module, self._seconds = module, seconds
        self._idle: queue.Queue[Worker] = queue.Queue()
        self._lock = threading.Lock()
        self._all: set[Worker] = set()
        self.alive = True  # False once no new worker can be started
        for worker in [self._start() for _ in range(count)]:
            self._add_when_ready(worker)
        if not self.alive:
            self.close()
            raise MachineError(module, "does not start", f"run: python -m {module}")

    def read(self, path: Path, name: str, kind: str = "") -> Case:
        """Decode as ``cases.read`` does.

        Args:
            path: a file, or the folder of a DICOM series.
            name: what errors call it.
            kind: for a ``module`` that asks for it.

        Raises:
            DataError: the file is faulty. RunError: it takes too much memory or time.
            MachineError: no process can be started any more.
        """
        with guard(name):
            inside = path.iterdir() if path.is_dir() else (path, scans.find_other_half(path, name))
            size = sum(file.stat().st_size for file in inside if file and file.exists())
        worker = self._turn()
        started, seconds = time.monotonic(), self._seconds(size) + itk.LOAD_SECONDS * itk.is_itk(path.name)
        try:
            head, voxels = worker.ask({"path": str(path), "kind": kind, "name": name}, seconds)
        except WorkerLostError:
            self._replace_in_background(worker)
            codec = slice_header.name_compression(path)
            fix = slice_header.DECOMPRESS if codec else "save it again, smaller or uncompressed"
            encoded = f" ({codec})" if codec else ""
            if time.monotonic() - started >= seconds:
                raise RunError(name, f"takes more than {seconds:.1f} s to decode{encoded}", fix) from None
            raise DataError(name, f"crashed the process that decodes it{encoded}", fix) from None
        except BaseException:
            self._replace_in_background(worker)
            raise
        self._idle.put(worker)
        if "problems" in head:
            kind_of_error = _KINDS.get(head["code"], BrainsegError)
            raise kind_of_error("", problems=[Problem(*map(str, problem)) for problem in head["problems"]])
        return _make_case(head, voxels, name)

    def close(self) -> None:
        self.alive = False
        with self._lock:
            for worker in self._all:
                worker.end()
            self._all.clear()

    def _turn(self) -> Worker:
        while self.alive:
            with suppress(queue.Empty):
                worker = self._idle.get(timeout=0.5)
                if worker.runs:
                    return worker
                self._replace_in_background(worker)  # died idle, for example without memory: not the fault of this file
        raise MachineError(self._module, "cannot decode any more: it does not start", "close programs, run again")

    def _start(self) -> Worker:
        worker = Worker(self._module)
        with self._lock:
            self._all.add(worker)
            closed = not self.alive
        if closed:
            worker.end()
        return worker

    def _add_when_ready(self, worker: Worker) -> None:
        try:
            worker.ready()
            self._idle.put(worker)
        except (WorkerLostError, ValueError):  # ValueError: its pipes were closed in the meantime
            self.alive = False

    def _replace_in_background(self, worker: Worker) -> None:
        threading.Thread(target=self._replace, args=(worker,), daemon=True).start()

    def _replace(self, worker: Worker) -> None:
        with self._lock:
            known = worker in self._all
            self._all.discard(worker)
        if not known:  # the server is being closed
            return
        worker.end()
        try:
            self._add_when_ready(self._start())
        except OSError:  # no process or memory left
            self.alive = False


def _make_case(head: dict[str, Any], data: bytearray, name: str) -> Case:
    voxels = np.frombuffer(data, head["dtype"]).reshape(head["shape"])
    volume = None
    if place := head.get("volume"):
        geometry = Geometry(np.array(place["affine"], np.float64), tuple(place["shape"]))
        volume = Volume(voxels, tuple(place["spacing"]), geometry, doubt=place["doubt"])
    origin = Origin(*map(tuple, head["origin"])) if head["origin"] else None
    remarks, numbers = tuple(head["remarks"]), tuple(head["numbers"])
    return Case(name, head["kind"], voxels, volume, head["channels"], remarks, origin, head["no_seg"], numbers)
