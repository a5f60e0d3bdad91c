"""`brainseg register`: put the exported model into MLflow's registry, where the alias ``champion`` marks the best one.

Only a model that passes the gate becomes a version. A refused model leaves nothing behind, so each version was good
enough to be the champion when it was registered. A version holds the numbers that the next model is compared with.
The model is saved in MLflow's ONNX flavour: ``mlflow models serve`` needs ONNX Runtime but not this package.
"""

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainseg import config, errors, files
from brainseg.data import inputs
from brainseg.errors import BrainsegError, DataError, IntegrityError, MachineError, Problem, raise_all
from brainseg.evaluation import results
from brainseg.evaluation.results import Evaluation
from brainseg.experiments import revision
from brainseg.inference import onnx_session
from brainseg.reporting import model_card
from brainseg.reporting.model_card import ModelFacts
from brainseg.tracking import gate, run_store
from brainseg.tracking.run_store import SILENT

NAME, ALIAS = "brainseg", gate.ALIAS
MODEL, METRICS = Path("models/unet.onnx"), Path("metrics")
KEPT = ("per_patient.csv", "evaluation.json", "calibration.csv", "export.json")
CARD = "model-card.md"
NEEDED_TO_SERVE = ("onnx", "onnxruntime", "numpy")  # MLflow adds itself
LIMIT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
ANSWER_SECONDS, UPLOAD_SECONDS = "10", "120"  # a server that has just started needs more than a stage's 3 seconds
LOOK_SECONDS, CROWN_SECONDS = 60, 300  # in all: for the champion and its numbers, for the upload
DIGEST = "onnx.sha256"  # tag of a version; the file holds weights, rule and numbers, so equal bytes are the same model


def run(tree: Path = Path(), *, new_line: bool = False) -> str:
    """Register models/unet.onnx and make it the champion if it passes all gates; print each gate.

    Returns:
        A closing line: the version, and how to serve it.

    Raises:
        DataError: a gate refuses it. IntegrityError: model and numbers are not of one run.
        MachineError: the store does not answer.
    """
    session = onnx_session.Session(tree / MODEL, threads=1)
    facts = model_card.parse_facts(session.facts, tree / MODEL)
    _check_same_run(session, facts, tree)
    with _limit_waiting(ANSWER_SECONDS), _reach_store(), tempfile.TemporaryDirectory() as folder:
        with _wrap_errors():
            found = errors.limit(LOOK_SECONDS, functools.partial(_look, session.digest, Path(folder)))
        store, champion, same, numbers = found
        if same and same == champion:
            return f"version {same} of {NAME} is this model, and {ALIAS} already, in {run_store.store_name()}"
        _require_gates(gate.check_gates(tree / METRICS, numbers, new_line=new_line), champion)

        def crown() -> str:
            version = same or store.add(tree, session, facts)
            store.client.set_registered_model_alias(NAME, ALIAS, version)
            return version

        with _wrap_errors(), _limit_waiting(UPLOAD_SECONDS):
            version = errors.limit(CROWN_SECONDS, crown)
    before = f", before it version {champion}" if champion else ""
    return (
        f"version {version} of {NAME} is {ALIAS} in {run_store.store_name()}{before}; "
        f"to serve it: {SILENT} mlflow models serve -m models:/{NAME}@{ALIAS} --env-manager local"
    )


class Found(NamedTuple):
    """What the registry has: the champion's version, this model's, and the folder with the champion's numbers."""

    store: "Registry"
    champion: str | None
    same: str | None
    numbers: Path | None


def _look(digest: str, folder: Path) -> Found:
    """Ask the registry. The numbers of a champion that is another model are downloaded into ``folder``."""
    store = Registry(run_store.RunStore())
    champion, same = store.champion(), store.version_of(digest)
    return Found(store, champion, same, store.numbers_of(champion, folder) if champion and champion != same else None)


def _require_gates(gates: list[gate.Gate], champion: str | None) -> None:
    for each in gates:
        print(each)
    refused = [Problem(f"gate {each.name}", each.figures, each.fix) for each in gates if not each.passed]
    if refused:
        stays = f"version {champion} stays {ALIAS}" if champion else f"there is no {ALIAS}"
        print(f"not registered; {stays}")
        raise DataError("", problems=refused)


def _check_same_run(session: onnx_session.Session, facts: ModelFacts, tree: Path) -> None:
    """Check that the exported model is of the same run as metrics/, with which the next model is compared."""
    inputs.require(str(MODEL), session.content, tree)
    inputs.verify([f"{METRICS}/{name}" for name in KEPT], tree)
    report = results.read(tree / METRICS / "evaluation.json", Evaluation)
    export = gate.read_json(tree / METRICS / "export.json")
    weights = facts.model.weights_sha256
    if facts.evaluation != report or export.get("weights_sha256") != weights:
        what = f"the model and {METRICS} are not of one run"
        raise IntegrityError(tree / MODEL, what, "run: dvc repro; or fetch what the commit has: make pull")
    revision.scores(str(tree / METRICS))  # refuses a table that does not fit evaluation.json


@contextlib.contextmanager
def _reach_store() -> Iterator[None]:
    """``run_store.reach_store``, with errors of its own alone as those of the store."""
    with contextlib.ExitStack() as stack:
        with _wrap_errors():
            stack.enter_context(run_store.reach_store(LOOK_SECONDS))
        yield


