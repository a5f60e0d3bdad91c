"""The page that asks for the token, in a real browser: the token behind # gets into no address that is sent."""

import shutil

import pytest

from brainseg.server import app
from tests.support.server_fixture import log_of_everything, serving

sync_api = pytest.importorskip("playwright.sync_api", reason="drives the page in a browser")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no Chromium")]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def page(browser):
    """An error in the page, or a breach of its policy, fails the test."""
    wrong: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: "Content Security Policy" in message.text and wrong.append(message.text))
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def served(tmp_path):
    (tmp_path / "index.html").write_text("<title>the page</title><h1>The page</h1>")
    with serving(settings=app.Settings(token="a+b/c&d", page=tmp_path, decoders=0)) as running:
        yield running


def test_the_address_that_was_printed_opens_the_page(page, served):
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    with log_of_everything() as log:
        page.goto(f"{served.url}/#token=a%2Bb%2Fc%26d")
        page.wait_for_selector("text=The page")
    assert page.url == f"{served.url}/"
    assert not [url for url in sent if "a+b" in url.partition("#")[0] or "a%2Bb" in url.partition("#")[0]]
    assert "c&d" not in log.getvalue() and "c%26d" not in log.getvalue()
    assert page.evaluate("document.cookie") == ""  # scripts cannot read it
    page.goto(f"{served.url}/docs")
    assert page.title() == "brainseg"


def test_a_token_can_be_typed(page, served):
    page.goto(served.url)
    page.fill("input", "wrong")
    page.click("button")
    page.wait_for_selector("text=That is not the token.")
    page.fill("input", "a+b/c&d")
    page.click("button")
    page.wait_for_selector("text=The page")


def test_a_wrong_token_in_the_address_is_told_and_taken_out(page, served):
    page.goto(f"{served.url}/v1/model#token=wrong")
    page.wait_for_selector("text=The token in the address is not this server's.")
    assert page.url == f"{served.url}/v1/model"
