"""A comparison for people: a table for the terminal, JSON, and a page with a paired dot plot."""

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from brainseg import files
from brainseg.experiments.comparison import ABSENT, FEWEST, IDENTICAL, NOT_TOLD_APART, Comparison, Difference
from brainseg.reporting import charts, pages
from brainseg.reporting.report import number

MOVED = 5  # patients that moved most, named in the terminal


def sentence(c: Comparison) -> str:
    """The verdict in words, with what it rests on, and that there are warnings."""
    return _verdict(c) + (" Mind the warnings: this may not be a fair comparison." if c.warnings else "")


def _verdict(c: Comparison) -> str:
    d = c.differences[0]
    if d.verdict == IDENTICAL:
        return f"{c.b} and {c.a} score the same in each of {d.n + d.undefined} patients."
    what = f"volume Dice {signed(d.mean)} [{signed(d.lo)}, {signed(d.hi)}], p {probability(d.p)}, {d.n} patients"
    if d.verdict != NOT_TOLD_APART:
        return f"{c.b} is {d.verdict} than {c.a}: {what}."
    if pd.isna(d.detectable):
        few = f"{d.wins + d.losses} patients differ; with fewer than {FEWEST} no verdict is possible."
        return f"{c.b} and {c.a} are not told apart: {what}. {few}"
    return (
        f"{c.b} and {c.a} are not told apart: {what}. With so many such patients a true difference of "
        f"{number(d.detectable)} is found in 4 of 5 comparisons, a smaller one less often."
    )


def table(c: Comparison) -> str:
    """What `brainseg compare` prints."""
    head = ("", "A", "B", "B - A [95 %]", "median", "p", "better/worse/equal", "detectable")
    rows = [head, *(_row(d) for d in c.differences)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    moved = c.patients[c.patients["difference"].abs() > 0].head(MOVED)
    lines = [
        f"A: {c.a}",
        f"B: {c.b}",
        *(f"WARNING: {warning}" for warning in c.warnings),
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        "",
        "Volume Dice decides. Detectable: the true mean difference that 4 of 5 comparisons of such patients find.",
        *([] if c.params else ["Parameters: the same"]),
        *(f"Parameter {key}: {shown(old)} -> {shown(new)}" for key, (old, new) in c.params.items()),
        *(["Moved most (volume Dice):"] if len(moved) else []),
        *(f"  {row.patient:<26}{number(row.a)} -> {number(row.b)}  {signed(row.difference)}"
          for row in moved.itertuples()),
        "",
        sentence(c),
    ]  # fmt: skip
    return "\n".join(lines)


def as_json(c: Comparison) -> str:
    """Strict JSON: all of the comparison, null for what is undefined."""
    content = {
        "a": c.a,
        "b": c.b,
        "verdict": c.verdict,
        "sentence": sentence(c),
        "warnings": c.warnings,
        "params": {key: {"a": old, "b": new} for key, (old, new) in c.params.items()},
        "metrics": {d.metric: _defined({k: v for k, v in d._asdict().items() if k != "metric"}) for d in c.differences},
        "patients": [_defined(row) for row in c.patients.to_dict("records")],
    }
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)


def _defined(values: dict[str, Any]) -> dict[str, Any]:
    """All digits (a p of 1e-20 is not 0), null for NaN."""
    return {name: None if pd.isna(value) else value for name, value in values.items()}


def write(c: Comparison, path: Path) -> None:
    """One self-contained HTML file: verdict, paired dot plot, table, parameters, all patients."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "paired.png"
        charts.paired(c.patients, (c.a, c.b), picture, dpi=120)
        png = base64.b64encode(picture.read_bytes()).decode()
    facts = {"c": c, "sentence": sentence(c), "rows": [_row(d) for d in c.differences], "picture": png}
    template = pages.template("comparison.html.j2", number=number, signed=signed, shown=shown)
    files.write_text(path, template.render(facts))


def _row(d: Difference) -> tuple[str, ...]:
    interval = f"{signed(d.mean)} [{signed(d.lo)}, {signed(d.hi)}]"
    counts = f"{d.wins}/{d.losses}/{d.ties}" + (f" ({d.undefined} undefined)" if d.undefined else "")
    name = "volume Dice" if d.metric == "dice" else "volume IoU" if d.metric == "iou" else d.metric
    seen = "-" if d.verdict == IDENTICAL else number(d.detectable)
    return name, number(d.mean_a), number(d.mean_b), interval, signed(d.median), probability(d.p), counts, seen


def signed(value: float) -> str:
    return "undefined" if pd.isna(value) else f"{value + 0.0:+.3f}"


def probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def shown(value: Any) -> str:
    return value if value is ABSENT else json.dumps(value)
