"""`brainseg evaluate`: score a model of this project, or given masks, on images from outside the pipeline.

All slices count as test. The pipeline's own code prepares, scores and draws them.
"""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from brainseg import config, files
from brainseg.data import archive, dataset, fingerprints
from brainseg.data.external_data import ExternalInputs, prepare_arrays
from brainseg.data.inputs import verify
from brainseg.errors import DataError, IntegrityError, MachineError
from brainseg.evaluation import calibration, evaluate, results, scoring, tables
from brainseg.evaluation.results import Evaluation, ExternalEvaluation
from brainseg.inference import plausibility
from brainseg.inference.postprocessing import Rule
from brainseg.inference.probabilities import Calibration
from brainseg.io.sequences import FLAIR
from brainseg.models import manifest
from brainseg.models.manifest import Manifest
from brainseg.reporting import charts, gallery, rendering
from brainseg.reporting import report as reports

MARK = "scored outside the pipeline: whether these patients were trained on is for the reader to know"
MASK_RULE = Rule(0.5, 0)  # for given masks, which hold 0 and 255: nothing is removed
LOCK = ".lock"  # in the folder of results while a process works on it
EVALUATION = Path("metrics/evaluation.json")  # beside the folder of the model; its name alone, inside that folder


class EvaluatedModel(NamedTuple):
    """A manifest, its weights, the rule that was chosen for them, and that of the FLAIR baseline if it is known.

    ``calibration``: of the probabilities.
    """

    manifest: Manifest
    weights: Path
    rule: Rule
    bright: Rule | None
    calibration: Calibration


class ExternalScores(NamedTuple):
    """The numbers and the tables they come from. ``calibration`` is None for given masks."""

    report: ExternalEvaluation
    per_slice: pd.DataFrame
    per_patient: pd.DataFrame
    calibration: pd.DataFrame | None


def run(inputs: ExternalInputs, model: Path, out: Path) -> str:
    """Score, write evaluation.json, tables, pictures and report.html into ``out``, and return the numbers as a table.

    Args:
        model: folder of ``unet.json`` and ``unet.weights.h5``; ignored if there are predictions.

    Raises:
        DataError: all that is wrong with the input files; ``out`` holds other things.
        IntegrityError: the model, its weights and the rule do not belong together.
        MachineError: another process writes into ``out``.
    """
    params = config.load("preprocess", "evaluate", "render")
    with _open_folder(out):
        return _run(inputs, model, out, params)


def _run(inputs: ExternalInputs, model: Path, out: Path, params: config.Params) -> str:
    ours = read_model(model, params.evaluate) if inputs.predictions is None else None
    prepare = ours.manifest.preprocess if ours else params.preprocess
    with archive.guard_space(out.parent), files.temporary_beside(out) as temporary:
        data = prepare_arrays(inputs, prepare, temporary / "processed")
        if ours:
            arrays, rule, facts = _predict(ours, data, params.evaluate.tta, temporary), ours.rule, ours.manifest
        else:
            ready = prepare_arrays(inputs, prepare, temporary / "ready", predictions=True)
            arrays = {"model": np.uint8(255) * ready.masks, "flair": data.images[..., FLAIR]}
            rule, facts = MASK_RULE, None
        protocol = _describe_protocol(inputs, data, facts, params.evaluate.tta)
        protocol |= ours.calibration.describe() if ours else {}
        scored = score(data, arrays, rule, ours.bright if ours else None, params.evaluate, protocol)
        (out / "report.html").unlink(missing_ok=True)  # written last: if it exists, all files are of one run
        _write(scored, out)
        _draw(scored, temporary, arrays["model"], out / "plots", params.render)
    reports.write(out / "report.html", scored.report, facts, scored.per_patient, out / "plots")
    lines = [evaluate.table(scored.report), *_describe_inputs(scored.report, facts)]
    return "\n".join([*lines, f"Report:  {out / 'report.html'}", f"Numbers: {out / 'evaluation.json'}"])


def score(
    data: dataset.Dataset, arrays: dict[str, Any], rule: Rule, bright: Rule | None, params: config.Evaluate,
    protocol: dict,
) -> ExternalScores:  # fmt: skip
    """Score all slices of ``data`` as the pipeline scores its test slices.

    Args:
        arrays: as for evaluate.evaluate; for given masks (0 and 255) only ``model`` and ``flair``.
        protocol: see evaluate.describe_protocol; its temperature, bias and skew calibrate the probabilities.
    """
    before, chosen = arrays["model"], Calibration.read(protocol)
    arrays = calibration.apply(arrays, chosen)
    cohort, measure = scoring.Cohort(data.slices, data.masks), evaluate.choose_measure(data.slices, params)
    table = scoring.per_slice(cohort, arrays["model"], rule, measure.tolerance, measure.unit, "score")
    bins = None
    if "flair_only" in arrays:
        bins = scoring.calibration_table(scoring.histogram(cohort, before, "calibration"), chosen)
    patients = scoring.add_less_input(scoring.per_patient(table), cohort, arrays, rule)
    found = {
        "protocol": evaluate.describe_protocol(protocol, rule),
        "test": scoring.score(cohort, table, patients, arrays, before, rule, measure, bins, data.slices),
        "baselines": scoring.score_baselines(cohort, arrays["flair"], bright, measure),
        "inputs": _look_at(data),
    }
    report = ExternalEvaluation.model_validate(evaluate.round_floats(found))
    return ExternalScores(report, table, patients, bins)


