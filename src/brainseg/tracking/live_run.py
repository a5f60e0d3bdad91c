"""The MLflow run of a training while it trains: opened when it starts, each epoch added when it ends.

A thread sends what is new and the training never waits for it. A store that is down at first gets all when it answers.
What is still missing at the end ``mlflow_runs.log_training`` adds, and warns if it cannot.
"""

import contextlib
import functools
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from brainseg import config, errors, files
from brainseg.tracking import mlflow_runs, run_store

RETRY_SECONDS = 60.0  # from a store that did not answer to the next try
END_SECONDS = 3.0  # how long the end of a training waits for the thread, and for the store: of STAGE_SECONDS
ATTEMPT_FILE = "attempt"


class LiveRun:
    """Tells the store, as a context manager around a training, which epochs are done.

    A training that goes on continues the run that it had, even one that failed, if its parameters are the same.
    """

    def __init__(self, folder: Path, digests: dict[str, str], source: str, tree: Path = Path()):
        """
        Args:
            folder: of the training's checkpoints. A name of the attempt is kept there: others train the same elsewhere.
            digests: of the data, as ``dataset.digests`` gives them.
            source: of the data, ``download.source``.
            tree: the folder with params.yaml.
        """
        self.folder, self.digests, self.source, self.tree = folder, digests, source, tree
        self.params = config.flatten(config.read_yaml(tree / "params.yaml"))
        self.started, self.ended = time.time(), 0.0
        self._attempt = ""
        self._epochs: list[dict[str, Any]] = []
        self._changed, self._over, self._writing = threading.Event(), threading.Event(), threading.Lock()
        self._run: str | None = None
        self._monitor: Any = None
        self._waited = 0.0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        """Call it when nobody else can train in the folder."""
        self._attempt = _name_attempt(self.folder / ATTEMPT_FILE)
        with contextlib.suppress(Exception):  # told at the end. Not in the thread, beside imports of the training
            run_store.import_mlflow()
            self._changed.set()
            self._thread.start()
        return self

    def update(self, history: Sequence[dict[str, Any]]) -> None:
        """All epochs so far, a row of numbers each."""
        self._epochs = list(history)
        self._changed.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread. The run is left unfinished for ``finish``, unless the training failed."""
        self.ended = time.time()
        self._over.set()
        self._changed.set()
        if self._thread.ident:
            self._thread.join(END_SECONDS)
        with contextlib.suppress(Exception):
            errors.limit(END_SECONDS, functools.partial(self._end, kind))
        self._waited = time.time() - self.ended

    def finish(self) -> bool:
        """Log what is missing. Call it after the outputs are written. Returns whether all is logged."""
        if not self._writing.acquire(timeout=END_SECONDS):  # an answer that does not come, to the thread
            told = "it did not answer"
            print(mlflow_runs.WARNING.format(store=run_store.store_name(), fault=told), file=sys.stderr)
            return False
        return mlflow_runs.log_training(
            self.tree, attempt=self._attempt, params=self.params, started=self.started, ended=self.ended,
            seconds=run_store.STAGE_SECONDS - self._waited,
        )  # fmt: skip

    def _serve(self) -> None:
        while True:
            self._changed.wait()
            if self._over.is_set():
                return
            self._changed.clear()
            try:
                with run_store.reach_store(run_store.STAGE_SECONDS) as left:
                    errors.limit(left, functools.partial(self._log, self._epochs))
            except Exception:
                self._over.wait(RETRY_SECONDS)
                self._changed.set()

    def _log(self, epochs: list[dict[str, Any]]) -> None:
        with self._writing:
            if self._over.is_set():  # the end came while this waited for its turn
                return
            store = run_store.RunStore()
            if self._run is None:
                self._run = self._open(store)
            rows = {row["epoch"]: {name: row[name] for name in row.keys() - {"epoch"}} for row in epochs}
            store.log_epochs(self._run, rows)

    def _open(self, store: run_store.RunStore) -> str:
        """The run of this attempt that did not end, else a new one, with parameters and data."""
        tags = {"stage": "train", mlflow_runs.ATTEMPT: self._attempt}
        found = store.find_unfinished(tags, self.params)
        if found:
            run = found
            store.client.update_run(run, status="RUNNING")
        else:
            run = store.open(self.tree, tags | mlflow_runs.tag_data(self.digests), started=self.started)
            store.log_params(run, self.params)
            store.log_dataset(run, self.source, self.digests["images_sha256"])
        with contextlib.suppress(Exception):  # what it needs of the machine is not everywhere
            self._monitor = run_store.monitor_system(run, again=found is not None)
        return run

    def _end(self, kind: type[BaseException] | None) -> None:
        """A local store is not locked for it: its tables are there."""
        with self._writing:
            if self._run and kind:
                status = "FAILED" if issubclass(kind, Exception) else "KILLED"
                run_store.RunStore().client.set_terminated(self._run, status)
            if self._monitor:
                self._monitor.finish()


def _name_attempt(path: Path) -> str:
    """A name that nobody else has, the same when the training goes on."""
    if not path.is_file() or len(path.read_bytes()) != len(uuid.uuid4().hex):
        files.write_text(path, uuid.uuid4().hex)
    return path.read_text(encoding="ascii", errors="replace")
