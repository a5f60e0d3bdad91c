"""The page's DICOM SEG is Python's, element by element: frames, references, the segment, what made it. In Node."""

import json
import shutil
import subprocess
from functools import cache

import numpy as np
import pytest

from brainseg.inference import cases
from brainseg.inference.answers import seg_files
from brainseg.io.dicom import seg_reader
from tests.support import golden, shared
from tests.support.site import needs_libraries
from tools import build_page

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
from tests.support import dicom_study  # noqa: E402

pytestmark = needs_libraries
STORED = np.random.default_rng(0).integers(0, 4000, (9, 21, 23)).astype(np.uint16)  # bits that end within a byte
FACTS = {
    "model": {"weights_sha256": "ab" * 32},
    "variant": "float32",
    "rule": {"threshold": 0.55, "min_component": 4, "min_share": 0.2},
}
PARAMETERS = {
    "weights_sha256": "ab" * 32,
    "variant": "float32",
    "threshold": "0.55",
    "min_component": "4",
    "min_share": "0.2",
}
SERIES = {
    **dicom_study.PLACES,
    "alone": {},
    "with a step": {"SpacingBetweenSlices": "5.0"},
    "with more of the study": {"StudyDescription": "head", "PatientAge": "031Y", "PatientWeight": "70.5"},
    "without most": {"PatientID": None, "PatientName": None, "StudyDate": None, "StudyTime": None, "SeriesNumber": None,
                     "PositionReferenceIndicator": None},
    "odd": {"PatientSex": "DOE JANE", "PatientBirthDate": "1970", "StudyTime": "noon", "StudyID": "a" * 17},
    "a name in letters of its own": {"PatientName": "Grün^Ö", "SpecificCharacterSet": "ISO_IR 100"},
    "a name in two scripts": {"PatientName": "Yamada^Tarou=山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
}  # fmt: skip
LACKS = {
    "no frame of reference": {"FrameOfReferenceUID": None},
    "no study": {"StudyInstanceUID": None},
    "no name of its own": {"SOPInstanceUID": "DOE JANE"},
    "one name for all": {"SOPInstanceUID": "1.2.3"},
}
MASKS = ("some", "edited", "apart", "one", "empty")
OWN = {"SOPInstanceUID", "SeriesInstanceUID", "DimensionOrganizationUID"}  # another program, another file


def write(folder):
    """Series and masks, and what Node writes of them: ``SERIES MASK.dcm``."""
    asked = []
    for name, changes in (SERIES | LACKS).items():
        stored = STORED[:1] if name == "alone" else STORED
        dicom_study.save(folder / name, stored, **changes)
        shape = cases.read(folder / name, name).voxels.shape
        for kind in MASKS:
            draw(shape, kind).tofile(folder / f"{name} {kind}.bin")
            outline = {"parameters": PARAMETERS, "edited": kind == "edited"}
            asked.append({"id": f"{name} {kind}", "series": name, "mask": f"{name} {kind}.bin", "outline": outline})
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    program = shared.folder("golden-program", golden.build) / "seg.js"
    node = build_page.node_folder(golden.WEB) / "node"
    done = subprocess.run([node, program, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="session")
def written():
    """The folder, and the cases as Python reads them."""
    folder = shared.folder("page-seg", write)
    return folder, cache(lambda name: cases.read(folder / name, name))


def draw(shape, kind):
    mask = (np.random.default_rng(1).random(shape) > 0.8).astype(np.uint8)
    mask[: len(mask) // 4] = mask[:, :, 3] = 0
    if kind == "apart":  # frames that are no even stack
        mask[len(mask) // 2 :: 3] = 0
    if kind == "one":
        mask[: len(mask) // 2] = mask[len(mask) // 2 + 1 :] = 0
    return mask * (kind != "empty")


def flatten(dataset, place=""):
    """Each element of a data set by where it stands, numbers as numbers."""
    for element in dataset:
        where = f"{place}/{element.keyword}"
        own = element.keyword in OWN and not place.startswith("/Referenced")
        if own or element.keyword.startswith("Contributing"):
            continue
        if element.VR == "SQ":
            yield where, len(element.value)
            for n, item in enumerate(element.value):
                yield from flatten(item, f"{where}[{n}]")
        elif element.VR == "DS":
            yield where, np.atleast_1d(np.array(element.value, float)).round(4).tolist()
        elif element.keyword == "PixelData":  # without the byte at its end that makes it even
            yield where, dataset.pixel_array.tobytes()
        else:
            yield where, str(element.value).strip()


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("name", SERIES)
def test_it_has_the_elements_of_pythons(written, name, kind, tmp_path):
    folder, read = written
    case = read(name)
    mask = draw(case.voxels.shape, kind)
    mine, truth = folder / f"{name} {kind}.dcm", tmp_path / "python.dcm"
    truth.write_bytes(seg_files.encode_mask(mask, case, FACTS))
    ours, theirs = (dict(flatten(pydicom.dcmread(path))) for path in (mine, truth))
    if kind == "edited":
        theirs["/ContentDescription"] += "; edited by hand"
        theirs["/SegmentSequence[0]/SegmentAlgorithmType"] = "SEMIAUTOMATIC"
    assert ours == theirs
    assert len(ours) > 60


@pytest.mark.parametrize("name", SERIES)
def test_it_is_the_mask_again_and_highdicom_takes_it(written, name):
    """In the patient's space, by two readers: brainseg's own, as of other people's files, and highdicom."""
    folder, read = written
    case = read(name)
    mask = draw(case.voxels.shape, "some")
    path = folder / f"{name} some.dcm"
    assert np.array_equal(seg_reader.read_labels(path, name, case.volume).voxels, mask)
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    assert volume.array.sum() == mask.sum()


def test_it_says_what_made_it(written):
    folder, _ = written
    found = pydicom.dcmread(folder / "axial some.dcm")
    assert found.ContentDescription.startswith("Research use only")
    (algorithm,) = found.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert f"weights_sha256={'ab' * 32}" in algorithm.AlgorithmParameters
    assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID


def test_other_outlines_have_other_uids_and_the_same_has_the_same(written):
    folder, _ = written
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in folder.glob("*.dcm")]
    assert len(uids) == len(SERIES) * len(MASKS) and all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    kinds = {str(pydicom.dcmread(folder / f"axial {kind}.dcm").SOPInstanceUID) for kind in MASKS}
    assert len(kinds) == len(MASKS)  # also of the same mask, edited


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("name", ["axial", "alone", "oblique", "without most"])
def test_the_checker_of_the_standard_finds_no_error(written, name, kind):
    told = subprocess.run(["dciodvfy", written[0] / f"{name} {kind}.dcm"], capture_output=True, text=True, check=False)
    assert "Error" not in told.stdout + told.stderr and "Segmentation" in told.stderr


@pytest.mark.parametrize("name", LACKS)
def test_without_what_it_needs_there_is_none_and_the_reason_is_pythons(written, name):
    folder, read = written
    assert read(name).no_seg and (folder / f"{name} some.txt").read_text(encoding="utf-8") == read(name).no_seg
