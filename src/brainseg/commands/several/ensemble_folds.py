"""`brainseg ensemble --out-of-fold`: what an ensemble scores, each patient by networks that have not seen it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from brainseg import config, files
from brainseg.commands.several import ensemble as runs
from brainseg.data import dataset, inputs, splitting
from brainseg.data.dataset import Dataset
from brainseg.errors import DataError, IntegrityError, Problem, guard, raise_all
from brainseg.evaluation import evaluate
from brainseg.evaluation.results import Evaluation
from brainseg.experiments import cross_validation, fold_scores, revision, showing
from brainseg.experiments.fold_scores import Fold, FoldScores
from brainseg.inference.probabilities import Calibration
from brainseg.io.sequences import FLAIR
from brainseg.models.manifest import VALIDATION_SEEN, ExportedManifest

if TYPE_CHECKING:
    from brainseg.export.ensemble import Brain

PROCESSED = Path("data/processed")
LESS = ("one_slice", "flair_only", "stripped")  # arrays that are stored beside those of the whole input
OF_EACH_FOLD = f"write {config.FOLD} where the name has the number of the fold: each fold has a network of its own"
ONE_RECIPE = "train those of all folds by one recipe, on one output of tools/brain_dataset.py"
CHOSEN = {"weights_sha256", *Calibration._fields, "threshold", "postprocessing", "empty_rule"}  # not those of a member


class Prepared(NamedTuple):
    """The data in the workspace: the digests that dvc.lock has, the table of the slices, images and masks."""

    digests: list[str]
    slices: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray


class FoldNetworks(NamedTuple):
    """The runs of a fold. With a network of the brain: its recipe, the file of answers without scalp, marks."""

    members: Sequence[str]
    brain: dict[str, Any] | None = None
    answers: Path | None = None
    marks: Sequence[str] = ()


class AveragedFold(NamedTuple):
    """One fold of all members, and the mean of their probabilities.

    ``cases``, ``masks`` and ``arrays``: validation and test slices, as ``evaluate.evaluate`` takes them.
    """

    networks: FoldNetworks
    readers: Sequence[revision.Reader]
    cases: pd.DataFrame
    masks: np.ndarray
    arrays: dict[str, np.ndarray]


def run(names: Sequence[str], out: Path, brain: str | None = None, root: Path = Path()) -> str:
    """Write per_patient.csv and summary.json of the mean of several cross-validations into ``out``.

    In each fold the probabilities of all are averaged. Calibration, threshold and smallest component are cross-fitted:
    chosen on the test patients of the other folds, who are many, and whom no network has seen that answers for them,
    even where networks have learned from their validation patients. The scores of a fold's test patients choose
    nothing for them; that the networks of the other folds have learned from them remains, as in any cross-fitting.

    Args:
        names: of cross-validations, ``cv-KEY``: the names of their folds without the last number. Of one alone: its own
            numbers by a cross-fitted rule.
        brain: networks that outline the brain, ``{fold}`` in their name: all are asked twice, for the image and without
            scalp. That of a fold must not have learned from its test patients.

    Returns:
        The closing line.

    Raises:
        DataError: a fold is missing, a name is that of a fold, or the networks of the brain are not those of folds.
        IntegrityError: they are of other data than the workspace, or of several splits.
    """
    fix = "name the cross-validation, without the number of the fold"
    problems = [Problem(name, "is one fold", fix) for name in names if cross_validation.NAMES.fullmatch(name)]
    if brain is not None and config.FOLD not in brain:
        problems.append(Problem(brain, "is one network for all folds", OF_EACH_FOLD))
    raise_all(problems, DataError)
    inputs.verify([str(PROCESSED / name) for name in ("images.npy", "masks.npy", "slices.csv")], root)
    here = revision.sources(revision.reader(revision.WORKSPACE, root)).data
    arrays = dataset.open_arrays(root / PROCESSED)
    data = Prepared(here, dataset.read_slices(root / PROCESSED / "slices.csv"), *arrays)
    first = revision.params(revision.reader(f"{names[0]}-0", root))
    params = config.Evaluate.model_validate(first["evaluate"])
    count = splitting.count_folds(root / PROCESSED / "slices.csv", config.Split.model_validate(first["split"]))
    with TemporaryDirectory() as scratch:
        networks = [FoldNetworks([f"{name}-{number}" for name in names]) for number in range(count)]
        if brain is not None:
            networks = _ask_again(networks, brain, Path(scratch), params, root)
        evidence = [_gather(_read_fold(each, data, root), params) for each in networks]  # a fold in memory at a time
        scored = []
        for number, each in enumerate(networks):
            fitted = evaluate.fit_rule([other for k, other in enumerate(evidence) if k != number], params)
            scored.append(_score(number, _read_fold(each, data, root), fitted))
    pooled = fold_scores.pool_folds(scored)
    fold_scores.write(pooled, root / out)
    return fold_scores.closing_line(pooled.patients, pooled.summary, out)


def _ask_again(
    networks: Sequence[FoldNetworks], brain: str, scratch: Path, params: config.Evaluate, root: Path
) -> list[FoldNetworks]:
    """Write what the networks of each fold answer for images without scalp; for whole ones their runs have it."""
    named, recipes = [brain.replace(config.FOLD, str(number)) for number in range(len(networks))], []
    for each, name in zip(networks, named, strict=True):  # all of them before any work
        with _open_fold(each.members, name, root) as fold:
            runs.check_unseen(fold.brain, fold.data, root)
            recipes.append(describe_brain(fold.brain.model))
    raise_all(
        [
            Problem(name, f"is of another recipe, or of other pictures, than {named[0]}", ONE_RECIPE)
            for name, recipe in zip(named, recipes, strict=True)
            if recipe != recipes[0]
        ],
        DataError,
    )
    return [
        _answer(each.members, name, scratch / f"{number}.npz", params, root)
        for number, (each, name) in enumerate(zip(networks, named, strict=True))
    ]


class OpenFold(NamedTuple):
    """The files of a fold's networks, the manifest of all together, that of the brain, the slices with their split."""

    parts: Sequence[Path]
    model: ExportedManifest
    brain: "Brain"
    data: Dataset


