"""Scores without training: a model of ours, or anybody's masks, on images and masks from outside the pipeline.

What is given is packed and prepared as ``download.source: folder`` does it, all of it is test, and the code that scores
and draws is the pipeline's.
"""

import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from brainseg import (
    archive,
    config,
    dataset,
    evaluation,
    figures,
    files,
    folder,
    gallery,
    manifest,
    preprocessing,
    provenance,
    rendering,
    scoring,
)
from brainseg import report as reports
from brainseg.errors import BrainsegError, DataError, IntegrityError
from brainseg.postprocessing import Rule
from brainseg.sequences import FLAIR

MARK = "scored outside the pipeline: whether these patients were trained on is for the reader to know"
AS_THEY_ARE = Rule(0.5, 0)  # of masks, which are 0 or 255
EVALUATION = Path("metrics/evaluation.json")  # beside the folder of a model
CHOSEN = ("source", "unit", "grid", "patients", "slices")  # what a manifest and the numbers of its model share


class Given(NamedTuple):
    """Folders or patterns of images, masks and, of ready-made ones, predictions; ``download.patient``; the labels."""

    images: str
    masks: str
    predictions: str | None
    patient: str
    foreground: list[int] | None


class Model(NamedTuple):
    """A manifest, its weights, the rule chosen for them and that of the FLAIR baseline, where it is known."""

    manifest: dict
    weights: Path
    rule: Rule
    bright: Rule | None


class Scored(NamedTuple):
    """The numbers, and the tables that they come from; ``calibration`` of a network alone."""

    report: dict
    per_slice: pd.DataFrame
    per_patient: pd.DataFrame
    calibration: pd.DataFrame | None


def run(given: Given, model: Path, out: Path) -> str:
    """Score, write evaluation.json, tables, pictures and report.html into ``out``, and return the numbers as a table.

    Args:
        model: folder of ``unet.json`` and ``unet.weights.h5``; not looked at where there are predictions.

    Raises:
        DataError: all that is wrong with the files that were given; ``out`` holds other things.
        IntegrityError: model, weights and the rule that was chosen for them do not belong together.
    """
    params = config.load("preprocess", "evaluate", "render")
    _check_out(out)
    ours = None if given.predictions else read_model(model, params.evaluate)
    prepare = config.Preprocess(**ours.manifest["preprocess"]) if ours else params.preprocess
    if given.foreground:
        prepare = prepare.model_copy(update={"foreground": given.foreground})
    with tempfile.TemporaryDirectory(prefix="brainseg-") as temporary:
        data = _prepared(given, prepare, Path(temporary) / "processed")
        if ours:
            arrays, rule, facts = _answers(ours, data, params.evaluate.tta), ours.rule, ours.manifest
        else:
            arrays, rule, facts = _ready(given, prepare, data, Path(temporary) / "ready"), AS_THEY_ARE, None
        protocol = _protocol(given, data, facts, params.evaluate.tta)
        scored = score(data, arrays, rule, ours.bright if ours else None, params.evaluate, protocol)
        _write(scored, out)
        _draw(scored, Path(temporary), arrays["model"], out / "plots", params.render)
    reports.write(out / "report.html", scored.report, facts, scored.per_patient, out / "plots")
    return f"{evaluation.table(scored.report)}\nReport:  {out / 'report.html'}\nNumbers: {out / 'evaluation.json'}"


def score(
    data: dataset.Dataset, arrays: dict[str, np.ndarray], rule: Rule, bright: Rule | None, params: config.Evaluate,
    protocol: dict,
) -> Scored:  # fmt: skip
    """Numbers of all slices of ``data``, as the pipeline has them of test.

    Args:
        arrays: as for evaluation.evaluate; of ready-made masks (0 and 255) ``model`` and ``flair`` alone.
        protocol: see evaluation.described.
    """
    cohort, measure = scoring.Cohort(data.slices, data.masks), evaluation.measured(data.slices, params)
    table = scoring.per_slice(cohort, arrays["model"], rule, measure.tolerance, measure.unit, "score")
    bins = scoring.calibration(cohort, arrays["model"]) if "flair_only" in arrays else None
    found = {
        "protocol": evaluation.described(protocol, rule),
        "test": scoring.report(cohort, table, arrays, rule, measure, bins, data.slices),
        "baselines": scoring.baselines(cohort, arrays["flair"], bright, measure),
    }
    return Scored(evaluation.strict(found), table, scoring.per_patient(table), bins)


