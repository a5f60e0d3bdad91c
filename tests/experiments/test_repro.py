"""make repro: recipes as DVC overrides, and cleaning up after a killed run."""

import shutil
import subprocess
import sys

import pytest
from dvc.lock import make_lock
from dvc.repo import Repo

from brainseg import config
from brainseg.errors import DataError, MachineError
from brainseg.experiments import comparison, demo, repro
from tests.support import toy_pipeline


@pytest.fixture
def toy(tmp_path):
    return toy_pipeline.create(tmp_path / "toy")


def test_flags_are_what_dvc_takes():
    overrides = {"train": {"epochs": 3, "loss": "dice", "tumour_share": None}, "download": {"patient": r"(\w+)_\d"}}
    assert repro.flags(overrides) == [
        "train.epochs=3",
        'train.loss="dice"',
        "train.tumour_share=null",
        r'download.patient="(\w+)_\d"',
    ]


def test_an_unknown_recipe_names_those_there_are(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/fast.yaml").write_text("train: {epochs: 1}\n")
    with pytest.raises(DataError) as error:
        repro.load_recipe("fats", tmp_path)
    assert error.value.problems[0].fix == "choose one of: fast"


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (toy_pipeline.PROJECT / "recipes").glob("*.yaml")))
def test_every_recipe_fits_params_yaml(recipe, tmp_path):
    """Its keys and values are valid, and it changes at least one value."""
    params = tmp_path / "params.yaml"
    shutil.copy(toy_pipeline.PROJECT / "params.yaml", params)
    before = config.load(path=params).model_dump()
    overrides = repro.load_recipe(recipe, toy_pipeline.PROJECT)
    demo.override(params, overrides)
    changed = comparison.diff_params(before, config.load(path=params).model_dump())
    assert changed and set(changed) <= {".".join(key) for key, _ in repro._leaves(overrides)}


def test_a_recipe_is_an_experiment(toy):
    code, output = toy.brainseg("repro", "more")
    assert code == 0, output
    assert "+ dvc exp run -S train.epochs=3 -S 'train.loss=\"a b\"'" in output
    assert (toy.folder / "params.yaml").read_text() == "train:\n  epochs: 3\n  loss: a b\n"
    assert Repo(toy.folder).status() == {}


def test_v1_empty_rwlock(toy):
    lock = toy.folder / ".dvc/tmp/rwlock"
    lock.write_bytes(b"")
    assert toy.dvc("repro")[0] != 0
    code, output = toy.brainseg("repro")
    assert code == 0 and "up to date" in output, output


def test_v1_an_rwlock_that_is_being_written_is_left(toy):
    """A lock file is also empty while another dvc writes it."""
    lock = toy.folder / ".dvc/tmp/rwlock"
    lock.write_bytes(b"")
    with make_lock(str(lock) + ".lock", tmp_dir=str(lock.parent)), pytest.raises(MachineError, match="another dvc"):
        repro.clean_up(toy.folder)
    assert lock.exists()


def test_v1_truncated_dvc_lock(toy):
    """For every length of the cut file, DVC can read it, or the error names the command that restores it."""
    lock = toy.folder / "dvc.lock"
    text = lock.read_text()
    repro.clean_up(toy.folder)
    named = 0
    for end in range(0, len(text), 11):
        lock.write_text(text[:end])
        try:
            repro.clean_up(toy.folder)
        except MachineError as error:
            assert error.problems[0].fix.startswith("git checkout dvc.lock")
            named += 1
        else:
            Repo(toy.folder).status()
    assert named > 20


def test_v1_orphaned_stage_child(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/train.py").write_text("print(flush=True)\ninput()\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "stages/train.py"], cwd=tmp_path, **pipes) as child:
        child.stdout.readline()
        with pytest.raises(MachineError) as error:
            repro.clean_up(tmp_path)
        assert error.value.problems[0].fix.endswith(f"kill {child.pid}")
        child.communicate(b"\n")
    repro.clean_up(tmp_path)


def test_a_stage_that_dvc_watches_is_no_orphan(toy):
    (toy.folder / "stages/data.py").write_text(
        "import os\nfrom pathlib import Path\nfrom brainseg.experiments import repro\n"
        "assert list(repro.orphans(Path().resolve())) == []\n" + toy_pipeline.DATA
    )
    code, output = toy.dvc("repro", "data")
    assert code == 0, output
