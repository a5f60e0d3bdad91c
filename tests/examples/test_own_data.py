"""examples/own-data: each layout is read by the pipeline with the lines of its README."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from brainseg import config
from brainseg.commands import own_data
from brainseg.data import archive, folder, preprocessing, splitting
from brainseg.data.layouts import recognition
from brainseg.io import pictures
from tests.support.own_data_example import FOLDER, draw

ROOT = FOLDER.parents[1]
README = (FOLDER / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", README, re.M | re.S))
PARAMS = config.read_yaml(ROOT / "params.yaml")
SMALL = config.Phantom(patients=3, slices=3, size=64, seed=11)
NUMBERED = ["p01", "p02", "p03"]
PATIENTS = {
    "brats": [f"BraTS20_Training_00{n}" for n in (1, 2, 3)],
    "nnunet": ["MS-0001", "MS-0002"],
    "decathlon": ["MS-0001", "MS-0002"],
    "bids": ["sub-01", "sub-02", "sub-03"],
    "table": NUMBERED,
    "folders": NUMBERED,
    "patterns": NUMBERED,
    "dicom": NUMBERED,
}


@pytest.fixture(scope="module")
def heads():
    return draw.draw_heads(SMALL)


def download(name: str, root) -> config.Download:
    """params.yaml with the block of the README, for a data set in another folder."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", SECTIONS[name], re.M | re.S)
    values = config.parse_yaml(block.replace("/data/hospital", str(root)), "README.md")["download"]
    return config.Download(**PARAMS["download"] | values)


def test_the_readme_has_each_layout_and_no_other():
    assert list(SECTIONS) == list(draw.LAYOUTS) == list(PATIENTS)
    assert set(recognition.LAYOUTS) < set(draw.LAYOUTS)
    assert " ".join(draw.LAYOUTS) in README


@pytest.mark.parametrize("name", PATIENTS)
def test_a_layout_is_read_by_the_lines_of_the_readme(name, tmp_path, heads):
    draw.LAYOUTS[name](tmp_path, heads)
    params = download(name, tmp_path)
    assert recognition.find(params).layout == ("patterns" if name == "dicom" else name)
    summary = own_data.summarise(params)
    assert summary.problems == [] and summary.rows["patients"] == str(len(PATIENTS[name]))
    pairs = list(folder.pairs(params))
    assert list(dict.fromkeys(pair.patient for pair in pairs)) == PATIENTS[name]
    places = dict.fromkeys((pair.patient, pair.institution) for pair in pairs)
    assert [place for _, place in places] == [head.institution for head in heads][: len(places)]
    for patient, head in zip(PATIENTS[name], heads, strict=False):  # the very voxels that were drawn
        own = [pair for pair in pairs if pair.patient == patient]
        masks = np.stack([pictures.decode_labels(pair.mask, "mask") for pair in own])
        np.testing.assert_array_equal(masks > 0, head.labels > 0)
        flair = np.stack([pictures.decode(pair.image, "image") for pair in own])
        flair, gain = flair[..., 1] if flair.ndim == 4 else flair, 1 if name in ("folders", "patterns") else draw.GAIN
        np.testing.assert_array_equal(flair, head.slices[..., 1].astype(int) * gain)


@pytest.mark.slow
@pytest.mark.parametrize("name", PATIENTS)
def test_from_the_script_to_a_split(name, tmp_path):
    """As the README says it, up to the training."""
    root = tmp_path / "hospital"
    command = [sys.executable, str(FOLDER / "draw.py"), name, str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "12 scans" in done.stdout, done.stderr
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 2 and "name a new folder" in again.stderr
    archive.write(tmp_path / "slices.zip", folder.pairs(download(name, root)))
    preprocess, split = (getattr(config.load(path=ROOT / "params.yaml"), block) for block in ("preprocess", "split"))
    preprocessing.run(tmp_path / "slices.zip", preprocess, tmp_path / "processed")
    splitting.run(tmp_path / "processed/slices.csv", split, tmp_path / "split.csv")
    slices, parts = pd.read_csv(tmp_path / "processed/slices.csv"), pd.read_csv(tmp_path / "split.csv")
    assert slices["institution"].nunique() == 4 and (slices.groupby("patient")["tumour_pixels"].sum() > 0).all()
    assert (
        set(parts["subset"]) == {"train", "val", "test"} and (parts.groupby("patient")["subset"].nunique() == 1).all()
    )
