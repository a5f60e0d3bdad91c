"""From probabilities to ``metrics/evaluation.json`` and its tables.

The rule that turns probabilities into masks is chosen on validation patients only: the threshold of the model by the
one-standard-error rule, that of the FLAIR baseline as the best on validation. Then validation, test and the baselines
are scored. Only where folds are cross-fitted (``fit_rule``) the test patients of the other folds choose.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from brainseg import files
from brainseg.config import Evaluate
from brainseg.errors import DataError, IntegrityError, Problem, raise_all
from brainseg.evaluation import bootstrap, calibration, metrics, results, scoring, tables, threshold_search
from brainseg.evaluation.results import Evaluation, ExternalEvaluation, Mean, Summary
from brainseg.evaluation.scoring import Array, Cohort
from brainseg.evaluation.threshold_search import THRESHOLDS, Search, Smallest
from brainseg.inference import postprocessing
from brainseg.inference.postprocessing import Rule
from brainseg.inference.probabilities import Calibration
from brainseg.io import spacing

EMPTY_RULE = (
    "reference and prediction both empty: undefined (null), counted, never 0 or 1; one of them empty: Dice 0, HD95 null"
)
DECIMALS = 6  # of every float in the report


class Result(NamedTuple):
    """The files that ``write`` puts into metrics/: two JSON files and five tables with these names.

    probability_counts: test pixels without and with tumour, for each of the network's own probabilities in 255ths.
    """

    report: Evaluation
    summary: Summary
    per_patient: pd.DataFrame
    per_slice: pd.DataFrame
    threshold_curve: pd.DataFrame
    calibration: pd.DataFrame
    probability_counts: pd.DataFrame


def evaluate(
    cases: pd.DataFrame,
    masks: Array,
    probabilities: dict[str, Array],
    params: Evaluate,
    protocol: dict[str, Any],
) -> Result:
    """Choose calibration and rule on validation; score validation, test and the baselines.

    Args:
        cases: one row per slice, aligned with the arrays: row, patient, institution, subset (val | test),
            slice, tumour_pixels, spacing ("row x column x slice" in mm, or empty).
        masks: (n, H, W), 0 and 1. They and the probabilities may be memory maps: one patient is read at a time.
        probabilities: arrays (n, H, W) uint8, round(255 p): ``model``; ``one_slice``, the model given no neighbours;
            ``flair_only``, given FLAIR in all channels; ``flair``, the FLAIR channel; ``stripped``, the model given
            images without scalp, if their brains are known.
        protocol: the fields of EvaluationProtocol without those of calibration and rule, and empty_rule.

    Raises:
        DataError: no slices in validation or test. IntegrityError: arrays that do not fit the rows.
    """
    _check(cases, masks, probabilities)
    cases, model = cases.reset_index(drop=True), probabilities["model"]
    cohorts = {subset: Cohort(cases[cases.subset == subset], masks) for subset in ("val", "test")}
    measure = choose_measure(cases, params)
    joints = {subset: scoring.histogram(cohort, model, "calibration") for subset, cohort in cohorts.items()}
    chosen = calibration.fit(joints["val"], calibration.Asked.read(params))
    searched = _search_rules(cohorts["val"], model, params, chosen)
    rule = _choose_rule(Evidence(joints["val"], searched), params, chosen)
    curve = _curve(searched, rule, cohorts["test"], model, chosen)
    probabilities = calibration.apply(probabilities, chosen)

    slices, patients, parts, bins = {}, {}, {}, {}
    for subset, cohort in cohorts.items():
        slices[subset] = scoring.per_slice(
            cohort, probabilities["model"], rule, measure.tolerance, measure.unit, subset
        )
        bins[subset] = scoring.calibration_table(joints[subset], chosen)
        patients[subset] = scoring.add_less_input(scoring.per_patient(slices[subset]), cohort, probabilities, rule)
        both = slices[subset], patients[subset]
        parts[subset] = scoring.score(cohort, *both, probabilities, model, rule, measure, bins[subset], cases)
    found = _search(cohorts["val"], probabilities["flair"], None, threshold_search.list_smallest(_grid(cohorts["val"])))
    bright = threshold_search.choose(found, threshold_search.best_threshold(found))
    report = {
        "protocol": describe_protocol({**protocol, **chosen.describe()}, rule),
        **parts,
        "baselines": scoring.score_baselines(cohorts["test"], probabilities["flair"], bright, measure),
    }
    all_patients = pd.concat(patients.values(), ignore_index=True)
    rows = pd.concat(slices.values(), ignore_index=True)
    evaluation = Evaluation.model_validate(round_floats(report))
    return Result(
        evaluation,
        _summarise(evaluation),
        all_patients,
        rows,
        curve,
        bins["test"],
        tables.count_probabilities(joints["test"]),
    )


class Evidence(NamedTuple):
    """What some patients say for each rule: the joint histogram of the network's own probabilities, the search."""

    joint: np.ndarray
    searched: Search


