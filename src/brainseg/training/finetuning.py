"""A model of ours to begin with, trained further on other data: ``train.initial_weights``."""

from pathlib import Path
from typing import NamedTuple

import keras

from brainseg import files
from brainseg.config import Params
from brainseg.errors import DataError, Problem, raise_all
from brainseg.models import manifest, networks

ENDING = ".weights.h5"
FREE = {"dropout"}  # has no weights


class Initial(NamedTuple):
    """The network, with its weights, and its manifest."""

    network: keras.Model
    manifest: dict


def load(params: Params, out: Path) -> Initial | None:
    """What ``train.initial_weights`` names, relative to the project's top folder; None where it is null.

    The manifest lies beside it: ``unet.json`` beside ``unet.weights.h5``.

    Args:
        params: blocks train and network. out: where the weights will be written.

    Raises:
        DataError: it is the training's own output, no weights file, or of another network.
        IntegrityError: manifest or weights are missing, or do not belong together.
    """
    if params.train.initial_weights is None:
        return None
    path = files.project_root() / Path(params.train.initial_weights).expanduser()
    key = "train.initial_weights"
    if not path.name.endswith(ENDING):
        raise DataError(path, f"{key} names no file of weights (*{ENDING})", "name the weights; the manifest is beside")
    if path.resolve() == (files.project_root() / out).resolve():
        fix = (
            f"get both files back: dvc checkout {out} {out.parent}/unet.json; copy them elsewhere: "
            f"mkdir -p pretrained; cp {out.parent}/unet.* pretrained/; set {key} to that"
        )
        raise DataError(path, f"{key} is what the training writes, which DVC removes first", fix)
    if not path.is_file():
        raise DataError(path, f"{key}: there is no such file", "set it to a model's weights, or to null")
    model = manifest.read(path.with_name(path.name.removesuffix(ENDING) + ".json"))
    theirs, ours = model["network"], params.network.model_dump()
    raise_all(
        [
            Problem("params.yaml", f"network.{name} is {ours[name]}, the initial weights have {theirs[name]}",
                    f"set network.{name}: {theirs[name]}, or {key}: null")
            for name in ours if name not in FREE and ours[name] != theirs[name]
        ]
    )  # fmt: skip
    return Initial(networks.restore(model, path), model)
