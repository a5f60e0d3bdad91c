"""The static site in Chromium: all is computed there, its masks and numbers are Python's, and nothing leaves it."""

import csv
import gzip
import json
import shutil
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from brainseg.evaluation import metrics
from brainseg.inference.predictor import Predictor
from brainseg.io.dicom import seg_reader
from tests.support.site import (
    PATH,
    VIOLATIONS,
    agree,
    download,
    needs_browser,
    set_value,
    show,
    text,
)
from tools import hosting

pytest.importorskip("pydicom", reason="makes a DICOM series")
from tests.support import golden

pytestmark = needs_browser
FIRST_LOAD = 600_000  # bytes, gzipped, until the page can be used


# -- the same as Python ---------------------------------------------------------------------------------------------


def test_a_volume_is_outlined_as_python_does(page, files, tmp_path):
    """The main way: drop a file, see its numbers, save its mask."""
    folder, asked = files
    truth = golden.expected(folder, asked["float"])
    sent: list[str] = []
    page.on("request", lambda request: request.method == "POST" and sent.append(request.url))
    show(page, folder / "float.nii.gz")
    assert agree(golden.read_labels(download(page, "#save-mask", tmp_path)), truth.result.mask) and sent == []
    found, own = truth.answer["summary"], text(page, "#numbers")
    assert text(page, "#verdict") == f"Tumour outlined in {found['slices_with_tumour']} of 6 slices"
    assert f"{found['volume_ml']:.1f} ml" in own and "on this computer" in own
    saved = nibabel.load(download(page, "#save-probability", tmp_path))
    scan = nibabel.load(folder / "float.nii.gz")
    assert saved.shape == scan.shape and np.allclose(saved.affine, scan.affine, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pages", "three", "small", "colour", "dicom", "slices"])
def test_other_files_are_outlined_as_python_does(page, files, tmp_path, name):
    folder, asked = files
    truth = golden.expected(folder, asked[name])
    parts = asked[name].parts
    if "file" in parts:
        show(page, *(folder / path for path in parts["file"]))
    else:
        page.click("#show-sequences")
        for role, (path,) in parts.items():
            page.set_input_files(f"#part-{role}", folder / path)
        page.click("#sequences-form .primary")
        page.wait_for_selector("body[data-state=result] #verdict:not(:empty)")
    saved = nibabel.load(download(page, "#save-mask", tmp_path))
    if truth.case.volume:
        assert agree(golden.read_labels(Path(saved.get_filename())), truth.result.mask)
    else:  # without a place the file is upright: columns, rows, slices
        assert agree(np.asarray(saved.dataobj).transpose(2, 1, 0)[:, ::1, ::1], truth.result.mask)


@pytest.mark.slow
def test_the_networks_probabilities_are_pythons(browser, files, tmp_path):
    folder, asked = files
    prepared = golden.expected(folder, asked["float"]).prepared[[2]].astype(np.float32)
    truth = Predictor(folder / "model.onnx", threads=1).session.run(prepared)
    golden.build_raw(tmp_path)
    shutil.copy(folder / "model.onnx", tmp_path)
    prepared.tofile(tmp_path / "input.bin")
    with hosting.host(tmp_path, PATH) as address:
        page = browser.new_page()
        page.goto(f"{address}tests/raw.html")
        page.wait_for_function("() => window.raw")
        found = page.evaluate("([model, input]) => raw(model, input)", [f"{address}model.onnx", f"{address}input.bin"])
        page.close()
    assert np.abs(np.array(found, np.float32).reshape(truth.shape) - truth).max() <= 1e-5


@pytest.mark.slow
def test_a_jpeg_has_the_values_that_pillow_reads(page, files, tmp_path):
    """Through the browser's own decoder: greys, and colours at half the resolution."""
    flair = golden.phantom()[3]
    for name, mode, options in (("grey", "L", {}), ("colour", "RGB", {"subsampling": 2})):
        path = tmp_path / f"{name}.jpg"
        Image.fromarray(flair).convert(mode).save(path, quality=88, **options)
        show(page, path)
        page.check("input[value=none]", force=True)
        truth = np.asarray(Image.open(path))
        for row, column in ((60, 128), (128, 90), (200, 140)):
            value = page.evaluate("at => window.brainseg.value(at)", [0, row, column])
            assert value == (truth[row, column] if truth.ndim == 2 else truth[row, column, 1])


@pytest.mark.slow
def test_compressed_dicom_is_read(page, files, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("gdcm")
    from tests.support import dicom_compressed, dicom_series

    voxels = golden.phantom()[..., 1].astype(np.uint16) * 5
    plain = dicom_series.save_series(tmp_path / "plain", voxels)
    show(page, *plain)
    before = text(page, "#numbers dd")
    for syntax in (
        pydicom.uid.RLELossless,
        pydicom.uid.JPEGLSLossless,
        pydicom.uid.JPEG2000Lossless,
        pydicom.uid.JPEGLosslessSV1,
    ):
        folder = tmp_path / str(syntax)
        paths = dicom_compressed.compress(dicom_series.save_series(folder, voxels), syntax)
        show(page, *paths)
        assert not page.is_visible("#notice strong"), text(page, "#notice")
        assert text(page, "#numbers dd") == before, syntax


# -- nothing leaves -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_sent_and_no_network_is_needed(opened, files, site):
    """After it has loaded, the page asks nobody for anything; then the network is cut, and it is loaded again."""
    folder, asked = files
    page = opened()
    sent: list[str] = []
    page.on("request", lambda request: request.url.startswith(("blob:", "data:")) or sent.append(request.url))
    page.wait_for_function("() => navigator.serviceWorker.controller !== null")
    sent.clear()  # what the service worker keeps is fetched when the page can be used already
    page.context.set_offline(True)
    show(page, folder / "float.nii.gz")
    show(page, *(folder / path for path in asked["dicom"].parts["file"]))
    assert sent == []
    page.reload()
    page.wait_for_selector("#model-state:has-text('Computed on this computer')")
    show(page, folder / "float.nii.gz")
    assert page.evaluate("crossOriginIsolated")  # by the service worker's headers
    assert all(url.startswith(site) for url in sent)


def test_the_first_load_is_small(browser, site):
    """What is fetched until the page can be used, gzipped; model and runtime come afterwards."""
    context = browser.new_context()
    page = context.new_page()
    bodies: dict[str, bytes] = {}
    page.on("response", lambda response: bodies.setdefault(response.url, b"") or None)
    page.goto(site)
    page.wait_for_selector("body[data-ready]")
    later = ("model/", ".wasm", "dicom-", "ort", "sw.js", "marked", "purify")
    for url in list(bodies):
        if not any(part in url for part in later):
            bodies[url] = page.request.get(url).body()
    assert sum(len(gzip.compress(body, 9)) for body in bodies.values()) <= FIRST_LOAD
    assert any("viewer-" in url for url in bodies)
    context.close()


# -- judged ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ones_own_mask_is_compared(page, files):
    folder, asked = files
    truth = golden.expected(folder, asked["float"])
    show(page, folder / "float.nii.gz")
    page.set_input_files("#reference-files", folder / "own_seg.nii.gz")
    page.wait_for_selector("#scores:visible dt")
    counts = metrics.counts(golden.read_labels(folder / "own_seg.nii.gz") > 0, truth.result.mask > 0)
    scores = text(page, "#scores")
    assert f"{metrics.dice(counts):.3f}" in scores and f"{metrics.iou(counts):.3f}" in scores and "HD95" in scores
    assert page.is_checked("input[value=compare]") and page.is_visible("#judge-legend")
    page.click("#forget-reference")
    assert not page.is_visible("#scores") and page.is_checked("input[value=mask]")


@pytest.mark.slow
def test_a_patients_folder_of_the_training_set_opens_with_its_masks(page, files):
    folder, asked = files
    page.set_input_files("#folder", folder / "TCGA_XX_1234")
    page.wait_for_selector("#scores:visible dt")
    assert text(page, "#file-name") == "TCGA_XX_1234" and "/ 6" in text(page, "#corner-slice")
    assert "no. " in text(page, "#corner-slice")  # 9 comes after 7
    truth = golden.expected(folder, asked["slices"]).result.mask > 0
    counts = metrics.counts(golden.phantom()[..., 1] > 190, truth)
    assert f"{counts.fn + counts.tp:,} px" in text(page, "#scores")


@pytest.mark.slow
def test_a_mask_that_does_not_fit_is_refused_where_it_was_given(page, files, tmp_path):
    folder, _ = files
    show(page, folder / "float.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 9, 9), np.uint8), np.eye(4)), tmp_path / "other_seg.nii.gz")
    page.set_input_files("#reference-files", tmp_path / "other_seg.nii.gz")
    page.wait_for_selector("#judge-refusal:not(:empty)")
    assert "9 x 9 x 9" in text(page, "#judge-refusal") and not page.is_visible("#scores")


@pytest.mark.slow
def test_the_threshold_acts_at_once_and_is_pythons(page, files, tmp_path):
    folder, asked = files
    show(page, folder / "float.nii.gz")
    before, own = text(page, "#numbers dd"), page.input_value("#threshold")
    set_value(page, "#threshold", 0.25)
    set_value(page, "#min-component", 30)
    page.eval_on_selector("#min-component", "input => input.dispatchEvent(new Event('change'))")
    page.wait_for_selector("#warnings:has-text('Smallest component 30 voxels')")
    truth = golden.expected(folder, asked["rule"])
    assert agree(golden.read_labels(download(page, "#save-mask", tmp_path)), truth.result.mask)
    assert text(page, "#numbers dd") != before
    page.click("#undo")
    page.wait_for_function("before => document.querySelector('#numbers dd').textContent.startsWith(before)", arg=before)
    page.wait_for_function("own => document.querySelector('#threshold').value === own", arg=own)
    assert not page.is_visible("#edited") and page.is_disabled("#undo")


@pytest.mark.slow
@pytest.mark.parametrize("given", ["mask", "noise"])
def test_what_is_no_head_is_refused_in_words(page, files, tmp_path, given):
    folder, _ = files
    show(page, folder / "small.png")
    pixels = np.zeros((256, 256), np.uint8)
    pixels[90:140, 100:150] = 255
    if given == "noise":
        pixels = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "other.png")
    page.set_input_files("#files", tmp_path / "other.png")
    page.wait_for_selector("#notice strong")
    expected = "is a mask by its values" if given == "mask" else "does not look like an axial brain slice"
    assert expected in text(page, "#notice") and text(page, "#file-name") == "small.png"


# -- looked at and corrected ----------------------------------------------------------------------------------------


def stage(page):
    return page.locator("#stage").bounding_box()


@pytest.mark.slow
def test_a_brush_adds_an_eraser_takes_and_each_step_goes_back_and_forth(page, files, tmp_path):
    folder, _ = files
    show(page, folder / "float.nii.gz")
    original = golden.read_labels(download(page, "#save-mask", tmp_path))
    box = stage(page)
    x, y = box["x"] + 0.6 * box["width"], box["y"] + 0.35 * box["height"]
    page.keyboard.press("b")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 10, steps=4)
    page.mouse.up()
    page.wait_for_selector("#edited:visible")
    path = download(page, "#save-mask", tmp_path)
    painted = golden.read_labels(path)
    assert path.name == "float-edited-mask.nii.gz" and b"edited" in nibabel.load(path).header["descrip"].tobytes()
    assert painted.sum() > original.sum() and (painted >= original).all()
    added = np.argwhere(painted != original)
    assert len({slice_ for slice_, _, _ in added}) == 1  # in the plane that is seen
    assert text(page, "#edited") == f"Edited by hand: {len(added):,} voxels changed"
    page.keyboard.press("e")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 10, steps=4)
    page.mouse.up()
    page.wait_for_selector("#edited", state="hidden")
    page.keyboard.press("Control+z")
    page.wait_for_selector("#edited:visible")
    assert np.array_equal(golden.read_labels(download(page, "#save-mask", tmp_path)), painted)
    page.keyboard.press("Control+z")
    page.wait_for_selector("#edited", state="hidden")
    assert page.is_disabled("#undo")
    page.keyboard.press("Control+y")
    page.wait_for_selector("#edited:visible")
    with download(page, "#save-lesions", tmp_path).open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["mask"].startswith("edited by hand")


