"""`brainseg teach`: what networks answer together on their training patients, as soft masks for one network to learn.

The soft masks of a fold are made by networks of that fold: a network that learns from them has not heard of its test
patients, not even from its teachers. Those of networks of all patients teach one of all patients, to release it.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from brainseg import config, files
from brainseg.commands.several import ensemble as runs
from brainseg.data import dataset, splitting
from brainseg.data.dataset import Dataset
from brainseg.errors import DataError, Problem, raise_all
from brainseg.experiments import cross_validation, revision
from brainseg.inference.outlining import Outliner
from brainseg.models import manifest
from brainseg.models.manifest import ExportedManifest
from brainseg.training import soft_masks

AT_LEAST = "train_and_val"  # who is answered: whom a learner may be trained on
FOLDS = "cv-"  # begins the name of a cross-validation
OF_FOLDS = "name cross-validations of networks that have not seen their test patients"
OF_ALL = "name runs with train.subset=all, or cross-validations as cv-KEY, without the number of a fold"


def run(names: Sequence[str], out: Path, root: Path = Path()) -> str:
    """Write ``out/KEYS/fold-K.npy`` for each fold of cross-validations, or ``out/KEYS/all.npy`` of runs.

    KEYS are those of the names of cross-validations, which say all that determines the networks, and the beginnings of
    the digests of runs' weights. So the parameter that names the files changes with what they hold: DVC trains again.

    Args:
        names: of cross-validations of one split, ``cv-KEY``: the names of their folds without the last number; or of
            runs with ``train.subset: all``.

    Returns:
        What to write into params.yaml.

    Raises:
        DataError: a fold is missing, or the networks do not belong together.
        IntegrityError: a file is damaged, or the networks are of other data than the workspace.
    """
    problems = [
        Problem(name, "is no cross-validation, but others are", OF_ALL)
        for name in names
        if any(each.startswith(FOLDS) for each in names) and not name.startswith(FOLDS)
    ]
    problems += [Problem(name, "is one fold", OF_ALL) for name in names if cross_validation.NAMES.fullmatch(name)]
    raise_all(problems, DataError)
    many = runs.count_networks(names)
    if not names[0].startswith(FOLDS):
        path = _teach(names, out, root)
        return f"{path}: what {many} of all patients answered; set train.soft_masks: {path}"
    split = revision.params(revision.reader(f"{names[0]}-0", root))["split"]
    count = splitting.count_folds(root / runs.PROCESSED / "slices.csv", config.Split.model_validate(split))
    folder = out / "-".join(name.removeprefix(FOLDS) for name in names)
    for number in range(count):
        _teach([f"{name}-{number}" for name in names], folder / f"fold-{number}.npy", root)
    learned = f"train.soft_masks: {folder}/fold-{config.FOLD}.npy"
    return f"{folder}: what {many} of each of {count} folds answered; set {learned}"


def _teach(names: Sequence[str], out: Path, root: Path) -> Path:
    """Write the soft masks of one fold; or those of all patients, ``out`` is the folder above them then."""
    from brainseg.export import ensemble, metadata

    with ExitStack() as stack:
        parts = [stack.enter_context(runs.find(name, root)) for name in names]
        split = stack.enter_context(revision.fetched(str(runs.SPLIT), names[0], root))
        models = [ensemble.read_facts(name, part)[0] for name, part in zip(names, parts, strict=True)]
        subset = find_subset(names, models)
        path = out if subset != "all" else out / "-".join(model.weights_sha256[:8] for model in models) / "all.npy"
        digests = dataset.digests(root / runs.PROCESSED, split)
        for model in models:
            manifest.check_data(model, digests, split)
        merged, model = ensemble.join(names, parts, models)
        data = dataset.load(root / runs.PROCESSED, split, model.protocol.unit)
        together = Path(stack.enter_context(TemporaryDirectory())) / runs.FILE
        metadata.write_model(together, merged, metadata.describe_unscored(model, mirror=True))
        array = answer(Outliner(together), data, subset, path.stem)
        with files.name_full_disk(path):
            soft_masks.write(path, array, digests, subset, [each.weights_sha256 for each in models])
    return path


def find_subset(names: Sequence[str], models: Sequence[ExportedManifest]) -> str:
    """The ``train.subset`` of the teachers, the larger one where they differ.

    Raises:
        DataError: a fold's has, or may have, seen its test patients, or one beside networks of all patients has not.
    """
    subsets = [
        "train_and_val" if manifest.VALIDATION_SEEN in model.protocol.marks else model.training.parameters.train.subset
        for model in models
    ]
    if names[0].startswith(FOLDS):
        problems = [
            Problem(name, f"would tell of the test patients: {mark}", OF_FOLDS)
            for name, model in zip(names, models, strict=True)
            for mark in model.protocol.marks
            if mark in runs.MAY_KNOW_TEST
        ]
    else:
        problems = [
            Problem(name, f"was not trained on all patients, but with train.subset {subset}", OF_ALL)
            for name, subset in zip(names, subsets, strict=True)
            if subset != "all"
        ]
    raise_all(problems, DataError)
    return max(subsets, key=list(dataset.TRAINED_ON).index)


def answer(outliner: Outliner, data: Dataset, subset: str, title: str) -> np.ndarray:
    """Probabilities (N, H, W) uint8 in 255ths of whom others may learn from; 0 for a fold's test patients.

    Args:
        subset: on whom the networks were trained. The validation patients are answered at any rate.
    """
    found = np.zeros(data.masks.shape, np.uint8)
    answered = dataset.TRAINED_ON[subset if subset == "all" else AT_LEAST]
    patients = data.split_by_patient(data.rows(*answered))
    for rows in tqdm(patients, desc=title, unit="patient", leave=False, disable=None):
        found[rows] = outliner.on_grid(data.images[rows], name=f"patient {data.slices['patient'].iloc[rows[0]]}")
    return found