@contextlib.contextmanager
def _wrap_errors() -> Iterator[None]:
    """Turn any error of the store into a MachineError."""
    try:
        yield
    except BrainsegError:
        raise
    except ImportError as error:
        raise MachineError(error.name, "is not installed", errors.describe_install("train")) from None
    except Exception as error:
        slow = "" if isinstance(error, TimeoutError) else f"; for a slow one set {LIMIT}=60"
        fix = f"check that it answers (MLFLOW_TRACKING_URI names it{slow}), run again"
        raise MachineError(f"MLflow ({run_store.store_name()})", run_store.describe_fault(error), fix) from error


@contextlib.contextmanager
def _limit_waiting(seconds: str) -> Iterator[None]:
    """Limit how long MLflow waits for one answer, unless the user set a limit."""
    before = os.environ.get(LIMIT)
    if before in (None, run_store.SETTINGS[LIMIT], ANSWER_SECONDS):
        os.environ[LIMIT] = seconds
    try:
        yield
    finally:
        os.environ.pop(LIMIT) if before is None else os.environ.update({LIMIT: before})


class Registry:
    """The versions of one registered model."""

    def __init__(self, store: run_store.RunStore):
        self.store, self.client = store, store.client

    def champion(self) -> str | None:
        """The version that has the alias, or None."""
        (found,) = self.client.search_registered_models(f"name = '{NAME}'") or [None]
        version = found.aliases.get(ALIAS) if found else None
        return str(version) if version is not None else None

    def version_of(self, digest: str) -> str | None:
        """The newest version whose file has this digest, or None."""
        found = self.client.search_model_versions(f"name = '{NAME}' and tags.`{DIGEST}` = '{digest}'")
        return str(max(int(each.version) for each in found)) if found else None

    def numbers_of(self, version: str, folder: Path) -> Path:
        """Download a version's numbers into ``folder``; return the folder that holds them.

        Raises:
            DataError: it holds none, because it was not registered by brainseg.
            IntegrityError: they are not those that were registered.
        """
        import mlflow

        whole = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version}", dst_path=str(folder)))
        numbers = whole / "extra_files"
        if missing := [name for name in KEPT if not (numbers / name).is_file()]:
            what = f"holds no {', '.join(missing)} to compare with"
            raise DataError(f"models:/{NAME}/{version}", what, gate.OTHER_CHAMPION)
        self._require_registered(version, numbers)
        return numbers

    def _require_registered(self, version: str, numbers: Path) -> None:
        """Refuse numbers that are not those of the version's tags. Versions of earlier commits have no such tags."""
        tags = self.client.get_model_version(NAME, version).tags
        if not {_name_tag(name) for name in KEPT} & set(tags):
            return
        found = {name: files.sha256(numbers / name) for name in KEPT}
        told = {name: tags.get(_name_tag(name), "missing") for name in KEPT}
        fix = (
            f"delete version {version} in MLflow and register its model again, at its commit; or {gate.OTHER_CHAMPION}"
        )
        raise_all([
            Problem(
                f"models:/{NAME}/{version}/extra_files/{name}",
                f"its sha256 is {found[name]}, the version's tag {_name_tag(name)} is {told[name]}", fix,
            )
            for name in KEPT if found[name] != told[name]
        ], IntegrityError)  # fmt: skip

    def add(self, tree: Path, session: onnx_session.Session, facts: ModelFacts) -> str:
        """Log the model and its numbers as a child of the training's run, and make a version of it."""
        import mlflow

        digest, weights = session.digest, facts.model.weights_sha256
        tags = {"stage": "register", "model.sha256": weights, DIGEST: digest}
        parent = self.store.find({"stage": "train", "model.sha256": weights})
        with self.store.run(tree, tags, parent) as run, tempfile.TemporaryDirectory() as folder:
            self.store.log_metrics(run, {0: config.flatten({"test": facts.evaluation.test.model_dump()})})
            extra = [shutil.copy(tree / METRICS / name, folder) for name in KEPT]
            numbers = {_name_tag(name): files.sha256(Path(folder) / name) for name in KEPT}
            (Path(folder) / CARD).write_text(model_card.render_markdown(facts), encoding="utf-8")
            logged = mlflow.onnx.log_model(
                session.content, name="unet", signature=build_signature(session),
                pip_requirements=run_store.pin_installed(NEEDED_TO_SERVE),
                extra_files=[*extra, str(Path(folder) / CARD)], save_as_external_data=False,
                metadata={"weights_sha256": weights, DIGEST: digest},
            )  # fmt: skip
        marks = "; ".join(facts.marks)
        if not self.client.search_registered_models(f"name = '{NAME}'"):
            self.client.create_registered_model(
                NAME, description="Outlines of gliomas on MRI slices; research use only"
            )
        version = self.client.create_model_version(
            NAME, logged.model_uri, run, {"weights.sha256": weights, DIGEST: digest, "marks": marks} | numbers,
            model_id=logged.model_id,
        )  # fmt: skip
        return str(version.version)


def _name_tag(name: str) -> str:
    """The tag of a version that has the sha256 of one of its files of numbers."""
    return f"{name}.sha256"


def build_signature(session: onnx_session.Session) -> Any:
    """The inputs and outputs of the exported file."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def tensor(name: str, depth: int) -> Schema:
        return Schema([TensorSpec(np.dtype("float32"), (-1, session.side, session.side, depth), name)])

    taken = tensor(onnx_session.INPUT, session.slices * session.channels)
    return ModelSignature(taken, tensor(onnx_session.OUTPUT, session.answers))
