"""What the server answers: numbers, pictures, volumes, examples, the page, the docs, and who gets access."""

import base64
import gzip
import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from urllib.parse import parse_qsl

import nibabel
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from brainseg import cli
from brainseg.errors import DataError
from brainseg.inference import plausibility
from brainseg.inference.plausibility import Verdict
from brainseg.inference.predictor import Predictor
from brainseg.io import pictures, scans
from brainseg.io.volumes import Geometry, Volume
from brainseg.server import app, examples, serve
from brainseg.server.layers.guard import LOCAL_HOSTS
from brainseg.server.refusals import Refusal
from brainseg.server.routes import docs
from tests.support import bombs, dicom_study, itk_files, onnx_toy, phantom_examples
from tests.support.server_fixture import FACTS, Model, encoded, head, serving

PICTURE = encoded(head())
JSON = {"Accept": "application/json"}
TILTED = np.array([[0, 0, 2.0, -30], [-1.5, 0, 0, 40], [0, -1.0, 0, 50], [0, 0, 0, 1.0]])  # axes in another order


@pytest.fixture(scope="module")
def served():
    with serving() as running:
        yield running


def nifti(voxels: np.ndarray, affine=TILTED) -> bytes:
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_sform(affine, 1)
    return gzip.compress(image.to_bytes(), 1)


def loaded(data: bytes) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(data))


VOXELS = np.random.default_rng(3).integers(0, 190, (20, 5, 30)).astype(np.uint8)
VOXELS[4:9, 1:4, 10:16] = 230


def test_a_picture_in_numbers(served):
    body = served.segment(PICTURE).json()
    assert body["disclaimer"].startswith("Research use only")
    assert body["model"] == {"weights_sha256": "ab" * 32, "variant": "float32", "marks": ["20 of 110 patients"]}
    assert body["input"] == {"kind": "picture", "slices": 1, "height": 64, "width": 64, "spacing_mm": None,
                             "orientation": "unknown", "channels": ["FLAIR"] * 3, "numbers": None}  # fmt: skip
    summary = body["summary"]
    assert (summary["tumour_pixels"], summary["area_pixels"], summary["largest_slice"]) == (256, 256, 1)
    assert summary["area_mm2"] is None and summary["volume_ml"] is None
    assert summary["mean_probability"] == 0.8
    assert body["slices"] == [{"slice": 1, "pixels": 256, "area_mm2": None, "mean_probability": 0.8}]
    assert "volumes" not in body


def test_no_tumour_is_an_answer(served):
    body = served.segment(encoded(head(tumour=False))).json()
    assert body["summary"]["tumour_pixels"] == 0
    assert body["summary"]["largest_slice"] is None and body["summary"]["mean_probability"] is None
    assert served.segment(encoded(head(tumour=False)), headers={"Accept": "image/png"}).status_code == 200


def test_a_volume_in_millimetres(served):
    body = served.segment(nifti(VOXELS)).json()
    assert body["input"]["kind"] == "nifti" and body["input"]["orientation"] == "known"
    assert sorted(body["input"]["spacing_mm"]) == [1.0, 1.5, 2.0]
    volume = 5 * 6 * 3 * 1.0 * 1.5 * 2.0
    assert body["summary"]["volume_ml"] == pytest.approx(volume / 1000)
    assert body["summary"]["tumour_pixels"] == 90
    assert sum(each["area_mm2"] for each in body["slices"]) == pytest.approx(volume / body["input"]["spacing_mm"][2])


def test_the_mask_lies_on_the_voxels_of_the_file(served):
    answer = served.segment(nifti(VOXELS), headers={"Accept": "application/x-nifti"})
    assert answer.headers["content-type"] == "application/x-nifti"
    mask = loaded(answer.content)
    assert np.array_equal(np.asarray(mask.dataobj), VOXELS >= 200)
    assert np.allclose(mask.affine, TILTED)


def test_the_probabilities_lie_on_the_voxels_of_the_file(served):
    answer = served.segment(nifti(VOXELS), query="?probability=true", headers={"Accept": "application/x-nifti"})
    found = loaded(answer.content)
    assert found.get_data_dtype() == np.float32 and np.allclose(found.affine, TILTED)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.where(VOXELS >= 200, np.float32(0.8), np.float32(0)))


