"""Enhanced MR: frames of one file become the volume that a series of single slices gives; several are never merged."""

import numpy as np
import pytest

from brainseg.errors import DataError
from brainseg.io import volumes
from brainseg.io.dicom import multiframe, pixel_data, series_reader, slice_header

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("gdcm")
from pydicom import uid  # noqa: E402

from tests.support.dicom_compressed import STORED, compress, enhanced, slices  # noqa: E402
from tests.support.dicom_series import save  # noqa: E402

MIXED = [2, 0, 3, 1]  # the order of frames


def in_file_order(volume) -> np.ndarray:
    """``(slices, rows, columns)``."""
    return volumes.to_file_order(volume.voxels, volume.geometry).transpose(2, 1, 0)


def read(tmp_path, dataset, syntax=uid.ExplicitVRLittleEndian):
    return series_reader.read_series(save(tmp_path / "s", [dataset], syntax), "p/s")


@pytest.mark.parametrize("kind", [uid.EnhancedMRImageStorage, uid.LegacyConvertedEnhancedMRImageStorage])
def test_frames_are_sorted_by_their_places(tmp_path, kind):
    single = series_reader.read_series(save(tmp_path / "single", slices()), "p/s")
    volume = read(tmp_path, enhanced([slices()[n] for n in MIXED], SOPClassUID=kind))
    np.testing.assert_array_equal(in_file_order(volume), STORED)
    np.testing.assert_allclose(volume.geometry.affine, single.geometry.affine, atol=1e-6)
    assert volume.spacing == single.spacing and volume.remarks == ()


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_compressed_frames(tmp_path, syntax):
    paths = compress(save(tmp_path / "s", [enhanced([slices()[n] for n in MIXED])]), syntax)
    np.testing.assert_array_equal(in_file_order(series_reader.read_series(paths, "p/s")), STORED)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian])
def test_frames_of_other_plain_syntaxes(tmp_path, syntax):
    dataset = enhanced([slices()[n] for n in MIXED])
    if syntax == uid.ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    np.testing.assert_array_equal(in_file_order(read(tmp_path, dataset, syntax)), STORED)


def test_each_frame_has_its_own_rescaling(tmp_path):
    parts = [slices(RescaleSlope=n + 1, RescaleIntercept=-n)[n] for n in MIXED]
    slopes = np.arange(4).reshape(-1, 1, 1)
    np.testing.assert_array_equal(in_file_order(read(tmp_path, enhanced(parts))), STORED * (slopes + 1.0) - slopes)


TWICE = [*MIXED, *MIXED]
PARTS = {
    "stack": [{"FrameContentSequence": {"StackID": stack}} for stack in "AAAABBBB"],
    "time point": [{"FrameContentSequence": {"TemporalPositionIndex": time}} for time in (1, 1, 1, 1, 2, 2, 2, 2)],
    "echo time": [{"MREchoSequence": {"EffectiveEchoTime": echo}} for echo in (9.5, 9.5, 9.5, 9.5, 90, 90, 90, 90)],
    "b value": [{"MRDiffusionSequence": {"DiffusionBValue": b}} for b in (0, 0, 0, 0, 1000, 1000, 1000, 1000)],
}


@pytest.mark.parametrize("part", PARTS)
def test_several_volumes_in_one_file_are_never_merged(tmp_path, part):
    with pytest.raises(DataError, match=f"p/s/3.dcm: holds 2 volumes, which differ in {part}$") as caught:
        read(tmp_path, enhanced([slices()[n] for n in TWICE], PARTS[part]))
    assert "dcm2niix" in caught.value.problems[0].fix


def test_what_no_tag_tells_apart_is_refused_by_its_place(tmp_path):
    with pytest.raises(DataError, match=r"3\.dcm \(frame 5\): lies in the same place as 3\.dcm \(frame 1\)"):
        read(tmp_path, enhanced([slices()[n] for n in (0, 1, 2, 3, 0, 1, 2, 3)]))


def test_the_magnitude_is_read_and_the_rest_named(tmp_path):
    frames = [{"MRImageFrameTypeSequence": {"ComplexImageComponent": part}} for part in ["MAGNITUDE", "PHASE"] * 4]
    volume = read(tmp_path, enhanced([slices()[n] for n in (0, 0, 1, 1, 2, 2, 3, 3)], frames))
    np.testing.assert_array_equal(in_file_order(volume), STORED)
    assert volume.remarks == ("of 2 volumes, which differ in component, in one file, the one of magnitude was read",)


def test_a_single_frame_beside_a_stack_is_left_out(tmp_path):
    frames = [{"FrameContentSequence": {"StackID": stack}} for stack in "SAAAA"]
    volume = read(tmp_path, enhanced([slices()[n] for n in (3, 0, 1, 2, 3)], frames))
    np.testing.assert_array_equal(in_file_order(volume), STORED)
    assert "the one of several slices was read" in volume.remarks[0]


def test_too_many_frames_are_refused_before_pixels_are_read(tmp_path, monkeypatch):
    dataset = enhanced(slices())
    monkeypatch.setattr(pixel_data, "read_pixels", None)
    [path] = save(tmp_path / "s", [dataset])
    with pytest.raises(DataError, match="has 5,760 voxels, at most 5,759"):
        series_reader.read_series([path], "p/s", most=5759)
    monkeypatch.setattr(multiframe, "MAX_FRAMES", 3)
    with pytest.raises(DataError, match="has 4 places for 4 frames, 1 to 3"):
        series_reader.read_series([path], "p/s")


def test_frames_that_are_missing_are_refused(tmp_path):
    dataset = enhanced(slices())
    dataset.PixelData = dataset.PixelData[:-2880]
    with pytest.raises(DataError, match="holds 8,640 of 11,520 bytes of pixels"):
        read(tmp_path, dataset)
    dataset.PerFrameFunctionalGroupsSequence.pop()
    with pytest.raises(DataError, match="has 3 places for 4 frames"):
        read(tmp_path, dataset)


def test_a_localizer_is_named_as_such(tmp_path):
    frames = [{"PlaneOrientationSequence": {"ImageOrientationPatient": axes}}
              for axes in ([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])]  # fmt: skip
    told = r"p/s: holds 3 slices in several directions \(axial, coronal, sagittal\), as a localizer does"
    dataset = enhanced(slices()[:3], frames)
    with pytest.raises(DataError, match=told):
        read(tmp_path, dataset)
    single = slices()[:3]
    for own, frame in zip(single, frames, strict=True):
        own.ImageOrientationPatient = frame["PlaneOrientationSequence"]["ImageOrientationPatient"]
    with pytest.raises(DataError, match=told):
        series_reader.read_series(save(tmp_path / "single", single), "p/s")


def test_several_slices_that_are_not_enhanced_mr_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds several slices in one file, but not as enhanced MR does"):
        read(tmp_path, enhanced(slices(), SOPClassUID=uid.MRImageStorage))


def test_a_deflated_file_of_frames_may_be_larger_than_one_of_a_slice(tmp_path, monkeypatch):
    dataset = enhanced([slices()[n] for n in MIXED])
    monkeypatch.setattr(slice_header, "MAX_BYTES", 1000)
    found = read(tmp_path, dataset, uid.DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(in_file_order(found), STORED)
