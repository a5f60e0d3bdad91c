"""Log to MLflow what the stages wrote. No result depends on it.

Only this module and ``registry`` import mlflow, and only when something is logged. The run of a training is found
by the digest of its weights, so no file holds a run's id. A store that is down, hangs, drips or is full costs one
warning and at most ``STAGE_SECONDS``; ``brainseg track`` logs the same later.
"""

import contextlib
import functools
import importlib.metadata
import json
import logging
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from brainseg import config, errors, files
from brainseg.data import csv_tables
from brainseg.errors import BrainsegError, DataError, MachineError
from brainseg.evaluation import results
from brainseg.models import manifest

SETTINGS = {  # defaults, the user's own settings win: a server that is down must not delay a stage
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
SILENT = "MLFLOW_DISABLE_TELEMETRY=true"  # begins each command of MLflow that is told: see brainseg/__init__.py
STAGE_SECONDS, TRACK_SECONDS = 10.0, 300.0  # how long a stage, and a person who asks for it, wait for the store
FOLDS = Path("metrics/cross_validation")
TURN_SECONDS = 60.0  # how much longer for this project's other runs, each of which has a local store for STAGE_SECONDS
NEEDED_TO_LOAD = ("keras", "tensorflow-cpu", "tensorflow", "jax", "numpy", "pandas", "pydantic", "ruamel.yaml", "tqdm")


def store_uri() -> str:
    """The store for runs: ``MLFLOW_TRACKING_URI``, else a SQLite file in the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{files.project_root().resolve()}/mlflow.db"


def store_name() -> str:
    """``store_uri`` without the user name and password that it may hold, for messages."""
    return errors.redact(store_uri())


def _optional(log: Callable[..., None]) -> Callable[..., bool]:
    """Turn any error in ``log``, and more than ``seconds`` for it, into one warning and the return value False."""

    @functools.wraps(log)
    def guarded(*args: Any, seconds: float = STAGE_SECONDS, **kwargs: Any) -> bool:
        try:
            with reach_store(seconds) as left:
                errors.limit(left, functools.partial(log, *args, **kwargs))
            return True
        except Exception as error:
            print(
                f"WARNING MLflow ({store_name()}): {describe_fault(error)}. "
                "The results are complete; to log them later: brainseg track",
                file=sys.stderr,
            )
            return False

    return guarded


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


@_optional
def log_training(tree: Path = Path(), *, once: bool = False) -> None:
    """Log a training: parameters, metrics per epoch, digests of the data, the model with its signature.

    Args:
        tree: the folder with params.yaml, models/ and metrics/ (a stage's working directory).
        once: do nothing if this model is logged already.
    """
    model = manifest.read(tree / "models/unet.json")
    history = csv_tables.read_csv(tree / "metrics/training.csv")
    tags = {"stage": "train", "model.sha256": model.weights_sha256}
    store = RunStore()
    if once and store.find(tags):
        return
    with store.run(tree, tags | _build_tags(model)) as run:
        store.log_params(run, config.flatten(config.read_yaml(tree / "params.yaml")))
        kept = history.loc[history["epoch"] == model.training.kept_epoch].iloc[0]
        store.log_metrics(run, {0: {"kept_epoch": kept["epoch"], "kept_val_volume_dice": kept["val_volume_dice"]}})
        store.log_dataset(run, model.protocol.source, model.data["images_sha256"])
        store.log_model(tree / "models", model)  # MLflow copies the metrics of step 0 to the model
        store.log_metrics(run, history.set_index("epoch").to_dict("index"))


@_optional
def log_evaluation(tree: Path = Path(), *, once: bool = False) -> None:
    """Log metrics/summary.json and evaluation.json, as a child of the training's run if that is logged."""
    report = results.read(tree / "metrics/evaluation.json", results.Evaluation)
    summary = results.read(tree / "metrics/summary.json", results.Summary)
    model = {"model.sha256": manifest.read(tree / "models/unet.json").weights_sha256}
    tags = model | {"stage": "evaluate", "evaluation.sha256": files.sha256(tree / "metrics/evaluation.json")}
    store = RunStore()
    if once and store.find(tags):
        return
    parent = store.find(model | {"stage": "train"})
    with store.run(tree, tags | {"marks": "; ".join(report.protocol.marks)}, parent) as run:
        store.log_params(run, config.flatten({"evaluate": config.read_yaml(tree / "params.yaml")["evaluate"]}))
        scores = config.flatten(report.model_dump(include={"val", "test"}))
        store.log_metrics(run, {0: summary.model_dump() | scores})
        store.log_artifacts(run, tree / "metrics", "evaluation.json", "per_patient.csv")


@_optional
def log_figures(tree: Path = Path()) -> None:
    """Add the plots and the report to the run of their evaluation, or to a new run if that is not logged."""
    tags = {"evaluation.sha256": files.sha256(tree / "metrics/evaluation.json")}
    store = RunStore()
    found = store.find(tags)
    with contextlib.nullcontext(found) if found else store.run(tree, tags | {"stage": "render"}) as run:
        store.log_artifacts(run, tree / "metrics", "plots", "report.html")


@_optional
def log_cross_validation(tree: Path = Path()) -> None:
    """Log metrics/cross_validation/ as a run. Its children are the folds' trainings, or new runs for the others."""
    folder = tree / FOLDS
    summary = read_cross_validation(folder)
    tags = {"stage": "cross-validation", "cross_validation.sha256": files.sha256(folder / "summary.json")}
    store = RunStore()
    if store.find(tags):
        return
    name = summary.folds[0].experiment.rpartition("-")[0]
    with store.run(tree, tags | {"marks": "; ".join(summary.protocol.marks)}, name=name) as run:
        store.log_params(run, config.flatten(summary.params))
        store.log_metrics(run, {0: config.flatten(summary.model_dump(include={"test"}))})
        store.log_artifacts(run, folder, *sorted(path.name for path in folder.iterdir()))
        for fold in summary.folds:
            if not store.adopt(fold.experiment, run):
                with store.run(tree, {"stage": "fold"}, run, fold.experiment) as child:
                    dice = fold.volume_dice.model_dump()
                    store.log_metrics(child, {0: config.flatten({"test": {"volume": {"dice": dice}}})})


def read_cross_validation(folder: Path) -> results.CrossValidationSummary:
    """The summary of a cross-validation.

    Raises:
        DataError: it is damaged. IntegrityError: it, or the table beside it, is not the one that was made.
    """
    from brainseg.experiments import revision  # with libraries that no stage needs

    summary = results.read(folder / "summary.json", results.CrossValidationSummary)
    if (folder / "per_patient.csv").is_file():
        revision.scores(str(folder))  # compares the table with the digest and the mean Dice of the summary
    return summary


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
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in (mlflow.__name__, "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
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
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        wanted += " and attributes.status = 'FINISHED'"
        newest = ["attributes.start_time DESC"]
        runs = self.client.search_runs([self.experiment], wanted, max_results=1, order_by=newest)
        return runs[0].info.run_id if runs else None

    def adopt(self, name: str, parent: str) -> bool:
        """Make the training with this run name a child of ``parent``. Returns whether there is one."""
        found = self.find({"stage": "train", "mlflow.runName": name})
        if found:
            self.client.set_tag(found, "mlflow.parentRunId", parent)
        return found is not None

    @contextlib.contextmanager
    def run(
        self, tree: Path, tags: dict[str, str], parent: str | None = None, name: str | None = None
    ) -> Iterator[str]:
        """A new run, marked as finished if the block succeeds, else as failed."""
        import mlflow

        commit = _read_commit(tree)
        name = name or os.environ.get("DVC_EXP_NAME") or commit[:7] or None
        tags = tags | ({"mlflow.source.git.commit": commit} if commit else {})
        with mlflow.start_run(
            experiment_id=self.experiment, run_name=name, tags=tags, parent_run_id=parent, nested=True
        ) as run:  # fmt: skip
            yield run.info.run_id

    def log_params(self, run: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        pairs = [Param(name, str(value)) for name, value in params.items()]
        for start in range(0, len(pairs), 100):  # the maximum per request
            self.client.log_batch(run, params=pairs[start : start + 100])

    def log_metrics(self, run: str, rows: dict[int, dict[str, Any]]) -> None:
        """Log the defined numbers of each row; the keys of ``rows`` are steps."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        cells = [(step, name, value) for step, row in rows.items() for name, value in _keep_numbers(row).items()]
        metrics = [Metric(name, value, now, step) for step, name, value in cells]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run, metrics=metrics[start : start + 1000])

    def log_dataset(self, run: str, source: str, digest: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(source, digest[:36], "local", json.dumps({"uri": "data/processed"}))
        self.client.log_inputs(run, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def log_model(self, models: Path, model: manifest.Manifest) -> None:
        """Log weights and manifest to the current run, with a copy of the code that loads them. Nothing is pickled."""
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        (height, width), channels = model.contract.size, len(model.contract.channels)
        signature = ModelSignature(
            Schema([TensorSpec(np.dtype("uint8"), (-1, height, width, channels), "images")]),
            Schema([TensorSpec(np.dtype("float32"), (-1, height, width), "probability")]),
        )
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow recommends an input example, for which it would run the model
            for name in ("unet.json", "unet.weights.h5"):
                shutil.copyfile(models / name, Path(folder) / name)
            mlflow.pyfunc.log_model(
                name="unet", loader_module="brainseg.tracking.logged_model", data_path=folder, signature=signature,
                code_paths=[str(Path(__file__).parents[1])], pip_requirements=pin_installed(NEEDED_TO_LOAD),
            )  # fmt: skip

    def log_artifacts(self, run: str, folder: Path, *names: str) -> None:
        for name in names:
            self.client.log_artifact(run, str(folder / name))


def _build_tags(model: manifest.Manifest) -> dict[str, str]:
    """Tags that identify a run: digests of its data, and its marks."""
    digests = {f"data.{name}": value for name, value in model.data.items() if name.endswith("_sha256")}
    return digests | {"marks": "; ".join(model.protocol.marks)}


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
    found = []
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name}=={importlib.metadata.version(name)}")
    return found
