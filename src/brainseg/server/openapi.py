"""The OpenAPI document: what routes cannot declare themselves, and /docs, a plain page of it; the body of /v1/model."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from brainseg.inference.answers.overlays import DISCLAIMER
from brainseg.server.responses import DICOM, JSON, NIFTI, PNG, marks

ABOUT = f"""Outlines lower-grade gliomas on axial brain MRI. {DISCLAIMER}

Every refusal is {{"error": {{"code", "what", "fix"}}}}: code 2 is about what was sent, 3 about the machine,
4 about the model's integrity, 5 about the run, 1 is a bug. A server for other machines asks for a token:
Authorization: Bearer TOKEN."""

_FILE = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "items": _FILE}
SEGMENT_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": _FILES | {"description": "a PNG, TIF or JPEG, a NIfTI, NRRD, MetaImage or MGH volume, "
                                          "a zip of DICOM files of one series, or those files; one series is taken as "
                                          "FLAIR"},
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
        404: "not found",
        406: "no such kind of answer",
        408: "the upload was too slow",
        413: "too large, too many files or slices, or it would take too much memory or time",
        415: "of a kind that is not accepted",
        422: "damaged, no axial brain slices, or not understood",
        503: "too busy, with Retry-After; or not ready",
    }
    return {status: {"description": why[status], "content": _ERROR} for status in statuses}


SEGMENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the Accept header chooses: JSON has the numbers and the lesions, PNG one slice with its "
        "outline, NIfTI the mask, or the probabilities, in the geometry of the file that was sent, DICOM the mask as "
        "DICOM SEG where seg is true in the JSON",
        "content": {JSON: {}, PNG: {}, NIFTI: {}, DICOM: {}},
    },
    **_refusals(400, 401, 403, 406, 408, 413, 415, 422, 503),
}
EXAMPLE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "a TIF", "content": {"image/tiff": {}}},
    **_refusals(404),
}  # fmt: skip
READY_RESPONSES = _refusals(503)


def describe_model(facts: Mapping[str, Any], card: str | None) -> dict[str, Any]:
    """The body of /v1/model. ``numbers`` are scores of the test patients."""
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


# Swagger UI does not replace this page: FastAPI starts it with an inline script, and it sets inline styles itself
# (swagger-api/swagger-ui#10655). The Content-Security-Policy blocks both. This page also works without scripts.
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-top: 1px solid #8886; padding-top: 1.2rem; font-size: 1.15rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid #8886; border-radius: 6px; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
"""


def render_page(document: dict[str, Any]) -> str:
    """Render ``document`` as HTML. The page uses the style sheet docs.css beside it."""
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width">',
        f"<title>{escape(info['title'])}</title><link rel=stylesheet href=docs.css></head><body><main>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>{_render_text(info.get('description', ''))}",
        '<p><a href="openapi.json">openapi.json</a> is the same for programs.</p>',
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _render_operation(method, path, operation)
    return "\n".join([*parts, "</main></body></html>"])


def _render_operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>", _render_text(operation.get("description", ""))]
    rows = [
        (f"{p['name']} ({p['in']})", p.get("description", ""))
        for p in operation.get("parameters", [])
    ]  # fmt: skip
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        fields = content["schema"].get("properties", {})
        rows += [(f"{name} ({kind})", field.get("description", "")) for name, field in fields.items()]
    parts.append(_render_table("What it takes", rows))
    answers = []
    for status, response in operation["responses"].items():
        kinds = ", ".join(response.get("content", {}))
        answers.append((f"{status} {kinds}", response.get("description", "")))
        for content in response.get("content", {}).values():
            if "example" in content:
                shown = json.dumps(content["example"], indent=1)
                answers.append(("", shown))
    return [*parts, _render_table("What it answers", answers)]


def _render_table(title: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = []
    for name, text in rows:
        cell = f"<pre>{escape(text)}</pre>" if text.startswith("{") else escape(text)
        lines.append(f"<tr><th scope=row><code>{escape(name)}</code></th><td>{cell}</td></tr>")
    return f"<h3>{title}</h3><table>{''.join(lines)}</table>"


def _render_text(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part.strip())