@contextmanager
def _open_fold(members: Sequence[str], name: str, root: Path) -> Iterator[OpenFold]:
    from brainseg.export import ensemble

    unit = revision.params(revision.reader(members[0], root))["split"]["unit"]
    with ExitStack() as stack:
        parts = [stack.enter_context(runs.find(each, root)) for each in members]
        models = [ensemble.read_facts(each, part)[0] for each, part in zip(members, parts, strict=True)]
        brain = stack.enter_context(runs.open_brain(name, root))
        split = stack.enter_context(revision.fetched(str(runs.SPLIT), members[0], root))
        model = ensemble.describe(members, models, (), brain)
        yield OpenFold(parts, model, brain, dataset.load(root / PROCESSED, split, unit))


def _answer(members: Sequence[str], name: str, out: Path, params: config.Evaluate, root: Path) -> FoldNetworks:
    from brainseg.export import ensemble, metadata

    with _open_fold(members, name, root) as fold:
        path, again = out.with_suffix(".onnx"), ensemble.merge(fold.parts, fold.brain.path, whole=False)
        metadata.write_model(path, again, metadata.describe_unscored(fold.model, mirror=params.tta))
        found = runs.predict(path, fold.data)
        arrays: dict[str, Any] = {key: found[key] for key in ("model", *LESS) if key in found and key != "one_slice"}
        with files.name_full_disk(out):
            np.savez(out, row=fold.data.rows("val", "test"), **arrays)
    return FoldNetworks(members, describe_brain(fold.brain.model), out, fold.model.protocol.marks)


def describe_brain(model: ExportedManifest) -> dict[str, Any]:
    """The recipe of a network that outlines the brain, as far as an exported model knows it, and its data."""
    data = {name: digest for name, digest in model.data.items() if name != "split_sha256"}
    return {**runs.read_recipe(model), "data": data}


