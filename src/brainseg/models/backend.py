"""The engine: device, precision, threads, determinism. Only this module and ``devices`` import TensorFlow or JAX.

Call ``start`` before anything imports Keras, because Keras reads its backend once, when it is imported.
"""

import gc
import importlib.metadata
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

from brainseg import hardware
from brainseg.errors import DataError, MachineError
from brainseg.models.devices import normalise_batch, replicas, share

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}  # Keras' names
# The compute capability from which NVIDIA cards compute in a precision natively; the preferred precision is first.
NATIVE_FROM = {"bfloat16": (8, 0), "float16": (7, 0)}
# How much longer than in float32 a training step takes where the processor emulates the precision. Measured on two AVX2
# cores with: benchmarks/step_profile.py --set train.precision=...
EMULATED = {"bfloat16": 12, "float16": 4}
EMULATION_REMEDY = "set train.precision: auto"


class Runtime(NamedTuple):
    """What a run computes with. Every field can change the bytes of the weights."""

    engine: str
    device: str
    precision: str
    threads: int
    onednn: bool = False
    devices: int = 1

    def __str__(self) -> str:
        where = self.device if self.devices == 1 else f"{self.devices} devices ({self.device})"
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}"
        shared = "; train.batch_size is in all, not per device" if self.devices > 1 else ""
        return f"{self.engine} on {where}, {self.precision}, {threads}{', oneDNN' if self.onednn else ''}{shared}"


def start(
    name: str, *, device: str = "auto", precision: str = "float32", threads: int | Literal["auto"] = "auto",
    devices: int | Literal["auto"] = 1, warn: bool = True,
) -> Runtime:  # fmt: skip
    """Set up the engine of this process: Keras' backend, devices, precision, threads, determinism.

    TensorFlow always computes with oneDNN. Its own default is to use oneDNN only on processors with AVX512_VNNI.

    Args:
        name: ``tensorflow`` or ``jax``.
        device: ``auto``, ``cpu`` or ``gpu``.
        precision: of activations; weights stay float32. ``float32``, ``bfloat16``, ``float16``, or ``auto``: see
            ``native_precision``.
        threads: processor threads. They are part of the result, because they change the order of sums. ``auto``: the
            number of physical cores that this process may use.
        devices: how many share each batch of a training. ``auto``: all GPUs, one processor.
        warn: print a warning where ``precision`` is emulated.

    Raises:
        MachineError: the engine is not installed, ``device`` is ``gpu`` and there is none, or there are fewer
            ``devices``.
        DataError: this process already uses another engine or another number of threads.
    """
    if importlib.util.find_spec(name) is None:
        raise MachineError(name, "this engine is not installed", f"pip install {name}, or set train.engine")
    threads = hardware.cores() if threads == "auto" else int(threads)
    _set_environment(name, device, threads)
    unused = "matplotlib", "sklearn", "pandas", "IPython", *["jax"] * (name == "tensorflow")
    with _pause_collector(), _hide_modules(*unused):
        found = {"tensorflow": _start_tensorflow, "jax": _start_jax}[name](threads)
        import keras
    if device == "gpu" and found != "gpu":
        raise MachineError("train.device", f"is gpu, but {name} sees no GPU",
                           "see docs/how-to/gpu.md, or set train.device: auto")  # fmt: skip
    if keras.backend.backend() != name:
        raise DataError("train.engine", f"Keras already runs on {keras.backend.backend()}", "start a new process")
    if precision == "auto":
        precision = native_precision(name, found)
    elif warn and (cost := explain_emulation(precision, name, found)):
        print(f"WARNING train.precision: {cost}. Fix: {EMULATION_REMEDY}", file=sys.stderr, flush=True)
    keras.config.set_dtype_policy(POLICIES[precision])
    return Runtime(name, found, precision, threads, has_onednn(name), share(name, found, devices))


