"""Uploads to voxels, in processes of their own: one that takes too long, or dies, is replaced by a new one."""

import json
import queue
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from brainseg.errors import DataError, MachineError, Problem
from brainseg.inference.cases import Case
from brainseg.io.volumes import Geometry, Volume
from brainseg.server import refusals
from brainseg.server.limits import DECODE_RATE, DECODE_SECONDS
from brainseg.server.refusals import Refusal

START_SECONDS = 30.0
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONNODEBUGRANGES": "1"}


class LostError(Exception):
    """A worker ended, or was ended, within its work."""


class Worker:
    """One process of ``brainseg.server.worker``."""

    def __init__(self, environment: dict[str, str]):
        command = [sys.executable, "-P", "-m", "brainseg.server.worker"]  # -P: never a module of the current folder
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
                                         stderr=subprocess.DEVNULL)  # fmt: skip

    def ready(self) -> None:
        """Wait until it has loaded what it needs. Raises LostError."""
        with self._deadline(START_SECONDS):
            self._head()

    def ask(self, request: dict[str, str], seconds: float) -> tuple[dict[str, Any], bytearray]:
        """Its answer, and the voxels' bytes. Raises LostError."""
        with self._deadline(seconds):
            try:
                self._stdin.write(json.dumps(request).encode() + b"\n")
                self._stdin.flush()
            except OSError:
                raise LostError from None
            head = self._head()
            voxels = bytearray(head["bytes"])
            if _fill(self._stdout, voxels) < len(voxels):
                raise LostError
        return head, voxels

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._stdin, self._stdout):
            with suppress(OSError):  # what could not be sent any more
                pipe.close()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    def _head(self) -> dict[str, Any]:
        line = self._stdout.readline(2**22)
        if not line.endswith(b"\n"):
            raise LostError
        return json.loads(line)

    @contextmanager
    def _deadline(self, seconds: float):
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _fill(stream: BinaryIO, buffer: bytearray) -> int:
    filled = 0
    with memoryview(buffer) as view:
        while filled < len(buffer) and (read := stream.readinto(view[filled:])):  # type: ignore[attr-defined]
            filled += read
    return filled


class Decoders:
    """Workers, mostly as many as requests that are in work at once; a lost one is replaced in the background."""

    def __init__(self, environment: dict[str, str], count: int):
        self._environment = environment | _ENVIRONMENT
        self._idle: queue.Queue[Worker] = queue.Queue()
        self._lock = threading.Lock()
        self._all: set[Worker] = set()
        self.alive = True  # False once no worker can be started any more
        for worker in [self._start() for _ in range(count)]:
            self._enlist(worker)
        if not self.alive:
            self.close()
            raise MachineError("brainseg.server.worker", "does not start", "run: python -m brainseg.server.worker")

    def read(self, path: Path, kind: str, name: str, size: int) -> Case:
        """What ``cases.read`` gives, or for a zip, of what is in it.

        Args:
            path: a file, or the folder of a DICOM series.
            kind: of ``uploads.SUFFIXES``.
            name: what errors call it.
            size: bytes that were sent, which decide how long it may take.

        Raises:
            Refusal: what is wrong with it; 413 where it takes too much memory or time.
        """
        worker = self._turn()
        began, seconds = time.monotonic(), DECODE_SECONDS + size / DECODE_RATE
        try:
            head, voxels = worker.ask({"path": str(path), "kind": kind, "name": name}, seconds)
        except LostError:
            self._lose(worker)
            late = time.monotonic() - began >= seconds
            what = f"takes more than {seconds:.1f} s to decode" if late else "ended the process that decodes it"
            raise Refusal(413 if late else 422, f"{name}: {what}", "save it anew, smaller or uncompressed") from None
        except BaseException:
            self._lose(worker)
            raise
        self._idle.put(worker)
        if "problems" in head:
            raise _refusal(head["status"], head["problems"])
        return _case(head, voxels, name)

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
                self._lose(worker)  # for want of memory, or at the very end of its time: not this file's fault
        raise MachineError("the server", "cannot decode any more", "start it anew")

    def _start(self) -> Worker:
        worker = Worker(self._environment)
        with self._lock:
            self._all.add(worker)
            closed = not self.alive
        if closed:
            worker.end()
        return worker

    def _enlist(self, worker: Worker) -> None:
        try:
            worker.ready()
            self._idle.put(worker)
        except (LostError, ValueError):  # the latter where its pipes were closed meanwhile
            self.alive = False

    def _lose(self, worker: Worker) -> None:
        threading.Thread(target=self._replace, args=(worker,), daemon=True).start()

    def _replace(self, worker: Worker) -> None:
        with self._lock:
            known = worker in self._all
            self._all.discard(worker)
        if not known:  # the server is being closed
            return
        worker.end()
        try:
            self._enlist(self._start())
        except OSError:  # no process or no memory can be had
            self.alive = False


def _refusal(status: int, problems: list[list[str]]) -> Refusal:
    refusal = refusals.of(DataError("", problems=[Problem(*map(str, problem)) for problem in problems]))
    refusal.status = status
    return refusal


def _case(head: dict[str, Any], data: bytearray, name: str) -> Case:
    voxels = np.frombuffer(data, head["dtype"]).reshape(head["shape"])
    volume = None
    if place := head.get("volume"):
        geometry = Geometry(np.array(place["affine"], np.float64), tuple(place["shape"]))
        volume = Volume(voxels, tuple(place["spacing"]), geometry)
    return Case(name, head["kind"], voxels, volume, head["channels"])
