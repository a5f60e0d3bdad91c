"""`brainseg ensemble`: trained models as one file that answers the mean of their probabilities, and its numbers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from brainseg import config, files
from brainseg.data import dataset, fingerprints
from brainseg.data.brains import stripping
from brainseg.data.dataset import Dataset
from brainseg.errors import DataError, IntegrityError
from brainseg.evaluation import evaluate
from brainseg.experiments import revision
from brainseg.inference.outlining import Outliner
from brainseg.io.sequences import FLAIR
from brainseg.models import manifest
from brainseg.models.manifest import ExportedManifest

if TYPE_CHECKING:
    from brainseg.export.ensemble import Brain

FILE = "ensemble.onnx"
PROCESSED, SPLIT, EXPORTED = Path("data/processed"), Path("data/splits/split.csv"), "models/unet.onnx"
MANIFEST = "models/unet.json"
TIMED = 32  # slices
# Marks of a network that may have learned from the test patients of its fold.
MAY_KNOW_TEST = {manifest.TRAINED_ON_ALL, fingerprints.SEEN, fingerprints.UNKNOWN}
TWICE = ", whole and without scalp"  # of networks that are asked so


def run(names: Sequence[str], out: Path, brain: str | None = None, root: Path = Path()) -> str:
    """Write ``out/ensemble.onnx`` and the numbers of the ensemble; return the numbers as a table.

    Calibration, threshold and smallest component are chosen on the validation patients, as for a single network.

    Args:
        names: runs (revisions, experiments, "workspace"), or files and folders of models.
        brain: another one, which outlines the brain: all are asked twice, for the image and without scalp.

    Raises:
        DataError: one run that is asked once, or runs that do not belong together.
        IntegrityError: a file is damaged, or the data are not those that the parts were trained on.
    """
    from brainseg.export import ensemble, metadata

    if len(names) < 2 and brain is None:
        raise DataError(", ".join(names), "is one run", "name two or more, or --without-scalp")
    params = config.load("evaluate", path=root / "params.yaml").evaluate
    with ExitStack() as stack:
        parts = [stack.enter_context(find(name, root)) for name in names]
        told = [ensemble.read_facts(name, part) for name, part in zip(names, parts, strict=True)]
        outlined = stack.enter_context(open_brain(brain, root)) if brain else None
        model = ensemble.describe(names, [each for each, _ in told], [marks for _, marks in told], outlined)
        data = dataset.load(root / PROCESSED, root / SPLIT, model.protocol.unit)
        if outlined and manifest.TRAINED_ON_ALL not in outlined.marks:  # then all are, and marked
            check_unseen(outlined, data, root)
        manifest.check_data(model, dataset.digests(root / PROCESSED, root / SPLIT), root / SPLIT)
        path = stack.enter_context(files.replacing(out / FILE))
        merged = ensemble.merge(parts, outlined.path if outlined else None)
        protocol = manifest.protocol(model, params.tta)
        metadata.write_model(path, merged, metadata.describe_unscored(model, mirror=params.tta))
        rows = data.rows("val", "test")
        result = evaluate.evaluate(data.slices.iloc[rows], data.masks[rows], predict(path, data), params, protocol)
        metadata.write_model(path, merged, metadata.build_metadata(model, result.report, "float32"))
        speeds = [measure_speed(each, data) for each in (path, parts[0])]
    table = evaluate.table(result.report)
    evaluate.write(result, out)
    speed = f"{speeds[0]:.1f} slices a second, {names[0]} alone {speeds[1]:.1f}"
    how = f"the mean of {count_networks(names)}{TWICE if brain else ''}"
    return f"{table}\n{out / FILE}: {how}; {speed}"


def count_networks(names: Sequence[str]) -> str:
    """``1 network``, ``2 networks``."""
    return f"{len(names)} network{'s' * (len(names) > 1)}"


def read_recipe(model: ExportedManifest) -> dict[str, dict[str, Any]]:
    """The blocks of params.yaml that an exported model carries."""
    blocks = {**dict(model.training.parameters), "network": model.network, "preprocess": model.preprocess}
    return {name: block.model_dump() for name, block in blocks.items()}


@contextmanager
def find(name: str, root: Path, exported: str = EXPORTED) -> Iterator[Path]:
    """The exported model of a run, or a file, or that of a folder; ``exported``: another file of it, beside a file."""
    place = root / name
    if place.is_dir():
        place /= Path(exported).name
    if place.suffix == ".onnx":
        yield place.with_suffix(Path(exported).suffix)
        return
    if place.is_file():
        yield place
        return
    with revision.fetched(exported, name, root) as path:
        yield path


@contextmanager
def open_brain(name: str, root: Path) -> "Iterator[Brain]":
    """The network that outlines the brain: of a run, or a file, or that of a folder.

    Raises:
        DataError: the name is that of several. IntegrityError: it is damaged, or not there.
    """
    from brainseg.export import ensemble

    if config.FOLD in name:
        raise DataError(name, "names a network for each fold", "name one of them; with --out-of-fold all are asked")
    with find(name, root) as path:
        yield ensemble.Brain(name, path, *ensemble.read_facts(name, path))


def check_unseen(brain: "Brain", data: Dataset, root: Path) -> None:
    """Refuse a network of the brain that may have learned from the test patients.

    Raises:
        DataError: it has, or began with weights that may. IntegrityError: its manifest is missing or of another one.
    """
    with find(brain.name, root, MANIFEST) as about:
        if not about.is_file():
            what = "does not exist: it tells whom the network of the brain has learned from"
            raise IntegrityError(about, what, "copy models/unet.json of the network's run there")
        own = manifest.read(about)
    if own.weights_sha256 != brain.model.weights_sha256:
        fix = "keep both files of a run together, models/unet.onnx and models/unet.json, under one name"
        raise IntegrityError(about, f"is not the manifest of {brain.name}", fix)
    seen = fingerprints.marks(own.seen, data.images, data.rows("test"))
    if marks := {*seen, *brain.marks} & MAY_KNOW_TEST:
        fix = "name the one of this fold: split.file of tools/brain_dataset.py, train.subset: train, random weights"
        raise DataError(brain.name, f"may know test patients: {'; '.join(sorted(marks))}", fix)


def predict(path: Path, data: Dataset) -> dict[str, np.ndarray]:
    """The arrays of ``evaluate.evaluate`` for validation and test slices, as the exported model answers."""
    outliner, rows = Outliner(path), data.rows("val", "test")
    model = _answer(outliner, data, data.images, "predict")
    found = {"model": model, "one_slice": model, "flair": data.images[rows][..., FLAIR]}
    if outliner.session.slices > 1:
        found["one_slice"] = np.concatenate([outliner.on_grid(data.images[row : row + 1]) for row in rows])
    found["flair_only"] = _answer(outliner, data, dataset.Changed(data.images, dataset.repeat_flair), "FLAIR alone")
    if stripping.is_known(data, rows):
        found["stripped"] = _answer(outliner, data, stripping.StrippedImages(data), "without scalp")
    return found


def _answer(outliner: Outliner, data: Dataset, images: Any, title: str) -> np.ndarray:
    """Probabilities (n, H, W) uint8 of validation and test slices, patient by patient; ``images`` by row."""
    rows = data.rows("val", "test")
    patients = data.slices["patient"].iloc[rows]
    found = np.empty((len(rows), *data.images.shape[1:3]), np.uint8)
    for name in tqdm(patients.unique(), desc=title, unit="patient", leave=False, disable=None):
        places = np.flatnonzero(patients == name)
        found[places] = outliner.on_grid(images[rows[places]], name=f"patient {name}")
    return found


def measure_speed(path: Path, data: Dataset) -> float:
    """Slices a second, after a first pass."""
    outliner, images = Outliner(path), np.asarray(data.images[:TIMED])
    outliner.on_grid(images[:1])
    start = time.perf_counter()
    outliner.on_grid(images)
    return len(images) / (time.perf_counter() - start)
