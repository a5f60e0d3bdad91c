"""Count outcomes, keep the counts in docs/explanation/reliability.json, write their table into the page beside it."""

import contextlib
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from brainseg import files, hardware
from brainseg.experiments import demo

ROOT = Path(__file__).parents[2]
COUNTS, PAGE = ROOT / "docs/explanation/reliability.json", ROOT / "docs/explanation/reliability.md"
BEGIN, END = "<!-- counts: python -m tests.torture page -->", "<!-- end of counts -->"
EVERY = 20  # seconds between two lines of progress
KINDS = ("kills", "flips", "mutations", "full_disks", "together", "clean_home", "costs")


class Result(NamedTuple):
    """What became of one case. ``group``: what was hurt; ``most``: measured values, of which the largest is kept."""

    seed: int
    group: str
    outcome: str
    detail: str = ""
    most: Mapping[str, float] = MappingProxyType({})


def attempt_each(
    seeds: Iterable[int], prefix: Path, attempt: Callable[[int, Path], Result], good: frozenset[str]
) -> Iterator[Result]:
    """Call ``attempt`` for each seed with the folder ``PREFIX-SEED``, which is kept if the outcome is not good."""
    for seed in seeds:
        folder = prefix.with_name(f"{prefix.name}-{seed}")
        result = attempt(seed, folder)
        if result.outcome in good:
            shutil.rmtree(folder)
        yield result


def collect(kind: str, results: Iterable[Result], good: frozenset[str], count: int) -> dict[str, Any]:
    """Count the results of one kind and print failures and progress. Ctrl-C ends it; what was counted stays."""
    start = shown = time.monotonic()
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    most: dict[str, dict[str, float]] = defaultdict(dict)
    failures: list[dict[str, Any]] = []
    seeds: list[int] = []
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        for found in results:
            seeds.append(found.seed)
            done = found.seed - seeds[0] + 1  # a case may have several results
            groups[found.group][found.outcome] += 1
            for name, value in found.most.items():
                most[found.group][name] = max(value, most[found.group].get(name, value))
            if found.outcome not in good:
                failures.append({key: value for key, value in found._asdict().items() if key != "most"})
                print(f"FAILURE {kind} {found.seed}, {found.group}: {found.outcome}. {found.detail}", flush=True)
                print(f"        again: python -m tests.torture {kind} --only {found.seed}", flush=True)
            if time.monotonic() - shown > EVERY or done == count:
                shown = time.monotonic()
                total = sum(groups.values(), Counter())
                words = ", ".join(f"{outcome} {n:,}" for outcome, n in total.most_common())
                print(f"{kind} {done:,}/{count:,}, {(shown - start) / 60:.1f} min: {words}", flush=True)
    run = {
        "seeds": [min(seeds, default=0), max(seeds, default=-1)],
        "minutes": round((time.monotonic() - start) / 60, 1),
        "machine": hardware.kind(),
        "commit": demo.git(ROOT, "rev-parse", "--short", "HEAD").strip(),
    }
    for failure in failures:
        failure["commit"] = run["commit"]
    return {
        "runs": [run],
        "groups": {name: dict(groups[name].most_common()) for name in sorted(groups)},
        "largest": {name: {key: round(value, 4) for key, value in most[name].items()} for name in sorted(most)},
        "failures": failures,
    }


def record(kind: str, counted: dict[str, Any]) -> None:
    """Add the counts of one kind to those that are kept, and write the page again."""
    if not any(counted["groups"].values()):
        return
    kept = read()
    kept[kind] = add(kept[kind], counted) if kind in kept else counted
    files.write_text(COUNTS, json.dumps(kept, indent=1, allow_nan=False) + "\n")
    write_page()


def add(kept: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The counts of runs with other seeds together, so that hours can be run in parts.

    A case that failed and is run again at another commit takes the place of its failure. Other seeds that were counted
    before mean that all begins again. At the commit where a case failed nothing was repaired: its failure stays, since
    another draw of the same moment may miss the fault.
    """
    (run,) = new["runs"]
    first, last = run["seeds"]
    again = [failure for failure in kept["failures"] if first == last == failure["seed"]]
    stays = [failure for failure in kept["failures"] if failure.get("commit") == run["commit"]]
    if any(failure in stays for failure in again):
        print(f"not recorded: seed {first} failed at this commit, {run['commit']}", flush=True)
        return kept
    if not again and any(first <= end and begin <= last for begin, end in (each["seeds"] for each in kept["runs"])):
        return with_failures(new, stays)
    groups = {name: Counter(outcomes) for name, outcomes in kept["groups"].items()}
    for failure in again:
        groups[failure["group"]][failure["outcome"]] -= 1
    for name, outcomes in new["groups"].items():
        groups[name] = groups.get(name, Counter()) + Counter(outcomes)
    largest = {name: dict(values) for name, values in kept["largest"].items()}
    for name, values in new["largest"].items():
        for key, value in values.items():
            largest.setdefault(name, {})[key] = max(value, largest.get(name, {}).get(key, value))
    return {
        "runs": [*kept["runs"], run],
        "groups": {name: dict((+groups[name]).most_common()) for name in sorted(groups) if +groups[name]},
        "largest": {name: largest[name] for name in sorted(largest)},
        "failures": [failure for failure in kept["failures"] if failure not in again] + new["failures"],
    }


def with_failures(new: dict[str, Any], failures: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts, and earlier failures that they do not hold themselves, each as one case more."""
    found = {failure["seed"] for failure in new["failures"]}
    more = [failure for failure in failures if failure["seed"] not in found]
    groups = {name: Counter(outcomes) for name, outcomes in new["groups"].items()}
    for failure in more:
        groups.setdefault(failure["group"], Counter())[failure["outcome"]] += 1
    return new | {
        "groups": {name: dict(groups[name].most_common()) for name in sorted(groups)},
        "failures": more + new["failures"],
    }


def read() -> dict[str, Any]:
    return json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.exists() else {}


def write_page() -> None:
    """Replace what stands between the two marks of the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    files.write_text(PAGE, f"{before}{BEGIN}\n\n{table(read())}\n\n{END}{rest.partition(END)[2]}")


def table(counts: dict[str, Any]) -> str:
    """Markdown: a row for each group of each kind."""
    lines = ["| kind | what | cases | outcomes | largest | failures |", "| --- | --- | ---: | --- | --- | ---: |"]
    for kind in KINDS:
        found = counts.get(kind)
        if found is None:
            lines.append(f"| `{kind}` | not run yet | | | | |")
            continue
        for name, outcomes in found["groups"].items():
            failed = sum(failure["group"] == name for failure in found["failures"])
            words = ", ".join(f"{outcome} {n:,}" for outcome, n in outcomes.items())
            largest = ", ".join(f"{key} {value:g}" for key, value in found["largest"].get(name, {}).items())
            cells = (f"`{kind}`", name, f"{sum(outcomes.values()):,}", words, largest, f"{failed:,}")
            lines.append(f"| {' | '.join(cells)} |")
    made = [f"`{kind}` {_describe(run)}" for kind in KINDS if kind in counts for run in counts[kind]["runs"]]
    return "\n".join([*lines, "", f"Made: {'; '.join(made)}." if made else "Nothing is recorded yet."])


def _describe(run: dict[str, Any]) -> str:
    first, last = run["seeds"]
    seeds = f"seed {first:,}" if first == last else f"seeds {first:,} to {last:,}"
    return f"{seeds} on {run['machine']} at `{run['commit']}`, {run['minutes']:,} minutes"
