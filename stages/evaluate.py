"""evaluate: the model on validation and test patients → metrics. Only this stage scores the test subset."""

from pathlib import Path

from brainseg import config, errors, files
from brainseg.data import inputs
from brainseg.models import backend, manifest

PROCESSED, SPLIT = Path("data/processed"), Path("data/splits/split.csv")
WEIGHTS, MANIFEST = Path("models/unet.weights.h5"), Path("models/unet.json")
PREDICTIONS, METRICS = Path("data/predictions/probabilities.npz"), Path("metrics")


def main() -> None:
    params = config.load("evaluate").evaluate
    inputs.check("evaluate")
    model = manifest.read(MANIFEST)
    print(backend.start(**manifest.engine(model)), flush=True)
    from brainseg.data import dataset  # after start: Keras reads its engine once, when imported
    from brainseg.evaluation import evaluate
    from brainseg.models import networks, prediction
    from brainseg.tracking import mlflow_runs

    data = dataset.load(PROCESSED, SPLIT, model.protocol.unit)
    manifest.check_data(model, dataset.digests(PROCESSED, SPLIT), SPLIT)
    network = networks.restore(model, WEIGHTS, data.images.shape[1:3])
    with files.temporary_beside(PREDICTIONS) as folder:
        found = prediction.predict_for_evaluation(network, data, mirror=params.tta, folder=folder)
        prediction.write(PREDICTIONS, found)
        result = evaluate.evaluate(
            data.slices.iloc[found.rows], dataset.LazyRows(data.masks, found.rows), found.arrays, params,
            manifest.protocol(model, tta=params.tta),
        )  # fmt: skip
    print(evaluate.table(result.report), evaluate.write(result, METRICS), sep="\n")
    mlflow_runs.log_evaluation()


if __name__ == "__main__":
    errors.run(main)
