"""MLflow, a view of the files that the stages wrote; nothing here is needed to get a result.

It and ``registry`` alone import mlflow, and only when something is logged. A run that trained is found
again by the digest of its weights, so no file holds a run's id. A store that is down, hangs or is
full costs one warning: ``brainseg track`` logs the same later.
"""

import contextlib
import functools
import importlib.metadata
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from brainseg import config, files

SETTINGS = {  # unless the user set them: a server that is down must not hold up a stage
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
NEEDED_TO_LOAD = ("keras", "tensorflow-cpu", "tensorflow", "jax", "numpy", "pandas", "pydantic", "ruamel.yaml", "tqdm")


def store_uri() -> str:
    """Where runs go: ``MLFLOW_TRACKING_URI``, else a SQLite file in the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{files.project_root().resolve()}/mlflow.db"


def store_name() -> str:
    """``store_uri`` for people: without the name and password that it may hold."""
    return re.sub("://[^/@]*@", "://", store_uri())


def _optional(log: Callable[..., None]) -> Callable[..., bool]:
    """Turn whatever goes wrong in ``log`` into one warning and the answer False."""

    @functools.wraps(log)
    def guarded(*args: Any, **kwargs: Any) -> bool:
        try:
            log(*args, **kwargs)
            return True
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            print(
                f"WARNING MLflow ({store_name()}): {type(error).__name__}: {reason}. "
                "The results are complete; to log them later: brainseg track",
                file=sys.stderr,
            )
            return False

    return guarded


@_optional
def log_training(tree: Path = Path(), *, once: bool = False) -> None:
    """Log a training: parameters, numbers per epoch, digests of the data, the model with its signature.

    Args:
        tree: the folder with params.yaml, models/ and metrics/ (a stage's working directory).
        once: do nothing when this model is there already.
    """
    manifest = json.loads((tree / "models/unet.json").read_text(encoding="utf-8"))
    history = pd.read_csv(tree / "metrics/training.csv")
    tags = {"stage": "train", "model.sha256": manifest["weights_sha256"]}
    with opened() as store:
        if once and store.find(tags):
            return
        with store.run(tree, tags | _facts(manifest)) as run:
            store.log_params(run, flat(config.read_yaml(tree / "params.yaml")))
            kept = history.loc[history["epoch"] == manifest["training"]["kept_epoch"]].iloc[0]
            store.log_metrics(run, {0: {"kept_epoch": kept["epoch"], "kept_val_volume_dice": kept["val_volume_dice"]}})
            store.log_dataset(run, manifest["protocol"]["source"], manifest["data"]["images_sha256"])
            store.log_model(tree / "models", manifest)  # takes over the metrics of step 0
            store.log_metrics(run, history.set_index("epoch").to_dict("index"))


@_optional
def log_evaluation(tree: Path = Path(), *, once: bool = False) -> None:
    """Log metrics/summary.json and evaluation.json as a child of the run that trained the model, if it is there."""
    manifest = json.loads((tree / "models/unet.json").read_text(encoding="utf-8"))
    report = json.loads((tree / "metrics/evaluation.json").read_text(encoding="utf-8"))
    summary = json.loads((tree / "metrics/summary.json").read_text(encoding="utf-8"))
    model = {"model.sha256": manifest["weights_sha256"]}
    tags = model | {"stage": "evaluate", "evaluation.sha256": files.sha256(tree / "metrics/evaluation.json")}
    with opened() as store:
        if once and store.find(tags):
            return
        parent = store.find(model | {"stage": "train"})
        with store.run(tree, tags | {"marks": "; ".join(report["protocol"]["marks"])}, parent) as run:
            store.log_params(run, flat({"evaluate": config.read_yaml(tree / "params.yaml")["evaluate"]}))
            store.log_metrics(run, {0: summary | flat({subset: report[subset] for subset in ("val", "test")})})
            store.log_artifacts(run, tree / "metrics", "evaluation.json", "per_patient.csv")


@_optional
def log_figures(tree: Path = Path()) -> None:
    """Add the plots and the report to the run of the evaluation that they show, or to one of their own."""
    tags = {"evaluation.sha256": files.sha256(tree / "metrics/evaluation.json")}
    with opened() as store:
        found = store.find(tags)
        with contextlib.nullcontext(found) if found else store.run(tree, tags | {"stage": "render"}) as run:
            store.log_artifacts(run, tree / "metrics", "plots", "report.html")


@_optional
def log_cross_validation(tree: Path = Path()) -> None:
    """Log metrics/cross_validation/ as a run whose children are the folds' own runs, where they are there."""
    folder = tree / "metrics/cross_validation"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    tags = {"stage": "cross-validation", "cross_validation.sha256": files.sha256(folder / "summary.json")}
    with opened() as store:
        if store.find(tags):
            return
        name = summary["folds"][0]["experiment"].rpartition("-")[0]
        with store.run(tree, tags | {"marks": "; ".join(summary["protocol"]["marks"])}, name=name) as run:
            store.log_params(run, flat(summary["params"]))
            store.log_metrics(run, {0: flat({"test": summary["test"]})})
            store.log_artifacts(run, folder, *sorted(path.name for path in folder.iterdir()))
            for fold in summary["folds"]:
                if not store.adopt(fold["experiment"], run):
                    with store.run(tree, {"stage": "fold"}, run, fold["experiment"]) as child:
                        store.log_metrics(child, {0: flat({"test": {"volume": {"dice": fold["volume_dice"]}}})})


@contextlib.contextmanager
def opened() -> Iterator["Store"]:
    """The store; a local one to ourselves, since first starts side by side would race on its schema."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow  # takes seconds: before the lock

    for name in (mlflow.__name__, "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    local = store_uri().startswith("sqlite:")
    with FileLock(files.state_dir() / "mlflow.lock", timeout=120) if local else contextlib.nullcontext():
        yield Store(store_uri(), local)


class Store:
    """One experiment of one tracking store."""

    def __init__(self, uri: str, local: bool):
        import mlflow

        mlflow.set_tracking_uri(uri)
        self.client = mlflow.MlflowClient(uri)
        self.experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "brainseg", local)

    def _experiment(self, name: str, local: bool) -> str:
        from mlflow.exceptions import MlflowException

        artifacts = (files.project_root().resolve() / "mlartifacts").as_uri() if local else None
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name, artifact_location=artifacts)
            except MlflowException:  # another process was first
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def find(self, tags: dict[str, str]) -> str | None:
        """The id of the newest run with all these tags that was logged to its end."""
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        wanted += " and attributes.status = 'FINISHED'"
        newest = ["attributes.start_time DESC"]
        runs = self.client.search_runs([self.experiment], wanted, max_results=1, order_by=newest)
        return runs[0].info.run_id if runs else None

    def adopt(self, name: str, parent: str) -> bool:
        """Make the training that ran under this name a child of ``parent``; whether there is one."""
        found = self.find({"stage": "train", "mlflow.runName": name})
        if found:
            self.client.set_tag(found, "mlflow.parentRunId", parent)
        return found is not None

    @contextlib.contextmanager
    def run(
        self, tree: Path, tags: dict[str, str], parent: str | None = None, name: str | None = None
    ) -> Iterator[str]:
        """A new run, finished when the block succeeds and else marked as failed."""
        import mlflow

        commit = _commit(tree)
        name = name or os.environ.get("DVC_EXP_NAME") or commit[:7] or None
        tags = tags | ({"mlflow.source.git.commit": commit} if commit else {})
        with mlflow.start_run(
            experiment_id=self.experiment, run_name=name, tags=tags, parent_run_id=parent, nested=True
        ) as run:  # fmt: skip
            yield run.info.run_id

    def log_params(self, run: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        pairs = [Param(name, str(value)) for name, value in params.items()]
        for start in range(0, len(pairs), 100):  # the most a request may hold
            self.client.log_batch(run, params=pairs[start : start + 100])

    def log_metrics(self, run: str, rows: dict[int, dict[str, Any]]) -> None:
        """Log what is a number and defined in each row; the rows are numbered by step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        cells = [(step, name, value) for step, row in rows.items() for name, value in _numbers(row).items()]
        metrics = [Metric(name, value, now, step) for step, name, value in cells]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run, metrics=metrics[start : start + 1000])

    def log_dataset(self, run: str, source: str, digest: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(source, digest[:36], "local", json.dumps({"uri": "data/processed"}))
        self.client.log_inputs(run, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def log_model(self, models: Path, manifest: dict) -> None:
        """Log weights and manifest to the current run, with a copy of the code that loads them; nothing is pickled."""
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        height, width = manifest["contract"]["size"]
        channels = len(manifest["contract"]["channels"])
        signature = ModelSignature(
            Schema([TensorSpec(np.dtype("uint8"), (-1, height, width, channels), "images")]),
            Schema([TensorSpec(np.dtype("float32"), (-1, height, width), "probability")]),
        )
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it recommends an example, which would have to be predicted
            for name in ("unet.json", "unet.weights.h5"):
                shutil.copyfile(models / name, Path(folder) / name)
            mlflow.pyfunc.log_model(
                name="unet", loader_module="brainseg.tracking.logged_model", data_path=folder, signature=signature,
                code_paths=[str(Path(__file__).parents[1])], pip_requirements=installed(NEEDED_TO_LOAD),
            )  # fmt: skip

    def log_artifacts(self, run: str, folder: Path, *names: str) -> None:
        for name in names:
            self.client.log_artifact(run, str(folder / name))


def _facts(manifest: dict) -> dict[str, str]:
    """What a run is told apart by, as tags."""
    digests = {f"data.{name}": value for name, value in manifest["data"].items() if name.endswith("_sha256")}
    return digests | {"marks": "; ".join(manifest["protocol"]["marks"])}


def flat(nested: dict, prefix: str = "") -> dict[str, Any]:
    """``{"train": {"epochs": 3}}`` → ``{"train.epochs": 3}``."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _numbers(row: dict) -> dict[str, float]:
    """What is a number and defined; a metric in MLflow can be nothing else."""
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float) and np.isfinite(value)}


def _commit(tree: Path) -> str:
    try:
        return subprocess.check_output(
            ["git", "rev-parse", "HEAD"], cwd=tree, text=True, stderr=subprocess.DEVNULL
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def installed(names: tuple[str, ...]) -> list[str]:
    found = []
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name}=={importlib.metadata.version(name)}")
    return found
