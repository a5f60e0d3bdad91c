"""Prediction compared with PyTorch and keras.Model.predict: images a second, milliseconds a slice, seconds a volume.

Each run is a new process; the sides take turns. The time is from uint8 slices in memory to their probabilities, with
one prediction for each slice on every side. The pipeline's side is the 8-bit file in ONNX Runtime. PyTorch is optional
(`pip install torch==2.13.0`) and well tuned: channels-last, inference mode, normalisation folded into the convolutions,
the faster of float32 and bfloat16 on this machine. Then the time from a file to its outline is measured, with the
mirrored slice, as `brainseg predict` does it. It needs the models of `dvc repro export` or `make pull`.
`make bench QUICK=1`: fewer slices, and nothing is recorded.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import results
from alone import alone
from PIL import Image

from brainseg import config, errors, hardware
from brainseg.data.phantom import cohort
from brainseg.io.pictures import decode
from brainseg.models import backend, manifest

WHOLE, SMALL = Path("models/unet.onnx"), Path("models/unet.int8.onnx")
WEIGHTS, MANIFEST = Path("models/unet.weights.h5"), Path("models/unet.json")
BATCH = 16
THREADS = hardware.cores()
PROBED = 64  # slices for finding the faster precision of PyTorch


def main() -> None:
    options, quick = _options(), os.environ.get("QUICK", "0") not in ("", "0")
    if missing := [str(path) for path in (WHOLE, SMALL, WEIGHTS, MANIFEST) if not path.exists()]:
        print(f"not timed: {', '.join(missing)} missing; run: make pull")
        return
    slices = 64 if quick else options.slices
    rows = [*rates(options.runs, slices), *latencies(options.runs, 20 if quick else 200)]
    results.show(rows)
    if not quick:
        results.save(rows)


def rates(runs: int, slices: int) -> list[results.Row]:
    """Images a second of each side; the sides take turns."""
    sides: dict[str, Callable] = {"int8": int8, "float32": float32, "keras": keras_predict}
    if importlib.util.find_spec("torch"):
        precision = max(("float32", "bfloat16"), key=lambda name: alone(rate, partial(pytorch, name), PROBED))
        sides["pytorch"] = partial(pytorch, precision)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(runs):
        for name, side in sides.items():
            found[name].append(alone(rate, side, slices))
        said = ", ".join(f"{name} {each[-1]:.0f}" for name, each in found.items())
        print(f"run {number + 1}: {said} images/s", flush=True)
    rows = [
        results.row("predict_vs_keras", found["int8"], found["keras"], "images/s", True, "ours int8; Keras float32"),
        results.row("predict_int8_vs_float32", found["int8"], found["float32"], "images/s", True),
    ]
    if "pytorch" in found:
        note = f"ours int8; PyTorch {precision}"
        rows.append(results.row("predict_vs_pytorch", found["int8"], found["pytorch"], "images/s", True, note))
    return rows


def rate(side: Callable, slices: int) -> float:
    """Images a second of ``side``, after a first call that compiles and fills caches."""
    images = draw_slices(slices)
    answer = side()
    answer(images[: 2 * BATCH])
    start = time.perf_counter()
    probability = answer(images)
    seconds = time.perf_counter() - start
    assert probability.shape == images.shape[:3] and 0 <= probability.min() <= probability.max() <= 1
    return slices / seconds


def int8() -> Callable:
    return _onnx(SMALL)


def float32() -> Callable:
    return _onnx(WHOLE)


def _onnx(path: Path) -> Callable:
    from brainseg.inference.onnx_session import Session

    session = Session(path, threads=THREADS)
    return lambda images: np.concatenate([session.run(part) for part in _batches(images)])[..., 0]


def keras_predict() -> Callable:
    """``keras.Model.predict``, as in the older projects, of the network with a sigmoid."""
    backend.start("tensorflow", device="cpu", threads=THREADS)
    import keras

    from brainseg.models import networks

    network = networks.restore(manifest.read(MANIFEST), WEIGHTS)
    answering = keras.Model(network.input, keras.ops.sigmoid(network.output))
    return lambda images: answering.predict(images, batch_size=BATCH, verbose=0)[..., 0]


def pytorch(precision: str) -> Callable:
    """The same network with random weights, because the speed does not depend on them."""
    import torch
    import torch_unet

    torch.set_num_threads(THREADS)
    network = torch_unet.UNet(manifest.read(MANIFEST).network, 3).eval()
    network = torch_unet.fold(network).to(memory_format=torch.channels_last)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")

    def answer(images: np.ndarray) -> np.ndarray:
        parts = []
        with torch.inference_mode(), autocast:
            for part in _batches(images):
                given = torch.from_numpy(part).permute(0, 3, 1, 2).float()  # stays channels-last in memory
                parts.append(torch.sigmoid(network(given).float())[:, 0].numpy())
        return np.concatenate(parts)

    return answer


def latencies(runs: int, times: int) -> list[results.Row]:
    """Times from file to outline, for a slice (TIF, median of ``times``) and 60 slices (NIfTI), and of the import."""
    slice_ms, volume_s = [], []
    for _ in range(runs):
        milliseconds, seconds = alone(from_files, times)
        slice_ms.append(milliseconds)
        volume_s.append(seconds)
    command = [sys.executable, "-X", "importtime", "-c", "import brainseg.inference.predictor"]
    imports = []
    for _ in range(runs + 1):
        last = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()[-1]
        imports.append(int(last.split("|")[1]) / 1e6)
    return [
        results.absolute("slice_p50_ms", slice_ms, "ms", higher_is_better=False),
        results.absolute("volume60_s", volume_s, "s", higher_is_better=False),
        results.absolute("predictor_import_s", imports[1:], "s", higher_is_better=False),
    ]


def from_files(times: int) -> tuple[float, float]:
    """Milliseconds for a slice and seconds for a volume, in float32, with threshold and mirrored slice as evaluated."""
    from brainseg.inference.predictor import Predictor
    from brainseg.io import nifti, volumes

    predictor = Predictor(WHOLE, threads=THREADS)
    images = draw_slices(60)
    geometry = volumes.Geometry(np.diag([-1.0, -1.0, 3.0, 1.0]), (256, 256, 60))
    with tempfile.TemporaryDirectory() as folder:
        tif, nii = Path(folder) / "slice.tif", Path(folder) / "volume.nii.gz"
        Image.fromarray(images[30]).save(tif)
        nifti.write(nii, images[..., 1], geometry)
        seconds = []
        for _ in range(times + 3):
            start = time.perf_counter()
            predictor(tif)
            seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        mask, _ = predictor(nii)
        whole = time.perf_counter() - start
    assert mask.shape == (60, 256, 256)
    return 1000 * median(seconds[3:]), whole


def draw_slices(slices: int) -> np.ndarray:
    """(slices, 256, 256, 3) uint8: slices of a phantom, repeated."""
    params = config.load("phantom").phantom.model_copy(update={"size": 256, "patients": 1})
    found = [decode(pair.image, "phantom") for pair in cohort.pairs(params)]
    return np.resize(np.stack(found), (slices, 256, 256, 3))


def _batches(images: np.ndarray) -> list[np.ndarray]:
    return np.array_split(images, -(-len(images) // BATCH))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--slices", type=int, default=512)
    return parser.parse_args()


if __name__ == "__main__":
    errors.run(main)
