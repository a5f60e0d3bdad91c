"""The MLflow run of a training while it trains: opened when it starts, each epoch added when it ends.

A thread sends what is new and the training never waits for it. A store that is down at first gets all when it answers.
What is still missing at the end ``mlflow_runs.log_training`` adds, and warns if it cannot.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from brainseg import config, errors
from brainseg.tracking import mlflow_runs, run_store

RETRY_SECONDS = 60.0  # from a store that did not answer to the next try
END_SECONDS = 3.0  # how long the end of a training waits for the thread, and for the store: of STAGE_SECONDS


class LiveRun:
    """Tells the store, as a context manager around a training, which epochs are done.

    A training that goes on continues the run that it had, even one that failed.
    """

    def __init__(self, key: str, digests: dict[str, str], source: str, tree: Path = Path()):
        """
        Args:
            key: of the training's checkpoints.
            digests: of the data, as ``dataset.digests`` gives them.
            source: of the data, ``download.source``.
            tree: the folder with params.yaml.
        """
        self.key, self.digests, self.source, self.tree = key, digests, source, tree
        self.started, self.ended = time.time(), 0.0
        self._epochs: list[dict[str, Any]] = []
        self._changed, self._over = threading.Event(), threading.Event()
        self._run: str | None = None
        self._waited = 0.0
        self._monitor: Any = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        with contextlib.suppress(ImportError):  # told at the end. Not in the thread, beside imports of the training
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
        """End the thread. A run is left unfinished for ``finish``, unless the training failed."""
        self.ended = time.time()
        self._over.set()
        self._changed.set()
        if self._thread.ident:
            self._thread.join(END_SECONDS)
        if self._run:
            status = None if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
            with contextlib.suppress(Exception):
                errors.limit(END_SECONDS, functools.partial(self._end, self._run, status))
        self._waited = time.time() - self.ended

    def finish(self) -> bool:
        """Log what is missing. Call it after the outputs are written. Returns whether all is logged."""
        return mlflow_runs.log_training(
            self.tree, key=self.key, started=self.started, ended=self.ended,
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
        store = run_store.RunStore()
        if self._run is None:
            self._run = self._open(store)
        store.log_epochs(self._run, {int(row["epoch"]): row for row in epochs})

    def _open(self, store: run_store.RunStore) -> str:
        """The run of the same training that did not end, else a new one, with parameters and data."""
        tags = {"stage": "train", mlflow_runs.KEY: self.key}
        found = store.find(tags, finished=False)
        if found:
            store.client.update_run(found, status="RUNNING")
        else:
            tags |= mlflow_runs.tag_data(self.digests)
            run = store.open(self.tree, tags, started=self.started)
            store.log_params(run, config.flatten(config.read_yaml(self.tree / "params.yaml")))
            store.log_dataset(run, self.source, self.digests["images_sha256"])
        self._monitor = run_store.monitor_system(found or run, again=found is not None)
        return found or run

    def _end(self, run: str, status: str | None) -> None:
        if self._monitor:
            self._monitor.finish()
        if status:
            run_store.RunStore().client.set_terminated(run, status)
