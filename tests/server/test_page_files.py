"""The files of the page and of the model: compressed, kept as long as they are right, and not longer."""

import asyncio
import gzip
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import requests

from brainseg.server import app
from brainseg.server.layers.slow_clients import TimeoutProtocol
from brainseg.server.pieces import SharedBytes
from brainseg.server.routes import page
from brainseg.server.routes.model import OnnxFile
from tests.support.server_fixture import serving

SCRIPT = b"export const answer = 42;\n" * 400
PICTURE = bytes(range(256)) * 10
INDEX = b"<title>the page</title>" + b" " * 2000
MODEL = b"an ONNX file" * 1000
DIGEST = hashlib.sha256(MODEL).hexdigest()
GZIP, PLAIN = {"Accept-Encoding": "gzip, br"}, {"Accept-Encoding": "identity"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "assets").mkdir()
    for name, content in {"index.html": INDEX, "assets/main-1a2b3c4d.js": SCRIPT, "assets/icon-5e6f7a8b.png": PICTURE,
                          "assets/ort-9c0d1e2f.wasm": SCRIPT, "sw.js": SCRIPT, "small.js": b"1"}.items():  # fmt: skip
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def served(folder):
    with serving(settings=app.Settings(page=folder, decoders=0, file=OnnxFile(MODEL, DIGEST))) as running:
        yield running


@pytest.mark.parametrize(("path", "kept"), [
    ("/assets/main-1a2b3c4d.js", "public, max-age=31536000, immutable"),
    ("/assets/icon-5e6f7a8b.png", "public, max-age=31536000, immutable"),
    ("/", "no-cache"), ("/index.html", "no-cache"), ("/sw.js", "no-cache")])  # fmt: skip
