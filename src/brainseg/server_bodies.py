"""Uploads, as they come in: none larger, slower or more at once than ``server_limits`` says."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brainseg import server_limits
from brainseg.server_refusals import Refusal, busy


class Bodies:
    """ASGI: bounds every upload, by its declared length and by what comes; all of them together; and slow ones.

    What goes over a bound is raised where the body is read, as Refusal.
    """

    def __init__(self, app: ASGIApp):
        self.app = app
        self.held = 0  # bytes of all requests now in work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        taken, complete, patience = 0, False, server_limits.SILENT_SECONDS
        declared = _content_length(scope)

        async def bounded() -> Message:
            nonlocal taken, complete, patience
            if complete:  # what still comes is that the client has gone
                return await receive()
            if declared is not None and declared > server_limits.MAX_BODY:
                raise _too_large()
            began = time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, patience))
            except TimeoutError:
                raise Refusal(408, "the upload is too slow", "try again on a faster line", close=True) from None
            size = len(message.get("body", b""))
            taken += size
            earned = size / server_limits.SLOWEST  # what came fast buys no silence beyond SILENT_SECONDS
            patience = min(server_limits.SILENT_SECONDS, patience - (time.monotonic() - began) + earned)
            self.held += size
            complete = not message.get("more_body", False)
            if taken > server_limits.MAX_BODY:
                raise _too_large()
            if self.held > server_limits.MAX_BODIES:
                raise busy("too many uploads at once")
            return message

        try:
            await self.app(scope, bounded, send)
        finally:
            self.held -= taken


def _too_large() -> Refusal:
    return Refusal(
        413, f"the upload has more than {server_limits.MAX_BODY // 2**20} MiB", "crop the volume, or compress it"
    )


def _content_length(scope: Scope) -> int | None:
    text = dict(scope["headers"]).get(b"content-length", b"")
    return int(text) if text.isdigit() else None
