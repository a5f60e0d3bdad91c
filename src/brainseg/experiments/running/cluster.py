"""Trainings on Ray: each is a task on a node, which gets the project's files and data, and sends its results back.

A node needs Python and the requirements. Whatever Ray means is known here and in ``node_task`` alone.
"""

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TextIO

from brainseg import config
from brainseg.errors import IntegrityError, MachineError
from brainseg.experiments import integrity
from brainseg.experiments.running import cached, connection, node, node_task, snapshot
from brainseg.experiments.running.runner import Place, Seen, Training, TrainingError, Watch, read_line

LIVES = 6  # a training that was lost so often, with its node or alone, is given up
FORCE = node_task.PATIENCE + 15  # seconds from the end of all to their kill
PIECE = 2**26  # bytes of data that Ray's object store gets at once
# Sums of floating-point numbers depend on the number of threads, and Ray sets one of these itself: as they are here.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SETTINGS = ("TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "MLFLOW_EXPERIMENT_NAME")
# Packages whose versions may change a number.
VERSIONS = (
    "dvc", "jax", "jaxlib", "keras", "numpy", "opencv-python-headless", "pandas", "scikit-learn", "scipy", "tensorflow",
    "tensorflow-cpu",
)  # fmt: skip
LACKS = re.compile(r"^ModuleNotFoundError: No module named '([\w.]+)'", re.MULTILINE)


class Attempt(NamedTuple):
    """How a task ended. ``missing``: it did nothing, for want of this data (MD5s); ``is_stopped``: by ``watch``."""

    node: str
    missing: Sequence[str] = ()
    is_stopped: bool = False


class LostError(Exception):
    """A task is lost, alone or with its node. ``node`` and ``host`` are empty if it had not begun."""

    def __init__(self, node: str, host: str, why: str, *, with_node: bool = False):
        self.node, self.host, self.with_node = node, host, with_node
        super().__init__(why)


