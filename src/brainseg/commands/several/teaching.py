"""`brainseg teach`: what networks answer together on their training patients, as soft masks for one network to learn.

The soft masks of a fold are made by networks of that fold: a network that learns from them has not heard of its test
patients, not even from its teachers.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from brainseg import config, files
from brainseg.commands.several import ensemble as runs
from brainseg.data import dataset, fingerprints, splitting
from brainseg.data.dataset import Dataset
from brainseg.errors import DataError, Problem, raise_all
from brainseg.experiments import revision
from brainseg.inference.outlining import Outliner
from brainseg.models import manifest
from brainseg.models.manifest import ExportedManifest
from brainseg.training import soft_masks

# Marks of a teacher that may have learned from the test patients, or from those by whom the learner's rule is chosen.
TOLD_TOO_MUCH = {manifest.TRAINED_ON_ALL, manifest.VALIDATION_SEEN, fingerprints.SEEN, fingerprints.UNKNOWN}
LEARNED = ("train", "val")  # subsets; test patients are not answered


def run(names: Sequence[str], out: Path, root: Path = Path()) -> str:
    """Write ``out/KEYS/fold-K.npy`` for each fold of cross-validations.

    KEYS are those of their names, which say all that determines the networks. So the parameter that names the files
    changes with what they hold, and DVC trains again.

    Args:
        names: of cross-validations of one split, ``cv-KEY``: the names of their folds without the last number.

    Returns:
        What to write into params.yaml.

    Raises:
        DataError: a fold is missing, or the networks do not belong together.
        IntegrityError: a file is damaged, or the networks are of other data than the workspace.
    """
    split = revision.params(revision.reader(f"{names[0]}-0", root))["split"]
    count = splitting.count_folds(root / runs.PROCESSED / "slices.csv", config.Split.model_validate(split))
    folder = out / "-".join(name.removeprefix("cv-") for name in names)
    for number in range(count):
        _teach([f"{name}-{number}" for name in names], split["unit"], folder / f"fold-{number}.npy", root)
    learned = f"train.soft_masks: {folder}/fold-{config.FOLD}.npy"
    return (
        f"{folder}: what {len(names)} network{'s' * (len(names) > 1)} of each of {count} folds answered; set {learned}"
    )


def _teach(names: Sequence[str], unit: str, path: Path, root: Path) -> None:
    """Write the soft masks of one fold."""
    from brainseg.export import ensemble, metadata

    with ExitStack() as stack:
        parts = [stack.enter_context(runs.find(name, root)) for name in names]
        split = stack.enter_context(revision.fetched(str(runs.SPLIT), names[0], root))
        models = [ensemble.read_facts(name, part)[0] for name, part in zip(names, parts, strict=True)]
        check_what_they_saw(names, models)
        digests = dataset.digests(root / runs.PROCESSED, split)
        for model in models:
            manifest.check_data(model, digests, split)
        merged, model = ensemble.join(names, parts, models)
        together = Path(stack.enter_context(TemporaryDirectory())) / runs.FILE
        metadata.write_model(together, merged, metadata.describe_unscored(model, mirror=True))
        array = answer(Outliner(together), dataset.load(root / runs.PROCESSED, split, unit), path.stem)
        with files.name_full_disk(path):
            soft_masks.write(path, array, digests, [each.weights_sha256 for each in models])


def check_what_they_saw(names: Sequence[str], models: Sequence[ExportedManifest]) -> None:
    """Raise DataError for teachers that have, or may have, seen whom the learner is scored or chosen by."""
    fix = "name cross-validations of networks that were trained on their training patients alone"
    raise_all(
        [
            Problem(name, f"would tell more than the training patients: {mark}", fix)
            for name, model in zip(names, models, strict=True)
            for mark in model.protocol.marks
            if mark in TOLD_TOO_MUCH
        ],
        DataError,
    )


def answer(outliner: Outliner, data: Dataset, title: str = "soft masks") -> np.ndarray:
    """Probabilities (N, H, W) uint8 in 255ths of whom networks may learn from; 0 for the test patients' slices."""
    found = np.zeros(data.masks.shape, np.uint8)
    patients = data.split_by_patient(data.rows(*LEARNED))
    for rows in tqdm(patients, desc=title, unit="patient", leave=False, disable=None):
        found[rows] = outliner.on_grid(data.images[rows], name=f"patient {data.slices['patient'].iloc[rows[0]]}")
    return found
