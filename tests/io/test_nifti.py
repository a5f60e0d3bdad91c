"""NIfTI: what each kind of file becomes, what is refused by name, and masks that come back where they were."""

import gzip
import os
import sys
import time

import numpy as np
import pytest

from brainseg.errors import DataError, MachineError
from brainseg.io import nifti, volumes

nibabel = pytest.importorskip("nibabel")
from tests.support.nifti_files import AFFINE, AT, LPS, encode  # noqa: E402

SHAPE = (8, 9, 10)
GRAY = np.random.default_rng(0).integers(0, 250, SHAPE).astype(np.uint8)
RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
SECRET = b"DOE^JANE 19700101"


def place(tmp_path, data: bytes, name: str = "a.nii"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def read(tmp_path, data: bytes, reader=nifti.read_image, **options):
    return reader(place(tmp_path, data), "p/a.nii", **options)


def file_order(volume) -> np.ndarray:
    return volumes.to_file_order(volume.voxels, volume.geometry)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
def test_types_that_stay(tmp_path, kind, packed, dtype):
    array = GRAY.astype(dtype) * np.array(100 if dtype in ("u2", "i2") else 1, dtype)
    volume = read(tmp_path, packed(encode(array, kind=kind)))
    assert volume.voxels.dtype == np.dtype(dtype) and volume.voxels.shape == (9, 8, 10)
    np.testing.assert_array_equal(file_order(volume), array)
    np.testing.assert_allclose(volume.geometry.affine, AFFINE)
    assert volume.spacing == (1.5, 2.0, 1.25) and volume.geometry.shape == SHAPE


@pytest.mark.parametrize("dtype", ["i1", "i4", "u4", "i8", "u8", "f8"])
def test_p3_other_types_become_float32_exactly(tmp_path, dtype):
    array = GRAY.astype("i8") - (0 if dtype[0] == "u" else 100)
    array = array.clip(-128, 127) if dtype == "i1" else array * 1000
    volume = read(tmp_path, encode(array.astype(dtype)))
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(file_order(volume), array)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "i4"])
def test_p3_scaled_values_become_float32(tmp_path, dtype):
    volume = read(tmp_path, encode(GRAY.astype(dtype), slope=("<f", 0.5), inter=("<f", -7)))
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(file_order(volume), GRAY * 0.5 - 7)


def test_a_slope_that_means_none(tmp_path):
    for slope in (0.0, np.nan):
        volume = read(tmp_path, encode(GRAY, slope=("<f", slope), inter=("<f", 5)))
        np.testing.assert_array_equal(file_order(volume), GRAY)
        assert volume.voxels.dtype == np.uint8


def test_big_endian_and_trailing_axes_of_one(tmp_path):
    array = GRAY.astype("i2") * 100
    image = nibabel.Nifti1Image(array, AFFINE).header.as_byteswapped(">")
    image["vox_offset"], image["sform_code"] = 352, 1
    volume = read(tmp_path, image.binaryblock + bytes(4) + array.astype(">i2").tobytes("F"))
    assert volume.voxels.dtype == np.dtype("=i2")
    np.testing.assert_array_equal(file_order(volume), array)
    for shape in ((*SHAPE, 1), (*SHAPE, 1, 1)):
        assert read(tmp_path, encode(GRAY.reshape(shape))).voxels.shape == (9, 8, 10)


