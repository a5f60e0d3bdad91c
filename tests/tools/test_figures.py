"""Figures of the documents are those of the files of results, and none is typed by hand."""

import json
import re
from types import SimpleNamespace

import pytest

from brainseg.errors import DataError
from tools import figures, typed_figures

MEAN = "<!-- evaluation: test.volume.dice.mean -->"


@pytest.fixture
def project(tmp_path):
    """A README and a page with one figure, and the file that it is of."""
    (tmp_path / "metrics").mkdir()
    (tmp_path / "docs").mkdir()
    dice = {"mean": 0.861234, "lo": 0.8, "hi": 0.9, "n": 1022}
    report = {"test": {"volume": {"dice": dice}, "gain": -0.0104, "share": 0.391, "worst": "CS"}, "folds": [0.5, 0.75]}
    (tmp_path / "metrics/evaluation.json").write_text(json.dumps(report))
    (tmp_path / "README.md").write_text(f"# Title\n\nIt has 0.854{MEAN} of Dice.\n")
    (tmp_path / "docs/page.md").write_text(f"The mean: 0.861{MEAN}.\n")
    return tmp_path


def test_figures_of_the_documents_are_those_of_the_files_and_none_was_typed():
    assert re.fullmatch(r"\d{3,} figures are those of their files", figures.check())


def test_another_number_in_the_file_changes_what_is_shown(project):
    assert figures.show(f"a mean of 0.854{MEAN}.", "a.md", project) == "a mean of 0.861."


def test_another_number_in_the_file_changes_the_page(project, monkeypatch):
    """As mkdocs makes it, which `make docs` installs."""
    pytest.importorskip("mkdocs")
    from tools import docs_pages

    monkeypatch.setattr(docs_pages, "ROOT", project)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))
    assert docs_pages.on_page_markdown(f"a mean of 0.854{MEAN}.", page, None, None) == "a mean of 0.861."


def test_another_number_in_the_file_is_told_and_written(project):
    with pytest.raises(DataError) as told:
        figures.check(project)
    assert told.value.lines() == [
        f"ERROR 2 README.md:3: 0.854 stands where {MEAN} says 0.861. Fix: run: python -m tools.figures"
    ]
    assert figures.write(project) == "1 figures changed"
    assert (project / "README.md").read_text() == f"# Title\n\nIt has 0.861{MEAN} of Dice.\n"
    assert figures.check(project) == "2 figures are those of their files"
    assert figures.write(project) == "0 figures changed"


def test_a_typed_figure_is_told_with_those_that_are_stale(project):
    with (project / "docs/page.md").open("a") as page:
        page.write("And 0.900.\n")
    with pytest.raises(DataError) as told:
        figures.check(project)
    assert [problem.path for problem in told.value.problems] == ["README.md:3", "docs/page.md:2"]


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("0.1", "test.volume.dice.mean", "0.861"),
        ("**0.1", "test.volume.dice.mean as .1f", "**0.9"),
        ("0.1 [0.0, 0.2]", "test.volume.dice", "0.861 [0.800, 0.900]"),
        ("0.1", "test.volume.dice as .2f", "0.86 [0.80, 0.90]"),
        ("from 0.3 to 0.1", "folds.1", "from 0.3 to 0.750"),
        ("+0.1", "test.gain as +.2f", "-0.01"),
        ("1.7e-06", "test.gain as .1e", "-1.0e-02"),
        ("12 %", "test.share as .0%", "39 %"),
        ("7", "test.volume.dice.n", "1,022"),
        ("no significant difference", "test.worst", "CS"),
        ("p < 0.001", "test.share", "p 0.391"),
    ],
)
def test_what_a_comment_makes_of_the_figure_before_it(before, path, after, project):
    comment = f"<!-- evaluation: {path} -->"
    assert figures.fill(f"{before}{comment} x", "a.md", project) == f"{after}{comment} x"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0.1<!-- evaluations: test.share -->", "evaluations: test.share --> cannot be read"),
        ("0.1<!-- evaluation: test.shares -->", "KeyError: 'shares'"),
        ("0.1<!-- evaluation: test.volume -->", "KeyError: 'mean'"),
        ("0.1<!-- evaluation: test.share as what -->", "cannot be read"),
        ("a mean<!-- evaluation: test.share -->", "no figure stands before"),
        ("<!-- figures: nothing -->\n<!-- end -->", "KeyError: 'nothing'"),
    ],
)
def test_a_comment_that_leads_nowhere_is_told_with_its_line(text, told, project):
    with pytest.raises(DataError, match=f"a.md:2: .*{re.escape(told)}"):
        figures.fill(f"\n{text}", "a.md", project)


def test_an_example_in_code_stays_and_is_shown(project):
    text = f"`0.1{MEAN}`\n\n```\n0.2{MEAN}\n```\n"
    assert figures.show(text, "a.md", project) == text


def test_comments_are_not_shown():
    text = "<!-- measured: once -->\n| 0.1 <!-- source: A --> | 2 |\n"
    assert figures.show(text, "a.md") == "\n| 0.1 | 2 |\n"


def found(text: str) -> list[str]:
    return [problem.what.split()[0] for problem in typed_figures.find(text, "a.md")]


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("a mean of 0.854 here", ["0.854"]),
        ("| **0.847 [0.820, 0.867]** | -0.5 |", ["0.847", "0.820", "0.867", "-0.5"]),
        ("it takes 66 minutes, at 31 images a second", ["66", "31"]),
        ("12 % of 1,234 ms, 3 h", ["12", "1,234"]),
        (f"0.854{MEAN} and 0.855", ["0.855"]),
        (f"0.853 and 0.854 [0.8, 0.9]{MEAN}", ["0.853"]),
        ("0.854<!-- evaluation -->", ["0.854"]),
        ("0.854<!-- measured: -->", ["0.854"]),
        (f"0.1{MEAN} 0.82 to 0.84<!-- source: Buda 2019 --> 0.3", ["0.3"]),
        ("0.1\n\n<!-- measured: commit 9c01037 -->\n| 0.2 |\n| 0.3 |\n\n0.4", ["0.1", "0.4"]),
        ("# A\n\n<!-- measured: commit 9c01037 -->\n\n0.1\n\n0.2\n\n## B\n\n0.3", ["0.3"]),
    ],
)
def test_figures_that_were_typed_are_found(text, typed):
    assert found(text) == typed


@pytest.mark.parametrize(
    "text",
    [
        f"0.854 [0.8, 0.9]{MEAN}",
        f"p < 0.001{MEAN}",
        "`train.dropout` is `0.1`, smooth=0.1",
        "```\n0.854\n```",
        "Python 3.11 to 3.13, numpy 2.1.0, CC BY-NC-SA 4.0, Apache-2.0",
        '[0 files](a/0.5.md) https://a.org/0.5 doi:10.1007/s11 <img width="74%">',
        "95 % intervals of 22 patients, below 5 %",
        "<!-- figures: speeds -->\n\n| 0.1 |\n\n<!-- end -->",
    ],
)
def test_what_is_no_figure_that_was_typed(text):
    assert found(text) == []


def test_the_line_is_told_below_code():
    (problem,) = typed_figures.find("```\na\nb\n```\n`c` 0.5", "a.md")
    assert problem.path == "a.md:5" and "<!-- measured: " in problem.fix
