"""The static site in Chromium, as a person uses it: hosted, opened, asked, saved from."""

import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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


class _Handler(SimpleHTTPRequestHandler):
    """A host of static files that knows nothing of the page: no header of its own."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, *_: object) -> None:
        pass

    def translate_path(self, path: str) -> str:
        return super().translate_path("/" + path.removeprefix(PATH))


@contextmanager
def hosting(folder):
    """The address of a folder, under a path of its host."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{PATH}"
    finally:
        server.shutdown()
        server.server_close()


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
