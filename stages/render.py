"""render: tables, predictions and slices → pictures and a self-contained report."""

from functools import partial
from pathlib import Path

from brainseg import config, errors
from brainseg.data import inputs
from brainseg.models import backend, manifest

METRICS, DATA, MODELS = Path("metrics"), Path("data"), Path("models")


def main() -> None:
    params = config.load("render", "augmentation")
    inputs.check("render")
    backend.start(**manifest.engine(manifest.read(MODELS / "unet.json")))
    from brainseg.reporting import rendering
    from brainseg.tracking import mlflow_runs
    from brainseg.training import augmentation  # after start: Keras reads its engine once, when imported

    augment = partial(augmentation.augment_examples, params.augmentation)
    print(rendering.run(METRICS, DATA, MODELS, params.render, augment))
    mlflow_runs.log_figures()


if __name__ == "__main__":
    errors.run(main)
