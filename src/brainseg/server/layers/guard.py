"""Access control: allowed hosts and origins, the token, security headers; and no traceback gets out."""

import asyncio
import logging
import re
import traceback
from collections.abc import Iterable, Mapping

from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brainseg.server.layers.token import SAFE_METHODS, TokenCheck
from brainseg.server.refusals import Refusal, bug

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
# 'wasm-unsafe-eval' lets the page compile WebAssembly, the model's runtime, and nothing else: eval stays forbidden.
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "worker-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",  # with the next one: the page may compute in several threads
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

_HOST = re.compile(r"(\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[a-zA-Z0-9._-]+))(:[0-9]{0,5})?")

log = logging.getLogger("brainseg.server")


class Guard:
    """Refuses requests, adds the headers that an answer does not have of its own, and answers what was raised."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = LOCAL_HOSTS, check: TokenCheck | None = None):
        self.app, self.hosts, self.check = app, {host.lower() for host in hosts}, check or TokenCheck(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            answer = self._check_request(scope)
            await (answer or self.app)(scope, receive, send_with_headers)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server stops before this request is done
            if not started:
                stopped = Refusal(503, "the server is being stopped", "try again", code=5, close=True)
                await stopped.response()(scope, receive, send_with_headers)
        except Exception as error:  # a bug; its text may quote a file, so only type and place are logged
            where = traceback.extract_tb(error.__traceback__)[-1]
            log.error("bug: %s at %s:%s", type(error).__name__, where.filename, where.lineno)
            if not started:
                await bug().response()(scope, receive, send_with_headers)

    def _check_request(self, scope: Scope) -> Response | None:
        """None, or the answer of ``TokenCheck``.

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
        return self.check.answer(scope, headers)


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
