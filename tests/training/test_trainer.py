"""Training on a tiny cohort: it learns, it goes on after a kill, it says what is wrong."""

import contextlib
import itertools
import shutil

import numpy as np
import pandas as pd
import pytest
from keras import ops

from brainseg import files
from brainseg.data import dataset
from brainseg.errors import DataError, IntegrityError, RunError
from brainseg.evaluation import metrics
from brainseg.models import devices, manifest, networks, prediction
from brainseg.models.backend import Runtime
from brainseg.training import checkpoints, history, trainer
from tests.support.cohort import write_cohort
from tests.support.tiny_training import (
    IDENTITY,
    KilledError,
    compiled_once,
    kill_after,
    params,
    release,
    result_of,
    train,
)


@pytest.fixture
def data(tmp_path):
    return dataset.load(*write_cohort(tmp_path), "patient")


def test_it_learns_and_the_best_epoch_is_kept(data):
    settings = params(augment=False, epochs=12, batch_size=4, ema=0.0, keep="best")
    network = settings.network.model_copy(update={"norm": "group"})  # batch statistics need more steps than this
    trained = train(data, settings.model_copy(update={"network": network}))
    scores = trained.history["val_volume_dice"]
    assert trained.history["loss"].iloc[-1] < 0.6 * trained.history["loss"].iloc[0]
    assert scores.max() > 0.6
    assert trained.kept_epoch == scores.idxmax() + 1
    rows = data.rows("val")
    answer = prediction.predict_slices(trained.network, data.images, rows, mirror=False) > 127
    dice = [
        metrics.dice(metrics.counts(data.masks[rows][p], answer[p]))
        for p in (data.slices["patient"].to_numpy()[rows] == name for name in ("P4", "P5"))
    ]
    assert np.mean(dice) == pytest.approx(scores.max(), abs=0.02)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "context", "norm"),
    [
        pytest.param("unet", 1, "group", marks=slow),
        pytest.param("attention_unet", 0, "group", marks=slow),
        pytest.param("residual_unet", 1, "group", marks=slow),
        pytest.param("unet3d", 1, "group", marks=slow),
        pytest.param("unet3d", 1, "batch", marks=slow),
    ],
)
def test_every_network_learns_and_is_restored(data, tmp_path, name, context, norm):
    """With its neighbours, early answers, masks of a whole window: trained, validated, written, read, used."""
    settings = params(epochs=4, batch_size=4)
    depth = 2 if name == "residual_unet" else 1  # early answers come from the second level on
    changes = {"name": name, "context": context, "norm": norm, "depth": depth}
    plain = settings.augmentation.model_copy(update={"lesion_mix": 0.0})  # which does without neighbours
    settings = settings.model_copy(
        update={"network": settings.network.model_copy(update=changes), "augmentation": plain}
    )
    trained = train(data, settings)
    assert trained.history["loss"].iloc[-1] < trained.history["loss"].iloc[0]
    assert trained.history["val_loss"].notna().all()
    weights, path = release(trained, data, settings, tmp_path)
    facts = manifest.read(path)
    assert facts.contract.slices == 2 * context + 1
    assert ("of each slice" in facts.contract.output) == (name == "unet3d")
    again = networks.restore(facts, weights, (32, 32))
    first, second = (
        prediction.predict_for_evaluation(network, data, mirror=True).arrays for network in (trained.network, again)
    )
    for array in first:
        np.testing.assert_array_equal(first[array], second[array])


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["bce", "dice", "jaccard", "bce_dice", "focal_tversky"])
def test_every_loss_falls(data, loss):
    history = train(data, params(augment=False, loss=loss, epochs=4)).history
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_warms_up_and_falls_to_zero(optimizer):
    p = params(optimizer=optimizer, epochs=10, warmup=0.2, learning_rate=0.1)
    rate = trainer.build_optimizer(p.train, steps=10)._learning_rate
    rates = [float(rate(step)) for step in range(101)]
    assert rates[0] == 0
    assert np.argmax(rates) == 20
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    constant = trainer.build_optimizer(params(schedule="constant", warmup=0.0).train, steps=10)._learning_rate
    assert float(constant(99)) == pytest.approx(0.01)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training that nobody stopped, and its data."""
    folder = tmp_path_factory.mktemp("trained")
    data = dataset.load(*write_cohort(folder), "patient")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        return train(data, params()), data


@pytest.fixture(scope="module")
def uninterrupted(trained):
    return result_of(trained[0])


@pytest.fixture(scope="module")
def checkpoints_of_a_killed_run(trained, tmp_path_factory):
    root = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        kill_after(patch, 2)
        with pytest.raises(KilledError):
            train(trained[1], params())
    return root


@pytest.fixture
def killed(checkpoints_of_a_killed_run, project_root):
    """The project of a training that was killed after its second epoch."""
    shutil.copytree(checkpoints_of_a_killed_run, project_root, dirs_exist_ok=True)


def test_t3_killed_and_resumed_gives_the_same_weights(data, killed, capsys, uninterrupted):
    """Dropout, augmentation, averaged weights and the optimizer all go on where they were."""

    class Watcher(contextlib.AbstractContextManager):
        def update(self, history):
            seen.append([row["epoch"] for row in history])

        def __exit__(self, *_):
            seen.append("left")

    seen = []
    resumed = train(data, params(), watchers=[Watcher()])
    assert "resumed after epoch 2 of 3" in capsys.readouterr().out
    assert result_of(resumed) == uninterrupted
    assert resumed.history["epoch"].tolist() == [1, 2, 3]
    assert seen == [[1, 2], [1, 2, 3], "left"]


def test_training_never_looks_at_the_test_patients(data, uninterrupted):
    """Neither for a sample nor to choose the epoch: with other test slices weights and scores are the same."""
    images, masks = np.array(data.images), np.array(data.masks)
    images[data.rows("test")], masks[data.rows("test")] = 255, 1
    poisoned = dataset.Dataset(images, masks, data.slices, data.brains)
    assert result_of(train(poisoned, params())) == uninterrupted


def test_t4_the_training_after_a_damaged_checkpoint(data, killed, capsys, uninterrupted):
    path = max(checkpoints.folder(checkpoints.key(IDENTITY)).glob("*.npz"))
    path.write_bytes(path.read_bytes()[:-10])
    resumed = train(data, params())
    said = capsys.readouterr().out
    assert "epoch-00002 is damaged" in said
    assert "resumed after epoch 1 of 3" in said
    assert result_of(resumed) == uninterrupted


@pytest.fixture
def released(trained, tmp_path):
    return release(*trained, params(), tmp_path)


def test_model_and_manifest_from_disk_answer_the_same(trained, released):
    weights, path = released
    facts = manifest.read(path)
    again = networks.restore(facts, weights, (32, 32))
    data = trained[1]
    rows = data.rows("test")
    first, second = (prediction.predict_slices(n, data.images, rows, mirror=True) for n in (trained[0].network, again))
    np.testing.assert_array_equal(first, second)
    assert facts.protocol.patients == {"train": 4, "val": 2, "test": 2}
    assert facts.weights_sha256 == files.sha256(weights)


def test_e1_model_and_input_do_not_fit_or_model_missing_or_changed(released, tmp_path):
    weights, path = released
    facts = manifest.read(path)
    with pytest.raises(IntegrityError, match="expects 32x32 pixels, the images have 64x64"):
        networks.restore(facts, weights, (64, 64))
    with pytest.raises(IntegrityError, match="split_sha256 is 2, the model was trained with 1"):
        earlier = facts.model_copy(update={"data": {"split_sha256": "1"}})
        manifest.check_data(earlier, {"split_sha256": "2"}, tmp_path / "split.csv")
    with pytest.raises(IntegrityError, match="there is no model"):
        manifest.read(tmp_path / "none.json")
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match=facts.weights_sha256):
        networks.restore(facts, weights)
    weights.unlink()
    with pytest.raises(IntegrityError, match="there are no weights") as caught:
        networks.restore(facts, weights)
    assert "make pull" in caught.value.problems[0].fix


def test_history_has_the_columns_of_the_docs(trained, tmp_path):
    history.write(trained[0].history, tmp_path / "training.csv")
    header = (tmp_path / "training.csv").read_text().splitlines()[0]
    assert header == (
        "epoch,loss,dice,iou,binary_accuracy,val_loss,val_dice,val_iou,val_binary_accuracy,val_volume_dice,learning_rate"
    )


def test_t2_a_loss_that_is_no_number(data, monkeypatch):
    build = compiled_once(trainer.build)

    def broken(*arguments):
        model = build(*arguments)
        for variable in model.trainable_variables:
            variable.assign(ops.full_like(variable, float("nan")))
        return model

    monkeypatch.setattr(trainer, "build", broken)
    with pytest.raises(RunError, match="loss is nan in epoch 1") as caught:
        train(data, params())
    assert caught.value.code == 5
    assert "learning_rate" in caught.value.problems[0].fix


def test_t2_averaged_weights_that_are_no_numbers(data, monkeypatch):
    """The loss is of the trained weights, and stays a number."""
    build = compiled_once(trainer.build)

    def broken(*arguments):
        model = build(*arguments)
        first, *_ = model.optimizer._model_variables_moving_average
        first.assign(ops.full_like(first, float("nan")))
        return model

    monkeypatch.setattr(trainer, "build", broken)
    with pytest.raises(RunError, match="holds NaN or infinity after epoch 1") as caught:
        train(data, params())
    assert caught.value.code == 5 and "last checkpoint is kept" in caught.value.problems[0].fix


def test_t2_a_validation_answer_that_is_no_number_names_patient_and_slice(data):
    model = compiled_once(trainer.build)(params(), 32, 3, 2)
    for variable in model.network.trainable_variables:  # finite, but what is computed with them is not
        variable.assign(ops.full_like(variable, 1e30))
    with pytest.raises(RunError, match="patient P4, slice 1: the network's answer is not a number"):
        trainer.validate(model, data, 8)


def test_t2_out_of_memory_suggests_a_batch_size(data, monkeypatch):
    def fit(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(trainer.TrainingModel, "fit", fit)
    with pytest.raises(RunError, match="out of memory with batches of 8") as caught:
        train(data, params())
    assert "train.batch_size: 4" in caught.value.problems[0].fix


def test_p2_a_batch_that_the_devices_cannot_share(monkeypatch):
    monkeypatch.setattr(devices, "count_devices", lambda: 3)
    with pytest.raises(DataError, match="is 8, which 3 devices cannot share equally"):
        trainer.build(params(batch_size=8), 32, 3, 2)


def test_t2_out_of_memory_suggests_a_batch_that_the_devices_can_share(data, monkeypatch):
    def fit(*_, **__):
        monkeypatch.setattr(devices, "count_devices", lambda: 3)
        raise MemoryError

    monkeypatch.setattr(trainer.TrainingModel, "fit", fit)
    with pytest.raises(RunError, match="out of memory") as caught:
        train(data, params(batch_size=8))
    assert "train.batch_size: 3" in caught.value.problems[0].fix


@pytest.fixture
def worse_each_epoch(monkeypatch):
    """Each epoch has a lower Dice in validation than the one before."""
    validate, scores = trainer.validate, itertools.count(0.9, -0.1)
    monkeypatch.setattr(trainer, "validate", lambda *given: validate(*given) | {"val_volume_dice": next(scores)})


def test_training_stops_early_and_the_last_epoch_is_kept_if_asked_for(data, worse_each_epoch):
    """Weights of the same training: the last epoch's, which its own numbers are of."""
    last, best = train(data, params(keep="last")), train(data, params(keep="best", patience=1))
    numbers = [each.history.drop(columns="val_volume_dice") for each in (last, best)]
    pd.testing.assert_frame_equal(numbers[0][:2], numbers[1])
    assert (len(last.history), last.kept_epoch, len(best.history), best.kept_epoch) == (3, 3, 2, 1)
    rows = data.rows("val")
    answers = [prediction.predict_slices(t.network, data.images, rows, mirror=False) for t in (last, best)]
    pooled = metrics.dice(metrics.counts(data.masks[rows], answers[0] > 127))
    assert pooled == pytest.approx(last.history["val_dice"].iloc[-1], abs=1e-3)
    assert not np.array_equal(*answers)


