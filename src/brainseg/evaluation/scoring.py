"""Tables of raw counts, one row per slice or patient, and the blocks of numbers made from them.

Means are computed from the tables: every number in ``metrics/evaluation.json`` can be computed again from
``per_slice.csv`` and ``per_patient.csv``. docs/reference/metrics.md defines each number.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from brainseg.data import dataset
from brainseg.evaluation import calibration, metrics, threshold_search
from brainseg.evaluation.metrics import Counts
from brainseg.evaluation.threshold_search import Smallest
from brainseg.inference import postprocessing
from brainseg.inference.probabilities import Calibration
from brainseg.io import spacing

CALIBRATION_BINS = 10
MEANS, BEFORE = ("mean_probability", "observed_frequency"), "_before"  # columns of calibration.csv, and their end
SIZES = ("small", "medium", "large")
LESS_INPUT = ("flair_only", "stripped")  # probabilities of the same model given less; columns of patients' Dice
Array = np.ndarray | Any  # or what is indexed like one: dataset.LazyRows, dataset.Changed
Summarise = Callable[[pd.Series, pd.Series], dict[str, Any]]  # values, patients -> the fields of results.Mean


class Measure(NamedTuple):
    """How masks are scored. ``unit`` (px | mm): of all lengths. ``tolerance``: of surface Dice, in that unit."""

    unit: str
    tolerance: float
    summarise: Summarise


class Cohort(NamedTuple):
    """The slices of one subset. The index of ``cases`` is the position in ``masks`` (n, H, W) of all subsets.

    One patient is in memory at a time: ``masks`` and probabilities may be memory maps, or anything indexed like them.
    """

    cases: pd.DataFrame
    masks: Array

    def patients(self, probability: Array, title: str) -> Iterator[tuple[pd.DataFrame, np.ndarray, np.ndarray]]:
        """For each patient: rows in slice order, reference (S, H, W) bool, probability (S, H, W) uint8."""
        groups = self.cases.sort_values(["patient", "slice"]).groupby("patient", observed=True)
        for _, rows in tqdm(groups, desc=title, unit="patient", leave=False, disable=None):
            yield rows, self.masks[rows.index] > 0, probability[rows.index]

    def search(
        self, probability: Array, thresholds: Sequence[float], smallest: Sequence[Smallest], title: str
    ) -> threshold_search.Search:
        """Counts of each patient under each threshold and smallest component."""
        volumes = ((reference, values) for _, reference, values in self.patients(probability, title))
        return threshold_search.search(volumes, thresholds, smallest)


def per_slice(
    cohort: Cohort, probability: Array, rule: postprocessing.Rule, tolerance: float, unit: str, title: str
) -> pd.DataFrame:
    """Counts, Dice, IoU, HD95 and surface Dice of each slice; lengths and ``tolerance`` in ``unit`` (px | mm).

    In mm there is one more column, ``voxel_mm3``, the volume of a voxel.
    """
    places, found, lengths, voxels = [], [], [], []  # arrays of each patient: a table of each would be far larger
    for rows, reference, values in cohort.patients(probability, title):
        prediction = postprocessing.binarise(values, rule)
        found.append(np.stack(metrics.counts(reference, prediction, axis=(1, 2))))
        sides = spacing.parse_cell(rows.spacing.iloc[0]) if unit == "mm" else None
        pixel = sides[:2] if sides else (1.0, 1.0)
        borders = [metrics.surface_distances(*masks, pixel) for masks in zip(reference, prediction, strict=True)]
        lengths.append(np.array([(metrics.hd95(each), metrics.surface_dice(each, tolerance)) for each in borders]))
        places.append(rows.index.to_numpy())
        voxels.append(np.full(len(rows), math.prod(sides) if sides else np.nan))
    named = ["row", "patient", "institution", "subset", "slice"]
    table = cohort.cases.loc[np.concatenate(places), named].reset_index(drop=True)
    _add_counts(table, Counts(*np.concatenate(found, axis=1)))
    table["hd95"], table["surface_dice"] = np.concatenate(lengths).T
    return table if unit != "mm" else table.assign(voxel_mm3=np.concatenate(voxels))


def per_patient(slices: pd.DataFrame) -> pd.DataFrame:
    """Volume Dice, IoU, precision and recall of each patient: counts are added over the slices before any division.

    If the slices have ``voxel_mm3``, also the volumes of tumour and prediction, in mm³.
    """
    groups = slices.assign(tumour=slices.tumour_pixels > 0).groupby("patient", observed=True)
    table = groups[["institution", "subset"]].first().astype(str)
    table["slices"], table["tumour_slices"] = groups.size(), groups.tumour.sum()
    sums = groups[list(Counts._fields)].sum()
    c = Counts(*(sums[kind] for kind in Counts._fields))
    _add_counts(table, c)
    table["precision"], table["recall"] = metrics.precision(c), metrics.recall(c)
    if "voxel_mm3" in slices:
        voxel = groups["voxel_mm3"].first()
        table["tumour_mm3"], table["predicted_mm3"] = table.tumour_pixels * voxel, table.predicted_pixels * voxel
    return table.reset_index().astype({"patient": str})


def add_less_input(
    patients: pd.DataFrame, cohort: Cohort, probabilities: dict[str, Array], rule: postprocessing.Rule
) -> pd.DataFrame:  # fmt: skip
    """``patients`` with the volume Dice of the same model given FLAIR in all channels, or images without scalp."""
    for name in LESS_INPUT:
        if name in probabilities:
            found = cohort.search(probabilities[name], [rule.threshold], [Smallest(*rule[1:])], name)
            patients = patients.assign(**{f"{name}_dice": metrics.dice(found.counts)[:, 0, 0]})
    return patients


def score_blocks(slices: pd.DataFrame, unit: str, summarise: Summarise) -> dict[str, Any]:
    """The blocks that a model and a baseline share: volume, slice, pooled, detection."""
    patients = per_patient(slices)
    return {
        "volume": {name: summarise(patients[name], patients.patient) for name in ("dice", "iou")},
        "slice": slice_block(slices, unit, summarise),
        "pooled": pooled_block(slices),
        "detection": detection_block(slices, patients),
    }


def score(
    cohort: Cohort, table: pd.DataFrame, patients: pd.DataFrame, probabilities: dict[str, Array],
    before: Array, rule: postprocessing.Rule, measure: Measure, bins: pd.DataFrame | None, cases: pd.DataFrame,
) -> dict[str, Any]:  # fmt: skip
    """All numbers of a cohort.

    Args:
        table: the cohort's slices, see ``per_slice``. patients: its patients, see ``add_less_input``.
        before: probabilities that are not calibrated, for numbers as older projects have them.
        probabilities: see evaluate.evaluate; only ``model`` for given masks, which have no block ``alone``.
        bins: the table of ``calibration_table``; None for given masks. cases: the slices of all cohorts.
    """
    found = score_blocks(table, measure.unit, measure.summarise)
    found["keras"] = _keras(cohort, before)
    if "flair_only" in probabilities:
        found["alone"] = _alone(cohort, patients, probabilities["one_slice"], rule)
    found["by_institution"] = institution_block(patients, cases, measure.summarise)
    found["by_size"] = size_block(patients, measure.summarise)
    if bins is not None:
        found["calibration"] = calibration_block(bins)
    return found


def score_baselines(test: Cohort, flair: Array, bright: postprocessing.Rule | None, measure: Measure) -> dict[str, Any]:
    """Scores without a network: nothing predicted, and a threshold on FLAIR if its rule is known."""
    nothing = np.broadcast_to(np.uint8(0), flair.shape)
    empty = per_slice(test, nothing, postprocessing.Rule(0.5, 0), measure.tolerance, measure.unit, "empty baseline")
    found = {"empty": score_blocks(empty, measure.unit, measure.summarise)}
    if bright:
        table = per_slice(test, flair, bright, measure.tolerance, measure.unit, "FLAIR baseline")
        found["flair_threshold"] = {
            **postprocessing.to_report(bright),
            **score_blocks(table, measure.unit, measure.summarise),
        }
    return found


def slice_block(slices: pd.DataFrame, unit: str, summarise: Summarise) -> dict[str, Any]:
    """Means over slices. Dice, IoU and HD95: slices with tumour; the other two: all slices."""
    tumour = slices[slices.tumour_pixels > 0]
    return {
        "unit": unit,
        "dice_tumour": summarise(tumour.dice, tumour.patient),
        "dice_empty_as_one": summarise(slices.dice.fillna(1.0), slices.patient),
        "iou_tumour": summarise(tumour.iou, tumour.patient),
        "hd95": summarise(tumour.hd95, tumour.patient),
        "surface_dice": summarise(slices.surface_dice, slices.patient),
    }


def pooled_block(slices: pd.DataFrame) -> dict[str, float]:
    """Scores of all pixels of all patients together: large tumours weigh most."""
    c = Counts(*(int(slices[kind].sum()) for kind in Counts._fields))
    names = ("dice", "iou", "precision", "recall", "pixel_accuracy")
    return {name: getattr(metrics, name)(c) for name in names}


def detection_block(slices: pd.DataFrame, patients: pd.DataFrame) -> dict[str, float]:
    """Shares with at least one predicted pixel: of tumour slices, of tumour-free slices, of patients with tumour."""
    tumour, alarm = slices.tumour_pixels > 0, slices.predicted_pixels > 0
    return {
        "slice_sensitivity": alarm[tumour].mean(),
        "slice_false_positive_rate": alarm[~tumour].mean(),
        "patient_sensitivity": (patients.predicted_pixels > 0)[patients.tumour_pixels > 0].mean(),
    }


def institution_block(patients: pd.DataFrame, cases: pd.DataFrame, summarise: Summarise) -> dict[str, Any]:
    """Volume Dice of each institution's patients; the small institutions are grouped as "other"."""
    names = patients.patient.map(dataset.group_institutions(cases))
    return {str(name): _group(group, summarise) for name, group in patients.groupby(names)}


