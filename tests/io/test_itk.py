"""NRRD and MetaImage: the same voxels and place as in NIfTI, what is refused, and no file but the one that is meant."""

import contextlib
import struct

import numpy as np
import pytest

from brainseg.errors import DataError
from brainseg.io import itk, nifti, scans, volumes

pytest.importorskip("SimpleITK")
pytest.importorskip("nibabel")
from tests.support import itk_files, nifti_files

TURN = np.array([[0.98, -0.17, 0.1], [0.18, 0.97, -0.13], [-0.08, 0.15, 0.985]])
OBLIQUE = nifti_files.AFFINE.copy()
OBLIQUE[:3, :3] = np.linalg.qr(TURN)[0] @ OBLIQUE[:3, :3]
GRAY = np.random.default_rng(0).integers(0, 250, (8, 9, 10)).astype(np.int16)


def read_both(tmp_path, path, array, affine):
    (tmp_path / "reference.nii").write_bytes(nifti_files.encode(array, affine))
    return itk.read_image(path, path.name), nifti.read_image(tmp_path / "reference.nii", "reference.nii")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", itk.SUFFIXES)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "f4", "i4", "f8"])
def test_voxels_and_place_are_those_of_the_same_volume_as_nifti(tmp_path, ending, dtype, packed):
    array = GRAY.astype(dtype)
    path = itk_files.write(tmp_path / f"a{ending}", array, OBLIQUE, packed=packed)
    volume, reference = read_both(tmp_path, path, array, OBLIQUE)
    assert volume.voxels.dtype == reference.voxels.dtype and volume.geometry.shape == reference.geometry.shape
    np.testing.assert_array_equal(volume.voxels, reference.voxels)
    np.testing.assert_allclose(volume.geometry.affine, reference.geometry.affine, atol=1e-5)


@pytest.mark.parametrize("ending", itk.SUFFIXES)
def test_three_values_of_a_voxel_are_channels_other_numbers_are_refused(tmp_path, ending):
    colours = np.stack([GRAY, GRAY + 1, GRAY + 2], -1)
    path = itk_files.write(tmp_path / f"a{ending}", colours, OBLIQUE)
    volume, reference = read_both(tmp_path, path, colours, OBLIQUE)
    np.testing.assert_array_equal(volume.voxels, reference.voxels)
    with pytest.raises(DataError, match="has 3 channels, a mask must have one"):
        itk.read_labels(path, "a")
    path = itk_files.write(tmp_path / f"b{ending}", colours[..., :2], OBLIQUE)
    with pytest.raises(DataError, match="is 8 x 9 x 10 x 2, one volume is accepted"):
        itk.read_image(path, "b")


def test_labels_may_be_above_255(tmp_path):
    path = itk_files.write(tmp_path / "a.nrrd", GRAY * 100, OBLIQUE)
    labels = itk.read_labels(path, "a")
    assert labels.voxels.dtype == np.uint16
    np.testing.assert_array_equal(volumes.to_file_order(labels.voxels, labels.geometry), GRAY * 100)


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
@pytest.mark.parametrize(
    ("named", "what"),
    [
        ("{outside}", "only a file in the same folder is read"),
        ("../secret.raw", "only a file in the same folder is read"),
        ("gone.raw", "gone.raw, is not beside it"),
        ("LIST", "has its voxels in several files"),
        ("a%03d.raw 1 10 1", "has its voxels in several files"),
    ],
)
def test_voxels_lie_in_the_same_folder_or_nowhere(tmp_path, ending, named, what):
    path = itk_files.write(tmp_path / f"in/a{ending}", GRAY, OBLIQUE)
    outside = (tmp_path / "in/a.raw").rename(tmp_path / "secret.raw")
    path.write_text(path.read_text().replace("a.raw", named.format(outside=outside)))
    with pytest.raises(DataError, match=what):
        itk.read_image(path, "in/a")


