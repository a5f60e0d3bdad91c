"""Write docs/reference/model-card.md from a run's manifest, evaluation, and cross-validation if there is one."""

from pathlib import Path

from brainseg import files
from brainseg.data import inputs
from brainseg.errors import IntegrityError
from brainseg.evaluation import results
from brainseg.models import manifest
from brainseg.reporting import model_card

CARD = Path("docs/reference/model-card.md")
MANIFEST, EVALUATION = Path("models/unet.json"), Path("metrics/evaluation.json")
OUT_OF_FOLD = Path("metrics/cross_validation/summary.json")


def write(path: Path = CARD, root: Path = Path()) -> str:
    """Write the card of the model in ``root``; return a line for the terminal.

    Raises:
        IntegrityError: there is no model, the numbers are of another one, or the files are not those that were made,
            that of a cross-validation among them.
        DataError: there are no numbers.
    """
    inputs.verify((str(MANIFEST), str(EVALUATION)), root)
    evaluation, model = results.read(root / EVALUATION, results.Evaluation), manifest.read(root / MANIFEST)
    scored, trained = evaluation.protocol.weights_sha256, model.weights_sha256
    if scored != trained:
        what = f"its numbers are of the weights {scored}, {MANIFEST} is of {trained}"
        raise IntegrityError(root / EVALUATION, what, "run: dvc repro")
    folds = root / OUT_OF_FOLD
    out_of_fold = results.read(folds, results.CrossValidationSummary) if folds.is_file() else None
    facts = model_card.collect_facts(model, evaluation)
    fits = out_of_fold and model_card.is_same_recipe(facts, out_of_fold) and _is_same_data(out_of_fold, root)
    files.write_text(path, model_card.render_document(facts, out_of_fold if fits else None))
    note = f"; {OUT_OF_FOLD} is of another recipe or data and was left out" if out_of_fold and not fits else ""
    return f"model card of {trained[:12]}: {path}{note}"


def _is_same_data(out_of_fold: results.CrossValidationSummary, root: Path) -> bool:
    """Whether the folds were made from what the model was trained on, and from nothing older than what is there.

    Corrected masks leave the numbers of patients and slices as they are. Without dvc.lock there is nothing to compare.
    """
    trained_on = inputs.read_training_data(root)
    return trained_on is None or out_of_fold.made_from.data == trained_on