def test_lesions_are_in_the_numbers(served):
    voxels = VOXELS.copy()
    voxels[15, 2, 20:22] = 230
    body = served.segment(nifti(voxels)).json()
    large, small = body["lesions"]
    assert (large["lesion"], large["voxels"], small["lesion"], small["voxels"]) == (1, 90, 2, 2)
    assert large["volume_ml"] + small["volume_ml"] == pytest.approx(body["summary"]["volume_ml"], abs=0.002)
    assert [small[f"centroid_{axis}"] for axis in "ijk"] == [15, 2, 20.5]
    assert {large["mean_probability"], large["max_probability"]} == {0.8}
    (lone,) = served.segment(PICTURE).json()["lesions"]
    assert (lone["voxels"], lone["volume_ml"], lone["first_slice"], lone["last_slice"]) == (256, None, 1, 1)
    assert served.segment(encoded(head(tumour=False))).json()["lesions"] == []


def test_a_chosen_rule_is_applied_and_told(served):
    own = served.segment(PICTURE).json()
    assert (
        own["rule"] == {"threshold": 0.5, "min_component": 20, "min_share": 0.0, "of_the_model": True}
        and not own["warnings"]
    )
    body = served.segment(PICTURE, query="?threshold=0.9&min_component=0").json()
    assert body["rule"] == {"threshold": 0.9, "min_component": 0, "min_share": 0.0, "of_the_model": False}
    assert body["summary"]["tumour_pixels"] == 0 and "threshold 0.9" in " ".join(body["warnings"])
    assert served.segment(PICTURE).json()["summary"] | {"seconds": 0} == own["summary"] | {"seconds": 0}


@pytest.mark.parametrize(
    ("query", "told"),
    [(f"threshold={value}", "than") for value in ("0", "1", "-1", "nan", "inf", "1e400")]
    + [("threshold=high", "number"), ("min_component=-1", "0"), ("min_component=9999999999", "134217728")],
)
def test_a_rule_out_of_range_is_refused(served, query, told):
    answer = served.segment(PICTURE, query=f"?{query}")
    assert answer.status_code == 422
    what = answer.json()["error"]["what"]
    assert query.partition("=")[0] in what and told in what


def test_very_many_lesions_are_cut_and_that_is_said(served, monkeypatch):
    dots = np.zeros((64, 64), np.uint8)
    dots[::4, ::4] = 255
    for most, told in ((255, True), (256, False)):
        monkeypatch.setattr("brainseg.inference.answers.lesions.MOST", most)
        body = served.segment(encoded(dots)).json()
        assert len(body["lesions"]) == most and (f"only the {most} largest" in " ".join(body["warnings"])) == told


def test_a_complete_dicom_series_can_be_had_back_as_seg(served, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    paths = dicom_study.save(tmp_path / "s", np.stack([head(), head(), head(tumour=False)]).astype(np.uint16))
    files = [path.read_bytes() for path in paths]
    assert served.segment(*files).json()["seg"] is True
    answer = served.segment(*files, headers={"Accept": "application/dicom"})
    assert answer.headers["content-type"] == "application/dicom"
    seg = pydicom.dcmread(io.BytesIO(answer.content))
    assert seg.pixel_array.sum() == 2 * 256
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == dicom_study.STUDY["SeriesInstanceUID"]


def test_what_a_series_lacks_for_a_seg_is_told(served, tmp_path):
    pytest.importorskip("highdicom")
    voxels = np.stack([head(), head(), head()]).astype(np.uint16)
    files = [path.read_bytes() for path in dicom_study.save(tmp_path / "s", voxels, FrameOfReferenceUID=None)]
    body = served.segment(*files).json()
    assert body["seg"] is False and [w for w in body["warnings"] if "no DICOM SEG: its headers lack" in w]
    refused = served.segment(*files, headers={"Accept": "application/dicom"})
    assert refused.status_code == 422 and "made: its headers lack a valid Frame" in refused.json()["error"]["what"]


def test_of_anything_else_no_seg_can_be_had(served):
    assert served.segment(PICTURE).json()["seg"] is False
    refused = served.segment(PICTURE, headers={"Accept": "application/dicom"})
    assert refused.status_code == 422 and "no DICOM series" in refused.json()["error"]["what"]


@pytest.mark.parametrize("channels", [1, 3])
def test_volumes_for_the_viewer_share_one_axial_grid(served, channels):
    """The viewer's grids place the tumour at the same millimetres as the file does."""
    voxels = VOXELS if channels == 1 else np.stack([VOXELS // 2, VOXELS, VOXELS // 3], axis=-1)
    body = served.segment(nifti(voxels), query="?volumes=true").json()
    image, mask, probability = (loaded(base64.b64decode(body["volumes"][name])) for name in
                                ("image", "mask", "probability"))  # fmt: skip
    assert np.array_equal(image.affine, mask.affine) and np.array_equal(image.affine, probability.affine)
    assert nibabel.aff2axcodes(mask.affine) == ("L", "P", "S")  # columns to the patient's left, rows to the back
    shape = (body["input"]["width"], body["input"]["height"], body["input"]["slices"])
    assert image.shape == mask.shape == shape
    places = nibabel.affines.apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) == 1))
    expected = nibabel.affines.apply_affine(TILTED, np.argwhere(VOXELS >= 200))
    assert sorted(map(tuple, places.round(3))) == sorted(map(tuple, expected.round(3)))
    assert set(np.unique(np.asarray(probability.dataobj))) == {0, 204}
    assert (image.get_data_dtype().names == ("R", "G", "B")) == (channels == 3)


