"""The faults W1 to W10 that the server must survive. The bombs of W2 are in test_bombs."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from PIL import Image

from brainseg import files
from brainseg.errors import IntegrityError, MachineError, RunError
from brainseg.inference.predictor import Predictor
from brainseg.server import app, limits, serve
from tests.support import bombs, onnx_toy, page_server
from tests.support.server_fixture import Model, encoded, head, log_of_everything, serving, soon, status_of

ROOT = Path(__file__).parents[2]
PICTURE = encoded(head())


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """A folder for this server's temporary files alone: other tests write theirs at the same time."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        yield folder


@pytest.fixture(scope="module")
def served(temporary):
    """``sound`` holds the function that tells the server whether its model file is unchanged."""
    sound = [lambda: True]
    with serving(settings=app.Settings(sound=lambda: sound[0]())) as running:
        running.sound = sound
        yield running


def raw(served, *pieces: bytes, seconds: float = 20) -> bytes:
    """What one connection receives until it is closed or has a whole answer header."""
    with served.connect() as connection:
        connection.settimeout(seconds)
        answer = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            while b"\r\n\r\n" not in answer and (data := connection.recv(65536)):
                answer += data
        except (ConnectionError, TimeoutError):
            pass
        return answer


def form(data: bytes, name: bytes = b"a") -> bytes:
    disposition = b'Content-Disposition: form-data; name="file"; filename="' + name + b'"'
    return b"--x\r\n" + disposition + b"\r\n\r\n" + data + b"\r\n--x--\r\n"


def request(body_headers: bytes) -> bytes:
    start = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return start + body_headers + b"\r\n"


def test_w1_uploads_too_large_empty_or_of_many_parts(served, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BODY", 2**20)
    large = form(bytes(2**20))
    cases = {
        "declared": (request(b"Content-Length: 99999999999\r\n"), 413),
        "sent": (request(b"Content-Length: %d\r\n" % len(large)) + large, 413),
        "chunked": (request(b"Transfer-Encoding: chunked\r\n") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large), 413),
        "endless": (request(b"Transfer-Encoding: chunked\r\n") + b"%x\r\n%s\r\n" % (len(large), large), 413),
        "no body": (request(b"Content-Length: 0\r\n"), 400),
        "empty file": (request(b"Content-Length: %d\r\n" % len(form(b""))) + form(b""), 400),
    }
    for name, (sent, expected) in cases.items():
        began = time.monotonic()
        assert status_of(raw(served, sent)) == expected, name
        assert time.monotonic() - began < 1, name
    began = time.monotonic()
    assert served.segment(*[b"a"] * (limits.MAX_PARTS + 1)).status_code == 413
    assert time.monotonic() - began < 1
    assert served.segment(*[("other", b"a")] * 3).status_code == 400
    assert served.segment(PICTURE, PICTURE).status_code == 400  # two pictures are not a series
    assert served.segment(PICTURE).status_code == 200


@pytest.mark.parametrize("charset", [b"undefined", b"idna", b"base64", b"\xe9", b"utf-16"])
def test_w1_a_form_in_any_charset_is_the_clients(served, charset):
    """Some of Python's codecs raise errors that text decoders do not. The fault is the client's: 400."""
    body = form(PICTURE, b"\xff" * 70 + b".png").replace(b'"file"', b'"\xff.' + b"a" * 70 + b'"')
    asked = request(b"Content-Length: %d\r\n" % len(body)).replace(b"boundary=x", b"boundary=x; charset=" + charset)
    assert status_of(raw(served, asked + body)) == 400


