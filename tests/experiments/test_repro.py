"""make repro: recipes as DVC overrides, and cleaning up after a killed run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import dvc.cli
import dvc.lock
import pytest
from dvc.lock import make_lock
from dvc.repo import Repo
from dvc_objects.fs.utils import tmp_fname

from brainseg import config
from brainseg.errors import DataError, MachineError
from brainseg.experiments import comparison, demo, integrity, repro, revision
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


@pytest.fixture
def real(toy):
    """The toy pipeline with the project's own params.yaml, committed."""
    shutil.copy(toy_pipeline.PROJECT / "params.yaml", toy.folder)
    toy.git("commit", "--quiet", "--all", "--message", "the real parameters")
    return toy


@pytest.fixture
def handed_over(real, monkeypatch):
    """What DVC is called with from there."""
    called: list[str] = []
    monkeypatch.chdir(real.folder)
    monkeypatch.setattr(repro, "clean_up", lambda root: None)
    monkeypatch.setattr(os, "execve", lambda program, command, environment: called.extend(command[3:]))
    return called


@pytest.mark.parametrize(("setting", "fix"), [
    ("train.los=jaccard", "write -S train.loss=jaccard"), ("trian.loss=jaccard", "write -S train.loss=jaccard"),
    ("train.loss=jacard", "write jaccard"),
    ("train.loss", "write -S train.loss=jaccard"),
])  # fmt: skip
def test_a_misspelt_setting_is_refused_with_the_nearest_name(handed_over, setting, fix):
    with pytest.raises(DataError) as caught:
        repro.run(None, settings=[setting])
    assert caught.value.problems[0].fix == fix and not handed_over


def test_settings_are_an_experiment_named_by_what_they_change(handed_over):
    repro.run(None, settings=["train.loss=jaccard", "train.seed=2"])
    assert handed_over == ["exp", "run", "-n", "jaccard-seed2", "-S", 'train.loss="jaccard"', "-S", "train.seed=2"]


def test_a_sweep_is_refused_with_the_option_that_queues_it(handed_over):
    with pytest.raises(DataError, match="asks for 2 experiments") as caught:
        repro.run(None, settings=["train.learning_rate=0.001,0.004"])
    assert caught.value.problems[0].fix == "add --queue, then: dvc exp run --run-all" and not handed_over