def test_of_three_equal_channels_the_viewer_gets_one(served):
    page = np.repeat(head()[..., None], 3, axis=-1)
    body = served.segment(encoded(page), query="?volumes=true").json()
    image = loaded(base64.b64decode(body["volumes"]["image"]))
    assert image.get_data_dtype() == np.uint8
    assert np.allclose(image.affine, np.diag([-1, -1, 1, 1]))
    assert np.asarray(image.dataobj)[:, :, 0].T.argmax() == head().argmax()


def test_a_png_shows_the_slice_that_is_asked_for(served):
    pages = encoded(head(tumour=False), head(), head(), kind="TIFF")
    answers = {k: served.segment(pages, query=f"?slice={k}", headers={"Accept": "image/png"}) for k in (1, 2, 3, 4, 0)}
    assert {k: answer.status_code for k, answer in answers.items()} == {1: 200, 2: 200, 3: 200, 4: 422, 0: 422}
    largest = served.segment(pages, headers={"Accept": "image/png"})
    assert largest.content == answers[2].content != answers[1].content
    orange = np.asarray(Image.open(io.BytesIO(answers[2].content)).convert("RGB")).reshape(-1, 3) == (255, 170, 0)
    assert orange.all(axis=1).sum() > 100


@pytest.mark.parametrize(("accept", "kind"), [
    ("*/*", "application/json"), ("", "application/json"), ("image/png", "image/png"), ("text/html", None),
    ("text/html, image/png;q=0.5, application/x-nifti;q=0.7", "application/x-nifti"), ("image/png;q=0", None),
    ("application/json;q=abc", None), ("*/*;q=0.1, image/*", "image/png")])  # fmt: skip
def test_the_accept_header_chooses(served, accept, kind):
    answer = served.segment(PICTURE, headers={"Accept": accept})
    assert (answer.headers["content-type"] if answer.ok else None) == kind
    assert answer.ok or answer.status_code == 406


