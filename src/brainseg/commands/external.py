"""Scores without training: a model of ours, or anybody's masks, on images and masks from outside the pipeline.

All that is given is test; the code that prepares, scores and draws is the pipeline's.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from brainseg import config, files
from brainseg.data import archive, dataset, fingerprints
from brainseg.data.external_data import Given, prepared
from brainseg.errors import DataError, IntegrityError
from brainseg.evaluation import evaluate, scoring
from brainseg.inference import postprocessing
from brainseg.inference.postprocessing import Rule
from brainseg.io.sequences import FLAIR
from brainseg.models import manifest
from brainseg.reporting import charts, gallery, rendering
from brainseg.reporting import report as reports

MARK = "scored outside the pipeline: whether these patients were trained on is for the reader to know"
AS_THEY_ARE = Rule(0.5, 0)  # of masks, which are 0 or 255
EVALUATION = Path("metrics/evaluation.json")  # beside the folder of a model, or the file within it


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
    ours = read_model(model, params.evaluate) if given.predictions is None else None
    prepare = config.Preprocess(**ours.manifest["preprocess"]) if ours else params.preprocess
    with archive.room(out.parent), files.beside(out) as temporary:
        data = prepared(given, prepare, temporary / "processed")
        if ours:
            arrays, rule, facts = _answers(ours, data, params.evaluate.tta), ours.rule, ours.manifest
        else:
            ready = prepared(given, prepare, temporary / "ready", predictions=True)
            arrays = {"model": np.uint8(255) * ready.masks, "flair": data.images[..., FLAIR]}
            rule, facts = AS_THEY_ARE, None
        protocol = _protocol(given, data, facts, params.evaluate.tta)
        scored = score(data, arrays, rule, ours.bright if ours else None, params.evaluate, protocol)
        (out / "report.html").unlink(missing_ok=True)  # the last to come: where it is, all is of one run
        _write(scored, out)
        _draw(scored, temporary, arrays["model"], out / "plots", params.render)
    reports.write(out / "report.html", scored.report, facts, scored.per_patient, out / "plots")
    return f"{evaluate.table(scored.report)}\nReport:  {out / 'report.html'}\nNumbers: {out / 'evaluation.json'}"


def score(
    data: dataset.Dataset, arrays: dict[str, np.ndarray], rule: Rule, bright: Rule | None, params: config.Evaluate,
    protocol: dict,
) -> Scored:  # fmt: skip
    """Numbers of all slices of ``data``, as the pipeline has them of test.

    Args:
        arrays: as for evaluate.evaluate; of ready-made masks (0 and 255) ``model`` and ``flair`` alone.
        protocol: see evaluate.described.
    """
    cohort, measure = scoring.Cohort(data.slices, data.masks), evaluate.measured(data.slices, params)
    table = scoring.per_slice(cohort, arrays["model"], rule, measure.tolerance, measure.unit, "score")
    bins = scoring.calibration(cohort, arrays["model"]) if "flair_only" in arrays else None
    found = {
        "protocol": evaluate.described(protocol, rule),
        "test": scoring.report(cohort, table, arrays, rule, measure, bins, data.slices),
        "baselines": scoring.baselines(cohort, arrays["flair"], bright, measure),
    }
    return Scored(evaluate.strict(found), table, scoring.per_patient(table), bins)


def read_model(home: Path, params: config.Evaluate) -> Model:
    """The model in a folder, and the rule: as ``evaluate`` of params.yaml fixes it, else as chosen on validation.

    Raises:
        DataError: ``home`` is no folder. IntegrityError: see manifest.read and manifest.check; there are no numbers
            beside the folder, or those of another model.
    """
    if not home.is_dir():
        raise DataError(home, "is no folder", "--model DIR: the folder of unet.json and unet.weights.h5, or: make pull")
    model, weights = manifest.read(home / "unet.json"), home / "unet.weights.h5"
    manifest.check(model, weights)
    if params.threshold != "auto" and params.min_component != "auto":
        return Model(model, weights, Rule(evaluate.as_written(params.threshold), params.min_component), None)
    own = home / EVALUATION.name
    path = own if own.exists() else home.resolve().parent / EVALUATION
    return Model(model, weights, *_chosen(path, model, params.tta))


def _chosen(path: Path, model: dict, mirror: bool) -> tuple[Rule, Rule]:
    """The rules of the model and of the FLAIR baseline in its evaluation.json."""
    fix = (
        f"put the model's own beside its weights ({path.name}), or set evaluate.threshold and "
        "evaluate.min_component in params.yaml"
    )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rules = postprocessing.read(found["protocol"]), postprocessing.read(found["baselines"]["flair_threshold"])
        of, averaged = found["protocol"]["weights_sha256"], found["protocol"]["tta"]
    except FileNotFoundError:
        raise IntegrityError(path, "is not there, which has the threshold chosen for the model", fix) from None
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(path, f"is damaged: {type(error).__name__} {error}", fix) from None
    if of != model["weights_sha256"]:
        raise IntegrityError(path, "has the numbers of another model", fix)
    if averaged != manifest.protocol(model, mirror)["tta"]:
        raise IntegrityError(path, f"has a threshold chosen with averaging: {averaged}", f"set evaluate.tta, or {fix}")
    return rules


def _answers(model: Model, data: dataset.Dataset, mirror: bool) -> dict[str, np.ndarray]:
    """See prediction.scored."""
    from brainseg.models import backend

    print(backend.start(**manifest.engine(model.manifest)), flush=True)
    from brainseg.models import networks, prediction  # Keras reads its engine once, when imported

    network = networks.restore(model.manifest, model.weights, data.images.shape[1:3])
    return prediction.scored(network, data, mirror=mirror).arrays


def _protocol(given: Given, data: dataset.Dataset, model: dict | None, mirror: bool) -> dict:
    """See evaluate.described. There are no patients but those of test."""
    marks = [MARK]
    if given.patient == "each_image":
        marks.append(manifest.EACH_IMAGE)
    if model:
        marks += fingerprints.marks(model, data.images, data.rows("test"))
        marks += [f"the model: {mark}" for mark in model["protocol"]["marks"] if mark != fingerprints.SEEN]
    own = manifest.protocol(model, mirror) if model else {"tta": "none"}
    return {
        "source": "folder", "unit": "patient", "grid": data.images.shape[1],
        "patients": {"test": data.counts("patient")["test"]}, "slices": {"test": len(data.slices)},
        **{key: own[key] for key in ("weights_sha256", "tta") if key in own}, "marks": marks,
    }  # fmt: skip


def _check_out(out: Path) -> None:
    """It is new, empty, or of this command."""
    if out.exists() and not out.is_dir():
        raise DataError(out, "is a file", "name a folder: -o DIR")
    if out.exists() and any(out.iterdir()) and not _is_ours(out / "evaluation.json"):
        raise DataError(out, "holds other things, which would be mixed with the results", "name a new folder: -o DIR")


def _is_ours(path: Path) -> bool:
    try:
        return MARK in json.loads(path.read_text(encoding="utf-8"))["protocol"]["marks"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


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
        charts.patients(scored.per_patient, new / "patients.png", params.dpi)
        charts.size(scored.per_patient, new / "size.png", params.dpi)
        if scored.calibration is not None:
            charts.calibration(scored.calibration, new / "calibration.png", params.dpi)
        gallery.gallery(gallery.cases(picked, *slices), new / "gallery.png", params.dpi)
