"""The token: who has it, the cookie that keeps it, and the plain page that asks a browser for it."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from html import escape
from urllib.parse import parse_qsl, quote, urlencode

from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.requests import cookie_parser
from starlette.types import Scope

from brainseg.inference.answers.overlays import DISCLAIMER
from brainseg.server.layers.proxies import route_path
from brainseg.server.refusals import Refusal

COOKIE = "brainseg_token"
LOGIN = "/login"
OPEN_PATHS = ("/health", "/ready")  # for a container's health check, which has no token
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
WRONG = "That is not the token."
NEED_TOKEN = "open the address that the server printed when it started, or send Authorization: Bearer <token>"

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 32rem; margin: 12vh auto; padding: 0 1rem; }
input, button { font: inherit; padding: .4rem .6rem; }
input { width: 100%; box-sizing: border-box; margin: .3rem 0 .8rem; }
"""
# The part of an address after # stays in the browser: no log on the way holds it. So a script has to send it.
_SCRIPT = """
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", location.pathname + location.search);
  fetch(document.forms[0].action, { method: "POST", body: new URLSearchParams({ token: given }) }).then((answer) => {
    if (answer.ok) location.reload();
    else document.getElementById("told").textContent = "The token in the address is not this server's.";
  });
}
"""


def _hash_source(text: str) -> str:
    """What a Content-Security-Policy calls an inline style or script of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src {_hash_source(_STYLE)}; "
    f"script-src {_hash_source(_SCRIPT)}; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser sends the form with "Origin: null"
    "WWW-Authenticate": "Bearer",
    "Vary": "Accept, Cookie",
}


class TokenCheck:
    """Whether a request has the token. Without a token every request passes."""

    def __init__(self, token: str | None):
        self.token = token

    def answer(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        """None if the request may pass; else a redirect without the token, or the page that asks for it.

        Raises:
            Refusal: what no browser shows to a person, without the token.
        """
        path = route_path(scope)
        if not self.token or path in OPEN_PATHS or (path == LOGIN and scope["method"] == "POST"):
            return None
        if (moved := self._move_from_address(scope, path)) is not None:
            return moved
        if self._is_in(headers):
            return None
        if wants_page(headers) and scope["method"] in SAFE_METHODS:
            return ask_for_token(_find_login(scope, path))
        raise Refusal(
            401, "a token is needed", NEED_TOKEN, headers={"WWW-Authenticate": "Bearer", "Vary": "Accept, Cookie"}
        )

    def is_right(self, given: str) -> bool:
        return not self.token or secrets.compare_digest(given.encode(), self.token.encode())

    def remember(self, response: Response, scope: Scope) -> None:
        """Let the browser keep the token where scripts cannot read it.

        Not "strict": after a click in web mail or chat, a browser would not send the cookie with the next request.
        Only POST computes anything, and "lax" restricts POST to our own page too.
        """
        if self.token:
            prefix = scope.get("root_path", "")
            path = f"{prefix}/" if prefix else None  # None: the folder of the address as the browser knows it
            secure = scope.get("scheme") == "https"
            response.set_cookie(COOKIE, self.token, path=path, secure=secure, httponly=True, samesite="lax")

    def _move_from_address(self, scope: Scope, path: str) -> Response | None:
        """A redirect to the same address without ``?token=``, if that is right; the cookie has it from there on."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is None or scope["method"] not in SAFE_METHODS or not self.is_right(given):
            return None
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        # Relative: a proxy may have taken a path off its front. Only the last part of the address is given back, as
        # //name would lead to another server.
        answer = RedirectResponse("./" + quote(path.rpartition("/")[2]) + (f"?{rest}" if rest else ""), 303)
        self.remember(answer, scope)
        return answer

    def _is_in(self, headers: Mapping[str, str]) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_right(bearer.strip()):
            return True
        return any(self.is_right(each) for each in _read_cookies(headers))


def wants_page(headers: Mapping[str, str]) -> bool:
    """Whether a browser asks for something to show, and not a program."""
    return "text/html" in headers.get("accept", "")


def ask_for_token(action: str, told: str = "") -> HTMLResponse:
    """A page with one field. ``action``: the address of the login. ``told``: what was wrong with the last try."""
    return HTMLResponse(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>brainseg: token needed</title>"
        f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style></head><body><main>'
        "<h1>brainseg</h1><p>This server asks for its token. It printed an address with the token when it started: "
        f"open that, or paste the token here.</p><form method=post action={action}>"
        "<label for=token>Token</label><input id=token name=token type=password autocomplete=off required autofocus>"
        f"<button>Open</button> <span id=told role=alert>{escape(told)}</span></form>"
        f"<p><small>{escape(DISCLAIMER)}</small></p></main><script>{_SCRIPT}</script></body></html>",
        401,
        _PAGE_HEADERS,
    )


def _find_login(scope: Scope, path: str) -> str:
    """The address of the login, as seen from ``path``: relative where nobody told the prefix."""
    prefix = scope.get("root_path", "")
    return f"{prefix}{LOGIN}" if prefix else "../" * (path.count("/") - 1) + LOGIN.lstrip("/")


def _read_cookies(headers: Mapping[str, str]) -> list[str]:
    """Our cookies: a browser sends one for each path of this address that gave it one, and those of an earlier start.

    It also sends those of every other program on localhost; some hold JSON.
    """
    parsed = [cookie_parser(each) for each in headers.get("cookie", "").split(";")]
    return [each[COOKIE] for each in parsed if COOKIE in each]
