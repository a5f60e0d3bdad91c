"""Answers of `brainseg predict` find their images, whichever folders were outlined together."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainseg import config
from brainseg.data import external_data
from brainseg.data.external_data import ExternalInputs
from brainseg.errors import DataError
from brainseg.predict import batch
from tests.support.fake_outliner import Fake, heads
from tests.support.nifti_files import nifti

ROOT = Path(__file__).parents[2]


def save(path: Path, seed: int) -> None:
    """An image and a mask, both of the suffix of ``path``; each image has a tumour of its own size."""
    pages = np.minimum(heads(3), 230 - seed % 20)
    pages[:, 40 : 44 + seed, 30:40] = 230
    mask = Path(str(path).replace("/images/", "/masks/"))
    for target, voxels in ((path, pages), (mask, pages // 230)):
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".gz":
            nifti(target, voxels)
        elif path.suffix == ".tif":
            first, *rest = map(Image.fromarray, voxels)
            first.save(target, save_all=True, append_images=rest)
        else:
            Image.fromarray(voxels[0]).save(target)


def score(home: Path, outlined: list[str], patient: str, images: str = "images", masks: str = "masks"):
    """Images and answers of ``predict`` as ``evaluate`` pairs them: masks drawn, and masks outlined."""
    batch.run(batch.Inputs([str(home / each) for each in outlined]), home / "answers", Fake(230))
    given = ExternalInputs(
        str(home / images), str(home / masks), str(home / "answers/masks"), patient, None, None
    )  # fmt: skip
    params = config.load("preprocess", path=ROOT / "params.yaml").preprocess.model_copy(update={"size": 64})
    return [
        external_data.prepare_arrays(given, params, home / f"arrays-{answers}", predictions=answers).masks
        for answers in (False, True)
    ]


LAYOUTS = {
    "one patient, slices named as the folder": (["images/p1/p1_1.png", "images/p1/p1_2.png"], "folder"),
    "one patient, slices of another name": (["images/p1/slice_1.png", "images/p1/slice_2.png"], "folder"),
    "one patient, bare numbers": (["images/p1/1.png", "images/p1/2.png"], "folder"),
    "one patient, a lone slice": (["images/p1/slice_1.png"], "folder"),
    "one patient, a volume": (["images/p1/flair.nii.gz"], "each_volume"),
    "one patient, pages": (["images/p1/flair.tif"], "each_volume"),
    "one patient, deeper": (["images/site/day/p1/slice_7.png", "images/site/day/p1/slice_9.png"], "folder"),
    "several patients": ([f"images/{p}/s_{n}.png" for p in ("p1", "p2") for n in (1, 2)], "folder"),
    "several patients, lone slices": (["images/p1/s_1.png", "images/p2/s_1.png", "images/p2/t_2.png"], "folder"),
    "several patients, volumes": (["images/p1/flair.nii.gz", "images/p2/flair.nii.gz"], "each_volume"),
    "nested folders": (["images/a/p1/s_1.png", "images/a/p1/s_2.png", "images/b/c/p2/s_1.png"], "folder"),
    "slices of all patients in one folder": (["images/p1_1.png", "images/p1_2.png", "images/p2_1.png"], r"(p\d)_"),
    "bare numbers in one folder": (["images/1.png", "images/2.png"], "each_image"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_predict_wrote_is_scored(tmp_path, layout):
    names, patient = LAYOUTS[layout]
    for seed, name in enumerate(names):
        save(tmp_path / name, seed)
    drawn, outlined = score(tmp_path, ["images"], patient)
    assert drawn.any() and np.array_equal(drawn, outlined)


@pytest.mark.parametrize("outlined", [["."], ["images/p1", "images/p2"], ["images/p2", "images/p1/slice_1.png"]])
def test_whatever_the_folder_that_was_outlined(tmp_path, outlined):
    for seed, name in enumerate(["images/p1/slice_1.png", "images/p2/slice_1.png", "images/p2/slice_2.png"]):
        save(tmp_path / "study" / name, seed)
    (tmp_path / "study/masks").rename(tmp_path / "masks")
    drawn, answers = score(tmp_path, [f"study/{each}" for each in outlined], "folder", "study/images")
    assert drawn.any() and np.array_equal(drawn, answers)


def test_a_pattern_for_images_needs_none_for_the_answers(tmp_path):
    for seed, name in enumerate(["images/p1/p1_flair.nii.gz", "images/p2/p2_flair.nii.gz"]):
        save(tmp_path / name, seed)
    save(tmp_path / "images/p1/p1_t1.nii.gz", 9)
    drawn, answers = score(
        tmp_path, ["images/p1/p1_flair.nii.gz", "images/p2/p2_flair.nii.gz"], "each_volume",
        "images/*/*_flair.nii.gz", "masks/*/*_flair.nii.gz",
    )  # fmt: skip
    assert drawn.any() and np.array_equal(drawn, answers)


def test_an_answer_that_may_be_of_two_images_is_refused_with_both(tmp_path):
    for seed, name in enumerate(["p1/slice_1.png", "p1/slice_2.png", "p2/slice_1.png", "p2/slice_2.png"]):
        save(tmp_path / "images" / name, seed)
    with pytest.raises(DataError) as caught:
        score(tmp_path, ["images/p1"], "folder")
    said = "\n".join(caught.value.lines())
    assert "may be the prediction of images/p1/slice_1.png and of images/p2/slice_1.png" in said
    drawn, answers = score(tmp_path, ["images/p1"], "each_image", "images/p1", "masks/p1")  # as the refusal says
    assert drawn.any() and np.array_equal(drawn, answers)
