"""Several devices that train one network: they share each batch, and the result is that of one device.

On JAX Keras' ``DataParallel`` does it: a step is written for the whole batch, and the compiler divides it. TensorFlow's
``MirroredStrategy`` gives each device a copy of the network (a replica), which sees its part of the batch, and sums the
gradients. What depends on the whole batch asks this module: losses, statistics of batch normalisation, random numbers.
"""

import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from brainseg import config
from brainseg.errors import DataError, MachineError


def share(engine: str, device: str, devices: int | Literal["auto"]) -> int:
    """Let all trainings of this process share their batches among ``devices``.

    Args:
        engine: the one that runs. device: ``cpu`` or ``gpu``.
        devices: ``auto``: all GPUs, one processor.

    Returns:
        The number of devices.

    Raises:
        MachineError: there are fewer.
    """
    if devices == 1 or (devices == "auto" and device == "cpu"):
        return 1
    found = _list_devices(engine, device)
    count = len(found) if devices == "auto" else devices
    if count > len(found):
        what = f"is {count}, but {engine} sees {len(found)} ({device})"
        raise MachineError("train.devices", what, "set train.devices: auto, which takes those that there are")
    if count > 1 and engine == "jax":
        import keras

        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=found[:count]))
    elif count > 1:
        import tensorflow as tf

        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(found[:count]))
    return count


def _list_devices(engine: str, device: str) -> list[str]:
    if engine == "jax":
        import keras

        return keras.distribution.list_devices(device)
    import tensorflow as tf

    return [each.name for each in tf.config.list_logical_devices(device.upper())]


def count_devices() -> int:
    """How many devices share the batches of this process's trainings."""
    import keras

    distribution = keras.distribution.distribution()  # there is one on JAX only
    return replicas() if distribution is None else distribution.device_mesh.devices.size


def require_equal_parts(batch_size: int) -> None:
    """Raises DataError: the devices cannot share a batch equally."""
    count = count_devices()
    if batch_size % count:
        what = f"is {batch_size}, which {count} devices cannot share equally"
        raise DataError("train.batch_size", what, config.suggest_equal_parts(batch_size, count))


def replicas() -> int:
    """How many copies of a training step run, each on its part of the batch: one a device on TensorFlow, one on JAX."""
    if os.environ.get("KERAS_BACKEND") != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def _find_replica() -> Any:
    """The copy of a step that is being built; None where there is only one, and outside of steps."""
    if replicas() == 1:
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()


def sum_over_replicas(values: Any) -> Any:
    """The sums of tensors over all copies of a step. Their gradients are the sums of the gradients in all copies."""
    context = _find_replica()
    return context.all_reduce("SUM", values) if context else values


def mean_over_replicas(value: Any) -> Any:
    """The mean of a tensor over all copies of a step."""
    return sum_over_replicas(value) / replicas() if _find_replica() else value


def draw(random: Callable[[Any], Any], count: Any) -> Any:
    """Random numbers for the samples in this copy of a step: those that the samples have on one device.

    Args:
        random: draws for a number of samples: a tensor (samples, ...), or a tuple of such.
        count: the samples in this copy.
    """
    context = _find_replica()
    if context is None:
        return random(count)
    import keras

    first = context.replica_id_in_sync_group * count
    return keras.tree.map_structure(lambda values: values[first : first + count], random(count * replicas()))


def split_batch(batch: dict[str, np.ndarray]) -> Any:
    """A batch of arrays (B, ...) in equal parts, one a device, for ``predict_on_batch``. ``fit`` divides."""
    import keras

    if distribution := keras.distribution.distribution():
        return {
            name: keras.distribution.distribute_tensor(values, distribution.get_data_layout(values.shape))
            for name, values in batch.items()
        }
    if (count := replicas()) == 1:
        return batch
    import tensorflow as tf

    parts = {name: tf.split(values, count) for name, values in batch.items()}
    return tf.distribute.get_strategy().experimental_distribute_values_from_function(
        lambda context: {name: each[context.replica_id_in_sync_group] for name, each in parts.items()}
    )


def normalise_batch(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """Batch normalisation of (B, H, W, C) by the statistics of the whole batch; TensorFlow's kernel sees a part of it.

    Keras' layer can do that too (``synchronized``). But the variances that it keeps are biased, and the kernel's are
    not: after the same training, the network would answer differently than that of one device.

    Returns:
        ``(y, batch mean, batch variance)``, as from the kernel.
    """
    import tensorflow as tf

    values, axes = tf.cast(x, tf.float32), range(len(x.shape) - 1)
    count = tf.cast(replicas() * tf.size(values) // tf.shape(values)[-1], tf.float32)
    mean = sum_over_replicas(tf.reduce_sum(values, axes)) / count
    squares = sum_over_replicas(tf.reduce_sum(tf.square(values - mean), axes))
    y = tf.nn.batch_normalization(values, mean, squares / count, beta, gamma, epsilon)
    return tf.cast(y, x.dtype), mean, squares / (count - 1)