def test_series_can_be_assigned(served):
    flair, pre = nifti(VOXELS), nifti(VOXELS // 2)
    assert served.segment(("flair", flair)).json()["input"]["channels"] == ["FLAIR"] * 3
    body = served.segment(("flair", flair), ("pre", pre)).json()
    assert body["input"]["channels"] == ["pre-contrast", "FLAIR", "FLAIR"]
    assert body["summary"]["tumour_pixels"] == 90
    all_three = served.segment(("flair", flair), ("pre", pre), ("post", pre)).json()
    assert all_three["input"]["channels"] == ["pre-contrast", "FLAIR", "post-contrast"]
    assert served.segment(("pre", pre)).status_code == 400
    assert served.segment(("flair", flair), ("file", pre)).status_code == 400
    elsewhere = served.segment(("flair", flair), ("post", nifti(VOXELS, TILTED + 9 * np.eye(4, k=3))))
    assert elsewhere.status_code == 422 and "elsewhere" in elsewhere.json()["error"]["what"]


def slices(count: int = 4) -> list[bytes]:
    return [
        bombs.dicom(ImagePositionPatient=[0, 0, 5 * n], PixelData=head().astype("<u2").tobytes()) for n in range(count)
    ]


@pytest.mark.parametrize("ending", ["nrrd", "mha", "mgh", "mgz", "hdr", "hdr.gz", "nhdr", "mhd"])
def test_other_volumes_and_headers_with_their_voxels(served, tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending in ("mgh", "mgz"):
        nibabel.save(nibabel.MGHImage(VOXELS, TILTED), path)
    elif ending.startswith("hdr"):
        nibabel.save(nibabel.Nifti1Pair(VOXELS, TILTED), path)  # hdr.gz: the voxels are packed, too
    else:
        itk_files.write(path, VOXELS, TILTED, packed=ending == "mha")
    files = [each.read_bytes() for each in sorted(tmp_path.glob("a.*"), reverse=True)]
    assert len(files) == (2 if ending in ("hdr", "hdr.gz", "nhdr", "mhd") else 1)
    kind = {"h": "nifti", "n": "nrrd", "m": "metaimage"}[ending[0]] if ending[:2] != "mg" else "mgh"
    body = served.segment(*files).json()
    assert body["input"]["kind"] == kind and body["summary"]["tumour_pixels"] == 90
    assert body["warnings"] == []
    mask = loaded(served.segment(*files, headers={"Accept": "application/x-nifti"}).content)
    np.testing.assert_allclose(mask.affine, TILTED, atol=1e-5)


def test_half_of_a_volume_is_refused_with_what_is_missing(served, tmp_path):
    itk_files.write(tmp_path / "a.mhd", VOXELS, TILTED)
    header, voxels = (tmp_path / "a.mhd").read_bytes(), (tmp_path / "a.raw").read_bytes()
    for files, status, what in (
        ([header], 422, "a.raw, is not beside it"),
        ([voxels], 415, "is not of an accepted kind"),
        ([header, voxels, voxels], 415, "not of an accepted kind"),
        ([header.replace(b"a.raw", b"/etc/passwd"), voxels], 415, "only a file in the same folder is read"),
        ([header.replace(b"a.raw", b"x" * 251), voxels], 415, "bytes, at most 250 are read"),
        ([header.replace(b"a.raw", b"x" * 251)], 422, "bytes, at most 250 are read"),
        ([header.replace(b"a.raw", b"x" * 250)], 422, "is not beside it"),
    ):
        refused = served.segment(*files)
        assert refused.status_code == status and what in refused.json()["error"]["what"]


def test_the_page_knows_the_endings_that_are_read():
    source = (Path(__file__).parents[2] / "web/src/core/discover.ts").read_text("utf-8")
    known = {
        name: set(re.search(rf'const {name} = "(.*)".split', source)[1].split()) for name in ("VOLUMES", "PICTURES")
    }
    assert known == {"VOLUMES": set(scans.SUFFIXES), "PICTURES": set(pictures.SUFFIXES)}


def test_dicom_as_files_or_as_a_zip(served):
    files = slices()
    body = served.segment(*reversed(files)).json()
    assert body["input"]["kind"] == "dicom" and body["input"]["spacing_mm"] == [1.0, 1.0, 5.0]
    assert body["summary"]["tumour_pixels"] == 4 * 256
    for stray, status in ((b"a note", 415), (b"", 400)):  # the answer gives the number of the faulty file
        refused = served.segment(*files[:2], stray, *files[2:])
        assert refused.status_code == status
        assert refused.json()["error"]["what"].startswith("file, number 3 of 5: is ")
    cut = served.segment(files[0], files[1][:300])
    assert cut.json()["error"]["what"] == "file, number 2 of 2: holds no image"
    assert served.segment(files[1][:300]).json()["error"]["what"] == "file: holds no image"  # alone it has no number
    other = bombs.dicom(Rows=32, ImagePositionPatient=[0, 0, 50], PixelData=bytes(4096))
    assert served.segment(*files, other).json()["error"]["what"] == (
        "file, number 5 of 5: is of another size than number 1 of 5"
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, data in enumerate(files):
            archive.writestr(f"export/Series 3/IM{n}", data)
        for name in ("DICOMDIR", "export/readme.txt", "__MACOSX/._IM0", "export/.DS_Store"):
            archive.writestr(name, b"aside")
    zipped = served.segment(buffer.getvalue()).json()
    assert {**zipped["summary"], "seconds": 0} == {**body["summary"], "seconds": 0}
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("export/other", b"no slice")
    passed = served.segment(buffer.getvalue())
    assert (
        "passed over 1 file that is not DICOM: number 5 of 5" in passed.json()["warnings"]
        and "export" not in passed.text
    )
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("export/Series 3/IM9", b"a damaged slice")
    refused = served.segment(buffer.getvalue())
    assert refused.status_code == 422 and "is not DICOM" in refused.json()["error"]["what"]
    assert "export/" not in refused.text and "IM9" not in refused.text


def test_dicom_without_preamble_is_known_by_its_first_elements(served):
    whole = slices()
    start = 144 + int.from_bytes(whole[0][140:144], "little")
    alone = served.segment(*(data[start:] for data in whole)).json()
    assert any("4 files that do not name their transfer syntax" in warning for warning in alone["warnings"])
    assert alone["summary"]["tumour_pixels"] == served.segment(*whole).json()["summary"]["tumour_pixels"]


def test_what_is_no_brain_is_refused_or_marked():
    verdicts = [Verdict(True, ["does not look like an axial brain slice (a knee?)"]), Verdict(False, ["odd"])]
    with serving(judge=lambda _: verdicts.pop(0), settings=app.Settings(decoders=1)) as served:
        refused = served.segment(PICTURE)
        assert refused.status_code == 422 and "a knee?" in refused.json()["error"]["what"]
        assert served.segment(PICTURE).json()["warnings"] == ["odd"]
        assert served.model.begun == 1


def test_a_model_of_phantoms_answers_phantoms_alone():
    facts = FACTS | {"model": {"weights_sha256": "ab" * 32, "protocol": {"source": "phantom"}}}
    with serving(Model(facts), settings=app.Settings(decoders=1)) as served:
        first = served.get("/v1/examples").json()[0]["id"]
        phantom = served.get(f"/v1/examples/{first}").content
        (mark,) = served.segment(phantom).json()["warnings"]
        assert "trained on drawn phantoms" in mark
        refused = served.segment(PICTURE)
        assert refused.status_code == 422 and "none of the phantom examples" in refused.json()["error"]["what"]
        assert "make pull" in refused.json()["error"]["fix"]
        assert served.get("/v1/model").json()["source"] == "phantom"


def test_a_real_model_outlines_a_phantom(tmp_path):
    predictor = Predictor(onnx_toy.write(tmp_path / "unet.onnx", side=256), threads=2)
    with serving(predictor, plausibility.assess, app.Settings(decoders=1)) as served:
        data = served.get("/v1/examples/phantom-1").content
        body = served.segment(data).json()
        voxels = np.stack(phantom_examples.pages()["phantom-1.tif"])
        expected = predictor.segment(voxels)
        assert body["input"]["kind"] == "tif" and body["input"]["channels"] == [
            "pre-contrast",
            "FLAIR",
            "post-contrast",
        ]
        assert [each["pixels"] for each in body["slices"]] == expected.mask.sum(axis=(1, 2)).tolist()
        assert expected.mask.any()
        noise = np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8)
        assert served.segment(encoded(noise)).status_code == 422


def test_what_answers_here(served):
    body = served.get("/v1/model").json()
    assert body["weights_sha256"] == "ab" * 32 and body["source"] == "kaggle"
    assert body["numbers"]["volume_dice"]["mean"] == 0.84
    assert body["marks"] == ["20 of 110 patients"]


def test_packaged_examples_are_drawn_as_stated(served):
    listed = served.get("/v1/examples").json()
    assert [each["id"] for each in listed] == ["phantom-1", "phantom-2"]
    for name, pages in phantom_examples.pages().items():
        content = served.get(f"/v1/examples/{name.removesuffix('.tif')}")
        assert content.headers["content-type"] == "image/tiff"
        with Image.open(io.BytesIO(content.content)) as image:
            assert image.n_frames == len(pages)
            for number, page in enumerate(pages):
                image.seek(number)
                assert np.array_equal(np.asarray(image), page)
    for unknown in ("phantom-3", "..%2fphantom-1", "%00", "phantom-1.tif"):
        assert served.get(f"/v1/examples/{unknown}").status_code == 404


@pytest.fixture
def preprocessed(tmp_path):
    """A project's folder and its images: the slices of patient A, who is for training, and B, who is for the test."""
    images = np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3), np.uint8)
    buffer = io.BytesIO()
    np.save(buffer, images)
    rows = [f"{row},TCGA_{'AB'[row // 3]},A,{10 - row},0,TCGA/{row}.tif," for row in range(6)]
    split = [f"{row},TCGA_{'AB'[row // 3]},0,{'test' if row >= 3 else 'train'}" for row in range(6)]
    texts = {
        examples.SLICES: "\n".join(["row,patient,institution,slice,tumour_pixels,source,spacing", *rows, ""]),
        examples.SPLIT: "\n".join(["row,patient,fold,subset", *split, ""]),
    }
    contents = {examples.IMAGES: buffer.getvalue(), **{path: text.encode() for path, text in texts.items()}}
    for path, content in contents.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    outs = [{"path": path, "md5": hashlib.md5(content).hexdigest()} for path, content in contents.items()]
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": {"preprocess": {"outs": outs}}}))
    return tmp_path, images


