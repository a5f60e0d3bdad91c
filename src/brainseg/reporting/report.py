"""metrics/report.html: one file with numbers, pictures and protocol that opens offline."""

import base64
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image

from brainseg import files
from brainseg.data import fingerprints
from brainseg.evaluation import results
from brainseg.evaluation.results import ExternalEvaluation, GroupDice, MaskScores, SizeGroupDice
from brainseg.models.manifest import TRAINED_ON_ALL, Manifest
from brainseg.reporting import pages
from brainseg.reporting.pages import format_number

LIMIT = 3_000_000  # bytes of the whole file
ROWS = 1000  # maximum of listed patients: the best and the worst


class Metric(NamedTuple):
    """A number of a subset of evaluation.json: its place, its name and its meaning."""

    block: str
    key: str
    name: str
    meaning: str


METRICS = (
    Metric("volume", "dice", "Dice, per patient", "2 TP / (2 TP + FP + FN), all slices of a patient added up first"),
    Metric("volume", "iou", "IoU, per patient", "TP / (TP + FP + FN), added up the same way"),
    Metric("slice", "dice_tumour", "Dice, tumour slices", "mean over slices with tumour; a missed slice is 0"),
    Metric("slice", "iou_tumour", "IoU, tumour slices", "the same for IoU"),
    Metric("slice", "dice_empty_as_one", "Dice, all slices", "a slice correctly left empty counts 1: raises the mean"),
    Metric("slice", "hd95", "HD95, tumour slices", "95th percentile of the distance between the borders"),
    Metric("slice", "surface_dice", "Surface Dice, slices", "share of the border that lies within the tolerance"),
    Metric("pooled", "dice", "Dice, pooled", "all pixels of all patients together: large tumours weigh most"),
    Metric("pooled", "iou", "IoU, pooled", "the same for IoU"),
    Metric("pooled", "precision", "Precision, pooled", "TP / (TP + FP)"),
    Metric("pooled", "recall", "Recall, pooled", "TP / (TP + FN)"),
    Metric("pooled", "pixel_accuracy", "Pixel accuracy", "share of correct pixels; always high, as tumour is rare"),
    Metric("detection", "slice_sensitivity", "Tumour slices noticed", "tumour slices with any predicted pixel"),
    Metric("detection", "slice_false_positive_rate", "False alarms", "slices without tumour with any predicted pixel"),
    Metric("detection", "patient_sensitivity", "Patients noticed", "patients with tumour with any predicted pixel"),
    Metric("alone", "one_slice_dice", "Dice, each slice alone", "per patient, without neighbouring slices"),
    Metric("alone", "flair_only_dice", "Dice, FLAIR alone", "per patient, the same model given FLAIR in all channels"),
    Metric("alone", "stripped_dice", "Dice, no scalp", "per patient, the same model, scalp removed by a brain mask"),
    Metric("calibration", "ece", "Calibration error (ECE)", "mean gap between probability and share of tumour, pixels"),
    Metric("calibration", "ece_from_tenth", "ECE from 0.1 on", "the same, of pixels given at least 0.1"),
    Metric("calibration", "ece_before", "ECE, uncalibrated", "of the network's own probabilities"),
    Metric("calibration", "ece_from_tenth_before", "ECE from 0.1 on, uncalibrated", "the same, from 0.1 on"),
    Metric("keras", "dice_batch_soft", "Soft batch Dice", "smooth 100, batches of 32: as older projects report it"),
    Metric("keras", "iou_batch_soft", "Soft batch IoU", "the same for IoU"),
)
COMPARED = [m for m in METRICS if m.block in ("volume", "slice", "detection")]
TITLES = {
    "kaggle": "Outlining lower-grade glioma on brain MRI",
    "folder": "Outlining lesions on own images",
    "phantom": "Outlining drawn tumours on phantoms",
}
FIGURES = {  # in the order of the report: heading, and how to read the figure
    "curves": (
        "Training",
        "Training and validation should move together; a gap that opens is overfitting. "
        "The dotted line is the epoch whose weights were kept.",
    ),
    "threshold": (
        "Threshold",
        "Scores of the validation patients for each threshold; where Dice is flat, the choice matters little. "
        "The thin line is the Dice of the test patients, which was not used for the choice.",
    ),
    "patients": ("Every test patient", "One line per patient, best at the top; colour and shape show the institution."),
    "size": ("Tumour size", "One point per patient; shows whether small or large tumours score lower."),
    "calibration": (
        "Calibration",
        "On the diagonal a probability of 0.7 means tumour in 7 of 10 pixels; below it the model is overconfident. "
        "The bars count the pixels.",
    ),
    "gallery": (
        "The best, the median and the worst patients",
        "Each row is the slice of one patient with most tumour or predicted pixels. "
        "Last column: found is blue, false alarm vermillion, missed yellow. FLAIR is brightened for display.",
    ),
    "augmentation": (
        "Augmentation",
        "One slice with the changes made in training. Each change alone is drawn four times, on image and mask; "
        "the last row has all of them.",
    ),
    "network": (
        "Network",
        "From left to right in the order of computation. A lower box has lower resolution, a wider box more channels.",
    ),
}


