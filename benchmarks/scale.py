"""Each stage with 1, 10 and 100 times the slices of LGG: seconds a slice and memory, neither of which should grow.

Phantoms on a grid of 64 pixels, a small network for one epoch, the committed dvc.yaml: ``dvc repro`` runs each stage in
a copy of the project. A stage's seconds are those of its own process and of what that starts; what DVC adds (digests,
and the way into its cache) is told apart. Memory is the peak of what no file backs (RssAnon in /proc, so on Linux
alone): pages of memory maps count as resident too, but the system takes them away when it needs them.
`make bench SCALE=1`: hours for 100 times. `python benchmarks/scale.py --times 1 4`: less of it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import results
from preprocess import workspace

from brainseg import hardware
from brainseg.experiments import demo

ROOT = Path(__file__).parents[1]
STAGES = ("download", "preprocess", "brains", "split", "train", "evaluate", "render", "export")
SLICES, OF_EACH = 3929, 20  # of LGG; about so many of a phantom
SIZE = 64
PAUSE = 0.05  # seconds between two looks at the memory
OUT = Path(__file__).with_name("scale.json")
SMALL = {
    "download": {"source": "phantom"},
    "preprocess": {"size": SIZE},
    "train": {"epochs": 1, "batch_size": 16, "threads": 1},
    "network": {"filters": 16, "depth": 2},
    "export": {"calibration_slices": 64},
}


class Cost(NamedTuple):
    """Of one stage: seconds of the stage and of all of ``dvc repro``, peak MiB without memory maps, and with them."""

    seconds: float
    with_dvc: float
    anonymous: float
    resident: float


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--times", type=float, nargs="+", default=[1, 10, 100])
    options.add_argument("--keep", action="store_true", help="write benchmarks/scale.json")
    given = options.parse_args()
    found = {times: measure(times) for times in given.times}
    show(found)
    if given.keep:
        told = {str(times): {name: cost._asdict() for name, cost in costs.items()} for times, costs in found.items()}
        here = {"commit": results.commit(), "instruction_sets": list(hardware.instruction_sets()), "slices": SLICES}
        OUT.write_text(json.dumps(here | {"size": SIZE, "costs": told}, indent=2) + "\n", encoding="utf-8")


def measure(times: float) -> dict[str, Cost]:
    """All stages once, with ``times`` as many slices as LGG has."""
    found = {}
    with workspace() as work:
        tree = work / "project"
        demo.copy_tracked(ROOT, tree)
        drawn = {"patients": round(times * SLICES / OF_EACH), "slices": OF_EACH, "size": SIZE}
        demo.override(tree / "params.yaml", SMALL | {"phantom": drawn})
        demo.commit(tree)
        for stage in STAGES:
            found[stage] = run(stage, tree)
            cost = found[stage]
            print(f"{times:g} times, {stage}: {cost.seconds:.1f} s, {cost.anonymous:.0f} MiB", flush=True)
    return found


def run(stage: str, tree: Path) -> Cost:
    """One stage by DVC. Raises CalledProcessError: it failed; its output stands above."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    started = time.perf_counter()
    first = last = anonymous = resident = 0.0
    with subprocess.Popen(command, cwd=tree, env=demo.environment(), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            kept = [memory(each) for each in of_stage(process.pid, stage)]
            if kept:
                last = time.perf_counter()
                first = first or last
                anonymous = max(anonymous, sum(each[0] for each in kept))
                resident = max(resident, sum(each[1] for each in kept))
            time.sleep(PAUSE)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(last - first, time.perf_counter() - started, anonymous, resident)


def of_stage(pid: int, stage: str) -> Iterator[psutil.Process]:
    """The process of the stage, and those that it started."""
    try:
        below = psutil.Process(pid).children(recursive=True)
        whole = [each for each in below if f"stages/{stage}.py" in each.cmdline()]
        for each in whole:
            yield each
            yield from each.children(recursive=True)
    except psutil.Error:  # one has just ended
        return


def memory(process: psutil.Process) -> tuple[float, float]:
    """MiB that no file backs, and all that is resident; 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {
        name: int(value.split()[0]) / 1024
        for name, _, value in (line.partition(":") for line in lines)
        if "Rss" in name
    }
    return sizes.get("RssAnon", 0.0), sum(sizes.values())


def show(found: dict[float, dict[str, Cost]]) -> None:
    """A table: for each number of slices, milliseconds a slice, of that DVC's, and MiB."""
    print(f"\n{'stage':<12}" + "".join(f"{f'{times:g} times':>34}" for times in found))
    print(f"{'':<12}" + f"{'ms a slice':>12}{'DVC adds':>10}{'MiB':>12}" * len(found))
    for stage in STAGES:
        cells = (describe(costs[stage], times * SLICES) for times, costs in found.items())
        print(f"{stage:<12}{''.join(cells)}")


def describe(cost: Cost, slices: float) -> str:
    milliseconds = 1000 / slices
    added = cost.with_dvc - cost.seconds
    return f"{milliseconds * cost.seconds:>12.2f}{milliseconds * added:>10.2f}{cost.anonymous:>12.0f}"


if __name__ == "__main__":
    main()
