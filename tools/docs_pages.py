"""Hooks of mkdocs: pages that are made from the code, figures from the files of results, pictures and links.

A picture outside docs/ is taken into the site; a link to a file that is no page leads to the repository.
"""

import os
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from tools import docs_reference, figures  # noqa: E402

LINK = re.compile(r"(!?\[[^]]*\]\(|src=\")([^)\s\"]+)([)\"])")
PICTURES = (".png", ".svg", ".jpg", ".gif")
COPIED = {"project/changelog.md": "CHANGELOG.md"}  # pages that are files of the repository


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code."""
    made = {
        "reference/parameters.md": docs_reference.list_parameters(),
        "reference/commands.md": docs_reference.list_commands(),
        "reference/files.md": docs_reference.list_files(),
        **{page: (ROOT / name).read_text(encoding="utf-8") for page, name in COPIED.items()},
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Read each figure from its file; lead each link to a page, a picture that is taken in, or the repository."""
    here = page.file.src_uri
    markdown = figures.show(markdown, f"docs/{here}", ROOT)
    folder = ROOT / Path(COPIED.get(here, f"docs/{here}")).parent

    def lead(found: re.Match[str]) -> str:
        target, _, anchor = found[2].partition("#")
        there = os.path.relpath(os.path.normpath(folder / target), ROOT)
        if not target or ":" in target or not (ROOT / there).exists():
            return found[0]  # elsewhere, or nowhere, which mkdocs tells
        inside = there.removeprefix("docs/") if there.startswith("docs/") else f"images/{Path(there).name}"
        is_picture = there.endswith(PICTURES)
        if is_picture and not files.get_file_from_path(inside):
            files.append(File.generated(config, inside, abs_src_path=str(ROOT / there)))
        if (is_picture or there.startswith("docs/")) and files.get_file_from_path(inside):
            new = os.path.relpath(inside, Path(here).parent)
        else:
            new = f"{config.repo_url}/{'tree' if (ROOT / there).is_dir() else 'blob'}/main/{there}"
        return f"{found[1]}{new}{f'#{anchor}' if anchor else ''}{found[3]}"

    return LINK.sub(lead, markdown)
