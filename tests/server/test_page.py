"""The viewer page in a real browser, with a server that gives made-up answers; it has no model for the page itself."""

import csv
import io
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from brainseg.inference.answers import lesions
from tests.support.chromium import CHROMIUM
from tests.support.page_server import MODEL, PageServer, head

PAGE = Path(__file__).parents[2] / "src/brainseg/server/page"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium"),
    pytest.mark.skipif(not (PAGE / "index.html").exists(), reason="the page is not built: make page"),
]
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
VOLUME, PICTURE = "patient-flair.nii.gz", "slice.png"
LARGEST = 12  # slice of the made-up volume


def test_the_page_has_no_inline_handler():
    assert not re.search(r"<[^>]+\son\w+\s*=", (PAGE / "index.html").read_text(encoding="utf-8"))


def choose(page, *names):
    files = [{"name": name, "mimeType": "application/octet-stream", "buffer": b"x"} for name in names]
    page.set_input_files("#files", files)


def show(page, *names):
    choose(page, *names)
    shown(page)


def shown(page):
    page.wait_for_selector("body[data-state=result] #verdict:not(:empty)")


def text(page, selector):
    return page.inner_text(selector).replace("\N{NO-BREAK SPACE}", " ")


def pixels(page):
    """The image on the screen, without the text over it."""
    over = "(all, value) => all.forEach(node => node.style.visibility = value)"
    page.eval_on_selector_all("#stage > :not(canvas)", over, "hidden")
    shot = page.locator("#stage").screenshot()
    page.eval_on_selector_all("#stage > :not(canvas)", over, "")
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def orange(image):
    """Where the outline, or the opaque mask, is: its vermilion is far from any grey."""
    red, green, blue = np.moveaxis(image, -1, 0)
    return (red > 200) & (red - green > 110) & (red - blue > 140)


def set_value(page, selector, value):
    page.eval_on_selector(
        selector, "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')) }", str(value)
    )


# -- the image ------------------------------------------------------------------------------------------------------


def test_outline_is_seen_and_can_be_hidden(page):
    show(page, VOLUME)
    page.check("input[value=none]", force=True)
    seen = orange(pixels(page)).sum()
    page.uncheck("#outline")
    assert seen > 300
    assert orange(pixels(page)).sum() == 0


def test_outline_runs_around_the_mask(page):
    """The bounding box of the outline is that of the filled mask, to three pixels of the screen."""
    show(page, VOLUME)
    page.uncheck("#outline")
    set_value(page, "#opacity", 100)
    filled = np.argwhere(orange(pixels(page)))
    page.check("input[value=none]", force=True)
    page.check("#outline")
    lines = np.argwhere(orange(pixels(page)))
    assert np.abs(lines.min(0) - filled.min(0)).max() <= 3
    assert np.abs(lines.max(0) - filled.max(0)).max() <= 3


def test_opacity_changes_the_fill(page):
    show(page, VOLUME)
    page.uncheck("#outline")
    strengths = []
    for percent in (0, 40, 80):
        set_value(page, "#opacity", percent)
        image = pixels(page)
        strengths.append((image[..., 0] - image[..., 2]).max())
        assert page.inner_text("#opacity-value") == f"{percent} %"
    assert strengths[0] <= 5 < strengths[1] + 5 < strengths[2]


def test_probability_map_has_its_own_colours_and_legend(page):
    show(page, VOLUME)
    page.uncheck("#outline")
    assert not page.is_visible("#legend")
    page.check("input[value=probability]", force=True)
    assert page.is_visible("#legend")
    red, green, blue = np.moveaxis(pixels(page), -1, 0)
    assert ((blue - red > 15) & (blue - green > 15)).sum() > 300  # low probability: violet
    assert ((green - blue > 40) & (red - blue > 40)).sum() > 3000  # high: yellow