def test_each_value_of_a_sweep_is_queued_with_a_name(handed_over, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(dvc.cli, "main", lambda command: calls.append(command) or len(calls) == 3)
    repro.run(None, settings=["train.learning_rate=0.001,0.004", "train.loss=dice"], queue=True)
    assert calls == [
        ["exp", "run", "--queue", "-n", f"lr{r}-dice", "-S", f"train.learning_rate={r}", "-S", 'train.loss="dice"']
        for r in (0.001, 0.004)
    ]
    assert capsys.readouterr().out.startswith("2 queued. dvc exp run --run-all runs all")
    with pytest.raises(MachineError, match="seed5: DVC did not queue it"):
        repro.run(None, settings=["train.seed=5"], queue=True)
    assert not handed_over


@pytest.mark.slow
def test_a_queued_sweep_runs_under_its_names(real):
    for losses, last in (("dice,bce", "bce"), ("bce", "bce-2")):
        code, output = real.brainseg("repro", "--queue", "-S", f"train.loss={losses}")
        assert code == 0 and f"Queued experiment '{last}'" in output, output
    code, output = real.dvc("exp", "run", "--run-all")
    assert code == 0, output
    assert sorted(real.dvc("exp", "list", "--name-only")[1].split()) == ["bce", "bce-2", "dice"]
    made_with = revision.params(revision.reader("bce", real.folder))
    assert made_with["train"] == {"epochs": config.load("train").train.epochs, "loss": "bce"}


def test_without_git_nothing_runs(handed_over, real):
    shutil.rmtree(real.folder / ".git")
    with pytest.raises(DataError, match="in no Git repository"):
        repro.run(None)


def test_a_repository_without_a_commit_is_refused_with_the_commands_that_help(handed_over, real):
    shutil.rmtree(real.folder / ".git")
    subprocess.run(["git", "init"], cwd=real.folder, check=True, capture_output=True)
    with pytest.raises(DataError, match="without a commit") as caught:
        repro.run(None)
    own = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(caught.value.problems[0].fix, shell=True, cwd=real.folder, env=os.environ | own, check=True)
    repro.run(None)
    assert handed_over == ["repro"]


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
    assert changed and set(changed) <= set(config.flatten(overrides))


@pytest.mark.slow
def test_a_recipe_is_an_experiment(toy):
    code, output = toy.brainseg("repro", "more")
    assert code == 0, output
    assert "+ dvc exp run -n more -S train.epochs=3 -S 'train.loss=\"a b\"'" in output
    assert (toy.folder / "params.yaml").read_text() == "train:\n  epochs: 3\n  loss: a b\n"
    assert Repo(toy.folder).status() == {}


@pytest.mark.slow
def test_v1_empty_rwlock(toy):
    lock = toy.folder / ".dvc/tmp/rwlock"
    lock.write_bytes(b"")
    assert toy.dvc("repro")[0] != 0
    code, output = toy.brainseg("repro")
    assert code == 0 and "up to date" in output, output


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(dvc.lock, "DEFAULT_TIMEOUT", 0.1)  # seconds, of 3


def test_v1_an_rwlock_that_is_being_written_is_left(toy, impatient):
    """A lock file is also empty while another dvc writes it."""
    lock = toy.folder / ".dvc/tmp/rwlock"
    lock.write_bytes(b"")
    with make_lock(str(lock) + ".lock", tmp_dir=str(lock.parent)), pytest.raises(MachineError, match="another dvc"):
        repro.clean_up(toy.folder)
    assert lock.exists()


def test_v1_truncated_dvc_lock(toy, capsys):
    """Wherever it was cut, the file is put back as it was before, and is still there to be looked at."""
    lock = toy.folder / "dvc.lock"
    text = lock.read_text()
    repro.clean_up(toy.folder)
    assert capsys.readouterr().err == ""
    for end in range(0, len(text), 37):
        lock.write_text(text[:end])
        repro.clean_up(toy.folder)
        assert lock.read_text() == text
        assert (toy.folder / ".brainseg/dvc.lock.cut").read_text() == text[:end]
        assert "dvc.lock was cut and is put back as " in capsys.readouterr().err


def test_v1_a_digest_with_one_wrong_digit_is_put_back(toy, capsys):
    """DVC would train again, and the copy would be replaced by the damaged one."""
    lock = toy.folder / "dvc.lock"
    text = lock.read_text()
    repro.clean_up(toy.folder)
    at = text.rindex("md5: ") + 9
    lock.write_text(text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :])
    repro.clean_up(toy.folder)
    assert lock.read_text() == text and "is put back" in capsys.readouterr().err
    other = text[: at - 4] + text[at - 4 : at + 28][::-1] + text[at + 28 :]  # of another content
    lock.write_text(other)
    repro.clean_up(toy.folder)
    assert lock.read_text() == other


def test_v1_a_dvc_lock_that_is_being_written_is_left(toy, impatient):
    folder = toy.folder / ".dvc/tmp"
    (toy.folder / "dvc.lock").write_text("")
    with make_lock(str(folder / "lock"), tmp_dir=str(folder)), pytest.raises(MachineError, match="another dvc"):
        repro.clean_up(toy.folder)
    assert (toy.folder / "dvc.lock").read_text() == ""


def test_v1_the_newest_good_copy_is_put_back(toy, capsys):
    lock, kept = toy.folder / "dvc.lock", toy.folder / ".brainseg/dvc.lock"
    committed = lock.read_text()
    newer = committed.replace("epochs: 2", "epochs: 9")
    for copy, when, expected in [(newer, None, newer), (newer, 1e9, committed), (newer[:-9], None, committed)]:
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(copy)
        if when:
            os.utime(kept, (when, when))
        lock.write_text("")
        repro.clean_up(toy.folder)
        assert lock.read_text() == expected
    toy.git("rm", "--quiet", "--cached", "dvc.lock")
    toy.git("commit", "--quiet", "--message", "no lock")
    kept.unlink()
    lock.write_text("")
    repro.clean_up(toy.folder)
    assert not lock.exists() and "is removed" in capsys.readouterr().err


def test_what_a_killed_dvc_was_copying_is_removed(toy, capsys):
    """Found by torture: a copy of the data, as large as it, beside the data."""
    (made, *_), cached = (out.path for out in integrity.list_outs(toy.folder)), toy.folder / ".dvc/cache/files/md5/ab"
    cached.mkdir(parents=True)
    left = [folder / tmp_fname() for folder in ((toy.folder / made).parent, cached)]
    own = [left[0].with_name(name) for name in (".notes.tmp", "crnHfSUThkDEabsWmRBKAg.tmp", ".crnHfSUThkDEabsWmRBKAg")]
    for path in (*left, *own):
        path.write_bytes(b"half")
    with make_lock(str(toy.folder / ".dvc/tmp/lock"), tmp_dir=str(toy.folder / ".dvc/tmp")):  # a DVC may be writing one
        repro.clean_up(toy.folder)
    assert all(path.exists() for path in left)
    repro.clean_up(toy.folder)
    assert not any(path.exists() for path in left) and all(path.exists() for path in own)
    assert capsys.readouterr().err.count("which a killed DVC left unfinished") == 2


