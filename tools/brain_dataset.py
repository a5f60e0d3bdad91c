"""The prepared slices with masks of the brain instead of the tumour: own data for the pipeline, to learn what scalp is.

``python -m tools.brain_dataset OUT`` in the project's folder, after ``dvc repro``, writes a folder of pictures for
``download.source: folder``, and for each fold the same split of the patients as the project's, for ``split.file``. The
networks that are trained on it tell ``brainseg ensemble --without-scalp`` what to remove.

Each patient is there twice, whole and already without scalp, with the same mask: a scan without scalp is to stay as it
is. The splits train on both and score the whole ones; ``all.csv`` is for a network of all patients. Slices whose brain
is not known are left out.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from PIL import Image

from brainseg import config, errors, files
from brainseg.data import dataset, inputs, splitting
from brainseg.data.brains import stripping
from brainseg.errors import DataError

PROCESSED, SPLIT = Path("data/processed"), Path("data/splits/split.csv")
USED = [*(PROCESSED / name for name in ("images.npy", "brains.npy", "slices.csv")), SPLIT]
STRIPPED = "-without-scalp"  # behind the patient's id


def run(out: Path, root: Path = Path()) -> str:
    """Write ``out/images``, ``out/fold-K.csv`` for each fold, and ``out/all.csv``; return what was written.

    Raises:
        DataError: the slices are not prepared, or no brain is known. IntegrityError: they are not what dvc.lock says.
    """
    params = config.load("split", path=root / "params.yaml").split
    inputs.verify([str(path) for path in USED], root)
    data = dataset.load(root / PROCESSED, root / SPLIT, params.unit)
    known = np.array([row for row in range(len(data.images)) if not data.brain(np.array([row])).all()], int)
    check(params, known, out)
    for rows in data.split_by_patient(known):
        patient, masks = str(data.slices["patient"].iloc[rows[0]]), 255 * data.brain(rows)
        for name, images in ((patient, data.images), (patient + STRIPPED, stripping.StrippedImages(data))):
            for number, image, mask in zip(data.slices["slice"].iloc[rows], images[rows], masks, strict=True):
                write(out / "images" / name / f"{number}.png", image)
                write(out / "images" / name / f"{number}_mask.png", mask)
    for fold in range(params.folds):
        table = splitting.split(data.slices, params.model_copy(update={"test_fold": fold})).iloc[known]
        subsets = table.groupby("patient", observed=True)["subset"].first().astype(str)
        trained = subsets[subsets == "train"].rename(lambda patient: f"{patient}{STRIPPED}")
        pd.concat([subsets, trained]).to_csv(out / f"fold-{fold}.csv", lineterminator="\n")
    both = pd.concat([subsets, subsets.rename(lambda patient: f"{patient}{STRIPPED}")])
    both.to_csv(out / "all.csv", lineterminator="\n")  # with train.subset: all each subset is trained on
    of = f"{params.folds} splits, seed {params.seed}"
    return f"{out}: {len(known)} slices of {len(subsets)} patients, each twice; {of}"


def check(params: config.Split, known: np.ndarray, out: Path) -> None:
    """Raise DataError where the splits would not be those of the folds, no brain is known, or OUT has pictures."""
    if params.unit != "patient" or params.file or params.inner_folds:
        what = f"has split.unit {params.unit}, file {params.file}, inner_folds {params.inner_folds}"
        raise DataError("params.yaml", what, "set them to patient, null and null: a split is written for each fold")
    if not len(known):
        raise DataError(PROCESSED / "brains.npy", "knows no brain", "set brains.method: shipped and download LGG")
    if (out / "images").exists():
        raise DataError(out / "images", "is there already", "remove it, or name another folder")


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        Image.fromarray(image).save(temporary, "png", compress_level=1)  # less time, more bytes


def main(out: Annotated[Path, typer.Argument(help="The folder to write to.")]) -> None:
    """Write the prepared slices with masks of the brain."""
    print(run(out))


if __name__ == "__main__":
    errors.run(lambda: typer.run(main))
