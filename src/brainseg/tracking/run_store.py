"""The MLflow store: where it is, how long it is waited for, and how runs are made, found and filled.

Only this room imports mlflow, and only when something is logged.
"""

import contextlib
import importlib.metadata
import json
import logging
import math
import os
import shlex
import shutil
import sqlite3
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from brainseg import errors, files
from brainseg.errors import BrainsegError, DataError, MachineError
from brainseg.models import manifest

SETTINGS = {  # defaults, the user's own settings win: a server that is down must not delay a stage
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
SILENT = "MLFLOW_DISABLE_TELEMETRY=true"  # begins each command of MLflow that is told: see brainseg/__init__.py
STAGE_SECONDS, TRACK_SECONDS = 10.0, 300.0  # how long a stage, and a person who asks for it, wait for the store
TURN_SECONDS = 60.0  # how much longer for this project's other runs, each of which has a local store for STAGE_SECONDS
NEEDED_TO_LOAD = ("keras", "tensorflow-cpu", "tensorflow", "jax", "numpy", "pandas", "pydantic", "ruamel.yaml", "tqdm")


def store_uri() -> str:
    """The store for runs: ``MLFLOW_TRACKING_URI``, else a SQLite file in the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{files.project_root().resolve()}/mlflow.db"


def store_name() -> str:
    """``store_uri`` without the user name and password that it may hold, for messages."""
    return errors.redact(store_uri())


def describe_fault(error: Exception) -> str:
    """What is wrong, in one line, and what to do if that is known."""
    if isinstance(error, BrainsegError):
        told = (f"{problem.path}: {problem.what}. Fix: {problem.fix}" for problem in error.problems)
        return errors.printable("; ".join(told))
    return f"{type(error).__name__}: {' '.join(errors.redact(str(error)).split())[:200]}"


def check_store(seconds: float) -> None:
    """Open the store, so that what is wrong with it is told once and not for each result.

    Raises:
        DataError: its experiment is deleted. MachineError: it does not answer within ``seconds``, or is no store.
    """
    try:
        with reach_store(seconds) as left:
            errors.limit(left, RunStore)
    except BrainsegError:
        raise
    except Exception as error:
        fix = "check that it answers (MLFLOW_TRACKING_URI names it), then: brainseg track"
        raise MachineError(f"MLflow ({store_name()})", describe_fault(error), fix) from error


def import_mlflow() -> None:
    """Import MLflow, which takes seconds, with our settings."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in (mlflow.__name__, "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def reach_store(seconds: float) -> Iterator[float]:
    """Make the store ready for ``errors.limit``: MLflow's import and the tables of a new local store are no waiting.

    A local store is locked in the block, because two processes that create its tables at once would fail.

    Args:
        seconds: for all waiting but that for the lock: several trainings that end together take turns. What is left
            of them is yielded.

    Raises:
        filelock.Timeout: others have the lock for TURN_SECONDS more.
    """
    import_mlflow()
    if not _is_local():
        yield seconds
        return
    with FileLock(files.state_dir() / "mlflow.lock", timeout=seconds + TURN_SECONDS):
        yield seconds - _prepare_file(seconds)


def _is_local() -> bool:
    return store_uri().startswith("sqlite:")


def _prepare_file(seconds: float) -> float:
    """Make the tables of a new SQLite store, aside, so that a kill leaves none half made.

    Args:
        seconds: to wait for a program that has the store locked.

    Returns:
        The seconds of them that it has waited.

    Raises:
        sqlite3.Error: an old one is none, but a folder or another kind of file. MLflow would try it for 102 seconds.
    """
    import mlflow
    from sqlalchemy.engine import make_url

    path = make_url(store_uri()).database
    if not path or path == ":memory:":
        return 0.0
    if os.path.exists(path):
        start = time.monotonic()
        with contextlib.closing(sqlite3.connect(path, timeout=seconds)) as database:
            database.execute("PRAGMA schema_version")
        return time.monotonic() - start
    with files.replacing(Path(path)) as temporary:
        mlflow.MlflowClient(f"sqlite:///{temporary.absolute()}").search_experiments()
    return 0.0


class RunStore:
    """One MLflow experiment in the tracking store. Open it within ``errors.limit``."""

    def __init__(self) -> None:
        import mlflow

        mlflow.set_tracking_uri(store_uri())
        self.client = mlflow.MlflowClient(store_uri())
        self.experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "brainseg", _is_local())

    def _experiment(self, name: str, local: bool) -> str:
        from mlflow.exceptions import MlflowException

        artifacts = (files.project_root().resolve() / "mlartifacts").as_uri() if local else None
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name, artifact_location=artifacts)
            except MlflowException:  # another process created it first
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            uri = store_uri()  # not shown with a password, with which it is in the reader's environment
            where = f"MLFLOW_TRACKING_URI={shlex.quote(uri)} " if uri == store_name() else ""
            fix = f"{where}{SILENT} mlflow experiments restore --experiment-id {found.experiment_id}, "
            fix += "or set MLFLOW_EXPERIMENT_NAME to another name"
            raise DataError(f"MLflow ({store_name()})", f"its experiment {name} is deleted", fix)
        return found.experiment_id

    def find(self, tags: dict[str, str]) -> str | None:
        """The id of the newest finished run with all these tags, or None."""
        found = self._search(tags, "= 'FINISHED'", 1)
        return found[0].info.run_id if found else None

    def find_unfinished(
        self, tags: dict[str, str], params: dict[str, Any], rows: dict[int, dict[str, Any]] | None = None
    ) -> str | None:
        """The newest unfinished run with these tags and no other value of a parameter, or None.

        Args:
            rows: of a training, epoch → its numbers: the run must have epochs, and all of them be of this training.
        """
        for run in self._search(tags, "!= 'FINISHED'", 50):
            if any(str(params.get(name, value)) != value for name, value in run.data.params.items()):
                continue
            has = self._losses(run.info.run_id) if rows else {}
            if rows is None or (has and all(n in rows and _is_same(loss, rows[n]["loss"]) for n, loss in has.items())):
                return run.info.run_id
        return None

    def _search(self, tags: dict[str, str], status: str, most: int) -> list[Any]:
        wanted = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
        wanted.append(f"attributes.status {status}")
        newest = ["attributes.start_time DESC"]
        return self.client.search_runs([self.experiment], " and ".join(wanted), max_results=most, order_by=newest)

    def _losses(self, run: str) -> dict[int, float]:
        """Epoch → loss, of the epochs that the run has."""
        return {metric.step: metric.value for metric in self.client.get_metric_history(run, "loss")}

    def adopt(self, name: str, parent: str) -> str | None:
        """Make the training with this run name a child of ``parent``: the newest that is finished, else the newest.

        Returns:
            The id of its run; None: there is none.
        """
        own = {"stage": "train", "mlflow.runName": name}
        found = self._search(own, "= 'FINISHED'", 1) or self._search(own, "!= 'FINISHED'", 1)
        for run in found:
            self.client.set_tag(run.info.run_id, "mlflow.parentRunId", parent)
        return found[0].info.run_id if found else None

    def mark_killed(self, run: str) -> None:
        """Say of a run that nobody goes on with that it was killed, at the time of its last numbers."""
        info = self.client.get_run(run).info
        if info.status == "RUNNING":
            told = self.client.get_metric_history(run, "loss")
            last = max((metric.timestamp for metric in told), default=info.start_time)
            self.client.set_terminated(run, "KILLED", last)

    def remove(self, tags: dict[str, str]) -> None:
        """Delete all runs with these tags; MLflow can restore them."""
        for run in self._search(tags, "!= ''", 5000):
            self.client.delete_run(run.info.run_id)

    def open(
        self, tree: Path, tags: dict[str, str], parent: str | None = None, name: str | None = None,
        started: float | None = None,
    ) -> str:  # fmt: skip
        """A new run, which is unfinished until a ``resume`` of it ends.

        Args:
            name: default: the DVC experiment's, else the commit.
            started: seconds since 1970, default: now.
        """
        from mlflow.tracking.context import registry

        commit = _read_commit(tree)
        name = name or os.environ.get("DVC_EXP_NAME") or commit[:7] or None
        tags = tags | ({"mlflow.source.git.commit": commit} if commit else {})
        tags |= {"mlflow.parentRunId": parent} if parent else {}
        moment = milliseconds(started) if started else None
        run = self.client.create_run(self.experiment, moment, registry.resolve_tags(tags), name)
        return run.info.run_id

    @contextlib.contextmanager
    def resume(self, run: str, tags: dict[str, str], ended: float | None = None) -> Iterator[str]:
        """Go on with a run within the block, then mark it as finished, or as failed if the block failed.

        Args:
            ended: seconds since 1970 at which what it is about ended, default: now.
        """
        import mlflow

        with mlflow.start_run(run, tags=tags, nested=True, log_system_metrics=False):
            yield run
        if ended:
            self.client.set_terminated(run, "FINISHED", milliseconds(ended))

    @contextlib.contextmanager
    def run(
        self, tree: Path, tags: dict[str, str], parent: str | None = None, name: str | None = None
    ) -> Iterator[str]:
        """A new run, marked as finished if the block succeeds, else as failed."""
        with self.resume(self.open(tree, tags, parent, name), {}) as run:
            yield run

    def log_params(self, run: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        pairs = [Param(name, str(value)) for name, value in params.items()]
        for start in range(0, len(pairs), 100):  # the maximum per request
            self.client.log_batch(run, params=pairs[start : start + 100])

    def log_metrics(self, run: str, rows: dict[int, dict[str, Any]]) -> None:
        """Log the defined numbers of each row; the keys of ``rows`` are steps. A row is there whole or not at all."""
        from mlflow.entities import Metric

        now = milliseconds(time.time())
        metrics: list[Metric] = []
        for step, row in rows.items():
            cells = [Metric(name, value, now, step) for name, value in _keep_numbers(row).items()]
            if len(metrics) + len(cells) > 1000:  # the maximum per request
                self.client.log_batch(run, metrics=metrics)
                metrics = []
            metrics += cells
        self.client.log_batch(run, metrics=metrics)

    def log_epochs(self, run: str, rows: dict[int, dict[str, Any]]) -> None:
        """Log those epochs of a training that the run does not have: epoch → its numbers, the loss among them."""
        has = self._losses(run)
        there = (epoch for epoch, loss in has.items() if epoch in rows and _is_same(loss, rows[epoch]["loss"]))
        self.log_metrics(run, {epoch: rows[epoch] for epoch in rows.keys() - there})

    def log_dataset(self, run: str, source: str, digest: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(source, digest[:36], "local", json.dumps({"uri": "data/processed"}))
        self.client.log_inputs(run, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def log_model(self, models: Path, model: manifest.Manifest) -> None:
        """Log weights and manifest to the current run, with a copy of the code that loads them. Nothing is pickled."""
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        height, width = model.contract.size
        signature = ModelSignature(
            Schema([TensorSpec(np.dtype("O"), (-1,), "images")]),  # any array: a type named here would be the only one
            Schema([TensorSpec(np.dtype("float32"), (-1, height, width), "probability")]),
        )
        taken = f"(n, {height}, {width}, {len(model.contract.channels)}), whole numbers from 0 to 255 of any type"
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow recommends an input example, for which it would run the model
            for name in ("unet.json", "unet.weights.h5"):
                shutil.copyfile(models / name, Path(folder) / name)
            mlflow.pyfunc.log_model(
                name="unet", loader_module="brainseg.tracking.logged_model", data_path=folder, signature=signature,
                metadata={"images": taken},
                code_paths=[str(Path(__file__).parents[1])], pip_requirements=pin_installed(NEEDED_TO_LOAD),
            )  # fmt: skip

    def log_artifacts(self, run: str, folder: Path, *names: str) -> None:
        for name in names:
            self.client.log_artifact(run, str(folder / name))


def monitor_system(run: str, *, again: bool) -> Any:
    """Log load, memory, disk and GPU to the run from now on, if ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` asks for it.

    Args:
        again: the run has such numbers already, and goes on.

    Returns:
        The monitor, whose ``finish`` ends it, or None.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return None
    monitor = SystemMetricsMonitor(run, resume_logging=again, tracking_uri=store_uri())
    monitor.start()
    return monitor


def milliseconds(moment: float) -> int:
    """MLflow's time of a moment in seconds since 1970."""
    return round(moment * 1000)


def _is_same(loss: float, other: float) -> bool:
    """Whether two losses are one but for rounding: the table of a training has six digits."""
    return math.isclose(loss, other, rel_tol=1e-5)


def _keep_numbers(row: dict) -> dict[str, float]:
    """The finite numbers of ``row``; a metric in MLflow must be a number."""
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float) and np.isfinite(value)}


def _read_commit(tree: Path) -> str:
    try:
        return subprocess.check_output(
            ["git", "rev-parse", "HEAD"], cwd=tree, text=True, stderr=subprocess.DEVNULL
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def pin_installed(names: tuple[str, ...]) -> list[str]:
    """Requirements of those packages that are installed, at their versions."""
    found = []
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name}=={importlib.metadata.version(name)}")
    return found