def test_a_stage_that_dvc_yaml_no_longer_has_is_not_missed(toy):
    lock, pipeline = toy.folder / "dvc.lock", toy.folder / "dvc.yaml"
    repro.clean_up(toy.folder)
    shorter = lock.read_text()[: lock.read_text().index("  train:")]
    lock.write_text(shorter)
    pipeline.write_text(pipeline.read_text()[: pipeline.read_text().index("  train:")])
    repro.clean_up(toy.folder)
    assert lock.read_text() == shorter


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_v1_killed_while_dvc_writes_its_lock_nothing_is_trained_again(kept, toy):
    """Another training ran since the copy and is committed nowhere; DVC's run cache has it."""
    demo.override(toy.folder / "params.yaml", {"train": {"epochs": 5}})
    if kept:
        repro.clean_up(toy.folder)
    assert "Running stage 'train'" in toy.dvc("repro")[1]
    made = {path: path.read_bytes() for path in toy.folder.rglob("*") if path.is_file() and ".dvc" not in path.parts
            and ".git" not in path.parts}  # fmt: skip
    assert toy.folder / "metrics/training.csv" in made
    (toy.folder / "dvc.lock").write_bytes(b"")
    if not kept:
        toy.git("rm", "--quiet", "--cached", "dvc.lock")
        toy.git("commit", "--quiet", "--message", "no lock")
    code, output = toy.brainseg("repro")
    assert code == 0, output
    assert "Stage 'train' is cached - skipping run" in output and "Running stage" not in output
    assert {path: path.read_bytes() for path in made} == made


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


def test_a_run_waits_for_a_stage_that_a_killed_one_left(tmp_path, capsys, monkeypatch):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/train.py").write_text("print(flush=True)\ninput()\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "stages/train.py"], cwd=tmp_path, **pipes) as child:
        child.stdout.readline()
        looks = []

        def look(seconds):
            looks.append(child.poll())
            if len(looks) == 2:
                child.communicate(b"\n")

        monkeypatch.setattr(repro.time, "sleep", look)
        repro.wait_for_orphans(tmp_path)
        assert looks == [None, None] and child.returncode == 0
    assert capsys.readouterr().err.count(f"process {child.pid} (to end it: kill {child.pid};") == 1


def test_a_stage_that_dvc_watches_is_no_orphan(toy):
    (toy.folder / "stages/data.py").write_text(
        "import os\nfrom pathlib import Path\nfrom brainseg.experiments import repro\n"
        "assert list(repro.orphans(Path().resolve())) == []\n" + toy_pipeline.DATA
    )
    code, output = toy.dvc("repro", "data")
    assert code == 0, output


def shares_blocks(folder: Path) -> bool:
    """Whether copies on this disk take no space of their own, as on Btrfs, XFS and APFS."""
    (folder / "a").write_bytes(b"a")
    command = ["cp", "--reflink=always", folder / "a", folder / "b"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
def test_an_experiment_apart_shares_the_data_with_the_cache_and_the_workspace_has_its_own(toy, tmp_path):
    """No second copy for an experiment, and two copies to mend one from the other."""
    if shares_blocks(tmp_path):
        pytest.skip("this disk shares blocks: nothing is linked")
    seen = tmp_path / "seen"
    code = (toy.folder / "stages/train.py").read_text()
    looks = f"Path({str(seen)!r}).write_text(str(Path('data/images.npy').stat().st_nlink))\n"
    (toy.folder / "stages/train.py").write_text(code + looks)
    (toy.folder / "data/images.npy").unlink()
    assert toy.dvc("checkout")[0] == 0
    assert (toy.folder / "data/images.npy").stat().st_nlink == 2
    code, output = toy.brainseg("repro")
    assert code == 0, output
    outs = [toy.folder / path for path in ("data/images.npy", *toy_pipeline.MODEL)]
    assert {path.stat().st_nlink for path in outs} == {1}
    before = (toy.folder / "data/images.npy").stat()
    code, output = toy.dvc("exp", "run", "--temp", "-S", "train.epochs=3")
    assert code == 0, output
    assert seen.read_text() == "2"  # one name in the cache, one in the experiment's folder
    assert (toy.folder / "data/images.npy").stat() == before
    assert "up to date" in toy.dvc("repro")[1]
