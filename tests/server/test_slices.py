"""A folder of numbered pictures as one volume, sent as files or as a zip."""

import io
import zipfile

import nibabel
import numpy as np
import pytest

from brainseg.server import app
from brainseg.server.worker import _ZIP_FIX
from tests.support.server_fixture import encoded, head, serving

PATIENT = "TCGA_CS_4941_19960909"


@pytest.fixture(scope="module")
def served():
    with serving(settings=app.Settings(decoders=2)) as running:
        yield running


def colour(tumour: bool, green: int = 0) -> bytes:
    page = np.repeat(head(tumour=tumour)[..., None], 3, axis=-1)
    page[0, 0, 1] = green
    return encoded(page, kind="TIFF")


def patient(numbers=range(1, 13), tumour=(3, 4), name=PATIENT) -> dict[str, bytes]:
    """The files of the training set's own folder of a patient, in the order of their names: 1, 10, 11, 12, 2, ..."""
    files = {f"{name}_{number}.tif": colour(number in tumour, number) for number in numbers}
    masks = {f"{name}_{number}_mask.tif": encoded(head(tumour=number in tumour), kind="TIFF") for number in numbers}
    return dict(sorted((files | masks).items()))


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def send(served, files: dict[str, bytes], **settings):
    return served.segment(*(("file", data, name) for name, data in files.items()), **settings)


def test_a_patients_folder_is_one_volume_in_the_order_of_its_numbers(served):
    body = send(served, patient()).json()
    assert (body["input"]["kind"], body["input"]["slices"]) == ("slices", 12)
    assert body["input"]["numbers"] == list(range(1, 13))
    assert [each["slice"] for each in body["slices"] if each["pixels"]] == [3, 4]  # by number, not by name
    assert "left out 12 files that are masks by their names" in body["warnings"]
    assert served.model.numbers == tuple(range(1, 13))


def test_a_zip_of_the_folder_is_the_same(served):
    files = {f"{PATIENT}/{name}": data for name, data in patient().items()}
    sent, packed = send(served, patient()).json(), served.segment(zipped(files)).json()
    assert {**packed["summary"], "seconds": 0} == {**sent["summary"], "seconds": 0}
    assert packed["input"] == sent["input"] and packed["warnings"] == sent["warnings"]
    more = files | {f"{PATIENT}/notes.txt": b"aside", f"{PATIENT}/__MACOSX/x": b"", f"{PATIENT}/blob": b"what"}
    assert "passed over 1 file that is no picture" in served.segment(zipped(more)).json()["warnings"]


def test_gaps_between_numbers_part_the_volume(served):
    """A slice without neighbours is no part of a volume, as on the command line; places in the answer count from 1."""
    files = {name: data for name, data in patient((1, 2, 7, 8, 20), (8,)).items() if "mask" not in name}
    body = send(served, files).json()
    assert body["input"]["numbers"] == [1, 2, 7, 8, 20] == list(served.model.numbers)
    assert any("1 of 5 slices have no neighbours (20)" in warning for warning in body["warnings"])
    (lesion,) = body["lesions"]
    assert (lesion["first_slice"], lesion["largest_slice"], lesion["last_slice"]) == (4, 4, 4)


def test_one_image_beside_its_mask_is_a_picture(served):
    body = send(served, patient((1,))).json()
    assert body["input"]["kind"] == "picture" and body["warnings"] == ["left out 1 file that is a mask by its name"]
    assert served.segment(zipped(patient((1,)))).json()["input"]["kind"] == "picture"
    pages = {"a.tif": encoded(head(), head(), kind="TIFF")}
    assert served.segment(zipped(pages)).json()["input"]["kind"] == "tif"


def test_pngs_and_three_sequences_of_slices(served):
    """Each with its own grey, by which the voxels show whose slice they are."""
    numbers = (1, 2, 10)

    def series(name: str, grey: int) -> list[tuple[str, bytes, str]]:
        pages = {number: np.full_like(head(), grey + number) for number in numbers}
        return [(name, encoded(pages[number]), f"x_{number}.png") for number in (2, 1, 10)]

    body = served.segment(*series("post", 150), *series("flair", 100), *series("pre", 50)).json()
    assert body["input"]["channels"] == ["pre-contrast", "FLAIR", "post-contrast"]
    greys = [[grey + number for grey in (50, 100, 150)] for number in numbers]
    assert served.model.voxels[:, 0, 0].tolist() == served.model.voxels[:, -1, -1].tolist() == greys
    body = served.segment(*series("flair", 100), *series("pre", 50)).json()
    assert served.model.voxels[:, 0, 0].tolist() == [[50 + n, 100 + n, 100 + n] for n in numbers]
    assert body["input"]["channels"] == ["pre-contrast", "FLAIR", "FLAIR"] and body["input"]["numbers"] == [1, 2, 10]
    others = [("pre", data, name.replace("10", "3")) for _, data, name in series("pre", 50)]
    refused = served.segment(*series("flair", 100), *others)
    assert refused.status_code == 422
    assert refused.json()["error"]["what"] == "the upload, pre-contrast: has other slice numbers than the FLAIR"