def test_window_and_level(page):
    show(page, VOLUME)
    page.check("input[value=none]", force=True)
    page.uncheck("#outline")
    before = pixels(page)
    set_value(page, "#width", 60)
    set_value(page, "#centre", 100)
    narrow = pixels(page)
    assert (narrow == 255).sum() > 5 * (before == 255).sum() + 1000
    assert text(page, "#corner-window") == "W 60  L 100"
    page.click("#reset")
    assert np.abs(pixels(page) - before).max() <= 2


def test_dragging_changes_the_window(page):
    show(page, VOLUME)
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 260, steps=4)
    page.mouse.up()
    assert int(page.input_value("#width")) < 255
    assert int(page.input_value("#centre")) < 127


def test_zoom_and_move(page):
    show(page, VOLUME)
    wide = np.argwhere(orange(pixels(page)))
    page.focus("#stage")
    page.keyboard.press("+")
    near = np.argwhere(orange(pixels(page)))
    assert 1.1 < np.ptp(near, 0)[0] / np.ptp(wide, 0)[0] < 1.4
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down(button="right")
    page.mouse.move(box["x"] + 350, box["y"] + 280, steps=4)
    page.mouse.up(button="right")
    moved = np.argwhere(orange(pixels(page)))
    assert np.abs(moved.mean(0) - near.mean(0) - [-20, 50]).max() < 3  # rows, columns
    page.keyboard.press("0")
    assert np.abs(np.argwhere(orange(pixels(page))).mean(0) - wide.mean(0)).max() < 1


def test_channels_of_an_image_with_three(page):
    show(page, "colour.nii.gz")
    page.check("input[value=none]", force=True)
    images = []
    for name in ("FLAIR", "pre-contrast", "post-contrast"):
        page.select_option("#channel", label=name)
        page.wait_for_timeout(300)
        image = pixels(page)
        images.append(image[len(image) // 2 :].mean())
    assert images[1] < images[0] < images[2]  # pre-contrast is half as bright as FLAIR, post-contrast its inverse
    assert text(page, "#numbers").count("pre-contrast, FLAIR, post-contrast") == 1


# -- sides ----------------------------------------------------------------------------------------------------------


def letters(page):
    return [page.inner_text(f".marks .{place}") for place in ("left", "right", "top", "bottom")]


def side(page):
    """The tumour's centre in fractions of the image's width and height. It is at the patient's left and front."""
    image = orange(pixels(page))
    return np.argwhere(image).mean(0)[::-1] / image.shape[::-1]


def test_radiological_convention_by_default_and_the_other_on_demand(page):
    show(page, VOLUME)
    assert letters(page) == ["R", "L", "A", "P"]
    x, y = side(page)
    assert x > 0.53 and y < 0.45  # the patient's left is on the right of the screen, the front is at the top
    page.check("input[value=neurological]", force=True)
    assert letters(page) == ["L", "R", "A", "P"]
    mirrored, same = side(page)
    assert mirrored == pytest.approx(1 - x, abs=0.01) and same == pytest.approx(y, abs=0.01)
    assert "Neurological" in page.get_attribute("#stage", "aria-label")


def test_a_lone_picture_has_no_sides(page):
    show(page, VOLUME)
    page.check("input[value=neurological]", force=True)
    show(page, PICTURE)
    assert letters(page) == ["", "", "", ""]
    assert "Orientation unknown" in text(page, "#stage") and "Orientation unknown" in text(page, "#orientation")
    assert page.is_disabled("#convention input[value=radiological]")
    x, y = side(page)
    assert x > 0.53 and y < 0.45  # as in the file, whatever was chosen for the file before
    assert not page.is_visible("#strip")
    assert "px" in text(page, "#numbers") and "mm" not in text(page, "#numbers")


# -- slices ---------------------------------------------------------------------------------------------------------


def number(page):
    return int(text(page, "#corner-slice b").split("/")[0])


def test_begins_at_the_largest_slice_and_says_the_numbers(page):
    show(page, VOLUME)
    assert number(page) == LARGEST
    assert text(page, "#verdict") == "Tumour outlined in 10 of 20 slices"
    numbers = text(page, "#numbers")
    for part in ("57.1 ml", "1,647 mm²", f"slice {LARGEST}", "85 %", "0.42 s"):
        assert part in numbers
    assert "57.1 ml" in page.text_content("#live")


def test_keys_wheel_slider_and_bars_lead_to_slices(page):
    show(page, VOLUME)
    before = pixels(page)
    page.focus("#stage")
    for key, expected in (
        *(("ArrowDown", 13), ("ArrowLeft", 12), ("PageUp", 7), ("Home", 1), ("ArrowUp", 1), ("End", 20)),
        *(("l", 12), ("n", 13), ("p", 12), ("p", 11)),
    ):
        page.keyboard.press(key)
        assert number(page) == expected, key
    assert np.abs(pixels(page) - before).mean() > 0.5
    page.hover("#stage")
    page.mouse.wheel(0, 100)
    assert number(page) == 12
    page.mouse.wheel(0, -100)
    page.mouse.wheel(0, -100)
    assert number(page) == 10
    set_value(page, "#slice", 4)
    assert number(page) == 4
    box = page.locator("#bars").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 15.5 / 20, box["y"] + 10)
    assert number(page) == 16
    page.focus("#bars")
    page.keyboard.press("ArrowRight")
    assert number(page) == 17
    assert page.get_attribute("#bars", "aria-valuetext").startswith("Slice 17 of 20, ")
    assert page.input_value("#slice") == "17"


def test_a_bar_is_as_high_as_the_area_of_its_slice(page):
    show(page, VOLUME)
    heights = page.eval_on_selector_all("#bars .area", "bars => bars.map(bar => Number(bar.getAttribute('height')))")
    assert len(heights) == 20 and sum(height > 0 for height in heights) == 10
    assert heights.index(max(heights)) == LARGEST - 1 and max(heights) == 100


def test_one_finger_scrolls_on_a_phone(opened):
    page = opened(PHONE, has_touch=True, is_mobile=True)
    show(page, VOLUME)
    box = page.locator("#stage").bounding_box()
    x, y = box["x"] + 150, box["y"] + 150
    session = page.context.new_cdp_session(page)
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 8):
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": y + 10 * step}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert LARGEST + 3 <= number(page) <= LARGEST + 6


