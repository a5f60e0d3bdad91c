"""Tiny trainings in a process of their own, whose processor counts as several devices.

``python -m tests.support.virtual_devices ENGINE COUNT FOLDER NAMES [EPOCH]`` trains some of ``CASES`` on COUNT devices.
It writes FOLDER/NAME.csv (the history) and FOLDER/NAME.npy (the bytes of the weights). With EPOCH it is killed behind
the checkpoint of that epoch. Checkpoints are in FOLDER. With a script in the place of FOLDER it runs that.
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path

# By name: changes of the blocks train, network and augmentation. The first has what params.yaml has: batch
# normalisation, dropout, augmentation by OpenCV, a loss over the whole batch, averaged weights.
CASES: dict[str, dict[str, dict]] = {
    "default": {"augmentation": {"lesion_mix": 0.5}},
    "volumetric": {
        "network": {"name": "unet3d", "context": 1},
        "train": {"keep": "best", "patience": 2, "sampling": "slice"},
        "augmentation": {"lesion_mix": 0.0},
    },
    "image": {
        "network": {"name": "residual_unet", "context": 1, "depth": 2, "norm": "group"},
        "train": {"loss": "focal_tversky", "loss_reduction": "image", "optimizer": "sgd"},
        "augmentation": {"context_dropout": 0.5, "lesion_mix": 0.0},
    },
    "accelerator": {},  # augmentation as on a GPU
}
# On JAX a step is the same program on any number of devices, and compiling it takes a minute.
OF_ENGINE = {"tensorflow": tuple(CASES), "jax": ("default",)}


def split_processor(engine: str, count: int) -> None:
    """Let the processor count as so many devices; before the engine starts."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    if engine == "jax":
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
        return
    import tensorflow as tf

    one = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [one] * count)


def run(*arguments: object, module: str = "tests.support.virtual_devices", **how) -> subprocess.CompletedProcess:
    """``python -m MODULE ARGUMENTS``: its exit code and output."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **how)


def _run_script(engine: str, count: int, script: str) -> None:
    split_processor(engine, count)
    runpy.run_path(script, run_name="__main__")


def _train(engine: str, count: int, folder: Path, names: list[str], killed_after: int | None) -> None:
    os.environ["DVC_ROOT"] = str(folder)
    split_processor(engine, count)
    from brainseg.models import backend

    print(backend.start(engine, device="cpu", threads=1, devices=count), flush=True)
    import numpy as np

    from brainseg.data import dataset
    from brainseg.training import checkpoints, trainer
    from tests.support import tiny_training
    from tests.support.cohort import write_cohort

    if not (folder / "processed").exists():
        write_cohort(folder)
    data = dataset.load(folder / "processed", folder / "split.csv", "patient")
    if killed_after is not None:
        save = checkpoints.save

        def save_and_die(directory, key, checkpoint):
            save(directory, key, checkpoint)
            if checkpoint.epoch == killed_after:
                os.kill(os.getpid(), 9)

        checkpoints.save = save_and_die
    for name in names:
        changes = CASES[name]
        if name == "accelerator":
            backend.runs_on_processor = lambda: False
        settings = tiny_training.params(**changes.get("train", {}))
        blocks = {
            block: getattr(settings, block).model_copy(update=changes.get(block, {}))
            for block in ("network", "augmentation")
        }
        trained = trainer.run(data, settings.model_copy(update=blocks), {"case": name})
        weights = [np.asarray(each).tobytes() for each in trained.network.get_weights()]
        np.save(folder / f"{name}.npy", np.frombuffer(b"".join(weights), np.uint8))
        trained.history.to_csv(folder / f"{name}.csv", index=False)


if __name__ == "__main__":
    engine, count, rest = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    if rest[0].endswith(".py"):
        _run_script(engine, count, rest[0])
    else:
        _train(engine, count, Path(rest[0]), rest[1].split(","), int(rest[2]) if rest[2:] else None)