def test_w2_what_takes_too_much_memory_or_time_is_ended_and_the_next_file_is_answered(served, monkeypatch):
    """Two files that only the limits of the process stop. The others are in test_bombs."""
    large = bombs.ALL["nifti_as_large_as_a_library_would_take"]()
    answer = served.segment(large)
    assert answer.status_code == 413 and "memory" in answer.json()["error"]["what"]
    monkeypatch.setattr(limits, "DECODE_SECONDS", 0.1)
    began = time.monotonic()
    answer = served.segment(bombs.ALL["tif_whose_pages_are_two_billion_pixels"]())
    assert answer.status_code == 413 and "takes more than 0.1 s" in answer.json()["error"]["what"]
    assert time.monotonic() - began < 1
    monkeypatch.undo()
    assert served.segment(PICTURE).status_code == 200
    assert served.get("/ready").status_code == 200


def test_w3_polyglots_and_other_kinds(served):
    others = {
        "pdf": b"%PDF-1.7\n", "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n", "binary eps": b"\xc5\xd0\xd3\xc6" + bytes(40),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "xml": b"\n <?xml version='1.0'?><svg/>",
        "html": b"<!doctype html>", "gif": b"GIF89a" + bytes(40), "text": b"hello", "webp": b"RIFF\0\0\0\0WEBPVP8 ",
        "npy": b"\x93NUMPY\x01\0" + bytes(100), "pickle": b"\x80\x04\x95" + bytes(40), "elf": b"\x7fELF" + bytes(400),
    }  # fmt: skip
    for name, data in others.items():
        answer = served.segment(data + bytes(2000))
        assert answer.status_code == 415, name
        assert answer.json()["error"]["fix"].startswith("send a PNG")
    mark = bytes(128) + b"DICM"
    for start in (b"MZ", b"%PDF", b"\x89PNG\r\n\x1a\n", b"II*\0", b"PK\x03\x04", b"<html>"):
        assert served.segment(start + mark[len(start) :] + bytes(300)).status_code == 415, start
    script = b"<script>alert(1)</script>%PDF-1.7"
    answer = served.segment(PICTURE + script, headers={"Accept": "image/png"})
    assert answer.status_code == 200  # a picture with a tail is decoded, and the answer is a new picture
    assert script not in answer.content
    assert Image.open(io.BytesIO(answer.content)).format == "PNG"


def test_w4_damaged_and_oversized_volumes(served, monkeypatch):
    nan = bombs.nifti_header(16, 16, 4, kind=np.float32) + np.full(1024, np.nan, np.float32).tobytes()
    whole = bombs.dicom()
    rng = np.random.default_rng(0)
    cases = {
        "nan": nan, "nan, gzipped": gzip.compress(nan), "cut nifti": nan[:800], "cut gzip": gzip.compress(nan)[:60],
        "header alone": nan[:348], "cut dicom": whole[:600], "dicom without pixels": whole[:-8192],
        "dicom of noise": whole[:200] + rng.bytes(2000), "zip of noise": b"PK\x03\x04" + rng.bytes(2000),
        "empty zip": b"PK\x05\x06" + bytes(18), "cut png": PICTURE[:60], "png of noise": PICTURE[:40] + rng.bytes(200),
    }  # fmt: skip
    for name, data in cases.items():
        answer = served.segment(data)
        assert answer.status_code == 422, (name, answer.text)
        assert answer.json()["error"]["code"] in (2, 4)
    monkeypatch.setattr(limits, "MAX_SLICES", 3)
    volume = bombs.nifti_header(16, 16, 4) + bytes(range(256)) * 4
    assert served.segment(volume).status_code == 413
    assert served.segment(encoded(*[head()] * 4, kind="TIFF")).status_code == 413
    assert served.segment(encoded(*[head()] * 3, kind="TIFF")).status_code == 200


def test_an_answer_that_is_no_number_is_refused_with_words_and_the_next_is_answered(served, monkeypatch):
    def broken(voxels, pixel, *, name, **_):
        raise RunError(f"{name}, slice 1 of 1", "the network's answer is not a number", "look at this image")

    with monkeypatch.context() as patch:
        patch.setattr(served.model, "segment", broken)
        answer = served.segment(PICTURE)
    what = "file, slice 1 of 1: the network's answer is not a number"
    assert answer.status_code == 503
    assert answer.json()["error"] == {"code": 5, "what": what, "fix": "look at this image"}
    assert served.segment(PICTURE).status_code == 200


