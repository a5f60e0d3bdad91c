"""What DVC would run with other parameters: it is asked, and nothing is run."""

import pytest

from brainseg import config, errors
from brainseg.errors import MachineError
from brainseg.experiments import planning
from tests.support import toy_pipeline


@pytest.fixture
def toy(tmp_path, monkeypatch):
    for name, value in toy_pipeline.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    toy = toy_pipeline.create(tmp_path / "toy")
    monkeypatch.chdir(toy.folder)
    return toy


def stages(toy, changes=None):
    params = config.merge(config.read_yaml(toy.folder / "params.yaml"), changes or {})
    return [tuple(stage) for stage in planning.make(params).stages]


FRESH = [("data", "up to date", ""), ("train", "up to date", "")]


def test_parameters_count_as_given_and_not_as_in_params_yaml(toy):
    assert stages(toy) == FRESH
    before = (toy.folder / "params.yaml").read_bytes()
    assert stages(toy, {"train": {"epochs": 9}}) == [FRESH[0], ("train", "runs", "train.epochs")]
    assert (toy.folder / "params.yaml").read_bytes() == before
    (toy.folder / "params.yaml").write_text("train:\n  epochs: 9\n  loss: dice\n")
    assert stages(toy, {"train": {"epochs": 2}}) == FRESH


def test_a_stage_runs_after_what_it_needs(toy):
    (toy.folder / "stages/data.py").write_text("other")
    assert stages(toy) == [("data", "runs", "stages/data.py"), ("train", "runs", "after data")]


def test_results_that_are_gone_come_from_the_cache_if_it_has_them(toy):
    (toy.folder / "data/images.npy").unlink()
    assert stages(toy) == [("data", "cached", ""), FRESH[1]]
    for path in (toy.folder / ".dvc/cache/files").rglob("*"):
        if path.is_file():
            path.unlink()
    assert stages(toy)[0] == ("data", "runs", "data/images.npy not here")


def test_what_has_never_run_runs(toy):
    (toy.folder / "dvc.lock").unlink()
    assert [state for _, state, _ in stages(toy)] == ["runs", "runs"]
    assert stages(toy)[0][2].startswith("it has not run yet")


def test_where_the_cache_is_and_whether_it_is_copied(toy):
    plan = planning.make({})
    assert plan.cache == toy.folder / ".dvc/cache/files/md5"
    config_file = toy.folder / ".dvc/config"
    for kind, copies in (("symlink", False), ("hardlink", True), ("copy", True)):  # of hard links, repro makes copies
        config_file.with_name("config.local").write_text(f"[cache]\n    type = {kind}\n")
        assert planning.make({}).copies is copies


def test_dvc_that_does_not_answer_or_refuses_is_an_error(toy, monkeypatch):
    (toy.folder / ".dvc/config").write_text("[nothing]\n")
    with pytest.raises(MachineError, match="dvc status"):
        planning.make({})

    def wait(seconds, act):
        raise TimeoutError("it did not answer within 30 seconds")

    monkeypatch.setattr(errors, "limit", wait)
    with pytest.raises(MachineError, match="within 30 seconds"):
        planning.make({})
