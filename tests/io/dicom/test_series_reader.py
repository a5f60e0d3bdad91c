"""DICOM: what a series becomes, what is refused by name, and that no text of a header is shown."""

import logging
import random
import sys

import numpy as np
import pytest

from brainseg.errors import BrainsegError, DataError, MachineError
from brainseg.io import nifti, volumes
from brainseg.io.dicom import pixel_data, series_reader, slice_header

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402

from tests.support.dicom_series import AXES, COLUMNS, COUNT, NORMAL, ROWS, STORED, one, save, series  # noqa: E402

TILTED, SHIFTED = NORMAL + np.array([0.2, 0, 0]), (np.array([-69.8, 25.5, 90]) + 6 * NORMAL).round(6).tolist()


def read(tmp_path, datasets, **options):
    return series_reader.read_series(save(tmp_path / "s", datasets), "p/s", **options)


def in_file_order(volume) -> np.ndarray:
    """``(slices, rows, columns)``."""
    return volumes.to_file_order(volume.voxels, volume.geometry).transpose(2, 1, 0)


def test_every_pixel_lies_where_the_standard_says(tmp_path):
    """PS3.3 C.7.6.2.1.1: position = ImagePositionPatient + column * row direction + row * column direction."""
    paths = save(tmp_path / "s", series())
    volume = series_reader.read_series(random.Random(2).sample(paths, COUNT), "p/s")
    assert volume.voxels.dtype == np.uint16 and volume.geometry.shape == (COLUMNS, ROWS, COUNT)
    np.testing.assert_array_equal(in_file_order(volume), STORED)
    np.testing.assert_allclose(volume.spacing, (0.75, 1.25, 3))  # the rows of the volume are the columns of the file
    assert "DOE" not in repr(volume) and "1970" not in repr(volume)
    affine = volumes.axial_affine(volume)
    for at in np.ndindex(volume.voxels.shape):
        [[n, row, column]] = np.argwhere(volume.voxels[at] == STORED)
        lps = np.array([-70, 25.5, 90]) + 3 * n * NORMAL
        lps = lps + column * 0.75 * np.array(AXES[:3]) + row * 1.25 * np.array(AXES[3:])
        np.testing.assert_allclose((affine @ [*at, 1])[:3], lps * (-1, -1, 1), atol=1e-4)


@pytest.mark.parametrize("syntax", slice_header.PLAIN_SYNTAXES)
def test_uncompressed_syntaxes_give_the_same(tmp_path, syntax):
    order = ">u2" if syntax == uid.ExplicitVRBigEndian else "<u2"
    datasets = [one(n, PixelData=STORED[n].astype(order).tobytes()) for n in range(COUNT)]
    volume = series_reader.read_series(save(tmp_path / "s", datasets, uid.UID(syntax)), "p/s")
    np.testing.assert_array_equal(in_file_order(volume), STORED)


@pytest.mark.parametrize(
    ("bits", "stored", "signed", "dtype"),
    [(16, 12, 0, "u2"), (16, 12, 1, "i2"), (16, 16, 0, "u2"), (16, 16, 1, "i2"), (8, 8, 0, "u1"), (8, 8, 1, "i2")],
)
@pytest.mark.parametrize("colours", ["MONOCHROME2", "MONOCHROME1"])
def test_p10_bits_signs_and_monochrome1(tmp_path, bits, stored, signed, dtype, colours):
    """Bits above the stored ones are noise, MONOCHROME1 is inverted within the stored ones."""
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    expected = np.random.default_rng(1).integers(low, high, STORED.shape, endpoint=True)
    expected[0, 0, :2] = low, high
    noise = np.random.default_rng(2).integers(0, 2 ** (bits - stored), STORED.shape) << stored
    data = ((expected & (2**stored - 1)) | noise).astype(f"<u{bits // 8}")
    kind = {"BitsAllocated": bits, "BitsStored": stored, "HighBit": stored - 1, "PixelRepresentation": signed}
    kind |= {"PhotometricInterpretation": colours}
    volume = read(tmp_path, [one(n, PixelData=data[n].tobytes(), **kind) for n in range(COUNT)])
    assert volume.voxels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(in_file_order(volume), expected if colours[-1] == "2" else low + high - expected)


