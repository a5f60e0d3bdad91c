"""Training: epochs, validation by volume, averaged weights, early stopping, checkpoints to resume from.

``train.keep`` says which weights are kept. With few validation patients the best epoch is largely chance, and it may
come before the learning rate has decreased. The last epoch of a cosine schedule is the safer choice, as in nnU-Net
(Isensee et al., 2021).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import pandas as pd
from keras import ops

from brainseg import files
from brainseg.config import Params, Train
from brainseg.data.dataset import Dataset
from brainseg.errors import RunError, is_out_of_memory
from brainseg.evaluation import metrics
from brainseg.models import backend, devices, networks, prediction
from brainseg.models.manifest import Manifest
from brainseg.training import checkpoints, finetuning, losses
from brainseg.training.augmentation import Augmenter
from brainseg.training.batches import Batches
from brainseg.training.progress import Progress
from brainseg.training.soft_masks import CERTAIN, SoftMasks
from brainseg.training.training_model import LossScaleOptimizer, TrainingModel


class Watcher(AbstractContextManager, Protocol):
    """Something that is told of a training while it runs."""

    def update(self, history: Sequence[dict[str, Any]]) -> None:
        """All epochs so far, a row of numbers each."""


class TrainingResult(NamedTuple):
    """The network with the kept weights, a history with one row for each epoch, and the folder of its checkpoints.

    ``initial``: the manifest of the initial weights; None if they were random. ``soft_masks``: the sha256 of the file.
    """

    network: keras.Model
    history: pd.DataFrame
    kept_epoch: int
    checkpoints: Path
    initial: Manifest | None = None
    soft_masks: str | None = None


def identity(
    params: Params, digests: dict[str, str], running: backend.Runtime, initial: finetuning.InitialModel | None = None,
    soft: SoftMasks | None = None,
) -> dict:  # fmt: skip
    """What determines a training: parameters, data, device, versions, and the code of this module and its imports."""
    return {
        **{name: getattr(params, name).model_dump() for name in ("train", "network", "augmentation")},
        "data": digests,
        "initial": initial.manifest.weights_sha256 if initial else None,
        "soft_masks": soft.sha256 if soft else None,
        "running": running._asdict(),
        "versions": {"keras": keras.__version__, "numpy": np.__version__, **backend.versions()},
        "code": checkpoints.digest_code(Path(__file__)),
    }


def run(
    data: Dataset, params: Params, facts: dict, initial: finetuning.InitialModel | None = None,
    watchers: Sequence[Watcher] = (), soft: SoftMasks | None = None,
) -> TrainingResult:  # fmt: skip
    """Train as ``params`` (blocks train, network, augmentation) say. Resume from the last checkpoint if there is one.

    Args:
        facts: everything that determines the result, see ``identity``.
        initial: the model whose weights replace the random initial weights.
        soft: what is learned beside the masks.
        watchers: entered while nobody else can run this training; told all rows of the history after each epoch, and
            once when a training goes on.

    Raises:
        RunError: the loss, a weight or a validation answer is not finite, or memory ran out.
        IntegrityError: a checkpoint belongs to another training, or all are damaged.
        MachineError: another process runs the same training.
    """
    key = checkpoints.key(facts)
    directory = checkpoints.folder(key)
    batches = Batches(data, params, soft)
    batches.report_scalps()
    model = build(params, data.images.shape[1], data.images.shape[3], len(batches))
    if initial:
        networks.set_initial_weights(model.network, initial.network)
    with checkpoints.lock(directory), checkpoints.Writer(directory, key) as writer, ExitStack() as entered:
        for watcher in watchers:
            entered.enter_context(watcher)
        recorder = EpochRecorder(model, data, batches, params.train, writer, watchers)
        recorder.resume()
        if not recorder.is_finished():
            _fit(model, batches, recorder, params.train)
    model.network.set_weights(recorder.kept)
    network = networks.fix_size(model.network, params.network, *data.images.shape[2:])
    source = initial.manifest if initial else None
    history = pd.DataFrame(recorder.history)
    return TrainingResult(network, history, recorder.kept_epoch, directory, source, soft.sha256 if soft else None)


def _fit(model: TrainingModel, batches: Batches, recorder: "EpochRecorder", params: Train) -> None:
    try:
        progress = Progress(params.epochs, len(batches), params.batch_size, recorder)
        settings = {"epochs": params.epochs, "shuffle": False, "verbose": 0, "callbacks": [recorder, progress]}
        model.fit(backend.stream(batches), initial_epoch=len(recorder.history), **settings)
    except Exception as error:
        if is_out_of_memory(error):
            count = devices.count_devices()
            what = f"out of memory with batches of {params.batch_size}"
            half = max(1, params.batch_size // 2 // count) * count
            fix = f"set train.batch_size: {half}; the last checkpoint is kept"
            raise RunError("train.batch_size", what, fix) from error
        raise


def build(params: Params, size: int, channels: int, steps: int) -> TrainingModel:
    """Build and compile the model; the seed determines all its variables.

    Args:
        size: side of the slices in pixels.
        channels: of one slice.
        steps: batches of one epoch.

    Raises:
        DataError: the devices cannot share a batch equally.
    """
    devices.require_equal_parts(params.train.batch_size)
    keras.utils.set_random_seed(params.train.seed)
    network = networks.build_supervised(params.network, None, channels)
    plain = networks.remove_auxiliary_outputs(network)
    full = 1 if params.train.soft_masks is None else CERTAIN
    augmenter = Augmenter(params.augmentation, seed=params.train.seed, channels=channels, full=full)
    model = TrainingModel(network, plain, augmenter, losses.build(params.train))
    optimizer = build_optimizer(params.train, steps)
    if keras.config.dtype_policy().name == backend.POLICIES["float16"]:
        optimizer = LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer, jit_compile=backend.jit_compile())
    depths = {"image": network.input_shape[-1], "mask": plain.output_shape[-1]}
    model({name: np.zeros((1, size, size, depth), "uint8") for name, depth in depths.items()})
    model.optimizer.build(model.trainable_variables)
    return model


def build_optimizer(params: Train, steps: int) -> keras.optimizers.Optimizer:
    """Adam, AdamW or SGD: warm-up, then a constant learning rate or a cosine to zero; weight averages if ``ema``."""
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


class EpochRecorder(keras.callbacks.Callback):
    """Before each epoch: draws its samples. After it: validates, keeps the best or last weights, saves, stops early."""

    def __init__(
        self, model: TrainingModel, data: Dataset, batches: Batches, params: Train, writer: checkpoints.Writer,
        watchers: Sequence[Watcher],
    ):  # fmt: skip
        super().__init__()
        self.segmenter, self.data, self.batches, self.settings = model, data, batches, params
        self.writer, self.watchers = writer, watchers
        self.history: list[dict[str, float]] = []
        self.kept: list[np.ndarray] = []
        self.kept_epoch = self.skipped = 0
        self.async_safe = backend.runs_ahead()

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.start(epoch)

    def on_train_batch_end(self, batch, logs=None):
        if batch % 50 == 0:  # not after each batch, because reading the loss makes an accelerator wait
            self._check_finite(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        self._check_finite(logs["loss"])
        self._report_skipped(epoch + 1)
        with use_averages(self.segmenter):
            weights = self._copy_weights()
            trained = {name: float(logs[name]) for name in ("loss", "dice", "iou", "binary_accuracy")}
            row = {"epoch": epoch + 1, **trained, **validate(self.segmenter, self.data, self.settings.batch_size)}
            self._check_finite(row["val_loss"])  # shows damage by the very last step
            self.history.append(row | {"learning_rate": float(self.segmenter.optimizer.learning_rate)})
            if self.settings.keep == "last" or self.best_epoch == epoch + 1:
                self.kept, self.kept_epoch = weights, epoch + 1
        self._save()
        self._tell()
        if self.is_finished():
            self.segmenter.stop_training = True

    @property
    def best_epoch(self) -> int:
        """The first epoch, counted from 1, with the highest validation volume Dice. An undefined Dice is the lowest."""
        return 1 + int(np.argmax(np.nan_to_num([row["val_volume_dice"] for row in self.history], nan=-1)))

    @property
    def best_score(self) -> float:
        return self.history[self.best_epoch - 1]["val_volume_dice"]

    def is_finished(self) -> bool:
        """Whether all epochs are done, or the last ``patience`` epochs brought no better score."""
        done, patience = len(self.history), self.settings.patience
        if patience is not None and done and done - self.best_epoch >= patience:
            return True
        return done >= self.settings.epochs

    def resume(self) -> None:
        """Continue from the newest intact checkpoint, if there is one, and report it."""
        found = checkpoints.read_latest(self.writer.directory, self.writer.training_key)
        if found is None:
            others = checkpoints.find_unfinished(self.writer.directory)
            if others:
                count = f"{len(others)} unfinished training" + "s" * (len(others) > 1)
                what = f"{others[0].parent} has {count} with other parameters, data or code"
                print(f"training from the start; {what}", flush=True)
            return
        for index, variable in enumerate(_collect_state(self.segmenter)):
            variable.assign(found.arrays[f"state/{index}"])
        self.history, self.kept_epoch = found.meta["history"], found.meta["kept_epoch"]
        self.skipped = self._count_skipped(len(self.history))
        self.kept = [found.arrays[f"kept/{index}"] for index in range(len(self.segmenter.network.weights))]
        print(f"resumed after epoch {found.epoch} of {self.settings.epochs}", flush=True)
        self._tell()

    def _tell(self) -> None:
        for watcher in self.watchers:
            watcher.update(self.history)

    def _save(self) -> None:
        state = {f"state/{i}": array for i, array in enumerate(_copy_values(_collect_state(self.segmenter)))}
        kept = {f"kept/{i}": array for i, array in enumerate(self.kept)}
        meta = {"history": list(self.history), "kept_epoch": self.kept_epoch}
        self.writer.save(checkpoints.Checkpoint(len(self.history), state | kept, meta))

    def _count_skipped(self, epochs: int) -> int:
        """How many steps of the first ``epochs`` changed no weight, because a gradient overflowed in float16."""
        return epochs * len(self.batches) - int(self.segmenter.optimizer.iterations.numpy())

    def _report_skipped(self, epochs: int) -> None:
        """Print how many steps of the last epoch were skipped, if there are any.

        Raises:
            RunError: all were skipped although the loss is scaled down. No later step can change a weight.
        """
        before, self.skipped = self.skipped, self._count_skipped(epochs)
        if self.skipped == before:
            return
        scale, skipped = float(self.segmenter.optimizer.dynamic_scale.numpy()), self.skipped - before
        what = f"{skipped} of {len(self.batches)} steps of epoch {epochs} skipped: float16 overflowed"
        if scale < 1 and skipped == len(self.batches):
            fix = "set train.precision: float32, or bfloat16 where the machine has it; the last checkpoint is kept"
            raise RunError("train.precision", f"{what}, and no scale of the loss is small enough", fix)
        print(f"{what}; the loss is scaled by {scale:g} now", flush=True)

    def _check_finite(self, loss) -> None:
        if not np.isfinite(float(loss)):
            what = f"the loss is {float(loss)} in epoch {len(self.history) + 1}"
            raise RunError("train.loss", what, prediction.CALMER)

    def _copy_weights(self) -> list[np.ndarray]:
        """The weights of the epoch. A unit that is 0 for NaN would hide damaged ones from the loss.

        Raises:
            RunError: one is NaN or infinite.
        """
        variables = self.segmenter.network.weights
        values = _copy_values(variables)
        for variable, value in zip(variables, values, strict=True):
            if not np.isfinite(value).all():
                what = f"{variable.path} holds NaN or infinity after epoch {len(self.history) + 1}"
                raise RunError("the network's weights", what, prediction.CALMER)
        return values


def _collect_state(model: TrainingModel) -> list:
    """All variables that the next step depends on: weights, random generators, optimizer, averages."""
    return [*model.variables, *model.optimizer.variables]


def _copy_values(variables) -> list[np.ndarray]:
    """Copies of the values, because a step on JAX overwrites the memory of its variables."""
    return [np.array(ops.convert_to_numpy(ops.convert_to_tensor(variable))) for variable in variables]


@contextmanager
def use_averages(model: TrainingModel):
    """Use the averaged weights (EMA) instead of the trained ones within the block, if the optimizer keeps them."""
    # keras.callbacks.SwapEMAWeights cannot replace this: on TensorFlow it swaps by adding and subtracting. Because of
    # rounding, the trained weights would not come back to the byte. It also reads the same private attribute.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # float16 wraps it, to scale the loss
    averages = getattr(optimizer, "_model_variables_moving_average", None) if getattr(optimizer, "use_ema", 0) else None
    if not averages:
        yield
        return
    trained = _copy_values(model.trainable_variables)
    for variable, average in zip(model.trainable_variables, _copy_values(averages), strict=True):
        variable.assign(average)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, trained, strict=True):
            variable.assign(value)


def validate(model: TrainingModel, data: Dataset, batch_size: int) -> dict[str, float]:
    """Score the validation slices at threshold 0.5: loss, pooled Dice, IoU and accuracy, mean Dice of the volumes."""
    rows, counts, loss = [], [], 0.0
    for part, found, batch_loss in prediction.validate_batches(
        model.validation_step, data, data.rows("val"), batch_size
    ):
        rows.append(part)
        counts.append(found)
        loss += batch_loss * len(part)
    table = pd.DataFrame(np.concatenate(counts), np.concatenate(rows), metrics.Counts._fields)
    pooled = metrics.Counts(*table.sum().to_numpy())
    volumes = metrics.Counts(*table.groupby(data.patient[table.index]).sum().to_numpy().T)
    return {
        "val_loss": loss / len(table),
        "val_dice": float(metrics.dice(pooled)),
        "val_iou": float(metrics.iou(pooled)),
        "val_binary_accuracy": float(metrics.pixel_accuracy(pooled)),
        "val_volume_dice": float(np.nanmean(metrics.dice(volumes))),
    }


def save(trained: TrainingResult, weights: Path) -> None:
    """Write only the weights. The file has no date and no name of the machine, so equal weights give equal bytes."""
    with files.replacing(weights) as temporary:
        trained.network.save_weights(temporary)


def finish(trained: TrainingResult) -> str:
    """Remove the checkpoints and return the summary line. Call it after the outputs are written."""
    checkpoints.remove(trained.checkpoints)
    kept = trained.history.iloc[trained.kept_epoch - 1]
    return (
        f"trained {len(trained.history)} epochs; validation volume Dice {kept['val_volume_dice']:.3f} "
        f"in epoch {trained.kept_epoch}, which is kept; {trained.network.count_params():,} parameters"
    )
