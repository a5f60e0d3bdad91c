"""params.yaml as frozen, strict models. Each stage loads only the blocks it declares in dvc.yaml.

No value has a default here: ``params.yaml`` is the one place that holds numbers. A misspelt key, a
wrong type or a value out of range stops before any work with the key, the range and the nearest name.
"""

import difflib
import io
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from brainseg.errors import DataError, Problem, raise_all

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _regular_expression(value: str) -> str:
    if value not in ("folder", "each_image", "each_volume"):
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError(
                f"needs 'folder', 'each_image', 'each_volume' or a regular expression with one group, has {groups}"
            )
    return value


def _ascending(value: list[float]) -> list[float]:
    if value[0] >= value[1]:
        raise ValueError(f"the lower end, {value[0]:g}, must be below the upper one, {value[1]:g}")
    return value


class Download(Block):
    source: Literal["kaggle", "folder", "phantom"]
    path: str | None
    images: str
    masks: str
    patient: Annotated[str, AfterValidator(_regular_expression)]


class Phantom(Block):
    patients: Annotated[int, Field(ge=1, le=1000)]
    slices: Annotated[int, Field(ge=1, le=200)]
    size: Annotated[int, Field(ge=64, le=512)]
    seed: Seed


class Preprocess(Block):
    size: Annotated[int, Field(ge=32, le=1024, multiple_of=32)]
    channels: Literal["all", "flair", "gray"]
    foreground: Annotated[list[Annotated[int, Field(ge=1, le=255)]], Field(min_length=1)] | None
    window: Annotated[list[Percentile], Field(min_length=2, max_length=2), AfterValidator(_ascending)]


class Split(Block):
    unit: Literal["patient", "slice", "institution"]
    folds: Annotated[int, Field(ge=2, le=1000)]
    test_fold: Annotated[int, Field(ge=0)]
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    patients: Annotated[int, Field(ge=1)] | None
    file: str | None
    seed: Seed


class Train(Block):
    engine: Literal["tensorflow", "jax"]
    device: Literal["auto", "cpu", "gpu"]
    precision: Literal["auto", "bfloat16", "float16", "float32"]
    threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"]
    seed: Seed
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    loss: Literal["bce", "dice", "jaccard", "bce_dice", "focal_tversky"]
    loss_reduction: Literal["batch", "image"]
    loss_smooth: Annotated[float, Field(gt=0, le=10_000)]
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    schedule: Literal["cosine", "constant"]
    warmup: Fraction
    ema: Fraction
    tumour_share: Annotated[float, Field(gt=0, lt=1)] | None
    initial_weights: str | None
    keep: Literal["best", "last"]
    patience: Annotated[int, Field(ge=1)] | None


class Network(Block):
    name: Literal["unet", "attention_unet", "residual_unet", "unet3d"]
    context: Annotated[int, Field(ge=0, le=8)]
    scaling: Literal["full", "gain"]
    filters: Annotated[int, Field(ge=1, le=512)]
    depth: Annotated[int, Field(ge=1, le=5)]
    norm: Literal["batch", "group", "none"]
    dropout: Fraction
    upsampling: Literal["transpose", "resize"]
    stem: Literal[0, 2, 4]


class Augmentation(Block):
    window: Annotated[float, Field(ge=0, le=1)]
    rotation: Annotated[float, Field(ge=0, le=180)]
    translation: Annotated[float, Field(ge=0, le=0.5)]
    zoom: Annotated[float, Field(ge=0, le=0.9)]
    shear: Annotated[float, Field(ge=0, le=60)]
    flip_horizontal: Probability
    flip_vertical: Probability
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, lt=1)]
    gamma: Annotated[float, Field(ge=0, le=2)]
    noise: Annotated[float, Field(ge=0, le=1)]
    sequence_dropout: Probability
    context_dropout: Probability


class Evaluate(Block):
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"]
    min_component: Annotated[int, Field(ge=0)] | Literal["auto"]
    tta: bool
    surface_tolerance: Annotated[float, Field(ge=0)]
    bootstrap: Annotated[int, Field(ge=100, le=100_000)]
    seed: Seed


class Render(Block):
    patients: Annotated[int, Field(ge=1, le=12)]
    dpi: Annotated[int, Field(ge=50, le=300)]


class Export(Block):
    calibration_slices: int = Field(ge=8, le=2000)


class Params(Block):
    """The whole of params.yaml."""

    download: Download
    phantom: Phantom
    preprocess: Preprocess
    split: Split
    train: Train
    network: Network
    augmentation: Augmentation
    evaluate: Evaluate
    render: Render
    export: Export