def test_p10_rescale_gives_float32_slice_by_slice(tmp_path):
    volume = read(tmp_path, [one(n, RescaleSlope=0.5 + n, RescaleIntercept=-7) for n in range(COUNT)])
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(in_file_order(volume), STORED * (0.5 + np.arange(COUNT)).reshape(-1, 1, 1) - 7)
    assert read(tmp_path, series(RescaleSlope=1, RescaleIntercept=0)).voxels.dtype == np.uint16


def test_a_single_slice_is_as_thick_as_it_says(tmp_path):
    volume = read(tmp_path, [one(0)])
    assert volume.geometry.shape == (COLUMNS, ROWS, 1)
    np.testing.assert_allclose(volume.spacing, (0.75, 1.25, 2))


def test_p10_a_nifti_mask_on_a_series_lies_in_the_same_place(tmp_path):
    """Converters to NIfTI reverse the rows: another order of the same voxels."""
    pytest.importorskip("nibabel")
    image = read(tmp_path, series())
    turn = np.diag([1.0, -1, 1, 1])
    turn[1, 3] = ROWS - 1
    turned = volumes.to_axial(np.zeros(image.geometry.shape), image.geometry.affine @ turn)
    for geometry in (turned.geometry, image.geometry):
        nifti.write(tmp_path / "mask.nii.gz", image.voxels > 2000, geometry)
        mask = nifti.read_labels(tmp_path / "mask.nii.gz", "mask.nii.gz")
        assert volumes.same_place(image, mask)
        np.testing.assert_array_equal(mask.voxels, image.voxels > 2000)


def with_one(at: int = 2, **changes):
    """A series in which one file differs."""
    return lambda: [one(n, **changes if n == at else {}) for n in range(COUNT)]


def along(*heights, direction=NORMAL):
    places = [np.round(height * direction, 6).tolist() for height in heights]
    return lambda: [one(n, ImagePositionPatient=place) for n, place in enumerate(places)]


