"""The examples of the release on the site: named by how well the model does, which is what the page then finds."""

import json
import zipfile

import pytest

from tests.support.site import WEB, needs_browser, text
from tools import copy_released

pytest.importorskip("pydicom", reason="makes a DICOM series")

pytestmark = [*needs_browser, pytest.mark.slow]


def test_each_has_the_score_that_is_told_and_says_whose_it_is(page, tmp_path):
    (released,) = copy_released.copy(WEB.parent, tmp_path, ["examples/patients.zip"])
    with zipfile.ZipFile(released) as archive:
        listed = json.loads(archive.read("list.json"))
    buttons = page.locator("#examples button")
    assert [button.split(":")[0] for button in buttons.all_inner_texts()] == ["Easy", "Median", "Hard", "It fails"]
    assert "CC BY-NC-SA 4.0" in text(page, "#examples-credit")
    assert page.get_attribute("#examples-credit a", "href") == listed["licence"]
    for number in (0, 3):
        told = listed["examples"][number]
        assert f"Dice {told['dice']:.2f}" in buttons.nth(number).inner_text()
        buttons.nth(number).click()
        page.wait_for_selector("#scores:visible dt")
        dice = float(page.inner_text("#scores dd").split()[0])
        assert dice == pytest.approx(told["dice"], abs=0.002)
        assert "Readers' outline" in text(page, "#scores") and "CC BY-NC-SA 4.0" in text(page, "#file-facts")
        assert page.is_checked("input[value=compare]")
        page.click("#close")