def load(*blocks: str, path: Path | str = "params.yaml") -> Params:
    """Read and check ``path``; return the named blocks (all, when none is named).

    The result has one attribute a block. A stage that asks for a block it did not name gets an
    AttributeError, which keeps the params in ``dvc.yaml`` honest.

    Raises:
        DataError: every fault of the file at once, with the key, what is allowed and the nearest name.
    """
    path = Path(path)
    return check(read_yaml(path), path, *blocks)


def check(raw: dict, path: Path, *blocks: str) -> Any:
    """``load`` of what was read already; errors call it ``path``."""
    fields = {name: (Params.model_fields[name].annotation, ...) for name in blocks or Params.model_fields}
    try:
        raise_all(_conflicts(path, Params.model_validate(raw)))
        model = create_model("Params", __base__=Block, **fields)  # type: ignore[call-overload]
        return model.model_validate({name: raw[name] for name in fields})
    except ValidationError as error:
        raise_all([_explain(path, fault) for fault in error.errors()])
        raise


def read_yaml(path: Path) -> dict:
    """A YAML 1.2 mapping, as DVC reads it: ``1e-05`` is a number and a key given twice an error."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(path, "no such file", "run from the project's top folder") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"not valid YAML 1.2: {error}", "correct the line it names") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, name: object) -> dict:
    """``read_yaml`` of a text; errors call it ``name``."""
    try:
        raw = YAML(typ="safe", pure=True).load(io.StringIO(text))
    except YAMLError as error:
        what = " ".join(str(error).split())
        raise DataError(name, f"not valid YAML 1.2: {what}", "correct the line it names") from None
    if not isinstance(raw, dict):
        raise DataError(name, "holds no blocks", "restore it with: git checkout params.yaml")
    return raw


def _conflicts(path: Path, params: Params) -> list[Problem]:
    """Values that are allowed each by itself but not together."""
    network, split, size = params.network, params.split, params.preprocess.size
    window = round(params.augmentation.window * size)  # as augmentation.py has it
    step = max(1, network.stem) * 2**network.depth  # pixels of the grid to one of the deepest level
    needs = f"network.stem {network.stem} and network.depth {network.depth} need a multiple of {step}"
    found = {
        f"preprocess.size is {size}, {needs}": (
            size % step != 0,
            f"set preprocess.size to a multiple of {step}, or lower network.depth",
        ),
        f"augmentation.window is {window} of {size} pixels, {needs}": (
            window % step != 0 or (window == 0 < params.augmentation.window),
            f"set it to {max(1, round(window / step)) * step / size:.4g}, or to 0 for whole slices",
        ),
        f"network.filters is {network.filters}, network.norm group makes 8 groups of them": (
            network.norm == "group" and network.filters > 8 and network.filters % 8 != 0,
            "set network.filters to a multiple of 8",
        ),
        f"network.name is {network.name}, network.context {network.context}": (
            network.name == "unet3d" and network.context == 0,
            "set network.context to 1 or more: one slice is flat",
        ),
        f"network.name is {network.name}, augmentation.context_dropout {params.augmentation.context_dropout}": (
            network.name == "unet3d" and params.augmentation.context_dropout > 0,
            "set augmentation.context_dropout: 0; the neighbours' outlines would no longer fit their images",
        ),
        f"network.name is {network.name}, split.unit {split.unit}": (
            network.name == "unet3d" and split.unit == "slice",
            "set split.unit: patient; it answers a slice's neighbours too, which may be test slices",
        ),
        f"split.test_fold is {split.test_fold}, split.folds {split.folds}": (
            split.test_fold >= split.folds and split.file is None and split.unit != "institution",
            f"set split.test_fold to 0..{split.folds - 1}",
        ),
    }
    return [Problem(str(path), what, fix) for what, (applies, fix) in found.items() if applies]


def _explain(path: Path, fault: Mapping[str, Any]) -> Problem:
    location = [str(part) for part in fault["loc"] if isinstance(part, str | int)]
    if fault["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"write {close[0]}" if close else f"use one of: {', '.join(known)}"
        return Problem(str(path), f"{'.'.join(location)} is not a parameter", hint)
    key = ".".join(location[:2])  # what follows names a branch of a union, not a key
    if fault["type"] == "missing":
        return Problem(str(path), f"{key} is missing", f"add it, or: git checkout {path}")
    value = fault.get("input")
    close = difflib.get_close_matches(str(value), re.findall(r"'([^']+)'", fault["msg"]), n=1)
    hint = f"write {close[0]}" if close else f"set {key} as params.yaml's comments say"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return Problem(str(path), f"{key} is {value!r}: {message}", hint)


def _known_keys(location: list[str]) -> list[str]:
    if not location:
        return list(Params.model_fields)
    block = typing.get_type_hints(Params).get(location[0], Params)
    return list(block.model_fields)
