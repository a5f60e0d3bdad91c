"""How fast a training is on this machine, as far as it was measured before: here, or for the benchmarks."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from brainseg import config, files, hardware
from brainseg.commands import network_size
from brainseg.models import backend

KEPT = "speed.json"  # in the folder of the project's state: what was measured here
BENCHMARKS, ROW = Path("benchmarks/results"), "train_vs_pytorch"
# The network of the benchmarks' row, and the side of the window that it is trained on.
MEASURED = config.Network(
    name="unet", context=0, scaling="gain", filters=32, depth=3, norm="batch", dropout=0.1, upsampling="resize", stem=4
)
MEASURED_SIDE = 192
WITHOUT_EFFECT = {"seed", "epochs", "learning_rate", "weight_decay", "schedule", "warmup", "tumour_share", "keep"}
# on the time of a step
WITHOUT_EFFECT |= {"patience", "initial_weights", "loss_smooth", "subset", "soft_masks", "soft_weight"}


class Speed(NamedTuple):
    """Images a second in training and in validation, and where the two numbers are from."""

    trained: float
    validated: float
    source: str


def count_minutes(params: config.Params, slices: dict[str, int], trained: float, validated: float) -> float:
    """The minutes of a whole training.

    Args:
        slices: of each subset.
        trained, validated: images a second.
    """
    from brainseg.data import dataset  # imports pandas

    size = params.train.batch_size
    trained_on = sum(slices[subset] for subset in dataset.TRAINED_ON[params.train.subset])
    epoch = max(1, trained_on // size) * size / trained + slices["val"] / validated
    return params.train.epochs * epoch / 60


def remember(params: config.Params, trained: float, validated: float) -> None:
    """Keep what was measured here with these parameters, for the next question."""
    with suppress(OSError):  # it is measured again
        kept = _read_kept() | {_name(params): [trained, validated]}
        files.write_text(files.state_dir() / KEPT, json.dumps(kept, indent=1) + "\n")


def recall(params: config.Params, root: Path) -> Speed | None:
    """What was measured here, else what follows from the benchmarks of this kind of machine, else None."""
    found = _read_kept().get(_name(params))
    if isinstance(found, list) and len(found) == 2:
        return Speed(found[0], found[1], "measured here before")
    usual = "auto", backend.native_precision("tensorflow", "cpu")
    if params.train.engine != "tensorflow" or params.train.precision not in usual or params.train.threads != "auto":
        return None
    if params.train.device != "cpu" and hardware.list_gpus():
        return None
    return _scale_benchmark(params, root / BENCHMARKS / f"{hardware.kind()}.json")


def _scale_benchmark(params: config.Params, path: Path) -> Speed | None:
    """The benchmark's rate by the multiplications that an image takes. Validation computes no gradients."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        rate = next(float(row["ours"]) for row in rows if row["id"] == ROW)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
    side = params.preprocess.size
    one = network_size.measure(MEASURED, MEASURED_SIDE).products
    trained = rate * one / network_size.measure(params.network, network_size.find_side(params)).products
    validated = 3 * rate * one / network_size.measure(params.network, side).products
    return Speed(trained, validated, f"roughly, from {BENCHMARKS / path.name}")


def _name(params: config.Params) -> str:
    """What a step's time depends on, as a digest: parameters and machine."""
    facts = {
        "train": params.train.model_dump(exclude=WITHOUT_EFFECT),
        "network": params.network.model_dump(exclude={"dropout"}),
        "augmentation": params.augmentation.model_dump(),
        "size": params.preprocess.size,
        "machine": [hardware.kind(), *hardware.list_gpus()],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _read_kept() -> dict[str, list[float]]:
    try:
        found = json.loads((files.state_dir() / KEPT).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