def test_whatever_a_library_raises_the_file_is_refused_and_named(served):
    """Each of these ended the process that decodes."""
    unknown = bombs.dicom().replace(b"\x28\0\x10\0US", b"\x28\0\x10\0ZZ")
    shifted = zipped(("IM1", bombs.dicom()))
    at = shifted.rindex(b"PK\x05\x06") + 16
    shifted[at : at + 4] = (int.from_bytes(shifted[at : at + 4], "little") + 99).to_bytes(4, "little")
    for data in (unknown, bytes(shifted)):
        answer = served.segment(data)
        assert answer.status_code == 422 and "crashed" not in answer.text, answer.text
        assert answer.json()["error"]["what"].startswith("file") and "/dev" not in answer.text


NAMES = [b"../../../../tmp/evil.png", b"/etc/passwd", b"C:\\\\evil.png", b"a\0b.png", b"<img src=x onerror=alert(1)>",
         b"a\r\nSet-Cookie: evil=1", "‮gnp.evil".encode(), "Łukasz Kowalski 1970.png".encode(), b"e" * 5000]  # fmt: skip


def test_w5_names_are_never_paths_and_never_come_back(served, temporary):
    before = set(temporary.rglob("*"))
    for name in NAMES:
        for data in (PICTURE, b"%PDF-1.7", PICTURE[:50]):
            body = form(data, name)
            with log_of_everything() as log, served.connect() as connection:
                connection.sendall(request(b"Connection: close\r\nContent-Length: %d\r\n" % len(body)) + body)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert status_of(answer) in (200, 400, 415, 422), name
            for text in (answer, log.getvalue().encode()):
                assert not [part for part in (b"evil", b"passwd", b"onerror", b"Kowalski", b"eeee") if part in text]
    assert set(temporary.rglob("*")) - before == set()
    assert Path(tempfile.gettempdir()) == temporary and not Path("/tmp/evil.png").exists()
    policy = served.get("/").headers["Content-Security-Policy"]
    assert policy == page_server.POLICY  # test_page runs under the same policy
    assert policy.count("unsafe") == policy.count("'wasm-unsafe-eval'") == 1  # WebAssembly, and no script that is text
    assert "*" not in policy


def test_w6_overload_is_told_to_come_again(served):
    room = limits.AT_ONCE + limits.MAX_WAITING
    served.model.hold.clear()
    answers: list[requests.Response] = []
    ask = lambda: answers.append(requests.post(f"{served.url}/v1/segment", files={"file": PICTURE}, timeout=60))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(room + 5)]
    try:
        for thread in threads:
            thread.start()
        assert soon(lambda: len(answers) == 5)
        began = time.monotonic()
        assert served.get("/health").status_code == 200
        assert time.monotonic() - began < 0.5
        assert {answer.status_code for answer in answers} == {503}
        assert {int(answer.headers["Retry-After"]) for answer in answers} <= set(range(1, 31))
    finally:
        served.model.hold.set()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * room + [503] * 5


def test_w6_a_class_that_comes_at_once_is_answered_without_a_refusal(served):
    """A refused client waits for seconds, in which the server has nothing to do once it has answered the others."""
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(requests.post(f"{served.url}/v1/segment", files={"file": PICTURE}, timeout=60).status_code)

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 64


