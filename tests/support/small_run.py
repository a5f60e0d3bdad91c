"""What train and evaluate leave behind, made small by hand: six test patients, two in validation, 48 x 48 pixels."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from brainseg.config import Evaluate
from brainseg.evaluation import evaluate
from tests.support import run_files

SIDE, SLICES = 48, 4
SOURCE_MARKS = {"kaggle": [], "folder": [], "phantom": ["phantom data: drawn by the program, not patients"]}
EVALUATE = Evaluate(
    temperature=2.0, threshold=0.5, min_component=3, tta=False, surface_tolerance=2.0, bootstrap=100, seed=0
)


def build(root: Path, *, test_patients: int = 6, source: str = "phantom", marks: list[str] | None = None) -> Path:
    """Write data/, metrics/ and models/ below ``root``; return it. The k-th test patient is k pixels off."""
    rng = np.random.default_rng(0)
    patients = [("V0", "val", 1), ("V1", "val", 2), *((f"T{k}", "test", k) for k in range(test_patients))]
    cases, masks, probabilities = [], [], []
    for patient, subset, shift in patients:
        for number in range(1, SLICES + 1):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[12 : 12 + 4 * number, 12:24] = number > 1
            probability = np.roll(230 * mask, shift, axis=1)
            probability[40, 40] = 255  # one voxel that post-processing removes
            cases.append([len(cases), patient, "PA" if shift % 2 else "PB", subset, number, int(mask.sum()), ""])
            masks.append(mask)
            probabilities.append(probability)
    columns = ["row", "patient", "institution", "subset", "slice", "tumour_pixels", "spacing"]
    table, truth, answers = pd.DataFrame(cases, columns=columns), np.stack(masks), np.stack(probabilities)
    images = rng.integers(20, 120, (*truth.shape, 3), dtype=np.uint8)
    images[..., 1] += 100 * truth
    marks = SOURCE_MARKS[source] if marks is None else marks
    counts = {"train": 3, "val": 2, "test": test_patients}
    protocol = {
        "source": source, "unit": "patient", "grid": SIDE, "patients": counts,
        "slices": {name: SLICES * n for name, n in counts.items()}, "marks": marks,
    }  # fmt: skip
    arrays = dict.fromkeys(("model", "one_slice", "flair_only", "stripped"), answers) | {"flair": images[..., 1]}
    evaluate.write(evaluate.evaluate(table, truth, arrays, EVALUATE, {**protocol, "tta": "none"}), root / "metrics")
    for folder in ("data/processed", "data/predictions", "models"):
        (root / folder).mkdir(parents=True)
    np.save(root / "data/processed/images.npy", images)
    np.save(root / "data/processed/masks.npy", truth)
    np.savez_compressed(root / "data/predictions/probabilities.npz", row=table["row"], probability=answers)
    training(3).to_csv(root / "metrics/training.csv", index=False)
    (root / "models/unet.json").write_text(json.dumps(manifest(protocol)))
    return root


def training(epochs: int) -> pd.DataFrame:
    """metrics/training.csv that gets better by the epoch."""
    better = np.arange(1, epochs + 1) / (epochs + 1)
    table = pd.DataFrame({"epoch": np.arange(1, epochs + 1), "loss": 1 - better})
    for name in ("dice", "iou", "binary_accuracy", "val_loss", "val_dice", "val_iou", "val_binary_accuracy"):
        table[name] = better
    return table.assign(val_volume_dice=better, learning_rate=0.001)


def layers() -> list[dict]:
    """A U-Net of two levels, 48 and 24 pixels wide, with one skip connection."""
    rows = [
        ("image", "InputLayer", 48, 3, 0, []),
        ("down", "Conv2D", 48, 4, 108, ["image"]),
        ("pool", "MaxPooling2D", 24, 4, 0, ["down"]),
        ("bottom", "Conv2D", 24, 8, 288, ["pool"]),
        ("up", "UpSampling2D", 48, 8, 0, ["bottom"]),
        ("skip", "Concatenate", 48, 12, 0, ["up", "down"]),
        ("join", "Conv2D", 48, 4, 432, ["skip"]),
        ("relu", "Activation", 48, 4, 0, ["join"]),
        ("logits", "Conv2D", 48, 1, 5, ["relu"]),
    ]
    keys = ("name", "type", "shape", "parameters", "inputs")
    return [
        dict(zip(keys, (name, kind, [side, side, channels], parameters, inputs), strict=True))
        for name, kind, side, channels, parameters, inputs in rows
    ]


def manifest(protocol: dict) -> dict:
    """models/unet.json for ``layers``."""
    run = {"seed": 1, "epochs": 3, "kept_epoch": 3, "parameters": {"train": {"keep": "best"}}}
    return run_files.manifest(
        weights_sha256="a" * 64, parameters=833, network={"filters": 4, "depth": 1}, contract={"size": [SIDE, SIDE]},
        protocol=protocol, training=run, data={"images_sha256": "b" * 64}, layers=layers(),
    )  # fmt: skip


def augment(image: np.ndarray, mask: np.ndarray) -> dict:
    """Two examples of a made-up augmentation."""
    return {"flip_horizontal": (np.stack([image, image[:, ::-1]]), np.stack([mask, mask[:, ::-1]]))}
