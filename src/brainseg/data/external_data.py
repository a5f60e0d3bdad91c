"""Images, masks and predictions that ``brainseg evaluate`` is given, paired and prepared by the pipeline's code.

Errors name the command's arguments, not the parameters of the pipeline.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from brainseg import config
from brainseg.data import archive, dataset, folder, preprocessing
from brainseg.data.layouts import pairing
from brainseg.errors import BrainsegError, DataError, Problem

NAMES = {"download.images": "IMAGES", "download.masks": "MASKS", "download.path": "their folder",
         "download.patient": "--patient", "preprocess.foreground": "--foreground"}  # fmt: skip


class ExternalInputs(NamedTuple):
    """Folders or patterns of images, masks and, where they exist already, predictions; ``download.patient``.

    ``foreground`` and ``predicted`` are the labels of masks and predictions that count as tumour; None: the only
    value above 0.
    """

    images: str
    masks: str
    predictions: str | None
    patient: str
    foreground: list[int] | None
    predicted: list[int] | None


def prepare_arrays(
    given: ExternalInputs, params: config.Preprocess, out: Path, predictions: bool = False
) -> dataset.Dataset:
    """Images (N, S, S, 3) and masks (N, S, S) on the grid, all in the test subset.

    Args:
        params: size, channels and window; the labels are those of ``given``.
        out: a folder for the arrays.
        predictions: put the predictions in the place of the masks.

    Raises:
        DataError: every fault of the files.
    """
    both = [given.images, given.masks]
    root, (images, masks, *ready) = split_patterns(both if given.predictions is None else [*both, given.predictions])
    home, _ = split_patterns(both)
    scope = pairing.Scope(ready[0] if ready else None, pairing.find_fixed_folder(images) + "/", home)
    labels, names = given.foreground, NAMES
    if predictions:
        masks, scope, labels = ready[0], scope._replace(no_images=masks, are_answers=True), given.predicted
        names = NAMES | {"download.masks": "--predictions", "preprocess.foreground": "--predicted-foreground"}
    packed = out.with_suffix(".zip")
    try:
        source = config.Download(
            source="folder", path=str(root), layout="patterns", images=images, masks=masks, patient=given.patient
        )
        archive.write(packed, folder.pairs(source, scope))
        preprocessing.run(packed, params.model_copy(update={"foreground": labels}), out)
    except ValidationError as error:
        raise DataError(
            "--patient", error.errors()[0]["msg"].removeprefix("Value error, "), "see docs/how-to/own-data.md"
        ) from None
    except BrainsegError as error:
        raise type(error)(
            "", problems=[_name_arguments(problem, names, predictions) for problem in error.problems]
        ) from None
    packed.unlink()
    slices = dataset.read_slices(out / "slices.csv").assign(fold=-1, subset="test")
    return dataset.Dataset(*dataset.open_arrays(out), slices)


def split_patterns(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder that all arguments share, and each argument as a pattern below it; a folder alone means all its files.

    Raises:
        DataError: a folder does not exist.
    """
    split = []
    for argument in arguments:
        parts = Path(os.path.abspath(os.path.expanduser(argument))).parts
        plain = pairing.count_plain(parts)
        home, rest = Path(os.path.realpath(Path(*parts[:plain]))), "/".join(parts[plain:])
        if not argument or not home.is_dir():
            what = f"{home} is not a folder" if argument else "is empty"
            raise DataError(argument or "argument", what, "name a folder, or a pattern in quotes: 'scans/*.nii.gz'")
        split.append((home, (rest + "/" * argument.endswith("/")) if rest else "**/*"))
    root = Path(os.path.commonpath([home for home, _ in split]))
    return root, [(home.relative_to(root) / "x").as_posix()[:-1] + rest for home, rest in split]


def _name_arguments(problem: Problem, names: dict[str, str], predictions: bool) -> Problem:
    """A fault of the pipeline's parameters with the names of the command line."""
    any_name = "|".join(map(re.escape, names))
    path, what, fix = (re.sub(any_name, lambda found: names[found[0]], text) for text in problem)
    if predictions:
        fix = fix.replace("the masks' pattern", "their pattern; an image without tumour needs an empty prediction")
        return Problem(f"--predictions, {path}", what.replace("mask", "prediction"), fix)
    return Problem(path, what, fix)