def read_model(home: Path, params: config.Evaluate) -> EvaluatedModel:
    """Read a model with its calibration and its rule.

    Threshold and smallest component are those of ``evaluate`` in params.yaml if it fixes both; then what it fixes of
    the calibration counts too. All others are those that were chosen on validation.

    Raises:
        DataError: ``home`` is no folder.
        IntegrityError: see manifest.read and manifest.check; evaluation.json is missing or belongs to another model.
    """
    if not home.is_dir():
        raise DataError(home, "is no folder", "--model DIR: the folder of unet.json and unet.weights.h5, or: make pull")
    place, own = home.resolve(), home / EVALUATION.name
    rule = None
    if params.threshold != "auto" and params.min_component != "auto" and params.min_share != "auto":
        rule = Rule(evaluate.round_threshold(params.threshold), params.min_component, params.min_share)
    given = None
    asked = calibration.Asked.read(params)
    if rule and "auto" not in asked:
        given = Calibration.read(asked._asdict())
    used = [] if given or own.exists() else [str(EVALUATION)]
    # Of a project; a folder of another kind has no dvc.lock beside it.
    verify([f"{place.name}/unet.json", f"{place.name}/unet.weights.h5", *used], place.parent)
    model, weights = manifest.read(home / "unet.json"), home / "unet.weights.h5"
    manifest.check(model, weights)
    if rule and given:
        return EvaluatedModel(model, weights, rule, None, given)
    found = _read_evaluation(own if own.exists() else place.parent / EVALUATION, model, params.tta)
    chosen = results.calibration_of(found.protocol)
    if rule is None:
        bright = results.rule_of(found.baselines.flair_threshold)
        return EvaluatedModel(model, weights, results.rule_of(found.protocol), bright, chosen)
    # A skew was fitted together with the other two: without it they would be nobody's calibration.
    fixed = {name: value for name, value in asked._asdict().items() if value != "auto" and name != "skew"}
    return EvaluatedModel(model, weights, rule, None, chosen._replace(**fixed))


def _read_evaluation(path: Path, model: Manifest, mirror: bool) -> Evaluation:
    """The model's evaluation.json, which has what was chosen on validation."""
    fix = (
        f"put the model's own beside its weights ({path.name}), or set evaluate.temperature, evaluate.bias, "
        "evaluate.skew, evaluate.threshold, evaluate.min_component and evaluate.min_share in params.yaml"
    )
    try:
        found = Evaluation.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IntegrityError(path, "is missing; it holds the threshold that was chosen for the model", fix) from None
    except ValueError as error:
        raise IntegrityError(path, f"is damaged or of another version: {config.reason(error)}", fix) from None
    if found.protocol.weights_sha256 != model.weights_sha256:
        raise IntegrityError(path, "has the numbers of another model", fix)
    averaged = found.protocol.tta
    if averaged != manifest.protocol(model, mirror)["tta"]:
        raise IntegrityError(path, f"has a threshold chosen with averaging: {averaged}", f"set evaluate.tta, or {fix}")
    return found


def _look_at(data: dataset.Dataset) -> dict[str, Any]:
    """The fields of results.InputFacts."""
    scans = [data.images[rows.index] for _, rows in data.slices.sort_values("slice").groupby("patient", observed=True)]
    stripped = sum(plausibility.NO_SCALP in plausibility.assess(scan).marks for scan in scans)
    return {"patients": len(scans), "no_scalp": stripped, "flair_alone": _is_flair_alone(data)}


def _is_flair_alone(data: dataset.Dataset) -> bool:
    return all((image == image[..., FLAIR, None]).all() for image in data.images)


def _describe_inputs(report: ExternalEvaluation, model: Manifest | None) -> list[str]:
    """What the reader of the numbers must know of the images."""
    found = report.inputs
    assert found is not None
    lines = [f"Inputs: {found.no_scalp:,} of {found.patients:,} patients' scans look like ones without scalp"]
    whole = model and model.protocol.source == "kaggle" and not model.training.parameters.augmentation.scalp_dropout
    if found.no_scalp and whole:  # LGG is of whole heads
        lines[0] += ", of which the model has hardly seen any: it may miss lesions at the brain's edge"
    if found.flair_alone and report.test.alone:
        lines.append("Inputs: FLAIR in every channel, so the numbers are those given FLAIR alone, too")
    return lines