def read_model(home: Path, params: config.Evaluate) -> Model:
    """The model in a folder, and the rule: what ``evaluate`` of params.yaml fixes, else what was chosen on validation.

    Raises:
        IntegrityError: see manifest.read; there are no numbers beside it, or those of another model.
    """
    model = manifest.read(home / "unet.json")
    threshold, least, bright = params.threshold, params.min_component, None
    if "auto" in (threshold, least):
        found = _numbers(home.resolve().parent / EVALUATION, model)
        chosen, bright = _rule(found["protocol"]), _rule(found["baselines"]["flair_threshold"])
        threshold = chosen.threshold if threshold == "auto" else threshold
        least = chosen.min_component if least == "auto" else least
    return Model(model, home / "unet.weights.h5", Rule(evaluation.as_written(float(threshold)), int(least)), bright)


def _rule(block: dict) -> Rule:
    return Rule(block["threshold"], block["postprocessing"]["min_component"])


def _numbers(path: Path, model: dict) -> dict:
    """evaluation.json of the very model."""
    fix = "put the model's own there, or set evaluate.threshold and evaluate.min_component in params.yaml"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        theirs = {key: found["protocol"][key] for key in CHOSEN}
    except FileNotFoundError:
        raise IntegrityError(path, "is not there, which has the threshold chosen for the model", fix) from None
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(path, f"is damaged: {type(error).__name__} {error}", fix) from None
    if theirs != {key: model["protocol"][key] for key in CHOSEN}:
        raise IntegrityError(path, "has the numbers of another model", fix)
    return found


