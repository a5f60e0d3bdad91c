"""Brain masks: LGG's, and none."""

import lzma

import numpy as np
import pandas as pd
import pytest

from brainseg import config
from brainseg.data import kaggle
from brainseg.data.brains import masks
from brainseg.errors import IntegrityError

SIDE = 32


def write(folder, images, table=None):
    """What preprocess writes, with masks that take no place on the disk."""
    if not isinstance(images, np.memmap):
        np.save(folder / "images.npy", images)
    np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, shape=images.shape[:3])
    rows = {"patient": "P", "institution": "A", "slice": range(1, len(images) + 1), "spacing": ""}
    (pd.DataFrame(rows) if table is None else table).to_csv(folder / "slices.csv", index_label="row")


def read(folder, width=SIDE):
    return np.unpackbits(np.load(folder / masks.FILE), axis=-1, count=width)


@pytest.fixture(scope="module")
def lgg_slices():
    patients = sorted(kaggle.read_table().items())
    rows = [(name, number) for name, expected in patients for number in range(1, expected.slices + 1)]
    return pd.DataFrame(rows, columns=["patient", "slice"]).assign(institution="A", spacing="")


@pytest.mark.parametrize(("method", "source"), [("none", "kaggle"), ("shipped", "folder"), ("shipped", "phantom")])
def test_where_no_brain_is_known_nothing_is_removed(tmp_path, method, source):
    write(tmp_path, np.zeros((300, SIDE, SIDE, 3), np.uint8))  # more than are written at once
    assert f"no brain masks for these images (brains.method: {method})" in masks.run(
        tmp_path, config.Brains(method=method), source
    )
    assert read(tmp_path).shape == (300, SIDE, SIDE) and read(tmp_path).all()


@pytest.mark.parametrize("side", [256, 64])
def test_lggs_masks_come_with_the_program(tmp_path, lgg_slices, side):
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, shape=(len(lgg_slices), side, side, 3))
    write(tmp_path, images, lgg_slices)
    said = masks.run(tmp_path, config.Brains(method="shipped"), "kaggle")
    assert "of 3,929 slices, 1" in said  # about a seventh of the pixels
    step = 256 // side
    whole = np.unpackbits(np.frombuffer(lzma.decompress(masks.SHIPPED.read_bytes()), np.uint8)).reshape(-1, 256, 256)
    assert (read(tmp_path, side) == whole[:, ::step, ::step]).all()


def test_lggs_masks_fit_no_other_slices(tmp_path, lgg_slices):
    write(tmp_path, np.zeros((3928, 1, 1, 3), np.uint8), lgg_slices.iloc[1:])
    with pytest.raises(IntegrityError, match="does not have the slices of LGG"):
        masks.run(tmp_path, config.Brains(method="shipped"), "kaggle")
    assert not (tmp_path / masks.FILE).exists()