# -- one file after the other ---------------------------------------------------------------------------------------


def test_a_second_file_never_shows_the_first_ones_result(page, server):
    show(page, VOLUME)
    choose(page, "slow-empty.nii.gz")
    page.wait_for_selector("#waiting:visible")
    for selector in ("#stage", "#results", "#display", "#downloads", "#strip"):
        assert not page.is_visible(selector), selector
    server.released.set()
    shown(page)
    page.wait_for_selector("#verdict:has-text('No tumour outlined')")
    assert orange(pixels(page)).sum() == 0
    assert "ml" not in text(page, "#numbers")


def test_a_late_answer_is_not_shown(page, server):
    """The first answer arrives after the second file was opened and answered."""
    choose(page, "slow-empty.nii.gz")
    page.wait_for_selector("#waiting:visible")
    show(page, VOLUME)
    server.released.set()
    page.wait_for_timeout(600)
    assert text(page, "#file-name") == VOLUME
    assert text(page, "#verdict").startswith("Tumour outlined")


def test_an_answer_that_arrived_but_was_not_yet_shown_is_dropped(opened, server):
    """It is too late to abort the request; the page must drop the answer by its token."""
    page = opened()
    page.evaluate("AbortController.prototype.abort = () => undefined")
    choose(page, "slow-empty.nii.gz")
    page.wait_for_selector("#waiting:visible")
    show(page, VOLUME)
    server.released.set()
    page.wait_for_timeout(1000)
    assert text(page, "#file-name") == VOLUME and "57.1 ml" in text(page, "#numbers")


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_waiting_can_be_cancelled(page, server, way):
    choose(page, "slow.nii.gz")
    assert "slow.nii.gz" in text(page, "#waiting")
    page.wait_for_function("() => document.activeElement.id === 'cancel'")
    assert page.title().startswith("Outlining")
    page.click("#cancel") if way == "button" else page.keyboard.press("Escape")
    assert page.is_visible("#choose") and not page.is_visible("#waiting")
    assert page.title().startswith("brainseg") and page.text_content("#live") == "Cancelled"
    server.released.set()
    page.wait_for_timeout(500)
    assert not page.is_visible("#results") and not page.is_visible("#refusal strong")


