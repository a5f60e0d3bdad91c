"""`brainseg release`: networks trained on all patients as one file, with the rule and numbers of their recipe.

No patient is left to score such a network, so its numbers are those of the cross-validation of its recipe, as nnU-Net
does it (Isensee et al., 2021, doi:10.1038/s41592-020-01008-z). The file says so.
"""

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg import config, files
from brainseg.commands.several import ensemble as runs
from brainseg.data import csv_tables, fingerprints
from brainseg.errors import DataError, MachineError, Problem, guard, raise_all
from brainseg.evaluation import calibration, evaluate, results
from brainseg.evaluation.results import CalibrationError, CalibrationOfFolds, CrossValidationSummary
from brainseg.experiments import repro
from brainseg.export import volume_interval
from brainseg.inference import postprocessing
from brainseg.inference.probabilities import Calibration
from brainseg.models.manifest import TRAINED_ON_ALL, ExportedManifest
from brainseg.reporting import pages

if TYPE_CHECKING:
    from brainseg.export.ensemble import Brain

FOLDER = Path("models/released")
EXPORTED = {"float32": "models/unet.onnx", "int8": "models/unet.int8.onnx"}
RECIPE = ("train", "network", "augmentation", "preprocess")  # blocks that must be those of the cross-validation
OF_ITS_OWN_SCORES = {TRAINED_ON_ALL, fingerprints.SEEN}  # marks of a run, whose scores a released file does not tell
# What may differ: who is trained on, by which random numbers, with how much of the machine; with which weights it
# began, and whether it was taught (not by whom), are compared by themselves.
FREE = {"train": {"subset", "seed", "device", "devices", "threads", "initial_weights", "soft_masks"}}


def run(
    name: str, names: Sequence[str], numbers: Path, variant: str = "float32", brain: str | None = None,
    root: Path = Path(),
) -> str:  # fmt: skip
    """Write ``models/released/NAME.onnx``, its weights in 16 bits; return what it is.

    Args:
        names: of one run, or of several whose mean is released; trained with ``train.subset: all``.
        numbers: the folder of the cross-validation of their recipe; of an ensemble that of ``--out-of-fold``.
        variant: ``float32`` or ``int8``, of one network alone.
        brain: a network that outlines the brain, also trained on all patients: all are asked again without scalp.

    Raises:
        DataError: a run was not trained on all patients, or by another recipe than that of the numbers.
        IntegrityError: a file is damaged.
    """
    from brainseg.export import ensemble, half_weights, metadata

    if variant == "int8" and (len(names) > 1 or brain is not None):
        together = ", ".join([*names, *([brain] if brain else [])])
        raise DataError(together, "are several networks in 8-bit integers", "release one, or leave out --int8")
    summary = results.read(numbers / "summary.json", CrossValidationSummary)
    fitted = summary.calibration
    if fitted is None:
        what = "does not say how probabilities are calibrated: it is of one fold, or an earlier version wrote it"
        raise DataError(numbers, what, "cross-validate all folds again, with this version")
    with ExitStack() as stack:
        parts = [stack.enter_context(runs.find(each, root, EXPORTED[variant])) for each in names]
        models = [ensemble.read_facts(each, part, variant)[0] for each, part in zip(names, parts, strict=True)]
        outlined = stack.enter_context(runs.open_brain(brain, root)) if brain else None
        check(names, models, summary, numbers)
        check_brain(outlined, summary, numbers)
        graph, model = ensemble.join(names, parts, models, outlined)
        told = describe(model, summary, fitted, variant) | {"volume_interval": read_interval(numbers)}
        with files.replacing(root / FOLDER / f"{name}.onnx") as path:
            metadata.write_model(path, half_weights.store(graph), told)
    removed = postprocessing.describe_removed(postprocessing.read_rule(told["rule"])) or "nothing"
    size = (root / FOLDER / f"{name}.onnx").stat().st_size / 1e6
    rule, dice = told["rule"], summary.test.volume.dice
    networks = f"{runs.count_networks(names)}{runs.TWICE if brain else ''}"
    how = pages.describe_calibration(Calibration.read(rule)) or "not calibrated"
    return (
        f"{FOLDER / name}.onnx: {networks}, {variant}, {size:.1f} MB; {how}, "
        f"threshold {rule['threshold']:g}, {removed} removed; its recipe out of fold: "
        f"volume Dice {dice.mean:.3f}, median {dice.median:.3f}"
    )


