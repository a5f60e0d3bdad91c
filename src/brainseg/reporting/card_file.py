"""docs/model-card.md from the files of a run: its model's manifest, its numbers, and those out of fold, if any."""

import json
from pathlib import Path

from brainseg import files
from brainseg.errors import DataError, IntegrityError
from brainseg.models import manifest
from brainseg.reporting import model_card

CARD = Path("docs/model-card.md")
MANIFEST, EVALUATION = Path("models/unet.json"), Path("metrics/evaluation.json")
OUT_OF_FOLD = Path("metrics/cross_validation/summary.json")


def write(path: Path = CARD, root: Path = Path()) -> str:
    """Write the card of the model in ``root`` and return a line for the terminal.

    Raises:
        IntegrityError: no model, or numbers of another one. DataError: no numbers.
    """
    evaluation, model = _read(root / EVALUATION), manifest.read(root / MANIFEST)
    scored, trained = evaluation["protocol"].get("weights_sha256"), model["weights_sha256"]
    if scored != trained:
        what = f"its numbers are of the weights {scored}, {MANIFEST} is of {trained}"
        raise IntegrityError(root / EVALUATION, what, "run: dvc repro")
    out_of_fold = _read(root / OUT_OF_FOLD) if (root / OUT_OF_FOLD).is_file() else None
    facts = model_card.facts(model, evaluation)
    left_out = out_of_fold is not None and not model_card.same_recipe(facts, out_of_fold)
    files.write_text(path, model_card.document(facts, out_of_fold))
    note = f"; {OUT_OF_FOLD} is of another recipe or data and was left out" if left_out else ""
    return f"model card of {trained[:12]}: {path}{note}"


def _read(path: Path) -> dict:
    fix = "run: dvc repro, or git restore it"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(path, "there is no such file", fix) from None
    except ValueError as error:
        raise DataError(path, f"is damaged: {error}", fix) from None
