"""LGG written as NIfTI volumes, each patient in another orientation, gives the same arrays and split."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainseg import config
from brainseg.data import archive, folder, kaggle, preprocessing, splitting
from brainseg.io import pictures
from tests.support import lgg_fixture
from tests.support.locked import digest

pytest.importorskip("nibabel")
ROOT = Path(__file__).parents[2]
PARAMS = config.load(path=ROOT / "params.yaml")


def as_nifti(pairs: Iterable[archive.Pair], root: Path) -> config.Download:
    """Write each patient's slices and masks as volumes of 1 mm voxels; returns the parameters to read them."""
    from tests.support.nifti_files import ORIENTATIONS, nifti

    places = []
    for number, (patient, slices) in enumerate(itertools.groupby(pairs, key=lambda pair: pair.patient)):
        decoded = [(pictures.decode(p.image, p.image_name), pictures.decode(p.mask, p.mask_name), p.institution)
                   for p in slices]  # fmt: skip
        places.append((patient, decoded[0][2]))
        for kind, name in enumerate(("images", "masks")):
            voxels = np.stack([each[kind] for each in decoded])
            nifti(root / name / f"{patient}.nii", voxels, ORIENTATIONS[number % 48], rows=1.0, columns=1.0)
    pd.DataFrame(places, columns=["patient", "institution"]).to_csv(root / "patients.csv", index=False)
    values = {"path": str(root), "images": "images/*", "masks": "masks/*", "patient": "each_volume"}
    return config.Download(source="folder", **values)


def prepared(pairs: Iterable[archive.Pair], out: Path) -> Path:
    """Run download and preprocess on the pairs; returns ``out``."""
    archive.write(out / "slices.zip", pairs)
    preprocessing.run(out / "slices.zip", PARAMS.preprocess, out)
    return out


def columns(out: Path) -> pd.DataFrame:
    """All columns of slices.csv that a later stage reads, except the spacing."""
    return pd.read_csv(out / "slices.csv")[["row", "patient", "institution", "slice", "tumour_pixels"]]


def test_a_few_patients(tmp_path, monkeypatch):
    mirror, table = lgg_fixture.archive()
    few = set(itertools.islice(table, 4))
    monkeypatch.setenv("BRAINSEG_MIRROR", str(mirror))
    pairs = [pair for pair in kaggle.pairs(table) if pair.patient in few]
    there, here = prepared(pairs, tmp_path / "kaggle"), tmp_path / "nifti"
    source = as_nifti(pairs, tmp_path / "own")
    prepared(folder.pairs(source), here)
    pd.testing.assert_frame_equal(columns(here), columns(there))
    for name in ("images.npy", "masks.npy"):
        assert digest(here / name) == digest(there / name)


@pytest.mark.slow
def test_all_patients_give_the_arrays_and_the_split_of_the_committed_run(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINSEG_MIRROR", str(lgg_fixture.whole_archive()))
    source = as_nifti(kaggle.pairs(), tmp_path / "own")
    here = prepared(folder.pairs(source), tmp_path / "processed")
    splitting.run(here / "slices.csv", PARAMS.split, here / "split.csv")
    lock = config.read_yaml(ROOT / "dvc.lock")["stages"]
    expected = {Path(out["path"]).name: out["md5"] for name in ("preprocess", "split") for out in lock[name]["outs"]}
    for name in ("images.npy", "masks.npy", "split.csv"):
        assert digest(here / name) == expected[name], name
