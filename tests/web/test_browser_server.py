"""The page with ``brainseg serve`` behind it, and the released model on both sides."""

import numpy as np
import pytest

from tests.support import nifti_files
from tests.support.chromium import is_violation
from tests.support.site import SECONDS, needs_browser, show, text

pytest.importorskip("pydicom", reason="makes a DICOM series")
from tests.support import golden

pytestmark = [*needs_browser, pytest.mark.slow]


def test_this_computer_and_the_server_say_the_same(browser, files, served):
    folder, _ = files
    page = browser.new_page()
    page.set_default_timeout(SECONDS * 1000)
    wrong: list[str] = []
    page.on("console", lambda message: is_violation(message.text) and wrong.append(message.text))
    posted: list[str] = []
    page.on("request", lambda request: request.method == "POST" and posted.append(request.url))
    page.goto(served)
    page.wait_for_selector("#model-state:has-text('Computed on this computer')")
    assert page.evaluate("crossOriginIsolated")  # by the server's headers
    assert "nothing is sent" in text(page, "#privacy")
    show(page, folder / "float.nii.gz")
    here = text(page, "#numbers").split("Time")[0]
    assert posted == []
    page.click("#close")
    page.check("input[name=where][value=server]", force=True)
    assert "sent to the server" in text(page, "#privacy")
    show(page, folder / "float.nii.gz")
    assert len(posted) == 1 and "on the server" in text(page, "#numbers")
    assert text(page, "#numbers").split("Time")[0] == here
    assert wrong == []
    page.close()


def test_it_tells_how_far_the_server_is(browser, served, tmp_path):
    """Slice by slice, as the server says it, of a volume that takes it some seconds."""
    path = nifti_files.nifti(tmp_path / "long.nii.gz", np.concatenate([golden.phantom()[..., 1]] * 24))
    page = browser.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.goto(served)
    page.wait_for_selector("body[data-ready]")
    page.check("input[name=where][value=server]", force=True)
    page.evaluate("""() => {
      window.told = [];
      const words = document.querySelector('.waiting-what');
      new MutationObserver(() => window.told.push(words.textContent)).observe(words, {childList: true});
    }""")
    show(page, path)
    slices = [words for words in page.evaluate("window.told") if words.startswith("Slice ")]
    done = [int(words.split()[1]) for words in slices]
    assert len(set(done)) > 1 and done == sorted(done) and all(" of 144" in words for words in slices), slices
    page.close()


def test_a_patients_folder_is_compared_with_its_masks_which_stay_here(browser, served, files):
    folder, _ = files
    page = browser.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.add_init_script("""
      window.sent = [];
      const append = FormData.prototype.append;
      FormData.prototype.append = function (...given) {
        window.sent.push(given[2]);
        append.apply(this, given);
      };
    """)
    page.goto(served)
    page.wait_for_selector("#model-state:has-text('Computed on this computer')")
    scores = []
    for where in ("here", "server"):
        page.check(f"input[name=where][value={where}]", force=True)
        page.set_input_files("#folder", folder / "TCGA_XX_1234")
        page.wait_for_selector("#scores:visible dt")
        scores.append(text(page, "#scores"))
        page.click("#close")
    assert scores[0] == scores[1] and "Dice" in scores[0]
    assert page.evaluate("window.sent") == [f"TCGA_XX_1234_{number}.tif" for number in (5, 6, 7, 9, 10, 12)]
    page.close()
