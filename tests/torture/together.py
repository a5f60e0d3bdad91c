"""Two of everything at once: each of a pair ends well or says that it waits for the other, and the results are whole.

The second starts a random moment after the first. Of two equal commands the same is then done alone, which must change
nothing. Of two different ones the results must be those of one of them, or of one after the other; and what is logged
twice at once is in MLflow's store once.
"""

import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import NamedTuple

from tests.torture import flip_uses, flip_world, project
from tests.torture.report import Result, attempt_each

COUNT = 24
ONE, BOTH = "one worked, one said why not", "both worked"
GOOD = frozenset((ONE, BOTH))
OTHERS = "inputs/others"  # pictures with the names of the first ones, and other content
OTHER_SCORING = tuple(word.replace("/scored/", "/others-scored/") for word in flip_uses.SCORING)


class Pair(NamedTuple):
    """Two commands. ``is_first``: nothing may have run before."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    is_first: bool = False


def _predict(inputs: str) -> tuple[str, ...]:
    return "predict", inputs, "-o", "answers"


def _twice(*command: str, is_first: bool = False) -> Pair:
    return Pair(command, command, is_first)


PAIRS = {
    "repro twice": _twice("repro", is_first=True),
    "predict twice into one folder": _twice(*_predict(flip_world.PICTURES)),
    "track twice": _twice("track"),
    "repro and predict": Pair(("repro",), _predict(flip_world.PICTURES)),
    "evaluate twice into one folder": _twice(*flip_uses.SCORING, "-o", "own"),
    "card twice": _twice("card", "--output", "card.md"),
    "predict of two inputs into one folder": Pair(_predict(flip_world.PICTURES), _predict(OTHERS)),
    "evaluate of two cohorts into one folder": Pair((*flip_uses.SCORING, "-o", "own"), (*OTHER_SCORING, "-o", "own")),
}
MIXABLE = tuple(name for name, pair in PAIRS.items() if "of two" in name)
REFUSALS = ("is in use by another", "another dvc is running", "Unable to acquire lock", "another process", "is running")
REFUSALS += ("is being blocked by",)  # DVC, with the number of the process that has a file
PARTS = ("data", "models", "metrics", "dvc.lock", "own", "card.md")
LOGGED = """
    select group_concat(key || ' ' || value, ', ') from (select * from tags order by key)
    where key in ('stage', 'model.sha256', 'evaluation.sha256', 'cross_validation.sha256') group by run_uuid
"""


def run(seeds: Iterable[int], work: Path) -> Iterator[Result]:
    whole = project.make(work)
    flip_world.draw_inputs(whole.done)
    draw_others(whole.done)
    (whole.done / "mlflow.db").unlink()  # so that what is logged is new, and the copy's own
    right: dict[str, list[dict[str, str]]] = {}

    def find_right(name: str) -> list[dict[str, str]]:
        if name not in right:
            right[name] = list(run_in_turn(whole.done, PAIRS[name], work / "turn")) if name in MIXABLE else []
        return right[name]

    def act(seed: int, folder: Path) -> Result:
        name = list(PAIRS)[seed % len(PAIRS)]
        return attempt(seed, name, whole, find_right(name), folder)

    yield from attempt_each(seeds, work / "pair", act, GOOD)


def draw_others(folder: Path) -> None:
    """Pictures and a cohort with the names of the first ones, whose content has been exchanged."""
    (folder / OTHERS).mkdir()
    for name, other in (("one", "two"), ("two", "one")):
        shutil.copy(folder / flip_world.PICTURES / f"{name}.png", folder / OTHERS / f"{other}.png")
    shutil.copytree(folder / "inputs/scored", folder / "inputs/others-scored")
    for number in ("1", "2", "3"):  # a smaller cohort
        for path in (folder / "inputs/others-scored").rglob(f"{number}_*.png"):
            path.unlink()


def run_in_turn(source: Path, pair: Pair, folder: Path) -> Iterator[dict[str, str]]:
    """The results of each command alone, and of one after the other."""
    for first, second in ((pair.first, pair.second), (pair.second, pair.first)):
        shutil.rmtree(folder, ignore_errors=True)
        project.copy(source, folder)
        for command in (first, second):
            done = project.brainseg(folder, *command)
            assert done.code == 0, done.text
            yield look(folder)
    shutil.rmtree(folder)


def attempt(
    seed: int, name: str, whole: project.Undisturbed, right: list[dict[str, str]], folder: Path
) -> Result:  # fmt: skip
    """``right``: all that a pair of different commands may leave; empty for one of equal commands."""
    rng, pair = random.Random(f"together {seed}"), PAIRS[name]
    project.copy(whole.empty if pair.is_first else whole.done, folder)
    delay = rng.choice((0.0, rng.uniform(0, 1), rng.uniform(0, whole.seconds if pair.is_first else 4)))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(project.brainseg, folder, *pair.first)
        sleep(delay)
        done = [threads.submit(project.brainseg, folder, *pair.second).result(), first.result()]
    failed = [each for each in done if each.code != 0]
    shown = f"{delay:.1f} s later: {' '.join(line for each in failed for line in each.text.splitlines()[-3:])[:500]}"
    if any(each.is_bug or each.code is None or each.code < 0 for each in done):
        return Result(seed, name, "reported as a bug", shown)
    if len(failed) == 2 or any(not any(word in each.text for word in REFUSALS) for each in failed):
        return Result(seed, name, "refused without a reason", shown)
    if twice := find_logged_twice(folder):
        return Result(seed, name, "logged twice", f"{shown}; {twice}")
    if name in MIXABLE:
        if (seen := look(folder)) not in right:
            return Result(seed, name, "mixed", f"{shown}; {' / '.join(project.differences(r, seen) for r in right)}")
    elif other := run_alone(folder, pair.first):
        return Result(seed, name, "not whole afterwards", f"{shown}; {other}")
    if other := project.differences(whole.digests, project.digests(folder)):
        return Result(seed, name, "other bytes", f"{shown}; {other}")
    return Result(seed, name, ONE if failed else BOTH)


def run_alone(folder: Path, command: tuple[str, ...]) -> str:
    """Do the same alone. Return what that changes, or that it fails."""
    seen, alone = look(folder), project.brainseg(folder, *command)
    if alone.code != 0:
        return " ".join(alone.error_lines[:2]) or alone.text[-300:]
    return project.differences(look(folder), seen)


def look(folder: Path) -> dict[str, str]:
    """All results, the answers with them."""
    return project.digests(folder, PARTS) | flip_uses.answers(folder / "answers")


def find_logged_twice(folder: Path) -> str:
    """The stage and model of runs in MLflow's store of which there are several."""
    counts = Counter(tags for (tags,) in flip_uses.ask_store(folder, LOGGED))
    return "; ".join(f"{count} runs of {tags}" for tags, count in counts.items() if count > 1)
