"""params.yaml as frozen, strict models. Each stage loads only the blocks that it declares in dvc.yaml.

No number has a default here: ``params.yaml`` is the one place that holds them. Only what older files lack has one: what
was done then. A misspelt key, a wrong type or a value out of range is
refused before any work; the error names the key, the range and the nearest name.
"""

import difflib
import io
import itertools
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from brainseg import files
from brainseg.errors import DataError, Problem, raise_all

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Layout = Literal["auto", "patterns", "brats", "nnunet", "decathlon", "bids", "table", "folders"]
SHORT = {"lr": "learning_rate", "wd": "weight_decay"}  # as they are called elsewhere
FOLD = "{fold}"  # in the name of a file: each fold has one of its own
INITIAL_WEIGHTS, SOFT_MASKS = "train.initial_weights", "train.soft_masks"
# Parameters that name a file, and what to do where it is missing.
NAMED = {INITIAL_WEIGHTS: "set it to a model's weights", SOFT_MASKS: "make it again: brainseg teach RUN..."}
MAX_BATCH = 4096
MAX_LEVELS = 100  # of brackets within brackets


class ParamsBlock(BaseModel):
    """One block of params.yaml: no unknown keys, no conversions between types, no changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def reason(error: ValueError) -> str:
    """Why a file was refused, in one line: the first faults of a model, each by its key."""
    if isinstance(error, ValidationError):
        faults = [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors()[:3]]
        return "; ".join(": ".join(filter(None, fault)) for fault in faults)
    return f"{type(error).__name__} {error}"


def _check_patient_rule(value: str) -> str:
    if value not in ("folder", "each_image", "each_volume"):
        try:
            groups = re.compile(value).groups
        except (re.error, RecursionError) as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError(
                f"needs 'folder', 'each_image', 'each_volume' or a regular expression with one group, has {groups}"
            )
    return value


def _check_ascending(value: list[float]) -> list[float]:
    if value[0] >= value[1]:
        raise ValueError(f"the lower end, {value[0]:g}, must be below the upper one, {value[1]:g}")
    return value


class Download(ParamsBlock):
    source: Literal["kaggle", "folder", "phantom"]
    path: str | None
    layout: Layout = "auto"
    images: str
    masks: str
    patient: Annotated[str, AfterValidator(_check_patient_rule)]
    patients: str | None = None


class Phantom(ParamsBlock):
    patients: Annotated[int, Field(ge=1, le=100_000)]
    slices: Annotated[int, Field(ge=1, le=200)]
    size: Annotated[int, Field(ge=64, le=512)]
    seed: Seed


class Preprocess(ParamsBlock):
    size: Annotated[int, Field(ge=32, le=1024, multiple_of=32)]
    channels: Literal["all", "flair", "gray"]
    foreground: Annotated[list[Annotated[int, Field(ge=1, le=65535)]], Field(min_length=1)] | None
    window: Annotated[list[Percentile], Field(min_length=2, max_length=2), AfterValidator(_check_ascending)]


class Brains(ParamsBlock):
    method: Literal["shipped", "none"]


class Split(ParamsBlock):
    unit: Literal["patient", "slice", "institution"]
    folds: Annotated[int, Field(ge=2, le=1000)]
    test_fold: Annotated[int, Field(ge=0)]
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    patients: Annotated[int, Field(ge=1)] | None
    file: str | None
    inner_folds: Annotated[int, Field(ge=2, le=1000)] | None = None
    inner_fold: Annotated[int, Field(ge=0)] = 0
    seed: Seed


class Train(ParamsBlock):
    engine: Literal["tensorflow", "jax"]
    device: Literal["auto", "cpu", "gpu"]
    precision: Literal["auto", "bfloat16", "float16", "float32"]
    threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"]
    devices: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    seed: Seed
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH)]
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
    sampling: Literal["slice", "patient"] = "slice"
    subset: Literal["train", "train_and_val", "all"] = "train"
    initial_weights: str | None
    soft_masks: str | None = None
    soft_weight: Probability = 0.5
    keep: Literal["best", "last"]
    patience: Annotated[int, Field(ge=1)] | None


class Network(ParamsBlock):
    name: Literal["unet", "attention_unet", "residual_unet", "unet3d"]
    context: Annotated[int, Field(ge=0, le=8)]
    scaling: Literal["full", "gain"]
    filters: Annotated[int, Field(ge=1, le=512)]
    depth: Annotated[int, Field(ge=1, le=5)]
    norm: Literal["batch", "group", "none"]
    dropout: Fraction
    upsampling: Literal["transpose", "resize"]
    stem: Literal[0, 2, 4]


class Augmentation(ParamsBlock):
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
    lesion_mix: Probability = 0.0
    scalp_dropout: Probability = 0.0
    flair_only: Probability = 0.0


class Evaluate(ParamsBlock):
    temperature: Annotated[float, Field(ge=0.25, le=8)] | Literal["auto"] = 1.0
    bias: Annotated[float, Field(ge=-4, le=4)] | Literal["auto"] = 0.0
    skew: Annotated[float, Field(ge=-0.95, le=0.95)] | Literal["auto"] = 0.0
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"]
    min_component: Annotated[int, Field(ge=0)] | Literal["auto"]
    min_share: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = 0.0
    tta: bool
    surface_tolerance: Annotated[float, Field(ge=0)]
    bootstrap: Annotated[int, Field(ge=100, le=100_000)]
    seed: Seed


class Render(ParamsBlock):
    patients: Annotated[int, Field(ge=1, le=12)]
    dpi: Annotated[int, Field(ge=50, le=300)]


class Export(ParamsBlock):
    calibration_slices: int = Field(ge=8, le=2000)


class Params(ParamsBlock):
    """The whole of params.yaml."""

    download: Download
    phantom: Phantom
    preprocess: Preprocess
    brains: Brains = Brains(method="shipped")  # without scalp_dropout no network depends on it
    split: Split
    train: Train
    network: Network
    augmentation: Augmentation
    evaluate: Evaluate
    render: Render
    export: Export


def load(*blocks: str, path: Path | str = "params.yaml") -> Params:
    """Read and check ``path``. Return the named blocks, or all of them if none is named.

    The result has one attribute for each block. A block that was not named is an AttributeError, so
    that a stage cannot use parameters that ``dvc.yaml`` does not declare for it.

    Raises:
        DataError: all problems of the file, each with the key, what is allowed and the nearest name.
    """
    path = Path(path)
    return check(read_yaml(path), path, *blocks)


def check(raw: dict[str, Any], path: Path, *blocks: str) -> Any:
    """``load`` for parameters that were read already; errors name ``path`` as their source."""
    fields = {name: (Params.model_fields[name].annotation, ...) for name in blocks or Params.model_fields}
    try:
        raise_all(_find_conflicts(path, Params.model_validate(raw)))
        model = create_model("Params", __base__=ParamsBlock, **fields)  # type: ignore[call-overload]
        return model.model_validate({name: raw[name] for name in fields})
    except ValidationError as error:
        raise_all([_explain(path, each) for each in error.errors()])
        raise


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping as DVC does: ``1e-05`` is a number, and a key given twice is an error."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(path, "no such file", "run from the project's top folder") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"not valid YAML 1.2: {error}", "correct the line it names") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, name: object) -> dict[str, Any]:
    """``read_yaml`` for a text; errors name ``name`` as its source."""
    too_deep = DataError(name, "holds blocks within blocks too deep to be read", f"restore it: git restore {name}")
    if _count_levels(text) > MAX_LEVELS:
        raise too_deep
    try:
        raw = YAML(typ="safe", pure=True).load(io.StringIO(text))
    except YAMLError as error:
        what = " ".join(str(error).split())
        raise DataError(name, f"not valid YAML 1.2: {what}", "correct the line it names") from None
    except RecursionError:
        raise too_deep from None
    if not isinstance(raw, dict):
        raise DataError(name, "holds no blocks", f"restore it: git restore {name}")
    return raw


def merge(params: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` with the values of ``overrides`` in their blocks."""
    blocks = {name: {**params.get(name, {}), **values} for name, values in overrides.items()}
    return {**params, **blocks}


