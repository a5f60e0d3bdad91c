"""The outline as DICOM SEG: at the place of the NIfTI mask, complete, and the same bytes each time."""

import json
import shutil
import subprocess
from io import BytesIO

import nibabel
import numpy as np
import pytest

from brainseg.inference import cases
from brainseg.inference.answers import seg_files
from brainseg.inference.decoding import _make_case
from brainseg.inference.decoding_worker import _pack
from brainseg.io import nifti
from tests.support import dicom_study

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

FACTS = {"model": {"weights_sha256": "ab" * 32}, "variant": "float32", "rule": {"threshold": 0.5}}
STORED = np.random.default_rng(0).integers(0, 4000, (6, 20, 24)).astype(np.uint16)


def read(tmp_path, stored=STORED, **changes) -> tuple[cases.Case, np.ndarray]:
    """The case, and a mask of it that is empty in some of the source's slices."""
    dicom_study.save(tmp_path / "s", stored, **changes)
    case = cases.read(tmp_path / "s", "s")
    mask = (np.random.default_rng(1).random(case.voxels.shape) > 0.8).astype(np.uint8)
    mask[:2] = mask[:, :, 3] = 0
    return case, mask


def encode(mask, case, facts=FACTS) -> pydicom.Dataset:
    return pydicom.dcmread(BytesIO(seg_files.encode_mask(mask, case, facts)))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two sets of points are the same to a hundredth of a millimetre."""
    apart = np.linalg.norm(a[:, np.newaxis] - b, axis=-1)
    return a.shape == b.shape and len(set(apart.argmin(axis=1))) == len(a) and apart.min(axis=1).max() < 0.01


def nifti_points(path) -> np.ndarray:
    """Centres of tumour voxels in mm, LPS."""
    image = nibabel.load(path)
    inside = np.argwhere(np.asarray(image.dataobj))
    return nibabel.affines.apply_affine(np.diag([-1, -1, 1, 1]) @ image.affine, inside)


def pydicom_points(seg: pydicom.Dataset) -> np.ndarray:
    """As ``nifti_points``, by the attributes of each frame."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    across, down = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    points = []
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            points.append(corner + across * between_columns * column + down * between_rows * row)
    return np.array(points)


def highdicom_points(seg: pydicom.Dataset) -> np.ndarray:
    volume = highdicom.seg.Segmentation.from_dataset(seg).get_volume(combine_segments=True)
    return volume.map_indices_to_reference(np.argwhere(volume.array))


@pytest.mark.parametrize("place", dicom_study.PLACES)
def test_the_seg_is_the_nifti_mask_in_the_patients_space(place, tmp_path):
    case, mask = read(
        tmp_path, np.random.default_rng(0).integers(0, 4000, (9, 20, 24), np.uint16), **dicom_study.PLACES[place]
    )
    nifti.write(tmp_path / "mask.nii.gz", mask, case.volume.geometry)
    seg = encode(mask, case)
    points = nifti_points(tmp_path / "mask.nii.gz")
    assert len(points) == mask.sum() > 100
    assert same(pydicom_points(seg), points) and same(highdicom_points(seg), points)


def test_a_slice_alone_and_an_outline_without_tumour(tmp_path):
    case, mask = read(tmp_path, STORED[:1])
    mask[0, 4, 5] = 1
    nifti.write(tmp_path / "mask.nii.gz", mask, case.volume.geometry)
    assert same(pydicom_points(encode(mask, case)), nifti_points(tmp_path / "mask.nii.gz"))
    empty = encode(np.zeros_like(mask), case)
    assert empty.NumberOfFrames == 1 and not empty.pixel_array.any()


def test_it_refers_to_the_series_and_says_what_made_it(tmp_path):
    case, mask = read(tmp_path, PatientName="Grün^Ö", SpecificCharacterSet="ISO_IR 100")
    seg = encode(mask, case)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "StudyDate"):
        assert seg[keyword].value == dicom_study.STUDY[keyword]
    assert seg.PatientName == "Grün^Ö" and seg.SeriesInstanceUID != dicom_study.STUDY["SeriesInstanceUID"]
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == dicom_study.STUDY["SeriesInstanceUID"]
    assert len(series.ReferencedInstanceSequence) == len(STORED)
    (segment,) = seg.SegmentSequence
    assert (seg.SegmentationType, segment.SegmentAlgorithmType) == ("BINARY", "AUTOMATIC")
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"  # SNOMED CT: Neoplasm
    assert "research use only" in seg.ContentDescription.lower()
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmParameters == f"weights_sha256={'ab' * 32},variant=float32,threshold=0.5,min_share=0"


