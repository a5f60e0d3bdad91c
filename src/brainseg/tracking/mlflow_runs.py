"""Log to MLflow what the stages wrote. No result depends on it.

The run of a training is found by the digest of its weights, so no file holds a run's id. A store that is down, hangs,
drips or is full costs one warning and at most ``STAGE_SECONDS``; ``brainseg track`` logs the same later.
"""

import contextlib
import csv
import functools
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brainseg import config, errors, files
from brainseg.evaluation import results
from brainseg.models import manifest
from brainseg.tracking.run_store import STAGE_SECONDS, RunStore, describe_fault, reach_store, store_name

FOLDS = Path("metrics/cross_validation")
SEARCHES = Path("metrics/tune")
EXPERIMENT = re.compile(r"tune-[a-z0-9_]+-[0-9a-f]{8}-[0-9]+")  # of a trial
ATTEMPT = "training.attempt"  # the tag of a training's run by which a training that goes on finds it
WARNING = "WARNING MLflow ({store}): {fault}. The results are complete; to log them later: brainseg track"
HEADLINE = tuple(  # of an evaluation, beside the parameters of its training, by which trainings are sorted
    f"{part}.{name}" for part in ("val", "test")
    for name in ("volume.dice.mean", "volume.dice.median", "volume.iou.mean", "slice.hd95.median",
                 "detection.slice_sensitivity", "detection.slice_false_positive_rate")
)  # fmt: skip


def _optional(log: Callable[..., None]) -> Callable[..., bool]:
    """Turn any error in ``log``, and more than ``seconds`` for it, into one warning and the return value False."""

    @functools.wraps(log)
    def guarded(*args: Any, seconds: float = STAGE_SECONDS, **kwargs: Any) -> bool:
        try:
            with reach_store(seconds) as left:
                errors.limit(left, functools.partial(log, *args, **kwargs))
            return True
        except Exception as error:
            print(WARNING.format(store=store_name(), fault=describe_fault(error)), file=sys.stderr)
            return False

    return guarded


@_optional
def log_training(
    tree: Path = Path(), *, once: bool = False, attempt: str = "", params: dict[str, Any] | None = None,
    started: float | None = None, ended: float | None = None,
) -> None:  # fmt: skip
    """Log a training: parameters, metrics per epoch, digests of the data, the model with its signature.

    The run that was opened when the training began, if there is one of the same parameters, is completed and finished.

    Args:
        tree: the folder with params.yaml, models/ and metrics/ (a stage's working directory).
        once: do nothing if this model is logged already.
        attempt: the name by which that run is found; without, by the epochs that it has.
        params: flat, those that it was started with. Without: those of params.yaml.
        started, ended: of the training, in seconds since 1970. Without: the time of the logging.
    """
    from brainseg.data import csv_tables  # imports pandas, for which doctor and verify-data would wait

    model = manifest.read(tree / "models/unet.json")
    rows = csv_tables.read_csv(tree / "metrics/training.csv").set_index("epoch").to_dict("index")
    params = params or config.flatten(config.read_yaml(tree / "params.yaml"))
    stage, data = {"stage": "train"}, tag_data(model.data)
    store = RunStore()
    if once and store.find(stage | {"model.sha256": model.weights_sha256}):
        return
    own = stage | ({ATTEMPT: attempt} if attempt else data)
    run = store.find_unfinished(own, params, None if attempt else rows)
    run = run or store.open(tree, stage | data, started=started)
    tags = {"model.sha256": model.weights_sha256, "marks": "; ".join(model.protocol.marks)}
    with store.resume(run, tags, ended):
        store.log_params(run, params)
        kept = rows[model.training.kept_epoch]
        summary = {"kept_epoch": model.training.kept_epoch, "kept_val_volume_dice": kept["val_volume_dice"]}
        store.log_metrics(run, {0: summary})
        store.log_dataset(run, model.protocol.source, model.data["images_sha256"])
        store.log_model(tree / "models", model)  # MLflow copies the metrics of step 0 to the model
        store.log_epochs(run, rows)


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
    name = "evaluate" if parent else None
    with store.run(tree, tags | {"marks": "; ".join(report.protocol.marks)}, parent, name) as run:
        store.log_params(run, config.flatten({"evaluate": config.read_yaml(tree / "params.yaml")["evaluate"]}))
        scores = config.flatten(report.model_dump(include={"val", "test"}))
        store.log_metrics(run, {0: summary.model_dump() | scores})
        store.log_artifacts(run, tree / "metrics", "evaluation.json", "per_patient.csv")
    if parent:
        store.log_metrics(parent, {0: {name: scores[name] for name in HEADLINE if name in scores}})


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


@_optional
def log_search(folder: Path, tree: Path = Path()) -> None:
    """Log a search as a run; its trials are runs below it, their trainings below those.

    The run of an earlier state of the search gives way to it.

    Args:
        folder: metrics/tune/NAME.
    """
    summary, table, digest = read_search(tree / folder)
    own, tags = {"search": folder.name}, {"stage": "tune", "search.sha256": digest}
    store = RunStore()
    if store.find(own | tags):
        return
    for stage in ("tune", "trial"):
        store.remove(own | {"stage": stage})
    with store.run(tree, own | tags, name=f"tune-{folder.name}") as run:
        store.log_params(run, summary["fixed"] | {f"best.{name}": value for name, value in summary["best"].items()})
        store.log_metrics(run, {0: {"dice": summary["dice"], "trials": len(table)}})
        store.log_artifacts(run, tree / folder, *sorted(path.name for path in (tree / folder).iterdir()))
        for trial in table:
            _log_trial(store, tree, own, run, trial)


def _log_trial(store: RunStore, tree: Path, own: dict[str, str], parent: str, trial: dict[str, str]) -> None:
    from brainseg.tuning.trials import NO_PARAMETERS  # with libraries that no stage needs

    tags = own | {"stage": "trial", "state": trial["state"]}
    with store.run(tree, tags, parent, f"{own['search']}, trial {trial['trial']}") as run:
        params = {name: value for name, value in trial.items() if name not in NO_PARAMETERS}
        store.log_params(run, {name: None if value == "null" else value for name, value in params.items()})
        store.log_metrics(run, {0: {name: float(trial[name] or "nan") for name in ("dice", "epochs")}})
        for experiment in trial["experiments"].split():
            training = store.adopt(experiment, run)
            if training and trial["state"] == "stopped":
                store.mark_killed(training)


def read_search(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]], str]:
    """The summary of a search, the rows of its table, and one digest of both.

    Raises:
        DataError: one of them is damaged.
    """
    table, summary = folder / "trials.csv", folder / "summary.json"
    with errors.guard(folder, "git restore it, or search again: brainseg tune"):
        texts = [path.read_text(encoding="utf-8") for path in (summary, table)]
        told, rows = json.loads(texts[0]), list(csv.DictReader(texts[1].splitlines()))
        for row in rows:
            if not all(map(EXPERIMENT.fullmatch, row["experiments"].split())):
                raise ValueError(f"trial {row['trial']} names experiments of another kind")
    return told, rows, hashlib.sha256("\n".join(texts).encode()).hexdigest()


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


def tag_data(digests: dict[str, str]) -> dict[str, str]:
    """Tags that identify the data of a training."""
    return {f"data.{name}": value for name, value in digests.items() if name.endswith("_sha256")}
