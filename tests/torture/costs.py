"""What the checks cost: the seconds spent in them, beside those of a whole run of the pipeline and of one `predict`.

Each check is timed where it is called: ``sitecustomize``, which Python loads at its start, lies beside the copy's own
package, wraps the functions of CHECKS, and writes at the end how long they took, in every process of the run.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.torture import flip_world, project
from tests.torture.report import Result

COUNT = 5
ROOT = Path(__file__).parents[2]
MODEL = "models/unet.onnx"
GOOD = frozenset(("within its bound",))
CHECKS = {  # module → functions that only check
    "brainseg.data.inputs": ["check", "verify"],
    "brainseg.inference.sealed": ["read"],
    "brainseg.models.manifest": ["check", "check_data"],
}
SHARE, MILLISECONDS = 0.02, 50  # of `brainseg repro`; of `predict`
SECONDS = 1.0  # of a stage, on the data of this clone that has not changed since it was read
HERE = """\
import os, time
from brainseg import config
from brainseg.data import inputs
stages = config.read_yaml(inputs.Path("dvc.yaml"))["stages"]
def longest():
    starts = [time.perf_counter(), *(inputs.check(stage) or time.perf_counter() for stage in stages)]
    return max(end - start for start, end in zip(starts, starts[1:]))
longest()
print(longest())
os.environ[inputs.ALL] = "1"
print(longest())
"""
MODEL_HERE = """\
import sys, time
from pathlib import Path
from brainseg.inference import sealed
start = time.perf_counter()
sealed.read(Path(sys.argv[1]))
print(time.perf_counter() - start)
"""
TIMER = """\
import atexit, functools, importlib.abc, importlib.util, json, os, sys, threading, time
CHECKS, spent, depth = json.loads(os.environ["TORTURE_CHECKS"]), [0.0], threading.local()
def timed(function):
    @functools.wraps(function)
    def wrapper(*arguments, **named):
        outer = getattr(depth, "inside", False)
        depth.inside, start = True, time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            depth.inside = outer
            spent[0] += 0 if outer else time.perf_counter() - start
    return wrapper
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in CHECKS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            for function in CHECKS[name]:
                setattr(module, function, timed(getattr(module, function)))
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder())
atexit.register(lambda: spent[0] and open(os.environ["TORTURE_TIMES"], "a").write(f"{spent[0]}\\n"))
"""


def run(seeds: Iterable[int], work: Path) -> Iterator[Result]:
    whole = project.make(work)
    flip_world.draw_inputs(whole.done)
    for seed in seeds:
        folder = work / f"cost-{seed}"
        project.copy(whole.empty, folder)
        spent, seconds = measure(folder, work, "repro")
        share = spent / seconds
        most = {"percent of the run": 100 * share, "seconds": spent}
        yield Result(seed, "brainseg repro", bound(share <= SHARE), f"{spent:.2f} of {seconds:.1f} s", most)
        shutil.rmtree(folder)
        project.copy(whole.done, folder)
        spent, _ = measure(folder, work, "predict", flip_world.PICTURES, "-o", "answers")
        yield from check_here(seed)
        yield Result(seed, "brainseg predict", bound(1000 * spent <= MILLISECONDS), "", {"ms": 1000 * spent})
        shutil.rmtree(folder)


def check_here(seed: int) -> Iterator[Result]:
    """What this clone has, of LGG, far larger than that of phantoms: the stage with most inputs, and the model."""
    if (ROOT / "data/processed/images.npy").exists():
        seconds, whole = print_seconds(HERE)
        most = {"seconds": seconds, "seconds of reading all": whole}
        yield Result(seed, "the inputs of a stage here", bound(seconds <= SECONDS), "", most)
    if (ROOT / MODEL).exists():
        ms = 1000 * print_seconds(MODEL_HERE, MODEL)[0]
        yield Result(seed, "the model here", bound(ms <= MILLISECONDS), "", {"ms": ms})


def print_seconds(code: str, *arguments: str) -> list[float]:
    """What a program prints that runs on this clone's own files."""
    done = project.run(ROOT, [sys.executable, "-c", code, *arguments])
    assert done.code == 0, done.text
    return [float(line) for line in done.output.split()]


def bound(holds: bool) -> str:
    return "within its bound" if holds else "over its bound"


def measure(folder: Path, work: Path, *arguments: str) -> tuple[float, float]:
    """Seconds in the checks, of all processes, and of the whole command."""
    times = work / "times"
    times.unlink(missing_ok=True)
    settings = {"TORTURE_CHECKS": json.dumps(CHECKS), "TORTURE_TIMES": str(times)}
    (folder / "src/sitecustomize.py").write_text(TIMER)
    start = time.monotonic()
    done = project.run(folder, project.command(*arguments), **settings)
    seconds = time.monotonic() - start
    assert done.code == 0, done.text
    assert times.exists(), "no check was called: CHECKS names functions that are gone"
    return sum(map(float, times.read_text().split())), seconds
