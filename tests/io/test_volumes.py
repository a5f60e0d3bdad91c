"""Volumes: every orientation to axial slices and exactly back, and grids that differ."""

import itertools

import numpy as np
import pytest

from brainseg.errors import DataError
from brainseg.io import volumes
from brainseg.io.volumes import Geometry

SHAPE = (9, 10, 11)
SPACING = (0.9, 1.1, 3.0)
ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def straight(axes, signs, origin=(-80.5, 60.25, -33.0)) -> np.ndarray:
    """Axis n of the file runs along axis ``axes[n]`` of the patient, forwards or backwards."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for n, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[axis, n] = sign * SPACING[n]
    affine[:3, 3] = origin
    return affine


def turned(affine: np.ndarray, degrees: float, seed: int) -> np.ndarray:
    """The same grid, turned about a random axis."""
    x, y, z = np.random.default_rng(seed).normal(size=3)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) / np.linalg.norm([x, y, z])
    angle = np.radians(degrees)
    rotation = np.eye(4)
    rotation[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation @ affine


AFFINES = [straight(*orientation) for orientation in ORIENTATIONS]
OBLIQUE = [turned(affine, 8 * (n % 13), n) for n, affine in enumerate(AFFINES)]


def places(affine: np.ndarray, shape=SHAPE) -> np.ndarray:
    """``(*shape, 3)``: where each voxel lies, mm."""
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.parametrize("affine", [*AFFINES, *OBLIQUE])
def test_every_voxel_goes_to_its_place_and_back(affine):
    """The value of a voxel is its position, so a voxel that is lost, doubled or moved fails the test."""
    array = places(affine)
    volume = volumes.to_axial(array, affine)
    np.testing.assert_array_equal(volumes.to_file_order(volume.voxels, volume.geometry), array)
    np.testing.assert_array_equal(volumes.to_file_order(volume.voxels[..., 0], volume.geometry), array[..., 0])
    expected = places(volumes.axial_affine(volume), volume.voxels.shape[:3])
    np.testing.assert_allclose(volume.voxels, expected, atol=1e-9)


@pytest.mark.parametrize("affine", AFFINES)
def test_slices_go_to_the_head_rows_to_the_back_columns_to_the_left(affine):
    volume = volumes.to_axial(places(affine), affine)
    upwards, backwards, leftwards = (np.diff(volume.voxels, axis=n) for n in range(3))
    assert (upwards[..., 2] > 0).all() and (backwards[..., 1] < 0).all() and (leftwards[..., 0] < 0).all()
    assert volume.voxels.flags.c_contiguous
    rows, columns, slices = volume.spacing
    np.testing.assert_allclose(upwards[0, 0, 0], (0, 0, slices))
    np.testing.assert_allclose(backwards[0, 0, 0], (0, -rows, 0), atol=1e-9)
    np.testing.assert_allclose(leftwards[0, 0, 0], (-columns, 0, 0), atol=1e-9)


@pytest.mark.parametrize("affine", [*AFFINES, *OBLIQUE])
def test_the_same_as_nibabel(affine):
    nibabel = pytest.importorskip("nibabel")
    array = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(array, affine))  # RAS+
    volume = volumes.to_axial(array, affine)
    np.testing.assert_array_equal(volume.voxels, np.asarray(canonical.dataobj)[::-1, ::-1].transpose(2, 1, 0))
    columns, rows, slices = canonical.header.get_zooms()
    np.testing.assert_allclose(volume.spacing, (rows, columns, slices), rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 8, 9), (8, 1, 9)])
def test_a_single_slice_in_any_direction(shape):
    for affine in AFFINES:
        array = np.arange(np.prod(shape)).reshape(shape)
        volume = volumes.to_axial(array, affine)
        np.testing.assert_array_equal(volumes.to_file_order(volume.voxels, volume.geometry), array)


def test_random_affines_far_from_any_axis_keep_every_voxel():
    rng = np.random.default_rng(1)
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    for seed in range(300):
        affine = turned(AFFINES[seed % 48], rng.uniform(0, 180), seed)
        affine[:3, :3] += rng.normal(0, 0.05, (3, 3))  # some shear
        volume = volumes.to_axial(array, affine)
        np.testing.assert_array_equal(volumes.to_file_order(volume.voxels, volume.geometry), array)


def test_voxels_of_another_shape_do_not_go_back():
    with pytest.raises(ValueError, match="axial shape"):
        volumes.to_file_order(np.zeros(SHAPE), Geometry(np.eye(4), SHAPE))


def test_p10_one_grid_in_two_orders_is_the_same_place():
    base = volumes.to_axial(places(AFFINES[0]), AFFINES[0])
    for order in itertools.permutations(range(3)):
        matrix = np.eye(4)[:, [*order, 3]]
        for flips in itertools.product((False, True), repeat=3):
            flip = np.eye(4)
            for n, flipped in enumerate(flips):
                if flipped:
                    flip[n, n], flip[n, 3] = -1, SHAPE[order[n]] - 1
            affine = AFFINES[0] @ matrix @ flip
            other = volumes.to_axial(np.zeros([SHAPE[n] for n in order]), affine)
            assert volumes.same_place(base, other)
            np.testing.assert_allclose(places(volumes.axial_affine(other), base.voxels.shape[:3]), base.voxels)


def shifted(row: int, column: int, by: float) -> np.ndarray:
    affine = AFFINES[0].copy()
    affine[row, column] += by
    return affine


@pytest.mark.parametrize(
    ("affine", "shape", "same"),
    [
        (shifted(0, 3, 0.08), SHAPE, True),  # under a tenth of 0.9 mm
        (shifted(0, 3, 0.1), SHAPE, False),
        (shifted(2, 3, 3.0), SHAPE, False),
        (shifted(2, 2, 0.0001), SHAPE, True),  # rounding, as headers have it
        (shifted(2, 2, 0.1), SHAPE, False),
        (shifted(0, 0, -1.8), SHAPE, False),  # mirrored
        (turned(AFFINES[0], 5, 1), SHAPE, False),
        (AFFINES[0], (9, 10, 12), False),
    ],
)
def test_p10_affines_that_differ(affine, shape, same):
    a, b = volumes.to_axial(np.zeros(SHAPE), AFFINES[0]), volumes.to_axial(np.zeros((*shape, 3)), affine)
    assert volumes.same_place(a, b) is same


BAD_AFFINES = {
    "NaN": (shifted(0, 0, np.nan), "not numbers"),
    "infinite": (shifted(1, 3, np.inf), "not numbers"),
    "too large": (shifted(1, 3, 1e300), "far too large"),
    "zero spacing": (shifted(0, 0, -0.9), "has voxels of 0 x 1.1 x 3 mm"),
    "metres": (straight((0, 1, 2), (1, 1, 1)) / 1000, "sides must be 0.01 to 100 mm"),
    "micrometres": (straight((0, 1, 2), (1, 1, 1)) * 1000, "sides must be 0.01 to 100 mm"),
    "singular": (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "lie in one plane"),
    "sheared": (shifted(0, 1, 0.4), "not perpendicular"),
}


@pytest.mark.parametrize("kind", BAD_AFFINES)
def test_p10_bad_affines_are_refused_by_name(kind):
    affine, what = BAD_AFFINES[kind]
    with pytest.raises(DataError, match=f"^p/a.nii: .*{what}") as caught:
        volumes.check_affine(affine, "p/a.nii")
    assert caught.value.problems[0].fix


def test_good_affines_are_accepted():
    for affine in (*AFFINES, *OBLIQUE, shifted(0, 1, 0.1)):
        volumes.check_affine(affine, "a")


@pytest.mark.parametrize(
    ("shape", "channels", "what"),
    [
        ((7, 8, 9), 1, "is 9 axial slices of 7 x 8 voxels"),
        ((8, 8, 1025), 1, "is 1025 axial slices"),
        ((1025, 8, 9), 1, "is 9 axial slices of 1025 x 8 voxels"),
        ((1024, 1024, 129), 1, "has 135,266,304 voxels, at most 134,217,728"),
        ((512, 512, 256), 3, "has 201,326,592 voxels"),
    ],
)
def test_p5_sizes_out_of_bounds_are_refused_by_name(shape, channels, what):
    with pytest.raises(DataError, match=f"^a.nii: {what}"):
        volumes.check_size(Geometry(AFFINES[0], shape), channels, "a.nii")


def test_the_smallest_and_the_largest_size_are_accepted():
    for shape in ((8, 8, 1), (1024, 1024, 128), (8, 8, 1024)):
        volumes.check_size(Geometry(AFFINES[0], shape), 1, "a.nii")
