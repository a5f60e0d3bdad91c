"""export: weights and the threshold chosen for them → ONNX files, and how close they come to the network."""

from pathlib import Path

from brainseg import config, errors
from brainseg.data import inputs
from brainseg.models import backend, manifest

PROCESSED, SPLIT = Path("data/processed"), Path("data/splits/split.csv")
WEIGHTS, MANIFEST, MODELS = Path("models/unet.weights.h5"), Path("models/unet.json"), Path("models")
EVALUATION, EXPORT = Path("metrics/evaluation.json"), Path("metrics/export.json")


def main() -> None:
    params = config.load("export").export
    inputs.check("export")
    model = manifest.read(MANIFEST)
    print(backend.start("tensorflow", device="cpu", threads=model.training.threads), flush=True)
    from brainseg.data import dataset  # after start: Keras reads its engine once, when imported
    from brainseg.evaluation import results
    from brainseg.export import onnx_files
    from brainseg.models import networks

    data = dataset.load(PROCESSED, SPLIT, model.protocol.unit)
    manifest.check_data(model, dataset.digests(PROCESSED, SPLIT), SPLIT)
    network = networks.restore(model, WEIGHTS, data.images.shape[1:3])
    evaluation = results.read(EVALUATION, results.Evaluation)
    print(onnx_files.write(onnx_files.run(network, model, evaluation, data, params, MODELS), EXPORT))


if __name__ == "__main__":
    errors.run(main)
