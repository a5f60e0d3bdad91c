"""POST /v1/segment, an outline, and GET /v1/progress, how far it is."""

from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from brainseg.server import uploads
from brainseg.server.layers.records import HEADER
from brainseg.server.progress import Progress
from brainseg.server.refusals import Refusal
from brainseg.server.schema import answers, document
from brainseg.server.schema.media_types import choose_kind
from brainseg.server.schema.wanted import Wanted


def add(app: FastAPI) -> None:
    @app.post("/v1/segment", openapi_extra=document.SEGMENT_FORM, responses=document.segment_responses())
    async def segment(request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
        """Outline the tumour in one picture, volume or DICOM series. Nothing that is sent is kept."""
        kind = choose_kind(request.headers.get("accept", ""))
        jobs, build = app.state.jobs, app.state.answer_builder
        jobs.check_room()  # refuse before the upload is read
        progress = Progress(_read_length(request))
        with app.state.progress.follow(request.state.request_id, progress):
            parts = await uploads.read(request, progress)
            answer = await jobs.run(
                lambda stopped: build(parts, kind, wanted, cancelled=stopped, progress=progress),
                lambda: _wait_for_disconnect(request),
                progress,
            )
        app.state.metrics.slices.inc(progress.slices)
        return Response(answer, media_type=kind)

    @app.get("/v1/progress/{request_id}", responses=document.refusals(_unknown_request()))
    async def show_progress(request_id: str) -> answers.Progress:
        """How far the request for an outline is that was sent with this X-Request-ID. Ask twice a second at most."""
        found = app.state.progress.find(request_id)
        if found is None:
            raise _unknown_request()
        return answers.Progress(
            stage=found.stage, bytes_received=found.received, bytes_total=found.size,
            place=app.state.jobs.find_place(found), slices_done=found.slices_done, slices_total=found.slices or None,
        )  # fmt: skip


def _unknown_request() -> Refusal:
    fix = f"send an {HEADER} with the request for an outline, and ask while it lasts"
    return Refusal(404, "there is no request in work with this id", fix)


def _read_length(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
