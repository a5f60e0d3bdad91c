"""The files whose bits are flipped, and projects that hold them: a finished run, a stopped training, given answers."""

import io
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from brainseg.experiments import cross_validation, fold_scores, revision
from tests.support import dicom_series, nifti_files, tiny_pipeline, toy_pipeline
from tests.torture import flip_uses, project
from tests.torture.flip_uses import (
    CARD,
    COMPARE,
    COMPARE_FOLDS,
    EVALUATE,
    REGISTER,
    REPRO,
    SHOW,
    TRACK,
    VERIFY,
    Use,
    predict,
    serve,
    stage,
)  # fmt: skip

PICTURES = "inputs/pictures"
LEFT = 4  # epochs that a stopped training still has to do


class Target(NamedTuple):
    """A kind of file. ``world``: the project that holds it; ``pattern``: where it is, from the project's folder."""

    name: str
    pattern: str
    uses: tuple[Use, ...]
    world: str = "done"
    may_obey: bool = False  # no checksum can tell the flipped content from what a user meant
    must_heal: bool = False  # the program can make it again: refusing it would be a loss
    by_folder: bool = False  # an error may name its folder


EVERY_INPUT = ("inputs/pictures", "inputs/dicom")
READERS = tuple(stage(name) for name in ("train", "evaluate", "export"))
EXAMPLES = serve("models/unet.onnx")._replace(does_without=True)  # shows the packaged phantoms then
FOLDS = "metrics/cross_validation"


def _input(kind: str, pattern: str, *, checksum: bool, by_folder: bool = False) -> Target:
    use = predict(f"inputs/{kind}", others=True)
    return Target(f"input {kind}", f"inputs/{kind}/{pattern}", (use,), may_obey=not checksum, by_folder=by_folder)


TARGETS = (
    Target("unet.onnx", "models/unet.onnx", (predict(*EVERY_INPUT), serve("models/unet.onnx"), VERIFY, REGISTER)),
    Target(
        "unet.int8.onnx",
        "models/unet.int8.onnx",
        (predict(*EVERY_INPUT, model="models/unet.int8.onnx"), serve("models/unet.int8.onnx"), VERIFY),
    ),
    Target(
        "unet.json",
        "models/unet.json",
        (stage("evaluate"), stage("render"), stage("export"), EVALUATE, TRACK, CARD, VERIFY),
    ),
    Target("unet.weights.h5", "models/unet.weights.h5", (stage("evaluate"), stage("export"), EVALUATE, VERIFY)),
    Target("slices.zip", "data/raw/slices.zip", (stage("preprocess"), VERIFY)),
    Target("images.npy", "data/processed/images.npy", (*READERS, stage("render"), SHOW, EXAMPLES, VERIFY)),
    Target("masks.npy", "data/processed/masks.npy", (*READERS, stage("render"), SHOW, VERIFY)),
    Target("brains.npy", "data/processed/brains.npy", (*READERS, VERIFY)),
    Target("slices.csv", "data/processed/slices.csv", (*READERS, stage("split"), EXAMPLES, VERIFY)),
    Target("split.csv", "data/splits/split.csv", (*READERS, EXAMPLES, VERIFY)),
    Target("probabilities.npz", "data/predictions/probabilities.npz", (stage("render"), SHOW, VERIFY)),
    Target(
        "evaluation.json",
        "metrics/evaluation.json",
        (stage("render"), stage("export"), COMPARE, TRACK, EVALUATE, CARD, SHOW, REGISTER, VERIFY),
    ),
    Target("summary.json", "metrics/summary.json", (TRACK, VERIFY)),
    Target("export.json", "metrics/export.json", (TRACK, REGISTER, VERIFY)),
    Target("per_patient.csv", "metrics/per_patient.csv", (stage("render"), COMPARE, SHOW, VERIFY)),
    Target("per_slice.csv", "metrics/per_slice.csv", (stage("render"), SHOW, VERIFY)),
    Target("training.csv", "metrics/training.csv", (stage("render"), TRACK, VERIFY)),
    Target("threshold_curve.csv", "metrics/threshold_curve.csv", (stage("render"), VERIFY)),
    Target("calibration.csv", "metrics/calibration.csv", (stage("render"), VERIFY)),
    Target("probability_counts.csv", "metrics/probability_counts.csv", (VERIFY,)),
    Target("cross-validation's summary.json", f"{FOLDS}/summary.json", (CARD, TRACK, COMPARE_FOLDS)),
    Target("cross-validation's per_patient.csv", f"{FOLDS}/per_patient.csv", (TRACK, COMPARE_FOLDS)),
    Target("object of the cache", ".dvc/cache/files/md5/*/*", (VERIFY,)),
    Target("dvc.lock", "dvc.lock", (REPRO, stage("train"), VERIFY, CARD)),
    Target("params.yaml", "params.yaml", (stage("split"), stage("evaluate"), stage("render")), may_obey=True),
    Target("checkpoint", ".brainseg/checkpoints/*/epoch-*.npz", (stage("train"),), "stopped", by_folder=True),
    Target("journal of answers", "answers/.predict.jsonl", (predict(PICTURES),), "answered", must_heal=True),
    Target("mask of answers", "answers/masks/*", (predict(PICTURES),), "answered", must_heal=True),
    _input("png", "*.png", checksum=True),
    _input("jpg", "*.jpg", checksum=False),
    _input("tif", "*.tif", checksum=False),
    _input("nii", "*.nii", checksum=False),
    _input("nii.gz", "*.nii.gz", checksum=True),
    _input("dicom", "*.dcm", checksum=False, by_folder=True),
    _input("zip", "*.zip", checksum=True),
)