def native_precision(name: str, device: str) -> str:
    """The precision that ``auto`` becomes: the fastest that the device computes natively.

    That is bfloat16 on processors with AVX512_BF16 or AMX. On NVIDIA cards it is the first of ``NATIVE_FROM`` that the
    card has: the tensor cores of compute capability 7.x know float16 only. Everywhere else it is float32.
    """
    if device == "cpu":
        return "bfloat16" if hardware.multiplies_bfloat16() else "float32"
    capability = compute_capability(name)
    return next((precision for precision, first in NATIVE_FROM.items() if capability >= first), "float32")


def explain_emulation(precision: str, name: str, device: str) -> str:
    """Why ``precision`` is slow on this device, with the measured cost; empty where it is native."""
    if precision == "float32":
        return ""
    if device == "cpu":
        if precision == "bfloat16" and (hardware.multiplies_bfloat16() or not hardware.instruction_sets()):
            return ""  # native; or unknown, because this is no x86 processor or not Linux
        return (
            f"{precision} is emulated on this processor; a training step took {EMULATED[precision]} times as long as "
            "in float32 on two AVX2 cores"
        )
    if compute_capability(name) >= NATIVE_FROM[precision]:
        return ""
    return f"{precision} is emulated on this card; the cost was not measured"


def compute_capability(name: str) -> tuple[int, int]:
    """NVIDIA's compute capability of the first GPU that the engine sees; (0, 0) for a card of another maker."""
    try:
        if name == "jax":
            import jax

            major, minor = jax.devices()[0].compute_capability.split(".")
        else:
            import tensorflow as tf

            card = tf.config.list_physical_devices("GPU")[0]
            major, minor = tf.config.experimental.get_device_details(card)["compute_capability"]
        return int(major), int(minor)
    except (AttributeError, KeyError, ValueError, IndexError):
        return 0, 0


def has_onednn(name: str) -> bool:
    """Whether the engine computes with oneDNN: TensorFlow does, except in its builds for macOS."""
    return name == "tensorflow" and platform.system() != "Darwin"


def _set_environment(name: str, device: str, threads: int) -> None:
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("KERAS_HOME", os.devnull)  # writes no settings into the user's home and obeys none there
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ["NPROC"] = str(threads)  # the size of JAX's thread pool
    if name == "jax":  # otherwise the order of sums on a GPU changes from run to run
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["JAX_PLATFORMS"] = "cpu"


