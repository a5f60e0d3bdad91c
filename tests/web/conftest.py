"""The page's own site in Chromium, and ``brainseg serve`` behind the page, for all tests of this folder."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import shared
from tests.support.chromium import Windows, launch
from tests.support.site import PATH, SECONDS, WEB
from tools import build_site, copy_released, hosting

PROGRAM = Path(sys.executable).with_name("brainseg")
PAGE = WEB.parent / "src/brainseg/server/page"


@pytest.fixture(scope="session")
def files():
    """Files to open, and Python's answers to them: the released model's."""
    from tests.support import golden  # which skips without pydicom

    def make(folder):
        golden.released(folder)
        golden.write(folder)

    folder = shared.folder("page-files", make)
    return folder, {each.id: each for each in golden.ask(folder)}


@pytest.fixture(scope="session")
def site(files):
    model = files[0] / "model.onnx"

    def build(out):
        (patients,) = copy_released.copy(WEB.parent, out, ["examples/patients.zip"])
        build_site.run(out / "site", model, WEB, patients)

    built = shared.folder("site", build)
    with hosting.host(built / "site", PATH) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with launch() as running:
        yield running


@pytest.fixture
def opened(browser, site):
    """A function that opens the site in a new window, with its model. An error in the page fails the test."""
    windows = Windows(browser)

    def act(**settings):
        page = windows.open(SECONDS, **{"viewport": {"width": 1280, "height": 800}} | settings)
        page.goto(site)
        page.wait_for_selector("#model-state:has-text('Computed on this computer')")
        page.wait_for_selector("body[data-ready]")
        return page

    yield act
    windows.close()
    assert windows.wrong == []


@pytest.fixture
def page(opened):
    return opened()


@pytest.fixture
def serving(files):
    """``brainseg serve`` with the released model: its address and its process."""
    if not (PAGE / "index.html").exists():
        pytest.skip("the page is not built: make page")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PROGRAM, "serve", "--port", str(port), "--model", files[0] / "model.onnx"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1], server
        server.terminate()


@pytest.fixture
def served(serving):
    return serving[0]