def test_p10_three_channels_and_rgb(tmp_path):
    array = np.stack([GRAY, 255 - GRAY, GRAY // 2], axis=-1)
    for stored in (array, np.ascontiguousarray(array).view(RGB24)[..., 0]):
        volume = read(tmp_path, encode(stored))
        assert volume.voxels.dtype == np.uint8 and volume.voxels.shape == (9, 8, 10, 3)
        np.testing.assert_array_equal(file_order(volume), array)
    assert read(tmp_path, encode(array.astype("f4"))).voxels.dtype == np.float32


def test_p10_the_sform_wins_and_the_qform_serves_where_there_is_none(tmp_path):
    other = AFFINE + np.array([[0, 0, 0, 5.0]] * 3 + [[0, 0, 0, 0]])
    moved = encode(GRAY, srow=("<12f", *other[:3].ravel()))
    np.testing.assert_allclose(read(tmp_path, moved).geometry.affine, other)
    unset = encode(GRAY, srow=("<12f", *other[:3].ravel()), sform=("<h", 0))
    np.testing.assert_allclose(read(tmp_path, unset).geometry.affine, AFFINE, atol=1e-5)
    zero = encode(GRAY, sform=("<h", 0), pixdim=("<f", 0))
    expected = nibabel.load(place(tmp_path, zero, "b.nii")).affine  # a qfac of 0 counts as 1
    np.testing.assert_allclose(read(tmp_path, zero).geometry.affine, expected)


SHEARED = AFFINE + np.array([[0, 0.6, 0, 0], [0, 0, 0.6, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("reader", [nifti.read_image, nifti.read_labels])
@pytest.mark.parametrize(
    ("rows", "what"),
    [(SHEARED, "not perpendicular"), (np.zeros((4, 4)), "0 x 0 x 0 mm"), (np.full((4, 4), np.nan), "not numbers")],
)
def test_the_qform_serves_where_the_sform_is_unusable_and_that_is_told(tmp_path, rows, what, reader):
    volume = read(tmp_path, encode(GRAY, srow=("<12f", *rows[:3].ravel())), reader)
    np.testing.assert_allclose(volume.geometry.affine, AFFINE, atol=1e-5)
    [remark] = volume.remarks
    assert remark.startswith("its sform has ") and what in remark and "qform was used" in remark
    assert read(tmp_path, PLAIN, reader).remarks == ()


def test_one_slice_of_two_axes(tmp_path):
    flat = GRAY[:, :, 0]
    volume = read(tmp_path, encode(flat, LPS))
    assert volume.voxels.shape == (1, 9, 8) and volume.geometry.shape == (8, 9, 1)
    np.testing.assert_array_equal(file_order(volume)[..., 0], flat)
    assert read(tmp_path, encode(flat, LPS), nifti.read_labels).voxels.shape == (1, 9, 8)


@pytest.mark.parametrize("intent", [1007, 2003])
def test_vectors_of_a_fifth_axis_are_channels(tmp_path, intent):
    volume = read(tmp_path, encode(VECTORS, intent=("<h", intent)))
    np.testing.assert_array_equal(file_order(volume), VECTORS[:, :, :, 0])


def test_three_channels_without_a_step_in_time_are_no_series(tmp_path):
    channels = VECTORS[:, :, :, 0]
    for edits in ({"step": ("<f", 0), "units": ("<b", 10)}, {"step": ("<f", 0)}, {"units": ("<b", 2)}):
        assert read(tmp_path, encode(channels, **edits)).voxels.shape == (9, 8, 10, 3)


def pair(folder, kind=nibabel.Nifti1Pair, name: str = "a.img", array: np.ndarray = GRAY):
    nibabel.save(kind(array, AFFINE), folder / name)
    return folder


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("halves", [("a.img", "a.hdr"), ("a.img.gz", "a.hdr.gz")])
def test_a_pair_is_read_whichever_half_is_named(tmp_path, kind, halves):
    pair(tmp_path, kind, halves[0])
    for half in halves:
        volume = nifti.read_image(tmp_path / half, half)
        np.testing.assert_array_equal(file_order(volume), GRAY)
        np.testing.assert_allclose(volume.geometry.affine, AFFINE, atol=1e-5)
        np.testing.assert_array_equal(nifti.read_labels(tmp_path / half, half).voxels, volume.voxels)


def test_half_a_pair_and_one_without_left_and_right_are_refused(tmp_path):
    pair(tmp_path)
    for half, other in (("a.img", "hdr"), ("a.hdr", "img")):
        alone = place(tmp_path, (tmp_path / half).read_bytes(), half.replace("a", "alone"))
        with pytest.raises(DataError, match=rf"^x: .* no \.{other}"):
            nifti.read_image(alone, "x")
        alone.unlink()
    whole = (tmp_path / "a.img").read_bytes()
    place(tmp_path, whole[:-1], "a.img")
    with pytest.raises(DataError, match="is cut short: 719 of 720 bytes"):
        nifti.read_image(tmp_path / "a.hdr", "x")
    pair(tmp_path, nibabel.AnalyzeImage, "b.img", GRAY.astype(np.int16))
    for half in ("b.img", "b.hdr"):
        with pytest.raises(DataError, match=r"Analyze .* left and right") as caught:
            nifti.read_image(tmp_path / half, "x")
        assert "dcm2niix" in caught.value.problems[0].fix


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


PLAIN, TWO = encode(GRAY), encode(GRAY, kind=nibabel.Nifti2Image)
FLOAT = GRAY.astype("f4")
VECTORS = np.stack([GRAY, 255 - GRAY, GRAY // 2], -1).reshape(*SHAPE, 1, 3)
HUGE = GRAY.astype("i4") + 2**24
BAD = {
    "p5 empty": (b"", "is empty"),
    "p5 text": (b"patient,slice\n" * 50, "is not NIfTI"),
    "p5 four bytes": (PLAIN[:4], "cut short within its header"),
    "p5 half a header": (PLAIN[:200], "cut short within its header"),
    "p5 half a NIfTI-2 header": (TWO[:400], "cut short within its header"),
    "p5 header alone": (PLAIN[:352], "is cut short: 0 of 720 bytes"),
    "p5 truncated": (PLAIN[:-1], "is cut short: 719 of 720 bytes"),
    "p5 truncated gzip": (gzip.compress(PLAIN)[:-20], "gzip stream is not whole"),
    "p5 flipped gzip": (flipped(gzip.compress(PLAIN), -6), "gzip stream is not whole"),
    "p5 gzip of nothing": (gzip.compress(b""), "is empty"),
    "p5 bomb": (gzip.compress(PLAIN + bytes(2**22)), "holds more than its header declares"),
    "p5 too long": (PLAIN + bytes(2**21), "holds more than its header declares"),
    "p5 wrong magic": (encode(GRAY, magic=("<4s", b"nope")), "no NIfTI mark"),
    "p5 Analyze": (encode(GRAY, magic=("<4s", b"")), "no NIfTI mark"),
    "p5 NIfTI-2 line ends": (TWO.replace(b"\r\n\x1a\n", b"\n\n\x1a\n", 1), "no NIfTI mark"),
    "p5 hdr of a pair": (encode(GRAY, magic=("<4s", b"ni1\0"))[:348], "pair .hdr and .img"),
    "p5 img of a pair": (PLAIN[352:], "is not NIfTI"),
    "p5 flipped size": (flipped(PLAIN, 1), "is not NIfTI"),
    "p5 no dimensions": (encode(GRAY, dim=("<h", 0)), "impossible dimensions"),
    "p5 nine dimensions": (encode(GRAY, dim=("<h", 9)), "impossible dimensions"),
    "p5 negative side": (encode(GRAY, dim=("<2h", 3, -8)), "impossible dimensions"),
    "p5 1x1": (encode(GRAY[:1, :, :1]), "is 9 axial slices of 1 x 1 voxels"),
    "p5 30,000x30,000": (encode(GRAY, dim=("<4h", 3, 30000, 1, 30000)), "30000 x 30000"),
    "p5 too many voxels": (encode(GRAY, dim=("<4h", 3, 1024, 1024, 1024)), "1,073,741,824 voxels"),
    "p5 offset within the header": (encode(GRAY, vox_offset=("<f", 8)), "impossible place"),
    "p5 offset beyond": (encode(GRAY, vox_offset=("<f", 1e12)), "impossible place"),
    "p5 offset NaN": (encode(GRAY, vox_offset=("<f", np.nan)), "impossible place"),
    "p5 type and size disagree": (encode(GRAY, bitpix=("<h", 16)), "disagree"),
    "p5 scaling": (encode(GRAY, slope=("<f", np.inf)), "scl_slope"),
    "p4 NaN": (encode(np.where(GRAY > 9, FLOAT, np.nan)), r"holds \d+ voxels that are NaN"),
    "p4 infinite": (encode(np.where(GRAY > 9, FLOAT, -np.inf)), r"holds \d+ voxels that are NaN, infinite"),
    "p4 beyond float32": (encode(GRAY * 1e300), "beyond float32"),
    "p4 scaled beyond float32": (encode(FLOAT * 1e30, slope=("<f", 1e30)), "beyond float32"),
    "p3 integers beyond float32": (encode(HUGE), "integers beyond 16,777,216"),
    "p3 negative ones": (encode(-HUGE.astype("i8")), "integers beyond 16,777,216"),
    "p3 complex": (encode(GRAY.astype("c8")), "voxels of complex type"),
    "p3 RGBA": (encode(GRAY, datatype=("<h", 2304)), "RGBA"),
    "p3 1-bit": (encode(GRAY, datatype=("<h", 1)), "1-bit"),
    "p3 unknown": (encode(GRAY, datatype=("<h", 77)), "an unknown type"),
    "p10 4-D": (encode(np.stack([GRAY] * 4, -1)), "is 8 x 9 x 10 x 4, one volume"),
    "p10 5-D": (encode(np.stack([GRAY] * 3, -1).reshape(*SHAPE, 1, 3)), "is 8 x 9 x 10 x 1 x 3"),
    "p10 2-D without a place": (encode(GRAY[0], sform=("<h", 0), qform=("<h", 0)), "neither sform nor qform"),
    "p10 1-D": (encode(GRAY, dim=("<2h", 1, 8)), "is 8, one volume"),
    "p10 seconds": (encode(np.stack([GRAY] * 3, -1), units=("<b", 10), step=("<f", 2)), "volumes every 2 s"),
    "p10 milliseconds": (encode(np.stack([GRAY] * 3, -1), units=("<b", 18)), "series of 3 volumes every 1 ms"),
    "p10 step in time": (encode(np.stack([GRAY] * 3, -1), step=("<f", 2.5)), "series of 3 volumes every 2.5 by"),
    "p10 spectrum": (encode(np.stack([GRAY] * 3, -1), units=("<b", 34)), "series of 3 volumes by"),
    "p10 intent of time": (encode(np.stack([GRAY] * 3, -1), intent=("<h", 2001)), "series of 3 volumes"),
    "p10 displacements": (encode(VECTORS, intent=("<h", 1006)), "is 8 x 9 x 10 x 1 x 3"),
    "p10 RGB and channels": (encode(np.zeros((*SHAPE, 3), RGB24)), "several colours"),
    "p10 no orientation": (encode(GRAY, qform=("<2h", 0, 0)), "neither sform nor qform"),
    "p10 metres": (encode(GRAY, units=("<b", 1)), "millimetres"),
    "p10 zero spacing": (encode(GRAY, srow=("<12f", *[0] * 12), qform=("<h", 0)), "voxels of 0 x 0 x 0 mm"),
    "p10 sform and qform": (encode(GRAY, srow=("<12f", *[0] * 12), quatern=("<3f", 9, 9, 9)), "voxels of 0 x 0 x 0"),
    "p10 sform of NaN": (encode(GRAY, srow=("<f", np.nan), qform=("<h", 0)), "not numbers"),
    "p10 qform no rotation": (encode(GRAY, sform=("<h", 0), quatern=("<3f", 9, 9, 9)), "no rotation"),
    "p10 qform of NaN": (encode(GRAY, sform=("<h", 0), quatern=("<3f", *[np.nan] * 3)), "no rotation|not numbers"),
    "p10 negative pixdim": (encode(GRAY, sform=("<h", 0), pixdim=("<2f", 1, -1)), "no rotation"),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", BAD)
def test_p4_p5_p10_bad_files_are_refused_by_name(tmp_path, kind, capfd):
    data, what = BAD[kind]
    texts = data[: AT["descrip"]] + SECRET.ljust(80, b"\0") + data[AT["descrip"] + 80 :]  # descrip, in NIfTI-1
    for stored in (data, texts if data[:4] == PLAIN[:4] and len(data) > 348 else data):
        with pytest.raises(DataError, match=f"^p/a.nii: .*({what})") as caught:
            read(tmp_path, stored)
        [problem] = caught.value.problems
        assert problem.fix and "\n" not in problem.what and "DOE" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def few(dtype, *values) -> np.ndarray:
    array = np.zeros(SHAPE, dtype)
    array[: len(values), 1, 1] = values
    return array


BAD_LABELS = {
    "fractions": (few("f4", 0.5, 1.25, 3), "holds the values 0.5, 1.25, labels must"),
    "negative": (few("i2", -1, -300, 2), "holds the values -300, -1, labels"),
    "above 65535": (
        few("u4", *range(65534, 65538)),
        "holds the values 65536, 65537, labels must be whole numbers 0 to 65535",
    ),
    "NaN": (few("f8", np.nan, np.inf, 1), "holds the values inf, nan, labels"),
    "channels": (np.stack([GRAY] * 3, -1), "has 3 channels, a mask must have one"),
    "RGB": (np.zeros(SHAPE, RGB24), "has 3 channels, a mask must have one"),
    "4-D": (np.stack([GRAY] * 2, -1), "is 8 x 9 x 10 x 2, one volume"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", BAD_LABELS)
def test_p2_p10_bad_labels_are_refused_with_their_values(tmp_path, kind):
    array, what = BAD_LABELS[kind]
    with pytest.raises(DataError, match=f"^p/a.nii: {what}") as caught:
        read(tmp_path, encode(array), nifti.read_labels)
    assert caught.value.problems[0].fix


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "i8"])
def test_whole_numbers_of_any_type_are_labels(tmp_path, dtype):
    volume = read(tmp_path, encode(few(dtype, 0, 1, 4, 100)), nifti.read_labels)
    assert volume.voxels.dtype == np.uint8
    np.testing.assert_array_equal(file_order(volume), few("u1", 0, 1, 4, 100))
    halved = read(tmp_path, encode(few(dtype, 2, 4), slope=("<f", 0.5)), nifti.read_labels)
    np.testing.assert_array_equal(file_order(halved), few("u1", 1, 2))


def test_labels_above_255_are_16_bits(tmp_path):
    volume = read(tmp_path, encode(few("i4", 0, 205, 1001, 65535)), nifti.read_labels)
    assert volume.voxels.dtype == np.uint16
    np.testing.assert_array_equal(np.unique(volume.voxels), [0, 205, 1001, 65535])


def test_limits_hold_before_voxels_are_read(tmp_path):
    for reader, array in (
        (nifti.read_image, GRAY),
        (nifti.read_image, np.zeros(SHAPE, RGB24)),
        (nifti.read_labels, GRAY),
    ):
        with pytest.raises(DataError, match="voxels, at most 719 are accepted"):
            read(tmp_path, encode(array)[:352], reader, most=719)


def test_p9_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    for name, what in (("pipe.nii", "is not a file"), ("", "is not a file"), ("none.nii", "No such file")):
        with pytest.raises(DataError, match=what):
            nifti.read_image(tmp_path / name, "a.nii")


@pytest.mark.filterwarnings("error")
def test_p5_damaged_headers_are_read_or_refused_but_never_crash(tmp_path, capfd):
    rng = np.random.default_rng(5)
    for source in (PLAIN, TWO, encode(FLOAT, sform=("<h", 0)), gzip.compress(PLAIN)):
        for _ in range(150):
            damaged = np.frombuffer(source, np.uint8).copy()
            damaged[rng.integers(0, min(352, len(source)), 4)] = rng.integers(0, 256, 4)
            try:
                assert np.isfinite(read(tmp_path, damaged.tobytes(), most=2**20).voxels).all()
            except DataError as error:
                assert error.problems[0].path == "p/a.nii"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_mask_comes_back_where_its_image_is(tmp_path, name, kind):
    angle = np.radians(20)
    oblique = np.eye(4)
    oblique[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for affine in (AFFINE, oblique @ AFFINE):
        image = read(tmp_path, encode(GRAY, affine, kind))
        nifti.write(tmp_path / name, image.voxels > 100, image.geometry)
        written = nibabel.load(tmp_path / name)
        assert written.get_data_dtype() == np.uint8
        assert written.header["sform_code"] == written.header["qform_code"] == 1  # scanner
        np.testing.assert_array_equal(np.asarray(written.dataobj), GRAY > 100)
        np.testing.assert_allclose(written.affine, affine, atol=1e-5)
        np.testing.assert_allclose(written.get_qform(), affine, atol=1e-3)
        mask = nifti.read_labels(tmp_path / name, name)
        assert volumes.same_place(image, mask)
        np.testing.assert_array_equal(mask.voxels, image.voxels > 100)


def test_p10_a_mask_in_another_order_lies_in_the_same_place(tmp_path):
    image = read(tmp_path, encode(GRAY))
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(GRAY, AFFINE))
    mask = read(tmp_path, encode(np.asarray(canonical.dataobj), canonical.affine), nifti.read_labels)
    assert mask.geometry.shape != image.geometry.shape and volumes.same_place(image, mask)
    np.testing.assert_array_equal(mask.voxels, image.voxels)
    moved = AFFINE + np.array([[0, 0, 0, 0.2]] * 3 + [[0, 0, 0, 0]])
    assert not volumes.same_place(image, read(tmp_path, encode(GRAY, moved), nifti.read_labels))


def test_the_same_mask_gives_the_same_bytes_and_no_text(tmp_path, monkeypatch):
    source = nibabel.Nifti1Image(GRAY, AFFINE)
    source.header["descrip"] = source.header["aux_file"] = source.header["db_name"] = SECRET
    source.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", SECRET))
    image = read(tmp_path, source.to_bytes())
    np.testing.assert_array_equal(file_order(image), GRAY)
    nifti.write(tmp_path / "1.nii.gz", image.voxels, image.geometry)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    nifti.write(tmp_path / "2.nii.gz", image.voxels, image.geometry)
    written = (tmp_path / "1.nii.gz").read_bytes()
    assert written == (tmp_path / "2.nii.gz").read_bytes()
    assert SECRET in source.to_bytes() and b"DOE" not in gzip.decompress(written) + written


def test_a_mask_of_another_type_shape_or_ending_is_not_written(tmp_path):
    image = read(tmp_path, PLAIN)
    for name, mask in (("a.nii", image.voxels * 0.5), ("a.nii", image.voxels[0]), ("a.img", image.voxels)):
        with pytest.raises(ValueError, match="uint8"):
            nifti.write(tmp_path / "out" / name, mask, image.geometry)
    with pytest.raises(ValueError, match="axial shape"):
        nifti.write(tmp_path / "out/a.nii", image.voxels[1:], image.geometry)
    assert not (tmp_path / "out").exists()


def test_without_nibabel_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MachineError, match="NIfTI: needs nibabel") as caught:
        read(tmp_path, PLAIN)
    assert caught.value.problems[0].fix == "pip install 'brainseg-lgg[medical]'"


def test_half_of_a_pair_whose_other_half_has_too_long_a_name_is_alone(tmp_path):
    path = tmp_path / f"{'x' * 250}.hdr"
    path.write_bytes(b"")
    assert nifti.find_other_half(path) is None