@pytest.mark.parametrize("names", [
    ("a_1.tif", "b_2.tif"), ("a.tif", "b.tif"), ("a_1.tif", "a.tif"), ("a_1_mask.tif", "a_2_mask.tif"),
    ("a_1.tif", "a_2.png")])  # fmt: skip
def test_pictures_that_are_not_one_volume_are_refused(served, names):
    files = {name: encoded(head(), kind="TIFF" if name.endswith("tif") else "PNG") for name in names}
    for answer, status in ((send(served, files), 400), (served.segment(zipped(files)), 422)):
        error = answer.json()["error"]
        assert answer.status_code == status and "not the numbered slices of one patient" in error["what"]
        assert "numbered pictures of one patient" in error["fix"] or "X_1.tif" in error["fix"]


@pytest.mark.parametrize("numbers", [((1, 2), (1, 2)), ((1,), (2,))])
def test_two_patients_are_refused(served, numbers):
    """Their folders tell them apart, in a zip and in the names of files that are sent."""
    files = patient(numbers[0], name="A/x") | patient(numbers[1], name="B/x")
    refused = served.segment(zipped(files))
    assert refused.status_code == 422 and refused.json()["error"]["fix"] == _ZIP_FIX
    for sent in (files, {name.replace("/", "\\"): data for name, data in files.items()}):
        refused = send(served, sent)
        assert refused.status_code == 400
        assert refused.json()["error"]["what"].endswith("which are not the numbered slices of one patient")


def test_the_folder_of_files_may_be_told_in_more_than_one_way(served):
    files = {"A/x_1.tif": colour(True), "./A/x_2.tif": colour(True), "A\\x_3.tif": colour(True)}
    assert send(served, files).json()["input"]["numbers"] == [1, 2, 3]
    out = {"../x_1.tif": colour(True), "../x_2.tif": colour(True), "/x_3.tif": colour(True)}
    assert send(served, out).status_code == 400  # a name is compared, and never a place where something is written


@pytest.mark.parametrize("name", ["scan.nii", "scan.nrrd", "scan.mha", "scan.mgh", "scan.hdr", "scan"])
@pytest.mark.parametrize("kind", ["nifti", "nrrd", "metaimage", "mgh", "damaged"])
def test_a_volume_in_a_zip_is_not_passed_over_for_its_screenshot(served, name, kind):
    """What a file is, its name or its bytes say."""
    voxels = np.zeros((8, 8, 4), np.uint8)
    volume = {
        "nifti": nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes(),
        "nrrd": b"NRRD0004\ntype: uchar\n",
        "metaimage": b"ObjectType = Image\nNDims = 3\n",
        "mgh": nibabel.MGHImage(voxels, np.eye(4)).to_bytes(),
        "damaged": b"what",
    }[kind]
    refused = served.segment(zipped({name: volume, "preview.png": encoded(head())}))
    if (name, kind) == ("scan", "damaged"):
        assert refused.json()["warnings"] == ["passed over 1 file that is no picture"]
    else:
        error = refused.json()["error"]
        assert (refused.status_code, error["what"]) == (422, "file: is a zip that holds a volume")
        assert error["fix"] == "send the volume itself"


@pytest.mark.parametrize("as_zip", [False, True])
def test_faulty_slices_are_named_by_their_numbers(served, as_zip):
    """The names themselves may be a patient's."""
    good, small, pages = colour(True), encoded(head(32), kind="TIFF"), encoded(head(), head(), kind="TIFF")
    cases = {
        "slice 2: is damaged": {"Kowalski_1.tif": good, "Kowalski_2.tif": good[:200]},
        "slice 7: has several pages": {"Kowalski_6.tif": good, "Kowalski_7.tif": pages},
        "are slices of which several are number 1": {"Kowalski_1.tif": good, "Kowalski_01.tif": good},
        "are slices of different kinds": {"Kowalski_1.tif": good, "Kowalski_2.tif": small},
    }
    for told, files in cases.items():
        answer = served.segment(zipped(files)) if as_zip else send(served, files)
        assert answer.status_code == 422 and answer.json()["error"]["what"].startswith("file"), answer.text
        assert told in answer.json()["error"]["what"] and "Kowalski" not in answer.text


def test_the_numbers_of_a_zips_files_stay_within_its_limits(served):
    refused = served.segment(zipped({f"a_{number}.png": encoded(head(16)) for number in range(1100)}))
    assert refused.status_code == 422 and "holds more than 1,024 files" in refused.json()["error"]["what"]