def test_close_leads_back_to_the_beginning(page):
    show(page, VOLUME)
    page.click("#close")
    assert page.is_visible("#choose") and not page.is_visible("#stage")
    assert focused(page) == "choose"


def focused(page):
    return page.evaluate("document.activeElement.id")


def test_the_focus_is_not_lost_with_what_is_hidden(page):
    choose(page, "slow.nii.gz")
    page.click("#cancel")
    assert focused(page) == "choose"
    page.focus("#theme")
    choose(page, "report.pdf")
    page.wait_for_selector("#refusal strong")
    page.wait_for_function("document.activeElement.id === 'choose'")


# -- refusals and warnings ------------------------------------------------------------------------------------------


def test_a_refusal_says_what_and_what_to_do(page):
    choose(page, "report.pdf")
    page.wait_for_selector("#refusal strong")
    assert text(page, "#refusal") == (
        "report.pdf: is a PDF, no picture that can be outlined.\n\nSend PNG, TIF, JPEG, NIfTI or DICOM."
    )
    assert not page.is_visible("#results") and not page.is_visible("#stage")
    assert page.get_attribute("#refusal", "role") == "alert"
    show(page, VOLUME)
    assert page.text_content("#refusal") == ""


def test_a_wrong_file_does_not_destroy_a_result(page, server):
    show(page, VOLUME)
    before = orange(pixels(page)).sum()
    choose(page, "report.pdf")
    page.wait_for_selector("#notice strong")
    assert "report.pdf: is a PDF" in text(page, "#notice") and page.get_attribute("#notice", "role") == "alert"
    assert text(page, "#file-name") == VOLUME and "57.1 ml" in text(page, "#numbers")
    assert page.title() == f"{VOLUME} \N{EN DASH} brainseg"
    page.click("#notice button")
    assert page.text_content("#notice") == "" and focused(page) == "stage"
    assert abs(orange(pixels(page)).sum() - before) < 0.02 * before
    choose(page, "slow.nii.gz")
    page.wait_for_selector("#waiting:visible")
    page.keyboard.press("Escape")
    assert page.is_visible("#stage") and text(page, "#file-name") == VOLUME


def test_leaving_asks_until_something_was_saved(page):
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    show(page, VOLUME)
    page.click("#stage")  # a browser asks only where a person did something
    leave = "() => !dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    assert page.evaluate(leave)
    with page.expect_download():
        page.click("#save-mask")
    assert not page.evaluate(leave)


def test_a_busy_server_can_be_asked_again(page):
    choose(page, "busy.nii.gz")
    page.wait_for_selector("#refusal button")
    assert "Too many are waiting." in text(page, "#refusal")
    assert "Wait a little. Try again in 3 s." in text(page, "#refusal")
    page.wait_for_function("document.activeElement.textContent === 'Try again'")
    page.click("#refusal button")
    shown(page)
    assert text(page, "#file-name") == "busy.nii.gz"


def test_a_server_that_does_not_answer_is_reported(page):
    page.route("**/v1/segment*", lambda route: route.abort())
    choose(page, VOLUME)
    page.wait_for_selector("#refusal strong")
    assert "did not answer" in text(page, "#refusal") and "Try again" in text(page, "#refusal")


