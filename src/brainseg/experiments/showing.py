"""Pictures of test patients, each as the model that never saw it outlined it, out of one run or several."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from brainseg.errors import Problem, raise_all
from brainseg.experiments import revision
from brainseg.reporting import gallery, rendering

PREDICTIONS = "data/predictions/probabilities.npz"
DPI = 110


class Run(NamedTuple):
    """Where predictions are, and what they scored: rows of per_patient.csv and per_slice.csv, a protocol."""

    name: str
    patients: pd.DataFrame
    slices: pd.DataFrame
    protocol: dict


def show(patients: Sequence[str], names: Sequence[str], path: Path, root: Path = Path()) -> str:
    """Draw ``patients`` in that order, one slice each, and return a closing line.

    Args:
        patients: names of test patients, or a part of a name that no other has.
        names: what ``git`` or ``dvc exp`` calls the runs that tested them, or "workspace".

    Raises:
        DataError: no such patient was tested, several match, or DVC's cache lacks the predictions.
    """
    runs = [_read(name, root) for name in names]
    tested = pd.concat([run.patients for run in runs], ignore_index=True)
    slices = pd.concat([run.slices for run in runs], ignore_index=True)
    found = {part: _matching(part, tested["patient"]) for part in patients}
    raise_all([_problem(part, them, ", ".join(names)) for part, them in found.items() if len(them) != 1])
    asked = list(dict.fromkeys(them[0] for them in found.values()))
    draw(gallery.named(tested, slices, asked), runs, root, path)
    return f"{len(asked)} patient{'s' if len(asked) > 1 else ''} shown; {path}"


def draw(picked: pd.DataFrame, runs: Sequence[Run], root: Path, path: Path) -> None:
    """A gallery of what ``gallery.pick`` or ``named`` picked, each patient from the run that tested it."""
    arrays: dict[int, tuple] = {}
    for run in runs:
        mine = picked[picked["patient"].isin(run.patients["patient"])]
        if mine.empty:
            continue
        with revision.fetched(PREDICTIONS, run.name, root) as predictions:
            found = rendering.scored(mine, run.slices, run.protocol, root / "data/processed", predictions)
        arrays |= zip(mine.index, zip(*found, strict=True), strict=True)
    in_order = zip(*(arrays[i] for i in picked.index), strict=True)
    gallery.gallery(gallery.cases(picked, *map(np.stack, in_order)), path, DPI)


def _read(name: str, root: Path) -> Run:
    read = revision.reader(name, root)
    patients, slices = (revision.parse_table(read(f"metrics/per_{unit}.csv")) for unit in ("patient", "slice"))
    protocol = json.loads(read("metrics/evaluation.json"))["protocol"]
    return Run(name, patients[patients["subset"] == "test"], slices[slices["subset"] == "test"], protocol)


def _matching(part: str, tested: pd.Series) -> list[str]:
    """Whom ``part`` may mean: one patient, where it is right."""
    return sorted(tested[tested == part]) or sorted(tested[tested.str.contains(part, regex=False)])


def _problem(part: str, found: list[str], runs: str) -> Problem:
    if not found:
        return Problem(part, f"no test patient of {runs} is called so", "metrics/per_patient.csv lists them")
    if found[0] == found[-1]:
        return Problem(part, f"{found[0]} was tested by several of {runs}", "name one of these by --of")
    return Problem(part, f"{len(found)} test patients have this in their names: {', '.join(found[:5])}", "write more")
