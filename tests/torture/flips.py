"""One flipped bit in a file that the project reads, which is then used as a user would use it.

Each file in turn, a third of the bits in its first KiB, a third in its last, a third anywhere; every second time the
file keeps its date, as a disk that rots has it. Before, the same use of the intact file says what is right.

refused: one of the exit codes 2 to 5, and a line ERROR that names the file. harmless: the same bytes as before.
obeyed: params.yaml says another valid value, or an image of a format without a checksum shows another picture: nobody
can tell that from what a user meant. All else is a failure.
"""

import os
import random
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.torture import flip_world, project
from tests.torture.flip_uses import Use, Used
from tests.torture.flip_world import TARGETS, Target
from tests.torture.report import Result

COUNT = 500
GOOD = frozenset(("refused", "harmless", "obeyed"))
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
    used = use.act(folder)
    outcome, detail = judge(target, path.relative_to(folder), used, right[source, use])
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


def judge(target: Target, path: Path, used: Used, right: Used) -> tuple[str, str]:
    """The outcome, and what was seen."""
    done = used.finished
    shown = " ".join(done.error_lines[:2])[:400]
    if done.code is None:
        return "hangs", done.errors
    if done.is_bug or done.code == 1:
        return "reported as a bug", shown or done.text[-400:]
    if done.code < 0:
        return "killed by a signal", f"signal {-done.code}"
    left_out = {str(path)}
    other = project.differences(without(right.results, left_out), without(used.results, left_out))
    if done.code == 0:
        if not other:
            return "harmless", ""
        return ("obeyed" if target.may_obey else "silent wrong answer"), other
    if done.code not in CODES or not done.error_lines:
        return "no error with a code", f"code {done.code}: {done.text[-300:]}"
    if target.must_heal:
        return "locked out", shown
    if not any(name in line for line in done.error_lines for name in names(target, path)):
        return "refused without its name", shown
    if used.others_lost:
        return "took others with it", shown
    return "refused", ""


def names(target: Target, path: Path) -> tuple[str, ...]:
    """What an error may call the file: its name; for one of a folder's slices or checkpoints its folder."""
    return (path.name, path.parent.name) if target.by_folder else (path.name,)


def without(results: dict[str, str], names: set[str]) -> dict[str, str]:
    return {name: value for name, value in results.items() if name not in names}
