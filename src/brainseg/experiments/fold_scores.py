"""The numbers of all folds together: every patient scored once, by a network that has not seen it."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from brainseg import config, files
from brainseg.errors import IntegrityError, Problem, raise_all
from brainseg.evaluation import bootstrap, calibration, evaluate, metrics, results, scoring, tables
from brainseg.evaluation.results import CrossValidationSummary, Evaluation, FoldSummary, MadeFrom
from brainseg.inference.probabilities import Calibration

VALIDATION = "validation.csv"


class Fold(NamedTuple):
    """An experiment and the parameters that it changes."""

    number: int
    name: str
    overrides: dict


class FoldScores(NamedTuple):
    """The results of one fold: of its test patients, ``validation`` apart; the parameters without the fold's number.

    validation: None if the rule is cross-fitted: each of them is a test patient of another fold, and chose.
    """

    fold: Fold
    patients: pd.DataFrame
    validation: pd.DataFrame | None
    slices: pd.DataFrame
    probability_counts: pd.DataFrame
    report: Evaluation
    params: dict
    made_from: MadeFrom


class PooledFolds(NamedTuple):
    """The scores of all test patients, and of all validation patients if they are scored, each with its ``fold``."""

    patients: pd.DataFrame
    validation: pd.DataFrame | None
    summary: CrossValidationSummary


def pool_folds(scored: Sequence[FoldScores], *, are_all: bool = True) -> PooledFolds:
    """One row per patient, and the numbers of ``summarise``.

    Raises:
        IntegrityError: a patient was tested twice, or not at all although these are all folds.
    """
    _check(scored, are_all)
    tested = pd.concat([s.patients.assign(fold=s.fold.number) for s in scored], ignore_index=True)
    validated = [s.validation.assign(fold=s.fold.number) for s in scored if s.validation is not None]
    return PooledFolds(
        tested.sort_values("patient", ignore_index=True),
        pd.concat(validated, ignore_index=True) if validated else None,
        summarise(scored),
    )


def write(pooled: PooledFolds, folder: Path) -> None:
    """Write one or two tables, and ``summary.json``, which has the digests of the tables and of its own content."""
    texts = {"per_patient.csv": tables.to_text(pooled.patients)}
    if pooled.validation is None:
        (folder / VALIDATION).unlink(missing_ok=True)  # of an earlier cross-validation
    else:
        texts[VALIDATION] = tables.to_text(pooled.validation)
    for name, text in texts.items():
        files.write_text(folder / name, text)
    told = pooled.summary.model_copy(update={"tables": tables.digests(texts)})
    files.write_text(folder / "summary.json", results.text(results.seal(told)))


def closing_line(patients: pd.DataFrame, summary: CrossValidationSummary, folder: Path) -> str:
    """The closing line."""
    dice = summary.test.volume.dice
    return (
        f"{len(patients)} patients out of fold: volume Dice {dice.mean:.3f} [{dice.lo:.3f}, {dice.hi:.3f}], "
        f"median {dice.median:.3f}; {folder}"
    )


def drop_fold(params: dict, inner_folds: int | None = None) -> dict:
    """What the folds of one cross-validation share.

    Args:
        inner_folds: of their parameters, where ``params`` are some of these alone.
    """
    split = params["split"]
    key = config.fold_parameter(split.get("inner_folds", inner_folds))
    return {**params, "split": {name: value for name, value in split.items() if name != key}}


def _check(scored: Sequence[FoldScores], are_all: bool) -> None:
    tested = pd.concat([s.patients["patient"] for s in scored])
    twice = sorted(tested[tested.duplicated()])
    total = {sum(s.report.protocol.patients.values()) for s in scored}
    problems = [Problem(patient, "is tested in two folds", "report this: it is a bug") for patient in twice]
    if are_all and total != {len(tested)}:
        what = f"{len(tested)} patients are tested, there are {', '.join(map(str, sorted(total)))}"
        problems.append(Problem("folds", what, "run all folds on the same data"))
    raise_all(problems, IntegrityError)


def summarise(scored: Sequence[FoldScores]) -> CrossValidationSummary:
    """Protocol, folds, parameters, and ``test`` over all patients, with the fields of evaluation.json's ``test``."""
    fold, first, made_with = scored[0].fold, scored[0].report, scored[0].params
    params = config.Evaluate.model_validate(made_with["evaluate"])
    slices = pd.concat([s.slices for s in scored], ignore_index=True)
    unit = first.test.slice.unit
    summarised = partial(bootstrap.summarise, resamples=params.bootstrap, seed=params.seed)
    joints = [tables.read_counts(s.probability_counts) for s in scored]
    batches = [math.ceil(len(s.slices) / metrics.KERAS_BATCH) for s in scored]
    defined = [s.report.test.volume.dice.n for s in scored]
    patients = scoring.per_patient(slices)
    protocol = {name: getattr(first.protocol, name) for name in ("source", "unit", "grid", "tta", "empty_rule")}
    marks = list(dict.fromkeys(mark for s in scored for mark in s.report.protocol.marks))
    counts = {"patients": len(patients), "slices": len(slices), "folds": len(scored)}
    crossed = {"cross_fitted": True} if scored[0].validation is None else {}
    numbers = evaluate.round_floats({
        "protocol": protocol | {"marks": marks} | counts | crossed,
        "test": scoring.score_blocks(slices, unit, summarised) | {
            "keras": _average_folds([s.report.test.keras.model_dump() for s in scored], batches),
            "alone": _average_folds([s.report.test.alone.model_dump(exclude_unset=True) for s in scored], defined),
            "by_institution": scoring.institution_block(patients, slices, summarised),
            "by_size": scoring.size_block(patients, summarised),
            "calibration": _pool_calibration(joints, [results.calibration_of(s.report.protocol) for s in scored]),
        },
        "calibration": _calibrate(joints, params),
        "folds": [_summarise_fold(s) for s in scored],
    })  # fmt: skip
    overrides = drop_fold(fold.overrides, made_with["split"].get("inner_folds"))
    made = {"params": made_with, "overrides": overrides, "made_from": scored[0].made_from}
    return CrossValidationSummary.model_validate(numbers | made)  # parameters are not rounded


