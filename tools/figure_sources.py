"""What the figures of the documents are read from: the files of results by short names, and what is worked out of them.

| source | where a path of it leads |
| --- | --- |
| ``evaluation``, ``folds``, ``export`` | the report of the committed run, of its folds, of its exported files |
| ``search`` | what the search of recipes/tune/default.yaml found |
| a folder of metrics/experiments, as ``scalp25`` | the report that is kept there |
| ``tried`` | metrics/experiments/summary.csv: run, column |
| ``patients RUN`` | each patient of a run, as CS_5395, and a column |
| ``scores RUN`` | a metric of the test patients: ``dice.mean``, ``dice.median``; ``A+B``: of both runs together |
| ``validated RUN`` | the same of its validation patients |
| ``compare A B`` | what ``brainseg compare`` says of a metric: ``dice``, ``dice.verdict``, ``dice.p``, ``dice.wins`` |
| ``spread RUN`` | how far the means of its folds lie apart: ``dice``; ``A+B``: how far columns of ``tried`` do |
| ``slices`` | of the committed run's test slices: ``empty_as_zero``, their mean Dice if a right empty one counts 0 |
| ``interval`` | of a volume out of fold: ``least``, ``largest``; what it covers: ``fold``, ``institution`` |
| ``packed`` | the page's examples in weights/: ``megabytes`` |

A RUN is ``evaluation``, ``folds`` or a folder of metrics/experiments.
"""

import functools
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from brainseg import config
from brainseg.experiments import comparison, revision
from brainseg.export import volume_interval
from tools import make_examples

REPORTS = {
    "evaluation": "metrics/evaluation.json",
    "folds": "metrics/cross_validation/summary.json",
    "export": "metrics/export.json",
    "search": "metrics/tune/default/summary.json",
}
FOLDERS = {"evaluation": "metrics", "folds": "metrics/cross_validation"}
KEPT = "metrics/experiments"


@functools.cache
def read(source: str, root: Path) -> Any:
    """What stands behind the name of a source: dictionaries and lists, with numbers and words at their ends.

    Raises:
        FileNotFoundError: there is no such source. BrainsegError: its files are damaged.
    """
    kind, *names = source.split()
    if kind in MADE:
        return MADE[kind](root, *names)
    folder = root / KEPT / kind
    kept = "evaluation.json" if (folder / "evaluation.json").exists() else "summary.json"
    path = root / REPORTS[kind] if kind in REPORTS else folder / kept
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def _scores(run: str, root: Path, validation: bool = False) -> comparison.Scores:
    """The test or validation patients of a run, or of several that ``+`` joins."""
    folders = [FOLDERS.get(name, f"{KEPT}/{name}") for name in run.split("+")]
    first, *others = (revision.scores(folder, root, validation=validation) for folder in folders)
    return first._replace(patients=pd.concat([first.patients, *(each.patients for each in others)]))


def _tried(root: Path) -> dict[str, dict[str, float]]:
    return pd.read_csv(root / KEPT / "summary.csv", index_col="run").to_dict("index")


def _patients(root: Path, run: str) -> dict[str, dict[str, Any]]:
    table = _scores(run, root).patients
    return table.assign(patient=table["patient"].str[5:12]).set_index("patient").to_dict("index")


def _describe(root: Path, run: str, validation: bool = False) -> dict[str, dict[str, float]]:
    table = _scores(run, root, validation).patients
    metrics = [name for name in (*comparison.METRICS, *comparison.LATER_METRICS) if name in table]
    return {name: {"mean": table[name].mean(), "median": table[name].median()} for name in metrics}


def _compare(root: Path, a: str, b: str) -> dict[str, dict[str, Any]]:
    """The differences by metric; p in words, since a small one is told as a bound."""
    found = comparison.compare(_scores(a, root), _scores(b, root)).differences
    return {each.metric: each._asdict() | {"p": "< 0.001" if each.p < 0.001 else f"= {each.p:.3f}"} for each in found}


def _spread(root: Path, runs: str) -> dict[str, float]:
    if "+" in runs:
        means = pd.read_csv(root / KEPT / "summary.csv", index_col="run").loc[runs.split("+")]
    else:
        means = _scores(runs, root).patients.groupby("fold")[list(comparison.METRICS)].mean()
    return (means.max() - means.min()).to_dict()


def _slices(root: Path) -> dict[str, float]:
    table = pd.read_csv(root / "metrics/per_slice.csv").query("subset == 'test'")
    return {"empty_as_zero": table["dice"].fillna(0).mean()}


def _interval(root: Path) -> dict[str, float]:
    table = _scores("folds", root).patients
    volumes = table["predicted_pixels"], table["tumour_pixels"]
    least, largest = volume_interval.fit(*volumes) or (float("nan"), float("nan"))
    covered = {name: volume_interval.coverage(*volumes, table[name]) for name in ("fold", "institution")}
    return {"least": least, "largest": largest, **covered}


def _packed(root: Path) -> dict[str, float]:
    return {"megabytes": config.read_yaml(root / f"{make_examples.OUT}.dvc")["outs"][0]["size"] / 1e6}


MADE: dict[str, Callable[..., Any]] = {
    "tried": _tried,
    "patients": _patients,
    "scores": _describe,
    "validated": functools.partial(_describe, validation=True),
    "compare": _compare,
    "spread": _spread,
    "slices": _slices,
    "interval": _interval,
    "packed": _packed,
}


def list_speeds(root: Path) -> str:
    """The table of benchmarks/results/, which the benchmarks themselves print."""
    return runpy.run_path(str(root / "benchmarks/results.py"))["table"]()


def list_examples(root: Path) -> str:
    """The page's examples: which patients, how they score, how much of the tumour is found."""
    lines = ["| | patient | slices | Dice | of the tumour is found |", "| --- | --- | --- | --- | --- |"]
    scored = pd.read_csv(root / make_examples.SCORES, dtype=str).to_dict("records")
    for level, row in make_examples.choose(scored).items():
        name, found = row["patient"][5:12].replace("_", " "), f"{100 * float(row['recall']):.0f} %"
        lines.append(f"| {level} | {name} | {row['slices']} | {float(row['dice']):.2f} | {found} |")
    return "\n".join(lines)


def list_scale(root: Path) -> str:
    """The table of benchmarks/scale.json, which the benchmark itself prints."""
    return runpy.run_path(str(root / "benchmarks/scale_table.py"))["kept"]()


BLOCKS = {"speeds": list_speeds, "scale": list_scale, "examples": list_examples}