def test_w6_slow_headers_and_bodies_are_ended(served, monkeypatch):
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.6)
    monkeypatch.setattr(limits, "SILENT_SECONDS", 0.6)
    beginnings = {
        "nothing": b"",
        "header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ",
        "body": request(b"Content-Length: 100000\r\n"),
        "much, then a trickle": request(b"Content-Length: 100000000\r\n") + bytes(2**18),
        "chunks": request(b"Transfer-Encoding: chunked\r\n"),
        "after its answer": b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n",
    }
    for name, start in beginnings.items():
        with served.connect() as connection:
            connection.sendall(start)
            connection.settimeout(0.05)
            began, ended = time.monotonic(), False
            while not ended and time.monotonic() - began < 5:
                try:
                    connection.sendall(b"1\r\n0\r\n" if name == "chunks" else b"a")  # does not keep it open
                    ended = connection.recv(65536) == b""
                except TimeoutError:
                    pass
                except ConnectionError:
                    ended = True
            assert ended, name
    assert served.segment(PICTURE).status_code == 200


def test_w6_who_does_not_read_the_answer_is_ended(served, monkeypatch):
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.6)
    server_side = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    asked = b"GET /v1/examples/phantom-1 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30  # 19 MB, more than buffers hold
    with served.connect() as connection:
        connection.sendall(asked)
        time.sleep(0.3)
        assert soon(lambda: len(os.listdir("/proc/self/fd")) <= server_side + 1, 5) or not server_side
    assert served.segment(PICTURE).status_code == 200


def test_w6_a_client_that_goes_takes_its_job_with_it(served):
    served.model.hold.clear()
    try:
        begun, cancelled = served.model.begun, served.model.cancelled
        with served.connect() as connection:
            connection.sendall(request(b"Content-Length: %d\r\n" % len(form(PICTURE))) + form(PICTURE))
            assert soon(lambda: served.model.begun == begun + 1)
        assert soon(lambda: served.model.cancelled == cancelled + 1, 5)
    finally:
        served.model.hold.set()
    assert served.segment(PICTURE).status_code == 200


def test_w7_a_model_that_is_absent_or_changed(served, tmp_path):
    with pytest.raises(IntegrityError, match="there is no model") as caught:
        Predictor(tmp_path / "unet.onnx")
    assert "make pull" in caught.value.problems[0].fix
    path = tmp_path / "other.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(IntegrityError):
        Predictor(path)
    served.sound[0] = serve.make_unchanged_check(path, files.sha256(path))
    try:
        assert served.get("/ready").status_code == 200
        os.utime(path, (1, 1))  # the same bytes with another date
        assert served.get("/ready").status_code == 200
        path.write_bytes(b"not a modeL")
        answer = served.get("/ready")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, 4)
        path.unlink()
        assert served.get("/ready").status_code == 503
        path.mkdir()  # something that cannot be read as a file
        assert served.get("/ready").status_code == 503
        assert served.get("/health").status_code == 200
    finally:
        served.sound[0] = lambda: True


def test_w7_a_file_that_was_replaced_while_it_was_loaded(tmp_path, monkeypatch):
    """The server is not ready: what answers are other bytes than those that lie there."""
    path, settings = onnx_toy.write(tmp_path / "unet.onnx"), []

    def load(*arguments, **options):
        loaded = Predictor(*arguments, **options)
        path.write_bytes(path.read_bytes() + b"another")
        return loaded

    monkeypatch.setattr(serve, "Predictor", load)
    monkeypatch.setattr(serve, "create_app", lambda *arguments: settings.append(arguments[-1]))
    monkeypatch.setattr(serve, "_start_logging", lambda _: None)
    monkeypatch.setattr(serve.model_card, "parse_facts", lambda *_: None)
    monkeypatch.setattr(serve.model_card, "render_markdown", lambda _: "")
    monkeypatch.setattr(serve, "server_of", lambda _: SimpleNamespace(run=lambda _: None))
    serve.run("127.0.0.1", 0, path)
    assert not settings[0].sound()
    onnx_toy.write(path)  # the bytes that were loaded, again
    assert settings[0].sound()


def test_w7_without_a_model_nothing_starts(tmp_path):
    with pytest.raises(IntegrityError, match="there is no model"):
        serve.run("127.0.0.1", 0, tmp_path / "none.onnx")


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