def _average_folds(parts: list[dict[str, float | None]], weights: list[int]) -> dict[str, float]:
    """Weighted means over the folds without undefined values. ``weights``: the items that each value averages."""
    table = pd.DataFrame(parts, dtype=float)
    weight = table.notna().mul(weights, axis=0)
    return (table.fillna(0) * weight).sum().div(weight.sum()).to_dict()


def _calibrate(joints: Sequence[np.ndarray], params: config.Evaluate) -> dict[str, float] | None:
    """See ``results.CalibrationOfFolds``; what ``params`` fix stays. None: one fold has no others."""
    if len(joints) < 2:
        return None
    total, asked = np.sum(joints, axis=0), calibration.Asked.read(params)
    return calibration.fit(total, asked).describe() | _measure(calibration.cross_fit(joints, asked), total)


def _pool_calibration(joints: Sequence[np.ndarray], chosen: Sequence[Calibration]) -> dict[str, float]:
    """Calibration errors over all test pixels, each fold calibrated as its run was; before, unless none was.

    Args:
        joints: the joint histogram (2, 256) of each fold, of the network's own probabilities.
    """
    calibrated = np.sum(list(map(calibration.apply_to_counts, joints, chosen)), axis=0)
    is_changed = any(each != calibration.NONE for each in chosen)
    return _measure(calibrated, np.sum(joints, axis=0) if is_changed else None)


def _measure(joint: np.ndarray, before: np.ndarray | None) -> dict[str, float]:
    """The calibration errors of a joint histogram, and of the one that it was before."""
    found = scoring.calibration_block(scoring.calibration_table(joint))
    own = {} if before is None else scoring.calibration_block(scoring.calibration_table(before))
    return found | {f"{name}{scoring.BEFORE}": value for name, value in own.items()}


def _summarise_fold(scored: FoldScores) -> FoldSummary:
    report = scored.report
    return FoldSummary(
        fold=scored.fold.number,
        experiment=scored.fold.name,
        institutions=sorted(set(scored.patients["institution"])),
        patients=report.protocol.patients,
        **results.calibration_of(report.protocol).describe(),
        threshold=report.protocol.threshold,
        min_component=report.protocol.postprocessing.min_component,
        min_share=report.protocol.postprocessing.min_share,
        volume_dice=report.test.volume.dice,
        val_volume_dice_mean=None if scored.validation is None else report.val.volume.dice.mean,
    )
