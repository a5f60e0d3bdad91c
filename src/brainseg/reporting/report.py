"""metrics/report.html: one file with numbers, pictures and protocol, for a colleague to open offline."""

import base64
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image

from brainseg import files
from brainseg.data import fingerprints
from brainseg.reporting import pages

LIMIT = 3_000_000  # bytes of the whole file
ROWS = 1000  # patients listed; of more, the best and the worst


class Metric(NamedTuple):
    """Where a number stands in a subset of evaluation.json, what it is called and what it means."""

    block: str
    key: str
    name: str
    meaning: str


METRICS = (
    Metric("volume", "dice", "Dice, per patient", "2 TP / (2 TP + FP + FN), all slices of a patient added up first"),
    Metric("volume", "iou", "IoU, per patient", "TP / (TP + FP + FN), likewise"),
    Metric("slice", "dice_tumour", "Dice, tumour slices", "mean over slices with tumour; a missed slice is 0"),
    Metric("slice", "iou_tumour", "IoU, tumour slices", "likewise"),
    Metric("slice", "dice_empty_as_one", "Dice, all slices", "a slice rightly left empty counts 1, which flatters"),
    Metric("slice", "hd95", "HD95, tumour slices", "95th percentile of the distance between the borders"),
    Metric("slice", "surface_dice", "Surface Dice, slices", "share of the border that lies within the tolerance"),
    Metric("pooled", "dice", "Dice, pooled", "all pixels of all patients in one: large tumours weigh most"),
    Metric("pooled", "iou", "IoU, pooled", "likewise"),
    Metric("pooled", "precision", "Precision, pooled", "TP / (TP + FP)"),
    Metric("pooled", "recall", "Recall, pooled", "TP / (TP + FN)"),
    Metric("pooled", "pixel_accuracy", "Pixel accuracy", "right pixels; high for any model, as tumour is rare"),
    Metric("detection", "slice_sensitivity", "Tumour slices noticed", "tumour slices with any predicted pixel"),
    Metric("detection", "slice_false_positive_rate", "False alarms", "slices without tumour with any predicted pixel"),
    Metric("detection", "patient_sensitivity", "Patients noticed", "patients with tumour with any predicted pixel"),
    Metric("alone", "one_slice_dice", "Dice, each slice by itself", "per patient, neighbouring slices not looked at"),
    Metric("alone", "flair_only_dice", "Dice, FLAIR alone", "per patient, the same model given FLAIR in all channels"),
    Metric("calibration", "ece", "Calibration error (ECE)", "mean gap between probability and share of tumour, pixels"),
    Metric("calibration", "ece_from_tenth", "ECE from 0.1 on", "the same, of pixels given at least a tenth"),
    Metric("keras", "dice_batch_soft", "Soft batch Dice", "smooth 100, batches of 32: what older projects print"),
    Metric("keras", "iou_batch_soft", "Soft batch IoU", "likewise"),
)
COMPARED = [m for m in METRICS if m.block in ("volume", "slice", "detection")]
TITLES = {
    "kaggle": "Outlining lower-grade glioma on brain MRI",
    "folder": "Outlining lesions on own images",
    "phantom": "Outlining drawn tumours on phantoms",
}
FIGURES = {  # in the report's order: heading, and how to read it
    "curves": (
        "Training",
        "Training and validation should move together; a gap that opens is overfitting. "
        "The dotted line is the epoch whose weights were kept.",
    ),
    "threshold": (
        "Threshold",
        "Scores of the validation patients for each threshold; where Dice is flat, the choice matters little. "
        "The thin line is the test patients' Dice, which had no say in it.",
    ),
    "patients": ("Every test patient", "One line a patient, best on top; colour and shape name the institution."),
    "size": ("Tumour size", "One point a patient: are the small tumours the hard ones, or the large?"),
    "calibration": (
        "Calibration",
        "On the diagonal a probability of 0.7 means tumour in 7 of 10 pixels; below it the model is too sure. "
        "The bars count the pixels.",
    ),
    "gallery": (
        "The best, the median and the worst patients",
        "A row is one patient's slice with most tumour or predicted pixels. "
        "Last column: found is blue, false alarm vermillion, missed yellow. FLAIR is brightened for the eye.",
    ),
    "augmentation": (
        "Augmentation",
        "One slice as training sees it: each change drawn four times by itself, the mask moved along; "
        "the last row has all of them.",
    ),
    "network": (
        "Network",
        "From left to right in the order of computation; the lower a box, the coarser; the wider, the more channels.",
    ),
}


