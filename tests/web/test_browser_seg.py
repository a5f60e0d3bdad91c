"""DICOM SEG in Chromium: of the series on the page, without a server, also of a mask that was edited."""

from io import BytesIO

import numpy as np
import pytest

from brainseg.inference.answers import seg_files
from brainseg.inference.predictor import Predictor
from brainseg.io.dicom import seg_reader
from tests.support.site import agree, download, needs_browser, show, text

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
from tests.support import golden  # noqa: E402

pytestmark = [*needs_browser, pytest.mark.slow]


def test_a_series_gives_a_seg_with_pythons_pixels_and_references(page, files, tmp_path):
    folder, asked = files
    truth = golden.expected(folder, asked["dicom"])
    theirs = pydicom.dcmread(BytesIO(seg_files.encode_mask(truth.result.mask, truth.case, facts(folder))))
    sent: list[str] = []
    page.on("request", lambda request: request.url.startswith(("blob:", "data:")) or sent.append(request.url))
    show(page, *(folder / path for path in asked["dicom"].parts["file"]))
    assert page.is_visible("#save-seg") and not page.is_visible("#warnings:has-text('SEG')")
    path = download(page, "#save-seg", tmp_path)
    assert path.name.endswith("-seg.dcm") and "DICOM SEG saved" in text(page, "#download-note") and sent == []
    ours = pydicom.dcmread(path)
    assert agree(seg_reader.read_labels(path, path.name, truth.case.volume).voxels, truth.result.mask)
    if ours.NumberOfFrames == theirs.NumberOfFrames:  # a slice with one pixel in a tie of rounding may be there or not
        assert ours.PerFrameFunctionalGroupsSequence == theirs.PerFrameFunctionalGroupsSequence
    for keyword in ("ReferencedSeriesSequence", "SourceImageSequence", "SegmentSequence", "ContentDescription"):
        assert ours[keyword] == theirs[keyword], keyword
    assert truth.result.mask.any()


def facts(folder):
    return Predictor(folder / "model.onnx", threads=1).facts


def test_an_edited_mask_says_so(page, files, tmp_path):
    folder, asked = files
    truth = golden.expected(folder, asked["dicom"])
    show(page, *(folder / path for path in asked["dicom"].parts["file"]))
    page.keyboard.press("b")
    box = page.locator("#stage").bounding_box()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.35 * box["height"])
    page.wait_for_selector("#edited:visible")
    path = download(page, "#save-seg", tmp_path)
    found = pydicom.dcmread(path)
    assert path.name.endswith("-edited-seg.dcm")
    assert found.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC" and "edited" in found.ContentDescription
    painted = seg_reader.read_labels(path, path.name, truth.case.volume).voxels
    saved = golden.read_labels(download(page, "#save-mask", tmp_path))
    assert np.array_equal(painted, saved) and painted.sum() > truth.result.mask.sum()


def test_without_what_it_needs_there_is_no_button_and_a_reason(page, tmp_path):
    from tests.support import dicom_series

    show(page, *dicom_series.save_series(tmp_path / "bare", golden.phantom()[..., 1].astype(np.uint16) * 5))
    assert not page.is_visible("#save-seg") and "SEG: its headers lack a valid" in text(page, "#warnings")
