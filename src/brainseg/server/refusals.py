"""What the server says no with: a status, and the JSON ``{"error": {"code", "what", "fix"}}``."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from brainseg.errors import BrainsegError, DataError, IntegrityError, printable
from brainseg.server.limits import RETRY_AFTER

SHOWN = 5  # problems of one upload that an answer names

_FIX = {404: "see /docs for what is there", 405: "see /docs for what it takes"}


class Refusal(Exception):  # noqa: N818 - an answer, and mostly nobody's fault here
    """An answer other than 200. ``code`` as in ``brainseg.errors``; ``close`` ends the connection as well."""

    def __init__(
        self, status: int, what: str, fix: str, *, code: int = 2, close: bool = False,
        headers: Mapping[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(what)
        self.status, self.what, self.fix, self.code = status, what, fix, code
        self.headers = dict(headers or {}) | ({"Connection": "close"} if close else {})

    def response(self) -> JSONResponse:
        error = {"code": self.code, "what": printable(self.what), "fix": self.fix}
        return JSONResponse({"error": error}, self.status, self.headers)


def busy(what: str = "too many requests are waiting") -> Refusal:
    return Refusal(503, what, f"try again in {RETRY_AFTER} seconds", code=3, headers={"Retry-After": str(RETRY_AFTER)})


def bug() -> Refusal:
    """What nobody foresaw; its text may quote a file, so nothing of it is said."""
    return Refusal(500, "something went wrong in the server", "try again, and report it", code=1)


def of(error: BrainsegError) -> Refusal:
    """An error of the library as an answer: bad files are the client's, all else is the server's."""
    shown = error.problems[:SHOWN]
    what = "; ".join(f"{problem.path}: {problem.what}" for problem in shown)
    if more := len(error.problems) - len(shown):
        what += f"; and {more:,} more"
    status = 422 if isinstance(error, DataError | IntegrityError) else 503
    return Refusal(status, what, shown[0].fix, code=error.code)


def install(app: FastAPI) -> None:
    """Answer every exception in the one form."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refusal)
        return error.response()

    async def faulty(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, BrainsegError)
        return of(error).response()

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        fix = _FIX.get(error.status_code, "see /docs")
        return Refusal(error.status_code, str(error.detail), fix, headers=error.headers).response()

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        """Names the parameter; its value is not repeated."""
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return Refusal(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", "see /docs").response()

    async def gone(_: Request, error: Exception) -> JSONResponse:
        return Refusal(400, "the upload was broken off", "send it again").response()  # nobody hears it

    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        return bug().response()  # and it is raised again, for the log

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(Exception, unforeseen)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(BrainsegError, faulty)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