def _prepared(given: Given, params: config.Preprocess, out: Path, predictions: bool = False) -> dataset.Dataset:
    """Images with the masks, or with the predictions in their place, on the grid; all of it is test."""
    arguments = [argument for argument in (given.images, given.masks, given.predictions) if argument]
    root, (images, masks, *ready) = patterns_of(arguments)
    others = ready[0] if ready else None
    if predictions:
        masks, others = ready[0], masks
    packed = out.with_suffix(".zip")
    words = {
        "download.images": "IMAGES", "download.path": "IMAGES", "download.masks": "MASKS",
        "download.patient": "--patient", "preprocess.foreground": "--foreground",
    }  # fmt: skip
    if predictions:
        words["download.masks"] = "--predictions"
    try:
        source = config.Download(
            source="folder", path=str(root), images=images, masks=masks, patient=given.patient,
        )  # fmt: skip
        archive.write(packed, folder.pairs(source, others))
        preprocessing.run(packed, params, out)
    except ValidationError as error:
        raise DataError("--patient", error.errors()[0]["msg"], "see docs/own-data.md") from None
    except BrainsegError as error:
        said = [problem._replace(what=_said(problem.what, words), fix=_said(problem.fix, words))
                for problem in error.problems]  # fmt: skip
        raise type(error)("", problems=said) from None
    packed.unlink()
    text = {"patient": str, "institution": str, "spacing": str}
    slices = pd.read_csv(out / "slices.csv", keep_default_na=False, dtype=text).assign(fold=-1, subset="test")
    images, masks = (np.load(out / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("images", "masks"))
    return dataset.Dataset(images, masks, slices)


def patterns_of(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder that all arguments share, and each as a pattern below it; a folder by itself is all that it holds.

    Raises:
        DataError: a folder that is not there.
    """
    split = []
    for argument in arguments:
        parts = Path(os.path.abspath(os.path.expanduser(argument))).parts
        plain = next((i for i, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
        home, rest = Path(*parts[:plain]), "/".join(parts[plain:])
        if not home.is_dir():
            raise DataError(argument, f"{home} is no folder", "name a folder, or a pattern in quotes: 'scans/*.nii.gz'")
        split.append((home, (rest + "/" * argument.endswith("/")) if rest else "**/*"))
    root = Path(os.path.commonpath([home for home, _ in split]))
    return root, [(home.relative_to(root) / "x").as_posix()[:-1] + rest for home, rest in split]


def _said(text: str, words: dict[str, str]) -> str:
    """A fault of the pipeline's parameters in the words of the command line."""
    return re.sub("|".join(map(re.escape, words)), lambda match: words[match[0]], text)


def _answers(model: Model, data: dataset.Dataset, mirror: bool) -> dict[str, np.ndarray]:
    """See inference.scored."""
    from brainseg import engine

    print(engine.start(**manifest.engine(model.manifest)), flush=True)
    from brainseg import inference, networks  # Keras reads its engine once, when imported

    network = networks.restore(model.manifest, model.weights, data.images.shape[1:3])
    return inference.scored(network, data, mirror=mirror).arrays


def _ready(given: Given, params: config.Preprocess, data: dataset.Dataset, out: Path) -> dict[str, np.ndarray]:
    """Ready-made masks as probabilities of 0 and 255."""
    ready = _prepared(given, params, out, predictions=True)
    if not ready.slices[["patient", "slice"]].equals(data.slices[["patient", "slice"]]):
        raise DataError(given.predictions, "are not of the same slices as the masks", "give one for each image")
    return {"model": np.uint8(255) * ready.masks, "flair": data.images[..., FLAIR]}


def _protocol(given: Given, data: dataset.Dataset, model: dict | None, mirror: bool) -> dict:
    """See evaluation.described. There are no patients but those of test."""
    marks = [MARK]
    if given.patient == "each_image":
        marks.append(manifest.EACH_IMAGE)
    if model:
        marks += provenance.marks(model, data.images, data.rows("test"))
        marks += [f"the model: {mark}" for mark in model["protocol"]["marks"] if mark != provenance.SEEN]
    tta = manifest.protocol(model, mirror)["tta"] if model else "none"
    return {
        "source": "folder", "unit": "patient", "grid": data.images.shape[1],
        "patients": {"test": data.counts("patient")["test"]}, "slices": {"test": len(data.slices)},
        "tta": tta, "marks": marks,
    }  # fmt: skip


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "evaluation.json").is_file())):
        raise DataError(out, "holds other things, which would be mixed with the results", "name a new folder: -o DIR")


def _write(scored: Scored, out: Path) -> None:
    """Each file whole or not at all."""
    text = json.dumps(scored.report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    files.write_text(out / "evaluation.json", text)
    for name in ("per_patient", "per_slice", "calibration"):
        table = getattr(scored, name)
        if table is None:
            (out / f"{name}.csv").unlink(missing_ok=True)
        else:
            files.write_text(out / f"{name}.csv", table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def _draw(scored: Scored, temporary: Path, probability: np.ndarray, plots: Path, params: config.Render) -> None:
    """The pipeline's pictures, but for those of a training."""
    predictions = temporary / "probabilities.npz"
    np.savez(predictions, row=np.arange(len(probability)), probability=probability)
    picked = gallery.pick(scored.per_patient, scored.per_slice, params.patients)
    slices = rendering.scored(
        picked, scored.per_slice, scored.report["protocol"], temporary / "processed", predictions
    )  # fmt: skip
    with files.replacing(plots) as new:
        new.mkdir()
        figures.patients(scored.per_patient, new / "patients.png", params.dpi)
        figures.size(scored.per_patient, new / "size.png", params.dpi)
        if scored.calibration is not None:
            figures.calibration(scored.calibration, new / "calibration.png", params.dpi)
        gallery.gallery(gallery.cases(picked, *slices), new / "gallery.png", params.dpi)
