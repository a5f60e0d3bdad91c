"""The conditions for a new champion: it computes what was trained, does not score worse, and is as well calibrated.

The new model and the champion are each a folder with the files that evaluate and export wrote: per_patient.csv,
evaluation.json, export.json.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from brainseg.errors import BrainsegError, DataError
from brainseg.experiments import comparison, revision
from brainseg.inference.onnx_session import MAX_DICE_DIFFERENCE, MAX_DIFFERENCE

# Limits the calibration error of pixels with a probability of 0.1 or more. Another fold alone changes it by 0.017
# (0.074, 0.092) and 0.027 (0.062, 0.089); recipes of full length on one split differ by 0.022 (0.089 to 0.111).
# All are in metrics/experiments/summary.csv.
MAX_MORE_ECE = 0.02
NOT_COMPARED = "not compared"
ALIAS = "champion"
OTHER_CHAMPION = f"give the alias {ALIAS} to another version that brainseg register made, or delete it in MLflow"
KEEP = "keep the champion, or register a model that is not worse"


class Gate(NamedTuple):
    """One condition: whether it holds, the figures that decide it, and what to do if it does not hold."""

    name: str
    passed: bool
    figures: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.name:<13}{self.figures}"


def check_gates(new: Path, champion: Path | None, *, new_line: bool = False) -> list[Gate]:
    """Check all gates, also those after one that fails.

    Args:
        champion: None for the first model, which only has to compute what was trained.
        new_line: pass a model that was scored on other patients or by another protocol and cannot be compared. A model
            that can be compared is compared.

    Raises:
        DataError: damaged or missing numbers on either side. IntegrityError: a table does not fit its report.
    """
    gates = [check_parity(read_json(new / "export.json"))]
    if champion is None:
        first = "the first model: there is no champion"
        return [*gates, Gate("not worse", True, first), Gate("calibration", True, first)]
    compared, reason = _compare_with_champion(new, champion)
    if compared is None and new_line:
        return [*gates, *(Gate(name, True, f"{NOT_COMPARED}: {reason}") for name in ("not worse", "calibration"))]
    if compared is None:
        fix = "score it on the champion's test patients, or start a new line of models: brainseg register --new-line"
        return [*gates, Gate("not worse", False, f"{NOT_COMPARED}: {reason}", fix)]
    with _as_champion(champion):
        error = _read_error(champion)
    return [*gates, check_not_worse(compared), check_calibration(_read_error(new), error)]


def check_parity(export: dict) -> Gate:
    """Whether the float32 file gives the same answers as the trained network, as measured by the export stage."""
    found = export["float32"]
    largest, dice = found["max_abs_difference"], found["dice_difference"]
    limit = MAX_DICE_DIFFERENCE["float32"]
    passed = _is_at_most(largest, MAX_DIFFERENCE) and _is_at_most(dice, limit)
    probability = f"probabilities differ by at most {_format_number(largest)} (limit {MAX_DIFFERENCE:g})"
    fix = "export again: dvc repro export; metrics/export.json has the measured differences"
    figures = f"{probability}, Dice by {_format_number(dice)} (limit {limit:g})"
    return Gate("parity", passed, figures, "" if passed else fix)


def check_not_worse(compared: comparison.Comparison) -> Gate:
    """Volume Dice, paired by patient, by the rule of ``brainseg compare``."""
    dice = compared.differences[0]
    passed = dice.verdict != comparison.WORSE and dice.n > 0
    means = f"volume Dice {dice.mean_b:.3f}, champion {dice.mean_a:.3f}, {dice.n} patients"
    return Gate("not worse", passed, f"{means}: {comparison.describe(dice)}", "" if passed else KEEP)


def check_calibration(new: float | None, champion: float | None) -> Gate:
    """The calibration error of pixels with a probability of 0.1 or more; None if there is no such pixel."""
    passed = champion is None or (new is not None and new <= champion + MAX_MORE_ECE)
    figures = f"error {_format_number(new)}, champion {_format_number(champion)}, at most {MAX_MORE_ECE:g} more"
    fix = f"{KEEP}; metrics/calibration.csv has predicted and observed frequencies"
    return Gate("calibration", passed, figures, "" if passed else fix)


def _compare_with_champion(new: Path, champion: Path) -> tuple[comparison.Comparison | None, str]:
    """The comparison, or None and the reason: other patients, another grid, another protocol."""
    with _as_champion(champion):
        a = revision.scores(str(champion))
    b = revision.scores(str(new))
    try:
        compared = comparison.compare(a._replace(name="the champion"), b._replace(name="this model"))
    except DataError as error:
        return None, "; ".join(f"{problem.path}: {problem.what}" for problem in error.problems)
    return (None, "; ".join(compared.warnings)) if compared.warnings else (compared, "")


@contextlib.contextmanager
def _as_champion(folder: Path) -> Iterator[None]:
    """Errors about its numbers, which lie in a temporary folder and come from MLflow: no dvc repro brings them back."""
    try:
        yield
    except BrainsegError as error:
        told = [each._replace(path=each.path.replace(str(folder), "the champion", 1)) for each in error.problems]
        raise type(error)("", problems=[each._replace(fix=OTHER_CHAMPION) for each in told]) from None


def _read_error(folder: Path) -> float | None:
    """The calibration error in evaluation.json, of any version."""
    path = folder / "evaluation.json"
    try:
        return read_json(path)["test"]["calibration"]["ece_from_tenth"]
    except (KeyError, TypeError):
        raise DataError(path, "has no test.calibration.ece_from_tenth", "run: dvc repro evaluate") from None


def read_json(path: Path) -> dict:
    """Read a JSON file. Raises DataError: it does not exist or is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(path, "there is no such file", "run: dvc repro") from None
    except ValueError as error:
        raise DataError(path, f"is damaged: {error}", revision.REMEDY) from None


def _is_at_most(value: float | None, limit: float) -> bool:
    return value is not None and math.isfinite(value) and abs(value) <= limit


def _format_number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"
