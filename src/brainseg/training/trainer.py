"""Training: epochs, validation by volume, averaged weights, early stopping, checkpoints to go on from.

Which weights are kept is ``train.keep``. With few validation patients their best epoch is largely luck, and may lie
before the learning rate has come down: the last epoch of a cosine schedule is the safer choice, as in nnU-Net (Isensee
et al., 2021).
"""

from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
from keras import ops

from brainseg import files, hardware
from brainseg.config import Params, Train
from brainseg.data import dataset, fingerprints
from brainseg.data.dataset import Dataset, stacked
from brainseg.errors import RunError, is_out_of_memory
from brainseg.evaluation import metrics
from brainseg.io import sequences
from brainseg.models import attention_unet, backend, blocks, manifest, networks, prediction, residual_unet, unet, unet3d
from brainseg.training import augmentation, checkpoints, finetuning, losses, sampling, segmenter, warping
from brainseg.training.augmentation import Augmenter
from brainseg.training.progress import Progress
from brainseg.training.segmenter import Segmenter

PACKAGE = Path(__file__).parents[1]


class Trained(NamedTuple):
    """The network with the weights that are kept, one row of numbers an epoch, and where its checkpoints are.

    ``initial``: the manifest of the model that it began with, if there was one.
    """

    network: keras.Model
    history: pd.DataFrame
    kept_epoch: int
    checkpoints: Path
    initial: dict | None = None


class Batches(keras.utils.PyDataset):
    """The batches of one epoch, read from the memory maps; ``epoch`` is set before each.

    Images (B, H, W, K C), each slice among its neighbours; masks (B, H, W, M): of the slice in the
    middle, or of all of them where the network answers all.
    """

    def __init__(self, data: Dataset, params: Params):
        super().__init__()
        self.data, self.params, self.epoch = data, params.train, 0
        self.context, self.volumetric = params.network.context, networks.is_volumetric(params.network)
        self.rows = data.rows("train")
        self.has_tumour = data.slices["tumour_pixels"].to_numpy()[self.rows] > 0
        self.order = self._order()

    def _order(self) -> np.ndarray:
        p = self.params
        return self.rows[sampling.epoch_rows(self.has_tumour, self.epoch, p.seed, p.batch_size, p.tumour_share)]

    def start(self, epoch: int) -> None:
        self.epoch = epoch
        self.order = self._order()

    def __len__(self) -> int:
        return len(self.order) // self.params.batch_size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rows = self.order[index * self.params.batch_size : (index + 1) * self.params.batch_size]
        windows = self.data.around(rows, self.context)
        answered = windows if self.volumetric else rows[:, None]
        return {"image": stacked(self.data.images, windows), "mask": stacked(self.data.masks[..., None], answered)}


def identity(
    params: Params, digests: dict[str, str], running: backend.Engine, initial: finetuning.Initial | None = None
) -> dict:
    """What determines a training: parameters, data, device, versions and the code of the modules that take part."""
    modules = (
        *(augmentation, dataset, backend, finetuning, hardware, prediction, losses, manifest, metrics, fingerprints),
        sampling,
        *(segmenter, sequences, warping),
        *(networks, blocks, unet, attention_unet, residual_unet, unet3d),
    )
    code = [Path(__file__), *(Path(str(module.__file__)) for module in modules)]
    return {
        **{name: getattr(params, name).model_dump() for name in ("train", "network", "augmentation")},
        "data": digests,
        "initial": initial.manifest["weights_sha256"] if initial else None,
        "running": running._asdict(),
        "versions": {"keras": keras.__version__, "numpy": np.__version__, **backend.versions()},
        "code": {path.relative_to(PACKAGE).as_posix(): files.sha256(path) for path in code},
    }


def run(data: Dataset, params: Params, facts: dict, initial: finetuning.Initial | None = None) -> Trained:
    """Train as ``params`` (blocks train, network, augmentation) say, from the last checkpoint if there is one.

    Args:
        facts: everything that determines the result, see ``identity``.
        initial: the model to begin with instead of random weights.

    Raises:
        RunError: the loss is no number, or memory ran out.
        IntegrityError: a checkpoint of another training, or damaged ones only.
        MachineError: the same training runs already.
    """
    key = checkpoints.key(facts)
    directory = checkpoints.folder(key)
    batches = Batches(data, params)
    model = build(params, data.images.shape[1], data.images.shape[3], len(batches))
    if initial:
        networks.begin(model.network, initial.network)
    with checkpoints.alone(directory), checkpoints.Writer(directory, key) as writer:
        book = Bookkeeper(model, data, batches, params.train, writer)
        book.resume()
        if not book.finished():
            _fit(model, batches, book, params.train)
    model.network.set_weights(book.kept)
    network = networks.fixed(model.network, params.network, *data.images.shape[2:])
    began = initial.manifest if initial else None
    return Trained(network, pd.DataFrame(book.history), book.kept_epoch, directory, began)


