"""What the page computes in the browser is what Python computes: voxels, the network's input, masks and numbers.

Here in Node, with the page's own sources; ``test_browser`` asks Chromium for the same.
"""

import json
import os
import subprocess

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from brainseg.evaluation import metrics
from brainseg.inference.predictor import Predictor
from tests.support import shared
from tests.support.site import needs_libraries
from tools import build_page

pytest.importorskip("pydicom", reason="makes a DICOM series")
from tests.support import golden

pytestmark = needs_libraries
ASKED = ["pages", "float", "rule", "scaled", "three", "two", "small", "single", "colour", "large", "slices"]
ASKED += ["stripped", "dicom"]
TOLERANCE = 1e-5  # in a probability


def program():
    return shared.folder("golden-program", golden.build) / "golden.js"


def answer(folder):
    golden.toy(folder)
    golden.run_node(program(), folder, golden.write(folder))


@pytest.fixture(scope="session")
def toy():
    """Every kind of file with a small model: the folder, the cases by name, and what Node says."""
    folder = shared.folder("golden-toy", answer)
    told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    return folder, {each.id: each for each in golden.ask(folder)}, told


def test_the_pages_types_are_right():
    npx = f"{build_page.node_folder(golden.WEB)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["npx", "--no-install", "tsc"], cwd=golden.WEB, env=os.environ | {"PATH": npx}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_no_case_is_left_out(toy):
    assert list(toy[1]) == ASKED


@pytest.mark.parametrize("name", ASKED)
def test_masks_and_numbers_are_pythons(toy, name):
    folder, asked, told = toy
    truth, mine = golden.expected(folder, asked[name]), told[name]
    assert "refused" not in mine, mine
    shape = mine["shape"]
    voxels = np.fromfile(folder / f"{name}.voxels", golden.TYPES[shape["type"]])
    assert voxels.dtype == truth.case.voxels.dtype and np.array_equal(voxels, truth.case.voxels.ravel())
    prepared = golden.told_array(folder, name, "prepared", truth.prepared)
    assert np.array_equal(prepared, truth.prepared)
    for part in ("probability", "mask"):
        own = getattr(truth.result, part)
        assert np.array_equal(golden.told_array(folder, name, part, own), own), part
    check_answer(mine["answer"], json.loads(json.dumps(truth.answer)), truth.case)


def test_a_scan_without_scalp_is_told_with_the_models_own_numbers(toy):
    warnings = toy[2]["stripped"]["answer"]["warnings"]
    assert [text for text in warnings if "0.81 so, 0.86 with scalp, and may miss" in text], warnings


def check_answer(mine, truth, case):
    mine["summary"].pop("seconds"), truth["summary"].pop("seconds")
    for key in ("disclaimer", "model", "input", "summary", "slices", "rule", "seg"):
        assert mine[key] == truth[key], key
    only_here = [
        text for text in mine["warnings"] if "have no neighbours" not in text
    ]  # told by `predict`, not by the server
    assert only_here == truth["warnings"]
    assert len(mine["lesions"]) == len(truth["lesions"])
    for one, other in zip(mine["lesions"], truth["lesions"], strict=True):
        assert list(one) == list(other)
        for key, value in other.items():  # of a half, the last digit may go either way
            slack = 0.1001 if "centroid" in key else 1e-9
            assert one[key] == (value if value is None else pytest.approx(value, abs=slack)), key


def test_the_mask_file_lies_where_the_scan_lies(toy):
    """On the voxels of the file it came from, in its order, by both of its matrices."""
    folder, asked, _ = toy
    for name in ("float", "scaled"):
        truth = golden.expected(folder, asked[name])
        path = folder / f"{name}.mask.nii.gz"
        assert np.array_equal(golden.read_labels(path), truth.result.mask)
        written, scan = nibabel.load(path), nibabel.load(folder / asked[name].parts["file"][0])
        assert written.shape == scan.shape
        assert np.allclose(written.get_sform(), scan.affine, atol=1e-4)
        if name == "float":  # the other one has a little shear, which a quaternion cannot have
            assert np.allclose(written.get_qform(), scan.affine, atol=1e-4)
        assert written.header["descrip"].tobytes().rstrip(b"\0") == b"a test"


def test_the_masks_beside_the_slices_are_the_reference(toy):
    folder, asked, _ = toy
    truth = golden.expected(folder, asked["slices"])
    reference = golden.told_array(folder, "slices", "reference", truth.result.mask)
    flair = golden.phantom()[..., 1]
    assert np.array_equal(reference, flair > 190)


def test_scores_against_ones_own_mask(toy):
    folder, asked, told = toy
    mine = told["float"]["scores"]
    outline = golden.expected(folder, asked["float"]).result.mask > 0
    reference = golden.read_labels(folder / asked["float"].reference) > 0
    counts = metrics.counts(reference, outline)
    assert mine["dice"] == pytest.approx(metrics.dice(counts), abs=1e-4)
    assert mine["iou"] == pytest.approx(metrics.iou(counts), abs=1e-4)
    assert (mine["found"], mine["false"], mine["missed"]) == (counts.tp, counts.fp, counts.fn)
    assert 0.05 < mine["dice"] < 0.999
    assert mine["hd95"] == pytest.approx(hausdorff(reference, outline, (5, 1.1, 0.9)), abs=2e-3)
    assert mine["reference_ml"] == pytest.approx(reference.sum() * 5 * 1.1 * 0.9 / 1000, abs=1e-3)


def hausdorff(reference, outline, sides):
    """In 3D, the larger of the two 95th percentiles."""
    a, b = (mask & ~ndimage.binary_erosion(mask) for mask in (reference, outline))
    ways = [ndimage.distance_transform_edt(~other, sampling=sides)[own] for own, other in ((a, b), (b, a))]
    return max(np.percentile(way, 95) for way in ways)


@pytest.mark.slow
def test_the_released_model_in_the_browsers_runtime(tmp_path):
    """Its raw probabilities, and what is made of them. Within a rounding of a half, a pixel may differ."""
    model = Predictor(golden.released(tmp_path), threads=1)
    asked = [each for each in golden.write(tmp_path) if each.id in ("float", "small")]
    told = golden.run_node(program(), tmp_path, asked)
    for each in asked:
        truth = golden.expected(tmp_path, each)
        assert "refused" not in told[each.id], told[each.id]
        straight = model.session.run(truth.prepared[[each.raw]])[0, ..., 0]
        raw = golden.told_array(tmp_path, each.id, "raw", straight)
        assert np.abs(raw - straight).max() <= TOLERANCE
        probability = golden.told_array(tmp_path, each.id, "probability", truth.result.probability)
        assert np.abs(probability.astype(int) - truth.result.probability).max() <= 1
        mask = golden.told_array(tmp_path, each.id, "mask", truth.result.mask)
        assert truth.result.mask.any() == (each.id == "float")
        assert (
            np.array_equal(truth.result.mask, mask) or metrics.dice(metrics.counts(truth.result.mask, mask)) >= 0.9999
        )
    apart = golden.mirrored_apart(model, golden.expected(tmp_path, asked[0]).prepared)
    mine = np.fromfile(tmp_path / "float.apart", np.uint8)
    assert mine.max() == pytest.approx(255 * apart.max(), abs=2)