def write(
    path: Path, evaluation: ExternalEvaluation, manifest: Manifest | None, per_patient: pd.DataFrame, plots: Path
) -> int:
    """Write the report with the pictures in ``plots``; return its size in bytes.

    Args:
        evaluation: metrics/evaluation.json, or the result of ``brainseg evaluate``, which has no ``val`` and may have
            no FLAIR baseline. manifest: models/unet.json; None for masks from another program.
        per_patient: metrics/per_patient.csv.
    """
    pictures = {name: (plots / f"{name}.png").read_bytes() for name in FIGURES if (plots / f"{name}.png").is_file()}
    test = per_patient[per_patient["subset"] == "test"].sort_values(["dice", "patient"], ascending=[False, True])
    middle = test.index[ROWS // 2 : -(ROWS // 2)]
    protocol, scores = evaluation.protocol, evaluation.test
    columns = {"Test": scores} | ({"Validation": evaluation.val} if evaluation.val else {})
    listed = [m for m in METRICS if (block := getattr(scores, m.block)) and m.key in block.model_fields_set]
    facts = {
        "protocol": protocol,
        "calibrated": pages.describe_calibration(results.calibration_of(protocol)),
        "title": TITLES[protocol.source],
        "test": scores,
        "validated": evaluation.val is not None,
        "inputs": evaluation.inputs,
        "seen": {fingerprints.SEEN, fingerprints.UNKNOWN, TRAINED_ON_ALL} & set(protocol.marks),
        "flair": evaluation.baselines.flair_threshold,
        "network": manifest.network.name if manifest else None,
        "parameters": manifest.parameters if manifest else None,
        "of_whole_heads": manifest is not None and manifest.protocol.source == "kaggle",
        "epoch_chosen": manifest is not None and manifest.training.parameters.train.keep == "best",
        "columns": list(columns),
        "metrics": [(m, [_format_cell(column, m) for column in columns.values()]) for m in listed],
        "baselines": _baselines(evaluation, "model" if manifest else "masks"),
        "groups": _groups(scores),
        "patients": test.drop(middle).to_dict("records"),
        "left_out": len(middle),
        "figures": FIGURES,
        "facts": _facts(evaluation, manifest),
    }
    template = pages.load_template("report.html.j2", number=format_number, interval=format_range, share=format_share)
    text = template.render(facts, pictures=dict.fromkeys(pictures, ""))
    room = (LIMIT - len(text.encode())) * 3 // 4 - 3 * len(pictures)
    embedded = {name: base64.b64encode(png).decode() for name, png in fit_pictures(pictures, room).items()}
    files.write_text(path, template.render(facts, pictures=embedded))
    return path.stat().st_size


def fit_pictures(pictures: dict[str, bytes], room: int) -> dict[str, bytes]:
    """Shrink PNGs to at most ``room`` bytes in all: the largest first, by fewer colours, then by fewer pixels."""
    pictures = dict(pictures)
    while sum(map(len, pictures.values())) > room:
        largest = max(pictures, key=lambda name: len(pictures[name]))
        if len(pictures[largest]) < 1000:
            break
        pictures[largest] = _shrink_png(pictures[largest])
    return pictures


def _shrink_png(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        colours = image.convert("RGB")
        if image.mode == "P":
            colours = colours.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))
    out = io.BytesIO()
    colours.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def format_share(value: float | None) -> str:
    """A percentage, or "undefined"."""
    return "undefined" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def format_range(block: results.Mean | GroupDice | SizeGroupDice, unit: str = "") -> str:
    """``0.571 to 0.812``, or "no interval"."""
    return "no interval" if block.lo is None else f"{format_number(block.lo, unit)} to {format_number(block.hi, unit)}"


def _format_cell(subset: MaskScores | results.Baseline | results.FlairBaseline, metric: Metric) -> dict:
    """A cell of the table: a number alone, or a mean with its interval, median and counts."""
    value = getattr(getattr(subset, metric.block), metric.key)
    unit = subset.slice.unit if metric.key == "hd95" else ""
    if not isinstance(value, results.Mean):
        return {"value": format_number(value), "details": []}
    counts = f"n {value.n:,}" + (f", {value.undefined:,} undefined" if value.undefined else "")
    details = [format_range(value, unit), f"median {format_number(value.median, unit)}", counts]
    return {"value": format_number(value.mean, unit), "details": details}


def _baselines(evaluation: ExternalEvaluation, scored: str) -> dict[str, list]:
    """The table of baselines on test: column heads, and a row of name and values for each metric."""
    flair = evaluation.baselines.flair_threshold
    found = {scored: evaluation.test, "FLAIR threshold": flair, "nothing": evaluation.baselines.empty}
    columns: dict[str, Any] = {head: column for head, column in found.items() if column}
    rows = [
        (metric.name, [_format_cell(column, metric)["value"] for column in columns.values()]) for metric in COMPARED
    ]
    return {"heads": list(columns), "rows": rows}


def _groups(test: MaskScores) -> list[tuple[str, GroupDice | SizeGroupDice]]:
    """Patients by institution and by size of the tumour, each group with its name."""
    sizes = [(f"{name}: up to {third.up_to:,} tumour pixels", third) for name, third in test.by_size.items()]
    return [*test.by_institution.items(), *sizes]


def _facts(evaluation: ExternalEvaluation, manifest: Manifest | None) -> dict[str, list[tuple[str, str]]]:
    """Protocol, model and training as pairs of text, for repeating the run."""
    protocol = {"Protocol": list(_flatten(evaluation.protocol.model_dump(exclude_unset=True)))}
    if manifest is None:
        return protocol
    network, contract = manifest.network.model_dump(), manifest.contract.model_dump()
    groups = {
        "Model": {**network, "parameters": manifest.parameters, **contract},
        "Training": manifest.training.model_dump(exclude_unset=True),
        "Digests": {**manifest.data, "weights_sha256": manifest.weights_sha256},
    }
    return protocol | {title: list(_flatten(group)) for title, group in groups.items()}


def _flatten(group: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in group.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{name}, ")
        elif isinstance(value, list):
            yield name, ", ".join(map(str, value)) or "none"
        elif value is None or isinstance(value, bool):
            yield name, {None: "none", True: "yes", False: "no"}[value]
        else:
            yield name, str(value)