def _fit(model: Segmenter, batches: Batches, book: "Bookkeeper", params: Train) -> None:
    try:
        progress = Progress(params.epochs, len(batches), params.batch_size, book)
        settings = {"epochs": params.epochs, "shuffle": False, "verbose": 0, "callbacks": [book, progress]}
        model.fit(backend.streamed(batches), initial_epoch=len(book.history), **settings)
    except Exception as error:
        if is_out_of_memory(error):
            what = f"out of memory with batches of {params.batch_size}"
            fix = f"set train.batch_size: {max(1, params.batch_size // 2)}; the last checkpoint is kept"
            raise RunError("train.batch_size", what, fix) from error
        raise


def build(params: Params, size: int, channels: int, steps: int) -> Segmenter:
    """The compiled model, all its variables made from the seed. ``steps``: batches of one epoch."""
    keras.utils.set_random_seed(params.train.seed)
    network = networks.supervised(params.network, None, channels)
    answering = networks.without_early(network)
    augmenter = Augmenter(params.augmentation, seed=params.train.seed, channels=channels)
    model = Segmenter(network, answering, augmenter, losses.build(params.train))
    model.compile(optimizer=optimizer(params.train, steps), jit_compile=backend.jit_compile())
    depths = {"image": network.input_shape[-1], "mask": answering.output_shape[-1]}
    model({name: np.zeros((1, size, size, depth), "uint8") for name, depth in depths.items()})
    model.optimizer.build(model.trainable_variables)
    return model


def optimizer(params: Train, steps: int) -> keras.optimizers.Optimizer:
    """Adam, AdamW or SGD with warm-up, then a constant rate or a cosine to zero; weights averaged (EMA) if asked."""
    total = steps * params.epochs
    warmup = round(params.warmup * total)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else params.learning_rate, decay_steps=max(1, total - warmup),
        alpha=0.0 if params.schedule == "cosine" else 1.0,
        warmup_target=params.learning_rate if warmup else None, warmup_steps=warmup,
    )  # fmt: skip
    common = {"learning_rate": rate, "use_ema": params.ema > 0, "ema_momentum": params.ema or 0.99}
    if params.optimizer == "sgd":
        return keras.optimizers.SGD(momentum=0.9, nesterov=True, weight_decay=params.weight_decay or None, **common)
    if params.optimizer == "adam":
        return keras.optimizers.Adam(**common)
    adamw = keras.optimizers.AdamW(weight_decay=params.weight_decay, **common)
    adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adamw


