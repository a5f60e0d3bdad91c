"""Limits for clients that are slow, send too much, or are too many.

They stay although compose.yaml offers a proxy: ``brainseg serve`` also runs without one, and the proxy (Caddy 2.11) has
neither a lowest rate for uploads nor a limit on the memory of all uploads together.
"""

import asyncio
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from brainseg.server import limits
from brainseg.server.refusals import Refusal, busy


class BodyLimits:
    """ASGI layer that limits the size and the slowness of each upload, and the size of all uploads together.

    Reading the body raises Refusal when a limit is exceeded.
    """

    def __init__(self, app: ASGIApp):
        self.app = app
        self.held = 0  # bytes of all requests in work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        taken, complete, patience = 0, False, limits.SILENT_SECONDS
        declared = _content_length(scope)

        async def bounded() -> Message:
            nonlocal taken, complete, patience
            if complete:  # the body is complete; the only message that can follow is the disconnect
                return await receive()
            if declared is not None and declared > limits.MAX_BODY:
                raise _too_large()
            started = time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, patience))
            except TimeoutError:
                raise Refusal(408, "the upload is too slow", "try again with a faster connection", close=True) from None
            size = len(message.get("body", b""))
            taken += size
            earned = size / limits.SLOWEST  # a fast start allows no more silence than SILENT_SECONDS
            patience = min(limits.SILENT_SECONDS, patience - (time.monotonic() - started) + earned)
            self.held += size
            complete = not message.get("more_body", False)
            if taken > limits.MAX_BODY:
                raise _too_large()
            if self.held > limits.MAX_BODIES:
                raise busy("too many uploads at once")
            return message

        try:
            await self.app(scope, bounded, send)
        finally:
            self.held -= taken


def _too_large() -> Refusal:
    return Refusal(413, f"the upload has more than {limits.MAX_BODY // 2**20} MiB", "crop the volume, or compress it")


def _content_length(scope: Scope) -> int | None:
    text = dict(scope["headers"]).get(b"content-length", b"")
    return int(text) if text.isdigit() else None


MAX_CONNECTIONS = 800  # below the usual limit of 1,024 open files; further connections are dropped


class TimeoutProtocol(H11Protocol):
    """Close a connection that, for ``HEADER_SECONDS``, sends no complete request or reads nothing of its answer.

    This ends slow headers, bytes that still arrive after the answer, and clients that do not read. ``BodyLimits`` ends
    a slow upload.
    """

    timer: asyncio.TimerHandle | None = None
    unsent = 0  # bytes of answers that the client had not read at the last check

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._restart_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """The client has read; of a large answer as much is unsent again when the timer looks."""
        super().resume_writing()
        self.unsent = 0

    def on_response_complete(self) -> None:
        self._restart_timer()
        super().on_response_complete()  # this may start the next request

    def _restart_timer(self) -> None:
        if self.timer:
            self.timer.cancel()
        self.unsent = self.transport.get_write_buffer_size()
        self.timer = self.loop.call_later(limits.HEADER_SECONDS, self._look)

    def _look(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        unsent = self.transport.get_write_buffer_size()
        if unsent >= self.unsent > 0 or not (answering or unsent):
            self.transport.abort()
        else:
            self._restart_timer()
