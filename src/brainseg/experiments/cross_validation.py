"""Every patient scored once, by a model that never saw it. A fold is a DVC experiment, here they are run and collected.

An experiment's name holds a digest of what determines its numbers: data, code and parameters. A fold whose experiment
is there, and is what its name says, is not run again, whatever stopped the others.
"""

import io
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pandas as pd

from brainseg import config, files
from brainseg.data import splitting
from brainseg.errors import DataError, IntegrityError, Problem, RunError, raise_all
from brainseg.evaluation import bootstrap, evaluate, metrics, scoring
from brainseg.experiments import repro, revision, showing
from brainseg.reporting import charts, gallery

FOLDER = Path("metrics/cross_validation")
PICTURED = 14  # patients in the gallery
SHOWN = ("epoch ", "Running stage", "resumed ", "trained ", "test:", "ERROR")  # lines of a fold worth showing


class Fold(NamedTuple):
    """An experiment and the parameters that it changes."""

    number: int
    name: str
    overrides: dict


def run(
    recipe: str | None = None, scheme: str | None = None, jobs: int = 1, root: Path = Path(), folder: Path = FOLDER
) -> str:  # fmt: skip
    """Run the folds that are missing, ``jobs`` at once, and write ``folder``.

    Args:
        recipe: recipes/<recipe>.yaml applied to each fold.
        scheme: ``patient``: params' folds; ``institution``: each is left out in turn, the small ones together;
            None: as ``split.unit`` says.

    Returns:
        The closing line.

    Raises:
        RunError: folds failed; the others are kept.
        IntegrityError: something was edited while they ran.
    """
    repro.heal(root)
    overrides = changes(recipe, scheme, root)
    if subprocess.run([sys.executable, "-m", "dvc", "repro", "split"], cwd=root, env=repro.environment()).returncode:
        raise RunError("dvc repro split", "the data could not be prepared", "read the first ERROR above")
    folds = plan(overrides, root)
    missing = [fold for fold in folds if not is_done(fold, root)]
    for fold in folds:
        if fold not in missing:
            print(f"fold {fold.number}: {fold.name} is there")
    free = _devices(jobs)
    with ThreadPoolExecutor(jobs) as pool:
        codes = list(pool.map(partial(_run_fold, root=root, free=free), missing))
    raise_all([
        Problem(str(log_of(fold, root)), f"fold {fold.number} failed; the others are kept", "read its ERROR, run again")
        for fold, code in zip(missing, codes, strict=True) if code
    ], RunError)  # fmt: skip
    changed = [fold.name for fold in missing if not is_done(fold, root)]
    what = "data, code or parameters were edited while the folds ran"
    raise_all([Problem(name, what, f"dvc exp remove {name}, run again") for name in changed], IntegrityError)
    return collect(folds, root, folder)


def changes(recipe: str | None, scheme: str | None, root: Path = Path()) -> dict:
    """What a recipe and the scheme override in params.yaml, the number of the fold apart.

    Raises:
        DataError: they do not fit params.yaml, mix slices of a patient, bring a split, or change the data.
    """
    path = root / "recipes" / f"{recipe}.yaml" if recipe else root / "params.yaml"
    overrides = repro.load(recipe, root) if recipe else {}
    unit = scheme or overrides.get("split", {}).get("unit")
    if unit:
        overrides = revision.merged(overrides, {"split": {"unit": unit}})
    split = config.check(revision.merged(config.read_yaml(root / "params.yaml"), overrides), path).split
    if split.unit == "slice":
        what = "split.unit is slice: a patient would be tested in several folds"
        raise DataError(path, what, "ask for --scheme patient (make: SCHEME=patient)")
    if split.file:
        raise DataError(path, "split.file has one split, no folds", "set split.file: null")
    if other := sorted({"download", "phantom", "preprocess"} & set(overrides)):
        fix = "set these in params.yaml, so that the folds are of the data in the workspace"
        raise DataError(path, f"changes {', '.join(other)}", fix)
    return overrides


def plan(overrides: dict, root: Path = Path()) -> list[Fold]:
    """The folds of the data in the workspace, as experiments."""
    read = revision.reader(revision.WORKSPACE, root)
    raw = revision.merged(config.read_yaml(root / "params.yaml"), overrides)
    split = config.check(raw, root / "params.yaml").split
    name = f"cv-{revision.key(read, overrides)}"
    count = splitting.fold_count(root / "data/processed/slices.csv", split)
    own = overrides.get("split", {})
    return [Fold(k, f"{name}-{k}", {**overrides, "split": {**own, "test_fold": k}}) for k in range(count)]