def fold_parameter(inner_folds: int | None) -> str:
    """The key of ``split`` that differs between the folds of one cross-validation."""
    return "test_fold" if inner_folds is None else "inner_fold"


def locate(key: str, named: str, fold: int) -> Path:
    """The file that the parameter ``key`` names for a training, relative to the project's root.

    Args:
        fold: number of the test fold, for which ``{fold}`` stands in the name; -1: the split has none.

    Raises:
        DataError: ``{fold}`` stands in it, and the split has no folds.
    """
    if FOLD in named and fold < 0:
        raise DataError(named, f"{key} has {FOLD}, and the split comes from a file, without folds", "name the file")
    return files.project_root() / Path(named.replace(FOLD, str(fold))).expanduser()


def require(key: str, named: str, fold: int) -> Path:
    """The same, where DataError is raised unless the file is there."""
    if not (path := locate(key, named, fold)).is_file():
        raise DataError(path, f"{key}: there is no such file", f"{NAMED[key]}, or set {key}: null")
    return path


def list_named(train: Mapping[str, Any]) -> dict[str, str]:
    """The files that the block train of ``params.yaml`` names, by the whole key."""
    given = {key: train.get(key.removeprefix("train.")) for key in NAMED}
    return {key: named for key, named in given.items() if named is not None}