@pytest.mark.parametrize("line", ["data file: {}", "datafile: {}", "DATA  FILE: {}"])
def test_a_second_name_of_voxels_is_refused(tmp_path, line):
    path = itk_files.write(tmp_path / "in/a.nhdr", GRAY, OBLIQUE)
    (tmp_path / "secret.raw").write_bytes(bytes(2 * GRAY.size))
    text = path.read_text()
    path.write_text(text.replace("type:", line.format(tmp_path / "secret.raw") + "\ntype:"))
    with pytest.raises(DataError, match="a field twice"):
        itk.read_image(path, "a")


def edited(tmp_path, ending, *edits):
    path = itk_files.write(tmp_path / f"a{ending}", GRAY, OBLIQUE)
    data = path.read_bytes()
    for old, new in edits:
        assert old in data
        data = data.replace(old, new)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_nrrd_of_another_space_and_with_other_line_ends(tmp_path, newline):
    path = edited(tmp_path, ".nrrd", (b"left-posterior-superior", b"RAS"))
    head, end, voxels = path.read_bytes().partition(b"\n\n")
    path.write_bytes((head + end).replace(b"\n", newline) + voxels)
    found = itk.read_image(path, "a").geometry.affine
    np.testing.assert_allclose(found, np.diag([-1, -1, 1, 1.0]) @ OBLIQUE, atol=1e-5)


