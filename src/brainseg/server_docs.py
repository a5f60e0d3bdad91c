"""/docs: the OpenAPI document as one plain page, that needs neither a script nor the network."""

import json
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-top: 1px solid #8886; padding-top: 1.2rem; font-size: 1.15rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid #8886; border-radius: 6px; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
"""


def page(document: dict[str, Any]) -> str:
    """``document`` as HTML; it names the style sheet /docs.css."""
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width">',
        f"<title>{escape(info['title'])}</title><link rel=stylesheet href=/docs.css></head><body><main>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>{_text(info.get('description', ''))}",
        '<p><a href="/openapi.json">openapi.json</a> is the same for programs.</p>',
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method, path, operation)
    return "\n".join([*parts, "</main></body></html>"])


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>", _text(operation.get("description", ""))]
    rows = [
        (f"{p['name']} ({p['in']})", p.get("description", ""))
        for p in operation.get("parameters", [])
    ]  # fmt: skip
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        fields = content["schema"].get("properties", {})
        rows += [(f"{name} ({kind})", field.get("description", "")) for name, field in fields.items()]
    parts.append(_table("What it takes", rows))
    answers = []
    for status, response in operation["responses"].items():
        kinds = ", ".join(response.get("content", {}))
        answers.append((f"{status} {kinds}", response.get("description", "")))
        for content in response.get("content", {}).values():
            if "example" in content:
                shown = json.dumps(content["example"], indent=1)
                answers.append(("", shown))
    return [*parts, _table("What it answers", answers)]


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = []
    for name, text in rows:
        cell = f"<pre>{escape(text)}</pre>" if text.startswith("{") else escape(text)
        lines.append(f"<tr><th scope=row><code>{escape(name)}</code></th><td>{cell}</td></tr>")
    return f"<h3>{title}</h3><table>{''.join(lines)}</table>"


def _text(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part.strip())
