"""Thirty volumes in a row: the memory of the page, of its process and of the server stays what it was after the fifth.

``python -m pytest tests/web/test_memory.py -s`` prints the figures of docs/how-to/page.md.
"""

import psutil
import pytest

from tests.support.site import SECONDS, needs_browser, show

pytest.importorskip("pydicom", reason="makes a DICOM series")

pytestmark = [*needs_browser, pytest.mark.slow]
VOLUMES, EARLY = 30, 5
GROWTH = 1.1
PROCESS = 1.2  # of a browser's process, which takes memory in steps and keeps it; it was at its last one after 12 of 45
MEGABYTE = 2**20


class Page:
    """What a page uses after its garbage was collected, in MiB."""

    def __init__(self, page):
        self._session = page.context.new_cdp_session(page)
        whole = page.context.browser.new_browser_cdp_session()
        found = whole.send("SystemInfo.getProcessInfo")["processInfo"]
        self._renderers = [psutil.Process(each["id"]) for each in found if each["type"] == "renderer"]

    def heap(self) -> float:
        """Objects of scripts, and the arrays that they hold."""
        self._session.send("HeapProfiler.collectGarbage")
        told = self._session.send("Runtime.getHeapUsage")
        return (told["usedSize"] + told["backingStorageSize"]) / MEGABYTE

    def process(self) -> float:
        """All of the process, with the worker and the model in it."""
        return max(each.memory_info().rss for each in self._renderers if each.is_running()) / MEGABYTE


def tree(process: psutil.Process) -> float:
    """A process with its children, in MiB."""
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)]) / MEGABYTE


def check(name: str, sizes: list[float], growth: float = GROWTH) -> None:
    """After the fifth volume, how much at most, and how much after the last."""
    early, late = max(sizes[EARLY - 2 : EARLY + 1]), max(sizes[-3:])
    print(f"{name}: {sizes[0]:.0f} MiB after the first, {early:.0f} after the fifth, {late:.0f} after the last")
    assert late <= growth * early, sizes


def test_of_the_page(page, files):
    watched = Page(page)
    heap, process = [], []
    for _ in range(VOLUMES):
        show(page, files[0] / "float.nii.gz")
        heap.append(watched.heap())
        process.append(watched.process())
    check("page, scripts and arrays", heap)
    check("page, whole process", process, PROCESS)


def test_of_the_server_and_of_the_page_that_it_outlines_for(browser, serving, files):
    address, server = serving
    page = browser.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    page.check("input[name=where][value=server]", force=True)
    watched, process = Page(page), psutil.Process(server.pid)
    heap, served = [], []
    for _ in range(VOLUMES):
        show(page, files[0] / "float.nii.gz")
        heap.append(watched.heap())
        served.append(tree(process))
    page.close()
    check("page with a server, scripts and arrays", heap)
    check("server", served)
