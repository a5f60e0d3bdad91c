"""DICOM SEG as a mask: frames are placed by their position, whatever their order; what does not fit is refused."""

import numpy as np
import pytest

from brainseg.errors import DataError
from brainseg.io.dicom import seg_reader, series_reader, slice_header, transfer_syntax
from tests.support import dicom_study

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription  # noqa: E402
from pydicom.sr.codedict import codes  # noqa: E402

STORED = np.random.default_rng(0).integers(0, 4000, (9, 19, 21), np.uint16)  # 399 bits a frame: no whole bytes
DRAWN = np.random.default_rng(1).random(STORED.shape) > 0.8
DRAWN[[1, 4]] = False


def describe(number: int) -> SegmentDescription:
    finding = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm
    return SegmentDescription(number, f"part {number}", *finding, SegmentAlgorithmTypeValues.MANUAL)


def study(tmp_path, **changes):
    """The image, and the headers of its slices in the order in which they were stored."""
    paths = dicom_study.save(tmp_path / "s", STORED, **changes)
    return series_reader.read_series(paths, "s"), [pydicom.dcmread(path) for path in paths]


def seg(tmp_path, sources, pixels, kind: str = "BINARY", segments: int = 1, **changes):
    """Write a SEG as others make it."""
    made = Segmentation(
        sources, pixels, kind, [describe(n + 1) for n in range(segments)], "1.2.3", 9, "1.2.3.4", 1, "others", "tool",
        "1", "0", max_fractional_value=100,
    )  # fmt: skip
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    made.save_as(tmp_path / "seg.dcm")
    return tmp_path / "seg.dcm"


def on_the_grid(tmp_path, image, drawn=DRAWN, axes=dicom_study.AXIAL, **place) -> np.ndarray:
    """What is expected: the same pixels, read as a series."""
    paths = dicom_study.save(tmp_path / "drawn", drawn.astype(np.uint16), axes, **place)
    return series_reader.read_series(paths, "drawn").voxels


PLACES = {
    "axial": {},
    "from the head down": {"step": -5},
    "oblique": {"axes": dicom_study.OBLIQUE},
    "sagittal": {"axes": dicom_study.SAGITTAL, "step": 1},
}


@pytest.mark.parametrize("place", PLACES)
def test_sparse_frames_are_placed(place, tmp_path):
    image, sources = study(tmp_path, **PLACES[place])
    mask = seg_reader.read_labels(seg(tmp_path, sources, DRAWN), "seg.dcm", image)
    np.testing.assert_array_equal(mask.voxels, on_the_grid(tmp_path, image, **PLACES[place]))
    assert mask.voxels.sum() == DRAWN.sum() and mask.geometry.shape == image.geometry.shape


def test_frames_in_any_order(tmp_path):
    image, sources = study(tmp_path)
    order = [3, 0, 8, 5, 2, 7, 6]
    path = seg(tmp_path, [sources[n] for n in order], DRAWN[order])
    found = pydicom.dcmread(path)
    frames = found.pixel_array[::-1].copy()
    found.PerFrameFunctionalGroupsSequence = list(found.PerFrameFunctionalGroupsSequence)[::-1]
    found.PixelData = pydicom.pixels.pack_bits(frames)
    found.save_as(path)
    np.testing.assert_array_equal(seg_reader.read_labels(path, "seg.dcm", image).voxels, on_the_grid(tmp_path, image))


def test_a_frame_that_is_stored_upside_down(tmp_path):
    image, sources = study(tmp_path)
    path = seg(tmp_path, sources[:1], DRAWN[:1, ::-1])
    found = pydicom.dcmread(path)
    found.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
    place = found.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    x, y, z = map(float, sources[0].ImagePositionPatient)
    place.ImagePositionPatient = [x, y + 18 * 1.25, z]
    found.save_as(path)
    mask = seg_reader.read_labels(path, "seg.dcm", image).voxels
    np.testing.assert_array_equal(mask[0], DRAWN[0])
    assert not mask[1:].any()


def test_a_fractional_one_holds_from_half_on(tmp_path):
    image, sources = study(tmp_path)
    share = np.random.default_rng(2).integers(0, 101, STORED.shape) / 100
    mask = seg_reader.read_labels(seg(tmp_path, sources, share, "FRACTIONAL"), "seg.dcm", image)
    np.testing.assert_array_equal(mask.voxels, on_the_grid(tmp_path, image, share >= 0.5))


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_several_segments_are_labels(kind, tmp_path):
    image, sources = study(tmp_path)
    drawn = np.random.default_rng(3).integers(0, 4, STORED.shape).astype(np.uint8)
    mask = seg_reader.read_labels(seg(tmp_path, sources, drawn, kind, 3), "seg.dcm", image)
    np.testing.assert_array_equal(mask.voxels, on_the_grid(tmp_path, image, drawn))


def test_an_empty_one_is_a_mask(tmp_path):
    image, sources = study(tmp_path)
    assert not seg_reader.read_labels(seg(tmp_path, sources, DRAWN & False), "seg.dcm", image).voxels.any()