def test_what_has_a_digest_in_its_name_is_kept_for_good_and_nothing_else(served, path, kept):
    for encoding in (GZIP, PLAIN):
        answer = served.get(path, headers=encoding)
        assert answer.headers["cache-control"] == kept and answer.headers["etag"]
        again = served.get(path, headers=encoding | {"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content, again.headers["cache-control"]) == (304, b"", kept)
        assert served.get(path, headers=encoding | {"If-None-Match": '"another"'}).status_code == 200
    assert served.get("/v1/model").headers["cache-control"] == "no-store"


def test_text_is_compressed_where_the_client_takes_it(served):
    small, large = (served.get("/assets/main-1a2b3c4d.js", headers=encoding) for encoding in (GZIP, PLAIN))
    assert small.headers["content-encoding"] == "gzip" and "content-encoding" not in large.headers
    assert int(small.headers["content-length"]) < len(SCRIPT) // 20
    assert small.content == large.content == SCRIPT
    assert small.headers["vary"] == large.headers["vary"] == "Accept-Encoding"
    assert small.headers["etag"] != large.headers["etag"]
    assert small.headers["content-type"] == large.headers["content-type"]
    for path in ("/", "/sw.js", "/assets/ort-9c0d1e2f.wasm"):
        assert served.get(path, headers=GZIP).headers["content-encoding"] == "gzip"
    for path in ("/assets/icon-5e6f7a8b.png", "/small.js", "/v1/model", "/model/unet.onnx"):
        assert "content-encoding" not in served.get(path, headers=GZIP).headers


def test_webassembly_has_the_type_that_browsers_compile_while_it_comes(served):
    assert served.get("/assets/ort-9c0d1e2f.wasm").headers["content-type"] == "application/wasm"


def test_a_part_is_a_part_of_the_file_itself(served):
    part = served.get("/assets/main-1a2b3c4d.js", headers=GZIP | {"Range": "bytes=7-11"})
    assert (part.status_code, part.content) == (206, SCRIPT[7:12]) and "content-encoding" not in part.headers
    whole = served.get("/assets/main-1a2b3c4d.js", headers=GZIP)
    stale = served.get("/assets/main-1a2b3c4d.js", headers={"Range": "bytes=7-11", "If-Range": whole.headers["etag"]})
    assert (stale.status_code, stale.content) == (200, SCRIPT)  # that ETag is of other bytes


def test_a_page_that_was_built_again_is_served_at_once(served, folder):
    before = served.get("/", headers=GZIP)
    (folder / "index.html").write_bytes(INDEX.replace(b"the page", b"THE PAGE"))
    os.utime(folder / "index.html", (1, 1))
    after = served.get("/", headers=GZIP | {"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200 and b"THE PAGE" in after.content
    (folder / "index.html").write_bytes(INDEX)


def test_the_model_is_given_with_its_digest(served):
    told = served.get("/v1/model").json()["file"]
    assert told == {"path": "model/unet.onnx", "sha256": DIGEST, "bytes": len(MODEL)}
    answer = served.get(f"/{told['path']}")
    assert answer.content == MODEL and answer.headers["etag"] == f'"{DIGEST}"'
    assert answer.headers["cache-control"] == "no-cache"
    again = served.get(f"/{told['path']}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", f'"{DIGEST}"')
    for_good = served.get(f"/{told['path']}?digest={DIGEST}")
    assert for_good.content == MODEL and for_good.headers["cache-control"] == "private, max-age=31536000, immutable"
    other = served.get(f"/{told['path']}?digest={'0' * 64}")
    assert other.status_code == 404 and "another digest" in other.json()["error"]["what"]


@pytest.mark.parametrize("size", [0, 1, 65_536, 300_001])
def test_what_many_clients_get_is_sent_in_pieces(size):
    """A slow client holds a piece in memory, and not all of it."""
    content = os.urandom(size)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

    async def ask(scope) -> list[dict]:
        sent = []

        async def send(message):
            sent.append(message)

        await SharedBytes(content)(scope, None, send)
        return sent

    start, *pieces = asyncio.run(ask(scope))
    assert dict(start["headers"])[b"content-length"] == b"%d" % size
    assert b"".join(each["body"] for each in pieces) == content and len(pieces[0]["body"]) <= 65_536
    assert [each.get("more_body", False) for each in pieces] == [True] * (len(pieces) - 1) + [False]
    assert len(asyncio.run(ask(scope | {"state": {"head": True}}))) == 2


@pytest.mark.parametrize("reads", [True, False])
def test_a_client_that_reads_a_large_answer_slowly_is_not_dropped(reads):
    """What it has read is replaced by the next piece, so that as much is unsent at each look."""
    protocol, dropped = TimeoutProtocol.__new__(TimeoutProtocol), []
    protocol.transport = SimpleNamespace(get_write_buffer_size=lambda: 100_000, abort=lambda: dropped.append(True))
    protocol.loop = SimpleNamespace(call_later=lambda seconds, look: SimpleNamespace(cancel=lambda: None))
    protocol.flow = SimpleNamespace(resume_writing=lambda: None)
    protocol.cycle = SimpleNamespace(response_complete=False)
    for _ in range(3):
        protocol._look()
        if reads:
            protocol.resume_writing()
    assert bool(dropped) != reads


def test_a_server_without_the_file_says_so():
    with serving(settings=app.Settings(decoders=0)) as own:
        assert own.get("/model/unet.onnx").status_code == 404
        assert own.get("/v1/model").json()["file"] is None


def test_packing_is_the_same_each_time():
    packed = page._pack(__file__)
    assert packed[4:8] == bytes(4)  # else the seconds at which it was packed
    assert gzip.decompress(packed).startswith(b'"""The files of the page')


def test_a_file_is_packed_once_and_for_those_alone_who_take_it(folder, monkeypatch):
    """The page's largest file takes a second and more, in which 40 first visitors would take 40 threads."""
    packed, original = [], page._pack

    def pack_slowly(path: str) -> bytes:
        packed.append(path)
        time.sleep(0.3)
        return original(path)

    monkeypatch.setattr(page, "_pack", pack_slowly)
    path = "/assets/ort-9c0d1e2f.wasm"
    with serving(settings=app.Settings(page=folder, decoders=0)) as own:
        etag = own.get(path, headers=PLAIN).headers["etag"]
        assert own.get(path, headers=GZIP | {"Range": "bytes=0-9"}).status_code == 206
        asked = own.session.head(own.url + path, headers=GZIP, timeout=30)
        assert (asked.status_code, asked.headers["content-encoding"]) == (200, "gzip")
        known = GZIP | {"If-None-Match": asked.headers["etag"]}
        assert own.get(path, headers=known).status_code == 304 and asked.headers["etag"] != etag
        assert packed == []
        with ThreadPoolExecutor(12) as visitors:
            answers = list(visitors.map(lambda _: requests.get(own.url + path, headers=GZIP, timeout=30), range(12)))
        assert len(packed) == 1 and {answer.content for answer in answers} == {SCRIPT}
        (folder / "assets/ort-9c0d1e2f.wasm").write_bytes(SCRIPT[::-1])
        os.utime(folder / "assets/ort-9c0d1e2f.wasm", (1, 1))
        assert own.get(path, headers=GZIP).content == SCRIPT[::-1] and len(packed) == 2
    (folder / "assets/ort-9c0d1e2f.wasm").write_bytes(SCRIPT)


@pytest.mark.parametrize("path", ["/assets/icon-5e6f7a8b.png", "/assets/main-1a2b3c4d.js", "/"])
def test_head_of_a_file_does_not_read_it(served, monkeypatch, path):
    size = served.get(path, headers=PLAIN).headers["content-length"]

    def refuse(response):
        raise AssertionError("the file is read")

    monkeypatch.setattr(page.FileResponse, "_open_file", refuse)
    asked = served.session.head(served.url + path, headers=PLAIN, timeout=30)
    assert (asked.status_code, asked.headers["content-length"]) == (200, size)
