"""What is learned beside the masks: which file is taken, what is learned of it, and that it is said."""

import json

import numpy as np
import pytest

from brainseg import config
from brainseg.data import dataset
from brainseg.errors import DataError, IntegrityError
from brainseg.models import backend, manifest
from brainseg.training import checkpoints, soft_masks, trainer
from brainseg.training.augmentation import Augmenter
from brainseg.training.batches import Batches
from brainseg.training.soft_masks import BlendedMasks, SoftMasks
from tests.support.cohort import write_cohort
from tests.support.engine import RUNNING
from tests.support.tiny_training import params, release, train

DIGESTS = {"images_sha256": "1", "split_sha256": "2"}


def named_in(name, subset="train"):
    """The block of parameters that names a file of soft masks."""
    return params(soft_masks=name, subset=subset).train


@pytest.fixture
def data(tmp_path):
    return dataset.load(*write_cohort(tmp_path), "patient")


@pytest.fixture
def written(data, tmp_path, monkeypatch):
    """A file of soft masks for the data; its folder is the project's root."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    array = np.random.default_rng(1).integers(0, 256, data.masks.shape, np.uint8)
    fold = data.slices["fold"].iloc[data.rows("test")[0]]
    soft_masks.write(tmp_path / f"soft-{fold}.npy", array, DIGESTS, "train", ["abc"])
    return tmp_path / f"soft-{fold}.npy", array


def test_a_target_is_a_share_of_the_mask_and_the_rest_of_the_soft_one():
    hard, soft = np.array([[[0, 1, 0, 1]]], np.uint8), np.array([[[0, 255, 200, 100]]], np.uint8)
    for weight, expected in ((0.0, [0, 255, 0, 255]), (1.0, [0, 255, 200, 100]), (0.25, [0, 255, 50, 216])):
        blended = BlendedMasks(hard, soft, weight)[np.array([0, 0])]
        assert blended.dtype == np.uint8 and blended[:, 0].tolist() == [expected] * 2


def test_the_file_of_the_test_fold_is_taken(written, data):
    path, array = written
    for named in ("soft-{fold}.npy", path.name, str(path)):
        found = soft_masks.load(named_in(named), data, DIGESTS)
        assert np.array_equal(found.array, array) and len(found.sha256) == 64
    assert soft_masks.load(named_in(None), data, DIGESTS) is None


def test_a_file_that_is_named_without_its_fold_is_told_to_have_one(written, data):
    path, _ = written
    for named, expected in ((path.name, "write {fold}"), ("soft-{fold}.npy", "make it again")):
        with pytest.raises(IntegrityError, match="was made for another split") as error:
            soft_masks.load(named_in(named), data, DIGESTS | {"split_sha256": "3"})
        assert error.value.problems[0].fix.startswith(expected)


def test_a_split_from_a_file_has_no_folds():
    with pytest.raises(DataError, match="the split comes from a file") as error:
        config.require(config.SOFT_MASKS, "soft-{fold}.npy", -1)
    assert error.value.problems[0].fix == "name the file"


def test_what_is_no_soft_mask_of_these_data(written, data):
    path, array = written
    with pytest.raises(DataError, match=r"train\.soft_masks: there is no such file"):
        soft_masks.load(named_in("soft-9.npy"), data, DIGESTS)
    with pytest.raises(IntegrityError, match="was made for another split") as error:
        soft_masks.load(named_in(path.name), data, DIGESTS | {"split_sha256": "3"})
    assert len(error.value.problems) == 1
    soft_masks.write(path, array[1:], DIGESTS, "train", ["abc"])
    with pytest.raises(DataError, match=r"holds uint8 \(31, 32, 32\), the masks are uint8 \(32, 32, 32\)"):
        soft_masks.load(named_in(path.name), data, DIGESTS)
    np.save(path, array)
    with pytest.raises(IntegrityError, match=r"is not the file that soft-\d\.json describes"):
        soft_masks.load(named_in(path.name), data, DIGESTS)
    path.write_bytes(b"no array")
    with pytest.raises(IntegrityError):
        soft_masks.load(named_in(path.name), data, DIGESTS)
    path.with_suffix(".json").unlink()
    with pytest.raises(IntegrityError):
        soft_masks.load(named_in(path.name), data, DIGESTS)


def test_a_network_of_all_patients_is_not_told_to_name_a_fold(written, data):
    with pytest.raises(IntegrityError, match="was made for another split") as error:
        soft_masks.load(named_in(written[0].name, "all"), data, DIGESTS | {"split_sha256": "3"})
    assert error.value.problems[0].fix.startswith("let networks of all patients teach")


@pytest.mark.parametrize(("teachers", "learner", "fix"), [
    ("train", "train_and_val", ""), ("train_and_val", "train", "set train.subset: train_and_val"),
    ("train", "all", "let networks of all patients teach"), ("all", "train", "set train.subset: all"),
    ("all", "all", ""),
])  # fmt: skip
def test_teachers_were_not_told_more_than_their_learner(written, data, teachers, learner, fix):
    path, array = written
    soft_masks.write(path, array, DIGESTS, teachers, ["abc"])
    if not fix:
        assert np.array_equal(soft_masks.load(named_in(path.name, learner), data, DIGESTS).array, array)
        return
    with pytest.raises(DataError, match=f"train.subset {teachers}, which may not teach one with {learner}") as error:
        soft_masks.load(named_in(path.name, learner), data, DIGESTS)
    assert error.value.problems[0].fix.startswith(fix)


def test_it_says_what_it_was_made_of(written):
    assert json.loads(written[0].with_suffix(".json").read_text())["made_by"] == ["abc"]


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_batches_hold_the_targets_of_their_slices_and_of_the_tumours_that_are_put_in(data, mix):
    settings = params(batch_size=8, soft_masks="x", soft_weight=1.0)
    changed = settings.augmentation.model_copy(update={"lesion_mix": mix, "scalp_dropout": 0.0})
    settings = settings.model_copy(update={"augmentation": changed})
    soft = np.where(data.masks > 0, 200, 50).astype(np.uint8)
    plain = settings.model_copy(update={"train": settings.train.model_copy(update={"soft_masks": None})})
    hard, softened = Batches(data, plain), Batches(data, settings, SoftMasks(soft, ""))
    untaught = Batches(data, settings)  # for timing: the masks alone, in 255ths as the step expects
    put_in = 0
    for place in range(len(hard)):
        here, there = hard[place], softened[place]
        assert np.array_equal(here["image"], there["image"])
        assert np.array_equal(untaught[place]["mask"], 255 * here["mask"])
        assert np.array_equal(np.where(here["mask"] > 0, 200, 50), there["mask"])
        own = data.masks[hard.order[place * 8 : place * 8 + 8]]
        put_in += (here["mask"][..., 0] != own).sum()
    assert (put_in > 0) == (mix > 0)


@pytest.mark.parametrize("on_processor", [True, False])
def test_soft_masks_move_with_their_images_and_stay_soft(data, on_processor, monkeypatch):
    monkeypatch.setattr(backend, "runs_on_processor", lambda: on_processor)
    images, masks = np.asarray(data.images[:8]), np.asarray(data.masks[:8])[..., None]
    found = {}
    for full, given in ((1, masks), (255, masks * 255), (200, masks * 100)):
        layer = Augmenter(params().augmentation, seed=1, full=full)
        found[full] = np.asarray(layer(images, given, training=True)[1])
    hard, whole, half = found[1], found[255], found[200]
    assert set(np.unique(hard)) == {0, 1} and hard.any() and whole.max() <= 1
    assert ((whole > 0.502) <= (hard == 1)).all() and ((whole < 0.498) <= (hard == 0)).all()
    assert len(np.unique(whole)) > 3  # borders are shares
    np.testing.assert_allclose(half, whole / 2, atol=0.006)


@pytest.mark.parametrize("full", [1, 255])
def test_without_training_only_the_type_changes(data, full):
    masks = np.asarray(data.masks[:4])[..., None]
    answer = Augmenter(params().augmentation, seed=1, full=full)(data.images[:4], masks * full)[1]
    assert np.array_equal(np.asarray(answer), masks)


def test_another_file_is_another_training(data):
    soft = [None, SoftMasks(data.masks, "a"), SoftMasks(data.masks, "b")]
    keys = {checkpoints.key(trainer.identity(params(), {}, RUNNING, None, each)) for each in soft}
    assert len(keys) == 3


@pytest.mark.slow
def test_a_network_learns_what_the_soft_masks_say_and_its_manifest_names_them(data, tmp_path):
    """Soft masks without any tumour: the network marks nothing."""
    settings = params(epochs=6, batch_size=4, soft_masks="x.npy", soft_weight=1.0)
    taught = train(data, settings, soft=SoftMasks(np.zeros_like(data.masks), "0" * 64))
    plain = train(data, params(epochs=6, batch_size=4))
    assert taught.history["val_volume_dice"].max() < 0.05 < 0.3 < plain.history["val_volume_dice"].max()
    for trained, expected in ((taught, "0" * 64), (plain, None)):
        _, path = release(trained, data, settings, tmp_path)
        assert manifest.read(path).training.soft_masks_sha256 == expected
