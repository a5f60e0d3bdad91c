"""May a model take the champion's place? It must compute what was trained, not score worse, and be as well calibrated.

Both sides are folders that hold what evaluate and export wrote: per_patient.csv, evaluation.json, export.json.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

from brainseg.errors import DataError
from brainseg.experiments import comparison, revision
from brainseg.inference.onnx_session import MAX_DICE_DIFFERENCE, MAX_DIFFERENCE

# Of the calibration error of pixels given a tenth or more: with nothing changed but the fold it moved by 0.017 (0.074,
# 0.092) and 0.027 (0.062, 0.089), between recipes of full length on one split by 0.022 (0.089 to 0.111). All are in
# metrics/experiments.
MAX_MORE_ECE = 0.02
NOT_COMPARED = "not compared"
KEEP = "keep the champion, or register a model that is not worse"


class Gate(NamedTuple):
    """One condition: whether it holds, by which figures, and the way out where it does not."""

    name: str
    passed: bool
    figures: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.name:<13}{self.figures}"


def judge(new: Path, champion: Path | None, *, anew: bool = False) -> list[Gate]:
    """All gates, also behind one that does not hold.

    Args:
        champion: None for the first model, which has only to compute what was trained.
        anew: pass a model of other patients or another protocol, which cannot be compared. One that can be is.

    Raises:
        DataError: damaged or missing numbers on either side.
    """
    gates = [parity(read(new / "export.json"))]
    if champion is None:
        first = "the first model: there is no champion"
        return [*gates, Gate("not worse", True, first), Gate("calibration", True, first)]
    compared, reason = _compared(new, champion)
    if compared is None and anew:
        return [*gates, *(Gate(name, True, f"{NOT_COMPARED}: {reason}") for name in ("not worse", "calibration"))]
    if compared is None:
        fix = "score it on the champion's test patients, or begin a new line of models: brainseg register --anew"
        return [*gates, Gate("not worse", False, f"{NOT_COMPARED}: {reason}", fix)]
    blocks = [read(side / "evaluation.json")["test"]["calibration"] for side in (new, champion)]
    return [*gates, not_worse(compared), calibration(*(block["ece_from_tenth"] for block in blocks))]


def parity(export: dict) -> Gate:
    """Whether the float32 file answers as the trained network did, as the export stage measured it."""
    found = export["float32"]
    largest, dice = found["max_abs_difference"], found["dice_difference"]
    limit = MAX_DICE_DIFFERENCE["float32"]
    passed = _at_most(largest, MAX_DIFFERENCE) and _at_most(dice, limit)
    figures = f"probabilities differ by at most {_said(largest)} (limit {MAX_DIFFERENCE:g}), Dice by {_said(dice)} "
    fix = "export anew: dvc repro export; metrics/export.json has what was measured"
    return Gate("parity", passed, f"{figures}(limit {limit:g})", "" if passed else fix)


def not_worse(compared: comparison.Comparison) -> Gate:
    """Volume Dice, patient by patient, by the rule of ``brainseg compare``."""
    dice = compared.differences[0]
    passed = dice.verdict != comparison.WORSE and dice.n > 0
    figures = (
        f"volume Dice {dice.mean_b:.3f}, champion {dice.mean_a:.3f}, {dice.mean:+.3f} [{dice.lo:+.3f}, {dice.hi:+.3f}]"
    )
    return Gate(
        "not worse", passed, f"{figures}, p {_p(dice.p)}, {dice.n} patients: {dice.verdict}", "" if passed else KEEP
    )


def calibration(new: float | None, champion: float | None) -> Gate:
    """How far probabilities of a tenth or more are from the share of tumour; undefined where none is as high."""
    passed = champion is None or (new is not None and new <= champion + MAX_MORE_ECE)
    figures = f"error {_said(new)}, champion {_said(champion)}, at most {MAX_MORE_ECE:g} more"
    fix = f"{KEEP}; metrics/calibration.csv shows where its probabilities are off"
    return Gate("calibration", passed, figures, "" if passed else fix)


def _compared(new: Path, champion: Path) -> tuple[comparison.Comparison | None, str]:
    """The comparison, or why there can be none: other patients, another grid, another protocol."""
    a, b = (revision.scores(str(side)) for side in (champion, new))
    try:
        compared = comparison.compare(a._replace(name="the champion"), b._replace(name="this model"))
    except DataError as error:
        return None, "; ".join(f"{problem.path}: {problem.what}" for problem in error.problems)
    return (None, "; ".join(compared.warnings)) if compared.warnings else (compared, "")


def read(path: Path) -> dict:
    """One of the folder's JSON files. Raises DataError: there is none, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(path, "there is no such file", "run: dvc repro") from None
    except ValueError as error:
        raise DataError(path, f"is damaged: {error}", revision.REMEDY) from None


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _at_most(value: float | None, limit: float) -> bool:
    return value is not None and math.isfinite(value) and abs(value) <= limit


def _said(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"