def test_warnings_stand_above_the_image(page):
    show(page, "odd.png")
    assert "Does not look like an axial brain slice" in text(page, "#warnings")
    assert page.locator("#warnings").bounding_box()["y"] < page.locator("#stage").bounding_box()["y"]
    show(page, PICTURE)
    assert page.text_content("#warnings") == ""


def test_an_image_too_large_to_be_shown_has_its_numbers(page):
    show(page, "wide.png")
    assert "cannot be shown here" in text(page, "#warnings") and "pixels a side" in text(page, "#warnings")
    assert text(page, "#verdict").startswith("Tumour outlined") and not page.is_visible("#stage")
    show(page, VOLUME)
    assert page.is_visible("#stage") and page.text_content("#warnings") == ""


def test_without_webgl_the_numbers_are_still_there(opened, server):
    page = opened()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert "WebGL 2" in text(page, "#refusal")
    show(page, VOLUME)
    assert "57.1 ml" in text(page, "#numbers") and not page.is_visible("#stage")
    page.wait_for_function("document.activeElement.id === 'verdict'")


# -- what is sent ---------------------------------------------------------------------------------------------------

DROP = """names => {
  const data = new DataTransfer();
  for (const name of names) data.items.add(new File(['x'], name));
  for (const kind of ['dragenter', 'dragover', 'drop'])
    document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


def test_dropped_files_of_a_series_go_together_in_order(page, server):
    page.evaluate(DROP, ["IM10", "IM2", ".DS_Store", "DICOMDIR", "IM1"])
    shown(page)
    assert server.requests[-1]["parts"] == [("file", "IM1"), ("file", "IM2"), ("file", "IM10")]
    assert server.requests[-1]["path"].endswith("/v1/segment?volumes=true")
    assert text(page, "#file-name") == "DICOM series, 3 files"


def test_a_chosen_folder_is_one_series(page, server, tmp_path):
    for name in ("IM1", "IM2", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    page.set_input_files("#folder", tmp_path)
    shown(page)
    assert server.requests[-1]["parts"] == [("file", "IM1"), ("file", "IM2")]


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["a.nii.gz", "IM1"], [".DS_Store"]])
def test_what_does_not_belong_together_is_not_sent(page, server, names):
    page.evaluate(DROP, names)
    page.wait_for_selector("#refusal strong")
    assert server.requests == []


@pytest.mark.parametrize(("pre", "post"), [
    ("p1_t1.nii.gz", "p1_t1ce.nii.gz"), ("pre-contrast.nii.gz", "post-contrast.nii.gz"),
    ("preprocessed_t1.nii", "preprocessed_t1ce.nii")])  # fmt: skip
def test_several_volumes_are_assigned_by_the_person(page, server, pre, post):
    page.evaluate(DROP, [pre, "p1_flair.nii.gz", post])
    page.wait_for_selector("#sequences[open]")
    page.click("#sequences-form .primary")
    shown(page)
    assert set(server.requests[-1]["parts"]) == {("flair", "p1_flair.nii.gz"), ("pre", pre), ("post", post)}


def test_a_file_that_is_dropped_on_a_field_is_the_fields(page, server):
    page.click("#show-sequences")
    page.evaluate("addEventListener('drop', event => window.prevented = event.defaultPrevented)")
    page.evaluate(DROP.replace("document.body", "document.getElementById('part-flair')"), ["a.nii.gz"])
    assert page.evaluate("window.prevented") is False  # so the browser puts the file into the field
    assert page.is_visible("#sequences") and server.requests == []


def test_flair_alone_may_be_assigned(page, server):
    page.click("#show-sequences")
    page.click("#sequences-form .primary")
    assert server.requests == []  # FLAIR is required
    page.set_input_files("#part-flair", [{"name": "f.nii.gz", "mimeType": "", "buffer": b"x"}])
    page.click("#sequences-form .primary")
    shown(page)
    assert server.requests[-1]["parts"] == [("flair", "f.nii.gz")]


def test_examples_are_listed_and_opened(page, server):
    page.click("text=Phantom 2")
    shown(page)
    assert server.requests[-1]["parts"] == [("file", "phantom-2.tif")]
    assert text(page, "#file-name") == "Phantom 2, 20 slices"


# -- lesions --------------------------------------------------------------------------------------------------------


def test_a_row_of_the_table_leads_to_the_slice_of_its_lesion(page):
    show(page, VOLUME)
    rows = page.locator("#lesions tbody tr")
    assert text(page, "#lesions-title").lower() == "2 lesions" and rows.count() == 2
    shown = text(page, "#lesions tbody")
    for part in ("55.8 ml", "60 mm", "8–16", "86 %", "1.35 ml", "17"):  # noqa: RUF001 - a dash for a range
        assert part in shown
    rows.nth(1).locator("td").first.click()
    assert number(page) == 17
    page.locator("#lesions button").first.focus()
    page.keyboard.press("Enter")
    assert number(page) == LARGEST
    assert page.get_attribute("#lesions tr:nth-child(2) button", "aria-label") == "Lesion 2, go to slice 17"


def test_the_lesions_of_the_slice_are_marked(page):
    show(page, VOLUME)
    for slice_, marked in ((16, ["1"]), (17, ["2"]), (18, [])):
        set_value(page, "#slice", slice_)
        assert page.locator("#lesions tr.now button").all_inner_texts() == marked


def test_without_a_lesion_there_is_no_table(page):
    show(page, "empty.nii.gz")
    assert not page.is_visible("#lesions") and not page.is_visible("#save-lesions")
    show(page, PICTURE)
    assert "px" in text(page, "#lesions tbody") and "mm" not in text(page, "#lesions tbody")


def read_table(page, button):
    with page.expect_download() as waiting:
        page.click(button)
    with open(waiting.value.path(), newline="", encoding="utf-8") as file:
        return waiting.value.suggested_filename, list(csv.DictReader(file, strict=True))


def test_the_table_of_lesions_is_saved_as_predict_writes_it(page):
    show(page, VOLUME)
    name, (first, second) = read_table(page, "#save-lesions")
    assert name == "patient-flair-lesions.csv"
    assert tuple(first) == ("case", *lesions.COLUMNS, "model", "mask", "use")
    assert (first["case"], first["lesion"], second["lesion"]) == ("patient-flair", "1", "2")
    assert (first["centroid_i"], first["centroid_x_mm"], second["first_slice"]) == ("3.0", "", "17")
    assert re.fullmatch(r"55\.\d{3}", first["volume_ml"]) and re.fullmatch(r"0\.\d{3}", first["mean_probability"])
    assert (first["model"], first["use"]) == ("ab" * 32, "Research use only. Not for clinical use.")
    name, rows = read_table(page, "#save-slices")
    assert name == "patient-flair-slices.csv" and len(rows) == 20
    assert rows[11]["slice"] == "12" and rows[11]["area_mm2"] == "1646.7"


# -- another rule ---------------------------------------------------------------------------------------------------


def change(page, selector, value):
    """As a person who lets go of a slider."""
    set_value(page, selector, value)
    page.eval_on_selector(selector, "input => input.dispatchEvent(new Event('change'))")


def test_another_threshold_is_asked_for_told_and_taken_back(page, server):
    show(page, VOLUME)
    set_value(page, "#slice", 9)
    assert "own rule" in text(page, "#rule-own-values") and page.is_disabled("#rule-own")
    before = text(page, "#numbers dd")
    change(page, "#threshold", 0.2)
    page.wait_for_selector("#warnings:has-text('Threshold 0.2')")
    assert server.requests[-1]["path"] == "/v1/segment?volumes=true&threshold=0.2"
    assert text(page, "#numbers dd") != before and number(page) == 9
    page.fill("#min-component", "3")
    page.keyboard.press("Tab")
    page.wait_for_function("() => document.querySelector('#min-component').value === '3'")
    page.click("#rule-own")
    page.wait_for_selector("#warnings:empty", state="attached")
    assert server.requests[-2]["path"] == "/v1/segment?volumes=true&threshold=0.2&min_component=3"
    assert server.requests[-1]["path"] == "/v1/segment?volumes=true"
    assert text(page, "#numbers dd") == before and page.input_value("#threshold") == "0.55"


def test_a_rule_out_of_range_is_not_sent(page, server):
    show(page, VOLUME)
    sent = len(server.requests)
    page.fill("#min-component", "-1")
    page.keyboard.press("Tab")
    page.wait_for_timeout(200)
    assert len(server.requests) == sent and page.is_visible("#min-component:invalid")


def test_another_file_is_asked_for_with_the_models_own_rule(page, server):
    show(page, VOLUME)
    change(page, "#threshold", 0.2)
    page.wait_for_selector("#warnings:has-text('Threshold 0.2')")
    show(page, PICTURE)
    page.wait_for_selector(f"#file-name:has-text('{PICTURE}')")
    assert server.requests[-1]["path"] == "/v1/segment?volumes=true" and page.input_value("#threshold") == "0.55"


# -- downloads ------------------------------------------------------------------------------------------------------


def test_mask_and_probabilities_are_saved_without_asking_again(page, server, tmp_path):
    """With the server gone: what is on the page is all that is needed. Both lie where the answer's volumes lie."""
    show(page, VOLUME)
    sent = len(server.requests)
    page.route("**/v1/**", lambda route: route.abort())
    _, mask, probability = head(20)
    for button, name, expected in (("#save-mask", "mask", (probability > 255 * 0.55) * 1.0),
                                   ("#save-probability", "probability", probability / 255)):  # fmt: skip
        with page.expect_download() as waiting:
            page.click(button)
        assert waiting.value.suggested_filename == f"patient-flair-{name}.nii.gz"
        waiting.value.save_as(tmp_path / "saved.nii.gz")
        saved = nibabel.load(tmp_path / "saved.nii.gz")
        assert np.allclose(np.moveaxis(saved.get_fdata(), (0, 1, 2), (2, 1, 0)), expected, atol=1e-6)
        assert np.allclose(saved.header.get_zooms(), (0.9, 0.9, 5))
        told = saved.header["descrip"].tobytes().rstrip(b"\0").decode()
        assert told == f"brainseg {name}; model {'ab' * 6}; research use only"
        page.wait_for_selector("#download-note:has-text('saved')")
    assert len(server.requests) == sent and mask.any()