def gather(cases: pd.DataFrame, masks: Array, model: Array, params: Evaluate) -> Evidence:
    """What these patients, of any subset, say for a rule. Arguments as of ``evaluate``."""
    cohort = Cohort(cases.reset_index(drop=True), masks)
    joint = scoring.histogram(cohort, model, "calibration")
    return Evidence(joint, _search_rules(cohort, model, params, calibration.NONE))


def fit_rule(evidence: Sequence[Evidence], params: Evaluate) -> Evaluate:
    """``params`` with calibration and rule as all these patients together choose them."""
    joint = np.sum([each.joint for each in evidence], axis=0)
    together = Evidence(joint, threshold_search.join([each.searched for each in evidence]))
    chosen = calibration.fit(joint, calibration.Asked.read(params))
    rule = _choose_rule(together, params, chosen)
    return params.model_copy(update=rule._asdict() | chosen._asdict())


def _search_rules(cohort: Cohort, model: Array, params: Evaluate, calibrated: Calibration) -> Search:
    """The search among thresholds of the network's own probabilities, with the one that ``params`` give."""
    fixed = None
    if params.threshold != "auto":
        fixed = round_threshold(calibration.move(params.threshold, calibrated, calibration.NONE))
    return _search(cohort, model, fixed, threshold_search.list_smallest(_grid(cohort), params))


def _choose_rule(evidence: Evidence, params: Evaluate, calibrated: Calibration) -> Rule:
    """The rule for calibrated probabilities.

    Of thresholds that are as good as each other the one nearest to half the best Dice is taken, which is the best there
    is for probabilities that are right (Lipton et al., 2014, arXiv:1402.1892); where nothing calibrates them, 0.5. With
    a given threshold the smallest component is chosen at the nearest one that was tried.

    A skew changes probabilities, not masks: where the half lies is told by the calibration without it. With it masks
    were worse (docs/explanation/experiments.md).
    """
    searched = evidence.searched
    if params.threshold != "auto":
        own = calibration.move(params.threshold, calibrated, calibration.NONE)
        nearest = min(searched.thresholds, key=lambda tried: abs(tried - own))
        return threshold_search.choose(searched, nearest)._replace(threshold=round_threshold(params.threshold))
    best = float(np.nan_to_num(searched.mean_dice()).max())
    asked = calibration.Asked.read(params)._replace(skew=0.0)
    straight = calibration.fit(evidence.joint, asked) if calibrated.skew else calibrated
    half = 0.5 if straight == calibration.NONE else calibration.move(max(best, 0.1) / 2, straight, calibration.NONE)
    rule = threshold_search.choose(searched, threshold_search.best_threshold(searched, errors=1, middle=half))
    return rule._replace(threshold=_move(rule.threshold, calibrated))


def _move(threshold: float, calibrated: Calibration) -> float:
    """A threshold for the network's own probabilities, as one for calibrated ones."""
    return round_threshold(calibration.move(threshold, calibration.NONE, calibrated))


def choose_measure(cases: pd.DataFrame, params: Evaluate) -> scoring.Measure:
    """Score in mm if all of ``cases`` have a spacing, else in pixels."""
    unit = "mm" if all(spacing.parse_cell(cell) for cell in cases.spacing.unique()) else "px"
    summarise = partial(bootstrap.summarise, resamples=params.bootstrap, seed=params.seed)
    return scoring.Measure(unit, params.surface_tolerance, summarise)


def write(result: Result, metrics_dir: Path) -> str:
    """Write evaluation.json, summary.json and the five tables, each whole or not at all; return the closing line."""
    for name, content in (("evaluation", result.report), ("summary", result.summary)):
        files.write_text(metrics_dir / f"{name}.json", results.text(content))
    for name in ("per_patient", "per_slice", "threshold_curve", "calibration", "probability_counts"):
        tables.write(getattr(result, name), metrics_dir / f"{name}.csv")
    dice = result.report.test.volume.dice
    flair = result.report.baselines.flair_threshold.volume.dice
    marks = "".join(f"; {mark}" for mark in result.report.protocol.marks)
    paths = f"{metrics_dir / 'evaluation.json'}, {metrics_dir / 'per_patient.csv'}"
    return (
        f"test: {_count(dice.n, 'patient')}, volume Dice {format_mean(dice)}, "
        f"median {_number(dice.median)}; FLAIR threshold {_number(flair.mean)}{marks}; {paths}"
    )


