"""float16 with a dynamic loss scale: it learns, an overflow costs a step and is said, a resumed run is the same."""

import contextlib
import io

import keras
import pytest

from brainseg.data import dataset
from brainseg.errors import RunError
from brainseg.training import checkpoints, trainer
from tests.support.cohort import write_cohort
from tests.support.tiny_training import IDENTITY, KilledError, kill_after, params, result_of, train

pytestmark = pytest.mark.slow
SETTINGS = params(epochs=12, batch_size=4)


@pytest.fixture(scope="module", autouse=True)
def float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture
def data(tmp_path):
    return dataset.load(*write_cohort(tmp_path), "patient")


def scaled(value: float):
    """``trainer.build`` whose models begin with a loss scale of their own."""
    build = trainer.build

    def built(*arguments):
        model = build(*arguments)
        model.optimizer.dynamic_scale.assign(value)
        return model

    return built


@pytest.fixture(scope="module")
def overflowing():
    return scaled(2.0**40)  # gradients of that many times the loss are beyond 65,504


@pytest.fixture(scope="module")
def whole(tmp_path_factory, float16, overflowing):
    """A training whose first steps overflow, and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setenv("DVC_ROOT", str(folder))
        patch.setattr(trainer, "build", overflowing)
        return train(dataset.load(*write_cohort(folder), "patient"), SETTINGS), said.getvalue()


def skips(said: str) -> list[str]:
    return [line for line in said.splitlines() if "skipped" in line]


def test_an_overflow_is_skipped_and_said_and_training_goes_on(whole):
    trained, said = whole
    assert "steps of epoch 1 skipped: float16 overflowed; the loss is scaled by" in said
    assert trained.history["loss"].iloc[-1] < trained.history["loss"].iloc[0]
    assert "epoch 12 skipped" not in said


def test_a_resumed_run_is_the_same_to_the_byte(data, whole, overflowing, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "build", overflowing)
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(KilledError):
            train(data, SETTINGS)
    capsys.readouterr()
    assert result_of(train(data, SETTINGS)) == result_of(whole[0])
    said = capsys.readouterr().out
    assert "resumed after epoch 2 of 12" in said
    expected = skips(whole[1])[2:]
    assert expected and skips(said) == expected


def test_t2_gradients_that_always_overflow_end_the_run(data, monkeypatch):
    monkeypatch.setattr(trainer, "build", scaled(1.0))
    losses = trainer.losses.build
    monkeypatch.setattr(trainer.losses, "build", lambda p: lambda m, x: losses(p)(m, x) + 1e30 * keras.ops.mean(x**2))
    with pytest.raises(RunError, match="no scale of the loss is small enough") as caught:
        train(data, params())
    assert caught.value.code == 5 and "float32" in caught.value.problems[0].fix
    assert checkpoints.folder(checkpoints.key(IDENTITY)).exists()
