"""The HTTP server: the page, and the API by which anything else gets an outline. See docs/server.md.

``Guard`` (who may ask, headers, log) > ``Bodies`` (how much may come) > the routes below > ``Jobs`` > ``Segmenter``
"""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

import brainseg
from brainseg import files
from brainseg.inference import measurements
from brainseg.server import openapi, refusals, responses, uploads
from brainseg.server.access import LOCAL, Guard
from brainseg.server.decoding import Decoders
from brainseg.server.examples import TIF, Examples
from brainseg.server.jobs import Jobs, Model, Segmenter
from brainseg.server.limits import AT_ONCE, MAX_BODIES
from brainseg.server.refusals import Refusal, busy
from brainseg.server.responses import JSON
from brainseg.server.slow_clients import Bodies

PAGE = Path(__file__).parent / "page"
NO_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>brainseg</title><h1>brainseg</h1>"
    "<p>The server runs, but its page has not been built: <code>make serve</code> builds it.</p>"
    "<p>Research use only. Not for clinical use. <a href=/docs>The API</a> is there.</p></html>"
)


class Settings(NamedTuple):
    """How a server differs from another one."""

    hosts: Collection[str] = LOCAL  # names that the Host header may have
    token: str | None = None  # without one nobody is asked for it
    page: Path = PAGE
    root: Path = Path()  # the project's folder, whose preprocessed patients become examples
    card: str | None = None  # the model card, Markdown
    sound: Callable[[], bool] = lambda: True  # whether the model's file is still what was loaded
    decoders: int = AT_ONCE  # processes


def create_app(model: Model, judge: Callable[[np.ndarray], Any], settings: Settings | None = None) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        model: a ``predictor.Predictor``.
        judge: ``plausibility.judge``.
        settings: left out: for this machine alone, without a token.
    """
    settings = settings or Settings()
    examples = Examples(settings.root, phantoms_alone=measurements.is_of_phantoms(model.facts))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with files.beside(spool_place()) as spool:
            decoders, jobs = Decoders(dict(os.environ), settings.decoders), Jobs()
            app.state.segmenter = Segmenter(model, judge, decoders, spool, examples.phantoms())
            app.state.jobs, app.state.decoders = jobs, decoders
            try:
                yield
            finally:
                decoders.close()
                jobs.close()

    app = FastAPI(title="brainseg", version=brainseg.__version__, description=openapi.ABOUT, lifespan=lifespan,
                  docs_url=None, redoc_url=None, redirect_slashes=False)  # fmt: skip
    refusals.install(app)
    _segment(app)
    _model(app, model.facts, settings.card)
    _examples(app, examples)
    _state(app, settings.sound)
    _docs(app)
    if (settings.page / "index.html").is_file():
        app.mount("/", StaticFiles(directory=settings.page, html=True))
    else:
        app.get("/", include_in_schema=False)(lambda: HTMLResponse(NO_PAGE))
    return Guard(Bodies(app), settings.hosts, settings.token)


def spool_place() -> Path:
    """Beside this path uploads lie for as long as they are decoded: in memory where a system has a folder for that."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK) and files.free_bytes(memory) > MAX_BODIES
    return (memory if usable else Path(tempfile.gettempdir())) / "brainseg"


def _segment(app: FastAPI) -> None:
    @app.post("/v1/segment", openapi_extra=openapi.FORM, responses=openapi.SEGMENTED)
    async def segment(
        request: Request,
        volumes: Annotated[bool, Query(description="add image, mask and probability as base64 NIfTI")] = False,
        slice: Annotated[int | None, Query(ge=1, le=10_000, description="of a PNG answer, counted from 1")] = None,
    ) -> Response:
        """Outline the tumour in one picture, volume or DICOM series. Nothing that is sent is kept."""
        kind = responses.wanted(request.headers.get("accept", ""))
        jobs, segmenter = app.state.jobs, app.state.segmenter
        if jobs.is_full:  # before megabytes are taken in for nothing
            raise busy()
        parts = await uploads.read(request)
        answer = await jobs.run(
            lambda gone: segmenter(parts, kind, slice, volumes, gone), lambda: _disconnected(request)
        )
        return JSONResponse(answer) if kind == JSON else Response(answer, media_type=kind)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _model(app: FastAPI, facts: Mapping[str, Any], card: str | None) -> None:
    described = openapi.described(facts, card)

    @app.get("/v1/model")
    async def model() -> dict[str, Any]:
        """What answers here: digest, what it was trained on, how well it did, and its card."""
        return described


def _examples(app: FastAPI, examples: Examples) -> None:
    @app.get("/v1/examples")
    async def listed() -> list[dict[str, str]]:
        """Cases to try."""
        return examples.listed()

    @app.get("/v1/examples/{identity}", response_class=Response, responses=openapi.EXAMPLE)
    def one(identity: str) -> Response:
        """The file of one of them, a TIF of several pages."""
        content = examples.content(identity)
        if content is None:
            raise Refusal(404, "there is no such example", "see /v1/examples")
        return Response(content, media_type=TIF)


def _state(app: FastAPI, sound: Callable[[], bool]) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server runs."""
        return {"status": "ok"}

    @app.get("/ready", responses=openapi.UNREADY)
    def ready() -> JSONResponse:
        """Whether it can answer: its model is the one that was loaded, and decoding works."""
        if not sound():
            raise Refusal(503, "the model's file is gone or has changed", "start the server anew", code=4)
        if not app.state.decoders.alive:
            raise Refusal(503, "decoding has ended", "start the server anew", code=3)
        return JSONResponse({"status": "ready"})


def _docs(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(openapi.page(app.openapi()))

    @app.get("/docs.css", include_in_schema=False)
    async def style() -> PlainTextResponse:
        return PlainTextResponse(openapi.STYLE, media_type="text/css")
