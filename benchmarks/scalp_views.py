"""What a second view of each slice, without scalp, adds to the validation patients of a cross-validation.

    python benchmarks/scalp_views.py cv-KEY

It needs the experiments of its folds in the cache: they hold what the network of each fold answers for its validation
patients, for the whole slice and for the slice without scalp, by the masks of the brain that come with the program.
Nobody's test patients are read. Threshold and components are chosen for each fold by the validation patients of the
other folds; a patient who is one for two folds has a say in his own.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import typer

from brainseg import config, errors
from brainseg.commands.several import ensemble_folds
from brainseg.data import dataset, splitting
from brainseg.errors import DataError
from brainseg.evaluation import calibration, evaluate, scoring
from brainseg.evaluation.scoring import Cohort
from brainseg.experiments import revision, showing
from brainseg.inference import postprocessing
from brainseg.inference.probabilities import Calibration

PROCESSED = Path("data/processed")
Fold = tuple[pd.DataFrame, np.ndarray, dict[str, np.ndarray]]  # slices, masks, probabilities
VIEWS = {"whole": ["probability"], "without scalp": ["stripped"], "the mean of both": ["probability", "stripped"]}


def main(name: str) -> None:
    asked = revision.params(revision.reader(f"{name}-0"))
    if asked["train"].get("subset", "train") != "train":
        raise DataError(name, "has learned from its validation patients", "name one with train.subset: train")
    params = config.Evaluate.model_validate(asked["evaluate"])
    count = splitting.count_folds(PROCESSED / "slices.csv", config.Split.model_validate(asked["split"]))
    here, there = (revision.sources(revision.reader(each)).data for each in (revision.WORKSPACE, f"{name}-0"))
    if here != there:
        raise DataError(
            name, "was made from other data than data/processed", "dvc repro split, at the commit of the folds"
        )
    slices, (_, masks) = dataset.read_slices(PROCESSED / "slices.csv"), dataset.open_arrays(PROCESSED)
    folds = [read(f"{name}-{fold}", slices, masks) for fold in range(count)]
    found = {view: score(folds, arrays, params) for view, arrays in VIEWS.items()}
    table = pd.DataFrame(found).agg(["mean", "median", "count"]).T
    table["under 0.6"] = (pd.DataFrame(found) < 0.6).sum()
    print(table.round(4).to_string())


def read(name: str, slices: pd.DataFrame, masks: np.ndarray) -> Fold:
    """The slices of a fold's validation patients, their masks, and each view's probabilities in 255ths."""
    subsets = revision.parse_table(revision.reader(name)("metrics/per_slice.csv")).set_index("row")["subset"]
    with revision.fetched(showing.PREDICTIONS, name) as path, np.load(path) as stored:
        if "stripped" not in stored:
            raise DataError(name, "has no probabilities without scalp", "set brains.method: shipped, run it again")
        chosen = subsets.reindex(stored["row"]).to_numpy() == "val"
        rows, arrays = stored["row"][chosen], {each: stored[each][chosen] for each in ("probability", "stripped")}
    return slices.iloc[rows].assign(subset="val").reset_index(drop=True), masks[rows], arrays


def score(folds: list[Fold], views: list[str], params: config.Evaluate) -> np.ndarray:
    """The volume Dice of each patient of each fold."""
    means = [ensemble_folds.average([arrays[view] for view in views]) for _, _, arrays in folds]
    evidence = [
        evaluate.gather(cases, masks, mean, params) for (cases, masks, _), mean in zip(folds, means, strict=True)
    ]
    found = []
    for fold, (cases, masks, _) in enumerate(folds):
        fitted = evaluate.fit_rule([each for other, each in enumerate(evidence) if other != fold], params)
        told = fitted.model_dump()
        calibrated = calibration.apply({"model": means[fold]}, Calibration.read(told))["model"]
        rule = postprocessing.read_rule(told)
        rows = scoring.per_slice(Cohort(cases, masks), calibrated, rule, params.surface_tolerance, "px", "val")
        found.append(scoring.per_patient(rows)["dice"].to_numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    errors.run(lambda: typer.run(main))
