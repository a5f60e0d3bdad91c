"""All measurements on a GPU, in one script that ends in less than ten minutes.

    python benchmarks/gpu.py OUT                       # JAX; --engine tensorflow for the other engine
    python benchmarks/gpu.py OUT --quick               # only checks that the script runs, on any device

It times a training step of `best` and of the default: milliseconds, images a second, share of the card's bfloat16
peak. It tries the committed settings, several steps in one compiled call, larger batches, and XLA's command buffers off
or for every kernel. Then it times fold 0 of `best` from start to end, as committed and with the fastest settings.

Each measurement has a time limit, and is a process of its own because XLA reads its flags once. The report names what
there was no time for. The data are the slices of `dvc repro split`, or phantoms where there are none. The results are
in OUT/gpu.json, which is written after each measurement.
"""

import argparse
import itertools
import json
import os
import runpy
import subprocess
import sys
import time
from functools import partial, partialmethod
from pathlib import Path
from typing import Any, NamedTuple

import folds
import numpy as np
import results
import training

from brainseg import config, errors, files, hardware
from brainseg.data import dataset
from brainseg.models import backend

TOTAL = 570  # seconds for everything
PHANTOMS = 90  # seconds for drawing and preparing phantoms
STEP = 75  # seconds for one measurement of steps
LAST_STEP = 230  # seconds after which no measurement of steps starts, so that the folds have the rest
FOLD = 190  # seconds for one fold


class Setting(NamedTuple):
    """``train``: changed parameters of the block train; ``together``: steps in one call; ``flags``: of XLA."""

    train: dict[str, Any]
    together: int = 1
    flags: str = ""


ALL_BUFFERS, NO_BUFFERS = "--xla_gpu_graph_min_graph_size=1", "--xla_gpu_enable_command_buffer="
COMMITTED = "as committed"
SETTINGS = {  # the most promising first, because the time may be over before the last
    COMMITTED: Setting({}),
    "32 steps a call": Setting({}, together=32),
    "command buffers for every kernel": Setting({}, flags=ALL_BUFFERS),
    "batches of 64": Setting({"batch_size": 64, "learning_rate": 0.004}),  # with Adam the rate grows with the root
    "32 steps a call, command buffers for every kernel": Setting({}, together=32, flags=ALL_BUFFERS),
    "batches of 32": Setting({"batch_size": 32, "learning_rate": 0.0028}),
    "8 steps a call": Setting({}, together=8),
    "no command buffers": Setting({}, flags=NO_BUFFERS),
}
QUICK = {"batch_size": 2, "epochs": 1}


def main() -> None:
    options = _options()
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return
    start, out = time.monotonic(), options.out.resolve()
    if out.exists() and any(out.iterdir()):
        raise errors.DataError(out, "is not empty: its compiled steps would make the times too short", "name a new OUT")
    where = training.REAL if all(path.exists() for path in training.REAL) else _draw_phantoms(out)
    report: dict[str, Any] = {
        "commit": results.commit(), "host": hardware.kind(), "data": str(where[0]),
        "steps": {}, "folds": {}, "left_out": [],
    }  # fmt: skip
    common = {"engine": options.engine} | (QUICK if options.quick else {"device": "gpu"})
    pairs = itertools.product([None] if options.quick else ["best", None], SETTINGS)
    for recipe, name in sorted(pairs, key=lambda pair: (pair[1] != COMMITTED, pair[0] is None)):
        title = f"{recipe or 'default'}: {name}"
        if time.monotonic() - start > LAST_STEP:
            report["left_out"].append(title)
            continue
        overrides = _overrides(recipe, SETTINGS[name].train | common)
        asked = {"overrides": overrides, "where": [str(path.resolve()) for path in where]}
        asked |= {"together": SETTINGS[name].together, "steps": 2 * SETTINGS[name].together if options.quick else 160}
        report["steps"][title] = _measure_alone(asked, _environment(out, SETTINGS[name].flags), STEP)
        print(f"{title}: {report['steps'][title]}", flush=True)
        _write(out, report)
    for name in ["8 steps a call"] if options.quick else dict.fromkeys([COMMITTED, _fastest(report["steps"])]):
        limit = min(FOLD, TOTAL - (time.monotonic() - start))
        overrides = _overrides(None if options.quick else "best", SETTINGS[name].train | common)
        if where != training.REAL:
            overrides["download"] = {"source": "phantom"}  # marks the results
        report["folds"][name] = _time_fold(out, name, overrides, where[0].resolve(), limit)
        print(f"fold 0, {name}: {report['folds'][name]}", flush=True)
        _write(out, report)
    print(json.dumps(report, indent=2))


