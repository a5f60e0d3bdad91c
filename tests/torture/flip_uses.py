"""How a user uses a file: runs the stage that reads it, outlines, serves, scores, compares, tracks, goes on."""

import contextlib
import csv
import functools
import hashlib
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import requests

from brainseg import config
from brainseg.predict import output
from tests.support import tiny_pipeline
from tests.torture import project
from tests.torture.project import Finished

GOOD_CASE = "inputs/good/good.png"
NEIGHBOURS = ("inputs/good", "inputs/pictures")  # intact pictures beside the one that is hurt
SHOWN = "inputs/shown.txt"  # the name of a test patient
CHANGING = ("seconds", "source")  # columns and keys that differ from run to run
SCORING = ("evaluate", *(f"inputs/scored/*/*_{kind}.png" for kind in ("flair", "mask")))
COMPARING_FOLDS = ("compare", "HEAD", "workspace", "--cross-validation", "--json")
MADE = ("data", "models", "metrics")
LOGGED = "select key, value from latest_metrics"
KEPT, OF_RUNS = "mlartifacts", (".csv", ".json", ".png", ".html", ".h5")
TEMPORARY = re.compile(r"/tmp[^/]+/")
START_SECONDS = 180
REFUSED = 2  # the code of an answer that the server refuses


class Used(NamedTuple):
    """``results``: name → digest or text of what came out, or of what lies there although it was refused."""

    finished: Finished
    results: dict[str, str]


def nothing(folder: Path) -> dict[str, str]:
    return {}


def everything(name: str) -> bool:
    return True


class Use(NamedTuple):
    """``look``: the results that lie in a folder before it is used.

    ``own``: whether a result comes of the hurt file. It may differ if that file is obeyed, and be missing if it is
    refused. All others must be right in any case. ``does_without``: it goes on without the hurt file, with a warning
    that names it, and has something else to show in its place.
    """

    name: str
    act: Callable[[Path], Used]
    look: Callable[[Path], dict[str, str]] = nothing
    own: Callable[[str], bool] = everything
    does_without: bool = False


def stage(name: str) -> Use:
    """The stage's script, as DVC starts it."""

    def act(folder: Path) -> Used:
        return Used(project.stage(folder, name), project.digests(folder))

    return Use(f"stage {name}", act, project.digests, lambda path: path.startswith(outs_of(name)))


@functools.cache
def outs_of(name: str) -> tuple[str, ...]:
    """The paths that a stage writes."""
    declared = config.read_yaml(tiny_pipeline.PROJECT / "dvc.yaml")["stages"][name]
    outs = [out for kind in ("outs", "metrics", "plots") for out in declared.get(kind, [])]
    return tuple(next(iter(out)) if isinstance(out, dict) else out for out in outs)


def predict(*inputs: str, model: str = "models/unet.onnx", others: bool = False) -> Use:
    """``brainseg predict`` into answers/; with ``others`` intact pictures are asked for too."""

    def act(folder: Path) -> Used:
        asked = [*inputs, *(NEIGHBOURS if others else ())]
        done = project.brainseg(folder, "predict", *asked, "-o", "answers", "--model", model)
        return Used(done, look(folder))

    def look(folder: Path) -> dict[str, str]:
        return answers(folder / "answers")

    own = is_of_no_neighbour if others else everything
    return Use(f"predict {' '.join(inputs)} with {model}", act, look, own)


def is_of_no_neighbour(name: str) -> bool:
    return not any(f"{Path(folder).name}/" in name for folder in NEIGHBOURS)


def answers(home: Path) -> dict[str, str]:
    """All files, of the tables the rows of answered cases without what changes.

    The journal itself may be written in other words.
    """
    apart = (output.JOURNAL, output.LOCK, output.SUMMARY, output.LESIONS)
    found = {name: value for name, value in project.digests(home, ["."]).items() if name not in apart}
    for table in (output.SUMMARY, output.LESIONS):
        for row in read_rows(home / table):
            if row.get("mask") != "":  # a case that was refused has none
                name = f"{table}, row of {row['case']} {row.get('lesion', '')}"
                found[name] = project.dump({k: v for k, v in row.items() if k not in CHANGING})
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def written(name: str, result: str, *command: str) -> Use:
    """A command that writes a new file or folder."""

    def act(folder: Path) -> Used:
        return Used(project.brainseg(folder, *command), project.digests(folder, [result]))

    return Use(f"brainseg {name}", act)


def printed(name: str, *command: str) -> Use:
    """A command that prints its answer, if it has one."""

    def act(folder: Path) -> Used:
        done = project.brainseg(folder, *command)
        return Used(done, {"printed": done.output} if done.output.strip() else {})

    return Use(f"brainseg {name}", act)


