"""Who gets in and how: proxies and their prefixes, the token and its cookie, methods, headers."""

import re
import socket
from types import SimpleNamespace
from urllib.parse import parse_qsl, urljoin

import pytest

from brainseg.errors import DataError
from brainseg.server import app, serve
from brainseg.server.layers.proxies import is_prefix
from tests.support.server_fixture import encoded, head, serving

PICTURE = encoded(head())
TOKEN = "secret-token"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PROXIED = {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/seg"}


@pytest.fixture(scope="module")
def served():
    with serving(settings=app.Settings(token=TOKEN, decoders=1)) as running:
        yield running


@pytest.fixture(autouse=True)
def no_cookies(served):
    served.session.cookies.clear()


def login(served, token=TOKEN, **settings):
    return served.session.post(served.url + "/login", {"token": token}, timeout=30, allow_redirects=False, **settings)


@pytest.mark.parametrize("path", ["/", "/docs", "/v1/model"])
def test_behind_a_proxy_the_login_stays_below_its_prefix(served, path):
    moved = served.get(path, params={"token": TOKEN}, headers=PROXIED)
    cookie = moved.headers["set-cookie"]
    assert (moved.status_code, moved.headers["location"]) == (303, "./" + path.rpartition("/")[2])
    assert "Path=/seg/;" in cookie and "Secure" in cookie and "HttpOnly" in cookie
    assert "Path=/seg/;" in login(served, headers=PROXIED).headers["set-cookie"]


def test_a_prefix_is_found_whether_the_proxy_takes_it_off_or_not(served):
    for path in ("/v1/model", "/seg/v1/model", "/seg/docs", "/docs", "/seg/openapi.json"):
        assert served.get(path, headers=PROXIED | BEARER).status_code == 200, path
    assert served.get("/seg/v1/model", headers=BEARER).status_code == 404  # nobody told of a prefix
    document = served.get("/openapi.json", headers=PROXIED | BEARER).json()
    assert document["servers"] == [{"url": "/seg"}]
    assert "servers" not in served.get("/openapi.json", headers=BEARER).json()
    page = served.get("/docs", headers=PROXIED | BEARER).text
    assert "href=docs.css" in page and 'href="openapi.json"' in page  # relative to /seg/docs


def test_the_prefix_alone_leads_to_its_folder(served):
    """Before the token is asked for: as another address the page's links and the cookie would miss the prefix."""
    moved = served.get("/seg", params={"token": TOKEN, "a": "b"}, headers=PROXIED)
    assert (moved.status_code, moved.headers["location"]) == (307, f"/seg/?token={TOKEN}&a=b")
    assert "set-cookie" not in moved.headers and moved.headers["x-request-id"]
    assert served.get("/seg", headers=PROXIED).headers["location"] == "/seg/"
    for open_path in ("/health", "/ready"):
        moved = served.get(open_path, headers={"X-Forwarded-Prefix": open_path})
        assert (moved.status_code, moved.headers["location"]) == (307, f"{open_path}/")
        assert served.get(f"{open_path}/", headers={"X-Forwarded-Prefix": open_path}).status_code == 401
    assert served.get("/health", headers=PROXIED).status_code == 200


def test_a_prefix_may_be_set_where_the_proxy_does_not_tell():
    with serving(settings=app.Settings(token=TOKEN, prefix="/seg", decoders=0)) as own:
        assert "Path=/seg/;" in login(own).headers["set-cookie"]
        assert own.get("/seg/health").status_code == own.get("/health").status_code == 200


@pytest.mark.parametrize("prefix", ["", "/seg", "/seg/"])
def test_the_printed_address_gives_access_below_its_path(prefix):
    with serving(settings=app.Settings(token=TOKEN, prefix=prefix, decoders=0)) as own:
        printed, _, token = serve.address("127.0.0.1", own.port, TOKEN, prefix).partition("#")
        opened = printed.replace("localhost", "127.0.0.1")
        asked = own.session.get(opened, headers=BROWSER, timeout=30)
        action = urljoin(opened, re.search(r"action=(\S+)>", asked.text)[1])  # where the page's script posts the token
        assert own.session.post(action, dict(parse_qsl(token)), timeout=30).status_code == 204
        assert own.session.get(opened, headers=BROWSER, timeout=30).status_code == 200


@pytest.mark.parametrize(
    "told", ["//evil.example", "/a/../b", "/<script>", "https://evil", "seg", "/a b", "/" + "a" * 300]
)
def test_a_prefix_is_the_plain_path_of_a_folder(served, told):
    assert not is_prefix(told)
    assert "Path=" not in login(served, headers={"X-Forwarded-Prefix": told}).headers["set-cookie"]


def test_only_trusted_proxies_are_believed():
    with serving(settings=app.Settings(token=TOKEN, proxies="10.0.0.0/8", decoders=0)) as own:
        cookie = login(own, headers=PROXIED).headers["set-cookie"]
        assert "Secure" not in cookie and "Path=" not in cookie
        assert "servers" not in own.get("/openapi.json", headers=PROXIED | BEARER).json()


def test_which_proxies_are_trusted_is_set_in_the_environment(monkeypatch):
    monkeypatch.delenv("BRAINSEG_TRUSTED_PROXIES", raising=False)
    assert serve.choose_proxies() == "127.0.0.1,::1"
    monkeypatch.setenv("BRAINSEG_TRUSTED_PROXIES", "10.0.0.7, 172.16.0.0/12")
    assert serve.choose_proxies() == "10.0.0.7, 172.16.0.0/12"
    for wrong in ("*", "proxy.example", "10.0.0.0/99"):
        monkeypatch.setenv("BRAINSEG_TRUSTED_PROXIES", wrong)
        with pytest.raises(DataError, match="not an address"):
            serve.choose_proxies()
    with pytest.raises(DataError, match="--root-path"):
        serve.run("127.0.0.1", 0, SimpleNamespace(), "//evil.example")


def test_the_cookie_is_secure_behind_tls_alone(served):
    assert "Secure" not in login(served).headers["set-cookie"]
    assert "Secure" not in login(served, headers={"X-Forwarded-Proto": "http"}).headers["set-cookie"]
    assert "Secure" in login(served, headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]


def test_a_token_becomes_a_cookie_by_post(served):
    wrong = login(served, "another")
    assert wrong.status_code == 401 and wrong.json()["error"]["what"] == "that is not the token"
    assert "set-cookie" not in wrong.headers and served.get("/v1/model").status_code == 401
    right = login(served)
    assert (right.status_code, right.content) == (204, b"") and "HttpOnly" in right.headers["set-cookie"]
    assert TOKEN not in right.headers.get("location", "")
    assert served.get("/v1/model").status_code == 200
    elsewhere = login(served, headers={"Origin": "https://evil.example"})
    assert elsewhere.status_code == 403
    large = served.session.post(served.url + "/login", {"token": "a" * 5000}, timeout=30)
    assert large.status_code == 413


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x; charset=undefined", "application/json", ""])
def test_a_login_is_a_plain_form(served, kind):
    """Who has no token yet meets no other parser."""
    body = b'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\nsecret-token\r\n--x--\r\n'
    refused = served.session.post(served.url + "/login", body, headers={"Content-Type": kind}, timeout=30)
    assert refused.status_code == 415 and "set-cookie" not in refused.headers
    assert "application/x-www-form-urlencoded" in refused.json()["error"]["what"]


@pytest.mark.parametrize("body", [b"token=%ff%00", b"\xff=\xfe", b"token", b"&" * 4000, b"token=secret-token&token=x"])
def test_a_damaged_login_is_no_bug(served, body):
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=undefined"}
    assert served.session.post(served.url + "/login", body, headers=form, timeout=30).status_code == 401
    right = served.session.post(served.url + "/login", b"a=b&token=secret%2Dtoken", headers=form, timeout=30)
    assert right.status_code == 204


def test_a_browser_without_the_token_sees_a_page_that_asks_for_it(served):
    for path, action in (("/", "login"), ("/docs", "login"), ("/v1/model", "../login"), ("/nothing", "login")):
        asked = served.get(path, headers=BROWSER)
        assert (asked.status_code, asked.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert f"<form method=post action={action}>" in asked.text and "Research use only" in asked.text
        assert served.get(path).json()["error"]["what"] == "a token is needed"
    assert "action=/seg/login>" in served.get("/v1/model", headers=BROWSER | PROXIED).text
    assert served.segment(PICTURE, headers=BROWSER).headers["content-type"] == "application/json"
    told = login(served, "<b>", headers=BROWSER)
    assert told.status_code == 401 and "That is not the token." in told.text and "<b>" not in told.text
    opened = login(served, headers=BROWSER)
    assert (opened.status_code, opened.headers["location"]) == (303, "./")
    assert served.get("/", headers=BROWSER).status_code == 200


def test_the_page_that_asks_runs_only_its_own_script(served):
    """The browser refuses what does not fit the policy's digests; test_page runs it in one."""
    import base64
    import hashlib

    asked = served.get("/", headers=BROWSER)
    policy = asked.headers["Content-Security-Policy"]
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", asked.text, re.DOTALL)[1]
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert "unsafe" not in policy and "default-src 'none'" in policy


GETS = "/ /health /ready /metrics /v1/model /v1/examples /v1/examples/phantom-1 /docs /docs.css /openapi.json"


@pytest.mark.parametrize("path", GETS.split())
def test_head_is_answered_as_get_without_a_body(served, path):
    got = served.get(path, headers=BEARER)
    asked = served.session.head(served.url + path, headers=BEARER, timeout=30)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-type"] == got.headers["content-type"]
    if path not in ("/metrics", "/"):  # which changes; which is packed for those who take gzip, and for them alone
        assert asked.headers["content-length"] == got.headers["content-length"]


def test_after_head_the_connection_serves_the_next_request(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        for method in (b"HEAD", b"GET", b"HEAD"):
            connection.sendall(method + b" /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"\r\n\r\n" if method == b"HEAD" else b"}"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("GET", "/v1/segment", "POST"), ("HEAD", "/v1/segment", "POST"), ("PUT", "/v1/segment", "POST"),
    ("POST", "/v1/model", "GET, HEAD"), ("DELETE", "/health", "GET, HEAD"), ("POST", "/docs", "GET, HEAD"),
    ("POST", "/openapi.json", "GET, HEAD"), ("GET", "/login", "POST"), ("POST", "/", "GET, HEAD"),
    ("POST", "/v1/examples/phantom-1", "GET, HEAD"), ("OPTIONS", "/v1/segment", "POST")])  # fmt: skip
def test_a_known_address_tells_which_methods_it_takes(served, method, path, allowed):
    refused = served.session.request(method, served.url + path, headers=BEARER, timeout=30)
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert refused.json()["error"]["fix"] == "see /docs for what it takes"


def test_with_a_page_methods_are_told_as_well(tmp_path):
    """Its files lie under the same addresses as the API."""
    (tmp_path / "index.html").write_text("<title>the page</title>")
    with serving(settings=app.Settings(page=tmp_path, decoders=0)) as own:
        for method, path, allowed in (("GET", "/v1/segment", "POST"), ("POST", "/health", "GET, HEAD"),
                                      ("POST", "/", "GET, HEAD"), ("PUT", "/index.html", "GET, HEAD")):  # fmt: skip
            refused = own.session.request(method, own.url + path, timeout=30)
            assert (refused.status_code, refused.headers["allow"]) == (405, allowed), path
        for method in ("GET", "POST", "DELETE"):
            assert own.session.request(method, own.url + "/nothing", timeout=30).status_code == 404
        assert own.session.head(own.url + "/", timeout=30).status_code == 200


def test_the_page_may_compute_in_threads_and_compile_webassembly(served):
    headers = served.get("/docs", headers=BEARER).headers
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'" and policy["worker-src"] == "'self'"
