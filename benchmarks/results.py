"""Rows of benchmarks: printed as a table, and kept with machine and commit in results/<kind of machine>.json.

``python benchmarks/results.py`` prints the table of all kinds of machine that is in docs/explanation/machines.md.
"""

import json
import os
import platform
import subprocess
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from brainseg import files, hardware

FOLDER = Path(__file__).with_name("results")


class Row(NamedTuple):
    """``ratio`` is ours / peer; both are medians of ``runs`` runs, in turn. None: without a peer."""

    id: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str
    runs: int
    higher_is_better: bool
    note: str = ""  # what each side computed with


def row(name: str, ours: list[float], peer: list[float], unit: str, higher_is_better: bool, note: str = "") -> Row:
    """A row with a peer, from the values of all runs."""
    mine, other = median(ours), median(peer)
    return Row(name, round(mine, 3), round(other, 3), round(mine / other, 3), unit, len(ours), higher_is_better, note)


def absolute(name: str, ours: list[float], unit: str, higher_is_better: bool) -> Row:
    """A row without a peer, from the values of all runs."""
    return Row(name, round(median(ours), 3), None, None, unit, len(ours), higher_is_better)


def show(rows: list[Row]) -> None:
    """Print the table."""
    print(f"\n{'benchmark':<24}{'ours':>12}{'peer':>12}{'ratio':>8}  {'unit':<10}runs  better")
    for each in rows:
        peer = f"{'-':>12}{'-':>8}" if each.peer is None else f"{each.peer:>12,.1f}{each.ratio:>8.2f}"
        numbers = f"{each.ours:>12,.1f}{peer}  {each.unit:<10}{each.runs:>4}"
        print(f"{each.id:<24}{numbers}  {'higher' if each.higher_is_better else 'lower'}")


def path() -> Path:
    """The file of this kind of machine."""
    return FOLDER / f"{hardware.kind()}.json"


def save(rows: list[Row]) -> None:
    """Write the rows, each with its commit, into the file of this kind of machine. Its other rows stay.

    They stay because a whole `make bench` takes an hour, and most commits change few of the figures.
    """
    here = {"machine": _machine(), "instruction_sets": list(hardware.instruction_sets()), "commit": commit()}
    before = json.loads(path().read_text(encoding="utf-8")) if path().exists() else {"rows": []}
    same = before.get("machine") == here["machine"]
    kept = [{"commit": before["commit"], **each} for each in before["rows"]] if same else []
    new = [each._asdict() | {"commit": here["commit"]} for each in rows]
    merged = {each["id"]: each for each in [*kept, *new]}
    report = here | {"rows": [merged[name] for name in sorted(merged)]}
    path().parent.mkdir(exist_ok=True)
    files.write_text(path(), json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def table() -> str:
    """A Markdown table with a column for each kind of machine: ours, and ours / peer in brackets."""
    kinds = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}
    found = {kind: {row["id"]: row for row in report["rows"]} for kind, report in kinds.items()}
    units = {name: row["unit"] for rows in found.values() for name, row in rows.items()}
    lines = ["", "---", *(f"`{name}` ({units[name]})" for name in sorted(units))]
    for kind, rows in found.items():
        cells = [_cell(rows.get(name)) for name in sorted(units)]
        lines = [f"{line} | {cell}" for line, cell in zip(lines, [f"`{kind}`", "---", *cells], strict=True)]
    return "\n".join(f"| {line} |" for line in lines)


def _cell(row: dict | None) -> str:
    if row is None:
        return "not measured"
    ours = f"{row['ours']:,.1f}" if row["ours"] >= 1 else f"{row['ours']:.2f}"
    return f"{ours} ({row['ratio']:.2f})" if row["ratio"] is not None else ours


def _machine() -> str:
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    processor, memory = names[0] if names else platform.processor(), psutil.virtual_memory().total / 2**30
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def commit() -> str | None:
    """The short commit, with ``-dirty`` if tracked files differ from it; files of results do not count."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude){FOLDER.name}")
    return f"{commit}-dirty" if changed else commit or None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(FOLDER.parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    print(table())
