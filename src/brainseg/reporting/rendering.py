"""The render stage: metrics/plots/*.png and metrics/report.html from a run's tables and arrays."""

import math
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from brainseg import files
from brainseg.config import Render
from brainseg.data import csv_tables
from brainseg.errors import IntegrityError, guard
from brainseg.evaluation import results
from brainseg.evaluation.results import EvaluationProtocol
from brainseg.inference import postprocessing, probabilities
from brainseg.models import manifest
from brainseg.reporting import charts, gallery, network_diagram, report

Augment = Callable[[np.ndarray, np.ndarray], dict[str, tuple[np.ndarray, np.ndarray]]]


class Tables(NamedTuple):
    """The CSV files of metrics/; each field is a file name."""

    training: pd.DataFrame
    threshold_curve: pd.DataFrame
    calibration: pd.DataFrame
    per_patient: pd.DataFrame
    per_slice: pd.DataFrame


class PickedSlices(NamedTuple):
    """Picked slices: images (n, H, W, C) uint8, truth and prediction (n, H, W) bool."""

    images: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def run(metrics_dir: Path, data_dir: Path, model_dir: Path, params: Render, augment: Augment) -> str:
    """Draw every figure and write the report; return a one-line summary.

    Args:
        metrics_dir: holds the files of train and evaluate; plots/ and report.html are written to it.
        data_dir: holds processed/ and predictions/. model_dir: holds unet.json.
        augment: image (H, W, C) uint8 and mask (H, W) → name → (images (k, H, W, C), masks (k, H, W)).
            It gets a slice of the gallery, so that all pictures together show at most ``params.patients`` patients.

    Raises:
        IntegrityError: the predictions do not fit the counts in the tables.
    """
    tables = Tables(*(_read_table(metrics_dir / f"{name}.csv") for name in Tables._fields))
    evaluation = results.read(metrics_dir / "evaluation.json", results.Evaluation)
    model = manifest.read(model_dir / "unet.json")
    picked = gallery.pick(tables.per_patient, tables.per_slice, params.patients)
    predictions = data_dir / "predictions" / "probabilities.npz"
    slices = load_picked(picked, tables.per_slice, evaluation.protocol, data_dir / "processed", predictions)
    with files.replacing(metrics_dir / "plots") as plots:
        plots.mkdir()
        _charts(tables, evaluation.protocol.threshold, model, plots, params.dpi)
        rows = gallery.build_rows(picked, *slices)
        gallery.draw_gallery(rows, plots / "gallery.png", params.dpi)
        gallery.draw_overview(rows, plots / "overview.png", params.dpi)
        if len(picked):
            ordinary = [*picked["group"], "median"].index("median") % len(picked)
            image, mask = slices.images[ordinary], slices.truth[ordinary].astype(np.uint8)
            gallery.draw_augmentations(image, mask, augment(image, mask), plots / "augmentation.png", params.dpi)
    size = report.write(metrics_dir / "report.html", evaluation, model, tables.per_patient, metrics_dir / "plots")
    shown = f"{len(picked) or 'no'} patient{'s' if len(picked) > 1 else ''} shown"
    return f"{shown}; {metrics_dir / 'plots'}, {metrics_dir / 'report.html'} ({size / 1e6:.1f} MB)"


def _charts(tables: Tables, threshold: float, model: manifest.Manifest, plots: Path, dpi: int) -> None:
    test = tables.per_patient[tables.per_patient["subset"] == "test"]
    charts.draw_curves(tables.training, model.training.kept_epoch, plots / "curves.png", dpi)
    charts.draw_threshold(tables.threshold_curve, threshold, plots / "threshold.png", dpi)
    charts.draw_patients(test, plots / "patients.png", dpi)
    charts.draw_size(test, plots / "size.png", dpi)
    charts.draw_calibration(tables.calibration, plots / "calibration.png", dpi)
    network_diagram.draw_network(model, plots / "network.png", dpi)


def _read_table(path: Path) -> pd.DataFrame:
    """Read a CSV: an empty cell is undefined, names are text, so that a patient may be called NA or 007."""
    text = {"patient": str, "institution": str}
    stage = "train" if path.stem == "training" else "evaluate"
    with guard(path, f"git restore {path}, or run: dvc repro -f {stage}", IntegrityError):
        table = csv_tables.read_csv(path, dtype=text, keep_default_na=False, na_values=[""]).fillna({"institution": ""})
    return table