@pytest.mark.slow
def test_a_distance_is_told_in_millimetres(page, files):
    folder, _ = files
    show(page, folder / "float.nii.gz")
    box = stage(page)
    at = "(xy) => window.brainseg.voxel(...xy)"
    first, last = (300, 300), (420, 330)
    ends = [page.evaluate(at, xy) for xy in (first, last)]
    page.keyboard.press("d")
    page.mouse.move(box["x"] + first[0], box["y"] + first[1])
    page.mouse.down()
    page.mouse.move(box["x"] + last[0], box["y"] + last[1], steps=3)
    page.mouse.up()
    rows, columns = (abs(a - b) for a, b in zip(ends[0][1:], ends[1][1:], strict=True))
    told = float(page.wait_for_selector("#live:has-text('Distance')", state="attached").text_content().split()[1])
    assert told == pytest.approx(np.hypot(rows * 1.1, columns * 0.9), abs=2)


@pytest.mark.slow
def test_planes_have_slices_of_their_own(page, files):
    folder, _ = files
    show(page, folder / "float.nii.gz")
    page.keyboard.press("2")
    assert text(page, "#corner-slice b").endswith("/ 256") and "Coronal" in text(page, "#corner-slice")
    before = int(text(page, "#corner-slice b").split("/")[0])
    page.focus("#show-keys")  # shortcuts work wherever the focus is
    page.keyboard.press("ArrowDown")
    assert int(text(page, "#corner-slice b").split("/")[0]) == before + 1
    assert [page.inner_text(f".marks .{place}") for place in ("left", "right", "top", "bottom")] == ["R", "L", "S", "I"]
    page.wait_for_selector("#live:has-text('Coronal slice')", state="attached")
    page.keyboard.press("4")
    box = stage(page)
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.6 * box["height"])
    assert text(page, "#reading").count(",") >= 3