def _show(folder: Path) -> Used:
    patient = (folder / SHOWN).read_text()
    done = project.brainseg(folder, "show", patient, "-o", "shown.png")
    return Used(done, project.digests(folder, ["shown.png"]))


def _track(folder: Path) -> Used:
    """Into a new store; what counts is what the store then says, and the files that it keeps."""
    _forget_store(folder)
    done = project.brainseg(folder, "track")
    logged = {f"{key} is {value}": "logged" for key, value in ask_store(folder, LOGGED)}
    return Used(done, logged | _list_kept(folder / KEPT))


def _forget_store(folder: Path) -> None:
    (folder / "mlflow.db").unlink(missing_ok=True)
    shutil.rmtree(folder / KEPT, ignore_errors=True)


def _list_kept(home: Path) -> dict[str, str]:
    """The files of runs and their digests, without the numbers of the runs and the names of temporary folders.

    The digest is part of the name, because several runs have a file of one name (each its per_patient.csv).
    """
    found = project.digests(home, ["."])
    paths = {name: TEMPORARY.sub("/", name.rpartition("artifacts/")[2]) for name in found if name.endswith(OF_RUNS)}
    return {f"{path} is {found[name]}": "kept" for name, path in paths.items()}


def _register(folder: Path) -> Used:
    """Into a new registry."""
    _forget_store(folder)
    done = project.brainseg(folder, "register")
    rows = ask_store(folder, "select key, value from model_version_tags")
    results = {"printed": done.output.replace(str(folder), "")} if done.output.strip() else {}
    return Used(done, results | {f"{key} is {value}": "registered" for key, value in rows})


def ask_store(folder: Path, question: str) -> list[tuple]:
    """The rows of MLflow's store; none if it has not even its tables."""
    if not (folder / "mlflow.db").exists():
        return []
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store:
        try:
            return store.execute(question).fetchall()
        except sqlite3.OperationalError:
            return []


def _repro(folder: Path) -> Used:
    done = project.brainseg(folder, "repro")
    return Used(done, _look_at_results(folder))


def _look_at_results(folder: Path) -> dict[str, str]:
    return project.digests(folder, MADE)


def serve(model: str) -> Use:
    """Start the server, take its examples and send them back: a model of phantoms takes no other picture."""

    def act(folder: Path) -> Used:
        command = project.command("serve", "--port", "0", "--model", model)
        with subprocess.Popen(
            command, cwd=folder, env=project.environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace",
        ) as process:  # fmt: skip
            try:
                line = process.stdout.readline()  # empty when the process has ended
                address = line.rsplit("brainseg: ")[-1].strip() if "http" in line else ""
                answer = ask(address) if address else None
            finally:
                process.terminate()
                more, errors = process.communicate(timeout=START_SECONDS)
        if answer is None:
            return Used(Finished(process.returncode, line + more, errors), {})
        if answer.startswith("ERROR"):
            return Used(Finished(REFUSED, line + more, f"{errors}\n{answer}"), {})
        return Used(Finished(0, line + more, errors), {"answer": answer})

    return Use(f"serve {model}", act)


def ask(address: str) -> str:
    """The examples and their answers without what changes, or the first refusal as a line ERROR."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            if requests.get(f"{address}ready", timeout=START_SECONDS).status_code == 200:
                break
        time.sleep(0.1)
    listed = requests.get(f"{address}v1/examples", timeout=START_SECONDS).json()
    told = [listed]
    for each in listed:
        picture = requests.get(f"{address}v1/examples/{each['id']}", timeout=START_SECONDS)
        sent = {"file": ("example.tif", picture.content)}
        answer = requests.post(f"{address}v1/segment", files=sent, timeout=START_SECONDS) if picture.ok else picture
        if not answer.ok:
            return f"ERROR {answer.status_code} {answer.text}"
        told += [hashlib.sha256(picture.content).hexdigest(), stripped(answer.json())]
    return project.dump(told)


def stripped(content: object) -> object:
    """JSON without times."""
    if isinstance(content, dict):
        return {key: stripped(value) for key, value in content.items() if not any(word in key for word in CHANGING)}
    return [stripped(value) for value in content] if isinstance(content, list) else content


EVALUATE = written("evaluate", "own", *SCORING, "-o", "own")
CARD = written("card", "card.md", "card", "--output", "card.md")
SHOW = Use("brainseg show", _show)
COMPARE = printed("compare", "compare", "HEAD", "workspace", "--json")
COMPARE_FOLDS = printed("compare --cross-validation", *COMPARING_FOLDS)
VERIFY = printed("verify-data", "verify-data")
TRACK = Use("brainseg track", _track)
REGISTER = Use("brainseg register", _register)
REPRO = Use("brainseg repro", _repro, _look_at_results)