def load_picked(
    picked: pd.DataFrame, per_slice: pd.DataFrame, protocol: EvaluationProtocol, processed: Path, path: Path
) -> PickedSlices:
    """Load images, masks and scored predictions of the picked slices.

    Args:
        picked: rows that ``gallery`` picked from ``per_slice``.
        protocol: of evaluation.json, for calibration, threshold and smallest component.
        processed: holds images.npy and masks.npy. path: the probabilities that evaluate wrote.

    Raises:
        IntegrityError: a file is damaged, or the predictions do not fit the counts in the table.
    """
    rows = picked["row"].to_numpy(int)
    images, truth = _load_rows(processed / "images.npy", rows), _load_rows(processed / "masks.npy", rows) > 0
    prediction = _load_predictions(picked, per_slice, protocol, path, truth)
    hits, alarms, misses = truth & prediction, ~truth & prediction, truth & ~prediction
    seen = np.stack([kind.sum(axis=(1, 2)) for kind in (hits, alarms, misses)], axis=1)
    wrong = (seen != picked[["tp", "fp", "fn"]].to_numpy(int)).any(axis=1)
    if wrong.any():
        raise _other_run(path, picked["patient"][wrong])
    return PickedSlices(images, truth, prediction)


def _load_rows(path: Path, rows: np.ndarray) -> np.ndarray:
    with guard(path, "run: dvc repro -f preprocess", IntegrityError):
        return np.load(path, mmap_mode="r", allow_pickle=False)[rows]


def _load_predictions(
    picked: pd.DataFrame, per_slice: pd.DataFrame, protocol: EvaluationProtocol, path: Path, like: np.ndarray
) -> np.ndarray:
    """The scored masks of the picked slices: each volume is binarised and cleaned as in evaluation."""
    if picked.empty:
        return np.zeros_like(like)
    rule = results.rule_of(protocol)
    test = per_slice[per_slice["subset"] == "test"].sort_values("slice")
    volumes = test.groupby("patient")["row"].agg(list)
    with guard(path, "run: dvc repro -f evaluate", IntegrityError), np.load(path, allow_pickle=False) as stored:
        rows = pd.Index(stored["row"])
    places = {patient: rows.get_indexer(volumes[patient]) for patient in picked["patient"]}
    if unknown := [patient for patient, found in places.items() if (found < 0).any()]:
        raise _other_run(path, unknown)
    wanted = np.unique(np.concatenate(list(places.values())))
    with guard(path, "run: dvc repro -f evaluate", IntegrityError):
        found = probabilities.calibrate(_read_rows(path, "probability", wanted), results.calibration_of(protocol))
    predictions = np.zeros_like(like)
    for i, (patient, row) in enumerate(zip(picked["patient"], picked["row"], strict=True)):
        volume = found[np.searchsorted(wanted, places[patient])]
        predictions[i] = postprocessing.binarise(volume, rule)[volumes[patient].index(row)]
    return predictions


def _read_rows(path: Path, name: str, rows: np.ndarray) -> np.ndarray:
    """Some rows, in rising order, of an array in a compressed .npz: the others are read and dropped one by one.

    Raises:
        ValueError, EOFError, OSError, KeyError: the file is damaged.
    """
    with zipfile.ZipFile(path) as stored, stored.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        shape, by_column, kind = np.lib.format.read_array_header_1_0(member)
        if version != (1, 0) or by_column:
            raise ValueError(f"{name} is stored in another way than evaluate does")
        size, kept, wanted = math.prod(shape[1:]) * kind.itemsize, [], set(rows.tolist())
        for row in range(shape[0]):  # to the end, where the sum of the whole member is checked
            content = member.read(size)
            if row in wanted:
                kept.append(np.frombuffer(content, kind).reshape(shape[1:]))
        member.read(1)
    return np.stack(kept)


def _other_run(path: Path, patients: Iterable[str]) -> IntegrityError:
    what = f"not the predictions that per_slice.csv counts ({', '.join(patients)})"
    return IntegrityError(path, what, "run: dvc repro -f evaluate")