BAD = {
    "nrrd without a space": (".nrrd", [(b"space: left-posterior-superior", b"space dimension: 3")], "no orientation"),
    "nrrd of a scanner": (".nrrd", [(b"left-posterior-superior", b"scanner-xyz")], "no orientation"),
    "meta without a matrix": (".mha", [(b"TransformMatrix", b"TransformMatrox")], "no orientation"),
    "meta without a spacing": (".mha", [(b"ElementSpacing", b"ElementSpocing")], "no ElementSpacing"),
    "large nrrd": (".nrrd", [(b"sizes: 8 9 10", b"sizes: 900 900 900")], "voxels, at most"),
    "large meta": (".mha", [(b"DimSize = 8 9 10", b"DimSize = 900 900 900")], "voxels, at most"),
    "small nrrd": (".nrrd", [(b"sizes: 8 9 10", b"sizes: 2 9 10")], "are accepted"),
    "bzip2": (".nrrd", [(b"encoding: raw", b"encoding: bzip2")], "other than raw or gzip"),
    "block": (".nrrd", [(b"type: short", b"type: block")], "type that is not read"),
    "time": (".mha", [(b"ElementType = MET_SHORT", b"ElementType = MET_OTHER")], "type that is not read"),
    "not finite": (".mha", [(b"Offset = ", b"Offset = nan ")], "Offset in its header is not 3 numbers"),
    "no field": (".nrrd", [(b"type: short", b"type short")], "no field"),
    "no NRRD": (".nrrd", [(b"NRRD0004", b"NRXX0004")], "neither NRRD nor MetaImage"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_headers_are_refused_by_name_and_in_silence(tmp_path, capfd, kind):
    ending, edits, what = BAD[kind]
    path = edited(tmp_path, ending, *edits)
    with pytest.raises(DataError, match=what) as caught:
        itk.read_image(path, "in/a")
    assert caught.value.problems[0].path == "in/a"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_what_is_cut_short_is_refused_in_silence(tmp_path, capfd, ending, packed):
    path = itk_files.write(tmp_path / f"a{ending}", GRAY, OBLIQUE, packed=packed)
    data = path.read_bytes()
    for kept in (len(data) - 9, len(data) - 300, 320, 100, 10, 0):
        path.write_bytes(data[:kept])
        with pytest.raises(DataError):
            itk.read_image(path, "a")
    assert capfd.readouterr() == ("", "")


def test_damaged_bytes_are_read_or_refused_but_never_told_on_the_terminal(tmp_path, capfd):
    random = np.random.default_rng(1)
    for ending in itk.SUFFIXES:
        path = itk_files.write(tmp_path / f"a{ending}", GRAY, OBLIQUE, packed=True)
        data = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(data)
            damaged[random.integers(min(len(data), 500))] = random.integers(256)
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):
                itk.read_image(path, "a")
    assert capfd.readouterr() == ("", "")


def test_lines_to_skip_end_with_the_file(tmp_path):
    path = itk_files.write(tmp_path / "a.nhdr", GRAY, OBLIQUE, packed=True)
    path.write_bytes(path.read_bytes().replace(b"data file:", b"line skip: 4000000000\ndata file:"))
    with pytest.raises(DataError, match="a: "):
        itk.read_image(path, "a")


def test_only_known_fields_reach_itk(tmp_path):
    path = itk_files.write(tmp_path / "a.mha", GRAY, OBLIQUE)
    data = path.read_bytes().replace(b"ObjectType", b"Comment = DOE^JANE\nObjectType")
    header = itk._read_header(data, "a")
    lines = itk._rewrite(header, len(data), "a")
    assert (
        not [line for line in lines if "DOE" in line or "Comment" in line] and lines[-1] == "ElementDataFile = voxels"
    )
    assert struct.calcsize("h") * GRAY.size == len(data) - header.end


@pytest.mark.parametrize("space", [b"\t", b"  ", b"\v", "\u00a0".encode()])
@pytest.mark.parametrize("ending", itk.SUFFIXES)
def test_any_white_space_in_a_field_is_a_blank(tmp_path, ending, space):
    path = itk_files.write(tmp_path / f"a{ending}", GRAY, OBLIQUE)
    data = path.read_bytes()
    end = itk._read_header(data, "a").end
    sign = b":" if itk.is_nrrd(data) else b" ="
    lines = [line.split(sign, 1) for line in data[:end].split(b"\n")]
    turned = [sign.join([key, b" " + value.strip().replace(b" ", space)]) if value else key for key, *rest in lines
              for value in [rest[0] if rest else b""]]  # fmt: skip
    path.write_bytes(b"\n".join(turned) + data[end:])
    volume, reference = read_both(tmp_path, path, GRAY, OBLIQUE)
    np.testing.assert_allclose(volume.geometry.affine, reference.geometry.affine, atol=1e-5)
    np.testing.assert_array_equal(volume.voxels, reference.voxels)


@pytest.mark.parametrize(("ending", "old"), [(".mha", b"CompressedData = False"), (".nrrd", b"kinds: domain")])
def test_a_field_that_itk_would_not_get_is_refused(tmp_path, ending, old):
    path = edited(tmp_path, ending, (old, old + b" ;"))
    with pytest.raises(DataError, match="in its header is empty, too long or has odd characters"):
        itk.read_image(path, "a")


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
@pytest.mark.parametrize("letters", ["x" * 251, "\u4e2d" * 84])
def test_a_name_of_voxels_that_no_disk_holds_is_refused(tmp_path, ending, letters):
    path = itk_files.write(tmp_path / f"a{ending}", GRAY, OBLIQUE)
    path.write_text(path.read_text().replace("a.raw", letters), "utf-8")
    with pytest.raises(DataError, match="bytes, at most 250 are read"):
        scans.find_other_half(path, "a")


@pytest.mark.parametrize(("ending", "binary", "text"), [
    (".nrrd", b"encoding: raw", b"encoding: ascii"), (".mha", b"BinaryData = True", b"BinaryData = False"),
])  # fmt: skip
def test_voxels_as_text_on_which_itk_crashes_are_refused(tmp_path, ending, binary, text):
    path = itk_files.write(tmp_path / f"a{ending}", GRAY, nifti_files.AFFINE)
    whole = path.read_bytes()
    assert binary in whole
    path.write_bytes(whole.replace(binary, text))
    with pytest.raises(DataError, match=r"as text|other than raw or gzip"):
        itk.read_image(path, "a")
