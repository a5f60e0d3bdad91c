"""Pages of the documents that are made from the code: parameters, commands, files."""

import json
import re
from pathlib import Path
from typing import Any

import typer.main
from typer.cli import get_docs_for_click

from brainseg import cli, config

ROOT = Path(__file__).parents[1]
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "minItems": "items ≥",
          "maxItems": "items ≤"}  # fmt: skip


def list_parameters() -> str:
    """Every parameter: what it is in params.yaml, what it may be, what it means."""
    raw, schema = config.read_yaml(ROOT / "params.yaml"), config.Params.model_json_schema()
    comments = read_comments((ROOT / "params.yaml").read_text(encoding="utf-8"))
    blocks = {name: part["$ref"].rpartition("/")[2] for name, part in find_blocks(schema).items()}
    lines = [
        "# Parameters",
        "",
        "All that changes a result is in `params.yaml`. A misspelt name or a value out of range is refused before any "
        "work, with the nearest name. `dvc exp run -S train.loss=jaccard` tries a value without editing the file.",
    ]
    for block, values in raw.items():
        fields = schema["$defs"][blocks[block]]["properties"]
        lines += ["", f"## {block}", ""]
        if about := comments.get((block, "")):
            lines += [f"{about[0].upper()}{about[1:]}.", ""]
        lines += ["| parameter | here | may be | meaning |", "| --- | --- | --- | --- |"]
        for name, value in values.items():
            shown = json.dumps(value, ensure_ascii=False).strip('"').replace("|", "\\|")
            meaning = comments.get((block, name), "").replace("|", "\\|")
            lines.append(f"| `{name}` | `{shown}` | {describe_type(fields[name])} | {meaning} |")
    return "\n".join(lines) + "\n"


def find_blocks(schema: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Block → its reference in the schema, also where it is optional or has a default."""
    found = {}
    for name, part in schema["properties"].items():
        options = [part, *part.get("anyOf", []), *part.get("allOf", [])]
        found[name] = next(each for each in options if "$ref" in each)
    return found


def read_comments(text: str) -> dict[tuple[str, str], str]:
    """(block, name) → the comment behind a parameter; (block, "") → that behind the block's name."""
    found, block = {}, ""
    for line in text.splitlines():
        code, _, comment = line.partition(" # ")
        if match := re.match(r"(\s*)([a-z_]+):", code):
            block = block if match[1] else match[2]
            found[block, match[2] if match[1] else ""] = comment.strip()
    return found


def describe_type(field: dict[str, Any]) -> str:
    """What a parameter takes, from its JSON Schema."""
    if "anyOf" in field:
        return ", or ".join(describe_type(each) for each in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`",
             "null": "`null`", "array": "list"}  # fmt: skip
    bounds = [f"{sign} {field[name]}" for name, sign in BOUNDS.items() if name in field]
    return " ".join([names.get(field.get("type", ""), "value"), ", ".join(bounds)]).strip()


def list_commands() -> str:
    """The command line, as Typer describes it."""
    command = typer.main.get_command(cli.app)
    context = typer.Context(command, info_name="brainseg")
    return get_docs_for_click(obj=command, ctx=context, name="brainseg", title="Commands")


def list_files() -> str:
    """The files that a run writes, with the fields of those that have a schema."""
    lines = ["# Files and schemas", "", "The JSON files of a run, each with its JSON Schema in the repository."]
    for path in sorted((ROOT / "docs/reference/schemas").glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        if "properties" not in schema:
            continue
        name, about = re.split(r": |\.\n+", schema["description"].replace("``", "`"), maxsplit=1)
        lines += ["", f"## {name}", "", f"{about[:1].upper()}{about[1:]}", ""]
        lines += [f"Schema: [{path.name}](schemas/{path.name}).", "", "| field | is |", "| --- | --- |"]
        lines += [f"| `{name}` | {describe_field(part, schema)} |" for name, part in schema["properties"].items()]
    return "\n".join(lines) + "\n"


def describe_field(part: dict[str, Any], schema: dict[str, Any]) -> str:
    """The type of a field; of an object what its model says of itself."""
    if "$ref" in part:
        model = schema["$defs"][part["$ref"].rpartition("/")[2]]
        return " ".join(model.get("description", model.get("title", "")).split()).replace("|", "\\|")
    if "anyOf" in part:
        return ", or ".join(describe_field(each, schema) for each in part["anyOf"])
    if part.get("type") == "array":
        return f"list of: {describe_field(part.get('items', {}), schema)}"
    if part.get("type") == "object":
        values = part.get("additionalProperties")
        return f"name → {describe_field(values, schema)}" if isinstance(values, dict) else "names and values"
    return describe_type(part)
