"""Pictures of test patients from one or more runs, each with the outline of a model that has not seen it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel

from brainseg import config
from brainseg.data import inputs
from brainseg.errors import DataError, Problem, raise_all
from brainseg.evaluation.results import EvaluationProtocol
from brainseg.experiments import revision
from brainseg.reporting import gallery, rendering

PREDICTIONS, PROCESSED = "data/predictions/probabilities.npz", "data/processed"
DPI = 110


class Run(NamedTuple):
    """A run: its name, the test rows of per_patient.csv and per_slice.csv, and its protocol."""

    name: str
    patients: pd.DataFrame
    slices: pd.DataFrame
    protocol: EvaluationProtocol


class Report(BaseModel):
    """What is read of evaluation.json, of any version."""

    protocol: EvaluationProtocol


def show(patients: Sequence[str], names: Sequence[str], path: Path, root: Path = Path()) -> str:
    """Draw ``patients`` in this order, one slice each, and return a closing line.

    Args:
        patients: names of test patients, or parts of names that fit only one patient.
        names: the runs that tested them: revisions, experiments or "workspace".

    Raises:
        DataError: no test patient fits a name, several do, or DVC's cache lacks the predictions.
    """
    runs = [_read_run(name, root) for name in names]
    tested = pd.concat([run.patients for run in runs], ignore_index=True)
    slices = pd.concat([run.slices for run in runs], ignore_index=True)
    found = {part: _match(part, tested["patient"]) for part in patients}
    raise_all([_describe_problem(part, them, ", ".join(names)) for part, them in found.items() if len(them) != 1])
    asked = list(dict.fromkeys(them[0] for them in found.values()))
    draw(gallery.pick_named(tested, slices, asked), runs, root, path)
    return f"{len(asked)} patient{'s' if len(asked) > 1 else ''} shown; {path}"


def draw(picked: pd.DataFrame, runs: Sequence[Run], root: Path, path: Path) -> None:
    """Draw the gallery of the picked slices, each patient with the prediction of the run that tested it.

    ``picked``: rows of ``gallery.pick`` or of ``gallery.pick_named``.
    """
    inputs.verify((f"{PROCESSED}/images.npy", f"{PROCESSED}/masks.npy"), root)
    arrays: dict[int, tuple] = {}
    for run in runs:
        mine = picked[picked["patient"].isin(run.patients["patient"])]
        if mine.empty:
            continue
        with revision.fetched(PREDICTIONS, run.name, root) as predictions:
            found = rendering.load_picked(mine, run.slices, run.protocol, root / PROCESSED, predictions)
        arrays |= zip(mine.index, zip(*found, strict=True), strict=True)
    in_order = zip(*(arrays[i] for i in picked.index), strict=True)
    gallery.draw_gallery(gallery.build_rows(picked, *map(np.stack, in_order)), path, DPI)


def _read_run(name: str, root: Path) -> Run:
    read = revision.reader(name, root)
    patients, slices = (revision.parse_table(read(f"metrics/per_{unit}.csv")) for unit in ("patient", "slice"))
    try:
        protocol = Report.model_validate_json(read("metrics/evaluation.json")).protocol
    except ValueError as error:
        what = f"is damaged or of another version: {config.reason(error)}"
        raise DataError(f"{name}:metrics/evaluation.json", what, revision.REMEDY) from None
    return Run(name, patients[patients["subset"] == "test"], slices[slices["subset"] == "test"], protocol)


def _match(part: str, tested: pd.Series) -> list[str]:
    """The test patients that ``part`` fits: the one with this name, else all that contain it."""
    return sorted(tested[tested == part]) or sorted(tested[tested.str.contains(part, regex=False)])


def _describe_problem(part: str, found: list[str], runs: str) -> Problem:
    if not found:
        return Problem(part, f"no test patient of {runs} has this name", "metrics/per_patient.csv lists them")
    if found[0] == found[-1]:
        return Problem(part, f"{found[0]} was tested by several of {runs}", "name one of these with --of")
    return Problem(part, f"{len(found)} test patients have this in their names: {', '.join(found[:5])}", "write more")
