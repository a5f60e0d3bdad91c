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
    """``ratio`` is ours / peer, both medians of ``runs`` alternating runs; None where there is no peer."""

    id: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str
    runs: int
    higher_is_better: bool


def row(name: str, ours: list[float], peer: list[float], unit: str, higher_is_better: bool) -> Row:
    """A row from the runs' numbers."""
    mine, other = median(ours), median(peer)
    return Row(name, round(mine, 3), round(other, 3), round(mine / other, 3), unit, len(ours), higher_is_better)


def absolute(name: str, ours: list[float], unit: str, higher_is_better: bool) -> Row:
    """A row without a peer."""
    return Row(name, round(median(ours), 3), None, None, unit, len(ours), higher_is_better)


def show(rows: list[Row]) -> None:
    """Print the table."""
    print(f"\n{'benchmark':<24}{'ours':>12}{'peer':>12}{'ratio':>8}  {'unit':<10}runs  better")
    for each in rows:
        peer = f"{'-':>12}{'-':>8}" if each.peer is None else f"{each.peer:>12,.1f}{each.ratio:>8.2f}"
        numbers = f"{each.ours:>12,.1f}{peer}  {each.unit:<10}{each.runs:>4}"
        print(f"{each.id:<24}{numbers}  {'higher' if each.higher_is_better else 'lower'}")


def save(rows: list[Row]) -> None:
    """Put the rows into results.json, each with its commit. Earlier ones of this machine stay, if their ids are others.

    A whole `make bench` takes an hour, and an edit of the page does not change how fast a network trains.
    """
    here = {"machine": _machine(), "commit": _commit()}
    before = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {"rows": []}
    same = before.get("machine") == here["machine"]
    kept = [{"commit": before["commit"], **each} for each in before["rows"]] if same else []
    new = [each._asdict() | {"commit": here["commit"]} for each in rows]
    merged = {each["id"]: each for each in [*kept, *new]}
    report = here | {"rows": [merged[name] for name in sorted(merged)]}
    files.write_text(PATH, json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _machine() -> str:
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    processor, memory = names[0] if names else platform.processor(), psutil.virtual_memory().total / 2**30
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _commit() -> str | None:
    """The short commit, with ``-dirty`` where tracked files, results.json apart, are not the commit's."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude){PATH.name}")
    return f"{commit}-dirty" if changed else commit or None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PATH.parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
