"""Every patient scored once, by a model that never saw it. A fold is a DVC experiment, here they are run and collected.

An experiment's name holds a digest of what determines its results: the pipeline, the code it depends on and the
parameters. A fold whose experiment is there is not run again, whatever stopped the others.
"""

import hashlib
import json
import math
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from ruamel.yaml import YAML

from brainseg import config, evaluation, figures, files, metrics, repro, revision, scoring, splitting, statistics
from brainseg.errors import DataError, IntegrityError, Problem, RunError, raise_all

FOLDER = Path("metrics/cross_validation")
SHOWN = ("epoch ", "Running stage", "resumed ", "trained ", "test:", "ERROR")  # lines of a fold worth showing


class Fold(NamedTuple):
    """An experiment and the parameters that it changes."""

    number: int
    name: str
    overrides: dict


def run(recipe: str | None = None, scheme: str = "patient", jobs: int = 1, root: Path = Path()) -> str:
    """Run the folds that are missing, ``jobs`` at once, and write metrics/cross_validation/.

    Args:
        recipe: recipes/<recipe>.yaml applied to each fold.
        scheme: ``patient``: params' folds; ``institution``: each is left out in turn, the small ones together.

    Returns:
        The closing line.

    Raises:
        RunError: folds failed; the others are kept.
    """
    repro.heal(root)
    folds = plan(recipe, scheme, root)
    missing = [fold for fold in folds if not is_done(fold, root)]
    for fold in folds:
        if fold not in missing:
            print(f"fold {fold.number}: {fold.name} is there")
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        codes = list(pool.map(partial(_run_fold, root=root), missing))
    failed = [fold for fold, code in zip(missing, codes, strict=True) if code]
    raise_all([
        Problem(str(log_of(fold, root)), f"fold {fold.number} failed; the others are kept", "read its ERROR, run again")
        for fold in failed
    ], RunError)  # fmt: skip
    return collect(folds, root)


def plan(recipe: str | None, scheme: str, root: Path = Path()) -> list[Fold]:
    """The folds as experiments."""
    changes = repro.load(recipe, root) if recipe else {}
    changes["split"] = changes.get("split", {}) | {"unit": scheme}
    params = config.load(path=root / "params.yaml").model_dump()
    for block, values in changes.items():
        params[block] |= values
    split = config.Params.model_validate(params).split
    if split.file:
        raise DataError("params.yaml", "split.file has one split, no folds", "set split.file: null")
    count = splitting.fold_count(root / "data/processed/slices.csv", split)
    key = _key(params, root)
    return [
        Fold(number, f"cv-{key}-{number}", {**changes, "split": changes["split"] | {"test_fold": number}})
        for number in range(count)
    ]


def _key(params: dict, root: Path) -> str:
    """A digest of everything that determines the folds' results, the number of the test fold apart."""
    pipeline = (root / "dvc.yaml").read_text(encoding="utf-8")
    code = {
        dep: files.sha256(root / dep)
        for stage in YAML(typ="safe").load(pipeline)["stages"].values()
        for dep in stage["deps"]
        if dep.startswith(("src/", "stages/"))
    }
    split = {**params["split"], "test_fold": None}
    facts = json.dumps([pipeline, code, {**params, "split": split}], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:8]


def is_done(fold: Fold, root: Path = Path()) -> bool:
    """Whether the experiment is there with its numbers."""
    try:
        revision.reader(fold.name, root)("metrics/per_patient.csv")
        return True
    except DataError:
        return False


def log_of(fold: Fold, root: Path) -> Path:
    return root / ".brainseg" / "cross_validation" / f"{fold.name}.log"


