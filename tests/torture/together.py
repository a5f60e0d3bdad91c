"""Two of everything at once: each of a pair ends well or says that it waits for the other, and the results are whole.

The second starts a random moment after the first. Then the same is done alone, which must change nothing.
"""

import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

from tests.torture import flip_uses, flip_world, project
from tests.torture.report import Result, attempt_each

COUNT = 24
ONE, BOTH = "one worked, one said why not", "both worked"
GOOD = frozenset((ONE, BOTH))
PAIRS = {  # the group → the commands and whether nothing may have run before
    "repro twice": (("repro",), ("repro",), True),
    "predict twice into one folder": (("predict", flip_world.PICTURES, "-o", "answers"),) * 2 + (False,),
    "track twice": (("track",), ("track",), False),
    "repro and predict": (("repro",), ("predict", flip_world.PICTURES, "-o", "answers"), False),
    "evaluate twice into one folder": ((*flip_uses.SCORING, "-o", "own"),) * 2 + (False,),
    "card twice": (("card", "--output", "card.md"),) * 2 + (False,),
}
REFUSALS = ("is in use by another", "another dvc is running", "Unable to acquire lock", "another process", "is running")
PARTS = ("data", "models", "metrics", "dvc.lock", "own", "card.md")


def run(seeds: Iterable[int], work: Path) -> Iterator[Result]:
    whole = project.make(work)
    flip_world.draw_inputs(whole.done)
    yield from attempt_each(seeds, work / "pair", lambda seed, folder: attempt(seed, whole, folder), GOOD)


def attempt(seed: int, whole: project.Undisturbed, folder: Path) -> Result:
    rng = random.Random(f"together {seed}")
    name = list(PAIRS)[seed % len(PAIRS)]
    *commands, is_first = PAIRS[name]
    project.copy(whole.empty if is_first else whole.done, folder)
    delay = rng.choice((0.0, rng.uniform(0, 1), rng.uniform(0, whole.seconds if is_first else 4)))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(project.brainseg, folder, *commands[0])
        sleep(delay)
        done = [threads.submit(project.brainseg, folder, *commands[1]).result(), first.result()]
    failed = [each for each in done if each.code != 0]
    shown = f"{delay:.1f} s later: {' '.join(line for each in failed for line in each.text.splitlines()[-3:])[:500]}"
    if any(each.is_bug or each.code is None or each.code < 0 for each in done):
        return Result(seed, name, "reported as a bug", shown)
    if len(failed) == 2 or any(not any(word in each.text for word in REFUSALS) for each in failed):
        return Result(seed, name, "refused without a reason", shown)
    seen = look(folder)
    alone = project.brainseg(folder, *commands[0])
    if alone.code != 0:
        return Result(seed, name, "not whole afterwards", " ".join(alone.error_lines[:2]))
    if other := project.differences(look(folder), seen):
        return Result(seed, name, "not whole afterwards", f"{shown}; {other}")
    if other := project.differences(whole.digests, project.digests(folder)):
        return Result(seed, name, "other bytes", f"{shown}; {other}")
    return Result(seed, name, ONE if failed else BOTH)


def look(folder: Path) -> dict[str, str]:
    """All results, the answers with them."""
    return project.digests(folder, PARTS) | flip_uses.answers(folder / "answers")
