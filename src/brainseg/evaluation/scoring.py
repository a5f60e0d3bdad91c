"""Tables of raw counts, one row a slice or a patient, and the blocks of numbers made from them.

Rows come first and means after: whatever ``metrics/evaluation.json`` says can be worked out again
from ``per_slice.csv`` and ``per_patient.csv``. docs/metrics.md defines each number.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from brainseg.data import dataset
from brainseg.evaluation import metrics, threshold_search
from brainseg.evaluation.metrics import Counts
from brainseg.inference import postprocessing
from brainseg.io import spacing

CALIBRATION_BINS = 10
SIZES = ("small", "medium", "large")
Summarise = Callable[[pd.Series, pd.Series], dict]  # values and their patients -> mean, median, lo, hi, n, undefined


class Measure(NamedTuple):
    """How masks are scored: lengths, ``tolerance`` of surface Dice among them, in ``unit`` (px | mm)."""

    unit: str
    tolerance: float
    summarise: Summarise


class Cohort(NamedTuple):
    """The slices of one subset: ``cases``, whose index is the position in ``masks`` (n, H, W) of all subsets."""

    cases: pd.DataFrame
    masks: np.ndarray

    def patients(self, probability: np.ndarray, title: str) -> Iterator[tuple[pd.DataFrame, np.ndarray, np.ndarray]]:
        """Patient by patient: rows in slice order, reference (S, H, W) bool, probability (S, H, W) uint8."""
        groups = self.cases.sort_values(["patient", "slice"]).groupby("patient")
        for _, rows in tqdm(groups, desc=title, unit="patient", leave=False, disable=None):
            yield rows, self.masks[rows.index] > 0, probability[rows.index]

    def search(
        self, probability: np.ndarray, thresholds: Sequence[float], sizes: Sequence[int], title: str
    ) -> threshold_search.Search:
        """Counts of each patient under each threshold and minimum component size."""
        volumes = ((reference, values) for _, reference, values in self.patients(probability, title))
        return threshold_search.search(volumes, thresholds, sizes)


def per_slice(
    cohort: Cohort, probability: np.ndarray, rule: postprocessing.Rule, tolerance: float, unit: str, title: str
) -> pd.DataFrame:
    """Counts, Dice, IoU, HD95 and surface Dice of each slice; lengths, ``tolerance`` too, in ``unit`` (px | mm).

    In mm there is a further column, ``voxel_mm3``, the volume of a voxel.
    """
    tables = []
    for rows, reference, values in cohort.patients(probability, title):
        prediction = postprocessing.binarise(values, rule)
        table = rows[["row", "patient", "institution", "subset", "slice"]].copy()
        _add_counts(table, metrics.counts(reference, prediction, axis=(1, 2)))
        sides = spacing.read(rows.spacing.iloc[0]) if unit == "mm" else None
        pixel = sides[:2] if sides else (1.0, 1.0)
        borders = [metrics.surface_distances(*masks, pixel) for masks in zip(reference, prediction, strict=True)]
        table["hd95"] = [metrics.hd95(distances) for distances in borders]
        table["surface_dice"] = [metrics.surface_dice(distances, tolerance) for distances in borders]
        if sides:
            table["voxel_mm3"] = math.prod(sides)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def per_patient(slices: pd.DataFrame) -> pd.DataFrame:
    """Each patient's slices added up before any quotient: volume Dice, IoU, precision and recall.

    Where the slices have ``voxel_mm3``, also the volume of the tumour and of the prediction, in mm³.
    """
    groups = slices.assign(tumour=slices.tumour_pixels > 0).groupby("patient")
    table = groups[["institution", "subset"]].first()
    table["slices"], table["tumour_slices"] = groups.size(), groups.tumour.sum()
    sums = groups[list(Counts._fields)].sum()
    c = Counts(*(sums[kind] for kind in Counts._fields))
    _add_counts(table, c)
    table["precision"], table["recall"] = metrics.precision(c), metrics.recall(c)
    if "voxel_mm3" in slices:
        voxel = groups["voxel_mm3"].first()
        table["tumour_mm3"], table["predicted_mm3"] = table.tumour_pixels * voxel, table.predicted_pixels * voxel
    return table.reset_index()


def blocks(slices: pd.DataFrame, unit: str, summarise: Summarise) -> dict:
    """The blocks that a model and a baseline share: volume, slice, pooled, detection."""
    patients = per_patient(slices)
    return {
        "volume": {name: summarise(patients[name], patients.patient) for name in ("dice", "iou")},
        "slice": slice_block(slices, unit, summarise),
        "pooled": pooled_block(slices),
        "detection": detection_block(slices, patients),
    }


def report(
    cohort: Cohort, table: pd.DataFrame, probabilities: dict[str, np.ndarray], rule: postprocessing.Rule,
    measure: Measure, bins: pd.DataFrame | None, cases: pd.DataFrame,
) -> dict:  # fmt: skip
    """All numbers of a cohort, whose slices ``table`` counts.

    Args:
        probabilities: see evaluate.evaluate; of ready-made masks ``model`` alone, which tells nothing of ``alone``.
        bins: what ``calibration`` found; None for masks, which have none. cases: of all cohorts.
    """
    patients = per_patient(table)
    found = blocks(table, measure.unit, measure.summarise)
    found["keras"] = _keras(cohort, probabilities["model"])
    if "flair_only" in probabilities:
        found["alone"] = _alone(cohort, probabilities, rule)
    found["by_institution"] = institution_block(patients, cases, measure.summarise)
    found["by_size"] = size_block(patients, measure.summarise)
    if bins is not None:
        found["calibration"] = calibration_block(bins)
    return found


def baselines(test: Cohort, flair: np.ndarray, bright: postprocessing.Rule | None, measure: Measure) -> dict[str, dict]:
    """What needs no network, scored alike: nothing predicted; a threshold on FLAIR, where its rule is known."""
    nothing = np.broadcast_to(np.uint8(0), flair.shape)
    empty = per_slice(test, nothing, postprocessing.Rule(0.5, 0), measure.tolerance, measure.unit, "empty baseline")
    found = {"empty": blocks(empty, measure.unit, measure.summarise)}
    if bright:
        table = per_slice(test, flair, bright, measure.tolerance, measure.unit, "FLAIR baseline")
        found["flair_threshold"] = {
            **postprocessing.described(bright),
            **blocks(table, measure.unit, measure.summarise),
        }
    return found


def slice_block(slices: pd.DataFrame, unit: str, summarise: Summarise) -> dict:
    """Means over slices. Dice, IoU and HD95 over those with tumour, the other two over all."""
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
    """All pixels of all patients in one table of counts: large tumours weigh most."""
    c = Counts(*(int(slices[kind].sum()) for kind in Counts._fields))
    names = ("dice", "iou", "precision", "recall", "pixel_accuracy")
    return {name: getattr(metrics, name)(c) for name in names}


def detection_block(slices: pd.DataFrame, patients: pd.DataFrame) -> dict[str, float]:
    """Shares with any predicted pixel: of tumour slices, of tumour-free slices, of patients with tumour."""
    tumour, alarm = slices.tumour_pixels > 0, slices.predicted_pixels > 0
    return {
        "slice_sensitivity": alarm[tumour].mean(),
        "slice_false_positive_rate": alarm[~tumour].mean(),
        "patient_sensitivity": (patients.predicted_pixels > 0)[patients.tumour_pixels > 0].mean(),
    }


def institution_block(patients: pd.DataFrame, cases: pd.DataFrame, summarise: Summarise) -> dict[str, dict]:
    """Volume Dice of each institution's patients; the small ones together are "other"."""
    names = patients.patient.map(dataset.institution_groups(cases))
    return {str(name): _group(group, summarise) for name, group in patients.groupby(names)}


