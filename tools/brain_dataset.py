"""The prepared slices with masks of the brain instead of the tumour: own data for the pipeline, to learn what scalp is.

``python -m tools.brain_dataset OUT`` in the project's folder, after ``dvc repro``, writes a folder of pictures for
``download.source: folder``, and for each fold the same split of the patients as the project's, for ``split.file``. The
networks that are trained on it tell ``brainseg ensemble --without-scalp`` what to remove.

Each patient is there twice, whole and already without scalp, with the same mask: a scan without scalp is to stay as it
is. Slices whose brain is not known are left out.
"""

from pathlib import Path
from typing import Annotated

import cv2
import pandas as pd
import typer

from brainseg import config, errors
from brainseg.data import dataset, inputs, splitting
from brainseg.data.brains import stripping
from brainseg.errors import DataError

PROCESSED, SPLIT = Path("data/processed"), Path("data/splits/split.csv")
USED = [*(PROCESSED / name for name in ("images.npy", "brains.npy", "slices.csv")), SPLIT]
STRIPPED = "-without-scalp"  # behind the patient's id
FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # less time, more bytes


def run(out: Path, root: Path = Path()) -> str:
    """Write ``out/images`` and, for each fold, ``out/fold-K.csv``; return what was written.

    Raises:
        DataError: the slices are not prepared, or no brain is known. IntegrityError: they are not what dvc.lock says.
    """
    params = config.load("split", path=root / "params.yaml").split
    inputs.verify([str(path) for path in USED], root)
    data = dataset.load(root / PROCESSED, root / SPLIT, params.unit)
    views = {"": data.images, STRIPPED: stripping.StrippedImages(data)}
    known = [row for row in range(len(data.images)) if not data.brain(row).all()]
    if not known:
        raise DataError(PROCESSED / "brains.npy", "knows no brain", "set brains.method: shipped and download LGG")
    slices = data.slices.iloc[known]
    for row, patient, number in zip(known, slices["patient"], slices["slice"], strict=True):
        for ending, images in views.items():
            folder = out / "images" / f"{patient}{ending}"
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), images[row][..., ::-1], FAST)
            cv2.imwrite(str(folder / f"{number}_mask.png"), 255 * data.brain(row), FAST)
    for fold in range(params.folds):
        table = splitting.split(data.slices, params.model_copy(update={"test_fold": fold}))
        patients = table.iloc[known].groupby("patient", observed=True)["subset"].first().reset_index()
        both = pd.concat([patients.assign(patient=patients["patient"].astype(str) + ending) for ending in views])
        both.to_csv(out / f"fold-{fold}.csv", index=False, lineterminator="\n")
    return f"{out}: {len(known)} slices of {slices['patient'].nunique()} patients, each twice; {params.folds} splits"


def main(out: Annotated[Path, typer.Argument(help="The folder to write to.")]) -> None:
    """Write the prepared slices with masks of the brain."""
    print(run(out))


if __name__ == "__main__":
    errors.run(lambda: typer.run(main))
