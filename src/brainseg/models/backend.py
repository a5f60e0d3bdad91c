"""The one place that knows TensorFlow or JAX: which engine, device, precision, threads, determinism.

``start`` must run before anything imports Keras, which reads its backend once.
"""

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

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}  # Keras' names
# A training step's time over that in float32, on two AVX2 cores: benchmarks/step_profile.py --set train.precision=...
EMULATED = {"bfloat16": 12, "float16": 4}


class Engine(NamedTuple):
    """What a run computes with; every field can change the bytes of the weights."""

    engine: str
    device: str
    precision: str
    threads: int
    onednn: bool = False

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}"
        return f"{self.engine} on {self.device}, {self.precision}, {threads}{', oneDNN' if self.onednn else ''}"


def start(
    name: str, *, device: str = "auto", precision: str = "float32", threads: int | Literal["auto"] = "auto"
) -> Engine:
    """Set up the engine of this process: Keras' backend, device, precision, threads, determinism.

    TensorFlow computes with oneDNN, which it does unasked only on processors with AVX512_VNNI.

    Args:
        name: ``tensorflow`` or ``jax``.
        device: ``auto``, ``cpu`` or ``gpu``.
        precision: of activations; weights stay float32. ``float32``, ``bfloat16``, ``float16``, or ``auto``: what the
            device computes itself, see ``native_precision``.
        threads: processor threads, part of the result because sums are taken in another order; ``auto``: the physical
            cores that this process may use.

    Raises:
        MachineError: the engine is not installed, or ``gpu`` was asked for and there is none.
    """
    if importlib.util.find_spec(name) is None:
        raise MachineError(name, "this engine is not installed", f"pip install {name}, or set train.engine")
    threads = hardware.cores() if threads == "auto" else int(threads)
    _environment(name, device, threads)
    found = {"tensorflow": _start_tensorflow, "jax": _start_jax}[name](threads)
    if device == "gpu" and found != "gpu":
        raise MachineError("train.device", f"gpu was asked for and {name} sees none",
                           "see docs/gpu.md, or set train.device: auto")  # fmt: skip
    import keras

    if keras.backend.backend() != name:
        raise DataError("train.engine", f"Keras already runs on {keras.backend.backend()}", "start a new process")
    if precision == "auto":
        precision = native_precision(name, found)
    elif cost := emulation(precision, name, found):
        advice = "train.precision: auto chooses what is fast here"
        print(f"WARNING train.precision: {cost}. {advice}", file=sys.stderr, flush=True)
    keras.config.set_dtype_policy(POLICIES[precision])
    return Engine(name, found, precision, threads, has_onednn(name))


def native_precision(name: str, device: str) -> str:
    """The precision that ``auto`` becomes: the fastest that the device computes itself.

    bfloat16 on processors with AVX512_BF16 or AMX and on NVIDIA cards from compute capability 8.0 on; float16 on cards
    of 7.x, whose tensor cores know no other; else float32.
    """
    if device == "cpu":
        return "bfloat16" if hardware.multiplies_bfloat16() else "float32"
    capability = compute_capability(name)
    return "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else "float32"


def emulation(precision: str, name: str, device: str) -> str:
    """Why ``precision`` is slow here, with the measured cost; empty where the device computes it itself."""
    if precision == "float32":
        return ""
    if device == "cpu":
        if precision == "bfloat16" and (hardware.multiplies_bfloat16() or not hardware.instruction_sets()):
            return ""  # native, or not known: not an x86 processor, or not Linux
        return (
            f"{precision} is emulated on this processor; a training step took {EMULATED[precision]} times as long as "
            "in float32 on two AVX2 cores"
        )
    needed = (8, 0) if precision == "bfloat16" else (7, 0)
    if compute_capability(name) >= needed:
        return ""
    return f"{precision} is emulated on this card; the cost was not measured"


def compute_capability(name: str) -> tuple[int, int]:
    """NVIDIA's number of the first GPU that the engine sees; (0, 0) for a card of another maker."""
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
    """Whether the engine computes with oneDNN: TensorFlow, but for its builds for macOS."""
    return name == "tensorflow" and platform.system() != "Darwin"


