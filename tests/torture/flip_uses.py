"""How a user uses a file: runs the stage that reads it, outlines, serves, scores, compares, tracks, goes on."""

import contextlib
import csv
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import requests

from tests.torture import project
from tests.torture.project import Finished

GOOD_CASE = "inputs/good/good.png"  # an intact picture beside the one that is hurt
EXAMPLE = "src/brainseg/server/phantoms/phantom-1.tif"
CHANGING = ("seconds", "source")  # columns and keys that differ from run to run
SCORING = ("evaluate", *(f"inputs/scored/*/*_{kind}.png" for kind in ("flair", "mask")))
START_SECONDS = 180


class Used(NamedTuple):
    """``results``: name → digest or text of what came out; ``others_lost``: an intact case has no answer."""

    finished: Finished
    results: dict[str, str]
    others_lost: bool = False


class Use(NamedTuple):
    name: str
    act: Callable[[Path], Used]


def stage(name: str) -> Use:
    """The stage's script, as DVC starts it."""

    def act(folder: Path) -> Used:
        return Used(project.stage(folder, name), project.digests(folder))

    return Use(f"stage {name}", act)


def predict(*inputs: str, model: str = "models/unet.onnx", others: bool = False) -> Use:
    """``brainseg predict`` into answers/; with ``others`` an intact picture is asked for too."""

    def act(folder: Path) -> Used:
        asked = [*inputs, *([GOOD_CASE] if others else [])]
        done = project.brainseg(folder, "predict", *asked, "-o", "answers", "--model", model)
        results = answers(folder / "answers")
        answered = any(name.startswith("masks/") and "good" in name for name in results)
        return Used(done, results, others and not answered)

    return Use(f"predict {' '.join(inputs)} with {model}", act)


def answers(home: Path) -> dict[str, str]:
    """Masks and pictures, and the rows without what changes. The journal itself may be written in other words."""
    found = {name: value for name, value in project.digests(home, ["masks", "overlays"]).items()}
    if (home / "summary.csv").exists():
        with (home / "summary.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found[f"row of {row['case']}"] = project.dump({k: v for k, v in row.items() if k not in CHANGING})
    return found


def _evaluate(folder: Path) -> Used:
    done = project.brainseg(folder, *SCORING, "-o", "own")
    return Used(done, project.digests(folder, ["own"]))


def _compare(folder: Path) -> Used:
    done = project.brainseg(folder, "compare", "HEAD", "workspace", "--json")
    return Used(done, {"printed": done.output})


def _track(folder: Path) -> Used:
    """Into a new store; what counts is what the store then says."""
    (folder / "mlflow.db").unlink(missing_ok=True)
    done = project.brainseg(folder, "track")
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store:
        try:
            rows = store.execute("select key, value from latest_metrics order by key, value").fetchall()
        except sqlite3.OperationalError:
            rows = []
    return Used(done, {"logged": project.dump(rows)})


def _repro(folder: Path) -> Used:
    done = project.brainseg(folder, "repro")
    return Used(done, project.digests(folder, ["data", "models", "metrics"]))


def serve(model: str) -> Use:
    """Start the server and send it one of its examples: a model of phantoms takes no other picture."""

    def act(folder: Path) -> Used:
        command = project.command("serve", "--port", "0", "--model", model)
        with subprocess.Popen(
            command, cwd=folder, env=project.environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace",
        ) as process:  # fmt: skip
            try:
                line = process.stdout.readline()  # empty when the process has ended
                answer = ask(line.rsplit("brainseg: ")[-1].strip(), folder) if "http" in line else ""
            finally:
                process.terminate()
                output, errors = process.communicate(timeout=START_SECONDS)
        code = 0 if answer else process.returncode
        return Used(Finished(code, line + output, errors), {"answer": answer})

    return Use(f"serve {model}", act)


def ask(address: str, folder: Path) -> str:
    """The answer to an example, without what changes; a refusal as its text."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            if requests.get(f"{address}ready", timeout=START_SECONDS).status_code == 200:
                break
        time.sleep(0.1)
    picture = (folder / EXAMPLE).read_bytes()
    answer = requests.post(f"{address}v1/segment", files={"file": ("example.tif", picture)}, timeout=START_SECONDS)
    return project.dump(stripped(answer.json())) if answer.ok else answer.text


def stripped(content: object) -> object:
    """JSON without times."""
    if isinstance(content, dict):
        return {key: stripped(value) for key, value in content.items() if not any(word in key for word in CHANGING)}
    return [stripped(value) for value in content] if isinstance(content, list) else content


EVALUATE = Use("brainseg evaluate", _evaluate)
COMPARE = Use("brainseg compare", _compare)
TRACK = Use("brainseg track", _track)
REPRO = Use("brainseg repro", _repro)