class Bookkeeper(keras.callbacks.Callback):
    """Around each epoch: sets the samples, validates, keeps the best or last weights, saves, decides when to stop."""

    def __init__(
        self, model: Segmenter, data: Dataset, batches: Batches, params: Train, writer: checkpoints.Writer
    ):  # fmt: skip
        super().__init__()
        self.segmenter, self.data, self.batches, self.settings = model, data, batches, params
        self.writer = writer
        self.history: list[dict[str, float]] = []
        self.kept: list[np.ndarray] = []
        self.kept_epoch = self.skipped = 0
        self.async_safe = backend.runs_ahead()

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.start(epoch)

    def on_train_batch_end(self, batch, logs=None):
        if batch % 50 == 0:  # not each: reading the loss makes an accelerator wait
            self._check_finite(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        self._check_finite(logs["loss"])
        self._tell_skipped(epoch + 1)
        with averaged(self.segmenter):
            trained = {name: float(logs[name]) for name in ("loss", "dice", "iou", "binary_accuracy")}
            row = {"epoch": epoch + 1, **trained, **validate(self.segmenter, self.data, self.settings.batch_size)}
            self._check_finite(row["val_loss"])  # the last step's own damage shows here
            self.history.append(row | {"learning_rate": float(self.segmenter.optimizer.learning_rate)})
            if self.settings.keep == "last" or self.best_epoch == epoch + 1:
                self.kept, self.kept_epoch = _arrays(self.segmenter.network.weights), epoch + 1
        self._save()
        if self.finished():
            self.segmenter.stop_training = True

    @property
    def best_epoch(self) -> int:
        """The first epoch, counted from 1, of the highest validation volume Dice; one without any is the lowest."""
        return 1 + int(np.argmax(np.nan_to_num([row["val_volume_dice"] for row in self.history], nan=-1)))

    @property
    def best_score(self) -> float:
        return self.history[self.best_epoch - 1]["val_volume_dice"]

    def finished(self) -> bool:
        """All epochs done, or none better for ``patience`` of them."""
        done, patience = len(self.history), self.settings.patience
        if patience is not None and done and done - self.best_epoch >= patience:
            return True
        return done >= self.settings.epochs

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one, and say so."""
        found = checkpoints.latest(self.writer.directory, self.writer.training_key)
        if found is None:
            others = checkpoints.unfinished(self.writer.directory)
            if others:
                what = f"{len(others)} unfinished of other parameters, data or code are in {others[0].parent}"
                print(f"training from the start; {what}", flush=True)
            return
        for index, variable in enumerate(_state(self.segmenter)):
            variable.assign(found.arrays[f"state/{index}"])
        self.history, self.kept_epoch = found.meta["history"], found.meta["kept_epoch"]
        self.skipped = self._skipped(len(self.history))
        self.kept = [found.arrays[f"kept/{index}"] for index in range(len(self.segmenter.network.weights))]
        print(f"resumed after epoch {found.epoch} of {self.settings.epochs}", flush=True)

    def _save(self) -> None:
        state = {f"state/{i}": array for i, array in enumerate(_arrays(_state(self.segmenter)))}
        kept = {f"kept/{i}": array for i, array in enumerate(self.kept)}
        meta = {"history": list(self.history), "kept_epoch": self.kept_epoch}
        self.writer.save(checkpoints.Checkpoint(len(self.history), state | kept, meta))

    def _skipped(self, epochs: int) -> int:
        """Steps of the first ``epochs`` that changed no weight, because a gradient overflowed in float16."""
        return epochs * len(self.batches) - int(self.segmenter.optimizer.iterations)

    def _tell_skipped(self, epochs: int) -> None:
        """Say how many steps of the last epoch were skipped.

        Raises:
            RunError: gradients overflow however small the loss is scaled: no step will count any more.
        """
        before, self.skipped = self.skipped, self._skipped(epochs)
        if self.skipped == before:
            return
        scale, skipped = float(self.segmenter.optimizer.dynamic_scale), self.skipped - before
        what = f"{skipped} of {len(self.batches)} steps of epoch {epochs} skipped: float16 overflowed"
        if scale < 1 and skipped == len(self.batches):
            fix = "set train.precision: float32, or bfloat16 where the machine has it; the last checkpoint is kept"
            raise RunError("train.precision", f"{what}, and no scale of the loss is small enough", fix)
        print(f"{what}; the loss is scaled by {scale:g} now", flush=True)

    def _check_finite(self, loss) -> None:
        if not np.isfinite(float(loss)):
            what = f"the loss is {float(loss)} in epoch {len(self.history) + 1}"
            fix = "lower train.learning_rate or set train.precision: float32; the last checkpoint is kept"
            raise RunError("train.loss", what, fix)


def _state(model: Segmenter) -> list:
    """All variables that the next step depends on: weights, random states, optimizer, averages."""
    return [*model.variables, *model.optimizer.variables]


def _arrays(variables) -> list[np.ndarray]:
    """Copies of their values: a step on JAX overwrites the memory of the variables it was given."""
    return [np.array(ops.convert_to_numpy(variable.value)) for variable in variables]


@contextmanager
def averaged(model: Segmenter):
    """The averaged weights (EMA) in place of the trained ones within the block, where the optimizer keeps them."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # float16 wraps it, to scale the loss
    averages = getattr(optimizer, "_model_variables_moving_average", None) if getattr(optimizer, "use_ema", 0) else None
    if not averages:
        yield
        return
    trained = _arrays(model.trainable_variables)
    for variable, average in zip(model.trainable_variables, _arrays(averages), strict=True):
        variable.assign(average)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, trained, strict=True):
            variable.assign(value)


def validate(model: Segmenter, data: Dataset, batch_size: int) -> dict[str, float]:
    """Scores of the validation slices at threshold 0.5: loss, pooled Dice, IoU, accuracy, mean Dice per volume."""
    rows, counts, loss = [], [], 0.0
    for part, found, batch_loss in prediction.examined(model.examiner, data, data.rows("val"), batch_size):
        rows.append(part)
        counts.append(found)
        loss += batch_loss * len(part)
    table = pd.DataFrame(np.concatenate(counts), np.concatenate(rows), metrics.Counts._fields)
    pooled = metrics.Counts(*table.sum().to_numpy())
    volumes = metrics.Counts(*table.groupby(data.slices["patient"]).sum().to_numpy().T)
    return {
        "val_loss": loss / len(table),
        "val_dice": float(metrics.dice(pooled)),
        "val_iou": float(metrics.iou(pooled)),
        "val_binary_accuracy": float(metrics.pixel_accuracy(pooled)),
        "val_volume_dice": float(np.nanmean(metrics.dice(volumes))),
    }


def save(trained: Trained, weights: Path) -> None:
    """Write the weights alone: their bytes hold no date and no machine."""
    with files.replacing(weights) as temporary:
        trained.network.save_weights(temporary)


def write_history(trained: Trained, path: Path) -> None:
    """Write one row an epoch."""
    files.write_text(path, trained.history.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def finish(trained: Trained) -> str:
    """Drop the checkpoints, now that the outputs are written, and return the closing line."""
    checkpoints.remove(trained.checkpoints)
    kept = trained.history.iloc[trained.kept_epoch - 1]
    return (
        f"trained {len(trained.history)} epochs; validation volume Dice {kept['val_volume_dice']:.3f} "
        f"in epoch {trained.kept_epoch}, which is kept; {trained.network.count_params():,} parameters"
    )
