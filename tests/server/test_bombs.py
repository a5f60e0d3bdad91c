"""W2: files that are small when sent and large in memory."""

import os
import threading
import time
from contextlib import suppress

import psutil
import pytest

from tests.support import bombs
from tests.support.server_fixture import encoded, head, serving

MOST_MEMORY = 256 * 2**20


@pytest.fixture(scope="module")
def served():
    with serving() as running:
        yield running


class Watched:
    """The largest growth, within a block, of the resident bytes of this process and its children."""

    def __enter__(self):
        self._done, self.grown, self._before = threading.Event(), 0, self._now()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _look(self):
        while not self._done.is_set():
            self.grown = max(self.grown, self._now() - self._before)
            time.sleep(0.01)

    def _now(self):
        own = psutil.Process(os.getpid())
        total = 0
        for process in [own, *own.children()]:
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total


def test_there_are_at_least_twenty_bombs():
    assert len(bombs.ALL) >= 20


@pytest.mark.parametrize("name", bombs.ALL)
def test_w2_bombs(served, name):
    data = bombs.ALL[name]()
    began = time.monotonic()
    with Watched() as memory:
        answer = served.segment(data)
    took = time.monotonic() - began
    assert answer.status_code in (413, 422), answer.text
    assert took < 2
    assert memory.grown < MOST_MEMORY
    assert answer.json()["error"]["fix"]
    assert "/" not in answer.json()["error"]["what"].replace("file/", "")  # it shows no path of the server


@pytest.mark.parametrize(("name", "told"), [
    ("zip_of_one_gib", "file: is a zip of more than 96 MiB, unpacked"),
    ("zip_of_many_that_are_large_together", "file: is a zip of more than 96 MiB, unpacked"),
    ("zip_that_inflates_to_more_than_it_declares", "file: contains a file that is damaged"),
    ("zip_whose_members_share_their_bytes", "file: contains a file that overlaps another one"),
    ("zip_whose_member_leaves_the_folder", "file: contains a file that leads out of the zip")])  # fmt: skip
def test_a_zip_is_refused_for_one_reason_with_one_limit(served, name, told):
    error = served.segment(bombs.ALL[name]()).json()["error"]
    assert error["what"] == told and error["fix"].count("96 MiB") == 1


def test_after_all_bombs_an_ordinary_file_is_answered(served):
    assert served.segment(encoded(head())).status_code == 200
    assert served.get("/ready").status_code == 200
