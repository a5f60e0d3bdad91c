"""models/unet.json: what the weights are, what they expect, what they were trained on and how."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from brainseg import files
from brainseg.config import Augmentation, Download, Network, ParamsBlock, Preprocess, Split, Train, reason
from brainseg.errors import IntegrityError, Problem, guard, raise_all
from brainseg.io.sequences import CHANNELS

FORMAT: Final = 3
EACH_IMAGE = "each image counted as its own patient"
TRAINED_ON_ALL = "trained on all patients: no number of this run is of patients it has not seen"
VALIDATION_SEEN = "trained on the validation patients too: what they choose and score is too good"
NOTED_LATER = {"slices_sha256", "brains_sha256"}  # digests of the data that early manifests do not have
REMEDY = "run: make pull (the released model), or dvc repro train"


class Contract(ParamsBlock):
    """What the network takes and answers; size: height and width of a slice."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    slices: int
    channels: list[str]
    intensities: str
    output: str


class TrainingProtocol(ParamsBlock):
    """What the weights were trained on; patients and slices of each subset; grid: pixels, side of the square."""

    source: str
    unit: str
    grid: int
    patients: dict[str, int]
    slices: dict[str, int]
    marks: list[str]


class TrainingParameters(ParamsBlock):
    """The blocks of params.yaml that no other field has."""

    train: Train
    augmentation: Augmentation


class Training(ParamsBlock):
    """The engine and the run. The released model was trained before onednn and devices were recorded."""

    engine: Literal["tensorflow", "jax"]
    device: str
    precision: str
    threads: int
    onednn: bool = False
    devices: int = 1
    seed: int
    epochs: int
    kept_epoch: int
    initial_weights_sha256: str | None
    soft_masks_sha256: str | None = None
    parameters: TrainingParameters


class Layer(ParamsBlock):
    """A layer of the network; shape: ([K,] H, W, C); inputs: the names of those that feed it."""

    name: str
    type: str
    shape: list[int]
    parameters: int
    inputs: list[str]


class Part(ParamsBlock):
    """One of the networks whose mean an ensemble answers."""

    weights_sha256: str
    network: Network
    training: Training


class ExportedManifest(ParamsBlock):
    """What an exported model carries; data: digests of the prepared data.

    parts: of an ensemble; its network and training are those of the first, its weights_sha256 that of all digests.
    brain: of a network that outlines the brain; the parts are asked again without the rest of the image.
    """

    format: Literal[3]
    weights_sha256: str
    parameters: int
    network: Network
    contract: Contract
    preprocess: Preprocess
    protocol: TrainingProtocol
    training: Training
    data: dict[str, str]
    parts: list[Part] | None = None
    brain: "ExportedManifest | None" = None

    def exported(self) -> dict[str, Any]:
        """This, or the part of a whole manifest that an exported model carries, as JSON has it."""
        return self.model_dump(exclude_unset=True, include=set(ExportedManifest.model_fields))


class Manifest(ExportedManifest):
    """models/unet.json.

    seen: fingerprints of the patients used to train or to choose the weights. content_sha256: of all the rest, see
    ``write``; early manifests do not have it.
    """

    seen: list[str]
    layers: list[Layer]
    content_sha256: str | None = None


def marks(download: Download, split: Split, train: Train) -> list[str]:
    """The warnings that a reader needs before any number of this run."""
    found = {
        "phantom data: drawn by the program, not patients": download.source == "phantom",
        EACH_IMAGE: download.source == "folder" and download.patient == "each_image",
        "slice-level split: neighbours of test slices were trained on": split.unit == "slice",
        "institutions apart: none of the test patients' was trained on": split.unit == "institution",
        f"subset of {split.patients} patients": split.patients is not None,
        "inner folds: the patients of the test fold are left out": split.inner_folds is not None,
        VALIDATION_SEEN: train.subset == "train_and_val",
        TRAINED_ON_ALL: train.subset == "all",
    }
    return [text for text, applies in found.items() if applies]