def require_all(train: Mapping[str, Any], fold: int) -> None:
    """Raise DataError unless each of these files is there."""
    for key, named in list_named(train).items():
        require(key, named, fold)


def list_defaults(*blocks: str) -> dict[str, dict[str, Any]]:
    """The values that parameters of these blocks have where an older file lacks them."""
    fields = {block: Params.model_fields[block].annotation.model_fields for block in blocks}  # type: ignore[union-attr]
    return {
        block: {key: field.default for key, field in found.items() if not field.is_required()}
        for block, found in fields.items()
    }


def flatten(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """``{"train": {"epochs": 3}}`` to ``{"train.epochs": 3}``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flatten(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def _count_levels(text: str) -> int:
    """How deep brackets lie in each other, at most; the parser takes a time that grows with its square."""
    steps = (1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", text))
    return max(itertools.accumulate(steps), default=0)


def _find_conflicts(path: Path, params: Params) -> list[Problem]:
    """Values that are allowed alone but not together."""
    network, split, size, download = params.network, params.split, params.preprocess.size, params.download
    train = params.train
    shared = 1 if train.devices == "auto" else train.devices
    window = round(params.augmentation.window * size)  # as in training/augmentation.py
    step = max(1, network.stem) * 2**network.depth  # grid pixels for one pixel of the deepest level
    needs = f"network.stem {network.stem} and network.depth {network.depth} need a multiple of {step}"
    rules = {
        f"download.patients is {download.patients}, download.patient {download.patient}": (
            download.patients is not None and download.patient != "folder",
            "set download.patient: folder, which leaves the patients to the CSV, or download.patients: null",
        ),
        f"preprocess.size is {size}, {needs}": (
            size % step != 0,
            f"set preprocess.size to a multiple of {step}, or lower network.depth",
        ),
        f"augmentation.window is {window} of {size} pixels, {needs}": (
            window % step != 0 or (window == 0 < params.augmentation.window),
            f"set it to {max(1, round(window / step)) * step / size:.4g}, or to 0 for whole slices",
        ),
        f"network.filters is {network.filters}, network.norm group makes 8 groups of filters": (
            network.norm == "group" and network.filters > 8 and network.filters % 8 != 0,
            "set network.filters to a multiple of 8",
        ),
        f"network.name is {network.name}, network.context {network.context}": (
            network.name == "unet3d" and network.context == 0,
            "set network.context to 1 or more: one slice has no depth",
        ),
        f"network.name is {network.name}, augmentation.context_dropout {params.augmentation.context_dropout}": (
            network.name == "unet3d" and params.augmentation.context_dropout > 0,
            "set augmentation.context_dropout: 0; the outlines of the neighbours would not fit their changed images",
        ),
        f"augmentation.lesion_mix is {params.augmentation.lesion_mix}, network.context {network.context}": (
            params.augmentation.lesion_mix > 0 and network.context > 0,
            "set augmentation.lesion_mix: 0; the neighbours of a slice would not have the tumour that is put into it",
        ),
        f"train.subset is {train.subset}, train.keep {train.keep}, train.patience {train.patience}": (
            train.subset != "train" and (train.keep == "best" or train.patience is not None),
            "set train.keep: last and train.patience: null; patients who are trained on choose no epoch",
        ),
        f"train.subset is {train.subset}, train.initial_weights {train.initial_weights}": (
            train.subset == "all" and FOLD in (train.initial_weights or ""),
            "name one file: weights of a network of all patients; those of a fold are of some",
        ),
        f"train.subset is {train.subset}, train.soft_masks {train.soft_masks}": (
            train.subset == "all" and FOLD in (train.soft_masks or ""),
            "name one file: what networks of all patients answered; those of a fold answer not for its test patients",
        ),
        f"train.batch_size is {train.batch_size}, which train.devices {train.devices} cannot share equally": (
            train.batch_size % shared != 0,
            suggest_equal_parts(train.batch_size, shared),
        ),
        f"network.name is {network.name}, split.unit {split.unit}": (
            network.name == "unet3d" and split.unit == "slice",
            "set split.unit: patient; it also outlines the neighbours of a slice, which may be test slices",
        ),
        f"split.inner_folds is {split.inner_folds}, split.unit {split.unit}, split.file {split.file}": (
            split.inner_folds is not None and (split.unit != "patient" or split.file is not None),
            "set split.inner_folds: null, or split.unit: patient and split.file: null",
        ),
        f"split.inner_fold is {split.inner_fold}, split.inner_folds {split.inner_folds}": (
            split.inner_fold >= (split.inner_folds or 1),
            f"set split.inner_fold to 0..{(split.inner_folds or 1) - 1}",
        ),
        f"split.test_fold is {split.test_fold}, split.folds {split.folds}": (
            split.test_fold >= split.folds and split.file is None and split.unit != "institution",
            f"set split.test_fold to 0..{split.folds - 1}",
        ),
    }
    return [Problem(str(path), what, fix) for what, (applies, fix) in rules.items() if applies]


def suggest_equal_parts(batch_size: int, devices: int) -> str:
    """The batch sizes nearest to one that ``devices`` cannot share equally, and how many devices can share it."""
    lower = batch_size // devices * devices
    sizes = " or ".join(str(size) for size in (lower, lower + devices) if 0 < size <= MAX_BATCH)
    fewer = max(count for count in range(1, devices + 1) if batch_size % count == 0)
    return f"set train.batch_size to {sizes}, or train.devices to {fewer}"


def _explain(path: Path, error: Mapping[str, Any]) -> Problem:
    """One of pydantic's errors in the words of params.yaml."""
    location = [str(part) for part in error["loc"] if isinstance(part, str | int)]
    if error["type"] == "extra_forbidden":
        known, name = _known_keys(location[:-1]), ".".join(location)
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"write {close[0]}" if close else f"use one of: {', '.join(known)}"
        nearest = suggest_name(name) if len(location) > 1 else ""
        return Problem(str(path), f"{name} is not a parameter{f' (did you mean {nearest}?)' if nearest else ''}", hint)
    key = ".".join(location[:2])  # further parts name a branch of a union, not a key
    if error["type"] == "missing":
        return Problem(str(path), f"{key} is missing", f"add it, or: git checkout {path}")
    value = error.get("input")
    close = difflib.get_close_matches(str(value), re.findall(r"'([^']+)'", error["msg"]), n=1)
    hint = f"write {close[0]}" if close else f"set {key} as the comments in params.yaml say"
    message = error["msg"][0].lower() + error["msg"][1:]
    return Problem(str(path), f"{key} is {value!r}: {message}", hint)


def list_names() -> list[str]:
    """Every parameter: ``train.loss``."""
    return [f"{block}.{key}" for block in Params.model_fields for key in _known_keys([block])]


def suggest_name(name: str) -> str:
    """The parameters that ``name`` may mean: of its key in any block, else the nearest; empty if none is near.

    ``train.loss`` for ``loss``, ``train.los``, ``los`` and ``trian.loss``, ``train.learning_rate`` for ``lr``.
    """
    block, _, key = name.rpartition(".")
    key = SHORT.get(key, key)
    known = {each: each.rpartition(".")[2] for each in list_names()}
    mine = {each: its for each, its in known.items() if each.startswith(f"{block}.")}
    found = [each for each, its in known.items() if its == key] or _find_alike(key, mine) or _find_alike(key, known)
    by_block = difflib.get_close_matches(name, found, n=1) if block and not mine else []
    return " or ".join(by_block or found)


def _find_alike(key: str, known: Mapping[str, str]) -> list[str]:
    """Those of ``known``, names by their keys, whose key is nearest, else those whose key has this word."""
    near = difflib.get_close_matches(key, known.values(), n=1)
    has_word = [name for name, its in known.items() if key in its.split("_")]
    return [name for name, its in known.items() if its in near] or has_word


def _known_keys(location: list[str]) -> list[str]:
    if not location:
        return list(Params.model_fields)
    block = typing.get_type_hints(Params).get(location[0], Params)
    return list(block.model_fields)