REFUSED = {
    "another frame of reference": {"FrameOfReferenceUID": "1.2.3.4.5"},
    "RTSTRUCT": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"},
    "no segmentation": {"SOPClassUID": pydicom.uid.MRImageStorage},
    "describes no segment": {"SegmentSequence": []},
    "where its frames lie": {"PerFrameFunctionalGroupsSequence": []},
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_is_refused(why, tmp_path):
    image, sources = study(tmp_path)
    with pytest.raises(DataError, match=why):
        seg_reader.read_labels(seg(tmp_path, sources, DRAWN, **REFUSED[why]), "seg.dcm", image)


@pytest.mark.parametrize(("why", "shift"), [("another grid", [0.4, 0, 0]), ("outside", [0, 0, 50])])
def test_a_seg_of_another_place_is_refused(why, shift, tmp_path):
    image, sources = study(tmp_path)
    for source in sources:
        source.ImagePositionPatient = list(np.array(source.ImagePositionPatient, float) + shift)
    with pytest.raises(DataError, match=why):
        seg_reader.read_labels(seg(tmp_path, sources, DRAWN), "seg.dcm", image)


COARSE = {
    "in the plane": (np.s_[:, ::2, ::2], {"PixelSpacing": [2.5, 1.5]}),
    "between slices": (np.s_[::2], {"SliceThickness": 10}),
    "one thick slice": (np.s_[2:3], {"SliceThickness": 10}),
    "turned": (np.s_[:, :4, :4], {"PixelSpacing": [0.75, 1.25], "ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}),
}


@pytest.mark.parametrize("how", COARSE)
def test_a_seg_of_larger_pixels_is_refused_and_one_of_the_same_pixels_is_not(how, tmp_path):
    image, sources = study(tmp_path, SliceThickness=4)
    part, changes = COARSE[how]
    drawn = np.ones_like(DRAWN)[part]
    for source in sources:
        source.Rows, source.Columns = drawn.shape[1:]
        for keyword, value in changes.items():
            setattr(source, keyword, value)
    path = seg(tmp_path, sources[part[0] if isinstance(part, tuple) else part], drawn)
    if how == "turned":  # the same pixels in another order
        assert seg_reader.read_labels(path, "seg.dcm", image).voxels.sum() == drawn.sum()
        return
    with pytest.raises(DataError, match="another grid"):
        seg_reader.read_labels(path, "seg.dcm", image)


def test_a_seg_repeats_the_thickness_of_slices_that_overlap(tmp_path):
    image, sources = study(tmp_path, SliceThickness=10)
    mask = seg_reader.read_labels(seg(tmp_path, sources[2:3], DRAWN[2:3]), "seg.dcm", image)
    assert mask.voxels.sum() == DRAWN[2].sum()


def test_one_without_a_preamble_is_read(tmp_path):
    image, sources = study(tmp_path)
    path = seg(tmp_path, sources, DRAWN)
    whole = path.read_bytes()
    path.write_bytes(whole[transfer_syntax.find_encoding(whole).start :])
    assert seg_reader.read_labels(path, "seg.dcm", image).voxels.sum() == DRAWN.sum()


def test_small_frames_may_have_as_many_items_as_large_ones(tmp_path, monkeypatch):
    image, sources = study(tmp_path)
    path = seg(tmp_path, sources, DRAWN)
    assert path.stat().st_size // path.read_bytes().count(b"\xfe\xff\x00\xe0") < slice_header.BYTES_PER_ITEM
    monkeypatch.setattr(slice_header, "MAX_ITEMS", 5)
    assert seg_reader.read_labels(path, "seg.dcm", image).voxels.sum() == DRAWN.sum()


@pytest.mark.parametrize("limit", ["MAX_FRAMES_BYTES", "MAX_ITEMS"])
def test_a_seg_is_read_within_limits(limit, tmp_path, monkeypatch):
    image, sources = study(tmp_path)
    path = seg(tmp_path, sources, DRAWN)
    monkeypatch.setattr(slice_header, limit, 5)
    monkeypatch.setattr(seg_reader, "_BYTES_PER_ITEM", 2**20)
    with pytest.raises(DataError, match=r"at most 5 |more than 5 items"):
        seg_reader.read_labels(path, "seg.dcm", image)


def test_a_deflated_seg_is_read_within_limits(tmp_path, monkeypatch):
    image, sources = study(tmp_path)
    path = seg(tmp_path, sources, DRAWN)
    found = pydicom.dcmread(path)
    found.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    found.save_as(path)
    monkeypatch.setattr(slice_header, "MAX_BYTES", 100)  # of one slice
    assert seg_reader.read_labels(path, "seg.dcm", image).voxels.sum() == DRAWN.sum()
    monkeypatch.setattr(slice_header, "MAX_FRAMES_BYTES", path.stat().st_size)
    with pytest.raises(DataError, match="inflates to more than"):
        seg_reader.read_labels(path, "seg.dcm", image)


def test_compressed_frames_must_have_the_size_of_the_header(tmp_path):
    image, sources = study(tmp_path)
    share = np.random.default_rng(2).integers(0, 101, STORED.shape) / 100
    path = seg(tmp_path, sources, share, "FRACTIONAL")
    found = pydicom.dcmread(path)
    found.compress(pydicom.uid.JPEGLSLossless, encoding_plugin="pyjpegls")
    found.save_as(path)
    mask = seg_reader.read_labels(path, "seg.dcm", image)
    np.testing.assert_array_equal(mask.voxels, on_the_grid(tmp_path, image, share >= 0.5))
    found.Columns -= 1
    found.save_as(path)
    with pytest.raises(DataError, match="has compressed pixels of 21 x 19 x 1, its header says 20 x 19 x 1"):
        seg_reader.read_labels(path, "seg.dcm", image)


def test_segments_that_overlap_are_refused(tmp_path):
    image, sources = study(tmp_path)
    with pytest.raises(DataError, match="overlap"):
        seg_reader.read_labels(seg(tmp_path, sources, np.stack([DRAWN, DRAWN], -1), segments=2), "seg.dcm", image)


def test_an_image_without_a_place_has_none(tmp_path):
    _, sources = study(tmp_path)
    with pytest.raises(DataError, match="no place in space"):
        seg_reader.read_labels(seg(tmp_path, sources, DRAWN), "seg.dcm", None)
