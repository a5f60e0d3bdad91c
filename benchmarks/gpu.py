"""Everything to be measured where a GPU is at hand, in one go, laid out for about ten minutes.

    python benchmarks/gpu.py OUT                       # JAX; --engine tensorflow for the other engine
    python benchmarks/gpu.py OUT --quick               # does it run at all: few steps of the default, small batches

For `best` and for the default: milliseconds a step, images a second, share of the card's bfloat16 peak, alone and with
each of several steps in one call (`steps_per_execution`), larger batches, and XLA's command buffers off, as XLA has
them, and from one kernel on. Then a fold of `best` from start to end, as committed and with the fastest of these. Each
in a process of its own, because XLA reads its flags once. Needs `dvc repro split`. Results: OUT/gpu.json, written after
each measurement.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partialmethod
from pathlib import Path

import folds
import numpy as np
from training import REAL

from brainseg import config, errors, files, hardware
from brainseg.data import dataset
from brainseg.experiments import revision
from brainseg.models import backend

NO_BUFFERS, ALL_BUFFERS = "--xla_gpu_enable_command_buffer=", "--xla_gpu_graph_min_graph_size=1"
TRIED = {  # name → parameters, steps in one call (on JAX Keras 3.15 only saves callbacks so), XLA's flags
    "as it is": ({}, 1, ""),
    "8 steps a call": ({}, 8, ""),
    "32 steps a call": ({}, 32, ""),
    "batches of 32": ({"batch_size": 32, "learning_rate": 0.0028}, 1, ""),  # the rate grows with the root: Adam
    "batches of 64": ({"batch_size": 64, "learning_rate": 0.004}, 1, ""),
    "no command buffers": ({}, 1, NO_BUFFERS),
    "command buffers from one kernel on": ({}, 1, ALL_BUFFERS),
    "batches of 32, command buffers from one kernel on": ({"batch_size": 32, "learning_rate": 0.0028}, 1, ALL_BUFFERS),
}
LONGEST = 120  # seconds of one measurement
SECONDS = 300  # no further step is timed after that: two folds take about 240


def main() -> None:
    options = _options()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    begin, report = time.monotonic(), {"commit": None, "steps": {}, "folds": {}}
    for recipe in (None,) if options.quick else ("best", None):
        for name, (train, calls, flags) in TRIED.items():
            if time.monotonic() - begin > SECONDS:
                break
            train = train | {"engine": options.engine} | ({"batch_size": 2} if options.quick else {})
            asked = {"recipe": recipe, "train": train, "calls": calls, "steps": 2 * calls if options.quick else 160}
            report["steps"][f"{recipe or 'default'}: {name}"] = _alone(asked, flags)
            _write(options.out, report)
    if not options.quick:
        best = {name: row for name, row in report["steps"].items() if name.startswith("best") and "images_per_s" in row}
        fastest = max(best, key=lambda name: best[name]["images_per_s"], default="best: as it is").split(": ", 1)[1]
        for name in dict.fromkeys(["as it is", fastest]):
            train, calls, flags = TRIED[name]
            report["folds"][name] = _fold(options.out / name.replace(" ", "-"), options.engine, train, calls, flags)
            _write(options.out, report)
    print(json.dumps(report, indent=2))


def one(asked: dict) -> dict:
    """Time steps as ``asked``, in this process."""
    overrides = folds.overrides(asked["recipe"], [])
    overrides["train"] = overrides.get("train", {}) | asked["train"]
    raw = revision.merged(config.read_yaml(Path("params.yaml")), overrides)
    params = config.check(raw, Path("params.yaml"))
    t = params.train
    running = backend.start(t.engine, device=t.device, precision=t.precision, threads=t.threads)
    several_steps(asked["calls"])
    import keras
    import step_profile

    from brainseg.training import trainer

    data = dataset.load(*REAL, params.split.unit)
    batches = trainer.Batches(data, params)
    model = trainer.build(params, *data.images.shape[2:], len(batches))
    marks: list[float] = []
    batches.order = np.resize(batches.order, asked["steps"] * t.batch_size)
    ends = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: marks.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: marks.append(time.perf_counter()),
    )
    model.fit(backend.streamed(batches), epochs=3, shuffle=False, verbose=0, callbacks=[ends])
    compiled, seconds = (marks[1] - marks[0]) - (marks[5] - marks[4]), marks[5] - marks[4]
    work = 3 * step_profile.forward_flops(model.network, params, data.images.shape[1])
    peak = step_profile.product_flops(step_profile.SIDES[running.device])
    rate = asked["steps"] * t.batch_size / seconds
    return {
        "running": f"{running}, {card(t.engine)}",
        "compilation_s": round(compiled, 1),
        "step_ms": round(1e3 * seconds / asked["steps"], 3),
        "images_per_s": round(rate, 1),
        "share_of_peak": round(rate * work / peak, 4),
        "peak_tflop_per_s": round(peak / 1e12, 2),
    }


def card(name: str) -> str:
    """What the engine calls the device that it computes on."""
    if name == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    cards = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(cards[0]).get("device_name", "") if cards else "cpu"


def several_steps(calls: int) -> None:
    """Let every model that is compiled from now on take so many steps in one call."""
    import keras

    if calls > 1:
        keras.Model.compile = partialmethod(keras.Model.compile, steps_per_execution=calls)


def _alone(asked: dict, flags: str) -> dict:
    command = [sys.executable, __file__, "-", "--one", json.dumps(asked)]
    try:
        done = subprocess.run(
            command, env=_environment(flags), capture_output=True, text=True, check=False, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {LONGEST} s"}
    print(
        f"{asked['recipe'] or 'default'} {asked['train']} {asked['calls']} {flags}: {done.stdout.strip()}", flush=True
    )
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.stderr[-2000:]}


def _fold(out: Path, name: str, train: dict, calls: int, flags: str) -> dict:
    """Seconds of each stage of fold 0 of `best`, and its test Dice."""
    os.environ.update(_environment(flags))
    overrides = folds.overrides("best", [f"train.{key}={json.dumps(value)}" for key, value in train.items()])
    overrides["train"] = overrides["train"] | {"engine": name}
    launcher = ["-c", f"import runpy, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import gpu; "
                      f"gpu.launch({calls})"]  # fmt: skip
    try:
        folds.run_fold(out, overrides, 0, launcher=launcher)
    except errors.RunError as error:
        return {"failed": str(error)}
    fold = out / "fold-0"
    dice = json.loads((fold / "metrics/summary.json").read_text(encoding="utf-8"))
    return {"seconds": json.loads((fold / "seconds.json").read_text()), "summary": dice}


def launch(calls: int) -> None:
    """Run the stage that the command line names; models take ``calls`` steps at once as soon as Keras is there."""
    import runpy

    start = backend.start

    def started(*arguments, **settings):
        running = start(*arguments, **settings)
        several_steps(calls)
        return running

    backend.start = started
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _environment(flags: str) -> dict[str, str]:
    return os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}


def _write(out: Path, report: dict) -> None:
    from results import commit

    out.mkdir(parents=True, exist_ok=True)
    report["commit"], report["host"] = commit(), hardware.kind()
    files.write_text(out / "gpu.json", json.dumps(report, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--engine", choices=["jax", "tensorflow"], default="jax")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    errors.run(main)
