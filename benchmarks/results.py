"""Rows of benchmarks: printed as a table, kept in results.json beside the machine and the commit."""

import json
import os
import platform
import subprocess
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from brainseg import files

PATH = Path(__file__).with_name("results.json")


class Row(NamedTuple):
    """``ratio`` is ours / peer, both medians of ``runs`` alternating runs."""

    id: str
    ours: float
    peer: float
    ratio: float
    unit: str
    runs: int
    higher_is_better: bool


def row(name: str, ours: list[float], peer: list[float], unit: str, higher_is_better: bool) -> Row:
    """A row from the runs' numbers."""
    mine, other = median(ours), median(peer)
    return Row(name, round(mine, 3), round(other, 3), round(mine / other, 3), unit, len(ours), higher_is_better)


def show(rows: list[Row]) -> None:
    """Print the table."""
    print(f"\n{'benchmark':<24}{'ours':>12}{'peer':>12}{'ratio':>8}  {'unit':<10}runs  better")
    for each in rows:
        numbers = f"{each.ours:>12,.1f}{each.peer:>12,.1f}{each.ratio:>8.2f}  {each.unit:<10}{each.runs:>4}"
        print(f"{each.id:<24}{numbers}  {'higher' if each.higher_is_better else 'lower'}")


def save(rows: list[Row]) -> None:
    """Put the rows into results.json in place of earlier ones of the same ids."""
    kept = json.loads(PATH.read_text(encoding="utf-8"))["rows"] if PATH.exists() else []
    merged = {each["id"]: each for each in [*kept, *(each._asdict() for each in rows)]}
    report = {"machine": _machine(), "commit": _commit(), "rows": [merged[name] for name in sorted(merged)]}
    files.write_text(PATH, json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _machine() -> str:
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    processor, memory = names[0] if names else platform.processor(), psutil.virtual_memory().total / 2**30
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _commit() -> str | None:
    answer = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