def test_test_patients_are_examples_where_they_are_there(preprocessed):
    root, images = preprocessed
    (root / "dvc.lock").unlink()
    patients = examples.Examples(root)
    assert patients.list_all() == [{"id": "patient-1", "title": "Test patient B, 3 slices", "kind": "tif"}]
    with Image.open(io.BytesIO(patients.content("patient-1"))) as image:
        assert np.array_equal(np.asarray(image), images[5])  # in the order of the slice numbers
    assert patients.phantoms() == set()
    packaged = examples.Examples(root, phantoms_alone=True)
    assert [each["id"] for each in packaged.list_all()] == ["phantom-1", "phantom-2"]
    change(root / examples.SLICES, b"TCGA_", b"PHANTOM_PA_000")
    with pytest.raises(Refusal, match="have changed since"):  # these rows may now belong to another patient
        patients.content("patient-1")
    drawn = examples.Examples(root, phantoms_alone=True)
    assert [each["title"] for each in drawn.list_all()] == ["Phantom PA_000B, 3 slices"] and len(drawn.phantoms()) == 1


def change(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        (examples.SLICES, b"patient", b"qatient", "damaged, cut short, or not what its name says (KeyError)"),
        (examples.SLICES, b"\n5,", b"\n1,", "its rows are not those of the 6 images"),
        (examples.SPLIT, b"subset", b"subseu", "(KeyError)"),
        (examples.SPLIT, b"\n2,", b"\n3,", "its rows are not those of the 6 images"),
        (examples.SLICES, b",TCGA_B", b",TCGA_\xc2", "(UnicodeDecodeError)"),
        (examples.IMAGES, b"NUMPY", b"NUMPX", "(ValueError)"),
        (examples.IMAGES, b"|u1", b"|i1", "holds int8 values of shape (6, 16, 16, 3)"),
    ],
)
@pytest.mark.parametrize("locked", [True, False])
def test_damaged_data_are_no_examples_and_hinder_nothing(preprocessed, path, old, new, told, locked, capsys):
    """With dvc.lock each flipped bit is found, without it those that make no sense. The reason is said."""
    root, _ = preprocessed
    change(root / path, old, new)
    if not locked:
        (root / "dvc.lock").unlink()
    found = examples.Examples(root)
    assert [each["id"] for each in found.list_all()] == ["phantom-1", "phantom-2"] and found.content("phantom-1")
    said = capsys.readouterr().err
    assert said.count("WARNING") == 1 and path in said
    assert ("dvc.lock says" if locked else told) in said and "packaged phantoms. Fix: r" in said


