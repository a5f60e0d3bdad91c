"""Tests that take minutes: hundreds of slow clients, thousands of broken forms, fuzzing by the OpenAPI document."""

import random
import socket
import threading
import time

import numpy as np
import psutil
import pytest
import requests

from tests.support import bombs
from tests.support.server_fixture import encoded, head, serving, status_of

pytestmark = pytest.mark.slow
PICTURE = encoded(head())


@pytest.fixture(scope="module")
def served():
    with serving() as running:
        yield running


def test_w6_three_hundred_slow_headers_are_closed_while_others_are_served(served):
    """Each sends one byte a second without end."""
    began = time.monotonic()
    slow = [served.connect() for _ in range(300)]
    for connection in slow:
        connection.setblocking(False)
        connection.send(b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nX: ")
    waited, closed = [], {}
    while len(closed) < len(slow) and time.monotonic() - began < 30:
        for number, connection in enumerate(slow):
            if number not in closed:
                try:
                    connection.send(b"a")
                    if connection.recv(100) == b"":
                        closed[number] = time.monotonic() - began
                except BlockingIOError:
                    pass
                except ConnectionError:
                    closed[number] = time.monotonic() - began
        at = time.monotonic()
        assert served.segment(PICTURE).status_code == 200
        waited.append(time.monotonic() - at)
        time.sleep(max(0, 1 - (time.monotonic() - at)))
    for connection in slow:
        connection.close()
    assert len(closed) == 300
    assert max(closed.values()) < 20
    assert max(waited) < 2


SEEDS = [PICTURE, encoded(head(), head(), kind="TIFF"), bombs.dicom(), bombs.nifti_header(16, 16, 4) + bytes(1024),
         bombs.zipped(("a.dcm", bombs.dicom())), bombs.zipped(("a_1.png", PICTURE), ("a_2.png", PICTURE)),
         encoded(head(), kind="JPEG"), b"", b"%PDF"]  # fmt: skip
HEADS = [b'form-data; name="file"; filename="a"', b'form-data; name="flair"; filename="a"', b'form-data; name="file"',
         b"form-data", b"", b'form-data; name="file"; filename*=utf-8\'\'%ff', b'form-data; name=""; filename=""',
         b'form-data; name="pre"; filename="\xff\xfe"', b"attachment; " + b"a=b; " * 200]  # fmt: skip


def mutated(rng: random.Random, data: bytes) -> bytes:
    data = bytearray(data)
    for _ in range(rng.choice([0, 0, 1, 3, 30])):
        if data:
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randrange(1, 200)]
            elif kind == 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 50))
            else:
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\r\n--"])
    return bytes(data)