def _run_fold(fold: Fold, root: Path) -> int:
    """``dvc exp run`` in a folder of its own; what it prints goes to a log, what people wait for to the screen."""
    overrides = [flag for pair in repro.flags(fold.overrides) for flag in ("-S", pair)]
    command = ["dvc", "exp", "run", "--temp", "--name", fold.name, *overrides]
    log = log_of(fold, root)
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"fold {fold.number}: + {shlex.join(command)}", flush=True)
    with open(log, "w", encoding="utf-8") as kept, subprocess.Popen(
        [sys.executable, "-m", *command], cwd=root, env=repro.environment() | {"PYTHONUNBUFFERED": "1"},
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
    report: dict


def collect(folds: Sequence[Fold], root: Path = Path()) -> str:
    """Read every fold's numbers and write per_patient.csv, summary.json and two figures.

    Raises:
        IntegrityError: a patient was tested twice, or not at all, or the folds' protocols differ.
    """
    scored = [_read(fold, root) for fold in folds]
    _check(scored)
    patients = pd.concat([s.patients.assign(fold=s.fold.number) for s in scored], ignore_index=True)
    patients = patients.sort_values("patient", ignore_index=True)
    summary = summarise(scored, config.load("evaluate", path=root / "params.yaml").evaluate)
    folder = root / FOLDER
    files.write_text(folder / "per_patient.csv", patients.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    files.write_text(folder / "summary.json", text)
    figures.patients(patients, folder / "patients.png", dpi=110)
    figures.folds(patients, folder / "folds.png", dpi=110)
    dice = summary["test"]["volume"]["dice"]
    return (
        f"{len(patients)} patients out of fold: volume Dice {dice['mean']:.3f} [{dice['lo']:.3f}, {dice['hi']:.3f}], "
        f"median {dice['median']:.3f}; {folder}"
    )


def _read(fold: Fold, root: Path) -> Scored:
    read = revision.reader(fold.name, root)
    patients = revision.parse_table(read("metrics/per_patient.csv"))
    slices = revision.parse_table(read("metrics/per_slice.csv"))
    report = json.loads(read("metrics/evaluation.json"))
    return Scored(fold, patients[patients["subset"] == "test"], slices[slices["subset"] == "test"], report)


def _check(scored: Sequence[Scored]) -> None:
    tested = pd.concat([s.patients["patient"] for s in scored])
    twice = sorted(tested[tested.duplicated()])
    total = {sum(s.report["protocol"]["patients"].values()) for s in scored}
    problems = [Problem(patient, "is tested in two folds", "report this: a fold is broken") for patient in twice]
    if total != {len(tested)}:
        what = f"{len(tested)} patients are tested, there are {', '.join(map(str, sorted(total)))}"
        problems.append(Problem("folds", what, "run all folds on the same data"))
    raise_all(problems, IntegrityError)


def summarise(scored: Sequence[Scored], params: config.Evaluate) -> dict:
    """The protocol, the folds, and ``test`` in the shape of evaluation.json's, over all patients out of fold."""
    first = scored[0].report
    slices = pd.concat([s.slices for s in scored], ignore_index=True)
    unit = first["test"]["slice"]["unit"]
    summarised = partial(statistics.summarise, resamples=params.bootstrap, seed=params.seed)
    pixels = [len(s.slices) for s in scored]
    batches = [math.ceil(len(s.slices) / metrics.KERAS_BATCH) for s in scored]
    defined = [s.report["test"]["volume"]["dice"]["n"] for s in scored]
    patients = scoring.per_patient(slices)
    protocol = {name: first["protocol"][name] for name in ("source", "unit", "grid", "tta", "empty_rule", "marks")}
    counts = {"patients": len(patients), "slices": len(slices), "folds": len(scored)}
    return evaluation.strict({
        "protocol": protocol | counts,
        "test": scoring.blocks(slices, unit, summarised) | {
            "keras": _weighted([s.report["test"]["keras"] for s in scored], batches),
            "alone": _weighted([s.report["test"]["alone"] for s in scored], defined),
            "by_institution": scoring.institution_block(patients, slices, summarised),
            "by_size": scoring.size_block(patients, summarised),
            "calibration": _weighted([s.report["test"]["calibration"] for s in scored], pixels),
        },
        "folds": [_fold_facts(s) for s in scored],
    })  # fmt: skip


def _weighted(parts: list[dict[str, float]], weights: list[int]) -> dict[str, float]:
    """Means over the folds, weighted by what each fold's own number is a mean over."""
    return {
        name: sum(part[name] * weight for part, weight in zip(parts, weights, strict=True)) / sum(weights)
        for name in parts[0]
    }


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
