"""The table of ``benchmarks/scale.py``; as a script: of what it has kept."""

import json
from pathlib import Path

SLICES = 3929  # of LGG
KEPT = Path(__file__).with_name("scale.json")


def show(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Of each stage and number of slices: milliseconds a slice, what DVC adds, MiB; how much larger the last MiB are.

    Args:
        found: of each number of slices, in times of LGG, the costs of each stage.
    """
    first, last = next(iter(found)), list(found)[-1]
    titles = [f"{times} times: ms, DVC, MiB" for times in found]
    rows = [["stage", *titles, f"MiB, {last} / {first}"], ["---"] * (len(found) + 2)]
    for stage in found[first]:
        cells = [_describe(costs[stage], float(times) * SLICES) for times, costs in found.items()]
        growth = found[last][stage]["anonymous"] / found[first][stage]["anonymous"]
        rows.append([f"`{stage}`", *cells, f"{growth:.2f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _describe(cost: dict[str, float], slices: float) -> str:
    added = cost["with_dvc"] - cost["seconds"]
    return f"{1000 * cost['seconds'] / slices:.2f}, {1000 * added / slices:.2f}, {cost['anonymous']:.0f}"


def kept() -> str:
    """The table of benchmarks/scale.json."""
    return show(json.loads(KEPT.read_text(encoding="utf-8"))["costs"])


if __name__ == "__main__":
    print(kept())
