"""float16 with a dynamic loss scale: it learns, an overflow costs a step and is said, a resumed run is the same."""

import keras
import pytest

from brainseg.errors import RunError
from brainseg.training import checkpoints, trainer
from tests.training.test_trainer import KilledError, data, kill_after, params, result_of, train  # noqa: F401 (a fixture)


@pytest.fixture(autouse=True)
def float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture
def scale(monkeypatch):
    """Start with a loss scale of its own."""

    def start(value: float) -> None:
        build = trainer.build

        def scaled(*arguments, **settings):
            model = build(*arguments, **settings)
            model.optimizer.dynamic_scale.assign(value)
            return model

        monkeypatch.setattr(trainer, "build", scaled)

    return start


def test_an_overflow_is_skipped_and_said_and_training_goes_on(data, scale, capsys):  # noqa: F811
    scale(2.0**40)  # gradients of that many times the loss are beyond 65,504
    trained = train(data, params(epochs=12, batch_size=4))
    said = capsys.readouterr().out
    assert "steps of epoch 1 skipped: float16 overflowed; the loss is scaled by" in said
    assert trained.history["loss"].iloc[-1] < trained.history["loss"].iloc[0]
    assert "epoch 12 skipped" not in said


def test_a_resumed_run_is_the_same_to_the_byte(data, scale, monkeypatch, capsys):  # noqa: F811
    scale(2.0**27)
    whole = result_of(train(data, params(epochs=5)))
    lines = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(KilledError):
            train(data, params(epochs=5))
    capsys.readouterr()
    assert result_of(train(data, params(epochs=5))) == whole
    said = capsys.readouterr().out
    assert "resumed after epoch 2 of 5" in said
    assert [line for line in said.splitlines() if "skipped" in line] == lines[2:]


def test_t2_gradients_that_always_overflow_end_the_run(data, scale, monkeypatch):  # noqa: F811
    scale(1.0)
    losses = trainer.losses.build
    monkeypatch.setattr(trainer.losses, "build", lambda p: lambda m, x: losses(p)(m, x) + 1e30 * keras.ops.mean(x**2))
    with pytest.raises(RunError, match="no scale of the loss is small enough") as caught:
        train(data, params())
    assert caught.value.code == 5 and "float32" in caught.value.problems[0].fix
    assert checkpoints.folder(checkpoints.key({"test": "training"})).exists()
