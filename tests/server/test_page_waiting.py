"""What the page tells while the server works: in words, by the bar, in the title, and aloud."""

import itertools

import pytest

from tests.server.test_page import choose, pytestmark, shown

assert pytestmark  # slow, and where the page and a browser are

UPLOAD = {"stage": "uploading", "bytes_received": 1_200_000, "bytes_total": 4_000_000, "place": None, "slices_done": 0,
          "slices_total": None}  # fmt: skip
STAGES = {
    "uploading": (UPLOAD, "Sending: 1.2 of 4.0 MB", "30"),
    "unknown length": (UPLOAD | {"bytes_total": None}, "Sending: 1.2 MB", None),
    "third": (UPLOAD | {"stage": "waiting", "place": 3}, "Waiting: number 3 in the queue", None),
    "next": (UPLOAD | {"stage": "waiting", "place": 1}, "Waiting: next in the queue", None),
    "reading": (UPLOAD | {"stage": "reading"}, "The server reads it", None),
    "outlining": (UPLOAD | {"stage": "outlining", "slices_done": 5, "slices_total": 20}, "Slice 5 of 20", "25"),
    "answering": (UPLOAD | {"stage": "answering", "slices_done": 20, "slices_total": 20}, "Receiving the answer", None),
}


@pytest.fixture
def waiting(page, server):
    """The page while a server works on a file; it is released at the end."""
    page.check("input[name=where][value=server]", force=True)
    choose(page, "slow.nii.gz")
    yield page
    server.released.set()
    shown(page)


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_is_told_as_the_server_knows_it(waiting, server, stage):
    server.progress, words, share = STAGES[stage]
    waiting.wait_for_selector(f".waiting-what:has-text('{words}')")
    assert waiting.get_attribute("#bar", "aria-valuenow") == share
    assert waiting.title() == (f"{share} % – brainseg" if share else "Outlining… – brainseg")  # noqa: RUF001


def test_the_server_is_asked_twice_a_second_at_most_and_never_afterwards(page, server):
    page.check("input[name=where][value=server]", force=True)
    server.progress = UPLOAD
    choose(page, "slow.nii.gz")
    page.wait_for_timeout(3000)
    server.released.set()
    shown(page)
    page.wait_for_timeout(300)
    count = len(server.asked)
    assert 3 <= count <= 6
    assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(server.asked))
    page.wait_for_timeout(1500)
    assert len(server.asked) == count


def test_without_progress_the_seconds_are_told(waiting):
    waiting.wait_for_selector(".waiting-what:has-text('Outlining… · 2 s')")


def test_it_is_said_aloud_now_and_then(waiting, server):
    """Five stages in a moment: one is said. The number of slices, which changes all the time, is not."""
    waiting.evaluate("""() => {
      window.heard = [];
      const live = document.querySelector('#live');
      const hear = () => window.heard.push([performance.now(), live.textContent]);
      new MutationObserver(hear).observe(live, {childList: true, characterData: true, subtree: true});
    }""")
    server.progress = STAGES["third"][0]
    waiting.wait_for_selector("#live:has-text('number 3 in the queue')", state="attached")
    for done in range(1, 10):
        server.progress = STAGES["outlining"][0] | {"slices_done": done}
        waiting.wait_for_timeout(200)
    waiting.wait_for_selector("#live:has-text('Outlining')", state="attached")
    server.progress = STAGES["outlining"][0] | {"slices_done": 15}
    waiting.wait_for_selector("#live:has-text('half done')", state="attached")
    heard = waiting.evaluate("window.heard")
    assert [words for _, words in heard] == ["Waiting: number 3 in the queue", "Outlining", "Outlining, half done"]
    assert all(later - earlier >= 3900 for (earlier, _), (later, _) in itertools.pairwise(heard))


def test_waiting_for_the_server_is_cancelled_and_nothing_asks_on(page, server):
    page.check("input[name=where][value=server]", force=True)
    server.progress = STAGES["third"][0]
    choose(page, "slow.nii.gz")
    page.wait_for_selector(".waiting-what:has-text('number 3')")
    page.keyboard.press("Escape")
    assert page.is_visible("#choose") and page.text_content("#live") == "Cancelled"
    page.wait_for_timeout(300)
    count = len(server.asked)
    page.wait_for_timeout(1500)
    assert len(server.asked) == count and page.text_content("#live") == "Cancelled"