@pytest.mark.slow
def test_training_stops_early_with_the_last_epoch(data, worse_each_epoch):
    stopped = train(data, params(keep="last", patience=1))
    assert (len(stopped.history), stopped.kept_epoch) == (2, 2)


def test_validation_uses_the_averaged_weights_and_gives_them_back(data):
    p = params()
    model = compiled_once(trainer.build)(p, 32, 3, 2)
    for variable in model.optimizer._model_variables_moving_average:
        variable.assign(ops.zeros_like(variable))
    before = model.network.get_weights()
    with trainer.use_averages(model):
        assert all(np.abs(ops.convert_to_numpy(v)).max() == 0 for v in model.trainable_variables)
    for old, new in zip(before, model.network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_identity_knows_parameters_data_and_code():
    running = Runtime("tensorflow", "cpu", "float32", 2)
    base = trainer.identity(params(), {"images_sha256": "1"}, running)
    others = [
        trainer.identity(params(), {"images_sha256": "2"}, running),
        trainer.identity(params(seed=2), {"images_sha256": "1"}, running),
        *(
            trainer.identity(params(), {"images_sha256": "1"}, running._replace(**change))
            for change in [
                {"device": "gpu"},
                {"precision": "bfloat16"},
                {"threads": 4},
                {"onednn": True},
                {"devices": 2},
            ]
        ),
    ]
    assert len({checkpoints.key(facts) for facts in [base, *others]}) == 8
    assert {"training/trainer.py", "training/losses.py", "evaluation/metrics.py"} <= base["code"].keys()
    assert "tensorflow-cpu" in base["versions"] or "tensorflow" in base["versions"]
