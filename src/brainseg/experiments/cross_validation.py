"""Cross-validation: every patient is scored once, by a model that has not seen it. A fold is a DVC experiment.

An experiment's name holds a digest of what determines its numbers: data, code and parameters. A fold whose experiment
exists and fits its name is not run again, so an interrupted cross-validation continues where it stopped.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from brainseg import config, files, hardware
from brainseg.data import csv_tables, splitting
from brainseg.errors import BrainsegError, DataError, IntegrityError, MachineError, Problem, RunError, raise_all
from brainseg.evaluation.results import Evaluation, MadeFrom
from brainseg.experiments import fold_scores, repro, revision, showing
from brainseg.experiments.fold_scores import Fold, FoldScores
from brainseg.experiments.running import local, places
from brainseg.experiments.running import runner as running
from brainseg.experiments.running.progress import DONE, Board
from brainseg.experiments.running.runner import HERE, Place, Runner, Seen, Training
from brainseg.reporting import charts, gallery

FOLDER = Path("metrics/cross_validation")
PICTURED = 14  # patients in the gallery
STATE = Path(".brainseg/cross_validation")
NAMES = re.compile(r"cv-[0-9a-f]{8}-\d+")  # of experiments


def run(
    recipe: str | None = None, scheme: str | None = None, place: Place = HERE, root: Path = Path(),
    folder: Path = FOLDER, only: Sequence[int] | None = None, *, quiet: bool = False,
) -> str:  # fmt: skip
    """Run the missing folds and write ``folder``.

    Args:
        only: the numbers of some folds, for a quick trial; None: all.
        place: where they run.
        quiet: no table on a terminal: lines for a log.
        recipe: recipes/<recipe>.yaml is applied to each fold.
        scheme: ``patient``: the folds of params.yaml; ``institution``: each institution is left out in turn, the
            small ones together; None: as ``split.unit`` says.

    Returns:
        The closing line.

    Raises:
        RunError: folds failed; the others are kept. Or they were stopped.
        MachineError: the place of the folds cannot be reached, or lacks something; or a cross-validation is running.
        IntegrityError: data, code or parameters were edited while the folds ran.
    """
    overrides = load_overrides(recipe, scheme, root)
    params = config.merge(config.read_yaml(root / "params.yaml"), overrides)
    if (root / folder).resolve() == (root / FOLDER).resolve() and params.get("split", {}).get("inner_folds"):
        what = "leaves out the patients of the test fold: it would take the place of the cross-validation of all"
        raise DataError("split.inner_folds", what, "add --output DIR")
    places.check(place, params)
    state = root / STATE
    state.mkdir(parents=True, exist_ok=True)
    fix = "wait for it, or stop it with Ctrl-C; the folds that it has finished are kept"
    with files.hold(state / "lock", MachineError("the cross-validation", "is running already in this project", fix)):
        local.end_leftovers(root.resolve(), NAMES)
        repro.clean_up(root)
        prepare(root)
        folds = choose(plan(overrides, root), only)
        for fold in folds:
            config.require_all(params["train"], fold.number)
        return _run(folds, params, place, root, folder, only is None, quiet)


def _run(
    folds: Sequence[Fold], params: dict, place: Place, root: Path, folder: Path, are_all: bool, quiet: bool
) -> str:  # fmt: skip
    missing = [fold for fold in folds if not is_done(fold, root)]
    with Board("cross-validation", "fold", params["train"]["epochs"], is_quiet=quiet) as board:
        for fold in folds:
            board.begin(fold.number, fold.name)
            if fold not in missing:
                board.end(fold.number, "is there")
        if missing:
            _run_missing(missing, place, root, params, board)
    changed = [fold.name for fold in missing if not is_done(fold, root)]
    what = "data, code or parameters were edited while the folds ran"
    raise_all([Problem(name, what, f"dvc exp remove {name}, run again") for name in changed], IntegrityError)
    return collect(folds, root, folder, are_all=are_all)


def _run_missing(missing: Sequence[Fold], place: Place, root: Path, params: dict, board: Board) -> None:
    """Run folds. One that fails does not keep the others from running.

    Raises:
        RunError: naming each that failed; MachineError, IntegrityError: if all failed so.
    """
    if place.on == "here":
        _warn_of_shared_cores(params, min(place.jobs or 1, len(missing)))
    with running.stoppable("the cross-validation"), places.create(place, root, params) as runner:
        found = running.work(runner, [partial(_run_fold, fold, root, runner, board) for fold in missing])
    failed = [(fold, error) for fold, error in zip(missing, found, strict=True) if error]
    problems = [
        problem._replace(what=f"fold {fold.number} failed; the others are kept: {problem.what}")
        for fold, error in failed
        for problem in error.problems
    ]
    kinds = [kind for kind in (MachineError, IntegrityError) if all(isinstance(error, kind) for _, error in failed)]
    raise_all(problems, kinds[0] if kinds else RunError)


def _run_fold(fold: Fold, root: Path, runner: Runner, board: Board) -> BrainsegError | None:
    """Run a fold; return why it failed."""

    def watch(seen: Seen) -> bool:
        board.see(fold.number, seen)
        return False

    try:
        runner.run(training(fold, root), watch)
    except (RunError, MachineError, IntegrityError) as error:
        board.end(fold.number, "stopped" if runner.is_over.is_set() else "failed")
        return error
    board.end(fold.number, DONE)
    return None


def prepare(root: Path) -> None:
    """Bring the data up to date in the workspace. Raises RunError: a stage failed; it has printed its own messages."""
    command = [sys.executable, "-m", "dvc", "repro", *running.PREPARED]
    if subprocess.run(command, cwd=root, env=repro.environment()).returncode:
        what = "the data could not be prepared"
        raise RunError(f"dvc repro {' '.join(running.PREPARED)}", what, "read the first ERROR above")


def choose(folds: Sequence[Fold], only: Sequence[int] | None) -> list[Fold]:
    """The folds with these numbers. Raises DataError: there is none of a number."""
    if only is None:
        return list(folds)
    numbers = {fold.number: fold for fold in folds}
    if unknown := [number for number in only if number not in numbers]:
        raise DataError("--folds", f"there is no fold {unknown[0]}", f"choose from 0 to {len(folds) - 1}")
    return [numbers[number] for number in sorted(set(only))]


def load_overrides(recipe: str | None, scheme: str | None, root: Path = Path()) -> dict:
    """What a recipe and the scheme override in params.yaml, without the number of the fold.

    Raises:
        DataError: the overrides do not fit params.yaml, train on all patients, split by slice, name a split file, or
            change the data.
    """
    path = root / "recipes" / f"{recipe}.yaml" if recipe else root / "params.yaml"
    overrides = repro.load_recipe(recipe, root) if recipe else {}
    unit = scheme or overrides.get("split", {}).get("unit")
    if unit:
        overrides = config.merge(overrides, {"split": {"unit": unit}})
    params = config.check(config.merge(config.read_yaml(root / "params.yaml"), overrides), path)
    split = params.split
    if params.train.subset == "all":
        what = "train.subset is all: no patient would be scored by a network that has not seen it"
        raise DataError(path, what, "set train.subset: train, or train_and_val")
    if split.unit == "slice":
        what = "split.unit is slice: a patient would be tested in several folds"
        raise DataError(path, what, "ask for --scheme patient (make: SCHEME=patient)")
    if split.file:
        raise DataError(path, "split.file has one split, no folds", "set split.file: null")
    if other := sorted({"download", "phantom", "preprocess"} & set(overrides)):
        fix = "set these in params.yaml, so that the folds use the data in the workspace"
        raise DataError(path, f"changes {', '.join(other)}", fix)
    return overrides


def plan(overrides: dict, root: Path = Path()) -> list[Fold]:
    """The folds of the data in the workspace, as experiments.

    With ``split.inner_folds`` they are those: the patients of the test fold are in none, so that it stays unseen.
    """
    read = revision.reader(revision.WORKSPACE, root)
    raw = config.merge(config.read_yaml(root / "params.yaml"), overrides)
    split = config.check(raw, root / "params.yaml").split
    name = f"cv-{revision.key(read, overrides)}"
    count = splitting.count_folds(root / "data/processed/slices.csv", split)
    own, key = overrides.get("split", {}), config.fold_parameter(split.inner_folds)
    return [Fold(k, f"{name}-{k}", {**overrides, "split": {**own, key: k}}) for k in range(count)]


def is_done(fold: Fold, root: Path = Path()) -> bool:
    """Whether the experiment exists with its numbers and was made from what its name says."""
    try:
        read = revision.reader(fold.name, root)
        read("metrics/per_patient.csv")
        return fold.name == f"cv-{revision.key(read, {})}-{fold.number}"
    except DataError:
        return False


def training(fold: Fold, root: Path) -> Training:
    return Training(fold.name, fold.overrides, root / STATE)


def _warn_of_shared_cores(params: dict, at_once: int) -> None:
    """Warn if several folds on a processor each start a thread for every core.

    The cores are not divided here, because the number of threads is part of the result, and ``jobs`` must not be.
    """
    cores, train = hardware.cores(), config.Train(**params["train"])
    on_processor = train.device == "cpu" or not hardware.list_gpus()
    if at_once > 1 and cores > 1 and on_processor and train.threads == "auto":
        what = f"{at_once} folds at once compute with {cores} threads each on {cores} cores"
        fix = f"run one fold at a time (JOBS=1), or set train.threads: {max(1, cores // at_once)}"
        print(f"WARNING train.threads: {what}. Fix: {fix}", file=sys.stderr, flush=True)


def collect(folds: Sequence[Fold], root: Path = Path(), folder: Path = FOLDER, *, are_all: bool = True) -> str:
    """Read the numbers of every fold and write per_patient.csv, validation.csv, summary.json and three figures.

    Raises:
        IntegrityError: a patient was tested twice, or not at all although these are all folds.
    """
    scored = [_read_experiment(fold, root) for fold in folds]
    pooled = fold_scores.pool_folds(scored, are_all=are_all)
    patients, _, summary = pooled
    folder = root / folder
    fold_scores.write(pooled, folder)
    charts.draw_patients(patients, folder / "patients.png", dpi=110)
    charts.draw_folds(patients, folder / "folds.png", dpi=110)
    pictures = folder / "gallery.png"
    pictures.unlink(missing_ok=True)  # may show an earlier cross-validation
    try:
        _gallery(scored, root, pictures)
    except DataError as error:  # the cache may lack the predictions; the numbers do not need them
        print(f"{pictures} is left out: {error}")
    return fold_scores.closing_line(patients, summary, folder)


def _gallery(scored: Sequence[FoldScores], root: Path, path: Path) -> None:
    """Draw the best, the median and the worst patients, each with the outline of the model that has not seen it."""
    runs = [showing.Run(s.fold.name, s.patients, s.slices, s.report.protocol) for s in scored]
    slices = pd.concat([run.slices for run in runs], ignore_index=True)
    picked = gallery.pick(pd.concat([run.patients for run in runs]), slices, PICTURED)
    if not picked.empty:  # at least one patient has a defined Dice
        showing.draw(picked, runs, root, path)


def _read_experiment(fold: Fold, root: Path) -> FoldScores:
    read = revision.reader(fold.name, root)
    return read_scores(fold, read, revision.params(read), revision.sources(read))


def read_scores(fold: Fold, read: revision.Reader, params: dict, made_from: MadeFrom) -> FoldScores:
    """Read the numbers of a fold. ``params`` and ``made_from``: what they were made with."""
    patients = revision.parse_table(read("metrics/per_patient.csv"))
    slices = revision.parse_table(read("metrics/per_slice.csv"))
    counts = csv_tables.read_csv(read("metrics/probability_counts.csv"))
    try:
        report = Evaluation.model_validate_json(read("metrics/evaluation.json"))
    except ValueError as error:
        what = f"is damaged or of another version: {config.reason(error)}"
        fix = f"dvc exp remove {fold.name}, run again"
        raise DataError(f"{fold.name}:metrics/evaluation.json", what, fix) from None
    tested, slices = (table[table["subset"] == "test"] for table in (patients, slices))
    validated = patients[patients["subset"] == "val"]
    return FoldScores(fold, tested, validated, slices, counts, report, fold_scores.drop_fold(params), made_from)
