"""The manifest of a training: what its weights are, what they were trained on and how."""

from pathlib import Path
from typing import Any

import numpy as np

from brainseg import files
from brainseg.config import Params, Preprocess
from brainseg.data import fingerprints
from brainseg.data.dataset import TRAINED_ON, Dataset
from brainseg.models import manifest
from brainseg.models.manifest import Manifest, Training, TrainingParameters, TrainingProtocol


def describe(
    trained: Any, weights: Path, data: Dataset, digests: dict[str, str], running: Any, params: Params
) -> Manifest:
    """The manifest of ``weights``.

    Args:
        trained: trainer.TrainingResult. running: backend.Runtime.
        params: blocks train, network, augmentation, download, preprocess, split.
    """
    initial = trained.initial
    inherited = marks_of_initial(initial, params.preprocess, data.images, data.rows("test")) if initial else []
    used = data.slices.loc[data.rows(*{"train", "val", *TRAINED_ON[params.train.subset]}), "patient"]
    return Manifest(
        format=manifest.FORMAT,
        weights_sha256=files.sha256(weights),
        parameters=trained.network.count_params(),
        network=params.network,
        contract=manifest.contract(trained.network.input_shape, trained.network.output_shape, data.images.shape[-1]),
        preprocess=params.preprocess,
        protocol=TrainingProtocol(
            source=params.download.source,
            unit=params.split.unit,
            grid=data.images.shape[1],
            patients=data.counts("patient"),
            slices=data.counts("row"),
            marks=[*manifest.marks(params.download, params.split, params.train), *inherited],
        ),
        training=Training(
            **running._asdict(),
            seed=params.train.seed,
            epochs=len(trained.history),
            kept_epoch=trained.kept_epoch,
            initial_weights_sha256=initial.weights_sha256 if initial else None,
            **({"soft_masks_sha256": trained.soft_masks} if trained.soft_masks else {}),
            parameters=TrainingParameters(train=params.train, augmentation=params.augmentation),
        ),
        data=digests,
        seen=sorted({*fingerprints.compute(data.images, used), *(initial.seen if initial else [])}),
        layers=manifest.layers(trained.network),
    )


def marks_of_initial(initial: Manifest, preprocess: Preprocess, images: np.ndarray, rows: np.ndarray) -> list[str]:
    """The marks of scores on ``rows`` by a model that was trained from the weights of ``initial``.

    Args:
        preprocess: how ``images`` were prepared.
    """
    same = all(getattr(initial.preprocess, name) == getattr(preprocess, name) for name in fingerprints.PREPARED)
    unknown = [] if same and fingerprints.UNKNOWN not in initial.protocol.marks else [fingerprints.UNKNOWN]
    return [*fingerprints.marks(initial.seen, images, rows), *unknown]