class RayRunner:
    """Runs trainings on a Ray cluster, or on a local Ray without an address. See ``Runner``."""

    def __init__(self, root: Path, place: Place, train: config.Train):
        self.root, self.place, self.train = root, place, train
        self.jobs, self.is_over = 1, threading.Event()
        self._lock, self._tasks, self._cancelled = threading.RLock(), set[Any](), set[Any]()
        self._lending, self._force = threading.Lock(), threading.Timer(FORCE, self._force_all)
        self._force.daemon = True
        self._lent: dict[str, list[Any]] = {}  # data in Ray's object store
        self._borrowers, self._told = Counter[str](), set[str]()

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            MachineError: Ray is not installed, an address does not answer, or no node has what a training takes.
        """
        self._ray = connection.connect(self.place.address)
        try:
            nodes = [each["Resources"] for each in self._ray.nodes() if each["Alive"]]
            self.share = connection.choose_share(nodes, self.place, self.train)
            self.jobs = self.place.jobs or connection.count_room(nodes, self.share)
            if self.place.jobs:
                self._warn_of_waiting(nodes)
            self.snapshot = snapshot.take(self.root)
            self._code = [self._put(snapshot.pack(self.root, self.snapshot.commit))]
            self._cache = integrity.find_cache(self.root)
            self.stages, self.data = node.choose_stages(self.root)
        except BaseException:
            self._ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._force.cancel()
        self._ray.shutdown()

    def run(self, training: Training, watch: Watch) -> bool:
        if snapshot.is_taken(self.root, self.snapshot, training.name):
            what = "is there already, and is not what it should be"
            raise IntegrityError(training.name, what, f"dvc exp remove {training.name}, run again")
        training.state.mkdir(parents=True, exist_ok=True)
        lost, prefer = 0, ""
        with open(training.log, "w+", encoding="utf-8") as log:
            while not self.is_over.is_set():
                watch(Seen("waiting"))
                try:
                    attempt = self._try(training, watch, log, prefer)
                    if not attempt.missing:
                        return attempt.is_stopped
                    self._bring(attempt.node, attempt.missing)
                    prefer = attempt.node
                except LostError as error:
                    if self.is_over.is_set():
                        break
                    if (lost := lost + 1) == LIVES:
                        what = f"was lost {lost} times, the last time on {error.host or 'no node'}: {error}"
                        fix = "see why (ray status; the node's log; its memory), then the same command"
                        raise MachineError(training.name, what, fix) from None
                    prefer = "" if error.with_node or not self._is_alive(error.node) else error.node
                    self._tell_loss(training, error, log, is_alive=bool(prefer))
        raise MachineError(training.name, "was ended", "go on with the same command")

    def end_all(self) -> None:
        with self._lock:
            if not self.is_over.is_set():
                self._force.start()
            self.is_over.set()
            for task in self._tasks:
                self._cancel(task)

    def _cancel(self, task: Any) -> None:
        """Cancel a task, once: a second time may meet its end, and Ray aborts this process then (its issue 54846)."""
        with self._lock:
            if task not in self._cancelled:
                self._cancelled.add(task)
                self._ray.cancel(task)

    def _force_all(self) -> None:
        """Kill what did not end; on its node the training ends with it, and its checkpoints stay.

        That is a second time, but of a task that hangs.
        """
        with self._lock:
            for task in self._tasks:
                self._ray.cancel(task, force=True)

    def _try(self, training: Training, watch: Watch, log: TextIO, prefer: str) -> Attempt:
        """Run a task and hear what it tells.

        Raises:
            LostError: with its node, or alone. TrainingError, MachineError, IntegrityError: see ``Runner.run``.
        """
        with tempfile.TemporaryDirectory(dir=training.state) as folder, self._submit(training, prefer) as task:
            heard = _Heard(training, watch, self._warn, log, Path(folder))
            try:
                for reference in task:
                    if heard.take(self._ray.get(reference)):
                        self._cancel(task)
            except self._ray.exceptions.RayError as error:
                if not self._is_end(error):  # a piece that was lost: nobody hears the rest
                    self._cancel(task)
                if not heard.is_stopped:  # else it has ended, however it did
                    raise self._explain(error, training, heard) from None
            except BaseException:  # nobody hears it any more
                self._cancel(task)
                raise
            if heard.is_stopped:
                with contextlib.suppress(LostError, MachineError):  # what stays of it does no harm
                    self._call_on(heard.node, node_task.forget, training.name)
            elif heard.code is not None:
                self._take_over(training, heard)
            elif not heard.missing:
                raise LostError(heard.node, heard.host, "it ended without a word")
            return Attempt(heard.node, heard.missing, heard.is_stopped)

    def _is_end(self, error: Exception) -> bool:
        """Whether an error of Ray's says that the task itself has ended."""
        kinds = self._ray.exceptions
        ends = kinds.RayTaskError, kinds.TaskCancelledError, kinds.NodeDiedError, kinds.WorkerCrashedError
        return isinstance(error, (*ends, kinds.OutOfMemoryError))

    def _explain(self, error: Exception, training: Training, heard: "_Heard") -> LostError | MachineError:
        """Why a task that was not stopped has ended."""
        kinds = self._ray.exceptions
        if self.is_over.is_set() or isinstance(error, kinds.TaskCancelledError):
            return MachineError(training.name, "was ended", "go on with the same command")
        if isinstance(error, kinds.RayTaskError):
            what = f"what ran it broke: {' '.join(str(error.cause or error).split())}"
            return MachineError(heard.host or training.name, what, "correct that, or report it as a bug")
        with_node = isinstance(error, kinds.NodeDiedError)
        return LostError(heard.node, heard.host, _shorten(error), with_node=with_node)

    def _submit(self, training: Training, prefer: str) -> contextlib.AbstractContextManager[Any]:
        """Submit a task; ``prefer``: the node on which it is to run if there is room."""
        settings = {name: os.environ.get(name) for name in THREADS}
        settings |= {name: value for name in SETTINGS if (value := os.environ.get(name)) is not None}
        tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
        settings |= {"MLFLOW_TRACKING_URI": tracking} if tracking.startswith("http") else {}
        order = node.Order(
            training.name, training.overrides, self.snapshot.commit, self.snapshot.below, self.data, self.stages,
            node.find_versions(VERSIONS), settings,
        )  # fmt: skip
        call = self._ray.remote(node_task.run).options(
            num_cpus=self.share.cpus, num_gpus=self.share.gpus, num_returns="streaming", max_retries=0,
            name=training.name, scheduling_strategy=self._stay(prefer, soft=True) if prefer else "SPREAD",
        )  # fmt: skip
        return self._heard_to_its_end(call.remote(order._asdict(), self._code))

    @contextlib.contextmanager
    def _heard_to_its_end(self, task: Any) -> Iterator[Any]:
        """Within the block ``end_all`` ends a task too; one that was cancelled has ended after it.

        Ray aborts this process if it shuts down while the end of a task is on its way.
        """
        with self._known(task):
            try:
                yield task
            finally:
                if task in self._cancelled:
                    self._ray.wait([task.completed()], timeout=FORCE)

    @contextlib.contextmanager
    def _known(self, task: Any) -> Iterator[Any]:
        """Within the block ``end_all`` ends a task too."""
        with self._lock:
            self._tasks.add(task)
            if self.is_over.is_set():
                self._cancel(task)
        try:
            yield task
        finally:
            with self._lock:
                self._tasks.discard(task)
                self._cancelled.discard(task)

    def _take_over(self, training: Training, heard: "_Heard") -> None:
        """Make the results of a finished training those of this repository."""
        if heard.code:
            raise TrainingError(training.log, heard.read_log(), heard.code)
        for path in heard.received:
            if path != "bundle":
                cached.keep(self._cache, path, heard.folder / path)
        with self._lock:
            snapshot.take_over(self.root, self.snapshot, training.name, (heard.folder / "bundle").read_bytes())

    def _bring(self, where: str, md5s: Sequence[str]) -> None:
        """Send data to a node through Ray's object store, which holds it no longer than that takes."""
        with self._lend(md5s) as pieces:
            self._call_on(where, node_task.bring, pieces)

    @contextlib.contextmanager
    def _lend(self, md5s: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
        """Data in the object store, once however many nodes need it at a time."""
        try:
            with self._lending:
                self._borrowers.update(md5s)
                for md5 in md5s:
                    if md5 not in self._lent:
                        pieces = _read_pieces(self._cache / cached.name(md5))
                        self._lent[md5] = [self._put(piece) for piece in pieces]
                lent = {md5: self._lent[md5] for md5 in md5s}
            yield lent
        finally:
            with self._lending:
                for md5 in md5s:
                    self._borrowers[md5] -= 1
                    if not self._borrowers[md5]:
                        self._lent.pop(md5, None)

    def _put(self, content: bytes) -> Any:
        """A reference to content in the object store. Raises MachineError: there is no room for it."""
        try:
            return self._ray.put(content)
        except self._ray.exceptions.RayError as error:
            fix = "free memory, /dev/shm or the disk of /tmp/ray on this machine, then the same command"
            raise MachineError("Ray's object store", _shorten(error), fix) from None

    def _call_on(self, where: str, function: Any, argument: Any) -> None:
        """Call a function on a node. Raises LostError: the node is."""
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": self._stay(where, soft=False)}
        try:
            with self._known(self._ray.remote(function).options(**options).remote(argument)) as reference:
                self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            what = f"could not take what it needs: {error.cause or error}"
            raise MachineError(f"node {where[:8]}", what, "correct that, then the same command") from None
        except self._ray.exceptions.RayError as error:
            raise LostError(where, "", _shorten(error)) from None

    def _stay(self, where: str, *, soft: bool) -> Any:
        return self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(where, soft=soft)

    def _is_alive(self, where: str) -> bool:
        return any(each["NodeID"] == where and each["Alive"] for each in self._ray.nodes())

    def _warn(self, what: str) -> None:
        """Print a warning, once."""
        with self._lock:
            if what not in self._told:
                self._told.add(what)
                print(f"WARNING {what}", file=sys.stderr, flush=True)

    def _warn_of_waiting(self, nodes: Sequence[Mapping[str, float]]) -> None:
        """Warn if no node has room for a training now."""
        try:
            connection.count_room(nodes, self.share)
        except MachineError as error:
            self._warn(f"{error}. Trainings wait until there is one")

    def _tell_loss(self, training: Training, error: LostError, log: TextIO, *, is_alive: bool) -> None:
        place = f"on {error.host}" if error.host else "before it began"
        then = "it goes on there from its last checkpoint" if is_alive else "it begins again on another node"
        told = f"{training.name} was lost {place} ({error}); {then}"
        print(told, file=log, flush=True)
        print(f"WARNING {told}", file=sys.stderr, flush=True)


class _Heard:
    """What a task has told. ``code``: of the training, when it has ended."""

    def __init__(self, training: Training, watch: Watch, warn: Callable[[str], None], log: TextIO, folder: Path):
        self.training, self.watch, self.warn, self.log, self.folder = training, watch, warn, log, folder
        self.node = self.host = ""
        self.missing: list[str] = []
        self.received: list[str] = []
        self.code: int | None = None
        self.is_stopped, self._begin = False, log.tell()

    def take(self, told: Mapping[str, Any]) -> bool:
        """Take the next thing that a task tells. Whether the training is to be stopped, for the first time.

        Raises:
            MachineError: the node lacks something.
        """
        seen = None
        if "line" in told:
            print(told["line"], end="", file=self.log, flush=True)
            seen = read_line(told["line"])
        elif "piece" in told:
            self._append(told["file"], told["piece"])
        elif "node" in told:
            self.node, self.host, seen = told["node"], told["host"], Seen("starts")
        elif "state" in told:
            seen = Seen(told["state"])
        elif "need" in told:
            self.missing = told["need"]
        elif "end" in told:
            self.code = told["end"]
        elif "warn" in told:
            self.warn(f"{self.host}: {told['warn']}")
        else:
            self._refuse(told)
        if seen and not self.is_stopped and self.watch(seen._replace(where=self.host)):
            self.is_stopped = True
            return True
        return False

    def _append(self, path: str, piece: bytes) -> None:
        if not self.received or self.received[-1] != path:
            self.received.append(path)
        target = self.folder / path
        if not target.resolve().is_relative_to(self.folder.resolve()):
            raise IntegrityError(path, "was sent, and is no result", "report this: it is a bug")
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "ab") as file:
            file.write(piece)

    def _refuse(self, told: Mapping[str, Any]) -> None:
        """Say why a node cannot run the training."""
        broken = told.get("broken", "")
        print(broken, file=self.log, flush=True)
        found = LACKS.search(broken)
        if lacks := told.get("lacks") or (found and found[1]):
            fix = "install the requirements there too: pip install -r requirements.txt"
            raise MachineError(self.host, f"has no package {lacks}, which every node needs", fix)
        what = f"what ran {self.training.name} there ended with code {told.get('code')}"
        raise MachineError(self.host, what, f"read the end of {self.training.log}, then the same command")

    def read_log(self) -> str:
        """What this task has printed."""
        end = self.log.tell()
        self.log.seek(self._begin)
        text = self.log.read()
        self.log.seek(end)
        return text


def _shorten(error: Exception) -> str:
    """The first sentence of what Ray says."""
    return str(error).split("\n")[0].split(". ")[0]


def _read_pieces(path: Path) -> Iterator[bytes]:
    """The content of a file of DVC's cache. Raises IntegrityError: it is not there."""
    if not path.is_file():
        raise IntegrityError(path, "is not in DVC's cache", "dvc repro split brains, then the same command")
    with open(path, "rb") as content:
        while piece := content.read(PIECE):
            yield piece
