"""What the screen shows while a network trains: a progress bar within an epoch, one line after it."""

import time

import keras
from tqdm import tqdm

from brainseg.models import backend


class Progress(keras.callbacks.Callback):
    """``epoch 3/24  loss 0.41  validation volume Dice 0.812 (best 0.821 in 2)  47 images/s  12 min left``."""

    def __init__(self, epochs: int, steps: int, batch_size: int, recorder):
        """``recorder``: the ``trainer.EpochRecorder``, whose history is shown."""
        super().__init__()
        self.epochs, self.steps, self.batch_size, self.recorder = epochs, steps, batch_size, recorder
        self.started, self.trained = 0.0, 0.0  # seconds
        self.times: list[float] = []
        self.async_safe = backend.runs_ahead()

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()
        self.bar = tqdm(total=self.steps * self.batch_size, unit="images", desc=f"epoch {epoch + 1}/{self.epochs}",
                        leave=False, mininterval=1, disable=None)  # fmt: skip

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(self.batch_size)
        if batch % 10 == 0 and not self.bar.disable:
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.3f}", refresh=False)
        if batch + 1 >= self.steps:  # with several steps in one call the number may be larger
            self.trained = time.monotonic() - self.started

    def on_epoch_end(self, epoch, logs=None):
        """Must run after the ``EpochRecorder``, whose validation is part of the epoch's time."""
        self.bar.close()
        self.times.append(time.monotonic() - self.started)
        left = (self.epochs - epoch - 1) * sum(self.times) / len(self.times) / 60
        row, best = self.recorder.history[-1], self.recorder.best_epoch
        print(
            f"epoch {epoch + 1}/{self.epochs}  loss {row['loss']:.3f}  "
            f"validation volume Dice {row['val_volume_dice']:.3f} (best {self.recorder.best_score:.3f} in {best})  "
            f"{self.steps * self.batch_size / self.trained:.0f} images/s  {left:.0f} min left",
            flush=True,
        )
