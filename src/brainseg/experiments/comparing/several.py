"""Several runs, each compared with the first: p-values corrected for their number; as a table, as JSON, as a page.

With ten runs that are as good as the first, a test at 5 % each would call one of them better or worse in up to 40 %
of the cases. Corrected by Holm, it is at most 5 % in all.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainseg import files
from brainseg.errors import DataError, Problem, raise_all
from brainseg.experiments import comparison
from brainseg.experiments.comparing import comparison_page
from brainseg.experiments.comparison import IDENTICAL, Comparison, Difference, Scores
from brainseg.reporting import pages
from brainseg.reporting.pages import format_number

HEAD = ("", "Dice", "B - A [95 %]", "p corrected", "verdict", "p alone", "median", "better/worse/equal", "detectable")


class SeveralComparisons(NamedTuple):
    """Comparisons with one run: each ``p``, and with it the verdict, is corrected for their number.

    ``alone``: for each comparison, metric -> p before that. ``warnings``: of all, each with the run that it is about.
    """

    a: str
    pairs: list[Comparison]
    alone: list[dict[str, float]]
    warnings: list[str]


def compare(
    first: Scores, others: Sequence[Scores], *, suggest: Callable[[Scores, Scores], str] = comparison.describe_one_split
) -> SeveralComparisons:
    """Compare each of ``others`` with ``first``. Each metric is corrected for itself; volume Dice decides.

    Raises:
        DataError: see ``comparison.compare``; all runs that cannot be compared.
    """
    pairs: list[Comparison] = []
    problems: list[Problem] = []
    for other in others:
        try:
            pairs.append(comparison.compare(first, other, suggest=suggest, comparisons=len(others)))
        except DataError as error:
            problems += error.problems
    raise_all(problems)
    alone = [{d.metric: d.p for d in pair.differences} for pair in pairs]
    columns = [_correct(column) for column in zip(*(pair.differences for pair in pairs), strict=True)]
    corrected = [pair._replace(differences=[column[i] for column in columns]) for i, pair in enumerate(pairs)]
    own = [f"{pair.b}: {text}" for pair in pairs for text in pair.warnings if text not in first.warnings]
    return SeveralComparisons(first.name, corrected, alone, [*first.warnings, *own])


def _correct(differences: Sequence[Difference]) -> list[Difference]:
    """One metric of all runs, with corrected p-values and the verdicts that follow from them."""
    corrected = correct([d.p for d in differences])
    return [
        d._replace(p=p, verdict=IDENTICAL if d.verdict == IDENTICAL else comparison.decide(d.lo, d.hi, p))
        for d, p in zip(differences, corrected, strict=True)
    ]


def correct(p: Sequence[float]) -> list[float]:
    """p-values by Holm's step-down method (Holm 1979, Scand. J. Stat. 6:65; in R ``p.adjust(p, "holm")``).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none falls below a smaller one or exceeds 1.
    SciPy has the rate of false discoveries (``false_discovery_control``), which is another promise: it allows a share
    of the verdicts to be wrong, Holm that any is, in 5 % of the cases.
    """
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, float)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()


def format_table(s: SeveralComparisons) -> str:
    """What `brainseg compare A B C ...` prints."""
    first = ("A", format_number(s.pairs[0].differences[0].mean_a))
    rows = [HEAD, first + ("",) * (len(HEAD) - 2), *_rows(s)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        f"A: {s.a}",
        *(f"WARNING: {warning}" for warning in s.warnings),
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        "",
        *_explain(s),
        "",
        *(f"{pair.b}: {_format_params(pair)}" for pair in s.pairs),
        "",
        conclude(s),
    ]  # fmt: skip
    return "\n".join(lines)


def _rows(s: SeveralComparisons) -> list[tuple[str, ...]]:
    """A row for each run, of volume Dice."""
    rows: list[tuple[str, ...]] = []
    for pair, alone in zip(s.pairs, s.alone, strict=True):
        d = pair.differences[0]
        _, _, mean, interval, median, p, counts, detectable = comparison_page.format_row(d)
        before = comparison_page.format_p(alone[d.metric])
        rows.append((pair.b, mean, interval, p, d.verdict, before, median, counts, detectable))
    return rows


def _explain(s: SeveralComparisons) -> list[str]:
    many = len(s.pairs)
    few = any(np.isnan(pair.differences[0].detectable) and pair.verdict != IDENTICAL for pair in s.pairs)
    return [
        f"Volume Dice decides. p is corrected for {many} comparisons (Holm), the intervals are not.",
        f"Detectable: the true mean difference that is found in 4 of 5 comparisons like this one, of {many} together.",
        *([f"Where fewer than {comparison.count_fewest(many)} patients differ no verdict is possible."] if few else []),
    ]


def _format_params(pair: Comparison) -> str:
    show = comparison_page.format_param
    changed = [f"{key} {show(old)} -> {show(new)}" for key, (old, new) in pair.params.items()]
    return ", ".join(changed) or "the same parameters"


def conclude(s: SeveralComparisons) -> str:
    """The verdicts, each with its runs, and a reminder if there are warnings."""
    runs: dict[str, list[str]] = {}
    for pair in s.pairs:
        runs.setdefault(pair.verdict, []).append(pair.b)
    verdicts = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in runs.items())
    reminder = " Read the warnings: this may not be a fair comparison." if s.warnings else ""
    return f"Compared with {s.a}: {verdicts}.{reminder}"


def format_json(s: SeveralComparisons) -> str:
    """All comparisons as strict JSON: each ``p`` corrected, ``p_alone`` before that; null for what is undefined."""
    runs = []
    for pair, alone in zip(s.pairs, s.alone, strict=True):
        run = comparison_page.describe_run(pair)
        metrics = {metric: {**values, "p_alone": alone[metric]} for metric, values in run["metrics"].items()}
        runs.append({**run, "metrics": metrics})
    content = {"a": s.a, "correction": "Holm", "sentence": conclude(s), "warnings": s.warnings, "runs": runs}
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)


def write(s: SeveralComparisons, path: Path) -> None:
    """One self-contained HTML file: the table, then each run's paired dot plot, numbers and parameters."""
    runs = [(pair, comparison_page.draw(pair), _metric_rows(pair, p)) for pair, p in zip(s.pairs, s.alone, strict=True)]
    template = pages.load_template("several.html.j2", shown=comparison_page.format_param)
    facts = {"s": s, "sentence": conclude(s), "head": HEAD, "rows": _rows(s), "notes": _explain(s), "runs": runs}
    files.write_text(path, template.render(facts, mean_a=format_number(s.pairs[0].differences[0].mean_a)))


def _metric_rows(pair: Comparison, alone: dict[str, float]) -> list[tuple[str, ...]]:
    """A row for each metric of one run."""
    rows = []
    for d in pair.differences:
        *before, p, counts, detectable = comparison_page.format_row(d)
        rows.append((*before, comparison_page.format_p(alone[d.metric]), p, counts, detectable))
    return rows
