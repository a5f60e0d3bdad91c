"""The static site in Chromium, as a person uses it: hosted, opened, asked, saved from."""

from pathlib import Path

import numpy as np
import pytest

from brainseg.evaluation import metrics
from tests.support.chromium import CHROMIUM

WEB = Path(__file__).parents[2] / "web"
needs_libraries = pytest.mark.skipif(
    not (WEB / "node_modules/onnxruntime-web").exists(), reason="the page's libraries are not here: make page"
)
needs_browser = [pytest.mark.skipif(not CHROMIUM, reason="no Chromium"), needs_libraries]
SECONDS = 90  # that a step may take: the machine may be busy
PATH = "/some/where/"  # the site's, on its host
VIOLATIONS = """async () => {
  const {violations} = await axe.run(document, {resultTypes: ['violations']});
  return violations.filter(each => each.impact !== 'minor')
    .map(each => `${each.id}: ${each.nodes.slice(0, 3).map(node => node.html).join(' | ')}`);
}"""  # what axe-core finds that is moderate or worse


def show(page, *paths):
    """Open files, and wait for their answer."""
    page.evaluate("document.querySelector('#verdict').textContent = ''")
    page.set_input_files("#files", [str(path) for path in paths])
    page.wait_for_selector("body[data-state=result] #verdict:not(:empty)")


def text(page, selector):
    return page.inner_text(selector).replace("\N{NO-BREAK SPACE}", " ")


def download(page, button, folder):
    with page.expect_download() as waiting:
        page.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def set_value(page, selector, value):
    page.eval_on_selector(
        selector, "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')) }", str(value)
    )


def agree(a, b):
    return np.array_equal(a, b) or metrics.dice(metrics.counts(a, b)) >= 0.9999
