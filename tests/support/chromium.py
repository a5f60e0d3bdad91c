"""The browser that drives the page in tests."""

import shutil

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL 2 without a graphics card
]


def is_violation(text: str) -> bool:
    """Whether the policy blocked something that the page needs.

    DOMPurify, in the viewer, parses markup with handlers into a document that runs no scripts, to check it. Chromium
    156 reports those handlers as blocked. The page itself has none (``test_the_page_has_no_inline_handler``).
    """
    return "Content Security Policy" in text and not text.startswith("Executing inline event handler")
