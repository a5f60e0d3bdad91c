"""Images, masks and predictions that ``brainseg evaluate`` is given, paired and prepared by the pipeline's code.

Its faults are said in the words of the command.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from brainseg import config
from brainseg.data import archive, dataset, folder, pairing, preprocessing
from brainseg.errors import BrainsegError, DataError, Problem

NAMES = {"download.images": "IMAGES", "download.masks": "MASKS", "download.path": "their folder",
         "download.patient": "--patient", "preprocess.foreground": "--foreground"}  # fmt: skip


class Given(NamedTuple):
    """Folders or patterns of images, masks and, of ready-made ones, predictions; ``download.patient``.

    ``foreground`` and ``predicted`` are the labels of masks and predictions that count as tumour; None: binary ones.
    """

    images: str
    masks: str
    predictions: str | None
    patient: str
    foreground: list[int] | None
    predicted: list[int] | None


def prepared(given: Given, params: config.Preprocess, out: Path, predictions: bool = False) -> dataset.Dataset:
    """Images (N, S, S, 3) with the masks, or with the predictions in their place, on the grid; all of it is test.

    Args:
        params: size, channels and window; the labels are those given. out: a folder for the arrays.

    Raises:
        DataError: all that is wrong, whatever it is.
    """
    both = [given.images, given.masks]
    root, (images, masks, *ready) = patterns_of(both if given.predictions is None else [*both, given.predictions])
    home, _ = patterns_of(both)
    scope = pairing.Scope(ready[0] if ready else None, pairing.fixed(images) + "/", home)
    labels, names = given.foreground, NAMES
    if predictions:
        masks, scope, labels = ready[0], scope._replace(no_images=masks), given.predicted
        names = NAMES | {"download.masks": "--predictions", "preprocess.foreground": "--predicted-foreground"}
    packed = out.with_suffix(".zip")
    try:
        source = config.Download(source="folder", path=str(root), images=images, masks=masks, patient=given.patient)
        archive.write(packed, folder.pairs(source, scope))
        preprocessing.run(packed, params.model_copy(update={"foreground": labels}), out)
    except ValidationError as error:
        raise DataError(
            "--patient", error.errors()[0]["msg"].removeprefix("Value error, "), "see docs/own-data.md"
        ) from None
    except BrainsegError as error:
        raise type(error)("", problems=[_said(problem, names, predictions) for problem in error.problems]) from None
    packed.unlink()
    text = {"patient": str, "institution": str, "spacing": str}
    slices = pd.read_csv(out / "slices.csv", keep_default_na=False, dtype=text).assign(fold=-1, subset="test")
    pixels = {name: np.load(out / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("images", "masks")}
    return dataset.Dataset(**pixels, slices=slices)


def patterns_of(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder that all arguments share, and each as a pattern below it; a folder by itself is all that it holds.

    Raises:
        DataError: a folder that is not there.
    """
    split = []
    for argument in arguments:
        parts = Path(os.path.abspath(os.path.expanduser(argument))).parts
        plain = next((i for i, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
        home, rest = Path(os.path.realpath(Path(*parts[:plain]))), "/".join(parts[plain:])
        if not argument or not home.is_dir():
            what = f"{home} is no folder" if argument else "is empty"
            raise DataError(argument or "argument", what, "name a folder, or a pattern in quotes: 'scans/*.nii.gz'")
        split.append((home, (rest + "/" * argument.endswith("/")) if rest else "**/*"))
    root = Path(os.path.commonpath([home for home, _ in split]))
    return root, [(home.relative_to(root) / "x").as_posix()[:-1] + rest for home, rest in split]


def _said(problem: Problem, names: dict[str, str], predictions: bool) -> Problem:
    """A fault of the pipeline's parameters in the words of the command line."""
    any_name = "|".join(map(re.escape, names))
    path, what, fix = (re.sub(any_name, lambda found: names[found[0]], text) for text in problem)
    if predictions:
        fix = fix.replace("the masks' pattern", "theirs; where nothing was found an empty one")
        return Problem(f"--predictions, {path}", what.replace("mask", "prediction"), fix)
    return Problem(path, what, fix)
