"""The model that is trained (augmentation, network and loss in one compiled step), its scores, its validation step."""

import keras
from keras import ops

from brainseg.models import backend, devices
from brainseg.training.augmentation import Augmenter


class Overlap(keras.metrics.Metric):
    """Dice, IoU and binary accuracy of hard masks (probability >= 0.5), pooled over all pixels of an epoch."""

    def __init__(self, name: str = "overlap"):
        super().__init__(name=name, dtype="float32")
        self.counts = self.add_weight(name="counts", shape=(4,), initializer="zeros")

    def update_state(self, masks, logits, sample_weight=None):
        predicted = ops.cast(logits >= 0, "float32")
        tp, p, y = ops.sum(predicted * masks), ops.sum(predicted), ops.sum(masks)
        tn = ops.sum(ops.ones_like(masks)) - p - y + tp
        self.counts.assign_add(ops.stack([tp, p - tp, y - tp, tn]))

    def result(self):
        tp, fp, fn, tn = ops.unstack(ops.convert_to_tensor(self.counts))
        one = ops.ones_like(tp)  # the score if masks and predictions are empty
        return {
            "dice": ops.where(tp + fp + fn > 0, 2 * tp / ops.maximum(2 * tp + fp + fn, 1), one),
            "iou": ops.where(tp + fp + fn > 0, tp / ops.maximum(tp + fp + fn, 1), one),
            "binary_accuracy": (tp + tn) / ops.maximum(tp + fp + fn + tn, 1),
        }


class TrainingModel(keras.Model):
    """Trains ``network`` on ``{"image": (B, H, W, K C), "mask": (B, H, W, M)}``, both uint8.

    The mask is augmented with the image. So the model returns it with the logits, and the loss reads both from there.
    Auxiliary outputs of a network with deep supervision are compared with the same mask; each weighs half as much as
    the one before.
    """

    def __init__(self, network: keras.Model, plain: keras.Model, augmenter: Augmenter, loss):
        """``plain``: the same layers without the auxiliary outputs, for validation."""
        super().__init__()
        self.network, self.validation_step = network, ValidationStep(plain, loss)
        self.augmenter, self.objective, self.overlap = augmenter, loss, Overlap()
        self.answers = network.output_shape[-1] // plain.output_shape[-1]

    def call(self, inputs, training=False):
        images, masks = self.augmenter(inputs["image"], inputs["mask"], training=training)
        outputs = ops.split(self.network(images, training=training), self.answers, axis=-1)
        return {"logits": outputs[0], "early": outputs[1:], "mask": masks}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        losses = [self.objective(y_pred["mask"], logits) for logits in (y_pred["logits"], *y_pred["early"])]
        weights = [0.5**place for place in range(len(losses))]
        parts = sum(weights) * devices.replicas()  # whose gradients are summed
        return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / parts

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        hard = y_pred["mask"] if self.augmenter.full == 1 else ops.cast(y_pred["mask"] >= 0.5, "float32")
        self.overlap.update_state(hard, y_pred["logits"])
        return self.get_metrics_result()


class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """The optimizer for float16, which skips a step whose gradients overflow, on whichever device.

    On TensorFlow that of Keras 3.15 looks at the gradients of the first device alone.
    """

    def check_finite(self, grads):
        return devices.mean_over_replicas(ops.cast(super().check_finite(grads), "float32")) == 1


class ValidationStep(keras.Model):
    """The validation step: the counts and the loss of a batch. The logits stay on the device.

    Takes ``{"image": (B, H, W, K C), "mask": (B, H, W, M)}``, both uint8. Returns ``counts`` (B, M, 4) int32 of hard
    masks (probability >= 0.5), in the order of ``metrics.Counts``, ``loss`` (B,), the batch's loss repeated, and
    ``finite`` (B, M), whether all logits of a slice are numbers.
    """

    def __init__(self, network: keras.Model, loss):
        super().__init__()
        self.network, self.objective, self.built = network, loss, True  # its only layers are those of the network
        self.compile(jit_compile=backend.jit_compile())  # otherwise Keras may choose XLA for predict()

    def call(self, inputs):
        logits = self.network(inputs["image"], training=False)
        predicted, masks = logits >= 0, inputs["mask"] > 0
        tp, p, y = (ops.sum(ops.cast(each, "int32"), (1, 2)) for each in (predicted & masks, predicted, masks))
        tn = logits.shape[1] * logits.shape[2] - p - y + tp
        loss = ops.broadcast_to(self.objective(ops.cast(masks, "float32"), logits), ops.shape(logits)[:1])
        finite = ops.all(ops.isfinite(logits), axis=(1, 2))
        return {"counts": ops.stack([tp, p - tp, y - tp, tn], -1), "loss": loss, "finite": finite}
