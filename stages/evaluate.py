"""evaluate: the model on validation and test patients → honest numbers. The only stage that reads the test subset."""

from pathlib import Path

from brainseg import config, engine, errors, manifest

PROCESSED, SPLIT = Path("data/processed"), Path("data/splits/split.csv")
WEIGHTS, MANIFEST = Path("models/unet.weights.h5"), Path("models/unet.json")
PREDICTIONS, METRICS = Path("data/predictions/probabilities.npz"), Path("metrics")


def main() -> None:
    params = config.load("evaluate").evaluate
    model = manifest.read(MANIFEST)
    print(engine.start(**manifest.engine(model)), flush=True)
    from brainseg import dataset, evaluation, inference, networks, tracking  # Keras reads its engine once

    data = dataset.load(PROCESSED, SPLIT, model["protocol"]["unit"])
    manifest.check_data(model, dataset.digests(PROCESSED, SPLIT), SPLIT)
    network = networks.restore(model, WEIGHTS, data.images.shape[1:3])
    predictions = inference.scored(network, data, mirror=params.tta)
    inference.write(PREDICTIONS, predictions)
    result = evaluation.evaluate(
        data.slices.iloc[predictions.rows], data.masks[predictions.rows], predictions.arrays, params,
        manifest.protocol(model, tta=params.tta),
    )  # fmt: skip
    print(evaluation.table(result.report), evaluation.write(result, METRICS), sep="\n")
    tracking.log_evaluation()


if __name__ == "__main__":
    errors.run(main)
