"""Write the figures of the documents from the files of results: ``python -m tools.figures``, after one has changed.

In README.md and docs/ a comment behind a figure, which no reader sees, names a source of ``figure_sources``, a path in
it and, where three decimals are not meant, a format: ``0.854<!-- evaluation: test.volume.dice.mean -->``,
``10.2 [7.7, 14.6]<!-- evaluation: test.slice.hd95 as .1f -->``. A whole table stands between
``<!-- figures: NAME -->`` and ``<!-- end -->``. ``--check`` changes nothing and names each figure that is not what its
file says, or has no source (``typed_figures``). The site is built from the files, whatever stands in the text.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from brainseg import errors, files
from brainseg.errors import DataError, Problem
from tools import figure_sources, typed_figures
from tools.typed_figures import BLOCK, CODE, SOURCE, VALUE

ROOT = Path(__file__).parents[1]
FIX = "run: python -m tools.figures"
FIGURE = re.compile(rf"{CODE}|(?P<value>{VALUE})?{SOURCE}|{BLOCK}", re.M | re.S)
HIDDEN = re.compile(rf"({CODE})|[ \t]*<!-- .*? -->", re.M | re.S)  # an example of a comment, in code, is not one


class Figure(NamedTuple):
    """What stands at ``start`` to ``end`` of a text, on the line ``where``, and what its source says."""

    start: int
    end: int
    where: str
    source: str
    stands: str
    says: str


def list_documents(root: Path = ROOT) -> list[str]:
    return ["README.md", *sorted(path.relative_to(root).as_posix() for path in root.glob("docs/**/*.md"))]


def fill(text: str, document: str, root: Path = ROOT) -> str:
    """The text with each figure as its source has it. Raises DataError as ``find`` does."""
    for figure in reversed(list(find(text, document, root))):
        text = text[: figure.start] + figure.says + text[figure.end :]
    return text


def show(text: str, document: str, root: Path = ROOT) -> str:
    """The text for a page: figures of their files, no comments, which above a table would hinder it from being one."""
    return HIDDEN.sub(lambda found: found[1] or "", fill(text, document, root))


def find(text: str, document: str, root: Path = ROOT) -> Iterator[Figure]:
    """Each figure of a text that has a source, in their order.

    Raises:
        DataError: there is no such source, path or format, or no figure before the comment. It names the line.
        IntegrityError: files of one run do not fit each other.
    """
    for found, where in _list_sources(text, document):
        yield _read(found, where, root)


def _list_sources(text: str, document: str) -> Iterator[tuple[re.Match[str], str]]:
    """What names a source, and the line that it stands on."""
    for found in FIGURE.finditer(text):
        if found["source"] or found["block"]:  # else code
            yield found, f"{document}:{text.count(chr(10), 0, found.start()) + 1}"


def _read(found: re.Match[str], where: str, root: Path) -> Figure:
    part = "rows" if found["block"] else "value"
    source = found[0][found[0].index("<!--") :].split("\n")[0]
    if found[part] is None:
        raise DataError(where, f"no figure stands before {source}", f"write any, as 0, and {FIX}")
    try:
        says = _show_block(found["block"], root) if found["block"] else _show(found, root)
    except (LookupError, ValueError, TypeError, OSError, DataError) as error:
        what = f"{source} cannot be read ({type(error).__name__}: {error})"
        raise DataError(where, what, "name a source of tools/figure_sources.py and a path in it") from None
    return Figure(*found.span(part), where, source, found[part], says)


def _show_block(name: str, root: Path) -> str:
    return f"\n{figure_sources.BLOCKS[name](root)}\n\n"


def _show(found: re.Match[str], root: Path) -> str:
    """The value of a source as it stands in the text. A difference has its sign."""
    value = figure_sources.read(found["source"], root)
    for step in found["path"].split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return _format(value, found["format"] or ("+.3f" if found["source"].startswith("compare") else ".3f"))


def _format(value: Any, form: str) -> str:
    """A word as it is, a count with commas, a number in the format, of a mean its interval as well."""
    if isinstance(value, dict):
        mean, lo, hi = (format(value[name], form) for name in ("mean", "lo", "hi"))
        return f"{mean} [{lo}, {hi}]"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else format(value, form).replace("%", " %")


def write(root: Path = ROOT) -> str:
    """Write all figures into the documents, or none; say how many were others. Raises DataError as ``find`` does."""
    changed, texts = 0, {}
    for document in list_documents(root):
        text = (root / document).read_text(encoding="utf-8")
        if stale := sum(figure.stands != figure.says for figure in find(text, document, root)):
            texts[document] = fill(text, document, root)
            changed += stale
    for document, text in texts.items():
        files.write_text(root / document, text)
    return f"{changed} figures changed"


def check(root: Path = ROOT) -> str:
    """Look at all documents and say how many figures have a source.

    Raises:
        DataError: naming each figure that is not what its source says, or whose source cannot be read, and each that
            has none.
    """
    problems, count = [], 0
    for document in list_documents(root):
        text = (root / document).read_text(encoding="utf-8")
        for found, where in _list_sources(text, document):
            problems += _examine(found, where, root)
            count += 1
        problems += typed_figures.find(text, document)
    errors.raise_all(problems)
    return f"{count} figures are those of their files"


def _examine(found: re.Match[str], where: str, root: Path) -> list[Problem]:
    try:
        figure = _read(found, where, root)
    except DataError as error:
        return list(error.problems)
    return [_describe(figure)] if figure.stands != figure.says else []


def _describe(stale: Figure) -> Problem:
    """A figure that is not what its source says; of a table its place alone."""
    if "\n" in stale.says:
        return Problem(stale.where, f"the table of {stale.source} is not that of its files", FIX)
    return Problem(stale.where, f"{stale.stands} stands where {stale.source} says {stale.says}", FIX)


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit("usage: python -m tools.figures [--check]")
    errors.run(lambda: print(check() if sys.argv[1:] else write()))
