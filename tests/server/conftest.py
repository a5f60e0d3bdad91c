"""The built page in Chromium, with a server that gives made-up answers."""

from pathlib import Path

import pytest

from tests.support.chromium import Windows, launch

PAGE = Path(__file__).parents[2] / "src/brainseg/server/page"
DESK = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser():
    with launch() as running:
        yield running


@pytest.fixture
def server():
    from tests.support.page_server import PageServer

    with PageServer(PAGE) as running:
        yield running


@pytest.fixture
def opened(browser, server):
    """A function that opens the page in a new window. An error in the page fails the test."""
    windows = Windows(browser)

    def act(viewport=DESK, url=server.url, **settings):
        page = windows.open(20, viewport=viewport, **settings)
        page.on("request", lambda sent: sent.url.startswith(("blob:", "data:", url)) or windows.wrong.append(sent.url))
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        return page

    yield act
    windows.close()
    assert windows.wrong == []


@pytest.fixture
def page(opened):
    return opened()
