"""HTTP as uvicorn speaks it, with an end to patience: uvicorn itself waits for a slow client for ever."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from brainseg import server_limits

MAX_CONNECTIONS = 800  # below the usual limit of 1,024 open files; at more than that the newest is dropped


class PatientProtocol(H11Protocol):
    """Ends a connection that for ``HEADER_SECONDS`` has neither a request to answer nor takes more of its answer.

    That ends slow headers, bytes that still trickle in after their answer, and clients that do not read. A body that
    comes slowly is ended by ``server_limits.Bodies``.
    """

    timer: asyncio.TimerHandle | None = None
    unsent = 0  # bytes of answers that the client had not taken when it was last looked at

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._watch()
        super().on_response_complete()  # which may begin the next request

    def _watch(self) -> None:
        if self.timer:
            self.timer.cancel()
        self.unsent = self.transport.get_write_buffer_size()
        self.timer = self.loop.call_later(server_limits.HEADER_SECONDS, self._look)

    def _look(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        unsent = self.transport.get_write_buffer_size()
        if unsent >= self.unsent > 0 or not (answering or unsent):
            self.transport.abort()
        else:
            self._watch()
