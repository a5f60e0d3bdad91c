"""A comparison as a table for the terminal, as JSON, and as an HTML page with a paired dot plot."""

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from brainseg import files
from brainseg.experiments import comparison
from brainseg.experiments.comparison import ABSENT, FEWEST, IDENTICAL, NOT_SIGNIFICANT, Comparison, Difference
from brainseg.reporting import pages
from brainseg.reporting.pages import format_number

NAMES = {
    "dice": "volume Dice",
    "iou": "volume IoU",
    "flair_only_dice": "Dice, FLAIR alone",
    "stripped_dice": "Dice, no scalp",
}
CHANGED = 5  # patients with the largest change, named in the terminal


def conclude(c: Comparison) -> str:
    """The verdict as a sentence with its numbers, and a reminder if there are warnings."""
    return _describe_verdict(c) + (" Read the warnings: this may not be a fair comparison." if c.warnings else "")


def _describe_verdict(c: Comparison) -> str:
    d = c.differences[0]
    if d.verdict == IDENTICAL:
        return f"{c.b} and {c.a} score the same in each of {d.n + d.undefined} patients."
    found = f"{c.b} compared with {c.a} (volume Dice, {d.n} patients): {comparison.describe(d)}."
    if d.verdict != NOT_SIGNIFICANT:
        return found
    if pd.isna(d.detectable):
        return f"{found} {d.wins + d.losses} patients differ; with fewer than {FEWEST} no verdict is possible."
    return (
        f"{found} With patients like these a true difference of {format_number(d.detectable)} is found in 4 of 5 "
        f"comparisons, a smaller one less often."
    )


def format_table(c: Comparison) -> str:
    """What `brainseg compare` prints."""
    head = ("", "A", "B", "B - A [95 %]", "median", "p", "better/worse/equal", "detectable")
    rows = [head, *(format_row(d) for d in c.differences)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    most = c.patients[c.patients["difference"].abs() > 0].head(CHANGED)
    lines = [
        f"A: {c.a}",
        f"B: {c.b}",
        *(f"WARNING: {warning}" for warning in c.warnings),
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        "",
        "Volume Dice decides. Detectable: the true mean difference that is found in 4 of 5 comparisons like this one.",
        *([] if c.params else ["Parameters: the same"]),
        *(f"Parameter {key}: {format_param(old)} -> {format_param(new)}" for key, (old, new) in c.params.items()),
        *(["Largest changes (volume Dice):"] if len(most) else []),
        *(f"  {row.patient:<26}{format_number(row.a)} -> {format_number(row.b)}  "
          f"{comparison.format_signed(row.difference)}" for row in most.itertuples()),
        "",
        conclude(c),
    ]  # fmt: skip
    return "\n".join(lines)


def format_json(c: Comparison) -> str:
    """The whole comparison as strict JSON, null for what is undefined."""
    content = {"a": c.a, **describe_run(c)}
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)


def describe_run(c: Comparison) -> dict[str, Any]:
    """What JSON says of B."""
    return {
        "b": c.b,
        "verdict": c.verdict,
        "sentence": conclude(c),
        "warnings": c.warnings,
        "params": {key: {"a": old, "b": new} for key, (old, new) in c.params.items()},
        "metrics": {
            d.metric: _nan_to_none({k: v for k, v in d._asdict().items() if k != "metric"}) for d in c.differences
        },
        "patients": [_nan_to_none(row) for row in c.patients.to_dict("records")],
    }


def _nan_to_none(values: dict[str, Any]) -> dict[str, Any]:
    """The values with all their digits (a p of 1e-20 is not 0), None for NaN."""
    return {name: None if pd.isna(value) else value for name, value in values.items()}


def write(c: Comparison, path: Path) -> None:
    """One self-contained HTML file: verdict, paired dot plot, table, parameters, all patients."""
    facts = {"c": c, "sentence": conclude(c), "rows": [format_row(d) for d in c.differences], "picture": draw(c)}
    template = pages.load_template(
        "comparison.html.j2", number=format_number, signed=comparison.format_signed, shown=format_param
    )
    files.write_text(path, template.render(facts))


def draw(c: Comparison) -> str:
    """The paired dot plot as PNG in base64."""
    from brainseg.reporting import charts  # imports matplotlib, which takes a second

    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "paired.png"
        charts.draw_pairs(c.patients, (c.a, c.b), picture, dpi=120)
        return base64.b64encode(picture.read_bytes()).decode()


def format_row(d: Difference) -> tuple[str, ...]:
    counts = f"{d.wins}/{d.losses}/{d.ties}" + (f" ({d.undefined} undefined)" if d.undefined else "")
    name = NAMES.get(d.metric, d.metric)
    detectable = "-" if d.verdict == IDENTICAL else format_number(d.detectable)
    means = format_number(d.mean_a), format_number(d.mean_b), comparison.format_interval(d)
    return name, *means, comparison.format_signed(d.median), format_p(d.p), counts, detectable


def format_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_param(value: Any) -> str:
    return value if value is ABSENT else json.dumps(value)
