"""A recipe's folds side by side without DVC or MLflow, where neither is installed; then their numbers as one.

    python benchmarks/folds.py run OUT --recipe best --set train.engine=jax --jobs 5
    python benchmarks/folds.py collect OUT metrics/experiments/best_folds

Each fold is a folder of its own with the same scripts of ``stages/`` on the same data. ``collect`` needs the folds'
``metrics``, ``params.yaml`` and ``seconds.json`` alone, and writes what ``brainseg cross-validate`` writes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from brainseg import config, errors, files
from brainseg.experiments import repro, revision

STAGES = ("split", "train", "evaluate")
FOLDERS = ("data/splits", "models", "metrics")


def main() -> None:
    options = _options()
    if options.command == "run":
        run(options.out, overrides(options.recipe, options.set), options.folds, options.jobs)
    else:
        print(collect(options.out, options.folder))


def run(out: Path, overrides: dict, folds: list[int], jobs: int) -> None:
    """Split, train and evaluate each fold; what it prints is in ``out/fold-N/log``."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(partial(run_fold, out, overrides), folds))


def run_fold(out: Path, overrides: dict, number: int, launcher: Sequence[str] = ()) -> None:
    """Run the stages of one fold.

    Args:
        launcher: arguments of Python before the script's path.

    Raises:
        RunError: a stage failed.
    """
    root, folder = Path.cwd(), out.resolve() / f"fold-{number}"
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("src", "stages", "data/processed"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(root / name)
    params = revision.merged(config.read_yaml(Path("params.yaml")), overrides)
    params["split"] = params["split"] | {"test_fold": number}
    config.check(params, Path("params.yaml"))
    files.write_text(folder / "params.yaml", json.dumps(params, indent=1))  # JSON is YAML
    seconds = {}
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(out.resolve() / "compiled")}  # what one fold compiled serves the next
    environment = compiled | os.environ | {"PYTHONPATH": os.pathsep.join(["src", os.environ.get("PYTHONPATH", "")])}
    for stage in STAGES:
        start = time.monotonic()
        with open(folder / "log", "a", encoding="utf-8") as log:
            command = [sys.executable, *launcher, f"stages/{stage}.py"]
            code = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log).returncode
        if code:
            raise errors.RunError(str(folder / "log"), f"{stage} of fold {number} failed", "read its last lines")
        seconds[stage] = round(time.monotonic() - start, 1)
        print(f"fold {number}: {stage} took {seconds[stage]} s", flush=True)
    files.write_text(folder / "seconds.json", json.dumps(seconds) + "\n")
    shutil.rmtree(folder / "data/predictions", ignore_errors=True)


def collect(out: Path, folder: Path) -> str:
    """The folds' numbers as one, in ``folder``: per_patient.csv, summary.json; the closing line."""
    import pandas as pd

    from brainseg.experiments import cross_validation

    paths = sorted(out.glob("fold-*"))
    made_from = revision.sources(revision.reader(revision.WORKSPACE))
    patients, summary = cross_validation.pooled([_scored(path, made_from) for path in paths])
    seconds = [json.loads((path / "seconds.json").read_text()) for path in paths]
    summary["seconds"] = pd.DataFrame(seconds).to_dict("list")
    cross_validation.write(patients, summary, folder)
    return cross_validation.closing(patients, summary, folder)


def _scored(path: Path, made_from: dict):
    from brainseg.experiments import cross_validation

    raw, read = config.read_yaml(path / "params.yaml"), revision.reader(revision.WORKSPACE, path)
    number = raw["split"]["test_fold"]
    params = config.check(raw, path / "params.yaml").model_dump(mode="json")
    made_with = {block: params[block] for block in revision.BLOCKS}
    fold = cross_validation.Fold(number, path.name, {"split": {"test_fold": number}})
    return cross_validation.numbers(fold, read, made_with, made_from)


def overrides(recipe: str | None, given: list[str]) -> dict:
    """Of a recipe and of ``block.key=value``, the value in JSON or a word."""
    found = repro.load(recipe) if recipe else {}
    for assignment in given:
        name, value = assignment.split("=", 1)
        block, key = name.split(".")
        try:
            found = revision.merged(found, {block: {key: json.loads(value)}})
        except ValueError:
            found = revision.merged(found, {block: {key: value}})
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
