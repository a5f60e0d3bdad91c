"""Bytes that many requests share, sent in pieces."""

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from brainseg.server.layers.head import is_head

PIECE = 64 * 2**10  # bytes


class SharedBytes(Response):
    """As Response, of which the connection keeps a whole copy for each client that reads slowly."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, 0 if is_head(scope) else len(self.body), PIECE):
            piece = bytes(self.body[start : start + PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
