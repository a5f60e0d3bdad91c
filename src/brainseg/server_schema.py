"""What the OpenAPI document says beyond what the routes' signatures do, and what /v1/model tells."""

from collections.abc import Mapping
from typing import Any

from brainseg.overlays import DISCLAIMER
from brainseg.server_answers import JSON, NIFTI, PNG, marks

ABOUT = f"""Outlines lower-grade gliomas on axial brain MRI. {DISCLAIMER}

Every refusal is {{"error": {{"code", "what", "fix"}}}}: code 2 is about what was sent, 3 about the machine,
4 about the model's integrity, 5 about the run, 1 is a bug. A server for other machines asks for a token:
Authorization: Bearer TOKEN."""

_FILE = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "items": _FILE}
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": _FILES | {"description": "a PNG, TIF or JPEG, a NIfTI volume, a zip of DICOM files of "
                                          "one series, or those files; one series is taken as FLAIR"},
                        "flair": _FILES | {"description": "instead of file, with pre and post or without"},
                        "pre": _FILES | {"description": "T1 before contrast, on the grid of flair"},
                        "post": _FILES | {"description": "T1 after contrast, on the grid of flair"},
                    },
                }
            }
        },
    }
}  # fmt: skip

_ERROR = {JSON: {"example": {"error": {"code": 2, "what": "file: is a PDF", "fix": "send a PNG, TIF or ..."}}}}


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    why = {
        400: "no file, an empty one, or a damaged form",
        401: "a token is needed",
        403: "the request comes from another web page",
        404: "there is no such thing",
        406: "no such kind of answer",
        408: "the upload was too slow",
        413: "too large, too many files or slices, or it would take too much memory or time",
        415: "of a kind that is not accepted",
        422: "damaged, no axial brain slices, or not understood",
        503: "too busy, with Retry-After; or not ready",
    }
    return {status: {"description": why[status], "content": _ERROR} for status in statuses}


SEGMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "as JSON the numbers; as PNG one slice with its outline; as NIfTI the mask in the geometry of "
        "what was sent: chosen by the Accept header",
        "content": {JSON: {}, PNG: {}, NIFTI: {}},
    },
    **_refusals(400, 401, 403, 406, 408, 413, 415, 422, 503),
}
EXAMPLE: dict[int | str, dict[str, Any]] = {
    200: {"description": "a TIF", "content": {"image/tiff": {}}},
    **_refusals(404),
}  # fmt: skip
UNREADY = _refusals(503)


def described(facts: Mapping[str, Any], card: str | None) -> dict[str, Any]:
    """The answer of /v1/model. ``numbers`` are those of the test patients."""
    model, test = facts["model"], (facts.get("evaluation") or {}).get("test") or {}
    protocol = model["protocol"]
    return {
        "disclaimer": DISCLAIMER,
        "weights_sha256": model["weights_sha256"],
        "variant": facts["variant"],
        "source": protocol.get("source"),
        "marks": marks(facts),
        "rule": facts.get("rule"),
        "numbers": {"volume_dice": (test.get("volume") or {}).get("dice")} if test else {},
        "protocol": protocol,
        "card_markdown": card,
    }
