"""What a proxy in front says of a request: whether it came by https, and the path that the server has there."""

import ipaddress
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

LOOPBACK = "127.0.0.1,::1"
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
_LONGEST = 200  # characters of a prefix


class Proxies(ProxyHeadersMiddleware):
    """uvicorn's layer for X-Forwarded-Proto and X-Forwarded-For, and X-Forwarded-Prefix: from trusted proxies alone.

    The prefix becomes ASGI's ``root_path``, by which routes are found whether the proxy takes it off or not. The prefix
    alone, ``/seg``, leads to ``/seg/``: the page's addresses and the cookie's path are those of the folder.
    """

    def __init__(self, app: ASGIApp, trusted: str = LOOPBACK, prefix: str = ""):
        """``trusted``: addresses and networks, separated by commas. ``prefix``: where no proxy names one."""
        super().__init__(app, trusted)  # type: ignore[arg-type]
        self.prefix = prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        if scope["type"] == "http":
            prefix = scope["root_path"] = self._read_prefix(scope)
            if prefix and scope["path"] == prefix:
                query = scope["query_string"].decode("latin-1")
                moved = RedirectResponse(f"{prefix}/" + (f"?{query}" if query else ""))
                await moved(scope, receive, send)
                return
        await super().__call__(scope, receive, send)  # type: ignore[arg-type]

    def _read_prefix(self, scope: Scope) -> str:
        client: tuple[str, Any] | None = scope.get("client")
        told = Headers(scope=scope).get("x-forwarded-prefix", "").strip()
        if told and client and client[0] in self.trusted_hosts and is_prefix(told):
            return told.rstrip("/")
        return self.prefix


def route_path(scope: Scope) -> str:
    """The path within the server: without the prefix, which a proxy may have left on it.

    As Starlette finds routes. Of the prefix alone the two would differ; ``Proxies`` answers that.
    """
    path: str = scope["path"]
    prefix = scope.get("root_path", "")
    return path[len(prefix) :] if path.startswith(f"{prefix}/") else path


def is_prefix(text: str) -> bool:
    """Whether this is the plain path of a folder, such as ``/brainseg``; not ``//name``, which is another server."""
    return len(text) <= _LONGEST and _PREFIX.fullmatch(text) is not None and not {".", ".."} & set(text.split("/"))


def is_trustable(text: str) -> bool:
    """Whether this is a list of addresses and networks, as ``trusted`` of Proxies."""
    try:
        return all(ipaddress.ip_network(each.strip()) for each in text.split(","))
    except ValueError:
        return False