def keep(name: str, root: Path = Path()) -> None:
    """Give the file to DVC, which is to push it to ``weights`` and nowhere else.

    Raises:
        MachineError: DVC does not take it.
    """
    tracked = root / FOLDER / f"{name}.onnx.dvc"
    files.write_text(tracked, f"outs:\n- path: {name}.onnx\n  remote: weights\n")
    files.write_text(root / FOLDER / ".gitignore", "*.onnx\n")
    command = [sys.executable, "-m", repro.DVC, "commit", "--force", str(tracked.relative_to(root))]
    if subprocess.run(command, cwd=root, env=repro.environment()).returncode:
        raise MachineError(tracked, "DVC did not take the model", "correct what it says above, then run this again")


def check(
    names: Sequence[str], models: Sequence[ExportedManifest], summary: CrossValidationSummary, numbers: Path
) -> None:
    """Refuse runs whose recipe is not the one that was cross-validated, or that were not trained on all its patients.

    Raises:
        DataError: naming each run and what differs.
    """
    recipes = list_recipes(summary)
    if any(recipe["train"].get("subset") == "all" for recipe in recipes):
        what = "has the numbers of networks that were trained on all patients: none of them is out of fold"
        raise DataError(numbers, what, "cross-validate with train.subset: train, or train_and_val")
    if len(recipes) != len(names):
        what = f"has the numbers of {len(recipes)} networks, {len(names)} are to be released"
        raise DataError(numbers, what, "name one run for each member, in their order")
    if fingerprints.SEEN in summary.protocol.marks:
        raise DataError(numbers, f"tells too much: {fingerprints.SEEN}", "begin each fold with weights of its own fold")
    problems = []
    for name, model, recipe in zip(names, models, recipes, strict=True):
        problems += list_problems(name, model, recipe, models, numbers)
        total, tested = sum(model.protocol.patients.values()), summary.protocol.patients
        if total != tested or model.protocol.source != summary.protocol.source:
            what = f"has {total} patients of {model.protocol.source}, {numbers} {tested} of {summary.protocol.source}"
            problems.append(Problem(name, what, "cross-validate on the data that it was trained on"))
    raise_all(problems, DataError)


def list_problems(
    name: str, model: ExportedManifest, recipe: Mapping[str, Any], released: Sequence[ExportedManifest], numbers: Path,
    of_another: str = "name the cross-validation of this recipe",
) -> list[Problem]:  # fmt: skip
    """Why a network is not that of a recipe, trained on all patients.

    Args:
        name: what errors call it. recipe: of the numbers. released: the networks that are released together.
        of_another: what to do if it is of another recipe.
    """
    problems = []
    if TRAINED_ON_ALL not in model.protocol.marks:
        what = "was not trained on all patients"
        problems.append(Problem(name, what, "train it so: brainseg repro [RECIPE] -S train.subset=all"))
    taught, told = model.training.parameters.train.soft_masks, recipe["train"].get("soft_masks")
    if (taught is None) != (told is None):
        fix = "set train.soft_masks: null" if told is None else "brainseg teach RUN... of runs with train.subset=all"
        what = f"was trained with train.soft_masks {taught}, its recipe with {told}"
        problems.append(Problem(name, what, f"train it again: {fix}"))
    if other := describe_other_beginning(model, recipe, released):
        fix = "name the run too that it goes on from, where the numbers have it; or train it again from one here"
        problems.append(Problem(name, other, fix))
    if differs := find_differences(model, recipe):
        what = f"is of another recipe than {numbers}: {', '.join(differs)}"
        problems.append(Problem(name, what, of_another))
    return problems


def check_brain(brain: "Brain | None", summary: CrossValidationSummary, numbers: Path) -> None:
    """Refuse a network of the brain that is not by the recipe of those of the folds, or one where they had none.

    Raises:
        DataError: naming it and what differs.
    """
    recipe = summary.params.get("ensemble", {}).get("brain")
    if brain is None and recipe is None:
        return
    if brain is None:
        raise DataError(numbers, "is of networks that are also asked without scalp", "name it: --without-scalp RUN")
    if recipe is None:
        raise DataError(numbers, "is of networks that are not asked without scalp", "leave out --without-scalp")
    fix = "train it by the recipe of those of the folds: brainseg repro brain -S train.subset=all ..."
    problems = list_problems(brain.name, brain.model, recipe, [], numbers, fix)
    if any(brain.model.data.get(name) != digest for name, digest in recipe["data"].items()):
        what = f"learned other images or masks than the networks of the brain of {numbers}"
        problems.append(Problem(brain.name, what, "train it on the same output of tools/brain_dataset.py"))
    raise_all(problems, DataError)


