"""From probabilities to ``metrics/evaluation.json`` and its tables.

The rule that turns probabilities into masks is chosen on validation patients only, for the model (its
threshold by the one-standard-error rule) and for the FLAIR-threshold baseline (the best on validation);
then validation, test and the baselines are scored.
"""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from brainseg import files
from brainseg.config import Evaluate
from brainseg.errors import DataError, IntegrityError, Problem, raise_all
from brainseg.evaluation import bootstrap, metrics, scoring, threshold_search
from brainseg.evaluation.scoring import Cohort
from brainseg.evaluation.threshold_search import THRESHOLDS, Search
from brainseg.inference import postprocessing
from brainseg.inference.postprocessing import Rule
from brainseg.io import spacing

EMPTY_RULE = (
    "reference and prediction both empty: undefined (null), counted, never 0 or 1; one of them empty: Dice 0, HD95 null"
)
DECIMALS = 6  # of every float in the report


class Result(NamedTuple):
    """What ``write`` puts under metrics/: two JSON files and four tables, named as here."""

    report: dict
    summary: dict
    per_patient: pd.DataFrame
    per_slice: pd.DataFrame
    threshold_curve: pd.DataFrame
    calibration: pd.DataFrame


def evaluate(
    cases: pd.DataFrame,
    masks: np.ndarray,
    probabilities: dict[str, np.ndarray],
    params: Evaluate,
    protocol: dict,
) -> Result:
    """Choose the rule on validation; score validation, test and the baselines.

    Args:
        cases: one row a slice, aligned with the arrays: row, patient, institution, subset (val | test),
            slice, tumour_pixels, spacing ("row x column x slice" in mm, or empty).
        masks: (n, H, W), 0 and 1.
        probabilities: four arrays (n, H, W) uint8, round(255 p): ``model``; ``one_slice``, the model given
            no neighbours; ``flair_only``, given FLAIR in all channels; ``flair``, the FLAIR channel itself.
        protocol: source, unit, grid, patients, slices, tta, marks; of a model of ours weights_sha256.

    Raises:
        DataError: no slices in validation or test. IntegrityError: arrays that do not fit the rows.
    """
    _check(cases, masks, probabilities)
    cases = cases.reset_index(drop=True)
    cohorts = {subset: Cohort(cases[cases.subset == subset], masks) for subset in ("val", "test")}
    measure = measured(cases, params)
    threshold = None if params.threshold == "auto" else as_written(params.threshold)
    size = None if params.min_component == "auto" else params.min_component
    searched = _search(cohorts["val"], probabilities["model"], threshold, size)
    rule = threshold_search.choose(searched, threshold or threshold_search.best_threshold(searched, errors=1))

    slices, parts, bins = {}, {}, {}
    for subset, cohort in cohorts.items():
        slices[subset] = scoring.per_slice(
            cohort, probabilities["model"], rule, measure.tolerance, measure.unit, subset
        )
        bins[subset] = scoring.calibration(cohort, probabilities["model"])
        parts[subset] = scoring.report(cohort, slices[subset], probabilities, rule, measure, bins[subset], cases)
    found = _search(cohorts["val"], probabilities["flair"], None, None)
    bright = threshold_search.choose(found, threshold_search.best_threshold(found))
    report = {
        "protocol": described(protocol, rule),
        "test": parts["test"],
        "val": parts["val"],
        "baselines": scoring.baselines(cohorts["test"], probabilities["flair"], bright, measure),
    }
    curve = _curve(searched, rule, cohorts["test"], probabilities["model"])
    return _result(strict(report), slices, curve, rule, bins["test"])


def measured(cases: pd.DataFrame, params: Evaluate) -> scoring.Measure:
    """In mm where every one of ``cases`` has a spacing."""
    unit = "mm" if all(spacing.read(cell) for cell in cases.spacing.unique()) else "px"
    summarise = partial(bootstrap.summarise, resamples=params.bootstrap, seed=params.seed)
    return scoring.Measure(unit, params.surface_tolerance, summarise)


def write(result: Result, metrics_dir: Path) -> str:
    """Write evaluation.json, summary.json and the four tables, each whole or not at all; the closing line."""
    for name, content in (("evaluation", result.report), ("summary", result.summary)):
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        files.write_text(metrics_dir / f"{name}.json", text)
    for name in ("per_patient", "per_slice", "threshold_curve", "calibration"):
        text = getattr(result, name).to_csv(index=False, lineterminator="\n", float_format="%.6g")
        files.write_text(metrics_dir / f"{name}.csv", text)
    dice = result.report["test"]["volume"]["dice"]
    flair = result.report["baselines"]["flair_threshold"]["volume"]["dice"]
    marks = "".join(f"; {mark}" for mark in result.report["protocol"]["marks"])
    paths = f"{metrics_dir / 'evaluation.json'}, {metrics_dir / 'per_patient.csv'}"
    return (
        f"test: {_count(dice['n'], 'patient')}, volume Dice {with_interval(dice)}, "
        f"median {_number(dice['median'])}; FLAIR threshold {_number(flair['mean'])}{marks}; {paths}"
    )


