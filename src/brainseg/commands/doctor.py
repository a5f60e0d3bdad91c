"""`brainseg doctor`: what this machine and this folder have, what is missing, and how to correct it."""

import importlib.metadata
import platform
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from brainseg import config, errors, files, hardware
from brainseg.commands.findings import Finding, show_minutes
from brainseg.errors import BrainsegError, DataError
from brainseg.experiments import integrity, repro
from brainseg.models import backend, manifest
from brainseg.tracking import run_store

PYTHONS = (3, 11), (3, 13)
GIB = 2**30
ANSWER_SECONDS = 3  # for a tracking server to begin an answer
WITHOUT_REPOSITORY = (
    "demo, predict, serve, data and evaluate do without; make pull, repro, restore, cross-validate, compare and show "
    "of a revision, and DVC's own commands do not"
)


def run(root: Path = Path(), *, time: bool = False, recipe: str | None = None) -> str:
    """Check everything and return one PASS or WARN line for each check. Writes nothing and never fails.

    Args:
        time: also measure for a minute how long a training would take here.
        recipe: name of a file in recipes/, whose values replace those of params.yaml.
    """
    checks: list[Callable[[Path], Finding]] = [python, machine, partial(compute, recipe=recipe)]
    checks += [partial(training_time, recipe=recipe)] if time else []
    checks += [disk, git, remotes, runs, model]
    findings = []
    for check in checks:
        try:
            findings.append(check(root))
        except BrainsegError as error:
            findings += [Finding(_check_name(check), f"{p.path}: {p.what}", p.fix) for p in error.problems]
        except Exception as error:  # a check that fails must not hide the results of the others
            findings.append(
                Finding(_check_name(check), f"{type(error).__name__}: {error}", "see docs/project/maintaining.md")
            )
    return errors.redact("\n".join(map(str, findings)))


def _check_name(check: Callable) -> str:
    return getattr(check, "func", check).__name__


def python(root: Path) -> Finding:
    found = f"{platform.python_version()}, {sys.executable}"
    known = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    return Finding("python", found, "" if known else "use 3.11 to 3.13, for example: uv python install 3.12")


def machine(root: Path) -> Finding:
    memory = psutil.virtual_memory()
    cores = hardware.cores()
    found = (f"{platform.system()} {platform.machine()}, {cores} core{'s' if cores > 1 else ''} to use "
             f"({' '.join(hardware.instruction_sets()) or 'instruction sets unknown'}), "
             f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB memory free")  # fmt: skip
    enough = memory.available > 2 * GIB
    return Finding("machine", found, "" if enough else "close other programs; training takes about 2 GiB")


def compute(root: Path, recipe: str | None = None) -> Finding:
    """Start the engine that the parameters name, and report what ``auto`` means on this machine."""
    train = _load_params(root, recipe).train
    running = backend.start(
        train.engine, device=train.device, precision=train.precision, threads=train.threads, devices=train.devices,
        warn=False,
    )  # fmt: skip
    packages = ("keras", "tensorflow-cpu", "tensorflow", "jax")
    versions = ", ".join(f"{name} {_find_version(name)}" for name in packages if _find_version(name))
    slow = backend.explain_emulation(running.precision, running.engine, running.device)
    found = f"{running} ({versions})"
    return Finding("engine", f"{found}; {slow}", backend.EMULATION_REMEDY) if slow else Finding("engine", found)


def training_time(root: Path, recipe: str | None = None) -> Finding:
    """How long the training would take here, from one minute of it, on the engine that ``compute`` started."""
    from brainseg.commands import timing  # imports Keras, which reads the name of its engine at import
    from brainseg.evaluation import results

    params = _load_params(root, recipe)
    slices = results.read(root / "metrics/evaluation.json", results.Evaluation).protocol.slices
    estimate = timing.estimate(params, slices)
    found = (
        f"{recipe or 'params.yaml'}: about {show_minutes(estimate.minutes)} for {params.train.epochs} epochs of "
        f"{slices['train']:,} slices ({estimate.trained:.0f} images/s, {estimate.validated:.0f} in validation; "
        f"measured over {estimate.steps} steps), evaluation and pictures not included"
    )
    return Finding("time", found)


def _load_params(root: Path, recipe: str | None) -> config.Params:
    path = root / "params.yaml"
    return config.check(config.merge(config.read_yaml(path), repro.load_recipe(recipe, root) if recipe else {}), path)


def disk(root: Path) -> Finding:
    free = files.free_bytes(root) / GIB
    return Finding("disk", f"{free:.1f} GiB free", "" if free > 5 else "free some space; the real data take 5 GiB")


def git(root: Path) -> Finding:
    """Whether Git is installed and has a commit of this folder; else the commands that do not work."""
    try:
        integrity.check_git(root)
    except DataError as error:
        (problem,) = error.problems
        return Finding("git", f"{problem.path} {problem.what}; {WITHOUT_REPOSITORY}", problem.fix)
    if not shutil.which("git"):
        return Finding(
            "git", "is not installed; DVC does without, only brainseg restore does not", integrity.INSTALL_GIT
        )
    return Finding("git", "this folder is in a repository")


def remotes(root: Path) -> Finding:
    """The names in DVC's settings of this machine, user and project. DVC itself takes a second to list them."""
    from configobj import ConfigObj
    from dvc import dirs

    places = [Path(folder) / "config" for folder in (dirs.system_config_dir(), dirs.global_config_dir(), root / ".dvc")]
    sections = dict.fromkeys(name for file in (*places, root / ".dvc/config.local") for name in ConfigObj(str(file)))
    names = re.findall(r'^remote "(.+)"$', "\n".join(sections), re.MULTILINE)
    if "weights" not in names:
        return Finding("remotes", "weights is missing", "git checkout .dvc/config")
    note = "" if len(names) > 1 else " (models only; for data see docs/how-to/remotes.md)"
    return Finding("remotes", ", ".join(names) + note)


def runs(root: Path) -> Finding:
    """The tracking store. A server must answer within ``ANSWER_SECONDS``."""
    import requests

    uri = run_store.store_uri()
    if uri.startswith("http"):
        try:
            errors.limit(ANSWER_SECONDS, partial(_begin_answer, uri))  # requests' own limit is for each byte
        except (requests.RequestException, TimeoutError) as error:
            fix = "start that server, or unset MLFLOW_TRACKING_URI; results do not need it"
            return Finding("tracking", f"{uri} does not answer: {type(error).__name__}", fix)
    return Finding("tracking", uri)


def _begin_answer(uri: str) -> None:
    import requests

    with requests.get(uri, timeout=ANSWER_SECONDS, stream=True):  # the body is not read
        pass


def model(root: Path) -> Finding:
    path = root / "models/unet.json"
    if not path.exists():
        return Finding("model", "none here", "make pull (the released one), or dvc repro")
    facts = manifest.read(path)
    manifest.check(facts, path.with_name("unet.weights.h5"))
    protocol = facts.protocol
    found = (
        f"{facts.weights_sha256[:12]}, {facts.parameters:,} parameters, trained on {protocol.source} "
        f"({protocol.patients['train']} patients, {protocol.slices['train']} slices) with {facts.training.engine}"
    )
    return Finding("model", "; ".join([found, *protocol.marks]))


def _find_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
