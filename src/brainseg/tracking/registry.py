"""`brainseg register`: the exported model into MLflow's registry, where the alias ``champion`` names the best one.

Only a model that passes the gate becomes a version: one that is refused leaves nothing behind, so each version was
fit to be the champion when it came, and holds the numbers that the next one is compared with. The model is MLflow's
ONNX flavour: ``mlflow models serve`` answers with ONNX Runtime alone, without this package.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.errors import BrainsegError, DataError, IntegrityError, MachineError, Problem
from brainseg.experiments import revision
from brainseg.inference import onnx_session
from brainseg.reporting import model_card
from brainseg.tracking import gate, mlflow_runs

NAME, ALIAS = "brainseg", "champion"
MODEL, METRICS = Path("models/unet.onnx"), Path("metrics")
KEPT = ("per_patient.csv", "evaluation.json", "calibration.csv", "export.json")
CARD = "model-card.md"
NEEDED_TO_SERVE = ("onnx", "onnxruntime", "numpy")  # MLflow adds itself
LIMIT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
ANSWER_SECONDS, UPLOAD_SECONDS = "10", "120"  # a server just started needs more than the 3 that a stage can spare
DIGEST = "onnx.sha256"  # tag of a version: the file holds weights, rule and numbers, so equal bytes are one model


def run(tree: Path = Path(), *, anew: bool = False) -> str:
    """Register models/unet.onnx if it may be the champion; print each gate, return what became of it.

    Raises:
        DataError: a gate refuses it. IntegrityError: model and numbers are not of one run.
        MachineError: the store does not answer.
    """
    session = onnx_session.Session(tree / MODEL, threads=1)
    _check(session.facts, tree)
    with _waiting(ANSWER_SECONDS), _store() as store, tempfile.TemporaryDirectory() as folder:
        with _talking():
            champion, same = store.champion(), store.version_of(session.digest)
            if same and same == champion:
                return f"version {same} of {NAME} is this model, and {ALIAS} already, in {mlflow_runs.store_name()}"
            numbers = store.numbers_of(champion, Path(folder)) if champion else None
        _pass(gate.judge(tree / METRICS, numbers, anew=anew), champion)
        with _talking(), _waiting(UPLOAD_SECONDS):
            version = same or store.add(tree, session)
            store.client.set_registered_model_alias(NAME, ALIAS, version)
    before = f", before it version {champion}" if champion else ""
    return (
        f"version {version} of {NAME} is {ALIAS} in {mlflow_runs.store_name()}{before}; "
        f"to serve it: mlflow models serve -m models:/{NAME}@{ALIAS} --env-manager local"
    )


def _pass(gates: list[gate.Gate], champion: str | None) -> None:
    for each in gates:
        print(each)
    refused = [Problem(f"gate {each.name}", each.figures, each.fix) for each in gates if not each.passed]
    if refused:
        stays = f"version {champion} stays {ALIAS}" if champion else f"there is no {ALIAS}"
        print(f"not registered; {stays}")
        raise DataError("", problems=refused)


def _check(facts: dict, tree: Path) -> None:
    """What the exported model says of itself must be what is in metrics/, which the next one is compared with."""
    report, export = (gate.read(tree / METRICS / name) for name in ("evaluation.json", "export.json"))
    weights = facts["model"]["weights_sha256"]
    if facts["evaluation"] != report or export.get("weights_sha256") != weights:
        what = f"the model and {METRICS} are not of one run"
        raise IntegrityError(tree / MODEL, what, "run: dvc repro; or fetch what the commit has: make pull")
    scored = revision.scores(str(tree / METRICS)).patients["dice"].mean()
    mean = report["test"]["volume"]["dice"]["mean"]
    if mean is None or not np.isclose(scored, mean, atol=1e-5):
        what = f"its test patients have a mean Dice of {scored:.6f}, evaluation.json has {mean}"
        raise IntegrityError(tree / METRICS / "per_patient.csv", what, "run: dvc repro")


@contextlib.contextmanager
def _store() -> Iterator["Registry"]:
    """The registry of the store that runs are logged to; a server that is down is told at once."""
    with contextlib.ExitStack() as stack:
        with _talking():
            store = stack.enter_context(mlflow_runs.opened())
            registry = Registry(store)
        yield registry


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    """Whatever goes wrong between here and the store, as one kind of error."""
    try:
        yield
    except BrainsegError:
        raise
    except ImportError as error:
        raise MachineError(error.name, "is not installed", "pip install '.[train]' in a clone of the project") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        fix = f"see that it answers (MLFLOW_TRACKING_URI names it; a slow one: {LIMIT}=60), run again"
        raise MachineError(f"MLflow ({mlflow_runs.store_name()})", f"{type(error).__name__}: {reason}", fix) from error


@contextlib.contextmanager
def _waiting(seconds: str) -> Iterator[None]:
    """For how long MLflow waits for one answer; who set a limit keeps it."""
    before = os.environ.get(LIMIT)
    if before in (None, mlflow_runs.SETTINGS[LIMIT], ANSWER_SECONDS):
        os.environ[LIMIT] = seconds
    try:
        yield
    finally:
        os.environ.pop(LIMIT) if before is None else os.environ.update({LIMIT: before})


class Registry:
    """The versions of one registered model."""

    def __init__(self, store: mlflow_runs.Store):
        self.store, self.client = store, store.client

    def champion(self) -> str | None:
        """The version that has the alias."""
        (found,) = self.client.search_registered_models(f"name = '{NAME}'") or [None]
        version = found.aliases.get(ALIAS) if found else None
        return str(version) if version is not None else None

    def version_of(self, digest: str) -> str | None:
        """The newest version whose file has this digest."""
        found = self.client.search_model_versions(f"name = '{NAME}' and tags.`{DIGEST}` = '{digest}'")
        return str(max(int(each.version) for each in found)) if found else None

    def numbers_of(self, version: str, folder: Path) -> Path:
        """The folder of what a version scored, as a copy.

        Raises:
            DataError: it holds none, as it was registered by other means.
        """
        import mlflow

        whole = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version}", dst_path=str(folder)))
        numbers = whole / "extra_files"
        if missing := [name for name in KEPT if not (numbers / name).is_file()]:
            fix = f"give the alias {ALIAS} to a version that brainseg register made, or delete it in MLflow"
            raise DataError(f"models:/{NAME}/{version}", f"holds no {', '.join(missing)} to compare with", fix)
        return numbers

    def add(self, tree: Path, session: onnx_session.Session) -> str:
        """Log the model with its numbers as a run beside its training, and make a version of it."""
        import mlflow

        facts, digest = session.facts, session.digest
        weights = facts["model"]["weights_sha256"]
        tags = {"stage": "register", "model.sha256": weights, DIGEST: digest}
        parent = self.store.find({"stage": "train", "model.sha256": weights})
        with self.store.run(tree, tags, parent) as run, tempfile.TemporaryDirectory() as folder:
            self.store.log_metrics(run, {0: mlflow_runs.flat({"test": facts["evaluation"]["test"]})})
            extra = [shutil.copy(tree / METRICS / name, folder) for name in KEPT]
            (Path(folder) / CARD).write_text(model_card.markdown(facts), encoding="utf-8")
            logged = mlflow.onnx.log_model(
                (tree / MODEL).read_bytes(), name="unet", signature=signature(session),
                pip_requirements=mlflow_runs.installed(NEEDED_TO_SERVE), extra_files=[*extra, str(Path(folder) / CARD)],
                save_as_external_data=False, metadata={"weights_sha256": weights, DIGEST: digest},
            )  # fmt: skip
        marks = "; ".join(facts["marks"])
        if not self.client.search_registered_models(f"name = '{NAME}'"):
            self.client.create_registered_model(
                NAME, description="Outlines of gliomas on MRI slices; research use only"
            )
        version = self.client.create_model_version(
            NAME, logged.model_uri, run, {"weights.sha256": weights, DIGEST: digest, "marks": marks},
            model_id=logged.model_id,
        )  # fmt: skip
        return str(version.version)


def signature(session: onnx_session.Session) -> Any:
    """What the exported file takes and answers."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def tensor(name: str, depth: int) -> Schema:
        return Schema([TensorSpec(np.dtype("float32"), (-1, session.side, session.side, depth), name)])

    taken = tensor(onnx_session.INPUT, session.slices * session.channels)
    return ModelSignature(taken, tensor(onnx_session.OUTPUT, session.answers))