def test_data_that_are_sound_are_checked_against_the_lock_of_their_own_folder(preprocessed, monkeypatch, capsys):
    root, _ = preprocessed
    (root / "elsewhere").mkdir()
    monkeypatch.chdir(root / "elsewhere")
    assert [each["id"] for each in examples.Examples(root).list_all()] == ["patient-1"]
    change(root / examples.SLICES, b"3,TCGA_B,A,7", b"3,TCGA_B,A,3")  # sound for all but the lock
    assert [each["id"] for each in examples.Examples(root).list_all()] == ["phantom-1", "phantom-2"]
    (root / "dvc.lock").write_text("stages: {")
    assert [each["id"] for each in examples.Examples(root).list_all()] == ["phantom-1", "phantom-2"]
    assert "dvc.lock" in capsys.readouterr().err.splitlines()[-1]


def test_docs_need_neither_a_script_nor_the_network(served):
    page = served.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in ("/v1/segment", "/v1/model", "/v1/examples", "/health", "/ready"):
        assert path in page.text
    assert "<script" not in page.text and "http" not in page.text.replace("http-equiv", "")
    links = re.findall(r'(?:src|href)="?([^" >]+)', page.text)
    assert [link for link in links if not link.startswith("#")] == ["docs.css", "openapi.json"]
    assert {link[1:] for link in links if link.startswith("#")} <= set(re.findall(r'<h2 id="(\w+)"', page.text))
    assert served.get("/docs.css").headers["content-type"].startswith("text/css")
    assert "<b>" not in docs.render_page({"info": {"title": "<b>", "version": "<b>"}, "paths": {}})


