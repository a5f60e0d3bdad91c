"""What answers here and what there is to try: /v1/model, the model's file, /v1/examples."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.staticfiles import NotModifiedResponse

from brainseg.inference.answers.overlays import DISCLAIMER
from brainseg.server.examples import TIF, ZIP, Examples, changed_data
from brainseg.server.pieces import SharedBytes
from brainseg.server.refusals import Refusal
from brainseg.server.responses import marks
from brainseg.server.schema import answers, document

FILE = "/model/unet.onnx"
EXAMPLE = "a TIF of several pages, or a zip of numbered pictures and their masks"
ONNX = "application/octet-stream"  # there is no registered type
KEPT_FOR_GOOD = "private, max-age=31536000, immutable"  # private: a token may protect it


class OnnxFile(NamedTuple):
    """The bytes that were loaded, which need not be those that lie on the disk by now."""

    content: bytes
    sha256: str


def add(app: FastAPI, facts: Mapping[str, Any], card: str | None, file: OnnxFile | None) -> None:
    body = describe(facts, card, file)

    @app.get("/v1/model")
    async def describe_model() -> answers.ModelDescription:
        """The model that answers here: its digest, training data, test results and model card."""
        return body

    @app.get(
        FILE, response_class=Response,
        responses=document.file_responses((ONNX,), "an ONNX file; its ETag is the SHA-256", _other_digest()),
    )  # fmt: skip
    async def read_model_file(request: Request, digest: str | None = None) -> Response:
        """The file of the model, to compute elsewhere. With ?digest=SHA-256 clients may keep it for good."""
        if file is None:
            raise Refusal(404, "this server does not give its model away", "run: make pull, in a clone of the project")
        if digest not in (None, file.sha256):
            raise _other_digest()
        headers = {"ETag": f'"{file.sha256}"', "Cache-Control": KEPT_FOR_GOOD if digest else "no-cache"}
        known = request.headers.get("if-none-match", "")
        if file.sha256 in known:
            return NotModifiedResponse(Response(headers=headers).headers)
        return SharedBytes(file.content, media_type=ONNX, headers=headers)


def _other_digest() -> Refusal:
    return Refusal(404, "the model has another digest now", "ask /v1/model for it; in a browser load the page again")


def _unknown_example() -> Refusal:
    return Refusal(404, "there is no such example", "see /v1/examples")


def describe(facts: Mapping[str, Any], card: str | None, file: OnnxFile | None) -> answers.ModelDescription:
    """The body of /v1/model. ``numbers`` are scores of the test patients."""
    model, test = facts["model"], (facts.get("evaluation") or {}).get("test") or {}
    protocol = model["protocol"]
    return answers.ModelDescription(
        disclaimer=DISCLAIMER,
        weights_sha256=model["weights_sha256"],
        variant=facts["variant"],
        source=protocol.get("source"),
        marks=marks(facts),
        rule=facts.get("rule"),
        numbers={"volume_dice": (test.get("volume") or {}).get("dice")} if test else {},
        protocol=protocol,
        card_markdown=card,
        file=file and answers.ModelFile(path=FILE.lstrip("/"), sha256=file.sha256, bytes=len(file.content)),
    )


def add_examples(app: FastAPI, examples: Examples) -> None:
    @app.get("/v1/examples")
    async def list_examples() -> list[answers.Example]:
        """Example cases to try."""
        return [answers.Example(**each) for each in examples.list_all()]

    @app.get(
        "/v1/examples/{identity}", response_class=Response,
        responses=document.file_responses((TIF, ZIP), EXAMPLE, _unknown_example(), changed_data()),
    )  # fmt: skip
    def read_example(identity: str) -> Response:
        """The file of one example: a TIF with several pages, or a zip of numbered pictures with a mask beside each."""
        content = examples.content(identity)
        if content is None:
            raise _unknown_example()
        return Response(content, media_type=examples.media_type(identity))
