"""Initial weights from a model of this project instead of random ones: ``train.initial_weights``."""

from pathlib import Path
from typing import NamedTuple

import keras

from brainseg import config, files
from brainseg.config import Params
from brainseg.errors import DataError, Problem, raise_all
from brainseg.models import manifest, networks
from brainseg.models.manifest import Manifest

KEY = config.INITIAL_WEIGHTS
ENDING = ".weights.h5"
WITHOUT_WEIGHTS = {"dropout"}  # has no weights


class InitialModel(NamedTuple):
    """A network with its weights, and its manifest."""

    network: keras.Model
    manifest: Manifest


def load(params: Params, out: Path, fold: int = -1) -> InitialModel | None:
    """Load the model that ``train.initial_weights`` names, relative to the project's root; None where it is null.

    The manifest is in the same folder: ``unet.json`` belongs to ``unet.weights.h5``.

    Args:
        params: blocks train and network.
        out: where the training will write its weights.
        fold: number of the test fold, which ``{fold}`` in the path stands for; -1: the split has none.

    Raises:
        DataError: the path is ``out``, is no file of weights, or belongs to another network.
        IntegrityError: manifest or weights are missing, or do not belong together.
    """
    if params.train.initial_weights is None:
        return None
    path = config.locate(KEY, params.train.initial_weights, fold)
    if not path.name.endswith(ENDING):
        raise DataError(path, f"{KEY} names no file of weights (*{ENDING})", f"set {KEY} to a file *{ENDING}")
    if path.resolve() == (files.project_root() / out).resolve():
        fix = (
            f"get both files back: dvc checkout {out} {out.parent}/unet.json; copy them elsewhere: "
            f"mkdir -p pretrained; cp {out.parent}/unet.* pretrained/; set {KEY} to that"
        )
        raise DataError(path, f"{KEY} is what the training writes, and DVC removes it first", fix)
    config.require(KEY, params.train.initial_weights, fold)
    model = manifest.read(path.with_name(path.name.removesuffix(ENDING) + ".json"))
    theirs, ours = model.network.model_dump(), params.network.model_dump()
    raise_all(
        [
            Problem("params.yaml", f"network.{name} is {ours[name]}, the initial weights have {theirs[name]}",
                    f"set network.{name}: {theirs[name]}, or {KEY}: null")
            for name in ours if name not in WITHOUT_WEIGHTS and ours[name] != theirs[name]
        ]
    )  # fmt: skip
    return InitialModel(networks.restore(model, path), model)
