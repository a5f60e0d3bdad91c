"""The HTTP server: the page, and the API for other programs. See docs/reference/http.md.

The layers of ``layers`` > the routes of ``routes`` > ``Jobs`` > ``AnswerBuilder``
"""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fastapi import FastAPI
from starlette.types import ASGIApp

import brainseg
from brainseg import files
from brainseg.inference.answers import measurements
from brainseg.inference.decoding import Decoders
from brainseg.server import refusals
from brainseg.server.answer_builder import AnswerBuilder, PredictorLike, decode_seconds
from brainseg.server.examples import Examples
from brainseg.server.jobs import Jobs
from brainseg.server.layers.guard import LOCAL_HOSTS, Guard
from brainseg.server.layers.head import AnswerHead
from brainseg.server.layers.metrics import Metrics
from brainseg.server.layers.proxies import LOOPBACK, Proxies
from brainseg.server.layers.records import Records
from brainseg.server.layers.slow_clients import BodyLimits
from brainseg.server.layers.token import TokenCheck
from brainseg.server.limits import AT_ONCE, MAX_BODIES
from brainseg.server.progress import ProgressBoard
from brainseg.server.routes import docs, model, page, segment, state
from brainseg.server.routes.model import OnnxFile
from brainseg.server.schema import document

PAGE = Path(__file__).parent / "page"
WORKER = "brainseg.server.worker"


class Settings(NamedTuple):
    """What can differ between servers."""

    hosts: Collection[str] = LOCAL_HOSTS  # names that the Host header may contain
    token: str | None = None  # None: no token is needed
    proxies: str = LOOPBACK  # addresses and networks whose X-Forwarded headers are believed
    prefix: str = ""  # the path that a proxy gives the server, if the proxy does not tell
    page: Path = PAGE
    root: Path = Path()  # the project's folder; its preprocessed patients become examples
    card: str | None = None  # the model card, Markdown
    file: OnnxFile | None = None  # the model, for clients that compute on their own
    sound: Callable[[], bool] = lambda: True  # whether the model's file is still the one that was loaded
    decoders: int = AT_ONCE  # processes


def create_app(loaded: PredictorLike, judge: Callable[[np.ndarray], Any], settings: Settings | None = None) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        loaded: the model, a ``predictor.Predictor``.
        judge: tells whether prepared slices look like brain slices, as ``plausibility.assess`` does.
        settings: the default serves this machine only, without a token.
    """
    settings = settings or Settings()
    check, metrics = TokenCheck(settings.token), Metrics()
    routes = BodyLimits(create_routes(loaded, judge, settings, check, metrics))
    guarded = Guard(AnswerHead(routes), settings.hosts, check)
    return Records(Proxies(guarded, settings.proxies, settings.prefix), metrics)


def create_routes(
    loaded: PredictorLike, judge: Callable[[np.ndarray], Any], settings: Settings, check: TokenCheck, metrics: Metrics
) -> FastAPI:
    """The routes alone, without what every request passes before them."""
    trained = loaded.facts["model"]
    is_lgg = trained["protocol"].get("source") == "kaggle"
    examples = Examples(settings.root, phantoms_alone=measurements.is_of_phantoms(loaded.facts),
                        weights=trained["weights_sha256"] if is_lgg else None)  # fmt: skip

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with files.temporary_beside(spool_path()) as spool:
            decoders, jobs = Decoders(settings.decoders, decode_seconds, WORKER), Jobs()
            app.state.answer_builder = AnswerBuilder(loaded, judge, decoders, spool, examples.phantoms())
            app.state.jobs, app.state.decoders = jobs, decoders
            metrics.show("brainseg_requests_waiting", "Requests in the queue.", lambda: len(jobs.waiting))
            metrics.show("brainseg_requests_working", "Requests in work.", lambda: jobs.working)
            try:
                yield
            finally:
                decoders.close()
                jobs.close()

    app = FastAPI(title="brainseg", version=brainseg.__version__, description=document.ABOUT, lifespan=lifespan,
                  docs_url=None, redoc_url=None, redirect_slashes=False,
                  generate_unique_id_function=lambda route: route.name)  # fmt: skip
    app.state.progress, app.state.metrics = ProgressBoard(), metrics
    facts = {"weights_sha256": trained["weights_sha256"], "version": brainseg.__version__}
    metrics.tell("brainseg_model", "The model that answers, and the version of the program.", facts)
    refusals.install_handlers(app)
    segment.add(app)
    model.add(app, loaded.facts, settings.card, settings.file)
    model.add_examples(app, examples)
    state.add(app, settings.sound, metrics)
    state.add_login(app, check)
    docs.add(app)
    page.add(app, settings.page)
    document.install(app)
    return app


def spool_path() -> Path:
    """Uploads are stored next to this path while they are decoded; in memory if the system has a folder for that."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK) and files.free_bytes(memory) > MAX_BODIES
    return (memory if usable else Path(tempfile.gettempdir())) / "brainseg"
