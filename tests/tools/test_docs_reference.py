"""The pages of the documents that are made from the code, and the site's list of pages."""

import re
from pathlib import Path

import pytest
import typer.main

from brainseg import cli, config
from tools import docs_reference

ROOT = Path(__file__).parents[2]
PARAMETERS = config.flatten(config.read_yaml(ROOT / "params.yaml"))


def rows(page: str) -> dict[str, list[str]]:
    """block.name → the other cells of its row."""
    found, block = {}, ""
    for line in page.splitlines():
        block = line.removeprefix("## ") if line.startswith("## ") else block
        if match := re.match(r"\| `(\w+)` \| (.*) \|$", line):
            found[f"{block}.{match[1]}"] = re.split(r" (?<!\\)\| ", match[2])
    return found


def test_every_parameter_has_a_row_with_its_value_and_what_it_takes():
    found = rows(docs_reference.list_parameters())
    assert list(found) == list(PARAMETERS)
    assert found["train.loss"][:2] == ["`bce_dice`", "`bce`, `dice`, `jaccard`, `bce_dice`, `focal_tversky`"]
    assert found["train.epochs"][:2] == ["`28`", "whole number ≥ 1, ≤ 10000"]
    assert found["train.patience"][1] == "whole number ≥ 1, or `null`"
    assert found["split.val_fraction"][2].startswith("of the patients that are not test")


@pytest.mark.parametrize("name", PARAMETERS)
def test_what_a_parameter_takes_is_known(name):
    assert "value" not in rows(docs_reference.list_parameters())[name][1]


def test_every_command_is_described_with_its_options():
    page = docs_reference.list_commands()
    for name, command in typer.main.get_command(cli.app).commands.items():
        assert f"`brainseg {name}`" in page
        assert all(option in page for parameter in command.params for option in parameter.opts if option[0] == "-")


def test_every_schema_of_a_file_is_described():
    page = docs_reference.list_files()
    for path in (ROOT / "docs/reference/schemas").glob("*.json"):
        assert path.name == "openapi.json" or f"schemas/{path.name}" in page
    assert "`per_patient" not in page and "| `protocol` |" in page


def test_every_page_is_in_the_navigation():
    """mkdocs tells it too, where it is installed: make docs."""
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    made = {"reference/parameters.md", "reference/commands.md", "reference/files.md", "project/changelog.md"}
    assert {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} | made == listed