@pytest.mark.slow
def test_window_and_level_are_in_the_files_own_units(page, files):
    folder, _ = files
    show(page, folder / "float.nii.gz")
    voxels = nibabel.load(folder / "float.nii.gz").get_fdata()
    assert float(page.get_attribute("#centre", "max")) == pytest.approx(voxels.max(), rel=1e-3)
    assert "own units" in text(page, "#units")
    cursor = page.evaluate("() => window.brainseg.cursor()")
    assert page.evaluate("at => window.brainseg.value(at)", cursor) <= voxels.max()


@pytest.mark.slow
def test_the_report_is_one_page(page, files, tmp_path):
    folder, _ = files
    show(page, folder / "float.nii.gz")
    page.evaluate("window.print = () => undefined")
    page.click("#report-print")
    page.emulate_media(media="print")
    said = text(page, "#report")
    model = json.loads(page.evaluate("JSON.stringify(window.brainseg.model())"))
    for part in (
        "Research use only",
        "float.nii.gz",
        model["weights_sha256"],
        "as the model made it",
        "not the chance",
    ):
        assert part in said
    assert page.locator("#report canvas").count() >= 3
    pdf = page.pdf(format="A4")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") == 1


@pytest.mark.slow
def test_downloads_are_in_sight_without_scrolling(opened, files):
    folder, _ = files
    for width, height in ((1440, 900), (1280, 800), (390, 844), (320, 640)):
        page = opened(viewport={"width": width, "height": height})
        show(page, folder / "small.png")
        box = page.locator("#save-mask").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.context.close()