def test_the_page_comes_from_the_package(tmp_path):
    with serving(settings=app.Settings(page=tmp_path / "unbuilt", decoders=0)) as own:
        assert "make serve" in own.get("/").text  # even if this package's page has been built
    (tmp_path / "index.html").write_text("<title>the page</title>")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/a.js").write_text("1")
    with serving(settings=app.Settings(page=tmp_path, decoders=0)) as own:
        assert "the page" in own.get("/").text
        assert own.get("/assets/a.js").headers["content-type"].startswith("text/javascript")
        assert own.get("/assets/../../secret").status_code == 404
        assert own.get("/v1/model").status_code == 200
        assert own.get("/nothing").json()["error"]["what"] == "Not Found"


def test_a_token_is_asked_for_and_moves_into_a_cookie(tmp_path):
    with serving(settings=app.Settings(token="secret-token", decoders=0)) as served:
        for path in ("/", "/v1/model", "/docs", "/openapi.json", "/nothing"):
            assert served.get(path).status_code == 401
        assert served.segment(PICTURE).status_code == 401
        assert served.get("/health").status_code == served.get("/ready").status_code == 200
        for wrong in ("secret-toke", "secret-token2", "", "é"):
            assert served.get("/", params={"token": wrong}).status_code == 401
        moved = served.get("/", params={"token": "secret-token", "a": "b"})
        assert (moved.status_code, moved.headers["location"]) == (303, "./?a=b")
        cookie = moved.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie  # a link on another page works
        assert "path=" not in cookie  # of the folder of the address, which a proxy may have taken off
        assert served.get("/v1/model").status_code == 200  # the session keeps cookies
        served.session.cookies.clear()
        others = 'prefs={"theme": "dark"}; a b=c; brainseg_token=secret-token; =; x'  # other programs set cookies too
        assert served.get("/v1/model", headers={"Cookie": others}).status_code == 200
        assert served.get("/v1/model", headers={"Cookie": "brainseg_token=secret"}).status_code == 401
        for header in ("Bearer secret-token", "bearer secret-token"):
            assert served.get("/v1/model", headers={"Authorization": header}).status_code == 200
        for header in ("secret-token", "Basic secret-token", "Bearer x", "Bearer"):
            assert served.get("/v1/model", headers={"Authorization": header}).status_code == 401
        away = served.get("//evil.example/?token=secret-token")
        assert away.headers["location"] == "./"
        deeper = served.get("/v1/model", params={"token": "secret-token"})
        assert deeper.headers["location"] == "./model" and "path=" not in deeper.headers["set-cookie"].lower()
        for several in (
            "brainseg_token=old; brainseg_token=secret-token",
            "brainseg_token=secret-token; brainseg_token=old",
        ):
            assert served.get("/v1/model", headers={"Cookie": several}).status_code == 200
        assert served.get("/docs", params={"token": "secret-token"}).headers["location"] == "./docs"