def test_the_overlay_is_what_is_seen_and_says_what_it_is_for(page):
    show(page, VOLUME)
    with page.expect_download() as waiting:
        page.click("#save-overlay")
    assert waiting.value.suggested_filename == f"patient-flair-slice-{LARGEST}.png"
    saved = np.asarray(Image.open(waiting.value.path()).convert("RGB")).astype(int)
    stage = page.locator("#stage").bounding_box()
    seen = saved[: int(stage["height"])]
    assert saved.shape[1] == stage["width"]
    assert orange(seen).sum() > 300
    written = saved[int(stage["height"]) :]  # below the image are two lines of text
    assert len(written) > 30 and (written.min(-1) > 150).sum() > 300


# -- what people see of the model and of names ----------------------------------------------------------------------


def test_names_are_text(page):
    name = "<img src=x onerror=\"document.title='run'\">.nii.gz"
    show(page, name)
    assert text(page, "#file-name") == name and text(page, "#name") == name
    assert page.title() != "run" and page.query_selector("img") is None


def test_the_model_card_is_shown_without_what_could_run(page):
    page.click("#show-model")
    card = text(page, "#card")
    assert "0.847" in card and "[0.771, 0.878]" in card and "Intended use." in card
    assert page.query_selector("#card-text table") and page.query_selector("#card-text strong")
    assert page.query_selector("#card-text img, #card-text script") is None and page.title() != "run"
    page.keyboard.press("Escape")
    assert not page.is_visible("#card")