def is_done(fold: Fold, root: Path = Path()) -> bool:
    """Whether the experiment is there with its numbers, made from what its name says."""
    try:
        read = revision.reader(fold.name, root)
        read("metrics/per_patient.csv")
        return fold.name == f"cv-{revision.key(read, {})}-{fold.number}"
    except DataError:
        return False


def log_of(fold: Fold, root: Path) -> Path:
    return root / ".brainseg" / "cross_validation" / f"{fold.name}.log"


def _devices(jobs: int) -> SimpleQueue[dict[str, str]]:
    """One environment for each of ``jobs`` folds at once: a GPU each, in turn where there are fewer; else nothing."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = _gpus() if given is None else given.split(",")
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for job in range(jobs):
        free.put({"CUDA_VISIBLE_DEVICES": found[job % len(found)]} if found else {})
    return free


def _gpus() -> list[str]:
    """Numbers of the GPUs that NVIDIA's driver lists; asked without starting an engine, which would take them all."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []


def _run_fold(fold: Fold, root: Path, free: SimpleQueue[dict[str, str]]) -> int:
    """``dvc exp run`` in a folder of its own; what it prints goes to a log, what people wait for to the screen."""
    device = free.get()
    try:
        return _shown(fold, root, device)
    finally:
        free.put(device)


