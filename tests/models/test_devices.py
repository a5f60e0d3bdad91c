"""How many devices share a batch, and what is refused. Trainings: tests/training/test_several_devices.py."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from brainseg.errors import DataError, MachineError
from brainseg.models import devices

GPUS = [f"GPU:{number}" for number in range(4)]


@pytest.fixture
def chosen(monkeypatch):
    """A machine with four GPUs, and those that a training takes."""
    taken = []
    monkeypatch.setattr(devices, "_list_devices", lambda engine, device: GPUS if device == "gpu" else ["CPU:0"])
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", list)
    monkeypatch.setattr(tf.distribute, "experimental_set_strategy", taken.extend)
    monkeypatch.setattr(keras.distribution, "DataParallel", lambda devices: devices)
    monkeypatch.setattr(keras.distribution, "set_distribution", taken.extend)
    return taken


@pytest.mark.parametrize("engine", ["tensorflow", "jax"])
@pytest.mark.parametrize(
    ("device", "wanted", "taken"),
    [("gpu", "auto", GPUS), ("gpu", 2, GPUS[:2]), ("gpu", 1, []), ("cpu", "auto", []), ("cpu", 1, [])],
)
def test_auto_is_all_gpus_and_one_processor(engine, device, wanted, taken, chosen):
    assert devices.share(engine, device, wanted) == max(1, len(taken))
    assert chosen == taken


def test_auto_with_a_single_gpu_shares_nothing(chosen, monkeypatch):
    monkeypatch.setattr(devices, "_list_devices", lambda engine, device: GPUS[:1])
    assert devices.share("tensorflow", "gpu", "auto") == 1
    assert chosen == []


@pytest.mark.parametrize(("device", "wanted", "there"), [("gpu", 5, 4), ("cpu", 2, 1)])
def test_g1_more_devices_than_there_are(device, wanted, there, chosen):
    with pytest.raises(MachineError, match=rf"is {wanted}, but jax sees {there} \({device}\)") as caught:
        devices.share("jax", device, wanted)
    assert caught.value.code == 3
    assert "train.devices: auto" in caught.value.problems[0].fix
    assert chosen == []


def test_g1_this_processor_is_one_device():
    with pytest.raises(MachineError, match="is 2, but tensorflow sees 1"):
        devices.share("tensorflow", "cpu", 2)


def test_p2_a_batch_that_cannot_be_shared_equally(monkeypatch):
    devices.require_equal_parts(7)
    monkeypatch.setattr(devices, "count_devices", lambda: 4)
    devices.require_equal_parts(8)
    with pytest.raises(DataError, match="is 10, which 4 devices cannot share equally") as caught:
        devices.require_equal_parts(10)
    assert caught.value.code == 2
    assert caught.value.problems[0].fix == "set train.batch_size to 8 or 12, or train.devices to 2"


def test_one_device_computes_as_before():
    """The tensors themselves, and the batch as it is: nothing is added to a step."""
    value = keras.ops.ones((2, 3))
    batch = {"image": np.zeros((4, 2), np.uint8)}
    assert devices.replicas() == devices.count_devices() == 1
    assert devices.sum_over_replicas(value) is devices.mean_over_replicas(value) is value
    assert devices.draw(lambda count: (count, value), 5) == (5, value)
    assert devices.split_batch(batch) is batch


OVERFLOW = """
from tests.support import virtual_devices
virtual_devices.split_processor("tensorflow", 2)
from brainseg.models import backend
backend.start("tensorflow", device="cpu", threads=1, devices=2)
import keras, tensorflow as tf
from brainseg.training.training_model import LossScaleOptimizer

weights = keras.Variable([1.0, 2.0])
optimizer = LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=8.0)
optimizer.build([weights])

@tf.function
def step(overflows):
    def one():
        second = tf.distribute.get_replica_context().replica_id_in_sync_group == 1
        optimizer.apply([tf.where(second & overflows, [float("inf")] * 2, [4.0, 8.0])], [weights])
    tf.distribute.get_strategy().run(one)

for overflows in (True, False):
    step(overflows)
    print(weights.numpy().tolist(), float(optimizer.dynamic_scale.numpy()), int(optimizer.iterations.numpy()))
"""


@pytest.mark.slow
def test_an_overflow_on_the_second_device_alone_skips_the_step():
    done = subprocess.run([sys.executable, "-c", OVERFLOW], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[1.0, 2.0] 4.0 0", "[0.0, 0.0] 4.0 1"]
