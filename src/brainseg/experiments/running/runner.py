"""What folds and trials ask for: run this experiment and tell its epochs. Who runs it, is no matter of theirs."""

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeVar

from brainseg.errors import RunError

Answer = TypeVar("Answer")
PREPARED = ("split", "brains")  # stages that run once in the workspace, so that trainings find the data in DVC's cache
EPOCH = re.compile(r"epoch (\d+)/(\d+) .*validation volume Dice (\d\.\d+|nan)")  # what training.progress prints
STAGE = re.compile(r"Running stage '([\w-]+)'")  # what DVC prints
FAULT = re.compile(r"^ERROR (\d) (.*?)(?:\. Fix: (.*))?$", re.MULTILINE)
OF_TRAINING = ("2", "5")  # codes of errors that these parameters alone have; the others would hit any training


class Training(NamedTuple):
    """An experiment: ``dvc exp run`` of the project with ``overrides``, nested as in params.yaml.

    ``state``: the folder of its log and of its checkpoints.
    """

    name: str
    overrides: dict[str, Any]
    state: Path

    @property
    def log(self) -> Path:
        return self.state / f"{self.name}.log"

    @property
    def checkpoints(self) -> Path:
        return self.state / self.name


class Seen(NamedTuple):
    """What a training does: the stage that runs, an epoch that has ended with its validation Dice, or both.

    ``where``: the node that it runs on.
    """

    state: str = ""
    epoch: int = 0
    epochs: int = 0
    dice: float | None = None
    where: str = ""


Watch = Callable[[Seen], bool]  # returns True to stop the training


class TrainingError(RunError):
    """A training that ended with a code.

    ``by_parameters``: its own parameters broke it; anything else would break others too.
    """

    def __init__(self, log: Path, printed: str, code: int):
        fault = FAULT.search(printed)
        self.by_parameters, self.ended_with = fault is not None and fault[1] in OF_TRAINING, code
        told = fault[2] if fault else "read its end"
        what = told if self.by_parameters else f"the training ended with code {code}: {told}"
        super().__init__(log, what, f"{(fault and fault[3]) or 'correct it'}; then run this again")


class Runner(Protocol):
    """Runs trainings; a context manager. ``jobs``: how many side by side; ``is_over``: ``end_all`` was called."""

    jobs: int
    is_over: threading.Event

    def run(self, training: Training, watch: Watch) -> bool:
        """Run a training to its end; whether ``watch`` has stopped it.

        One that is killed or fails goes on from its checkpoint; one that is stopped leaves only its log.

        Raises:
            TrainingError: it ended with a code. MachineError: it could not be run.
        """

    def end_all(self) -> None:
        """End what runs, and run nothing more. Checkpoints stay."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Place(NamedTuple):
    """Where trainings run. ``jobs``: at once; None: one here, as many as there is room for on Ray.

    Of Ray alone: the address of a cluster (None: a local Ray), processors and GPUs of a training (None: what suits it).
    """

    on: Literal["here", "ray"] = "here"
    jobs: int | None = None
    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None


HERE = Place()


def read_line(line: str) -> Seen | None:
    """What a line of DVC's or of a stage's output tells."""
    if found := EPOCH.match(line):
        return Seen("train", int(found[1]), int(found[2]), float(found[3]))
    found = STAGE.match(line)
    return Seen(found[1]) if found else None


def work(runner: Runner, acts: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Call all of ``acts``, as many side by side as the runner has jobs. What one raises ends the others.

    So does Ctrl-C, which only this thread gets: what runs in a session of its own gets none from the terminal.
    """
    with ThreadPoolExecutor(max(1, min(runner.jobs, len(acts)))) as pool:
        answers = [pool.submit(act) for act in acts]
        try:
            for answer in as_completed(answers):
                answer.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.end_all()
            raise
    return [answer.result() for answer in answers]


@contextlib.contextmanager
def stoppable(what: str) -> Iterator[None]:
    """Within the block SIGTERM and a closed terminal are as Ctrl-C: nothing is lost, and it is said how to go on.

    Raises:
        RunError: it was stopped.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    heeded = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    except KeyboardInterrupt:
        done = "was stopped; what is finished is kept, and what was running goes on from its last checkpoint"
        raise RunError(what, done, "go on with the same command") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