# -- many at once ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_of_cases_is_a_list_that_goes_on_after_a_reload(page, files, tmp_path):
    folder, asked = files
    many = tmp_path / "many"
    shutil.copytree(folder / "TCGA_XX_1234", many / "TCGA_XX_1234")
    for name in ("a", "b"):
        (many / name).mkdir()
        shutil.copy(folder / "float.nii.gz", many / name / "flair.nii.gz")
    shutil.copytree(folder / "series", many / "series")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(many / "noise.png")
    page.set_input_files("#folder", many)
    page.wait_for_selector("#batch-title:has-text('5 cases')")
    page.wait_for_selector("#batch tbody td:has-text('done')")
    page.reload()  # in the middle of it
    page.wait_for_selector("#batch-state:has-text('All done')")
    rows = [row.split("\t") for row in page.locator("#batch tbody tr").all_inner_texts()]
    by_name = {row[1]: [cell.strip() for cell in row] for row in rows}
    (series,) = set(by_name) - {"a/flair.nii.gz", "b/flair.nii.gz", "TCGA_XX_1234", "noise.png"}
    assert len(by_name) == 5 and by_name[series][2] == "done"
    truth = golden.expected(folder, asked["float"])
    assert by_name["a/flair.nii.gz"][3] == f"{truth.answer['summary']['volume_ml']:.1f} ml"
    assert by_name["noise.png"][2] == "refused" and "noise" in by_name["noise.png"][5]
    assert page.locator("#batch tbody img").count() == 4
    with download(page, "#batch-table", tmp_path).open(newline="", encoding="utf-8") as file:
        table = {row["case"]: row for row in csv.DictReader(file)}
    assert float(table["b/flair.nii.gz"]["volume_ml"]) == truth.answer["summary"]["volume_ml"]
    assert table["TCGA_XX_1234"]["dice"] != "" and table["noise.png"]["error"]
    with zipfile.ZipFile(download(page, "#batch-zip", tmp_path)) as archive:
        masks = [name for name in archive.namelist() if "flair" in name]
        (seg,) = [name for name in archive.namelist() if name.endswith("-seg.dcm")]
        assert len(masks) == 2 and "summary.csv" in archive.namelist()
        archive.extractall(tmp_path)
    assert agree(golden.read_labels(tmp_path / masks[0]), truth.result.mask)
    theirs = golden.expected(folder, asked["dicom"])
    found = seg_reader.read_labels(tmp_path / seg, seg, theirs.case.volume).voxels
    assert found.any() and agree(found, theirs.result.mask)
    page.click("text=a/flair.nii.gz")
    page.wait_for_selector("body[data-state=result]")
    page.click("#close")
    assert page.is_visible("#batch")
    page.click("#batch-forget")
    page.wait_for_selector("#choose:visible")
    page.wait_for_selector("#live:has-text('forgotten')", state="attached")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.is_visible("#choose") and not page.is_visible("#batch")


