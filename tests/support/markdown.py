"""Tables and code in the documents."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows(name: str) -> dict[str, list[str]]:
    """First cell → the others, without comments, of every table in a Markdown file; of rows with one name the first."""
    text = re.sub(r" ?<!-- .*? -->", "", (ROOT / name).read_text(encoding="utf-8"))
    lines = re.findall(r"^\|(.+)\|$", text, re.M)
    cells = [[cell.strip(" *") for cell in line.split("|")] for line in lines]
    return {first: rest for first, *rest in reversed(cells)}


def blocks(name: str, language: str = r"[^\n]*") -> list[list[str]]:
    """The lines of each block of code of a Markdown file, without their comments."""
    found = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S)
    return [[line.split(" #")[0].strip() for line in block.splitlines()] for block in found]
