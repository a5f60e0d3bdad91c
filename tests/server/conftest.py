"""The built page in Chromium, with a server that gives made-up answers."""

from pathlib import Path

import pytest

from tests.support.chromium import CHROMIUM, FLAGS, is_violation

PAGE = Path(__file__).parents[2] / "src/brainseg/server/page"
DESK = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="drives the page in a browser")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def server():
    from tests.support.page_server import PageServer

    with PageServer(PAGE) as running:
        yield running


@pytest.fixture
def opened(browser, server):
    """A function that opens the page in a new window. An error in the page fails the test."""
    wrong: list[str] = []
    contexts = []

    def act(viewport=DESK, url=server.url, **settings):
        context = browser.new_context(viewport=viewport, accept_downloads=True, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: is_violation(message.text) and wrong.append(message.text))
        page.on("request", lambda sent: sent.url.startswith(("blob:", "data:", url)) or wrong.append(sent.url))
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        return page

    yield act
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def page(opened):
    return opened()