def size_block(patients: pd.DataFrame, summarise: Summarise) -> dict[str, dict]:
    """Volume Dice of the thirds of the patients by tumour pixels, small first; ``up_to``: the largest of each."""
    ordered = patients[patients.tumour_pixels > 0].sort_values(["tumour_pixels", "patient"])
    thirds = zip(SIZES, np.array_split(np.arange(len(ordered)), len(SIZES)), strict=True)
    groups = {name: ordered.iloc[places] for name, places in thirds if len(places)}
    return {name: {"up_to": group.tumour_pixels.max(), **_group(group, summarise)} for name, group in groups.items()}


def _group(patients: pd.DataFrame, summarise: Summarise) -> dict[str, float]:
    dice = summarise(patients.dice, patients.patient)
    return {"n": len(patients), "dice": dice["mean"], "lo": dice["lo"], "hi": dice["hi"]}


def calibration(cohort: Cohort, probability: np.ndarray) -> pd.DataFrame:
    """Pixels by predicted probability in tenths: how many, their mean probability, the share that is tumour."""
    volumes = cohort.patients(probability, "calibration")
    joint = np.sum([metrics.histogram(reference, values) for _, reference, values in volumes], axis=0)
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

    ``ece`` counts every pixel, nearly all of them surely no tumour; ``ece_from_tenth`` those given at
    least a tenth.
    """
    gap = (bins.mean_probability - bins.observed_frequency).abs()
    return {
        name: np.average(gap[rows], weights=bins["count"][rows]) if rows.any() else np.nan
        for name, rows in (("ece", bins["count"] > 0), ("ece_from_tenth", (bins["count"] > 0) & (bins.lower > 0)))
    }


def _alone(cohort: Cohort, probabilities: dict[str, np.ndarray], rule: postprocessing.Rule) -> dict[str, float]:
    """Mean volume Dice of the same model given less: each slice by itself; FLAIR in all channels."""
    one_slice = cohort.search(probabilities["one_slice"], [rule.threshold], [0], "one slice")
    flair_only = cohort.search(probabilities["flair_only"], [rule.threshold], [rule.min_component], "FLAIR only")
    return {"one_slice_dice": one_slice.mean_dice()[0, 0], "flair_only_dice": flair_only.mean_dice()[0, 0]}


def _keras(cohort: Cohort, probability: np.ndarray) -> dict[str, float]:
    reference, values = cohort.masks[cohort.cases.index], probability[cohort.cases.index]
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
