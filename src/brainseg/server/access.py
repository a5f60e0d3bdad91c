"""Access control: allowed hosts and origins, the token, security headers, the log.

The log holds the method, the route, the status, milliseconds and bytes. It holds nothing that a client sent: no file
names, and no query strings, because a token may be in them.
"""

import asyncio
import logging
import re
import secrets
import time
import traceback
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, quote, urlencode

from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brainseg.server.refusals import Refusal, bug

COOKIE = "brainseg_token"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
OPEN_PATHS = ("/health", "/ready")  # for a container's health check, which has no token
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_HOST = re.compile(r"(\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[a-zA-Z0-9._-]+))(:[0-9]{0,5})?")

log = logging.getLogger("brainseg.server")


class Guard:
    """The outermost ASGI layer. It refuses requests, adds headers, logs, and lets no traceback out."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = LOCAL_HOSTS, token: str | None = None):
        self.app, self.hosts, self.token = app, {host.lower() for host in hosts}, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        started, status, sent = time.perf_counter(), 0, 0

        async def send_and_note(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            sent += len(message.get("body", b""))
            await send(message)

        try:
            answer = self._check_request(scope)
            await (answer or self.app)(scope, receive, send_and_note)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send_and_note)
        except asyncio.CancelledError:  # the server stops before this request is done
            if not status:
                stopped = Refusal(503, "the server is being stopped", "try again", code=5, close=True)
                await stopped.response()(scope, receive, send_and_note)
        except Exception as error:  # a bug; its text may quote a file, so only type and place are logged
            where = traceback.extract_tb(error.__traceback__)[-1]
            log.error("bug: %s at %s:%s", type(error).__name__, where.filename, where.lineno)
            if not status:
                await bug().response()(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "") or "(other)"
            milliseconds = 1000 * (time.perf_counter() - started)
            log.info("%s %s %d %.0f ms %d bytes", _logged_method(scope), route, status, milliseconds, sent)

    def _check_request(self, scope: Scope) -> Response | None:
        """None, or a redirect to the same address without the token.

        Raises:
            Refusal: the host, the origin or the client is not allowed.
        """
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or _host_name(host) not in self.hosts:
            fix = "open it as localhost, or add the name to BRAINSEG_ALLOWED_HOSTS where the server is started"
            raise Refusal(400, "the Host header names another server", fix)
        if scope["method"] not in SAFE_METHODS and not _is_same_origin(headers, host):
            raise Refusal(403, "the request comes from another web page", "use the server's own page")
        if self.token and scope["path"] not in OPEN_PATHS:
            return self._check_token(scope, headers, self.token)
        return None

    def _check_token(self, scope: Scope, headers: Mapping[str, str], token: str) -> Response | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and scope["method"] in SAFE_METHODS and _equal(given, token):
            rest = urlencode([(key, value) for key, value in query if key != "token"])
            # Relative, and at the top a cookie for that folder: a proxy may have taken a path off its front. Only the
            # last part of the address is given back, as //name would lead to another server.
            folder, _, name = scope["path"].rpartition("/")
            answer = RedirectResponse("./" + quote(name) + (f"?{rest}" if rest else ""), 303)
            # Not "strict": after a click in web mail or chat, a browser would not send the cookie with this redirect.
            # Only POST computes anything, and "lax" restricts POST to our own page too.
            answer.set_cookie(COOKIE, token, path="/" if folder else None, httponly=True, samesite="lax")
            return answer
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        cookies = _token_cookies(headers)
        if any(_equal(each, token) for each in cookies) or (
            scheme.lower() == "bearer" and _equal(bearer.strip(), token)
        ):
            return None
        fix = "open the address that the server printed when it started, or send Authorization: Bearer <token>"
        raise Refusal(401, "a token is needed", fix, headers={"WWW-Authenticate": "Bearer"})


def _logged_method(scope: Scope) -> str:
    known = (*SAFE_METHODS, "POST", "PUT", "PATCH", "DELETE")
    return scope["method"] if scope["method"] in known else "(other)"


def _host_name(host: str) -> str:
    """The host without its port: ``::1`` for ``[::1]:5000``. Empty if it is not a valid host."""
    found = _HOST.fullmatch(host)
    return (found["address"] or found["name"]).lower() if found else ""


def _is_same_origin(headers: Mapping[str, str], host: str) -> bool:
    """Whether our own page sent this. Programs other than browsers send no such headers; no web page controls them."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin.split("://", 1)[-1].lower() == host.lower()


def _token_cookies(headers: Mapping[str, str]) -> list[str]:
    """Our cookies: a browser sends one for each path of this address that gave it one, and those of an earlier start.

    It also sends those of every other program on localhost; some hold JSON.
    """
    parsed = [cookie_parser(each) for each in headers.get("cookie", "").split(";")]
    return [each[COOKIE] for each in parsed if COOKIE in each]


def _equal(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())
