"""A training on two devices is that on one, and goes on after a kill to the same bytes. The devices are virtual."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest

from brainseg.models import manifest
from tests.support import shared, tiny_pipeline, virtual_devices
from tests.support.tiny_pipeline import TINY, repro
from tests.support.virtual_devices import OF_ENGINE

pytestmark = pytest.mark.slow
ENGINES = ("tensorflow", "jax")
ALLOWED = 1e-5


def train(engine: str, count: int):
    """The folder of all trainings on ``count`` devices."""

    def make(folder):
        done = virtual_devices.run(engine, count, folder, ",".join(OF_ENGINE[engine]))
        assert done.returncode == 0, done.stderr
        (folder / "said.txt").write_text(done.stdout)

    return shared.folder(f"devices-{engine}-{count}", make)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_line_says_that_the_batch_is_in_all(engine):
    one, two = ((train(engine, count) / "said.txt").read_text().splitlines()[0] for count in (1, 2))
    assert one.startswith(f"{engine} on cpu, float32, 1 thread") and "batch_size" not in one
    assert two.startswith(f"{engine} on 2 devices (cpu), float32, 1 thread")
    assert two.endswith("; train.batch_size is in all, not per device")


@pytest.mark.parametrize(("engine", "case"), [(engine, case) for engine in ENGINES for case in OF_ENGINE[engine]])
def test_the_losses_are_those_of_one_device(engine, case):
    """With the same batches: statistics, losses over the batch, dropout and augmentation are of all samples."""
    one, two = (pd.read_csv(train(engine, count) / f"{case}.csv") for count in (1, 2))
    assert one["epoch"].tolist() == two["epoch"].tolist() == [1, 2, 3]
    for column in ("loss", "val_loss"):
        np.testing.assert_allclose(two[column], one[column], rtol=0, atol=ALLOWED, err_msg=column)
    for column in one.columns.drop(["epoch", "loss", "val_loss"]):
        np.testing.assert_allclose(two[column], one[column], rtol=0, atol=1e-3, err_msg=column)  # a pixel, or two


@pytest.mark.parametrize("engine", ENGINES)
def test_t3_killed_and_resumed_gives_the_same_weights(engine, tmp_path):
    killed = virtual_devices.run(engine, 2, tmp_path, "default", 2)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = virtual_devices.run(engine, 2, tmp_path, "default")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after epoch 2 of 3" in resumed.stdout
    whole = train(engine, 2)
    for name in ("default.npy", "default.csv"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Prepared data, two devices wanted."""
    changes = {**TINY, "train": {**TINY["train"], "precision": "float32", "devices": 2}}
    made = tiny_pipeline.create(tmp_path_factory.mktemp("several") / "project", changes)
    repro(made, "split", "brains")
    return made


def run_stage(repository, engine: str, count: int):
    """``stages/train.py`` where the processor counts as ``count`` devices."""
    text = (repository.folder / "params.yaml").read_text()
    other = "jax" if engine == "tensorflow" else "tensorflow"
    (repository.folder / "params.yaml").write_text(text.replace(f"engine: {other} ", f"engine: {engine} "))
    paths = os.pathsep.join([str(repository.folder / "src"), str(tiny_pipeline.PROJECT)])
    environment = repository.environment | {"PYTHONPATH": paths}
    return virtual_devices.run(engine, count, "stages/train.py", cwd=repository.folder, env=environment)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_stage_trains_on_two_devices_and_one_evaluates(repository, engine):
    done = run_stage(repository, engine, 2)
    assert done.returncode == 0, done.stderr
    assert f"{engine} on 2 devices (cpu)" in done.stdout
    facts = manifest.read(repository.folder / "models/unet.json")
    assert (facts.training.engine, facts.training.devices, facts.training.parameters.train.devices) == (engine, 2, 2)
    code, said = repository.run("python", "stages/evaluate.py")
    assert code == 0, said
    assert f"{engine} on cpu" in said
    summary = json.loads((repository.folder / "metrics/summary.json").read_text())
    assert 0 <= summary["volume_dice_mean"] <= 1


@pytest.mark.parametrize("engine", ENGINES)
def test_g1_fewer_devices_than_wanted_end_with_code_3(repository, engine):
    done = run_stage(repository, engine, 1)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        f"ERROR 3 train.devices: is 2, but {engine} sees 1 (cpu). "
        "Fix: set train.devices: auto, which takes those that there are"
    )
