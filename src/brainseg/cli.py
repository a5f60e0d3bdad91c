"""The command `brainseg`: one verb each, whose modules are imported only when it is asked for."""

import argparse
import sys
from pathlib import Path
from typing import Any

from brainseg import __version__, errors


def main() -> None:
    """Entry point. A fault is printed as ``ERROR <CODE> <path>: <what>. Fix: <action>``; its code is the exit code."""
    arguments = parser().parse_args()
    errors.run(lambda: _act(arguments))


def _act(arguments: argparse.Namespace) -> None:
    if arguments.verb not in ANYWHERE:
        _check_is_project()
    arguments.action(arguments)


def _check_is_project() -> None:
    here = Path.cwd()
    top = next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), None)
    if top != here:
        fix = f"cd {top}" if top else "cd to the folder that holds dvc.yaml and params.yaml"
        raise errors.DataError(here, "is not the project's top folder", fix)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="brainseg", description="Lower-grade gliomas on brain MRI. Not for clinical use."
    )
    top.add_argument("--version", action="version", version=f"brainseg {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    for name, (action, summary) in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary)
        verb.set_defaults(action=action, verb=name)
        verb.add_argument("--debug", action="store_true", help="print the traceback of a fault")
        for argument, settings in ARGUMENTS.get(name, {}).items():
            verb.add_argument(*argument.split(), **settings)
    return top


def _card(arguments: argparse.Namespace) -> None:
    from brainseg.reporting import card_file

    print(card_file.write(arguments.output))


def _compare(arguments: argparse.Namespace) -> None:
    from brainseg.experiments import comparison, comparison_page, revision

    sides = [revision.scores(side, cross_validation=arguments.cross_validation) for side in (arguments.a, arguments.b)]
    compared = comparison.compare(*sides)
    print(comparison_page.as_json(compared) if arguments.json else comparison_page.table(compared))
    if arguments.html:
        comparison_page.write(compared, arguments.html)
        print(f"page: {arguments.html}", file=sys.stderr)


def _cross_validate(arguments: argparse.Namespace) -> None:
    from brainseg.experiments import cross_validation
    from brainseg.tracking import mlflow_runs

    folder = arguments.output or cross_validation.FOLDER
    print(cross_validation.run(arguments.recipe, arguments.scheme, arguments.jobs, folder=folder))
    if not arguments.output:
        mlflow_runs.log_cross_validation()


def _demo(arguments: argparse.Namespace) -> None:
    from brainseg.experiments import demo

    print(demo.run())


def _doctor(arguments: argparse.Namespace) -> None:
    from brainseg.commands import doctor

    print(doctor.run(time=arguments.time, recipe=arguments.recipe))


def _evaluate(arguments: argparse.Namespace) -> None:
    from brainseg.commands import external

    a = arguments
    given = external.Given(a.images, a.masks, a.predictions, a.patient, a.foreground, a.predicted_foreground)
    print(external.run(given, a.model, a.output))


def _predict(arguments: argparse.Namespace) -> None:
    from brainseg.inference.predictor import Predictor
    from brainseg.predict import batch

    a = arguments
    given = batch.Given(a.paths, a.pre, a.post, a.each_picture)
    batch.run(given, a.output, Predictor(a.model, threads=a.threads))


def _register(arguments: argparse.Namespace) -> None:
    from brainseg.tracking import registry

    print(registry.run(anew=arguments.anew))


def _repro(arguments: argparse.Namespace) -> None:
    from brainseg.experiments import repro

    repro.run(arguments.recipe)


def _serve(arguments: argparse.Namespace) -> None:
    from brainseg.server import serve

    serve.run(arguments.host, arguments.port, arguments.model)


def _show(arguments: argparse.Namespace) -> None:
    from brainseg.experiments import showing

    print(showing.show(arguments.patients, arguments.of or ["workspace"], arguments.output))


def _track(arguments: argparse.Namespace) -> None:
    from brainseg.tracking import mlflow_runs

    done = []
    if Path("metrics/training.csv").exists():
        done.append(mlflow_runs.log_training(once=True))
    if Path("metrics/evaluation.json").exists():
        done.append(mlflow_runs.log_evaluation(once=True))
    if Path("metrics/report.html").exists():
        done.append(mlflow_runs.log_figures())
    if Path("metrics/cross_validation/summary.json").exists():
        done.append(mlflow_runs.log_cross_validation())
    if not all(done):
        raise errors.MachineError(
            mlflow_runs.store_uri(), "not all could be logged", "see the warning above, try again"
        )
    print(f"runs are in {mlflow_runs.store_uri()}; make ui shows them")


def _verify_data(arguments: argparse.Namespace) -> None:
    from brainseg.experiments import integrity

    print(integrity.run())


def _labels(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 255 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of labels from 1 to 255, as 1,2,4")
    return [int(part) for part in parts]


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return int(text)


def _port(text: str) -> int:
    if not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError("0 to 65535; 0 takes any that is free")
    return int(text)


VERBS = {
    "card": (_card, "write the model card from the model and its numbers"),
    "compare": (_compare, "say whether run B is better than run A, or by luck: brainseg compare HEAD my-experiment"),
    "cross-validate": (_cross_validate, "score every patient by a model that never saw it, a DVC experiment a fold"),
    "demo": (_demo, "run the whole pipeline on phantoms, in .demo/"),
    "doctor": (_doctor, "say what this machine and this folder have, lack, and need"),
    "evaluate": (_evaluate, "score a model, or anybody's masks, on images and masks of your own, without training"),
    "predict": (_predict, "outline tumours on scans of your own: masks, pictures and a table"),
    "register": (_register, "make the exported model MLflow's champion, if it is not worse than the one before"),
    "repro": (_repro, "put right what a killed run left, then dvc repro"),
    "serve": (_serve, "open the page and the API by which the model outlines what is sent: http://localhost:5000"),
    "show": (_show, "draw test patients by name: scan, truth, prediction and errors"),
    "track": (_track, "log to MLflow what the cache restored"),
    "verify-data": (_verify_data, "read cache, outs and model again, byte by byte"),
}
ANYWHERE = {"predict", "serve"}  # verbs that need a model and no project around it
RECIPE = {"nargs": "?", "help": "recipes/<recipe>.yaml: overrides for dvc exp run -S"}
ARGUMENTS: dict[str, dict[str, dict[str, Any]]] = {
    "card": {
        "-o --output": {
            "metavar": "FILE",
            "type": Path,
            "default": Path("docs/model-card.md"),
            "help": "where to; left out: docs/model-card.md",
        },
    },
    "compare": {
        "a": {"metavar": "A", "help": "a Git revision, a branch, a DVC experiment or a folder with per_patient.csv"},
        "b": {
            "metavar": "B",
            "nargs": "?",
            "default": "workspace",
            "help": "likewise; left out: workspace, which is a name too",
        },
        "--cross-validation": {
            "action": "store_true",
            "help": "all patients out of fold, as make cross-validate wrote them",
        },
        "--json": {"action": "store_true", "help": "print JSON"},
        "--html": {"metavar": "FILE", "type": Path, "help": "write a page with a paired dot plot"},
    },
    "cross-validate": {
        "recipe": RECIPE,
        "--scheme": {
            "choices": ["patient", "institution"],
            "help": "what is left out together; split.unit says otherwise",
        },
        "--jobs": {"type": _positive, "default": 1, "metavar": "N", "help": "folds at once"},
        "--output": {"metavar": "DIR", "type": Path, "help": "where to, instead of metrics/cross_validation"},
    },
    "doctor": {
        "recipe": RECIPE | {"help": "recipes/<recipe>.yaml: look at its parameters instead of params.yaml's"},
        "--time": {"action": "store_true", "help": "measure for a minute how long a training would take here"},
    },
    "evaluate": {
        "images": {"metavar": "IMAGES", "help": "a folder, or a pattern in quotes: 'scans/*_flair.nii.gz', 'dicom/*/'"},
        "masks": {"metavar": "MASKS", "help": "likewise; what the wildcards match pairs them"},
        "--predictions": {"metavar": "MASKS", "help": "score these masks, whoever made them, and no model"},
        "--model": {
            "metavar": "DIR",
            "type": Path,
            "default": Path("models"),
            "help": "folder of unet.json and unet.weights.h5; left out: models",
        },
        "--patient": {
            "metavar": "RULE",
            "default": "folder",
            "help": "folder (the last one that wildcards match; the default), each_volume, each_image, or a regular "
            "expression with one group",
        },
        "--foreground": {
            "metavar": "1,2,4",
            "type": _labels,
            "help": "labels of the masks that count as tumour; left out: masks of 0 and 1, or 0 and 255",
        },
        "--predicted-foreground": {"metavar": "1,2,4", "type": _labels, "help": "likewise, of the predictions"},
        "-o --output": {
            "metavar": "DIR",
            "type": Path,
            "default": Path("evaluation"),
            "help": "where to; left out: evaluation",
        },
    },
    "predict": {
        "paths": {
            "metavar": "PATH",
            "nargs": "+",
            "help": "a picture, TIF, NIfTI or zip, a folder of them or of DICOM files, or a pattern in quotes; "
            "what has one channel is taken as FLAIR",
        },
        "-o --output": {
            "metavar": "DIR",
            "type": Path,
            "required": True,
            "help": "where to; a new folder, or go on there",
        },
        "--pre": {"metavar": "PATH", "help": "the pre-contrast series that goes with PATH, which is one FLAIR series"},
        "--post": {"metavar": "PATH", "help": "likewise post-contrast"},
        "--each-picture": {
            "action": "store_true",
            "help": "NAME_1.png, NAME_2.png, ... are pictures by themselves, not the slices of one volume",
        },
        "--model": {
            "metavar": "FILE",
            "type": Path,
            "default": Path("models/unet.onnx"),
            "help": "left out: models/unet.onnx",
        },
        "--threads": {"type": _positive, "metavar": "N", "help": "processor cores to use; left out: all"},
    },
    "register": {
        "--anew": {
            "action": "store_true",
            "help": "begin with other patients or another protocol, which the champion cannot be compared on",
        },
    },
    "repro": {"recipe": RECIPE},
    "serve": {
        "--host": {
            "default": "127.0.0.1",
            "help": "address to listen on; any other than this machine's own asks clients for a token",
        },
        "--port": {"type": _port, "default": 5000, "metavar": "N", "help": "left out: 5000"},
        "--model": {
            "metavar": "PATH",
            "type": Path,
            "default": Path("models/unet.onnx"),
            "help": "left out: models/unet.onnx",
        },
    },
    "show": {
        "patients": {"metavar": "PATIENT", "nargs": "+", "help": "a test patient's name, or a part that no other has"},
        "--of": {
            "metavar": "RUN",
            "action": "append",
            "help": "the run that tested them: a Git revision, a branch or a DVC experiment; once for each; left out: "
            "the workspace",
        },
        "-o --output": {"metavar": "FILE", "type": Path, "default": Path("patients.png"), "help": "a PNG"},
    },
}
