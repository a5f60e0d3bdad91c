"""predict, serve and evaluate with an empty HOME, under strace: what they write, and whom they try to reach.

Written may be the project's folder, where the answers go, and the system's folders for temporaries, on disk and in
memory (/dev/shm), in which nothing may be left afterwards. Tried may be no address at all; the server only answers on
the one that it was told.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.torture import flip_uses, flip_world, project
from tests.torture.report import Result

COUNT = 3
CLEAN = "nothing written outside, no address tried"
GOOD = frozenset((CLEAN,))
CALLS = "trace=openat,mkdirat,renameat2,linkat,symlinkat,connect,sendto"
CALLS += ",?renameat,?open,?creat,?mkdir,?rename,?link,?symlink"  # which not every processor has
WRITES = re.compile(r"\b(?:O_WRONLY|O_RDWR|O_CREAT)\b|^(?:creat|mkdir|mkdirat|rename|renameat2?|link|linkat|symlink)")
PLACE = re.compile(r'(?:<([^>]*)>, )?"([^"]*)"')  # the folder that a path starts from, where strace knows it
ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("|inet_pton\(AF_INET6, ")([^"]+)')
SYSTEM = ("/dev/", "/proc/", "/sys/")  # no files, but in MEMORY
MEMORY = "/dev/shm/"


def run(seeds: Iterable[int], work: Path) -> Iterator[Result]:
    if not shutil.which("strace"):
        sys.exit("clean_home: strace is not installed. Fix: apt install strace")
    done = project.make(work).done
    flip_world.draw_inputs(done)
    uses = {
        "predict": flip_uses.predict(*flip_world.EVERY_INPUT),
        "serve": flip_uses.serve("models/unet.onnx"),
        "evaluate": flip_uses.EVALUATE,
    }
    for seed in seeds:
        name = list(uses)[seed % len(uses)]
        yield attempt(seed, name, uses[name].act, done, work / f"clean-{seed}")


def attempt(seed: int, name: str, act: Callable[[Path], flip_uses.Used], done: Path, place: Path) -> Result:
    """Use a copy of the project while every process of it is watched."""
    for folder in ("home", "temporary", "trace"):
        (place / folder).mkdir(parents=True)
    copy = project.copy(done, place / "project")
    with watched(place):
        used = act(copy)
    if used.finished.code != 0:
        return Result(seed, name, "failed", used.finished.text[-400:])
    written, tried = read_traces(place)
    passing = {path for path in written if path.startswith(MEMORY)}
    written -= passing
    left = sorted(path for path in passing if os.path.lexists(path))
    left += [
        str(path.relative_to(place))
        for own in ("home", "temporary")
        for path in (place / own).rglob("*")
        if path.is_file()
    ]
    if written or left:
        return Result(seed, name, "wrote elsewhere", ", ".join([*sorted(written), *left][:8]))
    if tried:
        return Result(seed, name, "tried an address", ", ".join(sorted(tried)[:8]))
    return Result(seed, name, CLEAN)


@contextmanager
def watched(place: Path) -> Iterator[None]:
    """Let :mod:`project` start everything under strace, with the empty folders as HOME and for temporaries."""
    command, environment = project.command, project.environment
    trace = [
        "strace",
        "-f",
        "-y",
        "-qq",
        "-I",
        "2",
        "-s",
        "300",
        "-e",
        "signal=none",
        "-e",
        CALLS,
        "-o",
        str(place / "trace/calls"),
    ]
    homes = {"HOME": str(place / "home"), "TMPDIR": str(place / "temporary")}
    homes["PYTHONDONTWRITEBYTECODE"] = "1"  # else Python writes beside the modules of all packages
    project.command = lambda *arguments: [*trace, *command(*arguments)]
    project.environment = lambda folder, **more: _own(environment(folder, **more)) | homes
    try:
        yield
    finally:
        project.command, project.environment = command, environment


def _own(variables: dict[str, str]) -> dict[str, str]:
    """Without what would lead to another home, or switch off what is to be seen."""
    return {name: value for name, value in variables.items() if not name.startswith(("XDG_", "MPL", "ORT_"))}


def read_traces(place: Path) -> tuple[set[str], set[str]]:
    """Paths outside that were written, those in memory too, and addresses that were tried."""
    written, tried = set(), set()
    inside = tuple(str(place / name) for name in ("project", "temporary"))
    for line in (place / "trace/calls").read_text(errors="replace").splitlines():
        call = line.partition(" ")[2].lstrip()  # without the process's number
        if call.startswith(("connect(", "sendto(")):
            tried |= {f"{address}:{port}" for port, address in ADDRESS.findall(call)}
        elif WRITES.search(call) and " = -1 " not in call:
            for start, path in PLACE.findall(call)[-1:]:  # of two the new name
                full = os.path.normpath(Path(start or place / "project", path))
                if full.startswith(MEMORY) or not full.startswith((*inside, *SYSTEM)):
                    written.add(full)
    return written, tried
