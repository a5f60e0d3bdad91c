"""The static site in Firefox: outlined, judged, corrected, saved, many at once, without a network."""

import csv

import nibabel
import pytest

from brainseg.evaluation import metrics
from tests.support import golden
from tests.support.firefox import FIREFOX, XVFB, open_browser
from tests.support.site import SECONDS, agree, needs_libraries

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (FIREFOX and XVFB), reason="no Firefox, or no Xvfb to show it"),
    needs_libraries,
]
WORDS = "return document.querySelector(arguments[0]).innerText.replaceAll('\\u00a0', ' ')"
CONTROL = "\ue009"
OUTLINED = "document.body.dataset.state === 'result' && document.querySelector('#verdict').textContent"


@pytest.fixture
def firefox(site, tmp_path):
    """The page, ready to compute."""
    profile = tmp_path / "profile"
    profile.mkdir()
    with open_browser(profile) as running:
        open_page(running, site)
        yield running


def open_page(firefox, site):
    firefox("WebDriver:Navigate", url=site)
    firefox.wait("document.body.dataset.ready", SECONDS)
    firefox.wait("document.querySelector('#model-state').textContent.startsWith('Computed on this computer')", SECONDS)


def show(firefox, *paths):
    firefox.run("document.querySelector('#verdict').textContent = ''")
    firefox.choose("#files", *paths)
    firefox.wait(OUTLINED, SECONDS)


def test_it_outlines_and_judges(firefox, files):
    folder, asked = files
    truth = golden.expected(folder, asked["float"])
    counts = metrics.counts(golden.read_labels(folder / "own_seg.nii.gz") > 0, truth.result.mask > 0)
    show(firefox, folder / "float.nii.gz")
    assert f"{truth.answer['summary']['volume_ml']:.1f} ml" in firefox.run(WORDS, "#numbers")
    firefox.choose("#reference-files", folder / "own_seg.nii.gz")
    firefox.wait("document.querySelector('#scores dt')", SECONDS)
    assert f"{metrics.dice(counts):.3f}" in firefox.run(WORDS, "#scores")
    before = firefox.run(WORDS, "#numbers dd")
    slide = "const slider = document.querySelector('#threshold'); slider.value = '0.25';"
    firefox.run(slide + "slider.dispatchEvent(new Event('input'))")
    firefox.wait("document.querySelector('#warnings').textContent.includes('hreshold 0.25')", SECONDS)
    firefox.wait(f"!document.querySelector('#numbers dd').innerText.startsWith('{before.split()[0]}')", SECONDS)
    show(firefox, *(folder / path for path in asked["dicom"].parts["file"]))
    assert firefox.run(WORDS, "#file-name").startswith("DICOM series")


def test_a_mask_is_corrected_and_saved(firefox, files):
    folder, asked = files
    truth = golden.expected(folder, asked["float"])
    show(firefox, folder / "float.nii.gz")
    original = golden.read_labels(firefox.save("#save-mask", SECONDS))
    assert agree(original, truth.result.mask)
    box = firefox.run("const {x, y, width, height} = document.querySelector('#stage').getBoundingClientRect();"
                      "return [x, y, width, height]")  # fmt: skip
    x, y = box[0] + 0.6 * box[2], box[1] + 0.35 * box[3]
    firefox.press("b")
    firefox.drag((x, y), (x + 15, y + 5), (x + 30, y + 10))
    firefox.wait("document.querySelector('#edited').checkVisibility()", SECONDS)
    saved = firefox.save("#save-mask", SECONDS)
    painted = golden.read_labels(saved)
    assert saved.name == "float-edited-mask.nii.gz" and b"edited" in nibabel.load(saved).header["descrip"].tobytes()
    assert painted.sum() > original.sum() and (painted >= original).all()
    firefox.press(CONTROL, "z")
    firefox.wait("!document.querySelector('#edited').checkVisibility()", SECONDS)
    firefox.press("2")
    firefox.wait("document.querySelector('#corner-slice').textContent.includes('Coronal')", SECONDS)
    with firefox.save("#save-slices", SECONDS).open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(original)


def test_several_cases_are_a_list(firefox, files, site):
    """WebDriver cannot choose a folder; several files are a list as well."""
    folder, asked = files
    names = {"float.nii.gz": "float", "scaled.nii": "scaled", "small.png": "small", "large.tif": "large"}
    answers = {file: golden.expected(folder, asked[name]).answer["summary"] for file, name in names.items()}
    volumes = {name: answer.get("volume_ml") or "" for name, answer in answers.items()}  # pictures have none
    firefox.choose("#files", *(folder / name for name in names))
    firefox.wait("document.querySelector('#batch-state').textContent.includes('All done')", SECONDS)
    open_page(firefox, site)  # it is there after a reload
    firefox.wait("document.querySelectorAll('#batch tbody img').length === 4", SECONDS)
    with firefox.save("#batch-table", SECONDS).open(newline="", encoding="utf-8") as file:
        found = {row["case"]: row["volume_ml"] and float(row["volume_ml"]) for row in csv.DictReader(file)}
    assert found == volumes


def test_no_network_is_needed(firefox, files, site):
    """Once the page was there, it is opened again and outlines without its host."""
    folder, asked = files
    firefox.wait("navigator.serviceWorker.controller", SECONDS)
    firefox.cut_network()
    assert not firefox.answers("nothing-that-is-kept")
    open_page(firefox, site)
    show(firefox, folder / "float.nii.gz")
    saved = golden.read_labels(firefox.save("#save-mask", SECONDS))
    assert agree(saved, golden.expected(folder, asked["float"]).result.mask)
