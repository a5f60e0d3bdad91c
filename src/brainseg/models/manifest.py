"""models/unet.json: what the weights are, what they expect, what they were trained on and how."""

import json
from pathlib import Path

from brainseg import files
from brainseg.config import Download, Network, Split
from brainseg.data import fingerprints
from brainseg.errors import IntegrityError, Problem, raise_all
from brainseg.io.sequences import CHANNELS

FORMAT = 3
EACH_IMAGE = "each image counted as its own patient"
REMEDY = "run: make pull (the released model), or dvc repro train"


def marks(download: Download, split: Split) -> list[str]:
    """What a reader must know before believing any number of this run."""
    found = {
        "phantom data: drawn by the program, not patients": download.source == "phantom",
        EACH_IMAGE: download.source == "folder" and download.patient == "each_image",
        "slice-level split: neighbours of test slices were trained on": split.unit == "slice",
        "institutions apart: none of the test patients' was trained on": split.unit == "institution",
        f"subset of {split.patients} patients": split.patients is not None,
    }
    return [text for text, applies in found.items() if applies]


def describe(trained, weights: Path, data, digests: dict[str, str], running, params) -> dict:
    """All of a manifest.

    Args:
        trained: trainer.Trained. data: dataset.Dataset. running: backend.Engine.
        params: blocks train, network, augmentation, download, preprocess, split.
    """
    began = trained.initial
    prepared = params.preprocess.model_dump()
    begun = fingerprints.marks_of_beginning(began, prepared, data.images, data.rows("test")) if began else []
    return {
        "format": FORMAT,
        "weights_sha256": files.sha256(weights),
        "parameters": trained.network.count_params(),
        "network": params.network.model_dump(),
        "contract": contract(trained.network.input_shape, trained.network.output_shape, data.images.shape[-1]),
        "preprocess": prepared,
        "protocol": {
            "source": params.download.source,
            "unit": params.split.unit,
            "grid": data.images.shape[1],
            "patients": data.counts("patient"),
            "slices": data.counts("row"),
            "marks": [*marks(params.download, params.split), *begun],
        },
        "training": {
            **running._asdict(),
            "seed": params.train.seed,
            "epochs": len(trained.history),
            "kept_epoch": trained.kept_epoch,
            "initial_weights_sha256": began["weights_sha256"] if began else None,
            "parameters": {"train": params.train.model_dump(), "augmentation": params.augmentation.model_dump()},
        },
        "data": digests,
        "seen": fingerprints.of_training(data.images, data.slices.loc[data.rows("train", "val"), "patient"], began),
        "layers": layers(trained.network),
    }


def contract(input_shape: tuple, output_shape: tuple, channels: int) -> dict:
    """What the network takes and answers, for whoever feeds it.

    Args:
        input_shape: (None, H, W, K C), each slice in the middle of its K - 1 neighbours.
        output_shape: (None, H, W, M), the slice in the middle or all of them.
        channels: C, of one slice.
    """
    _, height, width, depth = input_shape
    of_each = " of each slice" if output_shape[-1] > 1 else ""
    return {
        "size": [height, width],
        "slices": depth // channels,
        "channels": CHANNELS if channels == len(CHANNELS) else [f"channel {i}" for i in range(channels)],
        "intensities": "0..255, as in the processed slices; scaled inside the network",
        "output": f"one logit a pixel{of_each}; its sigmoid is the probability of FLAIR abnormality",
    }


def layers(network) -> list[dict]:
    """The layers of a functional Keras model as name, type, shape ([K,] H, W, C), parameters, names of inputs."""
    return [
        {
            "name": layer.name,
            "type": type(layer).__name__,
            "shape": list(layer.output.shape[1:]),
            "parameters": layer.count_params(),
            "inputs": _sources(layer),
        }
        for layer in network.layers
    ]


def _sources(layer) -> list[str]:
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    names = [tensor._keras_history.operation.name for tensor in inputs]
    return [name for name in names if name != layer.name]


def check_data(manifest: dict, digests: dict[str, str], split: Path) -> None:
    """Refuse to score a model on images or a split that it was not trained on: its training patients might be test.

    Args:
        digests: what ``dataset.digests`` finds now.

    Raises:
        IntegrityError: naming what differs, with both digests.
    """
    problems = [
        Problem(str(split), f"{name} is {found}, the model was trained with {manifest['data'][name]}", "run: dvc repro")
        for name, found in digests.items()
        if manifest["data"][name] != found
    ]
    raise_all(problems, IntegrityError)


def engine(manifest: dict) -> dict:
    """Arguments of ``backend.start`` for using the model; trained on a processor, it is used on one."""
    trained = manifest["training"]
    device = "cpu" if trained["device"] == "cpu" else "auto"
    return {"name": trained["engine"], "device": device, "threads": trained["threads"]}


def protocol(manifest: dict, tta: bool) -> dict:
    """The protocol block that evaluation starts from."""
    averaged = "mirrored left to right" if tta else "none"
    return {**manifest["protocol"], "weights_sha256": manifest["weights_sha256"], "tta": averaged}


def write(path: Path, manifest: dict) -> None:
    """Write strict JSON, in the order given."""
    files.write_text(path, json.dumps(manifest, indent=1, allow_nan=False) + "\n")


def read(path: Path) -> dict:
    """Read a manifest.

    Raises:
        IntegrityError: missing or not JSON.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
        return manifest
    except FileNotFoundError:
        raise IntegrityError(path, "there is no model", REMEDY) from None
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(path, f"not a manifest of this version: {error}", REMEDY) from None


def check(manifest: dict, weights: Path, size: tuple[int, int] | None = None) -> None:
    """Refuse weights that are not the manifest's, or images that the model was not made for.

    Args:
        size: (H, W) of the images that will be given to it.

    Raises:
        IntegrityError: the weights are missing or changed, or the grid is another one.
    """
    if not weights.is_file():
        raise IntegrityError(weights, "there are no weights", REMEDY)
    found, expected = files.sha256(weights), manifest["weights_sha256"]
    if found != expected:
        raise IntegrityError(weights, f"sha256 is {found}, the manifest says {expected}", REMEDY)
    height, width = manifest["contract"]["size"]
    if size is not None and tuple(size) != (height, width):
        what = f"the model expects {height}x{width} pixels, the images have {size[0]}x{size[1]}"
        raise IntegrityError(weights, what, "set preprocess.size to the model's, or train again: dvc repro")


def network_params(manifest: dict) -> Network:
    """The parameters that rebuild the network from code."""
    return Network(**manifest["network"])