def test_names_and_addresses_of_other_machines(monkeypatch):
    assert [serve.is_local(host) for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9")] == [True] * 4
    assert [serve.is_local(host) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org")] == [False] * 4
    monkeypatch.setenv("BRAINSEG_ALLOWED_HOSTS", "brain.example.org, OTHER")
    assert serve.named_hosts("0.0.0.0") == {"brain.example.org", "other"}
    assert "192.168.1.2" in serve.named_hosts("192.168.1.2")
    with serving(settings=app.Settings(hosts={*LOCAL_HOSTS, "brain.example.org"}, decoders=0)) as served:
        assert served.get("/", headers={"Host": "brain.example.org:80"}).status_code == 200


@pytest.mark.parametrize(("host", "opened"), [
    ("127.0.0.1", "http://localhost:5000/"), ("0.0.0.0", "http://localhost:5000/"), ("::", "http://localhost:5000/"),
    ("192.168.1.2", "http://192.168.1.2:5000/"), ("fd00::2", "http://[fd00::2]:5000/")])  # fmt: skip
def test_the_printed_address_leads_to_the_server(host, opened):
    """A server that listens on one address of several is not reached as localhost. A token may have any character."""
    assert serve.address(host, 5000, None) == opened
    assert serve.address(host, 5000, "a+b/c&d#e=") == f"{opened}#token=a%2Bb%2Fc%26d%23e%3D"


def test_a_printed_token_with_special_characters_gives_access():
    token = "a+b/c&d#e=%41"
    with serving(settings=app.Settings(token=token, decoders=0)) as served:
        printed = serve.address("127.0.0.1", 1, token).partition("#")[2]
        given = dict(parse_qsl(printed))  # as the page's URLSearchParams reads it
        assert served.session.post(served.url + "/login", given, timeout=30).status_code == 204
        assert served.get("/v1/model").status_code == 200
        served.session.cookies.clear()
        assert served.get(f"/?{printed}").status_code == 303  # as it was printed before
        assert served.get("/v1/model").status_code == 200


def test_a_token_that_was_set_is_asked_for_wherever_the_server_listens(monkeypatch):
    """A proxy in front of a local server gives others access."""
    monkeypatch.delenv("BRAINSEG_TOKEN", raising=False)
    assert serve.choose_token("127.0.0.1") is None
    assert len(serve.choose_token("0.0.0.0")) >= 32
    monkeypatch.setenv("BRAINSEG_TOKEN", "abc")
    assert serve.choose_token("127.0.0.1") == serve.choose_token("0.0.0.0") == "abc"
    monkeypatch.setenv("BRAINSEG_TOKEN", "zażółć")
    with pytest.raises(DataError, match="not ASCII"):
        serve.choose_token("127.0.0.1")


def test_the_command_line(monkeypatch):
    calls = []
    monkeypatch.setattr(serve, "run", lambda *arguments: calls.append(arguments))
    assert CliRunner().invoke(cli.app, ["serve"]).exit_code == 0
    assert CliRunner().invoke(cli.app, ["serve", "--port", "70000"]).exit_code == 2
    assert CliRunner().invoke(cli.app, ["serve", "--root-path", "/seg", "--log-format", "json"]).exit_code == 0
    own = ("127.0.0.1", 5000, Path("models/unet.onnx"))
    assert calls == [(*own, "", "text"), (*own, "/seg", "json")]


def test_the_axial_affine_is_that_of_the_volume():
    """Axes: columns, rows, slices. The last voxel is at the same place in the viewer's grid and in the volume."""
    from brainseg.inference.answers import nifti_files
    from brainseg.inference.cases import Case
    from brainseg.io import volumes

    volume: Volume = volumes.to_axial(VOXELS, TILTED)
    assert volume.geometry == Geometry(volume.geometry.affine, VOXELS.shape)
    image = loaded(nifti_files.encode_axial(volume.voxels, Case("a", "nifti", volume.voxels, volume, [])))
    last = np.array(volume.voxels.shape) - 1
    assert np.allclose(image.affine @ [*last[::-1], 1], volumes.axial_affine(volume) @ [*last, 1])