def measure(asked: dict) -> dict:
    """Do in this process what ``_measure_alone`` asks for: draw phantoms, or time training steps."""
    if "phantoms" in asked:
        training.phantoms(Path(asked["phantoms"]))
        return {}
    path = Path("params.yaml")
    params = config.check(config.merge(config.read_yaml(path), asked["overrides"]), path)
    t = params.train
    running = backend.start(t.engine, device=t.device, precision=t.precision, threads=t.threads)
    if asked["together"] > 1:
        take_together(asked["together"])
    import keras
    import step_profile

    from brainseg.training import trainer
    from brainseg.training.batches import Batches

    processed, split = map(Path, asked["where"])
    data = dataset.load(processed, split, params.split.unit)
    batches = Batches(data, params)
    model = trainer.build(params, *data.images.shape[2:], len(batches))
    batches.order = np.resize(batches.order, asked["steps"] * t.batch_size)
    marks: list[float] = []
    around = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: marks.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: marks.append(time.perf_counter()),  # Keras has waited for the last step
    )
    model.fit(backend.stream(batches), epochs=3, shuffle=False, verbose=0, callbacks=[around])
    first, _, seconds = np.diff(marks)[::2]
    work = 3 * step_profile.forward_flops(model.network, params, data.images.shape[1])  # backward costs twice as much
    peak = step_profile.product_flops(step_profile.SIDES[running.device])
    rate = asked["steps"] * t.batch_size / seconds
    return {
        "running": f"{running}, {_card(t.engine)}",
        "compilation_s": round(first - seconds, 1),
        "step_ms": round(1e3 * seconds / asked["steps"], 3),
        "images_per_s": round(rate, 1),
        "share_of_peak": round(rate * work / peak, 4),
        "peak_tflop_per_s": round(peak / 1e12, 2),
    }


def take_together(count: int) -> None:
    """Let models that are built from now on take ``count`` training steps in one compiled call."""
    from brainseg.training.training_model import TrainingModel

    TrainingModel.compile = partialmethod(TrainingModel.compile, steps_per_execution=count)
    if backend.jit_compile():
        TrainingModel.make_train_function = _make_train_function


def _make_train_function(model, force: bool = False) -> None:
    """Compile a loop over ``steps_per_execution`` steps; Keras 3.15 on JAX calls a compiled step so many times instead.

    An epoch whose steps are no multiple of it ends with a shorter loop, which is compiled too.
    """
    import jax

    if model.train_function is not None and not force:
        return

    def step(state, batch):
        logs, state = model.train_step(state, batch)
        return tuple(list(part) for part in state), logs

    @partial(jax.jit, donate_argnums=0)
    def take_all(state, batches):
        stacked = jax.tree.map(lambda *arrays: jax.numpy.stack(arrays), *batches)
        state, logs = jax.lax.scan(step, state, stacked)
        return jax.tree.map(lambda values: values[-1], logs), state

    def train_function(state, iterator):
        return take_all(state, list(itertools.islice(iterator, model.steps_per_execution)))

    model.train_function = train_function


def launch(together: int) -> None:
    """Run the stage that the command line names, with ``together`` training steps in one call."""
    start = backend.start

    def start_and_change(*arguments, **settings):
        running = start(*arguments, **settings)
        take_together(together)
        return running

    backend.start = start_and_change
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _card(engine: str) -> str:
    """The engine's name of the device that it computes on."""
    if engine == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    cards = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(cards[0]).get("device_name", "") if cards else "cpu"


def _overrides(recipe: str | None, train: dict) -> dict:
    found = folds.overrides(recipe, [])
    return found | {"train": found.get("train", {}) | train}


def _environment(out: Path, flags: str) -> dict[str, str]:
    """With XLA's flags, and with a cache of compiled steps, so that a fold does not compile what was timed before."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    return os.environ | {"XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": str(out / "compiled")}


def _measure_alone(asked: dict, environment: dict[str, str], limit: float) -> dict:
    """What ``measure`` returns in a process of its own, or why it failed."""
    command = [sys.executable, __file__, "-", "--one", json.dumps(asked)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {limit} s"}
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.stderr[-2000:]}


def _draw_phantoms(out: Path) -> training.Where:
    folder = out / "phantoms"
    folder.mkdir(parents=True)
    if failed := _measure_alone({"phantoms": str(folder)}, dict(os.environ), PHANTOMS):
        raise errors.RunError(folder, failed["failed"], "run: dvc repro split")
    return folder / "processed", folder / "split.csv"


def _fastest(steps: dict[str, dict]) -> str:
    """The setting of the measured steps of `best` with the most images a second."""
    rates = {title.split(": ", 1)[1]: row.get("images_per_s", 0) for title, row in steps.items() if "best" in title}
    return max(rates, key=lambda name: rates[name], default=COMMITTED)


def _time_fold(out: Path, name: str, overrides: dict, processed: Path, limit: float) -> dict:
    """Seconds of each stage of fold 0, and its summary; if it failed, why, and the last lines of its log."""
    setting, folder = SETTINGS[name], out / name.replace(" ", "-")
    here = str(Path(__file__).resolve().parent)
    code = f"import sys; sys.path.insert(0, {here!r}); import gpu; gpu.launch({setting.together})"
    launcher = ["-c", code] if setting.together > 1 else []
    found: dict[str, Any] = {}
    try:
        environment = _environment(out, setting.flags)
        folds.run_fold(folder, overrides, 0, launcher, processed=processed, environment=environment, limit=limit)
        found["summary"] = json.loads((folder / "fold-0/metrics/summary.json").read_text(encoding="utf-8"))
    except errors.RunError as error:
        log = folder / "fold-0/log"
        found |= {"failed": str(error), "log": log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]}
    seconds = folder / "fold-0/seconds.json"
    return found | {"seconds": json.loads(seconds.read_text(encoding="utf-8")) if seconds.exists() else {}}


def _write(out: Path, report: dict) -> None:
    out.mkdir(parents=True, exist_ok=True)
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
