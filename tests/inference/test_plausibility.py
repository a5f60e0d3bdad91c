"""Pictures that are no axial brain slices are marked or refused, others pass: a fixed set, phantoms, patients."""

import os
import subprocess
import sys
from collections import Counter
from itertools import chain, groupby, islice

import cv2
import numpy as np
import pytest

from brainseg.data import kaggle
from brainseg.inference import plausibility
from brainseg.io import pictures
from tests.support import implausible, lgg_fixture
from tests.support.markdown import rows

pytest.importorskip("pydicom")
BUNDLED = {  # kind → pictures, of which refused; every one is marked
    "constant": (6, 6),
    "uniform noise": (6, 6),
    "Gaussian noise": (6, 6),
    "coarse noise": (6, 6),
    "salt and pepper": (6, 6),
    "checkerboard": (6, 5),
    "gradient": (6, 6),
    "text page": (6, 6),
    "knee, frontal (drawn)": (6, 0),
    "knee, axial (drawn)": (6, 0),
    "CT head (drawn)": (6, 0),
    "sagittal head (drawn)": (6, 0),
    "photograph": (10, 7),  # not the flower before a dark background
    "CT head": (11, 0),
    "CT spine": (1, 1),
    "MR, cut out of a body": (1, 1),
    "MR abdomen": (1, 0),
    "sagittal head": (2, 0),
}
FEW_GREYS = 4  # noise of air


@pytest.fixture(scope="module")
def bundled() -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for kind, picture in implausible.marked_pictures():
        found.setdefault(kind, []).append(picture)
    return found


@pytest.fixture(scope="module")
def phantoms() -> list[np.ndarray]:
    return list(implausible.phantoms(4).values())


def alone(picture: np.ndarray) -> plausibility.Verdict:
    return plausibility.assess(picture[None])


def test_the_set_is_fixed(bundled):
    assert {kind: len(found) for kind, found in bundled.items()} == {kind: n for kind, (n, _) in BUNDLED.items()}
    again = [picture for _, picture in implausible.marked_pictures()]
    assert all(np.array_equal(a, b) for a, b in zip(again, chain(*bundled.values()), strict=True))


@pytest.mark.parametrize("kind", BUNDLED)
def test_the_fixed_set_is_marked_or_refused(kind, bundled):
    verdicts = [alone(picture) for picture in bundled[kind]]
    assert all(verdict.marks for verdict in verdicts)
    assert sum(verdict.refused for verdict in verdicts) == BUNDLED[kind][1]


def test_the_table_in_the_docs():
    table = rows("docs/explanation/plausibility.md")
    assert {kind: tuple(int(cell) for cell in table[kind][:2]) for kind in BUNDLED} == BUNDLED


@pytest.mark.parametrize("kind", ["uniform noise", "photograph", "constant", "CT head", "sagittal head"])
def test_a_volume_of_what_is_no_brain(kind, bundled):
    verdict = plausibility.assess(np.stack(bundled[kind]))
    assert verdict.marks
    assert verdict.refused == (kind in ("uniform noise", "photograph", "constant"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("constant", "nothing to see"),
        ("uniform noise", "noise"),
        ("photograph", "photograph"),
        ("CT head (drawn)", "CT"),
        ("knee, frontal (drawn)", "edge cuts it off"),
        ("knee, axial (drawn)", "hardly longer than wide"),
        ("sagittal head", "left and right outlines differ"),
    ],
)
def test_the_reason_is_named(kind, reason, bundled):
    assert reason in alone(bundled[kind][0]).marks[0]


def test_phantoms_pass(phantoms):
    assert [plausibility.assess(volume) for volume in phantoms] == [(False, [])] * len(phantoms)


def test_single_phantom_slices_pass(phantoms):
    largest = [max(volume, key=lambda picture: np.count_nonzero(picture[..., 1] > 20)) for volume in phantoms]
    assert [alone(picture) for picture in largest] == [(False, [])] * len(largest)


@pytest.fixture(scope="module")
def brains_of_phantoms():
    return list(implausible.with_brains(4))


