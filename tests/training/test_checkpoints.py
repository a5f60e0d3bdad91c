"""Checkpoints after a kill, damaged ones, and those of another training."""

import json
import time

import numpy as np
import pytest

from brainseg.errors import IntegrityError, MachineError
from brainseg.training import checkpoints
from brainseg.training.checkpoints import Checkpoint

KEY = checkpoints.key({"train": {"seed": 1}})


def saved(directory, *epochs):
    for epoch in epochs:
        arrays = {"state/0": np.full(3, epoch, np.float32), "state/1": np.array([epoch, 2], np.uint32)}
        checkpoints.save(directory, KEY, Checkpoint(epoch, arrays, {"history": [{"epoch": epoch}]}))


def test_nothing_saved_nothing_found(tmp_path):
    assert checkpoints.read_latest(tmp_path, KEY) is None


def test_round_trip_and_two_kept(tmp_path):
    saved(tmp_path, 1, 2, 3)
    found = checkpoints.read_latest(tmp_path, KEY)
    assert found.epoch == 3
    assert found.meta == {"history": [{"epoch": 3}]}
    assert found.arrays.keys() == {"state/0", "state/1"}
    np.testing.assert_array_equal(found.arrays["state/1"], np.array([3, 2], np.uint32))
    assert found.arrays["state/1"].dtype == np.uint32
    assert [path.name[:11] for path in sorted(tmp_path.glob("epoch*"))] == ["epoch-00002", "epoch-00003"]


def test_the_last_write_is_waited_for_also_when_training_fails(tmp_path, monkeypatch):
    """Each write begins only after the one before, and leaving the block waits for the last."""
    begun, real = [], checkpoints.save

    def slow(directory, key, checkpoint):
        begun.append(checkpoint.epoch)
        time.sleep(0.1)
        return real(directory, key, checkpoint)

    monkeypatch.setattr(checkpoints, "save", slow)
    with pytest.raises(ZeroDivisionError), checkpoints.Writer(tmp_path, KEY) as writer:
        for epoch in (1, 2):
            writer.save(Checkpoint(epoch, {"state/0": np.zeros(3)}, {}))
            assert checkpoints.read_latest(tmp_path, KEY) is None or epoch == 2
        1 / 0  # noqa: B018
    assert begun == [1, 2] and checkpoints.read_latest(tmp_path, KEY).epoch == 2


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_write_that_failed_is_raised_in_the_training(tmp_path, epochs):
    """By the next epoch, or at the end where there is none."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), checkpoints.Writer(tmp_path / "file", KEY) as writer:
        for epoch in range(epochs):
            writer.save(Checkpoint(epoch, {}, {}))


def newest(directory):
    return max(directory.glob("*.npz"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:100])


def flip_a_bit_at(share):
    def flip(path):
        data = bytearray(path.read_bytes())
        data[int(share * (len(data) - 1))] ^= 1
        path.write_bytes(bytes(data))

    return flip


def empty(path):
    path.write_bytes(b"")


DAMAGE = [truncate, empty, *(flip_a_bit_at(share / 10) for share in range(11))]


@pytest.mark.parametrize("damage", DAMAGE)
def test_t4_damaged_checkpoint_the_one_before_is_used_and_said_so(tmp_path, capsys, damage):
    """Wherever the bit flips: weights, history and key are under one digest."""
    saved(tmp_path, 1, 2)
    damage(newest(tmp_path))
    assert checkpoints.read_latest(tmp_path, KEY).epoch == 1
    assert "epoch-00002 is damaged" in capsys.readouterr().out


def test_t4_all_damaged_is_an_error_never_a_silent_start(tmp_path):
    saved(tmp_path, 1, 2)
    for path in tmp_path.glob("*.npz"):
        truncate(path)
    with pytest.raises(IntegrityError, match="every checkpoint is damaged"):
        checkpoints.read_latest(tmp_path, KEY)


def test_t4_a_checkpoint_of_other_parameters_or_data_is_refused(tmp_path):
    saved(tmp_path, 1)
    other = checkpoints.key({"train": {"seed": 2}})
    with pytest.raises(IntegrityError, match="other parameters, data or code") as caught:
        checkpoints.read_latest(tmp_path, other)
    assert KEY in str(caught.value)
    assert other in str(caught.value)


def test_t4_unfinished_trainings_of_other_parameters_are_found(tmp_path):
    saved(tmp_path / "mine", 1)
    saved(tmp_path / "other", 1)
    (tmp_path / "finished").mkdir()
    assert checkpoints.find_unfinished(tmp_path / "mine") == [tmp_path / "other"]


def test_t3_killed_while_saving_leaves_the_one_before(tmp_path):
    """A kill before the rename leaves a temporary folder, which is no checkpoint."""
    saved(tmp_path, 1)
    half = tmp_path / ".epoch-00002.0.npz.999999999.x"
    half.mkdir()
    (half / "epoch-00002.0.npz").write_bytes(b"half")
    assert checkpoints.read_latest(tmp_path, KEY).epoch == 1


def test_t5_two_trainers_at_once_the_second_refuses(tmp_path):
    with checkpoints.lock(tmp_path), pytest.raises(MachineError, match="another process"), checkpoints.lock(tmp_path):
        pass


def test_the_key_knows_every_fact():
    facts = {"train": {"seed": 1, "loss": "bce"}, "data": {"a": "1"}}
    assert checkpoints.key(facts) == checkpoints.key(json.loads(json.dumps(facts)))
    assert checkpoints.key(facts) != checkpoints.key({**facts, "data": {"a": "2"}})


def test_remove(tmp_path):
    saved(tmp_path, 1, 2)
    checkpoints.remove(tmp_path)
    assert checkpoints.read_latest(tmp_path, KEY) is None
