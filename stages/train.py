"""train: slices and split → weights, their manifest, one row of numbers an epoch."""

from pathlib import Path

from brainseg import config, engine, errors

PROCESSED, SPLIT = Path("data/processed"), Path("data/splits/split.csv")
WEIGHTS, MANIFEST, HISTORY = Path("models/unet.weights.h5"), Path("models/unet.json"), Path("metrics/training.csv")


def main() -> None:
    params = config.load("train", "network", "augmentation", "download", "preprocess", "split")
    t = params.train
    running = engine.start(t.engine, device=t.device, precision=t.precision, threads=t.threads)
    print(running, flush=True)
    from brainseg import dataset, finetuning, manifest, tracking, training  # Keras reads its engine once, when imported

    data = dataset.load(PROCESSED, SPLIT, params.split.unit)
    digests = dataset.digests(PROCESSED, SPLIT)
    initial = finetuning.load(params, WEIGHTS)
    trained = training.run(data, params, training.identity(params, digests, running, initial), initial)
    training.save(trained, WEIGHTS)
    training.write_history(trained, HISTORY)
    manifest.write(MANIFEST, manifest.describe(trained, WEIGHTS, data, digests, running, params))
    tracking.log_training()
    print(training.finish(trained))


if __name__ == "__main__":
    errors.run(main)
