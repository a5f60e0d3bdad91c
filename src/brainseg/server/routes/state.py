"""How the server is: /health, /ready, /metrics; and /login, which gives a browser access to it."""

from collections.abc import Callable
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from brainseg.server.layers.metrics import Metrics
from brainseg.server.layers.token import LOGIN, WRONG, TokenCheck, ask_for_token, wants_page
from brainseg.server.refusals import Refusal
from brainseg.server.schema import answers, document

FORM = "application/x-www-form-urlencoded"
_LONGEST_FORM = 4096  # bytes; a token is much shorter


def _changed_model() -> Refusal:
    return Refusal(503, "the model's file is gone or has changed", "restart the server", code=4)


def _wrong_token() -> Refusal:
    return Refusal(401, "that is not the token", "see what the server printed when it started")


def _large_form() -> Refusal:
    what = "the form is too large, or does not say how large it is"
    return Refusal(413, what, "send token=... alone", close=True)


def _other_form() -> Refusal:
    return Refusal(415, f"the request is not {FORM}", "send token=... as curl -d does")


def add(app: FastAPI, sound: Callable[[], bool], metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> answers.Status:
        """Whether the server runs."""
        return answers.Status(status="ok")

    @app.get("/ready", responses=document.refusals(_changed_model()))
    def ready() -> answers.Status:
        """Whether the server can answer: its model file is the one that was loaded, and decoding works."""
        if not sound():
            raise _changed_model()
        if not app.state.decoders.alive:
            raise Refusal(503, "decoding does not work any more", "restart the server", code=3)
        return answers.Status(status="ready")

    @app.get(
        "/metrics", response_class=PlainTextResponse,
        responses={200: {"description": "counts", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )  # fmt: skip
    async def show_metrics() -> Response:
        """Requests, seconds, bytes, slices, the queue, memory: for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def add_login(app: FastAPI, check: TokenCheck) -> None:
    @app.post(
        LOGIN, status_code=204, response_class=Response, openapi_extra=document.LOGIN_FORM,
        responses={
            204: {"description": "the cookie is set"},
            303: {"description": "the same, for a browser that sent a form: to the page"},
            **document.refusals(_wrong_token(), _large_form(), _other_form()),
        },
    )  # fmt: skip
    async def login(request: Request) -> Response:
        """Change the token into a cookie that scripts cannot read."""
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > _LONGEST_FORM:
            raise _large_form()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != FORM:
            raise _other_form()
        given = dict(parse_qsl((await request.body()).decode(errors="replace"))).get("token", "")
        for_person = wants_page(request.headers)
        if not check.is_right(given):
            if for_person:
                return ask_for_token(LOGIN.lstrip("/"), WRONG)
            raise _wrong_token()
        answer = RedirectResponse("./", 303) if for_person else Response(status_code=204)
        check.remember(answer, request.scope)
        return answer