def test_the_same_outline_gives_the_same_bytes_also_through_the_decoding_process(tmp_path):
    case, mask = read(tmp_path)
    head, voxels = _pack(case)
    handed_on = _make_case(json.loads(json.dumps(head)), bytearray(voxels), "s")
    whole = seg_files.encode_mask(mask, case, FACTS)
    assert whole == seg_files.encode_mask(mask, handed_on, FACTS)
    other = {**FACTS, "variant": "int8"}
    uids = {
        encode(mask, case).SOPInstanceUID,
        encode(1 - mask, case).SOPInstanceUID,
        encode(mask, case, other).SOPInstanceUID,
    }
    assert len(uids) == 3


LACKS = {
    "FrameOfReferenceUID": {"FrameOfReferenceUID": None},
    "StudyInstanceUID": {"StudyInstanceUID": None},
    "SOPInstanceUID": {"SOPInstanceUID": "DOE JANE"},
    "one SOPInstanceUID": {"SOPInstanceUID": "1.2.3"},
}


@pytest.mark.parametrize("what", LACKS)
def test_without_what_a_seg_needs_there_is_none_and_a_remark(what, tmp_path):
    case, mask = read(tmp_path, **LACKS[what])
    assert what in case.no_seg and "DOE" not in case.no_seg
    assert case.remarks == () and case.warnings == (f"no DICOM SEG: {case.no_seg}",)
    assert seg_files.encode_mask(mask, case, FACTS) is None


def test_a_header_that_is_not_as_the_standard_says_costs_nothing_else(tmp_path):
    odd = {
        "PatientSex": "DOE JANE",
        "PatientBirthDate": "1970",
        "StudyDate": None,
        "StudyTime": "noon",
        "PatientID": None,
    }
    case, mask = read(tmp_path, **odd)
    seg = encode(mask, case)
    assert not seg.PatientSex and not seg.PatientBirthDate and seg.PatientName == "DOE^JANE"


def enhanced(frames: int) -> pydicom.Dataset:
    """The header of an enhanced MR file whose frames go from the head down."""
    header = pydicom.Dataset()
    for keyword, value in dicom_study.STUDY.items():
        setattr(header, keyword, value)
    header.SOPClassUID, header.SOPInstanceUID = pydicom.uid.EnhancedMRImageStorage, "1.2.3.4"
    header.Rows, header.Columns, header.NumberOfFrames = 20, 24, frames
    shared, plane, measures = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    plane.ImageOrientationPatient, measures.PixelSpacing, measures.SliceThickness = dicom_study.AXIAL, [1.25, 0.75], 2
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = []
    for n in range(frames):
        groups, place = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [-30, -40, -5 * n]
        groups.PlanePositionSequence = [place]
        header.PerFrameFunctionalGroupsSequence.append(groups)
    return header


def test_one_file_of_many_frames(tmp_path):
    from brainseg.io.dicom import seg_writer

    header = enhanced(6)
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.save_as(tmp_path / "e.dcm", enforce_file_format=True)
    upwards = tuple((tmp_path / "e.dcm", frame) for frame in (4, 3, 2, 1))
    origin = seg_writer.pick_origin(upwards, "e")
    mask = np.zeros((4, 20, 24), np.uint8)
    mask[0, 2, 3] = mask[3, 5, 6] = 1
    seg = pydicom.dcmread(BytesIO(seg_writer.encode(mask, origin, "model", {})))
    expected = [(-30 + 3 * 0.75, -40 + 2 * 1.25, -20), (-30 + 6 * 0.75, -40 + 5 * 1.25, -5)]
    assert same(pydicom_points(seg), np.array(expected))


@pytest.mark.parametrize("failure", [ImportError, NotImplementedError, AssertionError, RecursionError])
def test_whatever_highdicom_raises_costs_the_seg_alone(failure, tmp_path, monkeypatch):
    from brainseg.io.dicom.seg_writer import NoSegError

    case, mask = read(tmp_path)

    def fail(*_, **__):
        raise failure("DOE^JANE")

    monkeypatch.setattr(highdicom.seg, "Segmentation", fail)
    with pytest.raises(NoSegError) as caught:
        seg_files.encode_mask(mask, case, FACTS)
    assert "DOE" not in str(caught.value)


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("changes", [{}, {"axes": dicom_study.OBLIQUE}, {"StudyDate": None, "StudyTime": None}])
@pytest.mark.parametrize("empty", [False, True])
def test_the_checker_of_the_standard_finds_no_error(empty, changes, tmp_path):
    case, mask = read(tmp_path, **changes)
    (tmp_path / "seg.dcm").write_bytes(seg_files.encode_mask(mask * (not empty), case, FACTS))
    told = subprocess.run(["dciodvfy", tmp_path / "seg.dcm"], capture_output=True, text=True, check=False)
    assert "Error" not in told.stdout + told.stderr and "Segmentation" in told.stderr
