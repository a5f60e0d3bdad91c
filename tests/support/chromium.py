"""The browser that drives the page in tests."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL 2 without a graphics card
]


@contextlib.contextmanager
def launch() -> Iterator[Any]:
    """A running Chromium. The test is skipped without Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="drives the page in a browser")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


class Windows:
    """Windows of a browser. ``wrong``: errors of their pages, and what their policy has blocked."""

    def __init__(self, browser: Any):
        self.browser, self.wrong = browser, list[str]()
        self._contexts: list[Any] = []

    def open(self, seconds: float, **settings: Any) -> Any:
        """An empty page in a new window. It waits at most so many seconds for anything."""
        context = self.browser.new_context(accept_downloads=True, **settings)
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(seconds * 1000)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda message: is_violation(message.text) and self.wrong.append(message.text))
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def is_violation(text: str) -> bool:
    """Whether the policy blocked something that the page needs.

    DOMPurify, in the viewer, parses markup with handlers into a document that runs no scripts, to check it. Chromium
    156 reports those handlers as blocked. The page itself has none (``test_the_page_has_no_inline_handler``).
    """
    return "Content Security Policy" in text and not text.startswith("Executing inline event handler")