MIXED = [f"{cosine:.6f}" for cosine in (1, 0, 0, 0, 1, 0)]
ENHANCED, PDF = uid.EnhancedMRImageStorage, uid.EncapsulatedPDFStorage
BAD = {
    "p10 two series": (with_one(SeriesInstanceUID="1.2.19700101.2"), "7.dcm: is of another series than 3.dcm"),
    "p10 two sizes": (with_one(Rows=10, Columns=9), "7.dcm: is of another size than 3.dcm"),
    "p10 two kinds of pixels": (with_one(PixelRepresentation=1), "7.dcm: is of another kind of pixels"),
    "p10 two orientations": (with_one(ImageOrientationPatient=MIXED), "7.dcm: is of another orientation"),
    "p10 two pixel spacings": (with_one(PixelSpacing=[1.25, 0.8]), "7.dcm: is of another pixel spacing"),
    "p10 no series": (with_one(SeriesInstanceUID=None), "7.dcm: does not say which series"),
    "p10 no position": (with_one(ImagePositionPatient=None), "7.dcm: has no usable ImagePositionPatient"),
    "p10 no orientation": (with_one(ImageOrientationPatient=None), "7.dcm: has no usable ImageOrientationPatient"),
    "p10 no pixel spacing": (with_one(PixelSpacing=None), "7.dcm: has no usable PixelSpacing"),
    "p10 a name as spacing": (with_one(PixelSpacing=b"DOE^JANE"), "7.dcm: has no usable PixelSpacing"),
    "p10 NaN as position": (with_one(ImagePositionPatient=rb"nan\1\1 "), "7.dcm: has no usable ImagePosition"),
    "p10 negative spacing": (with_one(PixelSpacing=[-1.25, 0.75]), "7.dcm: has no usable PixelSpacing"),
    "p10 spacing in metres": (lambda: series(PixelSpacing=[0.00125, 0.00075]), ": has voxels of 0.00075 x 0.00125"),
    "p10 skew directions": (with_one(ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0]), "7.dcm: has an ImageOrient"),
    "p10 one place twice": (along(0, 3, 3, 6), "7.dcm: lies in the same place as 0.dcm"),
    "p10 a missing slice": (along(0, 3, 9, 12), "7.dcm: lies 6 mm from 0.dcm, most neighbours 3 mm"),
    "p10 unequal distances": (along(0, 3, 6, 9.9), "4.dcm: lies 3.9 mm from 7.dcm"),
    "p10 a tilted gantry": (along(0, 3, 6, 9, direction=TILTED), ": has slices that are shifted"),
    "p10 two stacks": (with_one(ImagePositionPatient=SHIFTED), ": has slices that are shifted"),
    "p10 alone without thickness": (lambda: [one(2, SliceThickness=None)], "3.dcm: is alone and has no usable"),
    "p10 multi-frame": (with_one(NumberOfFrames=2), "7.dcm: holds several slices in one file"),
    "p10 enhanced": (with_one(SOPClassUID=ENHANCED), "7.dcm: has 0 places for 1 frames"),
    "p10 colour": (with_one(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "7.dcm: is not grayscale"),
    "p10 palette": (with_one(PhotometricInterpretation="PALETTE COLOR"), "7.dcm: is not grayscale"),
    "p10 a name as colours": (with_one(PhotometricInterpretation="DOE JANE"), "7.dcm: is not grayscale"),
    "p10 32 bits": (with_one(BitsAllocated=32, BitsStored=32, HighBit=31), "7.dcm: has pixels that are not 8 or 16"),
    "p10 shifted bits": (with_one(HighBit=15), "7.dcm: has pixels that are not 8 or 16 bits"),
    "p10 no bits": (with_one(BitsStored=None), "7.dcm: has pixels that are not 8 or 16 bits"),
    "p10 a table": (with_one(ModalityLUTSequence=[]), "7.dcm: maps its values by a table"),
    "p10 slope of 0": (with_one(RescaleSlope=0), "7.dcm: has a RescaleSlope of 0"),
    "p10 a name as slope": (with_one(RescaleSlope=b"DOE^JANE"), "7.dcm: has a RescaleSlope that is not a number"),
    "p11 burned in": (with_one(BurnedInAnnotation="YES"), "7.dcm: has text burned into its pixels"),
    "p5 no image": (with_one(Rows=None, Columns=None, PixelData=None), "7.dcm: holds no image"),
    "p5 only a document": (lambda: [one(2, SOPClassUID=PDF, Rows=None, PixelData=None)], "3.dcm: holds no image"),
    "p10 a mosaic": (with_one(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "7.dcm: is a Siemens mosaic"),
    "p10 inverted by other bits": (with_one(PhotometricInterpretation="MONOCHROME1"), "7.dcm: is of another kind"),
    "p5 no pixels": (with_one(PixelData=None), "7.dcm: holds no pixels"),
    "p5 too few pixels": (with_one(PixelData=bytes(178)), "7.dcm: holds 178 of 180 bytes"),
    "p5 too many pixels": (with_one(PixelData=bytes(360)), "7.dcm: holds 360 of 180 bytes"),
    "p5 no rows": (with_one(Rows=0), "7.dcm: has an impossible number of rows"),
    "p5 1x1": (lambda: series(Rows=1, Columns=1, PixelData=b"00"), ": is 4 axial slices of 1 x 1 voxels"),
    "p5 too large": (lambda: series(Rows=60000, Columns=60000), ": is 4 axial slices of 60000 x 60000"),
}


REPORT, STATE = uid.BasicTextSRStorage, uid.GrayscaleSoftcopyPresentationStateStorage


def test_what_is_no_slice_is_passed_over_and_said(tmp_path):
    paths = save(tmp_path / "s", series())
    for name, data in (("LICENSE", b"free\n"), ("Thumbs.db", b"\xd0\xcf\x11\xe0" * 400), ("VERSION", b""), ("x", b"?")):
        (tmp_path / "s" / name).write_bytes(data)
    for kind, name in ((REPORT, "8.dcm"), (STATE, "PR1")):
        [path] = save(
            tmp_path / "other", [one(2, SOPClassUID=kind, SeriesInstanceUID="1.5", Rows=None, PixelData=None)]
        )
        path.rename(tmp_path / "s" / name)
    volume = series_reader.read_series(series_reader.find_series(tmp_path / "s", "p/s")[tmp_path / "s"], "p/s")
    np.testing.assert_array_equal(in_file_order(volume), STORED)
    assert set(volume.remarks) == {
        "passed over 4 files that are not DICOM: LICENSE, Thumbs.db, VERSION and 1 more",
        "passed over 2 files that are DICOM without an image: 8.dcm, PR1",
    }
    assert series_reader.read_series(paths, "p/s").remarks == ()


@pytest.mark.parametrize("name", ["IM0007", "cut.IMA"])
def test_a_damaged_file_that_is_named_as_a_slice_is_no_stranger(tmp_path, name):
    paths = [path.rename(path.with_name(f"IM{n}")) for n, path in enumerate(save(tmp_path / "s", series()))]
    (tmp_path / "s" / name).write_bytes(bytes(2000))
    with pytest.raises(DataError, match=f"p/s/{name}: is not DICOM"):
        series_reader.read_series([*paths, tmp_path / "s" / name], "p/s")


def test_copies_of_a_slice_count_once(tmp_path):
    paths = save(tmp_path / "s", [*series(), one(1), one(2, SOPInstanceUID=None)])
    volume = series_reader.read_series(paths, "p/s")
    np.testing.assert_array_equal(in_file_order(volume), STORED)
    assert volume.remarks == ("passed over 2 files that are copies of others: 1.dcm, 8.dcm",)


@pytest.mark.parametrize(("jitter", "accepted"), [(0.15, True), (0.3, False)])
@pytest.mark.parametrize("kind", ["orientation", "pixel spacing"])
def test_slices_may_differ_by_what_moves_no_voxel(tmp_path, jitter, accepted, kind):
    """``jitter``: of the smaller side of a pixel, how far the far corner moves."""
    if kind == "orientation":
        angle = jitter * 0.75 / np.hypot(0.75 * (COLUMNS - 1), 1.25 * (ROWS - 1))
        row, column = np.array(AXES[:3]), np.array(AXES[3:])
        turned = [*(np.cos(angle) * row + np.sin(angle) * column), *(np.cos(angle) * column - np.sin(angle) * row)]
        changes = {"ImageOrientationPatient": [f"{cosine:.8f}" for cosine in turned]}
    else:
        changes = {"PixelSpacing": [1.25, round(0.75 + jitter * 0.75 / (COLUMNS - 1), 6)]}
    datasets = [one(n, **changes if n == 0 else {}) for n in range(COUNT)]
    if not accepted:
        with pytest.raises(DataError, match=f"3.dcm: is of another {kind} than 0.dcm"):
            read(tmp_path, datasets)
        return
    volume = read(tmp_path, datasets)
    np.testing.assert_array_equal(in_file_order(volume), STORED)
    np.testing.assert_allclose(volume.geometry.affine, read(tmp_path, series()).geometry.affine, atol=1e-6)


def test_stored_bits_may_vary_where_they_change_no_value(tmp_path):
    low = (STORED % 200).astype("<u2")
    kinds = [{"BitsStored": bits, "HighBit": bits - 1} for bits in (8, 12, 16, 9)]
    datasets = [one(n, PixelData=low[n].tobytes(), **kind) for n, kind in enumerate(kinds)]
    datasets[3] = one(3, PixelData=low[3].astype("u1").tobytes(), BitsAllocated=8, BitsStored=8, HighBit=7)
    volume = read(tmp_path, datasets)
    np.testing.assert_array_equal(in_file_order(volume), low)
    assert volume.voxels.dtype == np.uint16
    inverted = [one(n, PhotometricInterpretation="MONOCHROME1", **kind) for n, kind in enumerate(kinds)]
    with pytest.raises(DataError, match=r"0.dcm: is of another kind of pixels than 3.dcm, as are 2 more"):
        read(tmp_path, inverted)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
@pytest.mark.parametrize("form", ["no preamble", "data set alone", "no syntax"])
def test_without_preamble_or_transfer_syntax_a_file_is_still_read(tmp_path, form, syntax):
    paths = save(tmp_path / "s", series(), syntax)
    for path in paths:
        whole = path.read_bytes()
        start = 144 + int.from_bytes(whole[140:144], "little")
        path.write_bytes({"no preamble": whole[132:], "data set alone": whole[start:],
                          "no syntax": whole[:132] + whole[start:]}[form])  # fmt: skip
    assert series_reader.find_series(tmp_path / "s", "s") == {tmp_path / "s": sorted(paths)}
    volume = series_reader.read_series(paths, "p/s")
    np.testing.assert_array_equal(in_file_order(volume), STORED)
    kind = "implicit" if syntax == uid.ImplicitVRLittleEndian else "explicit"
    told = (
        f"read as {kind} little endian, 4 files that do not name their transfer syntax: 3.dcm, 0.dcm, 7.dcm and 1 more"
    )
    assert volume.remarks == (() if form == "no preamble" else (told,))


def test_thick_slices_that_are_not_axial_are_said_or_refused(tmp_path):
    """Sides of 24 pixels of 1 mm; ``apart`` in mm."""
    square = {"Rows": 24, "Columns": 24, "PixelSpacing": [1, 1], "PixelData": bytes(2 * 24 * 24)}

    def stack(count: int, apart: float, axes: list[float]):
        normal = np.cross(axes[:3], axes[3:])
        places = [(apart * n * normal).tolist() for n in range(count)]
        return [
            one(n, ImageOrientationPatient=axes, ImagePositionPatient=place, **square) for n, place in enumerate(places)
        ]

    sagittal, coronal, axial = [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1], [1, 0, 0, 0, 1, 0]
    told = "the slices are sagittal and 6 mm apart, with pixels of 1 x 1 mm: axial slices through them are coarse"
    assert read(tmp_path, stack(10, 6, sagittal)).remarks == (told,)
    assert "coronal and 3 mm apart" in read(tmp_path, stack(10, 3, coronal)).remarks[0]
    assert read(tmp_path, stack(10, 1.2, sagittal)).remarks == read(tmp_path, stack(4, 6, axial)).remarks == ()
    with pytest.raises(DataError, match="p/s: is not axial: its slices are sagittal and 6 mm apart"):
        read(tmp_path, stack(2, 6, sagittal))


@pytest.mark.parametrize(("times", "told"), [
    ((120, 9000, 2500), ""), ((90, 6000, 1500), ""), ((None, None, None), ""), ((12, None, None), ""),
    (("", "", ""), ""), ((0, 0, None), ""), ((b"DOE", 600, None), ""), ((12, 600, b"JANE"), ""),
    ((12, 600, [2500, 2500]), ""), ((100, 11000, -1), ""),
    ((12, 600, None), "echo 12 ms, repetition 600 ms, inversion none"),
    ((100, 11000, ""), "echo 100 ms, repetition 11000 ms, inversion none"),
    ((3, 2300, 900), "echo 3 ms, repetition 2300 ms, inversion 900 ms"),
    ((3, 5000, 2500), "echo 3 ms, repetition 5000 ms, inversion 2500 ms"),
])  # fmt: skip
def test_times_that_are_not_those_of_flair_are_told(tmp_path, times, told):
    """Not where one of them cannot be read, or an inversion is named without its time."""
    keywords = dict(zip(("EchoTime", "RepetitionTime", "InversionTime"), times, strict=True))
    found = read(tmp_path, series(**keywords))
    assert found.remarks == ()
    assert found.doubt == (told and f"its times are not those of FLAIR: {told}")
    named = read(tmp_path, series(**keywords, ScanningSequence=["SE", "IR"]))
    assert (named.doubt == "") == (told == "" or "none" in told)


def test_slices_that_each_name_a_series_of_their_own_are_one_by_their_number(tmp_path):
    def each(**more):
        return [one(n, **{"SeriesInstanceUID": f"1.2.{n}", "StudyInstanceUID": "1.2.19", "SeriesNumber": 5} | more)
                for n in range(COUNT)]  # fmt: skip

    volume = read(tmp_path, each())
    np.testing.assert_array_equal(in_file_order(volume), STORED)
    assert volume.remarks == ("each slice names a series of its own; they have one number and lie in one stack",)
    for more in ({"SeriesNumber": None}, {"StudyInstanceUID": None}):
        with pytest.raises(DataError, match=r"0\.dcm: is of another series than 3\.dcm, as are 2 more"):
            read(tmp_path, each(**more))


def refused(paths, what, capfd, caplog) -> None:
    """The error names the file and a fix; the error, the logs and the output hold nothing of any header."""
    caplog.clear()
    with pytest.raises(BrainsegError, match=f"^p/s(/|(?=:)){what}") as caught:
        series_reader.read_series(paths, "p/s")
    said = "\n".join(caught.value.lines()) + caplog.text + "".join(capfd.readouterr())
    assert caught.value.code == 2 and all(problem.fix for problem in caught.value.problems)
    assert not [text for text in ("DOE", "JANE", "1970", "1930", "1.2.") if text in said], said
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or not caught.value.__context__)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", BAD)
def test_p5_p10_p11_bad_series_are_refused_by_name_and_nothing_personal_is_said(tmp_path, kind, capfd, caplog):
    make, what = BAD[kind]
    caplog.set_level(logging.DEBUG)
    refused(save(tmp_path / "s", make()), what, capfd, caplog)