def write(path: Path, evaluation: dict, manifest: dict | None, per_patient: pd.DataFrame, plots: Path) -> int:
    """Write the report with the pictures that ``plots`` holds; return its size in bytes.

    Args:
        evaluation: metrics/evaluation.json, or what ``brainseg evaluate`` found: without ``val``, perhaps without the
            FLAIR baseline. manifest: models/unet.json; None for masks that no model of ours made.
        per_patient: metrics/per_patient.csv.
    """
    pictures = {name: (plots / f"{name}.png").read_bytes() for name in FIGURES if (plots / f"{name}.png").is_file()}
    test = per_patient[per_patient["subset"] == "test"].sort_values(["dice", "patient"], ascending=[False, True])
    middle = test.index[ROWS // 2 : -(ROWS // 2)]
    columns = {name: subset for name, subset in (("Test", "test"), ("Validation", "val")) if subset in evaluation}
    listed = [m for m in METRICS if m.block in evaluation["test"]]
    facts = {
        "protocol": evaluation["protocol"],
        "title": TITLES[evaluation["protocol"]["source"]],
        "test": evaluation["test"],
        "validated": "val" in evaluation,
        "seen": {fingerprints.SEEN, fingerprints.UNKNOWN} & set(evaluation["protocol"]["marks"]),
        "flair": evaluation["baselines"].get("flair_threshold"),
        "network": manifest["network"]["name"] if manifest else None,
        "parameters": manifest["parameters"] if manifest else None,
        "epoch_chosen": manifest is not None and manifest["training"]["parameters"]["train"]["keep"] == "best",
        "columns": list(columns),
        "metrics": [(m, [_cell(evaluation[subset], m) for subset in columns.values()]) for m in listed],
        "baselines": _baselines(evaluation, "model" if manifest else "masks"),
        "groups": _groups(evaluation["test"]),
        "patients": test.drop(middle).to_dict("records"),
        "left_out": len(middle),
        "figures": FIGURES,
        "facts": _facts(evaluation, manifest),
    }
    template = pages.template("report.html.j2", number=number, interval=interval, share=share)
    text = template.render(facts, pictures=dict.fromkeys(pictures, ""))
    room = (LIMIT - len(text.encode())) * 3 // 4 - 3 * len(pictures)
    embedded = {name: base64.b64encode(png).decode() for name, png in fitted(pictures, room).items()}
    files.write_text(path, template.render(facts, pictures=embedded))
    return path.stat().st_size


def fitted(pictures: dict[str, bytes], room: int) -> dict[str, bytes]:
    """PNGs of at most ``room`` bytes together: the largest gives way first, by fewer colours, then by size."""
    pictures = dict(pictures)
    while sum(map(len, pictures.values())) > room:
        largest = max(pictures, key=lambda name: len(pictures[name]))
        if len(pictures[largest]) < 1000:
            break
        pictures[largest] = _smaller(pictures[largest])
    return pictures


def _smaller(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        colours = image.convert("RGB")
        if image.mode == "P":
            colours = colours.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))
    out = io.BytesIO()
    colours.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def number(value: float | None, unit: str = "") -> str:
    """Three decimals, one with a unit of length; or "undefined"."""
    if value is None or math.isnan(value):
        return "undefined"
    return f"{value:.1f} {unit}" if unit else f"{value:.3f}"


def share(value: float | None) -> str:
    """A percentage, or "undefined"."""
    return "undefined" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def interval(block: dict, unit: str = "") -> str:
    """``0.571 to 0.812``, or that there is none."""
    return "no interval" if block["lo"] is None else f"{number(block['lo'], unit)} to {number(block['hi'], unit)}"


def _cell(subset: dict, metric: Metric) -> dict:
    """What the table shows of a metric: a number alone, or a mean with its interval, median and counts."""
    value = subset[metric.block][metric.key]
    unit = subset["slice"]["unit"] if metric.key == "hd95" else ""
    if not isinstance(value, dict):
        return {"value": number(value), "details": []}
    counts = f"n {value['n']:,}" + (f", {value['undefined']:,} undefined" if value["undefined"] else "")
    details = [interval(value, unit), f"median {number(value['median'], unit)}", counts]
    return {"value": number(value["mean"], unit), "details": details}


def _baselines(evaluation: dict, scored: str) -> dict[str, list]:
    """The comparison on test: heads of its columns; of each metric the name and a value a column."""
    found, words = evaluation["baselines"], {"flair_threshold": "FLAIR threshold", "empty": "nothing"}
    columns = {scored: evaluation["test"]} | {words[name]: found[name] for name in words if name in found}
    rows = [(metric.name, [_cell(column, metric)["value"] for column in columns.values()]) for metric in COMPARED]
    return {"heads": list(columns), "rows": rows}


def _groups(test: dict) -> list[tuple[str, dict]]:
    """Patients by institution and by size of the tumour, with words for the sizes."""
    sizes = [(f"{name}: up to {third['up_to']:,} tumour pixels", third) for name, third in test["by_size"].items()]
    return [*test["by_institution"].items(), *sizes]


def _facts(evaluation: dict, manifest: dict | None) -> dict[str, list[tuple[str, str]]]:
    """Protocol, model and training as pairs of words, for who wants to do it again."""
    protocol = {"Protocol": list(_flat(evaluation["protocol"]))}
    if manifest is None:
        return protocol
    groups = {
        "Model": {**manifest["network"], "parameters": manifest["parameters"], **manifest["contract"]},
        "Training": manifest["training"],
        "Digests": {**manifest["data"], "weights_sha256": manifest["weights_sha256"]},
    }
    return protocol | {title: list(_flat(group)) for title, group in groups.items()}


def _flat(group: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in group.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}, ")
        elif isinstance(value, list):
            yield name, ", ".join(map(str, value)) or "none"
        elif value is None or isinstance(value, bool):
            yield name, {None: "none", True: "yes", False: "no"}[value]
        else:
            yield name, str(value)
