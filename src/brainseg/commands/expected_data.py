"""What a run's data are, or will be, as far as it can be known in a second: `brainseg check`."""

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from brainseg.errors import IntegrityError, guard
from brainseg.experiments.planning import Plan

ARCHIVE, TABLE = Path("data/raw/slices.zip"), Path("data/processed/slices.csv")


class ExpectedData(NamedTuple):
    """``told``: in words; ``slices`` and ``largest``, of a patient, are 0 where they are not known.

    ``archive``: bytes of data/raw/slices.zip.
    """

    told: str
    patients: int = 0
    slices: int = 0
    largest: int = 0
    archive: int = 0


def find_prepared(plan: Plan, root: Path) -> ExpectedData | None:
    """The prepared data; None if there are none, or if they would be prepared again."""
    if plan.runs("preprocess") or not (root / TABLE).is_file():
        return None
    return describe(f"{TABLE.parent} is prepared", _read_column(root / TABLE, "patient"))


def count_subsets(split: Path) -> dict[str, int]:
    """The slices of train, val and test in split.csv."""
    return dict(Counter(_read_column(split, "subset")))


def describe(told: str, patients: list[str], archive_bytes: int = 0) -> ExpectedData:
    """``told`` with the counts of ``patients``, that of each slice."""
    counts = Counter(patients)
    told = f"{told}: {len(counts):,} patients, {len(patients):,} slices"
    return ExpectedData(told, len(counts), len(patients), max(counts.values(), default=0), archive_bytes)


def _read_column(path: Path, name: str) -> list[str]:
    """Without pandas, which takes half a second to import. Raises IntegrityError: the table is damaged."""
    with guard(path, "run: dvc repro", IntegrityError), open(path, encoding="utf-8", newline="") as handle:
        return [row[name] for row in csv.DictReader(handle)]