def _shown(fold: Fold, root: Path, device: dict[str, str]) -> int:
    options = repro.options(fold.overrides)
    command = ["dvc", "--wait-for-lock", "exp", "run", "--temp", "--name", fold.name, *options]
    log = log_of(fold, root)
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"fold {fold.number}: + {shlex.join(command)}", flush=True)
    with open(log, "w", encoding="utf-8") as kept, subprocess.Popen(
        [sys.executable, "-m", *command], cwd=root, env=repro.environment() | {"PYTHONUNBUFFERED": "1"} | device,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            kept.write(line)
            kept.flush()
            if line.startswith(SHOWN):
                print(f"fold {fold.number}: {line.rstrip()}", flush=True)
    return process.returncode


class Scored(NamedTuple):
    """What one fold's experiment holds."""

    fold: Fold
    patients: pd.DataFrame
    slices: pd.DataFrame
    bins: pd.DataFrame
    report: dict
    params: dict
    made_from: dict


def collect(folds: Sequence[Fold], root: Path = Path(), folder: Path = FOLDER) -> str:
    """Read every fold's numbers and write per_patient.csv, summary.json and three figures.

    Raises:
        IntegrityError: a patient was tested twice, or not at all.
    """
    scored = [_read(fold, root) for fold in folds]
    patients, summary = pooled(scored)
    folder = root / folder
    write(patients, summary, folder)
    charts.patients(patients, folder / "patients.png", dpi=110)
    charts.folds(patients, folder / "folds.png", dpi=110)
    pictures = folder / "gallery.png"
    pictures.unlink(missing_ok=True)  # those of other folds
    try:
        _gallery(scored, root, pictures)
    except DataError as error:  # the numbers are there; predictions are not pulled with them
        print(f"{pictures} is left out: {error}")
    return closing(patients, summary, folder)


def pooled(scored: Sequence["Scored"]) -> tuple[pd.DataFrame, dict]:
    """A row a patient, and ``summarise``'s numbers.

    Raises:
        IntegrityError: a patient was tested twice, or not at all.
    """
    _check(scored)
    patients = pd.concat([s.patients.assign(fold=s.fold.number) for s in scored], ignore_index=True)
    return patients.sort_values("patient", ignore_index=True), summarise(scored)


def write(patients: pd.DataFrame, summary: dict, folder: Path) -> None:
    """``per_patient.csv`` and ``summary.json``."""
    files.write_text(folder / "per_patient.csv", patients.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    files.write_text(folder / "summary.json", text)


def closing(patients: pd.DataFrame, summary: dict, folder: Path) -> str:
    """What is said at the end."""
    dice = summary["test"]["volume"]["dice"]
    return (
        f"{len(patients)} patients out of fold: volume Dice {dice['mean']:.3f} [{dice['lo']:.3f}, {dice['hi']:.3f}], "
        f"median {dice['median']:.3f}; {folder}"
    )


def _gallery(scored: Sequence[Scored], root: Path, path: Path) -> None:
    """The best patient of all, the median and the worst, each as the model that never saw it outlined it."""
    runs = [showing.Run(s.fold.name, s.patients, s.slices, s.report["protocol"]) for s in scored]
    slices = pd.concat([run.slices for run in runs], ignore_index=True)
    picked = gallery.pick(pd.concat([run.patients for run in runs]), slices, PICTURED)
    if not picked.empty:  # a patient has a Dice
        showing.draw(picked, runs, root, path)


def _read(fold: Fold, root: Path) -> Scored:
    read = revision.reader(fold.name, root)
    return numbers(fold, read, revision.params(read), revision.sources(read))


def numbers(fold: Fold, read: revision.Reader, params: dict, made_from: dict) -> Scored:
    """The numbers that ``read`` finds, made with ``params`` from what ``made_from`` says."""
    patients = revision.parse_table(read("metrics/per_patient.csv"))
    slices = revision.parse_table(read("metrics/per_slice.csv"))
    bins = pd.read_csv(io.StringIO(read("metrics/calibration.csv")))
    report = json.loads(read("metrics/evaluation.json"))
    tested = [table[table["subset"] == "test"] for table in (patients, slices)]
    return Scored(fold, tested[0], tested[1], bins, report, without_test_fold(params), made_from)


def without_test_fold(params: dict) -> dict:
    return {**params, "split": {name: value for name, value in params["split"].items() if name != "test_fold"}}


def _check(scored: Sequence[Scored]) -> None:
    tested = pd.concat([s.patients["patient"] for s in scored])
    twice = sorted(tested[tested.duplicated()])
    total = {sum(s.report["protocol"]["patients"].values()) for s in scored}
    problems = [Problem(patient, "is tested in two folds", "report this: a fold is broken") for patient in twice]
    if total != {len(tested)}:
        what = f"{len(tested)} patients are tested, there are {', '.join(map(str, sorted(total)))}"
        problems.append(Problem("folds", what, "run all folds on the same data"))
    raise_all(problems, IntegrityError)


def summarise(scored: Sequence[Scored]) -> dict:
    """Protocol, folds, parameters, and ``test`` in the shape of evaluation.json's over all patients out of fold."""
    fold, first, made_with = scored[0].fold, scored[0].report, scored[0].params
    params = config.Evaluate.model_validate(made_with["evaluate"])
    slices = pd.concat([s.slices for s in scored], ignore_index=True)
    unit = first["test"]["slice"]["unit"]
    summarised = partial(bootstrap.summarise, resamples=params.bootstrap, seed=params.seed)
    batches = [math.ceil(len(s.slices) / metrics.KERAS_BATCH) for s in scored]
    defined = [s.report["test"]["volume"]["dice"]["n"] for s in scored]
    patients = scoring.per_patient(slices)
    protocol = {name: first["protocol"][name] for name in ("source", "unit", "grid", "tta", "empty_rule")}
    marks = list(dict.fromkeys(mark for s in scored for mark in s.report["protocol"]["marks"]))
    counts = {"patients": len(patients), "slices": len(slices), "folds": len(scored)}
    numbers = evaluate.strict({
        "protocol": protocol | {"marks": marks} | counts,
        "test": scoring.blocks(slices, unit, summarised) | {
            "keras": _weighted([s.report["test"]["keras"] for s in scored], batches),
            "alone": _weighted([s.report["test"]["alone"] for s in scored], defined),
            "by_institution": scoring.institution_block(patients, slices, summarised),
            "by_size": scoring.size_block(patients, summarised),
            "calibration": scoring.calibration_block(_pooled([s.bins for s in scored])),
        },
        "folds": [_fold_facts(s) for s in scored],
    })  # fmt: skip
    overrides = without_test_fold(fold.overrides)
    made = {"params": made_with, "overrides": overrides, "made_from": scored[0].made_from}
    return numbers | made  # parameters as they are: a small learning rate is not rounded away


def _weighted(parts: list[dict[str, float | None]], weights: list[int]) -> dict[str, float]:
    """Means over the folds, weighted by what each fold's own number is a mean over; undefined ones left out."""
    table = pd.DataFrame(parts, dtype=float)
    weight = table.notna().mul(weights, axis=0)
    return (table.fillna(0) * weight).sum().div(weight.sum()).to_dict()


def _pooled(bins: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The folds' calibration.csv as one: counts added up, means weighted by them."""
    means = ["mean_probability", "observed_frequency"]
    sums = pd.concat([table.assign(**table[means].mul(table["count"], axis=0)) for table in bins])
    table = sums.groupby(["lower", "upper"], as_index=False)[["count", *means]].sum()
    return table.assign(**table[means].div(table["count"].where(table["count"] > 0), axis=0))


def _fold_facts(scored: Scored) -> dict:
    report = scored.report
    return {
        "fold": scored.fold.number,
        "experiment": scored.fold.name,
        "institutions": sorted(set(scored.patients["institution"])),
        "patients": report["protocol"]["patients"],
        "threshold": report["protocol"]["threshold"],
        "min_component": report["protocol"]["postprocessing"]["min_component"],
        "volume_dice": report["test"]["volume"]["dice"],
        "val_volume_dice_mean": report["val"]["volume"]["dice"]["mean"],
    }
