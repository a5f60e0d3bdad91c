"""Runs the folds of a recipe side by side without DVC and MLflow, where neither is installed; then pools their results.

    python benchmarks/folds.py run OUT --recipe best --set train.engine=jax --jobs 5
    python benchmarks/folds.py collect OUT metrics/experiments/best_folds

Each fold has a folder of its own, with links to the scripts of ``stages/`` and to the data. ``collect`` needs only the
``metrics``, ``params.yaml`` and ``seconds.json`` of the folds, and writes what ``brainseg cross-validate`` writes.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from brainseg import config, errors, files
from brainseg.evaluation.results import MadeFrom
from brainseg.experiments import repro, revision

STAGES = ("split", "train", "evaluate")
FOLDERS = ("data/splits", "models", "metrics")
PROCESSED = Path("data/processed")


def main() -> None:
    options = _options()
    if options.command == "run":
        run(options.out, overrides(options.recipe, options.set), options.folds, options.jobs)
    else:
        print(collect(options.out, options.folder))


def run(out: Path, overrides: dict, folds: list[int], jobs: int) -> None:
    """Split, train and evaluate each fold. The output of its stages is in ``out/fold-N/log``."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(partial(run_fold, out, overrides), folds))


def run_fold(
    out: Path, overrides: dict, number: int, launcher: Sequence[str] = (), *, processed: Path = PROCESSED,
    environment: Mapping[str, str] = os.environ, limit: float = math.inf,
) -> None:  # fmt: skip
    """Run the stages of one fold.

    Args:
        launcher: arguments of Python before the path of a script.
        processed: the folder of the processed slices.
        environment: of the stages.
        limit: seconds for all stages together.

    Raises:
        RunError: a stage failed, or was not done in time.
    """
    root, folder, deadline = Path.cwd(), out.resolve() / f"fold-{number}", time.monotonic() + limit
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, target in {"src": root / "src", "stages": root / "stages", str(PROCESSED): root / processed}.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    params = config.merge(config.read_yaml(Path("params.yaml")), overrides)
    params["split"] = params["split"] | {"test_fold": number}
    config.check(params, Path("params.yaml"))
    files.write_text(folder / "params.yaml", json.dumps(params, indent=1))  # JSON is YAML
    seconds = {}
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(out.resolve() / "compiled")}  # the folds share what JAX compiles
    paths = os.pathsep.join(["src", environment.get("PYTHONPATH", "")])
    for stage in STAGES:
        start = time.monotonic()
        left = None if math.isinf(deadline) else deadline - start
        with open(folder / "log", "a", encoding="utf-8") as log:
            command = [sys.executable, *launcher, f"stages/{stage}.py"]
            variables = compiled | {**environment} | {"PYTHONPATH": paths}
            try:
                code = subprocess.run(
                    command, cwd=folder, env=variables, stdout=log, stderr=log, timeout=left
                ).returncode
            except subprocess.TimeoutExpired:
                what = f"{stage} of fold {number} was not done after {limit:.0f} s"
                raise errors.RunError(str(folder / "log"), what, "read its last lines") from None
        if code:
            raise errors.RunError(str(folder / "log"), f"{stage} of fold {number} failed", "read its last lines")
        seconds[stage] = round(time.monotonic() - start, 1)
        files.write_text(folder / "seconds.json", json.dumps(seconds) + "\n")
        print(f"fold {number}: {stage} took {seconds[stage]} s", flush=True)
    shutil.rmtree(folder / "data/predictions", ignore_errors=True)


def collect(out: Path, folder: Path) -> str:
    """Pool the results of the folds in ``folder`` (two tables, summary.json) and return the summary line."""
    import pandas as pd

    from brainseg.experiments import fold_scores

    paths = sorted(out.glob("fold-*"))
    made_from = revision.sources(revision.reader(revision.WORKSPACE))
    pooled = fold_scores.pool_folds([_scored(path, made_from) for path in paths])
    seconds = [json.loads((path / "seconds.json").read_text()) for path in paths]
    summary = pooled.summary.model_copy(update={"seconds": pd.DataFrame(seconds).to_dict("list")})
    fold_scores.write(pooled._replace(summary=summary), folder)
    return fold_scores.closing_line(pooled.patients, summary, folder)


def _scored(path: Path, made_from: MadeFrom):
    from brainseg.experiments import cross_validation, fold_scores

    raw, read = config.read_yaml(path / "params.yaml"), revision.reader(revision.WORKSPACE, path)
    number = raw["split"]["test_fold"]
    params = config.check(raw, path / "params.yaml").model_dump(mode="json")
    made_with = {block: params[block] for block in revision.BLOCKS}
    fold = fold_scores.Fold(number, path.name, {"split": {"test_fold": number}})
    return cross_validation.read_scores(fold, read, made_with, made_from)


def overrides(recipe: str | None, given: list[str]) -> dict:
    """The overrides of a recipe, then those of ``block.key=value``, where the value is JSON or a word."""
    found = repro.load_recipe(recipe) if recipe else {}
    for assignment in given:
        name, value = assignment.split("=", 1)
        block, key = name.split(".")
        try:
            found = config.merge(found, {block: {key: json.loads(value)}})
        except ValueError:
            found = config.merge(found, {block: {key: value}})
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("out", type=Path)
    runs.add_argument("--recipe")
    runs.add_argument("--set", nargs="*", default=[], metavar="BLOCK.KEY=VALUE")
    runs.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    runs.add_argument("--jobs", type=int, default=1)
    collects = commands.add_parser("collect")
    collects.add_argument("out", type=Path)
    collects.add_argument("folder", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    errors.run(main)
