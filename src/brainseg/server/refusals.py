"""Refusals: a status, and the JSON ``{"error": {"code", "what", "fix"}}``."""

import random
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from brainseg.errors import BrainsegError, DataError, IntegrityError, printable
from brainseg.server.limits import RETRY_AFTER

MAX_SHOWN = 5  # problems that one answer lists

_FIX = {404: "see /docs for what is there", 405: "see /docs for what it takes"}
_CLIENT_LEFT = 499  # as nginx calls it; nobody receives this answer, the log and the metrics have it


class Refusal(Exception):  # noqa: N818 - it is an answer rather than an error
    """An answer other than 200. ``code`` is one of ``brainseg.errors``; ``close`` also ends the connection."""

    def __init__(
        self, status: int, what: str, fix: str, *, code: int = 2, close: bool = False,
        headers: Mapping[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(what)
        self.status, self.what, self.fix, self.code = status, what, fix, code
        self.headers = dict(headers or {}) | ({"Connection": "close"} if close else {})

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "what": printable(self.what), "fix": self.fix}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def busy(what: str = "too many requests are waiting", clear_in: float = 2.0) -> Refusal:
    """Tell a client to come again within ``clear_in`` seconds, in which those that wait are done.

    Each is told another time. Clients that all come back at the same moment are refused again, and in between the
    server has nothing to do.
    """
    seconds = 1 + int(random.random() * min(clear_in, RETRY_AFTER))
    words = "1 second" if seconds == 1 else f"{seconds} seconds"
    return Refusal(503, what, f"try again in {words}", code=3, headers={"Retry-After": str(seconds)})


def client_left() -> Refusal:
    """For the log: the client did not wait for the answer, which is no fault of the server."""
    return Refusal(_CLIENT_LEFT, "the client has disconnected", "send it again")


def bug() -> Refusal:
    """The answer to an unexpected exception. Its text may quote a file, so the answer repeats none of it."""
    return Refusal(500, "something went wrong in the server", "try again, and report it", code=1)


def from_error(error: BrainsegError) -> Refusal:
    """A refusal for an error of the library: 422 for a faulty file, else 503."""
    shown = error.problems[:MAX_SHOWN]
    what = "; ".join(f"{problem.path}: {problem.what}" for problem in shown)
    if more := len(error.problems) - len(shown):
        what += f"; and {more:,} more"
    status = 422 if isinstance(error, DataError | IntegrityError) else 503
    return Refusal(status, what, shown[0].fix, code=error.code)


def install_handlers(app: FastAPI) -> None:
    """Answer every exception in the same form."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refusal)
        return error.response()

    async def faulty(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, BrainsegError)
        return from_error(error).response()

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        fix = _FIX.get(error.status_code, "see /docs")
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _find_methods(request)):
            headers = {"Allow": methods}
        return Refusal(error.status_code, str(error.detail), fix, headers=headers).response()

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        """Name the parameter, but do not repeat its value."""
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return Refusal(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", "see /docs").response()

    async def gone(_: Request, error: Exception) -> JSONResponse:
        return client_left().response()

    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        return bug().response()  # Starlette raises the error again, and Guard logs it

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(Exception, unforeseen)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(BrainsegError, faulty)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


def _find_methods(request: Request) -> str:
    """What the address takes, of all routes that have it: Starlette names those of the first. Empty if none has it."""
    found = {
        method
        for route in request.app.routes
        if route.matches(request.scope)[0] != Match.NONE
        for method in getattr(route, "methods", None) or ()
    }
    return ", ".join(sorted(found | ({"HEAD"} if "GET" in found else set())))
