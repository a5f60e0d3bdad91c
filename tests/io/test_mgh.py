"""FreeSurfer's volumes: the same voxels and place as in NIfTI, and what is refused by name."""

import gzip
import struct

import numpy as np
import pytest

from brainseg.errors import DataError
from brainseg.io import mgh, nifti, volumes

nibabel = pytest.importorskip("nibabel")
from tests.support import nifti_files  # noqa: E402

GRAY = np.random.default_rng(0).integers(0, 250, (8, 9, 10)).astype(np.int16)


def write(tmp_path, array, name: str = "a.mgz", affine=nifti_files.AFFINE):
    nibabel.save(nibabel.MGHImage(array, affine), tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh", "A.MGZ"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_voxels_and_place_are_those_of_the_same_volume_as_nifti(tmp_path, name, dtype):
    array = GRAY.astype(dtype)
    path = write(tmp_path, array, name.lower()).rename(tmp_path / name)
    (tmp_path / "a.nii").write_bytes(nifti_files.encode(array))
    volume, reference = mgh.read_image(path, name), nifti.read_image(tmp_path / "a.nii", "a.nii")
    assert volume.voxels.dtype == reference.voxels.dtype
    np.testing.assert_array_equal(volume.voxels, reference.voxels)
    np.testing.assert_allclose(volume.geometry.affine, reference.geometry.affine, atol=1e-5)


def test_three_frames_are_channels_and_other_numbers_are_refused(tmp_path):
    assert mgh.read_image(write(tmp_path, np.stack([GRAY] * 3, -1)), "a").voxels.shape[-1] == 3
    with pytest.raises(DataError, match="is 8 x 9 x 10 x 4, one volume is accepted"):
        mgh.read_image(write(tmp_path, np.stack([GRAY] * 4, -1)), "a")


def test_labels_of_freesurfer_are_kept(tmp_path):
    labels = mgh.read_labels(write(tmp_path, GRAY.astype("i4") + 1000), "aseg.mgz")
    assert labels.voxels.dtype == np.uint16
    np.testing.assert_array_equal(volumes.to_file_order(labels.voxels, labels.geometry), GRAY + 1000)


@pytest.mark.parametrize(
    ("at", "value", "what"),
    [
        (0, struct.pack(">i", 2), "is not MGH"),
        (4, struct.pack(">i", 0), "impossible dimensions"),
        (4, struct.pack(">iii", 900, 900, 900), "voxels, at most"),
        (20, struct.pack(">i", 77), "unknown type"),
        (28, struct.pack(">h", 0), "has no orientation"),
        (30, struct.pack(">f", 0.0), "voxels of"),
    ],
)
def test_bad_headers_are_refused_by_name(tmp_path, at, value, what):
    path = write(tmp_path, GRAY, "a.mgh")
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(gzip.compress(data))
    with pytest.raises(DataError, match=f"in/a: .*{what}"):
        mgh.read_image(path, "in/a")


def test_what_is_cut_short_is_refused(tmp_path):
    path = write(tmp_path, GRAY)
    data = path.read_bytes()
    for kept in (len(data) - 9, 500, 100, 0):
        path.write_bytes(data[:kept])
        with pytest.raises(DataError):
            mgh.read_image(path, "a")