def broken_form(rng: random.Random) -> tuple[bytes, bytes]:
    """The content type and the body of a form that may be broken."""
    boundary = rng.choice([b"x", b"----WebKitFormBoundaryabc", b"a" * 70, b"\xff", b""])
    parts = []
    for _ in range(rng.choice([0, 1, 1, 1, 2, 5])):
        name = rng.choice(HEADS[:2]) if rng.random() < 0.6 else rng.choice(HEADS)
        ends = rng.choice([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"])
        headers = b"Content-Disposition: " + name + ends
        if rng.random() < 0.2:
            headers += (
                rng.choice([b"Content-Type: a\0b", b"X" * 9000, b": ", b"Content-Transfer-Encoding: base64"]) + ends
            )
        content = mutated(rng, rng.choice(SEEDS))
        parts.append(b"--" + boundary + b"\r\n" + headers + ends + content + b"\r\n")
    body = mutated(rng, b"".join(parts)) if rng.random() < 0.3 else b"".join(parts)
    body += rng.choice([b"--" + boundary + b"--\r\n", b"--" + boundary + b"--\r\n", b"", b"--"])
    kinds = [b"multipart/form-data; boundary=" + boundary] * 8
    kinds += [b"multipart/form-data" + rest for rest in
              (b"", b"; boundary", b'; boundary="x', b"; charset=utf-7; boundary=" + boundary)]  # fmt: skip
    return rng.choice(kinds), body


def test_two_thousand_broken_forms_give_no_5xx(served):
    rng, seen = random.Random(7), {}
    for number in range(2000):
        kind, body = broken_form(rng)
        query = rng.choice([b"", b"?volumes=true", b"?slice=2", b"?slice=-1", b"?volumes=maybe&slice=%00", b"?%ff=%fe"])
        accept = rng.choice([b"*/*", b"image/png", b"application/x-nifti", b"application/json", b"a/b;q=\xff"])
        sent = (
            b"POST /v1/segment" + query + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: " + kind
            + b"\r\nAccept: " + accept + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )  # fmt: skip
        with served.connect() as connection:
            connection.sendall(sent)
            answer = connection.recv(4096)
        status = status_of(answer)
        seen[status] = seen.get(status, 0) + 1
        assert 200 <= status < 500, (number, kind, body[:300], answer)
    assert seen.get(200, 0) > 20 and len(seen) >= 4, seen
    assert served.get("/ready").status_code == 200


def test_damaged_files_give_no_5xx(served):
    """The forms are whole, the files are damaged. Errors of the libraries stay in the worker."""
    rng, seen = random.Random(8), {}
    for _ in range(1000):
        files = [mutated(rng, mutated(rng, rng.choice(SEEDS[:7]))) for _ in range(rng.choice([1, 1, 1, 2]))]
        status = served.segment(*files).status_code
        seen[status] = seen.get(status, 0) + 1
        assert 200 <= status < 500
    assert seen.get(200, 0) > 50 and seen.get(422, 0) > 50, seen


def _probe(operation, url: str, seen: dict):
    from hypothesis import HealthCheck, given, settings

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def probe(case):
        answer = case.call(base_url=url)
        seen[(operation.path, answer.status_code)] = seen.get((operation.path, answer.status_code), 0) + 1
        assert answer.status_code < 500

    return probe


def test_schemathesis_finds_no_5xx(served):
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    seen = {}
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {
        "/v1/segment",
        "/v1/model",
        "/v1/examples",
        "/health",
        "/ready",
    }
    for operation in operations:
        probe = _probe(operation, served.url, seen)
        probe()
    assert ("/v1/segment", 400) in seen or ("/v1/segment", 415) in seen


def test_memory_is_flat_over_a_thousand_requests(served):
    """200 requests warm up; 1,000 more must not grow the memory of this process and its workers."""

    def used() -> float:
        own = psutil.Process()
        return sum(process.memory_info().rss for process in [own, *own.children()]) / 2**20

    rng = np.random.default_rng(0)
    sent = [encoded(np.clip(head(256) + rng.integers(0, 20, (256, 256)), 0, 255).astype(np.uint8)) for _ in range(8)]
    kinds = ["application/json", "image/png", "application/x-nifti"]

    def some(count: int) -> None:
        for n in range(count):
            answer = served.segment(sent[n % 8], query="?volumes=true", headers={"Accept": kinds[n % 3]})
            assert answer.status_code == 200

    some(200)
    before = used()
    some(1000)
    assert used() - before < 25


def test_more_clients_than_wait_get_200_or_503_and_health_stays_quick(served):
    served.model.seconds = 0.04
    statuses, ends = [], time.monotonic() + 8

    def client() -> None:
        session = requests.Session()
        while time.monotonic() < ends:
            answer = session.post(f"{served.url}/v1/segment", files={"file": PICTURE}, timeout=30)
            statuses.append(answer.status_code)
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) > 0
                time.sleep(0.2)

    threads = [threading.Thread(target=client) for _ in range(100)]
    for thread in threads:
        thread.start()
    try:
        assert {served.get("/health").status_code for _ in range(20)} == {200}
    finally:
        for thread in threads:
            thread.join()
        served.model.seconds = 0.0
    assert set(statuses) == {200, 503}


def test_connections_are_bounded(served, monkeypatch):
    from brainseg.server.layers import slow_clients

    monkeypatch.setattr(slow_clients, "MAX_CONNECTIONS", 20)
    open_ones = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(40)]
    time.sleep(0.5)
    dropped = 0
    for connection in open_ones:
        connection.settimeout(0.05)
        try:
            dropped += connection.recv(10) == b""
        except TimeoutError:
            pass
        except ConnectionError:
            dropped += 1
        connection.close()
    assert dropped >= 20