def _read_fold(networks: FoldNetworks, data: Prepared, root: Path) -> AveragedFold:
    members = networks.members
    readers = [revision.reader(name, root) for name in members]
    for name, read in zip(members, readers, strict=True):
        if revision.sources(read).data != data.digests:
            raise IntegrityError(
                name, "was made from other data than data/processed", "brainseg repro, or run it again"
            )
    rows, arrays = _average(networks, root)
    subsets = revision.parse_table(readers[0]("metrics/per_slice.csv")).set_index("row")["subset"]
    cases = data.slices.iloc[rows].assign(subset=subsets.reindex(rows).to_numpy())
    return AveragedFold(networks, readers, cases, data.masks[rows], arrays | {"flair": data.images[..., FLAIR][rows]})


def _gather(fold: AveragedFold, params: config.Evaluate) -> evaluate.Evidence:
    """What the test patients of a fold say for a rule."""
    tested = (fold.cases["subset"] == "test").to_numpy()
    return evaluate.gather(fold.cases[tested], fold.masks[tested], fold.arrays["model"][tested], params)


def _score(number: int, fold: AveragedFold, params: config.Evaluate) -> FoldScores:
    """The test patients of a fold by a given rule, with the protocol of its first member."""
    first, recipes = fold.readers[0], [fold_scores.drop_fold(revision.params(read)) for read in fold.readers]
    given = [Evaluation.model_validate_json(read("metrics/evaluation.json")).protocol for read in fold.readers]
    protocol = given[0].model_dump(exclude_unset=True, exclude=CHOSEN)
    members, brain, _, others = fold.networks
    marks = dict.fromkeys([*(mark for each in given for mark in each.marks), *others])  # of any network
    # Validation patients are not scored here.
    protocol["marks"] = [mark for mark in marks if not mark.endswith(VALIDATION_SEEN)]
    result = evaluate.evaluate(fold.cases, fold.masks, fold.arrays, params, protocol)
    told = {"members": list(members), "params": recipes} | ({"brain": brain} if brain else {})
    joined = {"ensemble": told} if len(recipes) > 1 or brain else {}
    return FoldScores(
        Fold(number, " + ".join(members) + runs.TWICE * (brain is not None), {"split": {}}),
        result.per_patient[result.per_patient["subset"] == "test"],
        None,
        result.per_slice[result.per_slice["subset"] == "test"],
        result.probability_counts,
        result.report,
        recipes[0] | joined,
        revision.sources(first),
    )


def _read_answers(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What ``_answer`` wrote."""
    with np.load(path) as found:
        arrays = {name: found[name] for name in found.files}
    return arrays.pop("row"), arrays | {"one_slice": arrays["model"]}


def _average(networks: FoldNetworks, root: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The rows, and the mean of each array that all members have stored; of those without scalp in equal shares."""
    names = list(networks.members)
    found = [_read_probabilities(name, root) for name in names]
    if networks.answers is not None:  # already a mean over the members
        found += [_read_answers(networks.answers)] * len(names)
        names += [f"{name} without scalp" for name in names]
    for name, (rows, _) in zip(names, found, strict=True):
        if not np.array_equal(rows, found[0][0]):
            what = f"has other validation and test slices than {names[0]}"
            raise IntegrityError(name, what, "name cross-validations of one split")
    stored = [arrays for _, arrays in found]
    common = set.intersection(*(set(each) for each in stored))
    return found[0][0], {key: average([each[key] for each in stored]) for key in stored[0] if key in common}


def _read_probabilities(name: str, root: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The rows and arrays that evaluate has written in a run."""
    with (
        revision.fetched(showing.PREDICTIONS, name, root) as path,
        guard(f"{name}:{showing.PREDICTIONS}", "dvc repro -f evaluate there", IntegrityError),
        np.load(path, allow_pickle=False) as found,
    ):
        arrays = {less: found[less] for less in LESS if less in found}
        if "flair_only" not in arrays:
            what = "has no probabilities for FLAIR alone, as earlier versions wrote it"
            raise DataError(f"{name}:{showing.PREDICTIONS}", what, f"dvc exp remove {name}, run it again")
        return found["row"], {"model": found["probability"], "one_slice": found["probability"], **arrays}


def average(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of probabilities in 255ths, uint8, rounded."""
    total = np.zeros(arrays[0].shape, np.uint16)
    for array in arrays:
        total += array
    return np.rint(total / len(arrays)).astype(np.uint8)