def table(report: ExternalEvaluation) -> str:
    """The test numbers for a terminal: mean with 95 % interval over patients, median, baselines, marks."""
    protocol, test, flair = report.protocol, report.test, report.baselines.flair_threshold
    removed = postprocessing.describe_removed(results.rule_of(protocol)) or "nothing"
    rows: list[tuple[str, Mean]] = [
        ("volume Dice", test.volume.dice),
        ("volume IoU", test.volume.iou),
        ("tumour-slice Dice", test.slice.dice_tumour),
        (f"tumour-slice HD95 ({test.slice.unit})", test.slice.hd95),
        *([("baseline: FLAIR threshold, volume Dice", flair.volume.dice)] if flair else []),
        ("baseline: nothing predicted, volume Dice", report.baselines.empty.volume.dice),
    ]
    lines = [
        f"Test: {_count(protocol.patients['test'], 'patient')}, {_count(protocol.slices['test'], 'slice')}; "
        f"threshold {protocol.threshold:g}, {removed} removed",
        f"{'':<42}{'mean [95 % over patients]':<28}median",
        *(f"{name:<42}{format_mean(each):<28}{_number(each.median)}" for name, each in rows),
        f"{'slices with tumour found':<42}{_number(test.detection.slice_sensitivity)}",
        f"{'slices without tumour marked':<42}{_number(test.detection.slice_false_positive_rate)}",
        *(f"Mark: {mark}" for mark in protocol.marks),
    ]
    return "\n".join(lines)


def _check(cases: pd.DataFrame, masks: Array, probabilities: dict[str, Array]) -> None:
    expected = (len(cases), *masks.shape[1:])
    arrays = {"masks": masks} | {f"probabilities of {name}": array for name, array in probabilities.items()}
    misfits = {
        name: f"shape {a.shape}, rows and masks need {expected}" for name, a in arrays.items() if a.shape != expected
    }
    fix = "make them again from the same data: dvc repro"
    raise_all([Problem(name, what, fix) for name, what in misfits.items()], IntegrityError)
    empty = [subset for subset in ("val", "test") if not (cases.subset == subset).any()]
    fix = "give it patients: split.folds and split.val_fraction in params.yaml, or your split.file"
    raise_all([Problem("split.csv", f"no {subset} images to evaluate on", fix) for subset in empty], DataError)


def _grid(cohort: Cohort) -> tuple[int, int]:
    height, width = cohort.masks.shape[1:]
    return height, width


def _search(cohort: Cohort, probability: Array, fixed_threshold: float | None, smallest: Sequence[Smallest]) -> Search:
    """Counts on a cohort for every threshold, including a fixed one, and for every smallest component."""
    thresholds = sorted({*THRESHOLDS} if fixed_threshold is None else {*THRESHOLDS, fixed_threshold})
    return cohort.search(probability, thresholds, smallest, "threshold")


def round_threshold(threshold: float) -> float:
    """Round as the report does, but never to 0 or 1: the threshold in the report must be the one that is used."""
    least = 10**-DECIMALS
    return round(min(max(threshold, least), 1 - least), DECIMALS)


def _curve(found: Search, rule: Rule, test: Cohort, model: Array, calibrated: Calibration) -> pd.DataFrame:
    """Validation scores by threshold with the chosen smallest component.

    Dice and IoU are means over volumes, the others pooled.

    Scored are the network's own probabilities; ``threshold`` is that of calibrated ones, as the rule's.
    ``test_dice`` shows the reader how much the choice matters; it is not used to make it.
    """
    c = metrics.Counts(*(kind[:, :, found.smallest.index(Smallest(*rule[1:]))] for kind in found.counts))
    pooled = metrics.Counts(*(kind.sum(axis=0) for kind in c))
    return pd.DataFrame(
        {
            "threshold": [_move(threshold, calibrated) for threshold in found.thresholds],
            "dice": pd.DataFrame(metrics.dice(c)).mean(),
            "iou": pd.DataFrame(metrics.iou(c)).mean(),
            "precision": metrics.precision(pooled),
            "recall": metrics.recall(pooled),
            "test_dice": test.search(model, found.thresholds, [Smallest(*rule[1:])], "test").mean_dice()[:, 0],
        }
    )


def describe_protocol(given: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """The protocol block: what was given, the rule, and how empty masks count."""
    return {**given, **postprocessing.to_report(rule), "empty_rule": EMPTY_RULE}


def _summarise(evaluation: Evaluation) -> Summary:
    test = evaluation.test
    return Summary(
        volume_dice_mean=test.volume.dice.mean,
        volume_dice_median=test.volume.dice.median,
        volume_iou_mean=test.volume.iou.mean,
        slice_dice_tumour_mean=test.slice.dice_tumour.mean,
        hd95_median=test.slice.hd95.median,
        slice_sensitivity=test.detection.slice_sensitivity,
        slice_false_positive_rate=test.detection.slice_false_positive_rate,
        flair_threshold_dice_mean=evaluation.baselines.flair_threshold.volume.dice.mean,
        val_volume_dice_mean=evaluation.val.volume.dice.mean,
        threshold=evaluation.protocol.threshold,
    )


def round_floats(value: Any) -> Any:
    """Plain JSON: floats to ``DECIMALS``, null for what is undefined, NumPy numbers as Python's."""
    if isinstance(value, dict):
        return {key: round_floats(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(part) for part in value]
    if isinstance(value, float | np.floating):
        return round(float(value), DECIMALS) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def format_mean(mean: Mean) -> str:
    """A mean with its interval; "undefined" if there is none."""
    interval = "" if mean.lo is None else f" [{_number(mean.lo)}, {_number(mean.hi)}]"
    return _number(mean.mean) + interval


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