def _predict(model: EvaluatedModel, data: dataset.Dataset, mirror: bool, folder: Path) -> dict[str, Any]:
    """See prediction.predict_for_evaluation. What is the same for FLAIR in every channel is not predicted again."""
    from brainseg.models import backend

    print(backend.start(**manifest.engine(model.manifest)), flush=True)
    from brainseg.models import networks, prediction  # Keras reads its engine once, when imported

    network = networks.restore(model.manifest, model.weights, data.images.shape[1:3])
    if not _is_flair_alone(data):
        return prediction.predict_for_evaluation(network, data, mirror=mirror, folder=folder).arrays
    rows = data.rows("test")
    settings: dict[str, Any] = {"mirror": mirror, "allocate": partial(prediction.allocate_on_disk, folder)}
    whole = single = prediction.predict_patients(network, data, rows, **settings)
    if prediction.context_of(network, data.images):
        name = partial(prediction.name_slice, data)
        single = prediction.predict_slices(network, data.images, rows, title="one slice", name=name, **settings)
    flair = dataset.LazyRows(data.images, rows, FLAIR)
    return {"model": whole, "one_slice": single, "flair_only": whole, "flair": flair}


def _describe_protocol(inputs: ExternalInputs, data: dataset.Dataset, model: Manifest | None, mirror: bool) -> dict:
    """See evaluate.describe_protocol. All patients are test patients."""
    marks = [MARK]
    if inputs.patient == "each_image":
        marks.append(manifest.EACH_IMAGE)
    if model:
        marks += fingerprints.marks(model.seen, data.images, data.rows("test"))
        marks += [f"the model: {mark}" for mark in model.protocol.marks if mark != fingerprints.SEEN]
    own = manifest.protocol(model, mirror) if model else {"tta": "none"}
    return {
        "source": "folder", "unit": "patient", "grid": data.images.shape[1],
        "patients": {"test": data.counts("patient")["test"]}, "slices": {"test": len(data.slices)},
        **{key: own[key] for key in ("weights_sha256", "tta") if key in own}, "marks": marks,
    }  # fmt: skip


@contextlib.contextmanager
def _open_folder(out: Path) -> Iterator[None]:
    """Open the folder for one process at a time: two would mix their files. A new one that stays empty is removed.

    Raises:
        DataError: it is neither new, nor empty, nor written by this command.
        MachineError: another process writes there.
    """
    _check_out(out)
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    what = "is in use by another brainseg evaluate"
    with files.hold(out / LOCK, MachineError(out, what, "wait for it, or name another folder: -o DIR")):
        try:
            yield
        finally:
            if is_new:
                _remove_if_empty(out)


def _remove_if_empty(out: Path) -> None:
    """Remove the folder of a run that failed before it wrote anything."""
    with contextlib.suppress(OSError):  # another process has begun there
        if [path.name for path in out.iterdir()] == [LOCK]:
            (out / LOCK).unlink()
            out.rmdir()


def _check_out(out: Path) -> None:
    """Refuse a folder that is neither new, nor empty, nor written by this command."""
    if out.exists() and not out.is_dir():
        raise DataError(out, "is a file", "name a folder: -o DIR")
    numbers = out / "evaluation.json"  # written first, so a killed run leaves its temporary alone
    found = [path.name for path in out.iterdir()] if out.exists() else []
    others = [name for name in found if name != LOCK and not files.is_temporary(name, numbers.name)]
    if others and not _is_ours(numbers):
        raise DataError(out, "holds other things, which would be mixed with the results", "name a new folder: -o DIR")


def _is_ours(path: Path) -> bool:
    try:
        return MARK in json.loads(path.read_text(encoding="utf-8"))["protocol"]["marks"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(scored: ExternalScores, out: Path) -> None:
    """Write the numbers and the tables, each file whole or not at all."""
    found = {f"{name}.csv": getattr(scored, name) for name in ("per_patient", "per_slice", "calibration")}
    texts = {name: tables.to_text(table) for name, table in found.items() if table is not None}
    report = scored.report.model_copy(update={"tables": tables.digests(texts)})
    files.write_text(out / "evaluation.json", results.text(report))
    for name in found:
        if name in texts:
            files.write_text(out / name, texts[name])
        else:
            (out / name).unlink(missing_ok=True)


def _draw(scored: ExternalScores, temporary: Path, probability: np.ndarray, plots: Path, params: config.Render) -> None:
    """Draw the pipeline's pictures, except those of the training."""
    predictions = temporary / "probabilities.npz"
    np.savez(predictions, row=np.arange(len(probability)), probability=probability)
    picked = gallery.pick(scored.per_patient, scored.per_slice, params.patients)
    slices = rendering.load_picked(
        picked, scored.per_slice, scored.report.protocol, temporary / "processed", predictions
    )  # fmt: skip
    with files.replacing(plots) as new:
        new.mkdir()
        charts.draw_patients(scored.per_patient, new / "patients.png", params.dpi)
        charts.draw_size(scored.per_patient, new / "size.png", params.dpi)
        if scored.calibration is not None:
            charts.draw_calibration(scored.calibration, new / "calibration.png", params.dpi)
        gallery.draw_gallery(gallery.build_rows(picked, *slices), new / "gallery.png", params.dpi)
