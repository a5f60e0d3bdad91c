"""/docs: the OpenAPI document as a plain page.

Swagger UI does not replace it: FastAPI starts it with an inline script, and it sets inline styles itself
(swagger-api/swagger-ui#10655). The Content-Security-Policy blocks both. This page also works without scripts.
"""

import json
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-top: 1px solid #8886; padding-top: 1.2rem; font-size: 1.15rem; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
td code { overflow-wrap: anywhere; } th { min-width: 11rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
"""


def add(app: FastAPI) -> None:
    """The addresses in the page are relative, so it also works below the path of a proxy."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(render_page(app.openapi()))

    @app.get("/docs.css", include_in_schema=False)
    async def style() -> PlainTextResponse:
        return PlainTextResponse(STYLE, media_type="text/css")


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
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        parts += _render_schema(name, schema)
    return "\n".join([*parts, "</main></body></html>"])


def _render_operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>", _render_text(operation.get("description", ""))]
    rows = [
        (f"{p['name']} ({p['in']})", escape(p.get("description", "")))
        for p in operation.get("parameters", [])
    ]  # fmt: skip
    for content in operation.get("requestBody", {}).get("content", {}).values():
        fields = content["schema"].get("properties", {})
        rows += [(f"{name} (form)", escape(field.get("description", ""))) for name, field in fields.items()]
    parts.append(_render_table("What it takes", rows))
    answers = []
    for status, response in operation["responses"].items():
        kinds = ", ".join(response.get("content", {}))
        answers.append((f"{status} {kinds}", escape(response.get("description", ""))))
        for content in response.get("content", {}).values():
            if "example" in content:
                answers.append(("", f"<code>{escape(json.dumps(content['example']))}</code>"))
            elif name := _name_schema(content.get("schema", {})):
                answers.append(("", f'JSON: <a href="#{escape(name)}">{escape(name)}</a>'))
    return [*parts, _render_table("What it answers", answers)]


def _render_schema(name: str, schema: dict[str, Any]) -> list[str]:
    rows = [(field, _describe(told)) for field, told in schema.get("properties", {}).items()]
    title = f'<h2 id="{escape(name)}">{escape(name)}</h2>'
    return [title, _render_text(schema.get("description", "")), _render_table("Its fields", rows)]


def _describe(field: dict[str, Any]) -> str:
    """What a field holds, with a link if that has fields of its own."""
    kinds = [_name_kind(part) for part in field.get("anyOf", [field])]
    description = escape(field.get("description", ""))
    return " or ".join(kinds) + (f", {description}" if description else "")


def _name_kind(schema: dict[str, Any]) -> str:
    name = _name_schema(schema)
    several = "list of " if "items" in schema else ""
    if name:
        return f'{several}<a href="#{escape(name)}">{escape(name)}</a>'
    choices = ", ".join(map(escape, schema.get("enum", ())))
    return choices or several + escape(schema.get("items", schema).get("type", "list"))


def _name_schema(schema: dict[str, Any]) -> str:
    """The name of the schema that this one refers to, itself or for each item; empty if it refers to none."""
    reference: str = schema.get("$ref", "") or schema.get("items", {}).get("$ref", "")
    return reference.rpartition("/")[2]


def _render_table(title: str, rows: list[tuple[str, str]]) -> str:
    """``rows``: a text, and HTML."""
    if not rows:
        return ""
    lines = [f"<tr><th scope=row><code>{escape(name)}</code></th><td>{cell}</td></tr>" for name, cell in rows]
    return f"<h3>{title}</h3><table>{''.join(lines)}</table>"


def _render_text(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part.strip())