@contextmanager
def _pause_collector() -> Iterator[None]:
    """Collect no garbage: there is hardly any while modules are loaded, and looking for it takes a second."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _hide_modules(*names: str) -> Iterator[None]:
    """Let imports of modules fail that are not loaded yet, in all threads.

    Keras and TensorFlow import them where they can, for what nobody here asks of them: galleries (matplotlib, which
    also writes a cache of fonts into the user's home), wrappers (sklearn), tables as input (pandas), notebooks
    (IPython), conversion to LiteRT (jax). That is a third of the time that an engine takes to start.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # as Python's documentation of sys.modules has it
    try:
        yield
    finally:
        for name in hidden:
            if name in sys.modules and sys.modules[name] is None:
                del sys.modules[name]


@contextmanager
def _hide_start_messages() -> Iterator[None]:
    """Hide what C++ code prints on stderr while an engine loads, because no log level stops it at that moment.

    The messages are printed when the block fails.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        except BaseException:
            sink.seek(0)
            os.write(kept, sink.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _start_tensorflow(threads: int) -> str:
    with _hide_start_messages():
        import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        if tf.config.threading.get_intra_op_parallelism_threads() != threads:
            what = "TensorFlow already runs with another number of threads in this process"
            raise DataError("train.threads", what, "start a new process") from None
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return "gpu" if gpus else "cpu"


def _start_jax(threads: int) -> str:
    with _hide_start_messages(), suppress(ImportError):
        import keras  # noqa: F401
        import tensorflow  # noqa: F401  # if it is installed, Keras imports it when a training starts
    import jax

    return "gpu" if jax.default_backend() == "gpu" else "cpu"


def jit_compile() -> bool:
    """Whether XLA compiles the steps: on JAX always, on TensorFlow never (on a processor XLA halves the speed)."""
    import keras

    return keras.backend.backend() == "jax"


def runs_ahead() -> bool:
    """Whether a step starts before the last one is done, as on JAX. Then a batch callback must not wait for its loss.

    Keras waits for the loss after each step, unless every callback declares ``async_safe``: that it may be called later
    and from another thread.
    """
    return jit_compile()


def batch_normalisation(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, training: bool) -> Any:
    """Fused batch normalisation over (B, H, W, C), where the engine has a kernel that is faster than Keras' own layer.

    Keras composes it of a dozen operations. TensorFlow's fused kernel makes a whole U-Net step 1.8 times as fast on a
    processor.

    Returns:
        ``(y, batch mean, batch variance)``, or None where there is no such kernel.
    """
    if os.environ.get("KERAS_BACKEND") != "tensorflow":
        return None
    import tensorflow as tf

    if x.dtype not in (tf.float32, tf.bfloat16, tf.float16):
        return None
    gamma, beta, mean, variance = (tf.cast(v, tf.float32) for v in (gamma, beta, mean, variance))
    if training and replicas() > 1:
        return normalise_batch(x, gamma, beta, epsilon)
    empty = tf.zeros([0])
    y, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, epsilon=epsilon, is_training=training,
        mean=empty if training else mean, variance=empty if training else variance,
    )  # fmt: skip
    return y, batch_mean, batch_variance


def warp_affine(images: Any, transforms: Any, window: int) -> Any:
    """Affine transforms of (B, H, W, C): bilinear samples at ``window`` x ``window`` pixels, zero outside, same type.

    Args:
        transforms: (B, 8), from output to input pixels, as in ``keras.ops.image.affine_transform``. The output of that
            function always has the size of its input. TensorFlow's kernel, used here, computes only the window.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images, transforms=transforms, output_shape=[window, window], fill_value=0.0,
            interpolation="BILINEAR", fill_mode="CONSTANT",
        )  # fmt: skip
    whole = keras.ops.image.affine_transform(
        keras.ops.cast(images, "float32"), transforms, interpolation="bilinear", fill_mode="constant", fill_value=0.0
    )
    return keras.ops.cast(whole[:, :window, :window], images.dtype)


def runs_on_processor() -> bool:
    """Whether a step can call NumPy without copying arrays to another device: TensorFlow without a GPU."""
    if os.environ.get("KERAS_BACKEND") != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_logical_devices("GPU")


def call_numpy(function: Any, arrays: tuple, shapes: list[tuple]) -> list:
    """Call ``function(*arrays)`` in NumPy inside a TensorFlow step; its results are float32 arrays of ``shapes``."""
    import tensorflow as tf

    results = tf.numpy_function(function, arrays, [tf.float32] * len(shapes), stateful=False)
    for result, shape in zip(results, shapes, strict=True):
        result.set_shape(shape)
    return results


def stream(batches: Any) -> Any:
    """Make batches for ``fit`` that are read ahead while a step runs.

    By default Keras feeds TensorFlow from a Python generator. Its kernel reads nothing ahead, and after each step it
    makes the C library return memory to the system (TensorFlow 2.21, generator_dataset_op.cc).

    tf.data does not tune itself here: there is nothing to tune, and the thread that would sleeps twice as long after
    each look, up to a minute. An epoch that ends waits until it wakes (TensorFlow 2.21, model.cc, OptimizeLoop).

    Args:
        batches: a ``keras.utils.PyDataset`` of dicts of arrays; all batches have the same shapes.
    """
    if os.environ.get("KERAS_BACKEND") != "tensorflow":
        return batches
    import tensorflow as tf

    first = batches[0]
    names, kinds = list(first), [array.dtype for array in first.values()]

    def read(index):
        values = tf.numpy_function(lambda i: list(batches[int(i)].values()), [index], kinds, stateful=False)
        for value, array in zip(values, first.values(), strict=True):
            value.set_shape(array.shape)
        return dict(zip(names, values, strict=True))

    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.range(len(batches)).map(read).prefetch(2).with_options(options)


def versions() -> dict[str, str]:
    """The versions of the installed engines."""
    found = {}
    for name in ("tensorflow-cpu", "tensorflow", "jax", "jaxlib"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