@pytest.fixture
def process(tmp_path):
    """A function that starts a server in its own process. Its model takes ``seconds`` for every request."""
    running: list[subprocess.Popen] = []

    def start(seconds: float):
        command = [sys.executable, "-m", "tests.support.server_process", str(seconds)]
        running.append(subprocess.Popen(command, env=environment() | {"DVC_ROOT": str(tmp_path)}, cwd=ROOT,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))  # fmt: skip
        return running[-1], running[-1].stdout.readline().strip()

    yield start
    for each in running:
        each.kill()
        each.communicate()


@pytest.mark.parametrize(("seconds", "status"), [(2, 200), pytest.param(60, 503, marks=pytest.mark.slow)])
def test_w8_what_is_in_flight_is_drained_within_ten_seconds(process, seconds, status):
    running, address = process(seconds)
    answers = []

    def ask():
        try:
            answers.append(requests.post(address + "v1/segment", files={"file": PICTURE}, timeout=60).status_code)
        except requests.ConnectionError:
            answers.append(0)

    requests.post(address + "v1/segment", files={"file": b"%PDF"}, timeout=60)
    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(1)
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    running.wait(30)
    assert time.monotonic() - began < 10
    thread.join()
    assert answers == [status]
    assert "Traceback" not in running.stderr.read()


def test_w9_other_pages_hosts_and_frames(served):
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
                    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):  # fmt: skip
        assert served.segment(PICTURE, headers=headers).status_code == 403, headers
    own = {"Origin": served.url, "Sec-Fetch-Site": "same-origin"}
    assert served.segment(PICTURE, headers=own).status_code == 200
    for host in (
        "evil.example",
        "localhost.evil.example",
        "evil.example:5000",
        "127.0.0.1.evil",
        "",
        "[::1",
        "a@localhost",
    ):
        assert served.get("/", headers={"Host": host}).status_code == 400, host
    for host in ("localhost", "LOCALHOST:5000", "127.0.0.1", "[::1]:5000"):
        assert served.get("/", headers={"Host": host}).status_code == 200, host
    for path in ("/", "/docs", "/v1/model", "/nothing", "/v1/examples/phantom-1"):
        headers = served.get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "server" not in headers


PLANTED = {
    "PatientName": "ZQKOWALSKI^ZQLUKASZ", "PatientID": "ZQ-4711-0815", "PatientBirthDate": "19700102",
    "PatientAddress": "ZQ Hauptstrasse 1", "PatientTelephoneNumbers": "ZQ+49301234", "OtherPatientIDs": "ZQ-OTHER",
    "PatientMotherBirthName": "ZQMEIER", "PatientComments": "ZQ comment", "ReferringPhysicianName": "ZQHOUSE^GREG",
    "PerformingPhysicianName": "ZQWILSON", "OperatorsName": "ZQCAMERON", "InstitutionName": "ZQ Charite",
    "InstitutionAddress": "ZQ Platz 7", "StudyDate": "19991231", "AcquisitionDate": "19991230", "StudyTime": "235911",
    "AccessionNumber": "ZQ-ACC-1", "StationName": "ZQSTATION",
}  # fmt: skip
TOKENS = [text for value in PLANTED.values() for text in value.split("^")]


def test_w10_nothing_is_kept_and_nothing_personal_is_said(served, capfd):
    assert len(PLANTED) == 18
    files = [bombs.dicom(ImagePositionPatient=[0, 0, 5 * n], PixelData=pixels(n), **PLANTED) for n in range(4)]
    places = {app.spool_path().parent, Path(tempfile.gettempdir())}
    assert all(token.encode() in files[0] for token in TOKENS)
    said: list[bytes] = []
    with log_of_everything() as log:
        for accept in ("application/json", "image/png", "application/x-nifti"):
            answer = served.segment(*files, headers={"Accept": accept}, query="?volumes=true")
            assert answer.status_code == 200, answer.text
            said += [repr(answer.headers).encode(), *opened(answer)]
        for bad in damaged(files):
            answer = served.segment(*bad)
            assert answer.status_code == 422
            said += [repr(answer.headers).encode(), answer.content]
        left = [path for place in places for path in place.glob(f".brainseg.{os.getpid()}.*/*")]
    printed = "".join(capfd.readouterr())
    said += [log.getvalue().encode(), printed.encode()]
    assert "POST /v1/segment 422" in log.getvalue()
    assert left == []
    assert [(token, text[:200]) for token in TOKENS for text in said if token.encode() in text] == []


