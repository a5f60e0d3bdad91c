"""`brainseg ensemble --out-of-fold`: what an ensemble scores, each patient by networks that have not seen it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from brainseg import config
from brainseg.data import dataset, inputs, splitting
from brainseg.errors import DataError, IntegrityError, guard
from brainseg.evaluation import evaluate
from brainseg.evaluation.results import Evaluation
from brainseg.experiments import fold_scores, revision, showing
from brainseg.experiments.fold_scores import Fold, FoldScores
from brainseg.io.sequences import FLAIR

PROCESSED = Path("data/processed")
LESS = ("one_slice", "flair_only", "stripped")  # arrays that are stored beside those of the whole input
CHOSEN = {"weights_sha256", "temperature", "bias", "threshold", "postprocessing", "empty_rule"}  # not those of a member


class Prepared(NamedTuple):
    """The data in the workspace: the digests that dvc.lock has, the table of the slices, images and masks."""

    digests: list[str]
    slices: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray


def run(names: Sequence[str], out: Path, root: Path = Path()) -> str:
    """Write per_patient.csv and summary.json of the mean of several cross-validations into ``out``.

    In each fold the probabilities of all are averaged, and calibration, threshold and smallest component are chosen on
    its validation patients.

    Args:
        names: of cross-validations, ``cv-KEY``: the names of their folds without the last number.

    Returns:
        The closing line.

    Raises:
        DataError: fewer than two, or a fold is missing.
        IntegrityError: they are of other data than the workspace, or of several splits.
    """
    if len(names) < 2:
        raise DataError(", ".join(names), "is one cross-validation", "name two or more; dvc exp list names their folds")
    inputs.verify([str(PROCESSED / name) for name in ("images.npy", "masks.npy", "slices.csv")], root)
    here = revision.sources(revision.reader(revision.WORKSPACE, root)).data
    arrays = dataset.open_arrays(root / PROCESSED)
    data = Prepared(here, dataset.read_slices(root / PROCESSED / "slices.csv"), *arrays)
    split = revision.params(revision.reader(f"{names[0]}-0", root))["split"]
    count = splitting.count_folds(root / PROCESSED / "slices.csv", config.Split.model_validate(split))
    scored = [_score(number, [f"{name}-{number}" for name in names], data, root) for number in range(count)]
    pooled = fold_scores.pool_folds(scored)
    fold_scores.write(pooled, root / out)
    return fold_scores.closing_line(pooled.patients, pooled.summary, out)


def _score(number: int, members: Sequence[str], data: Prepared, root: Path) -> FoldScores:
    """One fold of the ensemble, with the protocol and the parameters of the first member."""
    readers = [revision.reader(name, root) for name in members]
    for name, read in zip(members, readers, strict=True):
        if revision.sources(read).data != data.digests:
            raise IntegrityError(
                name, "was made from other data than data/processed", "brainseg repro, or run it again"
            )
    first, params = readers[0], revision.params(readers[0])
    rows, arrays = _average(members, root)
    subsets = revision.parse_table(first("metrics/per_slice.csv")).set_index("row")["subset"]
    cases = data.slices.iloc[rows].assign(subset=subsets.reindex(rows).to_numpy())
    protocol = Evaluation.model_validate_json(first("metrics/evaluation.json")).protocol
    result = evaluate.evaluate(
        cases, data.masks[rows], arrays | {"flair": data.images[rows][..., FLAIR]},
        config.Evaluate.model_validate(params["evaluate"]), protocol.model_dump(exclude_unset=True, exclude=CHOSEN),
    )  # fmt: skip
    patients, validated = (result.per_patient[result.per_patient["subset"] == name] for name in ("test", "val"))
    slices = result.per_slice[result.per_slice["subset"] == "test"]
    recipes = [fold_scores.drop_fold(revision.params(read)) for read in readers]
    told = {**recipes[0], "ensemble": {"members": list(members), "params": recipes}}
    fold = Fold(number, " + ".join(members), {"split": {}})
    return FoldScores(
        fold,
        patients,
        validated,
        slices,
        result.probability_counts,
        result.report,
        told,
        revision.sources(first),
    )


def _average(members: Sequence[str], root: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The rows, and the mean of each array that all members have stored."""
    first, stored = None, []
    for name in members:
        rows, arrays = _read_probabilities(name, root)
        first = rows if first is None else first
        if not np.array_equal(rows, first):
            what = f"has other validation and test slices than {members[0]}"
            raise IntegrityError(name, what, "name cross-validations of one split")
        stored.append(arrays)
    common = set.intersection(*(set(each) for each in stored))
    return rows, {key: average([each[key] for each in stored]) for key in stored[0] if key in common}


def _read_probabilities(name: str, root: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The rows and arrays that evaluate has written in a run."""
    with (
        revision.fetched(showing.PREDICTIONS, name, root) as path,
        guard(f"{name}:{showing.PREDICTIONS}", "dvc repro -f evaluate there", IntegrityError),
        np.load(path, allow_pickle=False) as found,
    ):
        arrays = {less: found[less] for less in LESS if less in found}
        if "flair_only" not in arrays:
            what = "has no probabilities for FLAIR alone, as earlier versions wrote it"
            raise DataError(f"{name}:{showing.PREDICTIONS}", what, f"dvc exp remove {name}, run it again")
        return found["row"], {"model": found["probability"], "one_slice": found["probability"], **arrays}


def average(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of probabilities in 255ths, uint8, rounded."""
    total = np.zeros(arrays[0].shape, np.uint16)
    for array in arrays:
        total += array
    return np.rint(total / len(arrays)).astype(np.uint8)