def contract(input_shape: tuple[int, ...], output_shape: tuple[int, ...], channels: int) -> Contract:
    """What the network takes and answers.

    Args:
        input_shape: (None, H, W, K C), each slice in the middle of its K - 1 neighbours.
        output_shape: (None, H, W, M), the slice in the middle or all of them.
        channels: C, of one slice.
    """
    _, height, width, depth = input_shape
    of_each = " of each slice" if output_shape[-1] > 1 else ""
    return Contract(
        size=[height, width],
        slices=depth // channels,
        channels=list(CHANNELS) if channels == len(CHANNELS) else [f"channel {i}" for i in range(channels)],
        intensities="0..255, as in the processed slices; scaled inside the network",
        output=f"one logit a pixel{of_each}; its sigmoid is the probability of FLAIR abnormality",
    )


def layers(network: Any) -> list[Layer]:
    """The layers of a functional Keras model, in its order."""
    return [
        Layer(
            name=layer.name,
            type=type(layer).__name__,
            shape=list(layer.output.shape[1:]),
            parameters=layer.count_params(),
            inputs=_sources(layer),
        )
        for layer in network.layers
    ]


def _sources(layer: Any) -> list[str]:
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    names = [tensor._keras_history.operation.name for tensor in inputs]
    return [name for name in names if name != layer.name]


def check_data(manifest: ExportedManifest, digests: dict[str, str], split: Path) -> None:
    """Refuse data or a split that the model was not trained with: its training patients could be test patients.

    Args:
        digests: those of the data now, see ``dataset.digests``.

    Raises:
        IntegrityError: naming what differs, with both digests.
    """
    problems = [
        Problem(str(split), f"{name} is {found}, the model was trained with {trained}", "run: dvc repro")
        for name, found in digests.items()
        if found != (trained := manifest.data.get(name)) and not (trained is None and name in NOTED_LATER)
    ]
    raise_all(problems, IntegrityError)


def engine(manifest: Manifest) -> dict[str, Any]:
    """Arguments of ``backend.start`` for using the model: on a processor if it was trained on one."""
    trained = manifest.training
    return {"name": trained.engine, "device": "cpu" if trained.device == "cpu" else "auto", "threads": trained.threads}


def protocol(manifest: ExportedManifest, tta: bool) -> dict[str, Any]:
    """The protocol block that evaluation starts from."""
    averaged = "mirrored left to right" if tta else "none"
    return {**manifest.protocol.model_dump(), "weights_sha256": manifest.weights_sha256, "tta": averaged}


def write(path: Path, manifest: Manifest) -> None:
    """Write strict JSON, in the order of the fields, and with it the digest of its content."""
    content = manifest.model_dump(exclude_unset=True, exclude={"content_sha256"})
    content["content_sha256"] = _digest(content)
    files.write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        IntegrityError: missing, not JSON, not of this format, or not as it was written.
    """
    with guard(path, REMEDY, IntegrityError):
        try:
            text = path.read_text(encoding="utf-8")
            found = Manifest.model_validate_json(text)
        except FileNotFoundError:
            raise IntegrityError(path, "there is no model", REMEDY) from None
        except ValueError as error:
            raise IntegrityError(path, f"not a manifest of this version: {reason(error)}", REMEDY) from None
        content = json.loads(text)
        if content.pop("content_sha256", None) not in (None, _digest(content)):
            raise IntegrityError(path, "is damaged or edited: its content does not fit the digest at its end", REMEDY)
    return found


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def check(manifest: Manifest, weights: Path, size: tuple[int, ...] | None = None) -> None:
    """Refuse weights that do not fit the manifest, or images of another size than the model's.

    Args:
        size: (H, W) of the images.

    Raises:
        IntegrityError: the weights are missing or changed, or the sizes differ.
    """
    if not weights.is_file():
        raise IntegrityError(weights, "there are no weights", REMEDY)
    found, expected = files.sha256(weights), manifest.weights_sha256
    if found != expected:
        raise IntegrityError(weights, f"sha256 is {found}, the manifest says {expected}", REMEDY)
    height, width = manifest.contract.size
    if size is not None and tuple(size) != (height, width):
        what = f"the model expects {height}x{width} pixels, the images have {size[0]}x{size[1]}"
        raise IntegrityError(weights, what, "set preprocess.size to the model's, or train again: dvc repro")