def test_a_phantom_model_is_under_a_banner(page, opened, browser):
    assert not page.is_visible("#banner")
    marks = {**MODEL, "source": "phantom", "marks": ["phantoms only"]}
    with PageServer(PAGE, model=marks) as other:
        phantom = opened(url=other.url)
        phantom.wait_for_selector("#banner:visible")
        assert "phantoms" in text(phantom, "#banner") and "make pull, then make serve" in text(phantom, "#banner")
        show(phantom, VOLUME)
        assert phantom.is_visible("#banner")


def test_the_page_has_no_inline_style_or_script():
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert " style=" not in html and " onclick" not in html and "<style" not in html and "http" not in html
    assert html.count("<script") == html.count('<script type="module" crossorigin src="./assets/')


# -- for everybody --------------------------------------------------------------------------------------------------

STATES = {"empty": None, "result": VOLUME, "warned": "odd.png", "refused": "report.pdf", "waiting": "slow.nii.gz"}


def states(page):
    """Bring the page into each state, one after the other."""
    for state, name in STATES.items():
        if name:
            choose(page, name)
        if state in ("result", "warned"):
            shown(page)
        elif state != "empty":
            page.wait_for_selector({"refused": "#notice strong", "waiting": "#waiting:visible"}[state])
        yield state