def table(report: dict) -> str:
    """The test numbers for a terminal: mean with 95 % interval over patients, median, baselines, marks."""
    protocol, test, lows = report["protocol"], report["test"], report["baselines"]
    detection, unit = test["detection"], test["slice"]["unit"]
    size = protocol["postprocessing"]["min_component"]
    removed = f"components under {size} voxels" if size else "nothing"
    rows = [
        ("volume Dice", test["volume"]["dice"]),
        ("volume IoU", test["volume"]["iou"]),
        ("tumour-slice Dice", test["slice"]["dice_tumour"]),
        (f"tumour-slice HD95 ({unit})", test["slice"]["hd95"]),
        *((f"baseline: {words}, volume Dice", lows[name]["volume"]["dice"])
          for name, words in (("flair_threshold", "FLAIR threshold"), ("empty", "nothing predicted")) if name in lows),
    ]  # fmt: skip
    lines = [
        f"Test: {_count(protocol['patients']['test'], 'patient')}, {_count(protocol['slices']['test'], 'slice')}; "
        f"threshold {protocol['threshold']:g}, {removed} removed",
        f"{'':<42}{'mean [95 % over patients]':<28}median",
        *(f"{name:<42}{with_interval(each):<28}{_number(each['median'])}" for name, each in rows),
        f"{'slices with tumour found':<42}{_number(detection['slice_sensitivity'])}",
        f"{'slices without tumour marked':<42}{_number(detection['slice_false_positive_rate'])}",
        *(f"Mark: {mark}" for mark in protocol["marks"]),
    ]
    return "\n".join(lines)


def _check(cases: pd.DataFrame, masks: np.ndarray, probabilities: dict[str, np.ndarray]) -> None:
    expected = (len(cases), *masks.shape[1:])
    arrays = {"masks": masks} | {f"probabilities of {name}": array for name, array in probabilities.items()}
    misfits = {
        name: f"shape {a.shape}, rows and masks need {expected}" for name, a in arrays.items() if a.shape != expected
    }
    fix = "make them anew from the same data: dvc repro"
    raise_all([Problem(name, what, fix) for name, what in misfits.items()], IntegrityError)
    empty = [subset for subset in ("val", "test") if not (cases.subset == subset).any()]
    fix = "give it patients: split.folds and split.val_fraction in params.yaml, or your split.file"
    raise_all([Problem("split.csv", f"no {subset} images to evaluate on", fix) for subset in empty], DataError)


def _search(cohort: Cohort, probability: np.ndarray, fixed_threshold: float | None, fixed_size: int | None) -> Search:
    """Counts on a cohort for every threshold, a fixed one among them, and every size that is open to choice."""
    sizes = threshold_search.min_components(cohort.masks.shape[1:]) if fixed_size is None else (fixed_size,)
    thresholds = sorted({*THRESHOLDS} if fixed_threshold is None else {*THRESHOLDS, fixed_threshold})
    return cohort.search(probability, thresholds, sizes, "threshold")


def as_written(threshold: float) -> float:
    """As the report will give it: what is used and what is read there must be one level; never 0 or 1."""
    least = 10**-DECIMALS
    return round(min(max(threshold, least), 1 - least), DECIMALS)


def _curve(found: Search, rule: Rule, test: Cohort, probability: np.ndarray) -> pd.DataFrame:
    """Validation by threshold at the chosen size: Dice and IoU as means per volume, the others pooled.

    ``test_dice`` is for the reader: how much hangs on the choice, which was made without it.
    """
    c = metrics.Counts(*(kind[:, :, found.min_components.index(rule.min_component)] for kind in found.counts))
    pooled = metrics.Counts(*(kind.sum(axis=0) for kind in c))
    return pd.DataFrame(
        {
            "threshold": found.thresholds,
            "dice": pd.DataFrame(metrics.dice(c)).mean(),
            "iou": pd.DataFrame(metrics.iou(c)).mean(),
            "precision": metrics.precision(pooled),
            "recall": metrics.recall(pooled),
            "test_dice": test.search(probability, found.thresholds, [rule.min_component], "test").mean_dice()[:, 0],
        }
    )


def described(given: dict, rule: Rule) -> dict:
    """The protocol block: what was given, the rule, how empty masks count, the marks."""
    keys = ("source", "unit", "grid", "patients", "slices", "weights_sha256")
    first = {key: given[key] for key in keys if key in given}
    last = {"tta": given["tta"], "empty_rule": EMPTY_RULE, "marks": list(given["marks"])}
    return first | postprocessing.described(rule) | last


def _result(report: dict, slices: dict, curve: pd.DataFrame, rule: Rule, calibration: pd.DataFrame) -> Result:
    test, baseline = report["test"], report["baselines"]["flair_threshold"]
    summary = {
        "volume_dice_mean": test["volume"]["dice"]["mean"],
        "volume_dice_median": test["volume"]["dice"]["median"],
        "volume_iou_mean": test["volume"]["iou"]["mean"],
        "slice_dice_tumour_mean": test["slice"]["dice_tumour"]["mean"],
        "hd95_median": test["slice"]["hd95"]["median"],
        "slice_sensitivity": test["detection"]["slice_sensitivity"],
        "slice_false_positive_rate": test["detection"]["slice_false_positive_rate"],
        "flair_threshold_dice_mean": baseline["volume"]["dice"]["mean"],
        "val_volume_dice_mean": report["val"]["volume"]["dice"]["mean"],
        "threshold": rule.threshold,
    }
    patients = pd.concat([scoring.per_patient(table) for table in slices.values()], ignore_index=True)
    rows = pd.concat(slices.values(), ignore_index=True)
    return Result(report, summary, patients, rows, curve, calibration)


def strict(value: Any) -> Any:
    """Plain JSON: floats to ``DECIMALS``, null for what is undefined, NumPy numbers as Python's."""
    if isinstance(value, dict):
        return {key: strict(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [strict(part) for part in value]
    if isinstance(value, float | np.floating):
        return round(float(value), DECIMALS) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def with_interval(block: dict) -> str:
    """A mean with its interval, in words where it is undefined."""
    interval = "" if block["lo"] is None else f" [{_number(block['lo'])}, {_number(block['hi'])}]"
    return _number(block["mean"]) + interval


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