def _environment(name: str, device: str, threads: int) -> None:
    os.environ["KERAS_BACKEND"] = name
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ["NPROC"] = str(threads)  # the size of JAX's thread pool
    if name == "jax":  # else sums on a GPU come in any order
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["JAX_PLATFORMS"] = "cpu"


@contextmanager
def _without_start_messages() -> Iterator[None]:
    """Keep the lines that C++ prints on stderr while an engine loads, before any log level can stop them.

    They are given back when the block fails.
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
    with _without_start_messages():
        import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        if tf.config.threading.get_intra_op_parallelism_threads() != threads:
            what = "the engine already runs with another number"
            raise DataError("train.threads", what, "start a new process") from None
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return "gpu" if gpus else "cpu"


def _start_jax(threads: int) -> str:
    with _without_start_messages(), suppress(ImportError):
        import keras  # noqa: F401
        import tensorflow  # noqa: F401  # Keras looks into it, where there is one, when a training begins
    import jax

    return "gpu" if jax.default_backend() == "gpu" else "cpu"


def jit_compile() -> bool:
    """Whether steps go through XLA: on JAX always, on TensorFlow never (on a processor it halves the speed)."""
    import keras

    return keras.backend.backend() == "jax"


def runs_ahead() -> bool:
    """Whether steps are begun before earlier ones are done, as on JAX: callbacks of a batch must not wait for its loss.

    Keras reads it after each step unless they say that they may be called from another thread, a little later.
    """
    return jit_compile()


def batch_normalisation(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, training: bool) -> Any:
    """Fused batch normalisation over (B, H, W, C), where the engine has one that pays.

    Keras composes it of a dozen operations; TensorFlow's fused kernel makes a whole U-Net step 1.8
    times as fast on a processor.

    Returns:
        ``(y, batch mean, batch variance)``, or None where there is no such kernel.
    """
    if os.environ.get("KERAS_BACKEND") != "tensorflow":
        return None
    import tensorflow as tf

    if x.dtype not in (tf.float32, tf.bfloat16, tf.float16):
        return None
    gamma, beta, mean, variance = (tf.cast(v, tf.float32) for v in (gamma, beta, mean, variance))
    empty = tf.zeros([0])
    y, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, epsilon=epsilon, is_training=training,
        mean=empty if training else mean, variance=empty if training else variance,
    )  # fmt: skip
    return y, batch_mean, batch_variance


def affine(images: Any, transforms: Any, window: int) -> Any:
    """Bilinear samples of (B, H, W, C) at ``window`` x ``window`` pixels, zero outside, of the same type.

    Args:
        transforms: (B, 8), from output to input pixels, as in ``keras.ops.image.affine_transform``, whose
            output has always the size of its input: TensorFlow's kernel computes the window alone.
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


def on_processor() -> bool:
    """Whether a step can call NumPy without any array leaving the memory it is in: TensorFlow, and no GPU."""
    if os.environ.get("KERAS_BACKEND") != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_logical_devices("GPU")


def call_numpy(function: Any, arrays: tuple, shapes: list[tuple]) -> list:
    """``function(*arrays)`` in NumPy within a step of TensorFlow's; its results are float32 of ``shapes``."""
    import tensorflow as tf

    results = tf.numpy_function(function, arrays, [tf.float32] * len(shapes), stateful=False)
    for result, shape in zip(results, shapes, strict=True):
        result.set_shape(shape)
    return results


def streamed(batches: Any) -> Any:
    """A ``keras.utils.PyDataset`` of dicts of arrays, one shape for all, for ``fit``: read ahead while a step runs.

    Keras feeds TensorFlow from a Python generator, whose kernel reads nothing ahead and tells the C library to
    give memory back after each step (TensorFlow 2.21, generator_dataset_op.cc).
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

    return tf.data.Dataset.range(len(batches)).map(read).prefetch(2)


def versions() -> dict[str, str]:
    """Versions of the engines that are installed."""
    found = {}
    for name in ("tensorflow-cpu", "tensorflow", "jax", "jaxlib"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