def test_every_control_has_a_name(page):
    controls = {"button", "slider", "checkbox", "radio", "combobox", "link", "textbox", "progressbar", "group", "table"}
    session = page.context.new_cdp_session(page)
    for state in states(page):
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        found = [node for node in nodes if node.get("role", {}).get("value") in controls and not node["ignored"]]
        assert len(found) >= 4
        assert [node for node in found if not node.get("name", {}).get("value", "").strip()] == [], state


def test_a_phone_needs_no_sideways_scrolling_and_no_thin_fingers(opened):
    page = opened(PHONE, is_mobile=True, has_touch=True)
    small = "all => all.filter(e => e.offsetParent && e.getBoundingClientRect().height < 36).map(e => e.id)"
    for state in states(page):
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], state
        assert page.eval_on_selector_all("button, select", small) == [], state


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_research_use_only_is_always_in_sight(opened, viewport):
    page = opened(viewport)
    for state in states(page):
        for y in (0, 100_000):
            page.evaluate("y => scrollTo(0, y)", y)
            box = page.locator(".disclaimer").bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= 120, state
        assert text(page, ".disclaimer") == "Research use only. Not for clinical use."


CONTRASTS = """() => {
  const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const colour = rgba(getComputedStyle(node).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.offsetParent || node.closest('#stage, :disabled, .hidden-text, .skip, option')) continue;
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.tagName + ' ' + node.textContent.trim().slice(0, 30)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_can_be_read_in_dark_and_in_light(opened, scheme):
    page = opened(color_scheme=scheme)
    for state in states(page):
        found = page.evaluate(CONTRASTS)
        assert len(found) >= 10
        assert [pair for pair in found if pair[0] < 4.5] == [], state


def brightness(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")


def test_the_theme_follows_the_system_until_it_is_switched(opened):
    page = opened(color_scheme="dark")
    assert max(brightness(page)) < 60
    page.click("#theme")
    assert min(brightness(page)) > 200
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert min(brightness(page)) > 200
    assert "dark" in page.get_attribute("#theme", "aria-label")
    assert min(brightness(opened(color_scheme="light"))) > 200


def test_the_whole_way_by_keyboard(page):
    """Tab reaches the examples. Then the image has the focus, and the keys work there."""
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").startswith("Phantom 1"):
            break
    page.keyboard.press("Enter")
    shown(page)
    page.wait_for_function("document.activeElement.id === 'stage'")
    page.keyboard.press("o")
    assert not page.is_checked("#outline")
    page.keyboard.press("m")
    assert page.is_checked("input[value=probability]")
    page.keyboard.press("?")
    assert page.is_visible("#keys")
