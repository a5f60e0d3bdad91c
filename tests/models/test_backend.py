"""What `auto` becomes, and the warning if a precision is emulated."""

import os
import subprocess
import sys

import keras
import pytest

from brainseg import hardware
from brainseg.models import backend
from brainseg.models.backend import Runtime
from tests.support.engine import THREADS

CHOSEN = [
    ("cpu", True, None, "bfloat16"),
    ("cpu", False, None, "float32"),
    ("gpu", False, (9, 0), "bfloat16"),
    ("gpu", False, (8, 0), "bfloat16"),
    ("gpu", True, (7, 5), "float16"),  # the card cannot use the bfloat16 of the processor
    ("gpu", False, (7, 0), "float16"),
    ("gpu", False, (6, 1), "float32"),
    ("gpu", False, (0, 0), "float32"),
]


@pytest.fixture
def has(monkeypatch):
    def set_up(native, capability):
        monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda: native)
        monkeypatch.setattr(hardware, "instruction_sets", lambda: ("avx2",))
        monkeypatch.setattr(backend, "compute_capability", lambda name: capability)

    return set_up


@pytest.mark.parametrize(("device", "native", "capability", "expected"), CHOSEN)
def test_auto_is_the_fastest_that_is_native(device, native, capability, expected, has):
    has(native, capability)
    chosen = backend.native_precision("tensorflow", device)
    assert chosen == expected
    assert backend.explain_emulation(chosen, "tensorflow", device) == ""


EMULATED = [
    ("bfloat16", "cpu", False, None, "12 times as long"),
    ("float16", "cpu", True, None, "4 times as long"),
    ("bfloat16", "gpu", False, (7, 5), "was not measured"),
    ("float16", "gpu", False, (6, 1), "was not measured"),
]


@pytest.mark.parametrize(("precision", "device", "native", "capability", "words"), EMULATED)
def test_what_is_emulated_is_said_with_its_cost(precision, device, native, capability, words, has):
    has(native, capability)
    said = backend.explain_emulation(precision, "jax", device)
    assert words in said and precision in said


@pytest.mark.parametrize("card", ["7.5", "gfx90a", None])
def test_the_capability_of_a_card_on_jax(card, monkeypatch):
    jax = pytest.importorskip("jax")
    device = type("Card", (), {} if card is None else {"compute_capability": card})()
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert backend.compute_capability("jax") == ((7, 5) if card == "7.5" else (0, 0))


def test_the_first_line_names_what_was_chosen():
    assert str(Runtime("tensorflow", "cpu", "float32", 2, True)) == "tensorflow on cpu, float32, 2 threads, oneDNN"
    assert str(Runtime("jax", "gpu", "bfloat16", 1)) == "jax on gpu, bfloat16, 1 thread"
    assert str(Runtime("jax", "gpu", "bfloat16", 8, devices=4)) == (
        "jax on 4 devices (gpu), bfloat16, 8 threads; train.batch_size is in all, not per device"
    )


SCRIPT = """
from brainseg.models import backend
print(backend.start("tensorflow", device="cpu", precision="float16"))
import tensorflow as tf
print(tf.config.threading.get_intra_op_parallelism_threads())
from tensorflow.python.util import _pywrap_util_port
print(_pywrap_util_port.IsMklEnabled())
"""


def test_auto_is_chosen_without_a_warning(capsys):
    before = keras.config.dtype_policy()
    try:
        found = backend.start("tensorflow", device="cpu", precision="auto", threads=THREADS)
    finally:
        keras.config.set_dtype_policy(before)
    assert found.precision == backend.native_precision("tensorflow", "cpu")
    assert "WARNING" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def started():
    """A process on one core whose environment asks for no oneDNN, and whose precision is emulated."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
        return subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.skipif(sys.platform != "linux", reason="affinity")
def test_started_on_one_core_with_onednn_whatever_the_environment_says(started):
    assert started.stdout.splitlines() == ["tensorflow on cpu, float16, 1 thread, oneDNN", "1", "True"]


@pytest.mark.skipif(sys.platform != "linux", reason="affinity")
def test_a_precision_that_is_emulated_is_warned_of_once_and_used(started):
    done = started
    assert done.stdout.startswith("tensorflow on cpu, float16")
    assert done.stderr.count("WARNING train.precision: float16 is emulated") == 1
    assert "Fix: set train.precision: auto" in done.stderr