def size_block(patients: pd.DataFrame, summarise: Summarise) -> dict[str, Any]:
    """Volume Dice of thirds of the patients by tumour size; ``up_to``: tumour pixels of the largest in the third."""
    ordered = patients[patients.tumour_pixels > 0].sort_values(["tumour_pixels", "patient"])
    thirds = zip(SIZES, np.array_split(np.arange(len(ordered)), len(SIZES)), strict=True)
    groups = {name: ordered.iloc[places] for name, places in thirds if len(places)}
    return {name: {"up_to": group.tumour_pixels.max(), **_group(group, summarise)} for name, group in groups.items()}


def _group(patients: pd.DataFrame, summarise: Summarise) -> dict[str, float]:
    dice = summarise(patients.dice, patients.patient)
    return {"n": len(patients), "dice": dice["mean"], "lo": dice["lo"], "hi": dice["hi"]}


def histogram(cohort: Cohort, probability: Array, name: str) -> np.ndarray:
    """The joint histogram (2, 256) of all patients, see ``metrics.histogram``."""
    volumes = cohort.patients(probability, name)
    return np.sum([metrics.histogram(reference, values) for _, reference, values in volumes], axis=0)


def calibration_table(joint: np.ndarray, calibrated: Calibration = calibration.NONE) -> pd.DataFrame:
    """Pixels in ten bins of predicted probability: their number, mean probability and share of tumour.

    Args:
        joint: of the network's own probabilities, see ``histogram``.
        calibrated: what is done to them; if it is anything, three more columns, of the probabilities before, end in
            ``BEFORE``.
    """
    if calibrated != calibration.NONE:
        columns = calibration_table(joint)[["count", *MEANS]].add_suffix(BEFORE)
        return pd.concat([calibration_table(calibration.apply_to_counts(joint, calibrated)), columns], axis=1)
    values = np.arange(256) / 255
    member = np.minimum((values * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    count = np.bincount(member, weights=joint.sum(axis=0))
    share = np.where(count > 0, count, np.nan)
    edges = np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS
    return pd.DataFrame(
        {
            "lower": edges[:-1],
            "upper": edges[1:],
            "count": count.astype(int),
            "mean_probability": np.bincount(member, weights=joint.sum(axis=0) * values) / share,
            "observed_frequency": np.bincount(member, weights=joint[1]) / share,
        }
    )


def calibration_block(bins: pd.DataFrame) -> dict[str, float]:
    """Expected calibration error (Guo et al., 2017, arXiv:1706.04599) over the bins of calibration.csv.

    ``ece`` counts every pixel, most of which are clearly no tumour; ``ece_from_tenth`` those with a
    probability of at least 0.1. Both also of the network's own probabilities, if the table has them.
    """
    found = {}
    for end in ("", BEFORE) if f"count{BEFORE}" in bins else ("",):
        count, mean, observed = (bins[f"{name}{end}"] for name in ("count", *MEANS))
        gap = (mean - observed).abs()
        for name, rows in (("ece", count > 0), ("ece_from_tenth", (count > 0) & (bins.lower > 0))):
            found[f"{name}{end}"] = np.average(gap[rows], weights=count[rows]) if rows.any() else np.nan
    return found


def _alone(
    cohort: Cohort, patients: pd.DataFrame, one_slice: Array, rule: postprocessing.Rule
) -> dict[str, float]:  # fmt: skip
    """Mean volume Dice of the same model given less: each slice alone; FLAIR in all channels; images without scalp."""
    alone = cohort.search(one_slice, [rule.threshold], [Smallest(0)], "one slice")
    names = [f"{name}_dice" for name in LESS_INPUT]
    return {"one_slice_dice": alone.mean_dice()[0, 0], **patients.filter(names).mean().to_dict()}


def _keras(cohort: Cohort, probability: Array) -> dict[str, float]:
    rows = cohort.cases.index.to_numpy()
    reference, values = dataset.LazyRows(cohort.masks, rows), dataset.LazyRows(probability, rows)
    return {
        "dice_batch_soft": metrics.keras_dice_batch_soft(reference, values),
        "iou_batch_soft": metrics.keras_iou_batch_soft(reference, values),
    }


def _add_counts(table: pd.DataFrame, c: Counts) -> None:
    kinds = {kind: np.asarray(values) for kind, values in c._asdict().items()}
    table["tumour_pixels"], table["predicted_pixels"] = kinds["tp"] + kinds["fn"], kinds["tp"] + kinds["fp"]
    for kind, values in kinds.items():
        table[kind] = values
    table["dice"], table["iou"] = metrics.dice(c), metrics.iou(c)
