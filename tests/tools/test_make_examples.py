"""The page's examples are chosen by the committed scores, and those in weights/ are of the committed run."""

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainseg.errors import DataError
from brainseg.evaluation import metrics
from brainseg.inference.predictor import Predictor
from tools import copy_released, make_examples

ROOT = Path(__file__).parents[2]


def committed() -> list[dict[str, str]]:
    with (ROOT / make_examples.SCORES).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows(*scores: float, subset: str = "test") -> list[dict[str, str]]:
    return [{"subset": subset, "patient": f"P{n}", "dice": str(score)} for n, score in enumerate(scores)]


def test_patients_are_chosen_by_their_place_among_those_of_the_test():
    """Of eleven: the third best, the middle one, the second worst and the worst; no patient of validation."""
    given = [*rows(*(0.5 + n / 100 for n in (3, 9, 0, 10, 7, 1, 4, 2, 8, 5, 6))), *rows(0.1, 0.99, subset="val")]
    chosen = {level: float(row["dice"]) for level, row in make_examples.choose(given).items()}
    assert chosen == pytest.approx({"easy": 0.58, "median": 0.55, "hard": 0.51, "fails": 0.5})


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The archive that `make pull` fetches."""
    (path,) = copy_released.copy(ROOT, tmp_path_factory.mktemp("examples"), [make_examples.OUT.as_posix()])
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_those_of_the_release_are_of_the_committed_run(released):
    listed = json.loads(released.read("list.json"))
    chosen = make_examples.choose(committed())
    assert listed["examples"] == [make_examples.describe(level, row) for level, row in chosen.items()]
    evaluation = json.loads((ROOT / make_examples.SUMMARY).read_text(encoding="utf-8"))
    assert listed["weights_sha256"] == evaluation["protocol"]["weights_sha256"]
    assert "CC BY-NC-SA 4.0" in listed["attribution"] and "TCIA.2016" in released.read("LICENCE.txt").decode()


@pytest.mark.slow
@pytest.mark.parametrize("level", make_examples.PLACES)
def test_the_released_model_has_the_score_that_is_told(released, level, tmp_path):
    (model,) = copy_released.copy(ROOT, tmp_path, ["models/unet.onnx"])
    told = next(each for each in json.loads(released.read("list.json"))["examples"] if each["id"] == level)
    with zipfile.ZipFile(io.BytesIO(released.read(f"{level}.zip"))) as archive:
        names = [f"{told['patient']}/{told['patient']}_{n}" for n in range(1, told["slices"] + 1)]
        voxels, masks = (
            np.stack([np.asarray(Image.open(archive.open(f"{name}{end}.png"))) for name in names])
            for end in ("", "_mask")
        )
        assert len(archive.namelist()) == 2 * told["slices"]
    outlined = Predictor(model, threads=1).segment(voxels, (1.0, 1.0), numbers=range(1, told["slices"] + 1)).mask
    assert metrics.dice(metrics.counts(masks > 0, outlined > 0)) == pytest.approx(told["dice"], abs=0.002)


def test_without_data_it_is_said_what_to_do(tmp_path):
    with pytest.raises(DataError) as refused:
        make_examples.run(tmp_path)
    assert "dvc repro" in refused.value.problems[0].fix


def test_packed_slices_are_those_of_the_data_with_their_masks_in_order(tmp_path):
    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 255, (5, 16, 16, 3), np.uint8), rng.integers(0, 2, (5, 16, 16), np.uint8)
    (tmp_path / "data/processed").mkdir(parents=True)
    np.save(tmp_path / make_examples.IMAGES, images)
    np.save(tmp_path / make_examples.MASKS, masks)
    table = ["row,patient,slice", "0,A,1", "1,B,10", "2,B,9", "3,B,11", "4,C,1"]
    (tmp_path / make_examples.SLICES).write_text("\n".join([*table, ""]))
    packed = make_examples.pack(tmp_path, "B")
    assert packed == make_examples.pack(tmp_path, "B")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == [f"B/B_{n}{end}.png" for n in (9, 10, 11) for end in ("", "_mask")]
        assert np.array_equal(np.asarray(Image.open(archive.open("B/B_10.png"))), images[1])
        assert np.array_equal(np.asarray(Image.open(archive.open("B/B_10_mask.png"))), masks[1] * 255)
