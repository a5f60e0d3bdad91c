"""What a Git revision, a branch, a DVC experiment or the workspace scored, read through DVC."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from brainseg import config
from brainseg.comparison import Scores, changed
from brainseg.errors import DataError

WORKSPACE = "workspace"
TEST = ("metrics/per_patient.csv", "metrics/evaluation.json")
NUMBERS = ("split", "train", "evaluate")  # the stages that make numbers out of the prepared data
BLOCKS = ("split", "train", "network", "augmentation", "evaluate")  # their parameters, but for the number of the fold
OUT_OF_FOLD = ("metrics/cross_validation/per_patient.csv", "metrics/cross_validation/summary.json")


def scores(name: str, root: Path = Path(), *, cross_validation: bool = False) -> Scores:
    """The test patients of ``name`` ("workspace", or what ``git`` or ``dvc exp`` calls it), or all out of fold.

    The parameters are those that made the scores, whatever params.yaml says by now.

    Raises:
        DataError: no such revision, nothing was evaluated there, or a cross-validation of other data or parameters.
    """
    read = reader(name, root)
    table, report = OUT_OF_FOLD if cross_validation else TEST
    patients = parse_table(read(table))
    facts = json.loads(read(report))
    made_with = facts["params"] if cross_validation else params(read)
    warnings = _inherited(name, facts, read) if cross_validation else []
    tested = patients[patients["subset"] == "test"].reset_index(drop=True)
    return Scores(name, tested, facts["protocol"], made_with, warnings)


def _inherited(name: str, summary: dict, read: Callable[[str], str]) -> list[str]:
    """A cross-validation is committed beside params.yaml and code, which may have moved on since.

    Returns:
        What to warn of: code that was edited since, which may or may not change the numbers.

    Raises:
        DataError: data or parameters differ: the numbers are those of something else.
    """
    if "made_from" not in summary:
        what = "its cross-validation is of a version that did not note what it was made from"
        raise DataError(name, what, "make it anew there, or compare with a later revision")
    now, then = sources(read), summary["made_from"]
    recipe = merged(config.parse_yaml(read("params.yaml"), f"{name}:params.yaml"), summary["overrides"])
    made = {block: summary["params"][block] for block in BLOCKS}
    here = {block: {key: recipe.get(block, {}).get(key) for key in values} for block, values in made.items()}
    differ = sorted(changed(made, here)) + (["the data"] if now["data"] != then["data"] else [])
    if differ:
        what = f"its cross-validation was made with other values of {', '.join(differ)}"
        raise DataError(name, what, "run make cross-validate there and commit what it writes")
    edited = sorted({path for path, _ in now["code"].items() ^ then["code"].items()})
    since = f"the cross-validation of {name} is older than its code: {', '.join(edited)} changed since"
    return [since] if edited else []


def params(read: Callable[[str], str]) -> dict:
    """The parameters in dvc.lock, nested as in params.yaml: of a stage that was run, not of a file that was edited."""
    found: dict = {}
    for stage in config.parse_yaml(read("dvc.lock"), "dvc.lock")["stages"].values():
        for key, value in stage.get("params", {}).get("params.yaml", {}).items():
            *blocks, last = key.split(".")
            place = found
            for block in blocks:
                place = place.setdefault(block, {})
            place[last] = {**place.get(last, {}), **value} if isinstance(value, dict) else value
    return found


def merged(params: dict, overrides: dict) -> dict:
    """``params`` with the values of ``overrides`` in their blocks."""
    blocks = {name: {**params.get(name, {}), **values} for name, values in overrides.items()}
    return {**params, **blocks}


def key(read: Callable[[str], str], overrides: dict) -> str:
    """A digest of what determines a cross-validation's numbers: data, code and parameters, not which fold is tested.

    Args:
        read: from a path to the text of a revision, an experiment or the workspace, see ``revision.reader``.
    """
    raw = merged(config.parse_yaml(read("params.yaml"), "params.yaml"), overrides)
    params = config.check(raw, Path("params.yaml")).model_dump()
    params["split"]["test_fold"] = None
    facts = sources(read) | {"params": {block: params[block] for block in BLOCKS}}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def sources(read: Callable[[str], str]) -> dict:
    """What numbers are made from beside parameters: digests of the prepared data and of each file of code, commands."""
    pipeline = config.parse_yaml(read("dvc.yaml"), "dvc.yaml")["stages"]
    stages = [pipeline[name] for name in NUMBERS]
    code = sorted({dep for stage in stages for dep in stage["deps"] if dep.startswith(("src/", "stages/"))})
    return {
        "data": [out["md5"] for out in config.parse_yaml(read("dvc.lock"), "dvc.lock")["stages"]["preprocess"]["outs"]],
        "code": {path: hashlib.sha256(read(path).encode()).hexdigest() for path in code},
        "commands": [stage["cmd"] for stage in stages],
    }


def parse_table(text: str) -> pd.DataFrame:
    """A table of scores: ids and names as they are written, an empty cell of a number as NaN."""
    names = {"patient": str, "institution": str, "subset": str}
    table = pd.read_csv(io.StringIO(text), dtype=names, keep_default_na=False, na_values=[""])
    return table.fillna(dict.fromkeys(names, ""))


def reader(name: str, root: Path = Path()) -> Callable[[str], str]:
    """A function from a path in the repository to its text in ``name``."""
    filesystem = None if name == WORKSPACE else _filesystem(name, root)

    def read(path: str) -> str:
        try:
            if filesystem is None:
                return (root / path).read_text(encoding="utf-8")
            return filesystem.read_text(path, encoding="utf-8")
        except FileNotFoundError:
            command = "make cross-validate" if path in OUT_OF_FOLD else "dvc repro"
            fix = f"run {command}" if name == WORKSPACE else f"run {command} there and commit what it writes"
            raise DataError(f"{name}:{path}", "there is no such file", fix) from None

    return read


def _filesystem(name: str, root: Path):
    from dvc.api import DVCFileSystem
    from dvc.scm import RevError, SCMError

    reason = "a name of one is needed"
    if name and ":" not in name:  # REVISION:PATH is no revision
        filesystem = DVCFileSystem(str(root.resolve()), rev=name)
        try:
            if filesystem.repo:  # opened only now
                return filesystem
        except (RevError, SCMError) as error:
            reason = " ".join(str(error).split())
    fix = "git log --oneline --all lists revisions, dvc exp list --all experiments"
    raise DataError(name or "(no name)", f"there is no such revision, branch or experiment ({reason})", fix)
