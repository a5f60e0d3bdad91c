"""train: slices and split → weights, their manifest, and a table with one row for each epoch."""

from pathlib import Path

from brainseg import config, errors
from brainseg.data import inputs
from brainseg.models import backend

PROCESSED, SPLIT = Path("data/processed"), Path("data/splits/split.csv")
WEIGHTS, MANIFEST, HISTORY = Path("models/unet.weights.h5"), Path("models/unet.json"), Path("metrics/training.csv")


def main() -> None:
    params = config.load("train", "network", "augmentation", "download", "preprocess", "split")
    inputs.check("train")
    t = params.train
    running = backend.start(t.engine, device=t.device, precision=t.precision, threads=t.threads, devices=t.devices)
    print(running, flush=True)
    from brainseg.data import dataset  # after start: Keras reads its engine once, when imported
    from brainseg.models import manifest
    from brainseg.tracking.live_run import LiveRun
    from brainseg.training import checkpoints, description, finetuning, history, soft_masks, trainer

    data = dataset.load(PROCESSED, SPLIT, params.split.unit)
    digests = dataset.digests(PROCESSED, SPLIT)
    initial = finetuning.load(params, WEIGHTS, soft_masks.test_fold(data))
    soft = soft_masks.load(t, data, digests)
    facts = trainer.identity(params, digests, running, initial, soft)
    live = LiveRun(checkpoints.folder(checkpoints.key(facts)), digests, params.download.source)
    trained = trainer.run(data, params, facts, initial, [history.LiveTable(HISTORY), live], soft)
    trainer.save(trained, WEIGHTS)
    history.write(trained.history, HISTORY)
    manifest.write(MANIFEST, description.describe(trained, WEIGHTS, data, digests, running, params))
    live.finish()
    print(trainer.finish(trained))


if __name__ == "__main__":
    errors.run(main)
