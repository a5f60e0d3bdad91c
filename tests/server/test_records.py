"""What is kept of a request: its id, a line in the log, counts for Prometheus, and how far it is."""

import json
import logging
import re
import threading
import time

import pytest
import requests

from brainseg.server import app, limits
from brainseg.server.layers.records import JsonLines
from tests.support.server_fixture import encoded, head, log_of_everything, serving, soon

PICTURE = encoded(head())
PAGES = encoded(*[head()] * 10, kind="TIFF")


@pytest.fixture(scope="module")
def served():
    with serving(settings=app.Settings(decoders=1)) as running:
        yield running


def test_every_answer_has_the_id_that_was_sent_or_a_new_one(served):
    own = {"X-Request-ID": "3f2a-41.B_7"}
    for path in ("/health", "/nothing", "/v1/model"):
        assert served.get(path, headers=own).headers["x-request-id"] == own["X-Request-ID"]
    assert served.get("/", headers=own | {"Host": "evil.example"}).headers["x-request-id"] == own["X-Request-ID"]
    for given in ("", "short", "a" * 65, "a b c d e f", "<script>alert", "ünïcödé-x"):
        found = [served.get("/health", headers={"X-Request-ID": given.encode()}).headers["x-request-id"] for _ in "ab"]
        assert all(re.fullmatch("[0-9a-f]{16}", each) for each in found) and found[0] != found[1]


def test_the_log_has_the_id(served):
    with log_of_everything() as log:
        served.segment(PICTURE, headers={"X-Request-ID": "wanted-again"})
        # The line is written after the answer.
        assert soon(lambda: re.search(r"POST /v1/segment 200 \d+ ms \d+ bytes wanted-again\n", log.getvalue()))


def test_the_log_for_programs_has_an_object_in_each_line(served):
    lines = []

    class Keeper(logging.Handler):
        def emit(self, record):
            lines.append(JsonLines().format(record))

    keeper, log = Keeper(), logging.getLogger("brainseg.server")
    level = log.level
    log.addHandler(keeper)
    log.setLevel(logging.INFO)
    try:
        served.segment(PICTURE, headers={"X-Request-ID": "wanted-again"})
        assert soon(lambda: len(lines) == 1)  # it is written after the answer
        served.get("/v1/progress/wanted-again")  # asked again and again, so it is not logged
        log.error("bug: %s at %s:%s", "ValueError", 'a"b.py', 3)
    finally:
        log.removeHandler(keeper)
        log.setLevel(level)
    request, bug = map(json.loads, lines)
    assert request["request_id"] == "wanted-again" and request["level"] == "info"
    assert (request["method"], request["route"], request["status"]) == ("POST", "/v1/segment", 200)
    assert request["bytes_in"] > len(PICTURE) and request["bytes_out"] > 0 and request["milliseconds"] >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", request["time"])
    assert bug["message"] == 'bug: ValueError at a"b.py:3' and bug["level"] == "error"


