"""What a Git revision, a branch, a DVC experiment or the workspace scored, read through DVC."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from brainseg import config
from brainseg.comparison import Scores
from brainseg.errors import DataError

WORKSPACE = "workspace"
TEST = ("metrics/per_patient.csv", "metrics/evaluation.json")
OUT_OF_FOLD = ("metrics/cross_validation/per_patient.csv", "metrics/cross_validation/summary.json")


def scores(name: str, root: Path = Path(), *, cross_validation: bool = False) -> Scores:
    """The test patients of ``name`` ("workspace", or what ``git`` or ``dvc exp`` calls it), or all out of fold.

    Raises:
        DataError: no such revision, or nothing was evaluated there.
    """
    read = reader(name, root)
    table, report = OUT_OF_FOLD if cross_validation else TEST
    patients = parse_table(read(table))
    protocol = json.loads(read(report))["protocol"]
    params = config.parse_yaml(read("params.yaml"), f"{name}:params.yaml")
    return Scores(name, patients[patients["subset"] == "test"].reset_index(drop=True), protocol, params)


def parse_table(text: str) -> pd.DataFrame:
    """A table of scores: ids and names as they are written, an empty cell of a number as NaN."""
    names = {"patient": str, "institution": str, "subset": str}
    table = pd.read_csv(io.StringIO(text), dtype=names, keep_default_na=False, na_values=[""])
    return table.fillna(dict.fromkeys(names, ""))


def reader(name: str, root: Path = Path()) -> Callable[[str], str]:
    """A function from a path in the repository to its text in ``name``."""
    fix = "run dvc repro there, and commit metrics/" if name != WORKSPACE else "run dvc repro"
    filesystem = None if name == WORKSPACE else _filesystem(name, root)

    def read(path: str) -> str:
        try:
            if filesystem is None:
                return (root / path).read_text(encoding="utf-8")
            return filesystem.read_text(path, encoding="utf-8")
        except FileNotFoundError:
            raise DataError(f"{name}:{path}", "there is no such file", fix) from None

    return read


def _filesystem(name: str, root: Path):
    from dvc.api import DVCFileSystem
    from dvc.scm import RevError

    filesystem = DVCFileSystem(str(root.resolve()), rev=name)
    try:
        assert filesystem.repo  # opened only now
    except RevError:
        fix = "git log --oneline --all lists revisions, dvc exp list experiments"
        raise DataError(name, "there is no such revision, branch or experiment", fix) from None
    return filesystem
