"""`brainseg tune`: search, repeat the default, compare on patients that no trial saw, report."""

import re
from pathlib import Path

import optuna
import pandas as pd

from brainseg import config, files
from brainseg.errors import DataError, MachineError
from brainseg.experiments import cross_validation, integrity, repro
from brainseg.experiments.running import places
from brainseg.experiments.running import runner as running
from brainseg.experiments.running.progress import Board
from brainseg.experiments.running.runner import HERE, Place
from brainseg.tuning import outcome, report, search, space, trials
from brainseg.tuning.search import Options, Search
from brainseg.tuning.space import SearchSpace
from brainseg.tuning.trials import Study

NAME = re.compile(r"[a-z0-9_]+")


def run(
    path: Path, options: Options, place: Place = HERE, inner_folds: int = 1, name: str | None = None,
    repeats: int = 3, *, verdict: bool = True, quiet: bool = False, root: Path = Path(),
) -> tuple[str, Path]:  # fmt: skip
    """Search ``path``, and write ``metrics/tune/NAME/``. Return what was found, and that folder below ``root``.

    Args:
        place: where trials run.
        inner_folds: on how many inner folds each trial is trained. The patients outside the test fold are always dealt
            to ``split.folds`` of them.
        name: of the study; None: that of the file.
        repeats: trainings of params.yaml with other seeds, which tell what chance does.
        verdict: compare best and default on the test fold.

    Raises:
        DataError: the search space, the split or the name does not fit.
        RunError: the data cannot be prepared, no trial came to its end, or the search was stopped.
        MachineError: a search of this name is running, or its place cannot be reached.
    """
    integrity.check_git(root)
    searched, study = space.read(path, root), plan(path, inner_folds, name, root)
    places.check(place, config.merge(search.read_params(study), searched.fixed))
    study.state.mkdir(parents=True, exist_ok=True)
    fix = "wait for it, or search under another name: --name"
    with files.hold(study.state / "lock", MachineError(study.name, "is running already", fix)):
        trials.end_leftovers(study)
        repro.clean_up(root)
        cross_validation.prepare(root)  # so that trials find the data in DVC's cache
        return _run(study, searched, options, place, repeats, verdict=verdict, quiet=quiet)


def _run(
    study: Study, searched: SearchSpace, options: Options, place: Place, repeats: int, *, verdict: bool, quiet: bool
) -> tuple[str, Path]:  # fmt: skip
    params = config.merge(search.read_params(study), searched.fixed)
    epochs = params["train"]["epochs"] * study.folds
    board = Board(f"search {study.name}", "trial", epochs, is_quiet=quiet)
    with running.stoppable(study.name), places.create(place, study.root, params) as runner, board:
        found = Search(study, searched, options, board, runner).run()
        scores = outcome.repeat_default(study, searched, repeats, board, runner) if repeats else []
        best = searched.shorten(search.list_ended(found)[0].params)
        compared = outcome.compare_on_unseen(study, searched, best, board, runner) if verdict else None
    done = outcome.gather(study, searched, found, scores, compared)
    page = report.write(done, watch_all(found))
    settings = " ".join(f"-S {value}" for value in repro.flags(done.best))
    told = "\n".join([*outcome.describe(done), f"{page}; the best at full length: brainseg repro {settings}"])
    return told, report.FOLDER / study.name


def plan(path: Path, folds: int, name: str | None, root: Path) -> Study:
    """The study of a search space.

    Raises:
        DataError: the split has no inner folds, or not as many; or trials would be trained on whom they are scored by.
    """
    params = config.load("split", "train", path=root / "params.yaml")
    split = params.split
    told = params.train.initial_weights, params.train.soft_masks
    if params.train.subset == "all" or told != (None, None):
        what = "would learn of patients whom trials are scored by: from train.subset, initial weights or soft masks"
        fix = "set train.subset: train, train.initial_weights: null and train.soft_masks: null"
        raise DataError("params.yaml", what, fix)
    if split.unit != "patient" or split.file is not None or split.inner_folds is not None:
        what = "has no inner folds: it needs split.unit patient, and no file or inner folds of its own"
        raise DataError("params.yaml", what, "set split.unit: patient, split.file: null, split.inner_folds: null")
    if folds > split.folds:
        raise DataError("--inner-folds", f"is {folds}, there are {split.folds}", f"choose 1 to {split.folds}")
    chosen = name or re.sub(r"[^a-z0-9]+", "_", path.stem.lower())
    if not NAME.fullmatch(chosen):
        raise DataError("--name", f"{chosen!r} is no name of a search", "write a-z, 0-9 and _")
    return Study(chosen, root.resolve(), split.folds, folds)


def watch_all(found: optuna.Study) -> pd.DataFrame:
    """Columns trial, epoch, dice: what every trial told."""
    rows = [(t.number, epoch, dice) for t in found.trials for epoch, dice in t.intermediate_values.items()]
    return pd.DataFrame(rows, columns=["trial", "epoch", "dice"])
