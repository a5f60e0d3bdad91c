"""The HTTP server: the page, and the API for other programs. See docs/server.md.

``Guard`` (access, headers, log) > ``BodyLimits`` > the routes below > ``Jobs`` > ``AnswerBuilder``
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
from brainseg.inference.answers import measurements
from brainseg.inference.chosen_rule import MAX_COMPONENT, RuleChoice
from brainseg.inference.decoding import Decoders
from brainseg.server import openapi, refusals, responses, uploads
from brainseg.server.access import LOCAL_HOSTS, Guard
from brainseg.server.examples import TIF, Examples
from brainseg.server.jobs import AnswerBuilder, Jobs, PredictorLike, decode_seconds
from brainseg.server.limits import AT_ONCE, MAX_BODIES
from brainseg.server.refusals import Refusal, busy
from brainseg.server.responses import JSON
from brainseg.server.slow_clients import BodyLimits

PAGE = Path(__file__).parent / "page"
WORKER = "brainseg.server.worker"
NO_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>brainseg</title><h1>brainseg</h1>"
    "<p>The server runs, but its page has not been built: <code>make serve</code> builds it.</p>"
    "<p>Research use only. Not for clinical use. <a href=/docs>The API</a> is there.</p></html>"
)


class Settings(NamedTuple):
    """What can differ between servers."""

    hosts: Collection[str] = LOCAL_HOSTS  # names that the Host header may contain
    token: str | None = None  # None: no token is needed
    page: Path = PAGE
    root: Path = Path()  # the project's folder; its preprocessed patients become examples
    card: str | None = None  # the model card, Markdown
    sound: Callable[[], bool] = lambda: True  # whether the model's file is still the one that was loaded
    decoders: int = AT_ONCE  # processes


def create_app(model: PredictorLike, judge: Callable[[np.ndarray], Any], settings: Settings | None = None) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        model: a ``predictor.Predictor``.
        judge: tells whether prepared slices look like brain slices, as ``plausibility.assess`` does.
        settings: the default serves this machine only, without a token.
    """
    settings = settings or Settings()
    examples = Examples(settings.root, phantoms_alone=measurements.is_of_phantoms(model.facts))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with files.temporary_beside(spool_path()) as spool:
            decoders, jobs = Decoders(settings.decoders, decode_seconds, WORKER), Jobs()
            app.state.segmenter = AnswerBuilder(model, judge, decoders, spool, examples.phantoms())
            app.state.jobs, app.state.decoders = jobs, decoders
            try:
                yield
            finally:
                decoders.close()
                jobs.close()

    app = FastAPI(title="brainseg", version=brainseg.__version__, description=openapi.ABOUT, lifespan=lifespan,
                  docs_url=None, redoc_url=None, redirect_slashes=False)  # fmt: skip
    refusals.install_handlers(app)
    _add_segment(app)
    _add_model(app, model.facts, settings.card)
    _add_examples(app, examples)
    _add_state(app, settings.sound)
    _add_docs(app)
    if (settings.page / "index.html").is_file():
        app.mount("/", StaticFiles(directory=settings.page, html=True))
    else:
        app.get("/", include_in_schema=False)(lambda: HTMLResponse(NO_PAGE))
    return Guard(BodyLimits(app), settings.hosts, settings.token)


def spool_path() -> Path:
    """Uploads are stored next to this path while they are decoded; in memory if the system has a folder for that."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK) and files.free_bytes(memory) > MAX_BODIES
    return (memory if usable else Path(tempfile.gettempdir())) / "brainseg"


def _add_segment(app: FastAPI) -> None:
    @app.post("/v1/segment", openapi_extra=openapi.SEGMENT_FORM, responses=openapi.SEGMENT_RESPONSES)
    async def segment(
        request: Request,
        volumes: Annotated[bool, Query(description="add image, mask and probability as base64 NIfTI")] = False,
        slice: Annotated[int | None, Query(ge=1, le=10_000, description="of a PNG answer, counted from 1")] = None,
        threshold: Annotated[
            float | None, Query(gt=0, lt=1, description="the probability from which a voxel is tumour; the model's own")
        ] = None,
        min_component: Annotated[
            int | None,
            Query(
                ge=0,
                le=MAX_COMPONENT,
                description="remove components of fewer voxels, counted on the model's grid, "
                "from volumes and single slices; the model's own, from volumes alone",
            ),
        ] = None,
        probability: Annotated[
            bool, Query(description="a NIfTI answer is the probabilities, float32 from 0 to 1, instead of the mask")
        ] = False,
    ) -> Response:
        """Outline the tumour in one picture, volume or DICOM series. Nothing that is sent is kept."""
        kind = responses.choose_kind(request.headers.get("accept", ""))
        jobs, segmenter = app.state.jobs, app.state.segmenter
        if jobs.is_full:  # refuse before the upload is read
            raise busy()
        parts = await uploads.read(request)
        answer = await jobs.run(
            lambda gone: segmenter(
                parts, kind, slice, volumes, gone, RuleChoice(threshold, min_component), probability
            ),
            lambda: _wait_for_disconnect(request),
        )
        return JSONResponse(answer) if kind == JSON else Response(answer, media_type=kind)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_model(app: FastAPI, facts: Mapping[str, Any], card: str | None) -> None:
    body = openapi.describe_model(facts, card)

    @app.get("/v1/model")
    async def model() -> dict[str, Any]:
        """The model that answers here: its digest, training data, test results and model card."""
        return body


def _add_examples(app: FastAPI, examples: Examples) -> None:
    @app.get("/v1/examples")
    async def list_examples() -> list[dict[str, str]]:
        """Example cases to try."""
        return examples.list_all()

    @app.get("/v1/examples/{identity}", response_class=Response, responses=openapi.EXAMPLE_RESPONSES)
    def read_example(identity: str) -> Response:
        """The file of one example, a TIF with several pages."""
        content = examples.content(identity)
        if content is None:
            raise Refusal(404, "there is no such example", "see /v1/examples")
        return Response(content, media_type=TIF)


def _add_state(app: FastAPI, sound: Callable[[], bool]) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server runs."""
        return {"status": "ok"}

    @app.get("/ready", responses=openapi.READY_RESPONSES)
    def ready() -> JSONResponse:
        """Whether the server can answer: its model file is the one that was loaded, and decoding works."""
        if not sound():
            raise Refusal(503, "the model's file is gone or has changed", "restart the server", code=4)
        if not app.state.decoders.alive:
            raise Refusal(503, "decoding does not work any more", "restart the server", code=3)
        return JSONResponse({"status": "ready"})


def _add_docs(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(openapi.render_page(app.openapi()))

    @app.get("/docs.css", include_in_schema=False)
    async def style() -> PlainTextResponse:
        return PlainTextResponse(openapi.STYLE, media_type="text/css")
