"""One flipped bit in a file that the project reads, which is then used as a user would use it.

Each file in turn, a third of the bits in its first KiB, a third in its last, a third anywhere; every second time the
file keeps its date, as a disk that rots has it. Before, the same use of the intact file says what is right.

refused: one of the exit codes 2 to 5, a line ERROR that names the file, and nothing wrong is left behind: what comes of
other files is right, and what comes of this one is right, as it was, or missing. told: the server's examples are the
packaged ones, and a warning names the file. harmless: the same bytes as before.
obeyed: params.yaml says another valid value, or an image of a format without a checksum shows another picture: nobody
can tell that from what a user meant; only what comes of it may differ. All else is a failure.
"""

import os
import random
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.torture import flip_world, project
from tests.torture.flip_uses import Use, Used
from tests.torture.flip_world import TARGETS, Target
from tests.torture.project import Finished
from tests.torture.report import Result

COUNT = 500
GOOD = frozenset(("refused", "told", "harmless", "obeyed"))
CODES = (2, 3, 4, 5)
EDGE = 1024  # bytes


def run(seeds: Iterable[int], work: Path) -> Iterator[Result]:
    world = flip_world.build(work)
    right: dict[tuple[Path, Use], Used] = {}
    for seed in seeds:
        yield attempt(seed, world, right, work / f"flip-{seed}")


def attempt(seed: int, world: dict[str, Path], right: dict[tuple[Path, Use], Used], folder: Path) -> Result:
    rng = random.Random(f"flips {seed}")
    target = TARGETS[seed % len(TARGETS)]
    source, use = world[target.world], rng.choice(target.uses)
    if (source, use) not in right:
        right[source, use] = use_intact(source, use, folder)
    project.copy(source, folder)
    path = rng.choice(sorted(folder.glob(target.pattern)))
    change = flip(path, rng)
    before, used = use.look(folder), use.act(folder)
    results = Results(before, used.results, right[source, use].results)
    without = None
    if use.does_without and used.finished.code == 0 and results.now != results.right:
        without = use_without(source, use, path.relative_to(folder), folder.with_name("without"))
    outcome, detail = judge(target, use, path.relative_to(folder), results, used.finished, without)
    if outcome in GOOD:
        shutil.rmtree(folder)
    return Result(seed, target.name, outcome, f"{use.name}, {path.name} {change}: {detail}")


def use_intact(source: Path, use: Use, folder: Path) -> Used:
    """What comes of the intact file: twice, in different folders, so that whatever differs is the flip's doing."""
    copies = folder, folder.with_name("again")
    first, second = (use.act(project.copy(source, copy)) for copy in copies)
    assert first.finished.code == 0, f"{use.name} with nothing flipped: {first.finished.text}"
    assert first.results == second.results, f"{use.name}: {project.differences(first.results, second.results)}"
    for copy in copies:
        shutil.rmtree(copy)
    return first


def use_without(source: Path, use: Use, path: Path, folder: Path) -> dict[str, str]:
    """What comes where the file is not there."""
    project.copy(source, folder)
    (folder / path).unlink()
    results = use.act(folder).results
    shutil.rmtree(folder)
    return results


def flip(path: Path, rng: random.Random) -> str:
    """Flip one bit; say which, and whether the date was kept."""
    before, data = path.stat(), bytearray(path.read_bytes())
    edge = min(EDGE, len(data))
    place = rng.choice((rng.randrange(edge), len(data) - 1 - rng.randrange(edge), rng.randrange(len(data))))
    bit = rng.randrange(8)
    data[place] ^= 1 << bit
    path.chmod(0o644)  # DVC's cache and outs may be read-only
    path.write_bytes(data)
    path.chmod(before.st_mode)
    keeps = rng.random() < 0.5
    if keeps:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return f"byte {place} bit {bit}, {'date kept' if keeps else 'new date'}"


class Results(NamedTuple):
    """Name → digest or text: what was there before, what is there now, what comes of the intact file."""

    before: dict[str, str]
    now: dict[str, str]
    right: dict[str, str]

    def without(self, name: str) -> "Results":
        return Results(*({key: value for key, value in each.items() if key != name} for each in self))


def judge(
    target: Target, use: Use, path: Path, results: Results, done: Finished, without: dict[str, str] | None = None
) -> tuple[str, str]:  # fmt: skip
    """The outcome, and what was seen. What the hurt file itself is may be anything.

    Args:
        without: what comes where the file is missing, of a use that goes on then.
    """
    shown = " ".join(done.error_lines[:2])[:400]
    if done.code is None:
        return "hangs", done.errors
    if done.is_bug or done.code == 1:
        return "reported as a bug", shown or done.text[-400:]
    if done.code < 0:
        return "killed by a signal", f"signal {-done.code}"
    others, own = find_wrong(use, results.without(str(path)))
    if done.code == 0:
        if not others and not own:
            return "harmless", ""
        if without is not None and results.now == without and is_named(target, path, done):
            return "told", ""
        is_obeyed = target.may_obey and not others
        return "obeyed" if is_obeyed else "silent wrong answer", f"{others} {own}".strip()
    if done.code not in CODES or not done.error_lines:
        return "no error with a code", f"code {done.code}: {done.text[-300:]}"
    if target.must_heal:
        return "locked out", shown
    if not is_named(target, path, done):
        return "refused without its name", shown
    if others:
        return "took others with it", f"{others}; {shown}"
    if left := find_left(use, results.without(str(path))):
        return "left wrong results", f"{left}; {shown}"
    return "refused", ""


def find_wrong(use: Use, results: Results) -> tuple[str, str]:
    """What is not right, of other files and of the hurt one."""
    others, own = ([{name: each[name] for name in each if use.own(name) == mine} for each in results]
                   for mine in (False, True))  # fmt: skip
    return tuple(project.differences(right, now) for _, now, right in (others, own))


def find_left(use: Use, results: Results) -> str:
    """What is there of the hurt file after a refusal, and neither right nor as it was.

    A run that ended early has not made everything: DVC removes what a stage made before it starts that stage.
    """
    kept = {name: value for name, value in results.now.items()
            if use.own(name) and value not in (results.right.get(name), results.before.get(name))}  # fmt: skip
    return project.differences({name: results.right.get(name, "") for name in kept}, kept)


def is_named(target: Target, path: Path, done: Finished) -> bool:
    """Whether an error or a warning names the file."""
    return any(name in line for line in done.error_lines for name in names(target, path))


def names(target: Target, path: Path) -> tuple[str, ...]:
    """What an error may call the file: its name; for one of a folder's slices or checkpoints its folder."""
    return (path.name, path.parent.name) if target.by_folder else (path.name,)