@pytest.mark.parametrize("grow", [0, 2, -2])
def test_a_brain_without_scalp_is_told(brains_of_phantoms, grow):
    """Phantoms as their brains alone, with masks that are right, too large and too small; as volumes and alone."""
    for volume, brains in brains_of_phantoms:
        shown = implausible.strip(volume, brains, grow)
        assert plausibility.NO_SCALP in plausibility.assess(shown).marks
        middle = shown[len(shown) // 2]
        assert plausibility.NO_SCALP in alone(middle).marks
        assert plausibility.NO_SCALP in alone(middle // 2).marks


@pytest.mark.parametrize(
    ("without", "whole", "told", "warned"),
    [(0.75036, 0.853732, "0.75 so, 0.85 with scalp", True), (0.85, 0.86, "0.85 so, 0.86 with scalp", False)],
)
def test_the_mark_has_what_the_model_scores_without_scalp(without, whole, told, warned, brains_of_phantoms):
    scores = {"alone": {"stripped_dice": without}, "volume": {"dice": {"mean": whole}}}
    text = plausibility.describe_no_scalp({"evaluation": {"test": scores}})
    assert told in text and ("may miss lesions" in text) == warned
    volume, brains = brains_of_phantoms[0]
    assert plausibility.assess(implausible.strip(volume, brains), text).marks == [text]


@pytest.mark.parametrize(
    "facts", [{}, {"evaluation": {}}, {"evaluation": {"test": {"alone": {"stripped_dice": None}}}}]
)
def test_a_model_without_such_numbers_is_taken_to_know_whole_heads(facts):
    assert plausibility.describe_no_scalp(facts) == plausibility.NO_SCALP


def test_no_scalp_is_told_beside_what_else_is_odd(brains_of_phantoms):
    volume = implausible.strip(*brains_of_phantoms[0])
    odd, told = alone(np.rot90(volume[len(volume) // 2])).marks
    assert "turned on its side" in odd and told == plausibility.NO_SCALP


def test_noise_outside_a_stripped_brain_is_no_scalp(brains_of_phantoms):
    volume = implausible.strip(*brains_of_phantoms[0])
    noise = np.random.default_rng(0).integers(0, FEW_GREYS, volume.shape).astype(np.uint8)
    assert plausibility.NO_SCALP in plausibility.assess(np.maximum(volume, noise)).marks


def test_scalp_seen_in_most_directions_is_scalp(phantoms):
    """A receive coil may leave one side dark, and a picture may cut one off."""
    for volume in phantoms:
        cut = volume.copy()
        cut[:, :, :72] = 0
        assert plausibility.NO_SCALP not in plausibility.assess(cut).marks


def test_a_real_brain_of_another_sequence_is_told_to_have_no_scalp_and_else_passes():
    """nibabel's diffusion MRI, without scalp and skull."""
    nibabel = pytest.importorskip("nibabel")
    scan = nibabel.load(os.path.join(os.path.dirname(nibabel.__file__), "tests", "data", "example4d.nii.gz"))
    voxels = np.asarray(scan.dataobj)[..., 0].astype(np.float64)
    bundled = [implausible.on_grid(np.rot90(plane)) for plane in np.moveaxis(voxels / voxels.max() * 255, 2, 0)]
    assert plausibility.assess(np.stack(bundled)) == (False, [plausibility.NO_SCALP])
    assert {mark for picture in bundled for mark in alone(picture).marks} == {plausibility.NO_SCALP}


def test_a_head_turned_on_its_side_is_marked(phantoms):
    verdict = plausibility.assess(np.rot90(phantoms[0], axes=(1, 2)))
    assert not verdict.refused
    assert "turned on its side" in verdict.marks[0]


def test_empty_slices_at_both_ends_are_part_of_a_scan(phantoms):
    rng = np.random.default_rng(0)
    air = rng.integers(0, FEW_GREYS, (30, 256, 256, 3)).astype(np.uint8)
    for ends in (air, np.zeros_like(air)):
        assert plausibility.assess(np.concatenate([ends, phantoms[0], ends])) == (False, [])
        verdict = plausibility.assess(ends)
        assert verdict.refused
        assert "nothing to see" in verdict.marks[0]


def test_small_slices_near_the_vertex_do_not_decide(phantoms):
    small = cv2.copyMakeBorder(cv2.resize(phantoms[0][8], (40, 128)), 64, 64, 108, 108, cv2.BORDER_CONSTANT)
    assert alone(small).marks
    few = np.repeat(small[None], 2 * len(phantoms[0]), axis=0)
    assert plausibility.assess(np.concatenate([phantoms[0], few])) == (False, [])


def test_what_is_left_above_the_vertex_does_not_decide(phantoms, bundled):
    dim = max(bundled["coarse noise"], key=lambda picture: plausibility.describe(picture).level) // 10
    assert plausibility.describe(dim) is not None
    dim = np.repeat(dim[None], 2 * len(phantoms[0]), axis=0)
    assert plausibility.assess(np.concatenate([phantoms[0], dim])) == (False, [])


def test_the_mirror_image_and_brightness_change_nothing(phantoms, bundled):
    for picture, marked in ((phantoms[0][8], False), (bundled["sagittal head"][0], True)):
        for other in (picture, picture[:, ::-1], picture // 2):
            assert bool(alone(other).marks) == marked


def test_a_head_that_leans_passes(phantoms):
    for angle in (-20, -9, 9, 20):
        turn = cv2.getRotationMatrix2D((127.5, 127.5), angle, 1)
        assert alone(cv2.warpAffine(phantoms[1][8], turn, (256, 256))) == (False, [])


def test_a_long_volume_is_judged_by_a_sample(phantoms, monkeypatch):
    seen = Counter()
    measure = plausibility.describe
    monkeypatch.setattr(plausibility, "describe", lambda picture: seen.update("x") or measure(picture))
    assert plausibility.assess(np.repeat(phantoms[0], 15, axis=0)) == (False, [])
    assert 20 <= seen["x"] <= plausibility.MAX_SLICES


def test_what_is_given_is_left_as_it_is(phantoms):
    before = phantoms[0].copy()
    before.flags.writeable = False
    plausibility.assess(before)
    assert np.array_equal(before, phantoms[0])


def test_it_needs_neither_scipy_nor_pandas():
    code = "import sys, brainseg.inference.plausibility; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy", "pandas", "sklearn", "tensorflow", "keras", "mlflow", "matplotlib"} & set(loaded)


def test_real_patients_pass_and_their_sagittal_and_coronal_cuts_do_not(monkeypatch):
    """The first 12 of BRAINSEG_TEST_LGG."""
    mirror, table = lgg_fixture.archive()
    monkeypatch.setenv("BRAINSEG_MIRROR", str(mirror))
    patients = groupby(kaggle.pairs(table), key=lambda pair: pair.patient)
    cuts = []
    for patient, pairs in islice(patients, 12):
        volume = np.stack([pictures.decode(pair.image, pair.image_name) for pair in pairs])
        assert plausibility.assess(volume) == (False, []), patient
        cuts += [alone(picture) for _, picture in implausible.reslices(volume)]
    assert np.mean([bool(verdict.marks) for verdict in cuts]) > 0.9