def build(work: Path) -> dict[str, Path]:
    """Make the projects; return them by name."""
    done = project.make(work, project.LEARNED).done
    draw_inputs(done)
    write_cross_validation(done)
    answered = project.copy(done, work / "answered")
    use = predict(PICTURES).act(answered)
    assert use.finished.code == 0 and any("masks/" in name for name in use.results), use.finished.text
    stopped = project.copy(done, work / "stopped")
    _train_until_a_checkpoint(stopped)
    return {"done": done, "answered": answered, "stopped": stopped}


def _train_until_a_checkpoint(folder: Path) -> None:
    """Kill a training when it has two checkpoints, late, because every use of them trains the other epochs."""
    last = project.LEARNED["train"]["epochs"] - LEFT
    process = subprocess.Popen(
        [sys.executable, "stages/train.py"], cwd=folder, env=project.environment(folder), stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        kept = sorted(folder.glob(".brainseg/checkpoints/*/epoch-*.npz"))
        if len(kept) > 1 and int(re.search(r"\d+", kept[-1].stem)[0]) >= last:
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the training ended before it could be killed"


def write_cross_validation(folder: Path) -> None:
    """One as if its only fold, which is the run itself, had tested all patients; committed, so that it is compared."""
    read = revision.reader(revision.WORKSPACE, folder)
    fold = fold_scores.Fold(0, "cv-alone-0", {"split": {}})
    scored = cross_validation.read_scores(fold, read, revision.params(read), revision.sources(read))
    summary = fold_scores.summarise([scored])
    counts = {name: sum(getattr(scored.report.protocol, name).values()) for name in ("patients", "slices")}
    whole = summary.model_copy(update={"protocol": summary.protocol.model_copy(update=counts)})
    tables = (table.assign(fold=0) for table in (scored.patients, scored.validation))
    fold_scores.write(fold_scores.PooledFolds(*tables, whole), folder / FOLDS)
    tiny_pipeline.commit(toy_pipeline.Repository(folder))


def find_threshold(folder: Path) -> str:
    """One at which the network, of few epochs, outlines half of a picture or more; at its own often nothing."""
    home = folder.with_name(f"{folder.name}-probabilities")
    done = project.brainseg(folder, "predict", f"{PICTURES}/one.png", "-o", str(home), "--probabilities")
    assert done.code == 0, done.text
    (path,) = home.glob("probabilities/*.png")
    middle = float(np.median(np.asarray(Image.open(path))))
    shutil.rmtree(home)
    return f"{(min(max(middle, 1), 255) - 0.5) / 255:.4f}"


def draw_inputs(folder: Path) -> None:
    """Slices of a test patient in every form that a user has them in."""
    images, masks = (np.load(folder / f"data/processed/{name}.npy") for name in ("images", "masks"))
    split = pd.read_csv(folder / "data/splits/split.csv")
    patient = split.loc[split["subset"] == "test", "patient"].iloc[0]
    rows = split.index[split["patient"] == patient][:6]
    slices, truth = images[rows], masks[rows]
    flair = slices[..., 1]
    middle = int(truth.sum(axis=(1, 2)).argmax())
    for name in ("good", "pictures", "png", "jpg", "tif", "nii", "nii.gz", "zip", "scored/A"):
        (folder / "inputs" / name).mkdir(parents=True)
    (folder / flip_uses.SHOWN).write_text(patient)
    picture = Image.fromarray(slices[middle])
    picture.save(folder / flip_uses.GOOD_CASE)
    for place in ("pictures/one.png", "png/hurt.png", "jpg/hurt.jpg", "tif/hurt.tif"):
        picture.save(folder / "inputs" / place)
    Image.fromarray(slices[0]).save(folder / "inputs/pictures/two.png")
    for ending in ("nii", "nii.gz"):
        nifti_files.nifti(folder / f"inputs/{ending}/hurt.{ending}", flair)
    dicom_series.save_series(folder / "inputs/dicom", flair.astype(np.uint16))
    with zipfile.ZipFile(folder / "inputs/zip/hurt.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        data = io.BytesIO()
        picture.save(data, "PNG")
        packed.writestr("inside.png", data.getvalue())
    for n, (image, mask) in enumerate(zip(slices, truth, strict=True), 1):
        Image.fromarray(image).save(folder / f"inputs/scored/A/{n}_flair.png")
        Image.fromarray(255 * mask).save(folder / f"inputs/scored/A/{n}_mask.png")
    shutil.rmtree(folder / "answers", ignore_errors=True)
