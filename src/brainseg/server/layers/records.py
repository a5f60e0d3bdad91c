"""What is kept of a request: an id, a line in the log, and counts for Prometheus.

The line has the method, the route, the status, milliseconds, bytes and the id. It holds nothing else that a client
sent: no file names, and no query strings, because a token may be in them. An id that a client chose is in it: programs
find their own requests by it.
"""

import json
import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brainseg.server.layers.metrics import Metrics
from brainseg.server.layers.token import SAFE_METHODS

HEADER = "X-Request-ID"
LINE = "%(method)s %(route)s %(status)d %(milliseconds)d ms %(bytes_out)d bytes %(request_id)s"
POLLED = "/v1/progress/"  # asked twice a second by each client that waits: counted, and not logged
_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

log = logging.getLogger("brainseg.server")


class Records:
    """The layer around all that can answer a request."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, received, sent = time.perf_counter(), 0, 0, 0
        identity = scope.setdefault("state", {})["request_id"] = _choose_id(scope)

        async def receive_and_count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = identity
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive_and_count, send_and_note)
        finally:
            seconds = time.perf_counter() - started
            method, route = _name_method(scope), getattr(scope.get("route"), "path", "") or "(other)"
            self.metrics.count(method, route, status, seconds, received, sent)
            line = {"method": method, "route": route, "status": status, "milliseconds": round(1000 * seconds),
                    "bytes_in": received, "bytes_out": sent, "request_id": identity}  # fmt: skip
            level = logging.DEBUG if route.startswith(POLLED) else logging.INFO
            log.log(level, LINE, line)


class JsonLines(logging.Formatter):
    """A JSON object in each line; those of requests with their values apart."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
        told: dict[str, Any] = {"time": when, "level": record.levelname.lower()}
        values = record.args if isinstance(record.args, dict) else {"message": record.getMessage()}
        return json.dumps(told | values)


def _choose_id(scope: Scope) -> str:
    """The id that the client gave, if it is a plain one; else a new one."""
    given = Headers(scope=scope).get(HEADER, "")
    return given if _ID.fullmatch(given) else secrets.token_hex(8)


def _name_method(scope: Scope) -> str:
    known = (*SAFE_METHODS, "POST", "PUT", "PATCH", "DELETE")
    return scope["method"] if scope["method"] in known else "(other)"