# -- for everybody --------------------------------------------------------------------------------------------------


def states(page, folder):
    """Bring the page into each state, one after the other."""
    yield "empty"
    page.click("#show-model")
    yield "card"
    page.keyboard.press("Escape")
    show(page, folder / "float.nii.gz")
    yield "result"
    page.keyboard.press("b")
    page.keyboard.press("4")
    yield "tools"
    page.set_input_files("#reference-files", folder / "own_seg.nii.gz")
    page.wait_for_selector("#scores:visible dt")
    yield "judged"
    page.set_input_files("#files", folder / "own_seg.nii.gz")
    page.wait_for_selector("#notice strong")
    yield "refused"
    page.keyboard.press("?")
    yield "keys"
    page.keyboard.press("Escape")
    page.set_input_files("#files", [str(folder / "small.png"), str(folder / "large.tif")])
    page.wait_for_selector("#batch-state:has-text('All done')")
    yield "many"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desk", "phone"])
def test_axe_finds_nothing_in_any_state(opened, files, scheme, size):
    page = opened(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, bypass_csp=True)
    page.add_script_tag(path=golden.WEB / "node_modules/axe-core/axe.min.js")
    for state in states(page, files[0]):
        assert page.evaluate(VIOLATIONS) == [], state


# What sticks out to a side, or would have to be scrolled to one; tables in the model card may, within their region.
CUT = """() => [...document.querySelectorAll('body *')].filter(each => {
  const {left, right, width} = each.getBoundingClientRect(), style = getComputedStyle(each);
  if (!each.checkVisibility() || !width) return false;
  if (each.closest('.hidden-text, .skip, thead, canvas, svg, .prose .scroll')) return false;
  const clips = style.overflowX !== 'visible' && style.textOverflow !== 'ellipsis' && each.clientWidth > 0;
  return right > innerWidth + 1 || left < -1 || (clips && each.scrollWidth > each.clientWidth + 1);
}).map(each => each.outerHTML.slice(0, 120))"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [(320, 640), (640, 400)], ids=["320 px", "200 %"])
def test_nothing_is_cut_in_any_state(opened, files, size):
    """640 x 400 is what a desk of 1,280 x 800 has left where letters are twice as large."""
    page = opened(viewport={"width": size[0], "height": size[1]})
    for state in states(page, files[0]):
        assert page.evaluate(CUT) == [], state
