"""export: weights and the rule chosen for them → ONNX files that need nothing else, and how near they are."""

import json
from pathlib import Path

from brainseg import config, errors
from brainseg.models import backend, manifest

PROCESSED, SPLIT = Path("data/processed"), Path("data/splits/split.csv")
WEIGHTS, MANIFEST, MODELS = Path("models/unet.weights.h5"), Path("models/unet.json"), Path("models")
EVALUATION, EXPORT = Path("metrics/evaluation.json"), Path("metrics/export.json")


def main() -> None:
    params = config.load("export").export
    model = manifest.read(MANIFEST)
    print(backend.start("tensorflow", device="cpu", threads=model["training"]["threads"]), flush=True)
    from brainseg.data import dataset  # Keras reads its engine once
    from brainseg.export import onnx_files
    from brainseg.models import networks

    data = dataset.load(PROCESSED, SPLIT, model["protocol"]["unit"])
    manifest.check_data(model, dataset.digests(PROCESSED, SPLIT), SPLIT)
    network = networks.restore(model, WEIGHTS, data.images.shape[1:3])
    report = json.loads(EVALUATION.read_text(encoding="utf-8"))
    print(onnx_files.write(onnx_files.run(network, model, report, data, params, MODELS), EXPORT))


if __name__ == "__main__":
    errors.run(main)
