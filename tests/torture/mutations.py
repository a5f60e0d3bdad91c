"""Damaged inputs to every decoder, some thousand in one child: they may refuse, and nothing else.

A failure is an exception that is no BrainsegError, more than CPU_SECONDS of processor time or MIB of memory for one
input, and the end of the process. A child whose memory has grown is replaced, so that the next input is measured again.
Code that is not ours may end it by one of CRASHES where the program has a process of its own for it, and only there.
"""

import contextlib
import functools
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.torture.report import Result

COUNT = 200_000
REFUSED = "refused or read"
DIED = "died in its own process"
GOOD = frozenset((REFUSED, DIED))
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
CPU_SECONDS, MIB = 2.0, 300
PART = 20_000  # inputs of one child
KILL_SECONDS, KILL_MIB = 60, 4096  # the child's own bounds: it ends with what it works on as a failure
TAKEN = 100  # MiB that a child may have grown by before it is replaced
ROOT = Path(__file__).parents[2]


def run(seeds: range, work: Path) -> Iterator[Result]:
    place, following = work / "seed", seeds.start
    start, seconds = time.monotonic(), defaultdict(list)
    while following < seeds.stop:
        command = [sys.executable, "-m", "tests.torture.mutations", str(following)]
        command += [str(min(following + PART, seeds.stop)), str(place)]
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        place.unlink(missing_ok=True)
        with (work / "errors").open("w") as errors, subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child:  # fmt: skip
            for line in child.stdout:
                seed, group, outcome, cpu, mib, took, detail = line.rstrip("\n").split("\t")
                following = int(seed) + 1
                seconds[group].append(float(took))
                yield Result(int(seed), group, outcome, detail, {"CPU seconds": float(cpu), "MiB": float(mib)})
        if child.returncode:  # what it began with last was its end
            if not place.exists():
                sys.exit(f"mutations: no child can work:\n{(work / 'errors').read_text()}")
            seed, group, native = place.read_text().split("\t")
            why = signal.Signals(-child.returncode).name if child.returncode < 0 else f"code {child.returncode}"
            outcome = judge_end(bool(native), child.returncode)
            if outcome == DIED:
                print(f"mutations {seed}, {group}: {DIED}, {why}", flush=True)
            yield Result(int(seed), group, outcome, why)
            following = int(seed) + 1
    show_rates(seconds, len(seeds) / (time.monotonic() - start))


def judge_end(native: bool, code: int) -> str:
    """The outcome of an input that ended the child with this code. ``native``: where the program has another one."""
    return DIED if native and -code in CRASHES else "ended the process"


def show_rates(seconds: Mapping[str, list[float]], whole: float) -> None:
    """Print how many inputs each decoder reads in a second, the slowest first, and how many were done in all."""
    for group, rate in sorted(((group, len(took) / sum(took)) for group, took in seconds.items()), key=lambda x: x[1]):
        print(f"mutations {rate:8,.0f} a second, {len(seconds[group]):7,} of {group}")
    print(f"mutations {whole:8,.0f} a second with all that is around them", flush=True)


def work_through(first: int, end: int, place: Path) -> None:
    """The child: a line for each input; stops early, which is no failure, when it has grown."""
    import numpy  # noqa: F401 - loaded, as all decoders are, before memory is measured

    from tests.torture import decoders

    warnings.simplefilter("ignore")
    os.environ["DVC_ROOT"] = str(place.parent)
    for decoder in decoders.ALL:  # whole inputs first: what is loaded late belongs to no input
        for data in decoders.inputs_of(decoder):
            with folder() as own:
                decoder.act(data, own)
    base = peak_mib()
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + KILL_MIB * 2**20,) * 2)
    for seed in range(first, end):
        decoder, data = decoders.draw(seed)
        note(place, seed, decoder.name)
        decoders.own_process = functools.partial(noted, place, seed, decoder.name)
        used, before, start = time.process_time(), peak_mib(), time.monotonic()
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + KILL_SECONDS, resource.RLIM_INFINITY))
        outcome, detail = act(decoder, data)
        cpu, peak, took = time.process_time() - used, peak_mib(), time.monotonic() - start
        mib = peak - base if peak > before else 0.0
        if outcome == REFUSED and cpu > CPU_SECONDS:
            outcome, detail = "too slow", f"{cpu:.1f} s"
        if outcome == REFUSED and mib > MIB:
            outcome, detail = "too much memory", f"{mib:.0f} MiB"
        print(seed, decoder.name, outcome, f"{cpu:.3f}", f"{mib:.0f}", f"{took:.5f}", detail, sep="\t", flush=True)
        if mib > TAKEN:
            return


def note(place: Path, seed: int, name: str, where: str = "") -> None:
    """What the child works on, for the parent, should it be its end."""
    place.write_text(f"{seed}\t{name}\t{where}")


@contextlib.contextmanager
def noted(place: Path, seed: int, name: str) -> Iterator[None]:
    """A block for which the program has a process of its own."""
    note(place, seed, name, "in its own process")
    try:
        yield
    finally:
        note(place, seed, name)


def act(decoder, data: bytes) -> tuple[str, str]:
    with folder() as own, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            decoder.act(data, own)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            return f"other {type(error).__name__}", f"{Path(last.filename).name}:{last.lineno} {text}"
    return REFUSED, ""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty folder, in memory where there is such a place."""
    memory = Path("/dev/shm")
    own = Path(tempfile.mkdtemp(prefix="torture-", dir=memory if memory.is_dir() else None))
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def peak_mib() -> float:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def address_space() -> int:
    """Bytes that the process has reserved; nothing where /proc does not say it."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 0


if __name__ == "__main__":
    work_through(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
