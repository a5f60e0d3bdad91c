"""The OpenAPI document: what routes cannot declare themselves."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

from brainseg.inference.answers.overlays import DISCLAIMER
from brainseg.server.layers.records import HEADER
from brainseg.server.layers.token import COOKIE, LOGIN, NEED_TOKEN, OPEN_PATHS
from brainseg.server.refusals import Refusal
from brainseg.server.schema.answers import Answer, Refused
from brainseg.server.schema.media_types import DICOM, JSON, NIFTI, PNG

ABOUT = f"""Outlines lower-grade gliomas on axial brain MRI. {DISCLAIMER}

Every refusal is {{"error": {{"code", "what", "fix"}}}}. A server for other machines asks for a token:
Authorization: Bearer TOKEN. Every answer has an {HEADER}: the one that was sent, of 8 to 64 letters, digits or ._-,
or a new one."""

BINARY = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "items": BINARY}
SEGMENT_FORM: dict[str, Any] = {
    "parameters": [{
        "name": HEADER, "in": "header", "required": False, "schema": {"type": "string"},
        "description": "a random id of the client's own, by which /v1/progress tells how far this request is",
    }],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": _FILES | {"description": "a PNG, TIF or JPEG, a NIfTI, NRRD, MetaImage or MGH volume, "
                                          "the DICOM files of one series, the numbered pictures of one patient (masks "
                                          "among them are left out), or a zip of either; one series is taken as FLAIR"},
                        "flair": _FILES | {"description": "instead of file, with pre and post or without"},
                        "pre": _FILES | {"description": "T1 before contrast, on the grid of flair"},
                        "post": _FILES | {"description": "T1 after contrast, on the grid of flair"},
                    },
                }
            }
        },
    },
}  # fmt: skip
LOGIN_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {"type": "object", "required": ["token"], "properties": {"token": {"type": "string"}}}
            }
        },
    }
}

# For each status: when it comes, and an example of its error.
_REFUSALS: dict[int, tuple[str, int, str, str]] = {
    400: ("no file, an empty one, or a damaged form", 2, "file: is empty", "send a file with content, or leave it out"),
    401: ("a token is needed", 2, "a token is needed", NEED_TOKEN),
    403: ("sent by another web page", 2, "the request comes from another web page", "use the server's own page"),
    406: ("no such kind of answer", 2, "no such kind of answer", f"accept {JSON}, {PNG}, {NIFTI} or {DICOM}"),
    408: ("the upload was too slow", 2, "the upload is too slow", "try again with a faster connection"),
    413: ("too large, too many files or slices, or it would take too much memory or time", 2,
          "600 slices, at most 512 are accepted", "crop or resample the volume"),
    415: ("of a kind that is not accepted", 2, "file: is a PDF", "send a PNG, TIF or JPEG picture, ..."),
    422: ("damaged, no axial brain slices, or not understood", 2, "file: is damaged, cut short, or not what its name "
          "says (EOFError)", "restore it, or save it again"),
    503: ("too busy, with Retry-After; or not ready", 3, "too many requests are waiting", "try again in 2 seconds"),
}  # fmt: skip


def refusals(*given: int | Refusal) -> dict[int | str, dict[str, Any]]:
    """What a route declares of the refusals that it may answer with: those of a status, or one of its own."""
    found: dict[int | str, dict[str, Any]] = {}
    for each in given:
        status = each if isinstance(each, int) else each.status
        found[status] = {"model": Refused, "description": _describe(each), "content": {JSON: {"example": _show(each)}}}
    return found


def _describe(given: int | Refusal) -> str:
    return _REFUSALS[given][0] if isinstance(given, int) else given.what


def _show(given: int | Refusal) -> dict[str, Any]:
    if isinstance(given, Refusal):
        return given.body
    _, code, what, fix = _REFUSALS[given]
    return Refusal(given, what, fix, code=code).body


def segment_responses() -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "model": Answer,
            "description": "the Accept header chooses: JSON has the numbers and the lesions, PNG one slice with its "
            "outline, NIfTI the mask, or the probabilities, in the geometry of the file that was sent, DICOM the mask "
            "as DICOM SEG where seg is true in the JSON",
            "content": {JSON: {}, **{kind: {"schema": BINARY} for kind in (PNG, NIFTI, DICOM)}},
        },
        **refusals(400, 406, 408, 413, 415, 422, 503),
    }


def file_responses(kinds: Sequence[str], description: str, *given: int | Refusal) -> dict[int | str, dict[str, Any]]:
    """Of a route that answers with a file of one of these media types."""
    content = {kind: {"schema": BINARY} for kind in kinds}
    return {200: {"description": description, "content": content}, **refusals(*given)}


def install(app: FastAPI) -> None:
    """Have the document of ``app`` tell who needs a token, and what that and other pages are refused, too.

    A layer outside of the routes does so. FastAPI on its part declares 422 for each parameter, also for text, of which
    every value is taken: a route that refuses one declares it itself.
    """
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        document["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": f"POST {LOGIN} sets it"},
        }
        document["security"] = [{"token": []}, {"cookie": []}, {}]  # {}: a server for one machine needs none
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        for path, item in document["paths"].items():
            is_open = path in (*OPEN_PATHS, LOGIN)
            for method, operation in item.items():
                statuses = (() if is_open else (401,)) + ((403,) if method == "post" else ())
                operation["responses"] = _complete(operation["responses"], statuses)
                if is_open:
                    operation["security"] = []
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(responses: dict[str, Any], statuses: tuple[int, ...]) -> dict[str, Any]:
    """The responses of an operation in order, with ``statuses`` and without what FastAPI would answer."""
    schema = {"$ref": f"#/components/schemas/{Refused.__name__}"}
    more = {
        str(status): {
            "description": _describe(status),
            "content": {JSON: {"schema": schema, "example": _show(status)}},
        }
        for status in statuses
    }
    own = {status: told for status, told in responses.items() if "HTTPValidationError" not in str(told)}
    return dict(sorted((more | own).items()))