def list_recipes(summary: CrossValidationSummary) -> list[Mapping[str, Any]]:
    """The parameters of the network that was cross-validated; of an ensemble those of each member."""
    joined = summary.params.get("ensemble")
    return joined["params"] if joined else [summary.params]


def find_differences(model: ExportedManifest, recipe: Mapping[str, Any]) -> list[str]:
    """The parameters in which a model differs from a recipe, with both values."""
    own = runs.read_recipe(model)
    told = config.merge(config.list_defaults(*RECIPE), {block: recipe[block] for block in RECIPE})
    return [
        f"{block}.{key} {value}, there {told[block].get(key)}"
        for block in RECIPE
        for key, value in own[block].items()
        if key not in FREE.get(block, ()) and value != told[block].get(key)
    ]


def describe_other_beginning(
    model: ExportedManifest, recipe: Mapping[str, Any], released: Sequence[ExportedManifest]
) -> str | None:
    """How the initial weights of a model are not those of its recipe; None: they are.

    Where each fold went on from weights of its own, the network of all patients goes on from one released with it.
    """
    own, told = model.training.parameters.train.initial_weights, recipe["train"].get("initial_weights")
    if told is None or config.FOLD not in told:
        return None if own == told else f"began with train.initial_weights {own}, its recipe with {told}"
    if model.training.initial_weights_sha256 in {each.weights_sha256 for each in released}:
        return None
    return f"began with train.initial_weights {own}, which no network has that is released with it"


def read_interval(numbers: Path) -> dict[str, Any] | None:
    """By what the marked volume of a patient differs from the outlined one, out of fold; None: too few patients.

    ``covered``: the share of patients whose marked volume lies in the interval that the other folds give.
    """
    path = numbers / "per_patient.csv"
    with guard(path, results.FOLDS_AGAIN):
        table = csv_tables.read_csv(path)
        volumes = table["predicted_pixels"], table["tumour_pixels"]
        found = volume_interval.fit(*volumes)
        held = volume_interval.coverage(*volumes, table["fold"])
    if found is None:
        return None
    told = {"level": volume_interval.LEVEL, "low": round(found[0], 4), "high": round(found[1], 4)}
    return told | {"patients": len(table), "covered": round(held, 4) if held == held else None}


def describe(
    model: ExportedManifest, summary: CrossValidationSummary, fitted: CalibrationOfFolds, variant: str
) -> dict[str, Any]:  # fmt: skip
    """The metadata of the file: ``model``, the rule, the numbers out of fold.

    Threshold and smallest component are the medians of the folds'; the calibration is fitted to all of them."""
    from brainseg.inference import onnx_session

    patients, folds = summary.protocol.patients, summary.folds
    mark = (
        f"trained on all {patients} patients; its numbers are those of its recipe in {len(folds)} folds, where each "
        "patient is scored by a network that has not seen it"
    )
    small = ["its numbers are those of the float32 network"] if variant == "int8" else []
    theirs = [each for each in (*model.protocol.marks, *summary.protocol.marks) if each not in OF_ITS_OWN_SCORES]
    marks = list(dict.fromkeys([mark, *small, *theirs]))
    counts = {
        "patients": {"train": patients, "val": 0, "test": patients},
        "slices": {"train": summary.protocol.slices, "val": 0, "test": summary.protocol.slices},
    }
    protocol = model.protocol.model_copy(update={**counts, "marks": marks})
    found = results.calibration_of(fitted)
    thresholds = [calibration.move(fold.threshold, results.calibration_of(fold), found) for fold in folds]
    rule = {
        "threshold": evaluate.round_threshold(statistics.median(thresholds)),
        "min_component": round(statistics.median(fold.min_component for fold in folds)),
        "min_share": statistics.median(fold.min_share for fold in folds),
        "mirror": summary.protocol.tta != "none",
        **found.describe(),
    }
    return {
        "format": onnx_session.format_of(rule),
        "variant": variant,
        "marks": marks,
        "model": model.model_copy(update={"protocol": protocol}).exported(),
        "rule": rule,
        "evaluation": {
            "protocol": summary.protocol.model_dump(exclude_unset=True) | {"marks": marks},
            "test": summary.test.model_dump(exclude_unset=True) | {"calibration": describe_errors(fitted)},
        },
    }


def describe_errors(fitted: CalibrationOfFolds) -> dict[str, float | None]:
    """Calibration errors of the released probabilities, by folds that are calibrated by the others; and before."""
    return fitted.model_dump(include=set(CalibrationError.model_fields))
