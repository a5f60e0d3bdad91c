"""Each stage with 1, 10 and 100 times the slices of LGG: seconds a slice and memory, neither of which should grow.

Phantoms on a grid of 64 pixels, a small network for one epoch, the committed dvc.yaml: ``dvc repro`` runs each stage in
a copy of the project. A stage's seconds are those of its own process and of what that starts; what DVC adds (digests,
and the way into its cache) is told apart. Memory is the peak of what no file backs (RssAnon in /proc, so on Linux
alone): pages of memory maps count as resident too, but the system takes them away when it needs them.
`make bench SCALE=1`: half an hour, 25 GiB of the disk. `python benchmarks/scale.py --times 1 4`: less of it.
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
import scale_table
from preprocess import workspace
from scale_table import SLICES

from brainseg import hardware
from brainseg.experiments import demo

ROOT = Path(__file__).parents[1]
STAGES = ("download", "preprocess", "brains", "split", "train", "evaluate", "render", "export")
OF_EACH = 36  # slices of a patient, as LGG has them
SIZE = 64
PAUSE = 0.05  # seconds between two looks at the memory
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
    found: dict[str, dict[str, dict[str, float]]] = {}
    for times in given.times:
        found[f"{times:g}"] = {name: cost._asdict() for name, cost in measure(times).items()}
        if given.keep:  # what is measured stays if the next is stopped
            here = {"commit": results.commit(), "instruction_sets": list(hardware.instruction_sets()), "slices": SLICES}
            scale_table.KEPT.write_text(
                json.dumps(here | {"size": SIZE, "costs": found}, indent=2) + "\n", encoding="utf-8"
            )
    print(scale_table.show(found))


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
            found = list(of_stage(process.pid, stage))
            kept = [memory(each, is_alone=len(found) == 1) for each in found]
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


def memory(process: psutil.Process, *, is_alone: bool) -> tuple[float, float]:
    """MiB that no file backs, and all that is resident; 0 of a process that has ended.

    What several processes share, as one and its fork do, counts once: each has a part of it (Pss). That takes longer to
    read.
    """
    try:
        lines = Path(f"/proc/{process.pid}/{'status' if is_alone else 'smaps_rollup'}").read_text().splitlines()[1:]
    except OSError:
        return 0.0, 0.0
    sizes = {name: int(value.split()[0]) / 1024 for name, _, value in (line.partition(":") for line in lines)
             if "Rss" in name or "Pss" in name}  # fmt: skip
    if is_alone:
        return sizes.get("RssAnon", 0.0), sum(sizes.values())
    return sizes.get("Pss_Anon", 0.0), sizes.get("Pss", 0.0)


if __name__ == "__main__":
    main()