def damaged(files: list[bytes]) -> list[list[bytes]]:
    """Series that are refused, with the same personal data."""
    unknown = files[0].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.1\0")
    burned, smaller = PLANTED | {"BurnedInAnnotation": "YES"}, PLANTED | {"Rows": 32, "PixelData": bytes(4096)}
    return [[files[0], files[0][:-2] + b"\7\0"], [files[0][:-10]], [files[0][:700]], [unknown],
            [*files, bombs.dicom(**burned)], [*files, bombs.dicom(**smaller)]]  # fmt: skip


def zipped(*members: tuple[str, bytes]) -> bytearray:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # about duplicate names
        for name, data in members:
            archive.writestr(name, data)
    return bytearray(buffer.getvalue())


def test_w10_names_in_a_zip_are_not_said_either(served):
    """The zip library's own messages quote the names of files."""
    slice_ = bombs.dicom()
    twice = zipped(("Kowalski/IM1", slice_), ("kowalski/im1", slice_))
    damaged_ = zipped(("Kowalski/IM1", slice_))
    damaged_[200] ^= 0xFF  # a byte of the member: the checksum is wrong
    other_name = zipped(("Kowalski/IM1", slice_))
    other_name[30] ^= 0x20  # the name before the member is not that of the directory
    overlap = zipped(("Kowalski/IM1", slice_), ("Kowalski/IM2", slice_))
    second = overlap.rindex(b"PK\x01\x02")
    overlap[second + 42 : second + 46] = bytes(4)  # both members start at the first byte
    for data in (twice, damaged_, other_name, overlap):
        answer = served.segment(bytes(data))
        assert answer.status_code == 422
        assert "kowalski" not in answer.text.lower() and "/IM" not in answer.text, answer.text


def pixels(n: int) -> bytes:
    return (head().astype("<u2") * (4 + n)).tobytes()


def opened(answer: requests.Response) -> list[bytes]:
    """The bytes of an answer, and what is compressed inside."""
    kind = answer.headers["content-type"]
    if kind == "application/x-nifti":
        return [answer.content, gzip.decompress(answer.content)]
    if kind == "application/json":
        import base64

        packed = [base64.b64decode(text) for text in json.loads(answer.content)["volumes"].values()]
        return [answer.content, *(gzip.decompress(each) for each in packed)]
    return [answer.content, np.asarray(Image.open(io.BytesIO(answer.content))).tobytes()]


def test_a_bug_is_answered_in_the_form_of_every_refusal_and_says_nothing_of_the_file():
    def broken(_):
        raise ValueError("ZQKOWALSKI")

    with log_of_everything() as log, serving(judge=broken, settings=app.Settings(decoders=1)) as own:
        answer = own.segment(PICTURE)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == 1
    assert "bug: ValueError at " in log.getvalue() and "ZQKOWALSKI" not in log.getvalue() + answer.text


def test_a_taken_port_is_named():
    with serve.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"port {port}: is taken") as caught:
            serve.listen("127.0.0.1", port)
    assert f"--port {port + 1}" in caught.value.problems[0].fix


def test_model_answers_as_the_predictor_does():
    """The fake model of these tests and the real one have the methods that the server needs."""
    assert all(callable(getattr(each, name)) for each in (Model, Predictor) for name in ("prepared", "segment"))
