"""render: tables, predictions and slices → pictures and a self-contained report."""

from functools import partial
from pathlib import Path

from brainseg import config, engine, errors, manifest

METRICS, DATA, MODELS = Path("metrics"), Path("data"), Path("models")


def main() -> None:
    params = config.load("render", "augmentation")
    engine.start(**manifest.engine(manifest.read(MODELS / "unet.json")))
    from brainseg import augmentation, rendering, tracking  # Keras reads its engine once, when imported

    augment = partial(augmentation.examples, params.augmentation)
    print(rendering.run(METRICS, DATA, MODELS, params.render, augment))
    tracking.log_figures()


if __name__ == "__main__":
    errors.run(main)
