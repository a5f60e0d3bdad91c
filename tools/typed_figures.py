"""Find the figures of a document that were typed by hand: measured numbers that name neither a source nor a reason.

A figure is a decimal, or a number of percent, of a time or of a speed. Its source is a comment behind it
(``figures``). Without one it may stand where a mark gives the reason: ``<!-- measured: commit 9c01037, make repro -->``
for history, and for what no file is kept of; ``<!-- source: Buda et al. 2019 -->`` for numbers of others, goals and
limits. A mark covers what is before it in its line, back to another comment; alone on a line the paragraph or table
below; alone between empty lines all down to the next heading.

No figures: code, so a setting stands between backticks; addresses; versions; the levels of intervals and tests (95 %,
below 5 %).
"""

import re
from collections.abc import Iterator

from brainseg.errors import Problem

WRITTEN = {"docs/reference/model-card.md"}  # by brainseg card, from the same files
CODE = r"^```.*?^```|`[^`\n]+`"
VALUE = (  # what a source gives: a number, also as p or with its interval, or a verdict
    r"(?:(?:[<=] )?(?:(?<![\d.])[+-])?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?(?: %)?(?: \[[^]\n]*\])?"
    r"|better|worse|no significant difference|identical)"
)
SOURCE = (
    r"<!-- (?!(?:measured|source|figures|counts): )"
    r"(?P<source>[a-z][\w +-]*): (?P<path>[\w.]+)(?: as (?P<format>\S+))? -->"
)
MARK = r"<!-- (?:measured|source): \S.*?-->"
BLOCK = r"<!-- figures: (?P<block>\w+) -->\n(?P<rows>.*?)<!-- end -->"

PROGRAMS = "Python|Keras|TensorFlow|MLflow|JAX|Ray|OpenVINO|deepbet|SA|Apache|version|capability|OpenAPI"
UNITS = "%|(?:milli)?seconds?|minutes?|hours?|m?s|images(?: a second|/s)|[GT]FLOP"
FIGURE = re.compile(rf"(?<![\w.=])[+-]?(?:\d[\d,]*\.\d+|\d[\d,]*(?= (?:{UNITS})(?!\w)))(?:e[+-]\d+)?")
NO_FIGURES = re.compile(
    rf"{CODE}|{BLOCK}|<!-- counts: .*?<!-- end of counts -->"  # the last is written by tests.torture
    r"|\]\([^)\n]*\)|https?://\S+|doi:\S+|<[a-z/][^>]*>"
    rf"|\b(?:{PROGRAMS})[ -]\d[\d.]*(?: to \d[\d.]*)?|\b\d+(?:\.\d+){{2,}}"
    r"|\b95 %|\b(?:below|at) 5 %",
    re.M | re.S | re.I,
)
EXPLAINED = re.compile(rf"{VALUE}{SOURCE}")
COVERED = re.compile(rf"(?:(?!-->).)*{MARK}")  # from the line's start, or behind the comment before
FIX = (
    "name its source behind it, <!-- evaluation: test.volume.dice.mean -->, or why it has none, "
    "<!-- measured: commit, command --> (tools/typed_figures.py)"
)


def find(text: str, document: str) -> Iterator[Problem]:
    """Each figure without source or reason, as a problem that names its line."""
    if document in WRITTEN:
        return
    for number, line in _list_uncovered(_blank(text)):
        for figure in FIGURE.findall(COVERED.sub("", EXPLAINED.sub("<!-- -->", line))):
            yield Problem(f"{document}:{number}", f"{figure} was typed by hand: it names no source", FIX)


def _blank(text: str) -> str:
    """The text without what holds no figures. Each line keeps its number."""
    return NO_FIGURES.sub(lambda found: "x" + "\n" * found[0].count("\n"), text)


def _list_uncovered(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that no mark above them covers."""
    lines = ["", *text.splitlines(), ""]
    section = block = False
    for number, line in enumerate(lines[1:-1], 1):
        section = section and not line.startswith("#")
        block = block and bool(line.strip())
        if re.fullmatch(MARK, line.strip()):
            alone = not (lines[number - 1] + lines[number + 1]).strip()
            section, block = section or alone, block or not alone
        elif not (section or block):
            yield number, line
