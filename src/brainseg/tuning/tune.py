"""`brainseg tune`: search, repeat the default, compare on patients that no trial saw, report."""

import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd

from brainseg import config
from brainseg.errors import DataError, RunError
from brainseg.experiments import cross_validation, integrity, repro
from brainseg.tuning import outcome, report, search, space, trials
from brainseg.tuning.progress import Board
from brainseg.tuning.search import Options
from brainseg.tuning.trials import Study

PREPARED = ("split", "brains")


def run(
    path: Path, options: Options, inner_folds: int = 1, name: str | None = None, repeats: int = 3, *,
    verdict: bool = True, quiet: bool = False, root: Path = Path(),
) -> str:  # fmt: skip
    """Search ``path``, and write ``metrics/tune/NAME/``. Return what was found.

    Args:
        inner_folds: on how many inner folds each trial is trained. The patients outside the test fold are always dealt
            to ``split.folds`` of them.
        name: of the study; None: that of the file.
        repeats: trainings of params.yaml with other seeds, which tell what chance does.
        verdict: compare best and default on the test fold.

    Raises:
        DataError: the search space, the split or the name does not fit.
        RunError: the data cannot be prepared, or no trial came to its end.
    """
    integrity.check_git(root)
    searched, study = space.read(path, root), plan(path, inner_folds, name, root)
    trials.end_leftovers(study)
    repro.clean_up(root)
    prepare = [sys.executable, "-m", "dvc", "repro", *PREPARED]
    if subprocess.run(prepare, cwd=root, env=repro.environment()).returncode:
        raise RunError(
            f"dvc repro {' '.join(PREPARED)}", "the data could not be prepared", "read the first ERROR above"
        )
    epochs = config.merge(config.read_yaml(root / "params.yaml"), searched.fixed)["train"]["epochs"]
    with Board(f"search {study.name}", epochs * study.folds, is_quiet=quiet) as board:
        try:
            found = search.run(study, searched, options, board)
            devices = cross_validation.queue_devices(1)
            scores = outcome.repeat_default(study, searched, repeats, board, devices) if repeats else []
            best = search.list_ended(found)[0].params
            compared = outcome.compare_on_unseen(study, searched, best, devices) if verdict else None
        except KeyboardInterrupt:
            raise RunError(study.name, "was stopped; what is finished is kept", "go on with the same command") from None
    done = outcome.gather(study, found, scores, compared)
    page = report.write(done, watch_all(found))
    return "\n".join([*outcome.describe(done), f"{page}; the best: brainseg repro {_format_settings(done.best)}"])


def plan(path: Path, folds: int, name: str | None, root: Path) -> Study:
    """The study of a search space.

    Raises:
        DataError: the split has no inner folds, or not as many.
    """
    split = config.load("split", path=root / "params.yaml").split
    if split.unit != "patient" or split.file is not None or split.inner_folds is not None:
        what = "has no inner folds: it needs split.unit patient, and no file or inner folds of its own"
        raise DataError("params.yaml", what, "set split.unit: patient, split.file: null, split.inner_folds: null")
    if folds > split.folds:
        raise DataError("--inner-folds", f"is {folds}, there are {split.folds}", f"choose 1 to {split.folds}")
    chosen = name or path.stem.replace("-", "_").lower()
    return Study(chosen, root.resolve(), split.folds, folds)


def watch_all(found: optuna.Study) -> pd.DataFrame:
    """Columns trial, epoch, dice: what every trial told."""
    rows = [(t.number, epoch, dice) for t in found.trials for epoch, dice in t.intermediate_values.items()]
    return pd.DataFrame(rows, columns=["trial", "epoch", "dice"])


def _format_settings(best: dict) -> str:
    return " ".join(f"-S {name}={value}" for name, value in best.items())