def metric(served, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", served.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_metrics_count_what_was_done(served):
    name = 'brainseg_requests_total{method="POST",route="/v1/segment",status="200"}'
    names = (name, "brainseg_slices_total", 'brainseg_bytes_total{direction="in"}')
    before = [metric(served, each) for each in names]
    assert served.segment(PAGES).status_code == 200
    assert soon(lambda: metric(served, name) > before[0])  # counted after the answer
    answered, slices, sent = (metric(served, each) - was for each, was in zip(names, before, strict=True))
    assert (answered, slices) == (1, 10) and sent > len(PAGES)
    answer = served.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for line in ("brainseg_requests_waiting 0.0", 'weights_sha256="' + "ab" * 32 + '"', "process_resident_memory_bytes",
                 'brainseg_request_seconds_bucket{le="0.05",route="/v1/segment"}'):  # fmt: skip
        assert line in answer.text


def test_metrics_have_no_more_names_than_there_are_routes(served):
    for number in range(20):
        served.get(f"/nothing-{number}")
        served.session.request(f"M{number}", f"{served.url}/v1/examples/{number}", timeout=30)
    text = served.get("/metrics").text
    assert "nothing" not in text and "examples/1" not in text
    assert 'method="(other)"' in text and 'route="(other)"' in text


def test_metrics_need_the_token():
    with serving(settings=app.Settings(token="secret", decoders=0)) as own:
        assert own.get("/metrics").status_code == 401
        assert own.get("/metrics", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_a_client_that_leaves_is_no_fault_of_the_server(served):
    """499 in the log and in the metrics, also while it waits and while it uploads."""
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + PICTURE + b"\r\n--x--\r\n"
    head_ = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    whole = head_ + b"Content-Length: %d\r\n\r\n" % len(body) + body
    served.model.hold.clear()
    try:
        begun = served.model.begun
        for sent in (whole, whole[:-50]):
            with log_of_everything() as log:
                with served.connect() as connection:
                    connection.sendall(sent)
                    assert soon(lambda: served.model.begun == begun + 1)
                    time.sleep(0.1)
                assert soon(lambda log=log: "POST /v1/segment 499" in log.getvalue()), log.getvalue()
            assert " 503 " not in log.getvalue() and "bug" not in log.getvalue()
    finally:
        served.model.hold.set()
    assert metric(served, 'brainseg_requests_total{method="POST",route="/v1/segment",status="499"}') == 2


def test_how_far_a_request_is_can_be_asked(served):
    """Uploaded, the place in the queue, slices done; nothing once it is over."""

    def ask(identity: str):
        return served.get(f"/v1/progress/{identity}")

    def post(identity: str):
        form = {"file": PAGES}
        requests.post(f"{served.url}/v1/segment", files=form, headers={"X-Request-ID": identity}, timeout=60)

    names = [f"request-{number}" for number in range(limits.AT_ONCE + 2)]
    threads = [threading.Thread(target=post, args=[name]) for name in names]
    served.model.hold.clear()
    try:
        for thread, name in zip(threads, names, strict=True):
            thread.start()
            assert soon(lambda name=name: ask(name).status_code == 200)
            assert soon(lambda name=name: ask(name).json()["stage"] != "uploading")
        assert soon(lambda: ask(names[0]).json()["stage"] == "outlining")
        first = ask(names[0]).json()
        assert (first["slices_done"], first["slices_total"], first["place"]) == (5, 10, None)
        assert first["bytes_received"] == first["bytes_total"] > len(PAGES)
        for name in names[1 : limits.AT_ONCE]:  # read, and waiting for the model, before those that are not read yet
            assert soon(lambda name=name: ask(name).json()["slices_total"] == 10)
            assert soon(lambda name=name: ask(name).json()["stage"] == "waiting")
        assert [ask(name).json()["place"] for name in names[1:]] == [1, 2, 3]
        assert ask(names[-1]).json()["stage"] == "waiting" and ask(names[-1]).json()["slices_total"] is None
    finally:
        served.model.hold.set()
        for thread in threads:
            thread.join()
    for name in (*names, "never-sent"):
        assert ask(name).status_code == 404 and "no request in work" in ask(name).json()["error"]["what"]


def test_an_upload_tells_how_much_has_come(served):
    head_ = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: half-way-there\r\n"
    head_ += b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"
    start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(40_000)
    with served.connect() as connection:
        connection.sendall(head_ + start)
        assert soon(lambda: served.get("/v1/progress/half-way-there").status_code == 200)
        assert soon(lambda: served.get("/v1/progress/half-way-there").json()["bytes_received"] == len(start))
        told = served.get("/v1/progress/half-way-there").json()
        assert (told["stage"], told["bytes_total"], told["place"]) == ("uploading", 100_000, None)
    assert soon(lambda: served.get("/v1/progress/half-way-there").status_code == 404)


def test_two_requests_of_one_id_do_not_hide_each_other():
    from brainseg.server.progress import Progress, ProgressBoard

    board, first, second = ProgressBoard(), Progress(), Progress()
    with board.follow("a", first):
        with board.follow("a", second):
            assert board.find("a") is first
        assert board.find("a") is first
    assert board.find("a") is None