JPEG2000, PRIVATE, PLAIN = b"1.2.840.10008.1.2.4.90", b"1.2.19700101.456.78.90", b"1.2.840.10008.1.2.1\0\0\0"
ITEM = b"\xfe\xff\x00\xe0\0\0\0\0"
FRAME = pydicom.encaps.encapsulate([b"DOE^JANE"])
DAMAGED = {
    "p5 empty": (lambda raw: b"", "is empty"),
    "p5 text": (lambda raw: b"DOE JANE 1970\n" * 50, "is not DICOM"),
    "p5 the mark alone": (lambda raw: raw()[:132], "is encoded as an unknown transfer syntax"),
    "p5 cut in the header": (lambda raw: raw()[:2000], "holds no image|is damaged"),
    "p5 cut in the pixels": (lambda raw: raw()[:-10], "holds 170 of 180 bytes|is damaged"),
    "p5 no kind of value": (lambda raw: raw().replace(b"\x28\0\x10\0US", b"\x28\0\x10\0ZZ"), "is damaged"),
    "p5 deflated, cut": (lambda raw: raw(uid.DeflatedExplicitVRLittleEndian)[:-99], "is cut short, or inflates"),
    "p5 endless items": (lambda raw: raw() + ITEM * 10_001, r"has more than 10,000 items"),
    "p10 JPEG": (lambda raw: raw(uid.JPEGBaseline8Bit, PixelData=FRAME), r"has pixels that are not JPEG Baseline"),
    "p10 RLE": (lambda raw: raw(uid.RLELossless, PixelData=FRAME), "cannot be decoded as RLE Lossless"),
    "p10 video": (lambda raw: raw(uid.MPEG2MPML, PixelData=FRAME), "is encoded as MPEG2 Main Profile.*, which is not"),
    "p10 private syntax": (lambda raw: raw(uid.JPEG2000Lossless, PixelData=FRAME).replace(JPEG2000, PRIVATE),
                           "is encoded as an unknown transfer syntax"),
    "p10 encapsulated": (lambda raw: raw(uid.JPEG2000Lossless, PixelData=FRAME).replace(JPEG2000, PLAIN),
                         "has encapsulated pixels"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_p5_p10_p11_damaged_files_are_refused_by_name(tmp_path, kind, capfd, caplog):
    damage, what = DAMAGED[kind]
    paths = save(tmp_path / "s", series())

    def raw(syntax=uid.ExplicitVRLittleEndian, **changes) -> bytes:
        return save(tmp_path / "raw", [one(2, **changes)], syntax)[0].read_bytes()

    paths[2].write_bytes(damage(raw))
    caplog.set_level(logging.DEBUG)
    refused(paths, f"7.dcm: ({what})", capfd, caplog)


def test_all_bad_files_are_listed(tmp_path):
    datasets = [one(n, **{} if n == 1 else {"PixelSpacing": None}) for n in range(COUNT)]
    with pytest.raises(DataError) as caught:
        read(tmp_path, datasets)
    assert [problem.path for problem in caught.value.problems] == ["p/s/3.dcm", "p/s/7.dcm", "p/s/4.dcm"]


def test_p5_limits_hold_before_pixels_are_read(tmp_path, monkeypatch):
    paths = save(tmp_path / "s", series(), uid.DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr(pixel_data, "read_pixels", None)
    with pytest.raises(DataError, match="has 360 voxels, at most 359"):
        series_reader.read_series(paths, "p/s", most=359)
    with pytest.raises(DataError, match="holds 0 files, 1 to 4,096"):
        series_reader.read_series([], "p/s")
    plain = save(tmp_path / "plain", series())
    for files, module, limit, value, what in (
        (paths, slice_header, "MAX_BYTES", 20_000, "inflates to more than 20,000"),
        (plain, slice_header, "MAX_BYTES", 99, "at most 99 are"),
        (plain, series_reader, "MAX_FILES", 3, "holds 4 files, 1 to 3"),
    ):
        monkeypatch.setattr(module, limit, value)
        with pytest.raises(DataError, match=what):
            series_reader.read_series(files, "p/s")


def test_p5_damaged_bytes_are_read_or_refused_but_never_crash(tmp_path, capfd):
    rng = np.random.default_rng(5)
    [path] = save(tmp_path / "s", [one(1)])
    source = path.read_bytes()
    for _ in range(200):
        damaged = np.frombuffer(source, np.uint8).copy()
        damaged[rng.integers(128, len(damaged) - 180, 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            assert series_reader.read_series([path], "p/s").voxels.size == ROWS * COLUMNS
        except DataError as error:
            assert error.problems[0].path.startswith("p/s") and "1970" not in str(error)
    assert capfd.readouterr() == ("", "")


def test_p9_series_are_found_and_what_is_no_file_is_refused(tmp_path):
    for name in ("b", "a", ".hidden"):
        save(tmp_path / name, [one(0), one(1)])
    for name in ("a/mask.nii.gz", "a/.DS_Store", "a/notes.txt", "a/DICOMDIR", "a/5.dcm", "other"):
        (tmp_path / name).write_bytes(b"")
    a, b = tmp_path / "a", tmp_path / "b"
    found = series_reader.find_series(tmp_path, "top")
    assert found == {a: [a / "0.dcm", a / "3.dcm", a / "5.dcm"], b: [b / "0.dcm", b / "3.dcm"]}
    with pytest.raises(DataError, match=r"a/5\.dcm: is empty"):  # leaving it out would shorten the stack
        series_reader.read_series(found[a], "a")
    (b / "link.dcm").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"b/a: is not a file; b/link\.dcm: is not a file"):
        series_reader.read_series([a, b / "link.dcm"], "b")
    (tmp_path / "empty").mkdir()
    for name, what in (("empty", "holds no DICOM files"), ("none", "cannot be read")):
        with pytest.raises(DataError, match=f"^top: {what}"):
            series_reader.find_series(tmp_path / name, "top")
    (tmp_path / "empty/junk.dcm").write_bytes(b"x" * 500)  # named by what reads it
    assert series_reader.find_series(tmp_path / "empty", "top") == {tmp_path / "empty": [tmp_path / "empty/junk.dcm"]}


def test_without_pydicom_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MachineError, match="DICOM: needs pydicom") as caught:
        series_reader.read_series([tmp_path / "a.dcm"], "a")
    assert caught.value.problems[0].fix == "pip install 'brainseg-lgg[medical]'"
