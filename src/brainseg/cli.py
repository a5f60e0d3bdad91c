"""The command `brainseg`: one function for each command. A command imports its modules when it is called."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from brainseg import __version__, errors

MODEL = Path("models/unet.onnx")  # below the project's top folder
RELEASED = Path("models/released")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: it starts faster and reads the same in a log
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="brainseg COMMAND --help explains one command. predict, serve and data work in any folder; the other "
    "commands work in the project's folder and below it.",
)


def main() -> None:
    """Run the command line. An error is printed as ``ERROR <CODE> <path>: <what>. Fix: <action>``, then exit(CODE)."""
    app(prog_name="brainseg")


def _command(
    name: str, *, anywhere: bool = False, patterns: tuple[str, ...] = (), folders: tuple[str, ...] = ()
) -> Callable[..., Callable[..., None]]:
    """Make a function a command. What it raises becomes ERROR lines and the exit code.

    Args:
        anywhere: the command needs a model and no project around it. The others work in the project's top folder.
        patterns: the texts among its options that name files. folders: those that may name a folder.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(context: typer.Context, **options: Any) -> None:
            def act() -> None:
                sources = {name: context.get_parameter_source(name) for name in options}
                given = {name for name, source in sources.items() if source and source.name != "DEFAULT"}
                function(**options if anywhere else options | _go_to_top(options, given, patterns, folders))

            errors.run(act)

        asked = inspect.signature(function)
        first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        command.__signature__ = asked.replace(parameters=[first, *asked.parameters.values()])  # type: ignore[attr-defined]
        app.command(name)(command)
        return function

    return register


def _go_to_top(
    options: dict[str, Any], given: set[str], patterns: tuple[str, ...], folders: tuple[str, ...]
) -> dict[str, Any]:
    """Change to the project's top folder, as Git does.

    Returns:
        The options that were ``given`` and name files: seen from there, while the user names them from below it.
    """
    here, top = Path.cwd(), _find_project()
    if not top:
        raise errors.DataError(here, "is in no project", "cd to the folder that holds dvc.yaml and params.yaml")
    if top == here:
        return {}
    below = here.relative_to(top)

    def is_file(name: str, text: str) -> bool:
        path = Path(text.replace("{fold}", "0"))  # of a file for each fold the first
        return name in patterns or (name in folders and (path.is_file() or (path / "per_patient.csv").is_file()))

    def move(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [move(name, each) for each in value]
        if isinstance(value, Path):
            return below / value.expanduser()
        return os.path.join(below, os.path.expanduser(value)) if value and is_file(name, value) else value

    moved = {name: move(name, options[name]) for name in given}
    os.chdir(top)
    return moved


def _find_project() -> Path | None:
    """The project's top folder: this one, or the nearest above."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), None)


def _find_model(model: Path) -> Path:
    """The model's file: one that is named, ``best`` among the released ones, else that of the project around.

    Where none is named and no project is around this folder, it is the one that came with the package.

    Raises:
        IntegrityError: there is none of a released name, or none at all.
    """
    if model.is_file():
        return model
    top = _find_project() or Path()
    if not model.suffix and len(model.parts) == 1:
        released = top / RELEASED / f"{model}.onnx"
        if not released.exists():
            fix = f"make pull MODEL={model} in a clone of the project, or name a file"
            raise errors.IntegrityError(model, f"there is no {released}", fix)
        return released if top != Path.cwd() else RELEASED / f"{model}.onnx"
    if model != MODEL:
        return model
    if _find_project():
        return model if top == Path.cwd() else top / model
    from brainseg.inference.predictor import PACKAGED

    if PACKAGED.is_file():
        origin = f"released with {errors.DISTRIBUTION} {__version__}"
        print(f"model: {PACKAGED}, {origin}; another: --model FILE", file=sys.stderr)
        return PACKAGED
    fix = "name its file: --model FILE (make pull in a clone of the project fetches the released one)"
    raise errors.IntegrityError(model, "there is no model, and no project around this folder", fix)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"brainseg {__version__}")
        raise typer.Exit()


def _check_labels(text: str | None) -> str | None:
    parts = [part.strip() for part in text.split(",")] if text is not None else []
    if not all(part.isdecimal() and 1 <= int(part) <= 65535 for part in parts):
        raise typer.BadParameter(f"{text!r} is not a list of labels from 1 to 65535, for example 1,2,4")
    return text


def _check_numbers(text: str | None) -> str | None:
    if text is not None and not all(part.isdecimal() for part in text.split(",")):
        raise typer.BadParameter(f"{text!r} is not a list of numbers, for example 0,1")
    return text


def _check_threshold(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value:g} is not above 0 and below 1")
    return value


def _labels(text: str | None) -> list[int] | None:
    return None if text is None else [int(part) for part in text.split(",")]


# Options of several commands. errors.run reads --debug from the command line, the functions do not need its value.
Debug = Annotated[bool, Option("--debug", help="Print the traceback of an error.")]
Recipe = Annotated[
    str | None, Argument(metavar="RECIPE", help="Let recipes/RECIPE.yaml replace parameters of params.yaml.")
]
Layout = Literal["auto", "patterns", "brats", "nnunet", "decathlon", "bids", "table", "folders"]
Settings = Annotated[
    list[str] | None,
    Option("--set", "-S", metavar="KEY=VALUE", help="Set a parameter, as DVC's -S; its name and value are checked."),
]
# Where trainings run: experiments.running.runner.Place.
On = Annotated[
    Literal["here", "ray"], Option("--on", help="Where to train: on this machine, or on Ray, by default a local one.")
]
Address = Annotated[
    str | None,
    Option(
        "--address", metavar="HOST:PORT", help="The Ray cluster, seen from one of its machines; auto: the one here."
    ),
]
Cpus = Annotated[float | None, Option("--cpus", min=0.0, metavar="N", help="Processors that a training takes on Ray.")]
Gpus = Annotated[
    float | None,
    Option("--gpus", min=0.0, metavar="N", help="GPUs that a training takes on Ray; 0.25: four share one."),
]
WithoutScalp = Annotated[
    str | None,
    Option(
        "--without-scalp",
        metavar="BRAIN",
        help="Ask all again without what this network (a run or file; of folds with {fold}) does not call brain.",
    ),
]
Quiet = Annotated[bool, Option("--quiet", help="Lines for a log, no table.")]
ModelFile = Annotated[
    Path, Option("--model", metavar="FILE", help="The ONNX file of the model, or the name of a released one.")
]


@app.callback()
def brainseg(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Outline lower-grade gliomas on brain MRI. Research use only, not for clinical use."""


@_command("doctor")
def doctor(
    recipe: Recipe = None,
    time: Annotated[
        bool, Option("--time", help="Also measure for a minute how long a training would take here.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Check this machine and this folder.

    Prints a line for each thing that is present or missing, and how to correct what is missing.
    """
    from brainseg.commands import doctor

    print(doctor.run(time=time, recipe=recipe))


@_command("demo")
def demo(
    fresh: Annotated[bool, Option("--fresh", help="Remove .demo/ first, with all that is in it.")] = False,
    debug: Debug = False,
) -> None:
    """Run the whole pipeline on drawn phantoms, in .demo/.

    What is there stays: only what changed in the project is brought into it, and only what that touches runs again.
    """
    from brainseg.experiments import demo

    print(demo.run(fresh=fresh))


@_command("predict", anywhere=True)
def predict(
    paths: Annotated[
        list[str],
        Argument(
            metavar="PATH",
            help="A picture, TIF, NIfTI, NRRD, MetaImage, MGH or zip, a folder of them or of DICOM files, or a pattern "
            "in quotes. "
            "An image with one channel is taken as FLAIR.",
        ),
    ],
    output: Annotated[
        Path, Option("--output", "-o", metavar="DIR", help="A new folder, or one of an earlier call to continue.")
    ],
    pre: Annotated[
        str | None,
        Option("--pre", metavar="PATH", help="The pre-contrast series that belongs to PATH, one FLAIR series."),
    ] = None,
    post: Annotated[
        str | None, Option("--post", metavar="PATH", help="The post-contrast series that belongs to PATH.")
    ] = None,
    each_picture: Annotated[
        bool,
        Option(
            "--each-picture",
            help="Treat NAME_1.png, NAME_2.png, ... as separate pictures, not as the slices of one volume.",
        ),
    ] = False,
    probabilities: Annotated[
        bool, Option("--probabilities", help="Also write a map of the probability of tumour for each case.")
    ] = False,
    threshold: Annotated[
        float | None,
        Option(
            "--threshold",
            metavar="T",
            callback=_check_threshold,
            help="The probability from which a voxel is tumour, above 0 and below 1. Default: the model's own.",
        ),
    ] = None,
    min_component: Annotated[
        int | None,
        Option(
            "--min-component",
            min=0,
            max=2**27,  # voxels of the largest volume
            metavar="N",
            help="Remove components of fewer voxels, counted on the model's grid, from volumes and single slices. "
            "Default: the model's own, from volumes alone.",
        ),
    ] = None,
    verbose: Annotated[bool, Option("--verbose", help="Name every file and folder that is passed over.")] = False,
    model: ModelFile = MODEL,
    threads: Annotated[
        int | None, Option("--threads", min=1, metavar="N", help="The number of processor cores to use. Default: all.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Outline tumours on your own scans.

    Writes masks, pictures with the outline and a table with one row for each case.
    """
    from brainseg.inference.chosen_rule import RuleChoice
    from brainseg.inference.predictor import Predictor
    from brainseg.predict import batch

    inputs = batch.Inputs(paths, pre, post, each_picture)
    wanted = batch.Wanted(RuleChoice(threshold, min_component), probabilities)
    batch.run(inputs, output, Predictor(_find_model(model), threads=threads), wanted=wanted, verbose=verbose)


@_command("serve", anywhere=True)
def serve(
    host: Annotated[
        str,
        Option(
            "--host", help="The address to listen on. For any address but this machine's own, clients need a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, Option("--port", min=0, max=65535, metavar="N", help="The port to listen on; 0 takes a free one.")
    ] = 5000,
    model: ModelFile = MODEL,
    root_path: Annotated[
        str,
        Option(
            "--root-path",
            metavar="PATH",
            help="The path that a proxy gives the server, such as /brainseg; a proxy that sends X-Forwarded-Prefix "
            "needs no such option.",
        ),
    ] = "",
    log_format: Annotated[
        Literal["text", "json"], Option("--log-format", help="The lines of the log: for people or for programs.")
    ] = "text",
    debug: Debug = False,
) -> None:
    """Open the web page and the API of the model.

    Both outline the images that are sent to them: http://localhost:5000.
    """
    from brainseg.server import serve

    serve.run(host, port, _find_model(model), root_path, log_format)


@_command("data", anywhere=True)
def data(
    path: Annotated[str, Argument(metavar="PATH", help="Your folder of images and masks, or a CSV of pairs.")],
    layout: Annotated[
        Layout, Option("--layout", help="How files are laid out, as download.layout; auto recognises it.")
    ] = "auto",
    patient: Annotated[str, Option("--patient", metavar="RULE", help="As download.patient.")] = "folder",
    patients: Annotated[
        str | None,
        Option("--patients", metavar="CSV", help="As download.patients: columns case, patient, institution."),
    ] = None,
    images: Annotated[str, Option("--images", metavar="PATTERN", help="As download.images, in quotes.")] = "**/*",
    masks: Annotated[str, Option("--masks", metavar="PATTERN", help="As download.masks, in quotes.")] = "**/*_mask.*",
    json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Say what would be read of your own data.

    Copies nothing. Prints the layout, counts, examples, what is passed over, and the lines for params.yaml.
    """
    from brainseg.commands import own_data

    own_data.run(path, layout, patient, images, masks, patients, as_json=json)


@_command("evaluate", patterns=("images", "masks", "predictions"))
def evaluate(
    images: Annotated[
        str, Argument(metavar="IMAGES", help="A folder, or a pattern in quotes: 'scans/*_flair.nii.gz', 'dicom/*/'.")
    ],
    masks: Annotated[
        str,
        Argument(
            metavar="MASKS", help="The same for the masks. A mask belongs to the image whose wildcards match the same."
        ),
    ],
    predictions: Annotated[
        str | None, Option("--predictions", metavar="MASKS", help="Score these masks from any source, and no model.")
    ] = None,
    model: Annotated[
        Path, Option("--model", metavar="DIR", help="The folder of unet.json and unet.weights.h5.")
    ] = Path("models"),
    patient: Annotated[
        str,
        Option(
            "--patient",
            metavar="RULE",
            help="What names a patient: folder (the last one that wildcards match), each_volume, each_image, or a "
            "regular expression with one group.",
        ),
    ] = "folder",
    foreground: Annotated[
        str | None,
        Option(
            "--foreground",
            metavar="1,2,4",
            callback=_check_labels,
            help="The labels of the masks that count as tumour. Default: the only one above 0.",
        ),
    ] = None,
    predicted_foreground: Annotated[
        str | None,
        Option("--predicted-foreground", metavar="1,2,4", callback=_check_labels, help="The same for the predictions."),
    ] = None,
    output: Annotated[Path, Option("--output", "-o", metavar="DIR", help="The folder to write to.")] = Path(
        "evaluation"
    ),
    debug: Debug = False,
) -> None:
    """Score a model or given masks on your own images.

    Nothing is trained. Writes the numbers, tables, pictures and a report.
    """
    from brainseg.commands import external
    from brainseg.data.external_data import ExternalInputs

    labels = _labels(foreground), _labels(predicted_foreground)
    print(external.run(ExternalInputs(images, masks, predictions, patient, *labels), model, output))


@_command("check")
def check(
    recipe: Recipe = None,
    settings: Settings = None,
    time: Annotated[
        bool, Option("--time", help="Also measure for a minute how long the training would take here.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Say what a run would do, need and take, before it starts.

    Checks parameters, stages, data, disk, memory and time; changes and trains nothing. What a run would end with is an
    error.
    """
    from brainseg.commands import check

    check.run(recipe, settings or [], time=time)


@_command("repro")
def repro(
    recipe: Recipe = None,
    check: Annotated[
        bool, Option("--check", help="Read every file again; without, a large one only if its size or times changed.")
    ] = False,
    settings: Settings = None,
    queue: Annotated[
        bool, Option("--queue", help="Queue the experiment, or one for each value of KEY=VALUE,VALUE.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Run the pipeline: dvc repro, safe after a killed run.

    Removes what a killed run left behind, runs the stages whose inputs changed, then checks all results against
    dvc.lock. With a recipe or with settings it is an experiment: -S train.loss=jaccard -S train.seed=2 makes
    jaccard-seed2.
    """
    from brainseg.experiments import repro

    repro.run(recipe, check=check, settings=settings or [], queue=queue)


@_command("restore")
def restore(debug: Debug = False) -> None:
    """Go back to the committed run.

    Brings parameters, numbers and the model back, and of the data what a cache has.

    Nothing is lost: changes go to Git's stash. Says what is not here and which command makes it.
    """
    from brainseg.experiments import restore

    restore.run()


@_command("compare", folders=("a", "b"))
def compare(
    a: Annotated[
        str, Argument(metavar="A", help="A Git revision, a branch, a DVC experiment or a folder with per_patient.csv.")
    ],
    b: Annotated[
        list[str] | None,
        Argument(
            metavar="B",
            help="The same, one or more. Default: workspace, the present state of this folder.",
            show_default=False,
        ),
    ] = None,
    cross_validation: Annotated[
        bool,
        Option("--cross-validation", help="Compare all patients out of fold, as brainseg cross-validate scored them."),
    ] = False,
    validation: Annotated[
        bool, Option("--validation", help="Compare validation patients: for a choice among recipes, before any test.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        Path | None, Option("--html", metavar="FILE", help="Also write a page with a paired dot plot.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Test whether run B is better than run A.

    Pairs the patients of both runs, for example: brainseg compare HEAD my-experiment

    Of several runs each is compared with A, and p is corrected for their number.
    """
    from brainseg.experiments import comparison, revision
    from brainseg.experiments.comparing import baseline, comparison_page, several

    sides = a, *(b or [revision.WORKSPACE])
    first, *others = [revision.scores(side, cross_validation=cross_validation, validation=validation) for side in sides]
    suggest = comparison.describe_one_split if cross_validation else baseline.suggest
    page: Any = comparison_page
    compared: Any
    if len(others) > 1:
        page, compared = several, several.compare(first, others, suggest=suggest)
    else:
        compared = comparison.compare(first, *others, suggest=suggest)
    print(page.format_json(compared) if json else page.format_table(compared))
    if html:
        page.write(compared, html)
        print(f"page: {html}", file=sys.stderr)


@_command("show")
def show(
    patients: Annotated[
        list[str], Argument(metavar="PATIENT", help="The name of a test patient, or a part that no other name has.")
    ],
    of: Annotated[
        list[str] | None,
        Option(
            "--of",
            metavar="RUN",
            help="The run that tested the patients: a Git revision, a branch or a DVC experiment. Can be given several "
            "times. Default: workspace.",
        ),
    ] = None,
    output: Annotated[Path, Option("--output", "-o", metavar="FILE", help="The PNG to write.")] = Path("patients.png"),
    debug: Debug = False,
) -> None:
    """Draw test patients: scan, truth, prediction, errors."""
    from brainseg.experiments import showing

    print(showing.show(patients, of or ["workspace"], output))


@_command("cross-validate")
def cross_validate(
    recipe: Recipe = None,
    scheme: Annotated[
        Literal["patient", "institution"] | None,
        Option("--scheme", help="What is left out together. Default: split.unit of params.yaml."),
    ] = None,
    jobs: Annotated[
        int | None,
        Option("--jobs", min=1, metavar="N", help="The number of folds at once. Default: 1; on Ray what has room."),
    ] = None,
    folds: Annotated[
        str | None,
        Option("--folds", metavar="N,N", callback=_check_numbers, help="Some folds alone; needs --output."),
    ] = None,
    output: Annotated[
        Path | None,
        Option("--output", metavar="DIR", help="The folder to write to. Default: metrics/cross_validation."),
    ] = None,
    on: On = "here",
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train every fold and score every patient out of fold.

    Each fold is a DVC experiment, whose model never saw the patients that it is scored on. What was stopped goes on
    with the same command.
    """
    from brainseg.experiments import cross_validation
    from brainseg.experiments.running.runner import Place
    from brainseg.tracking import mlflow_runs

    only = None if folds is None else [int(part) for part in folds.split(",")]
    if only is not None and output is None:
        what = "would take the place of the cross-validation of all patients"
        raise errors.DataError(f"--folds {folds}", what, "add --output DIR")
    place, folder = Place(on, jobs, address, cpus, gpus), output or cross_validation.FOLDER
    print(cross_validation.run(recipe, scheme, place, folder=folder, only=only, quiet=quiet))
    if not output:
        mlflow_runs.log_cross_validation()


@_command("tune", folders=("space",))
def tune(
    space: Annotated[Path, Argument(metavar="SPACE", help="The parameters and ranges, as recipes/tune/default.yaml.")],
    trials: Annotated[int, Option("--trials", min=1, metavar="N", help="The number of trials in all.")] = 30,
    jobs: Annotated[
        int | None,
        Option("--jobs", min=1, metavar="N", help="The number of trials at once. Default: 1; on Ray what has room."),
    ] = None,
    inner_folds: Annotated[
        int, Option("--inner-folds", min=1, metavar="N", help="On how many inner folds each trial is trained.")
    ] = 1,
    name: Annotated[str | None, Option("--name", help="The name of the search. Default: that of the file.")] = None,
    seed: Annotated[int, Option("--seed", min=0, metavar="N", help="Of the proposals.")] = 1,
    storage: Annotated[
        str | None, Option("--storage", metavar="URL", help="A database of Optuna's. Default: .brainseg/tune/NAME.")
    ] = None,
    repeats: Annotated[
        int,
        Option("--repeats", min=0, metavar="N", help="Trainings of params.yaml with other seeds: what chance does."),
    ] = 3,
    verdict: Annotated[
        bool, Option("--verdict/--no-verdict", help="Compare the best with params.yaml on the test fold at the end.")
    ] = True,
    on: On = "here",
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Search for better parameters with Optuna.

    No trial sees a patient of the test fold. A search that was stopped goes on with the same command.
    """
    from brainseg.experiments.running.runner import Place
    from brainseg.tracking import mlflow_runs, run_store
    from brainseg.tuning import search
    from brainseg.tuning import tune as command

    options, place = search.Options(trials, seed, storage), Place(on, jobs, address, cpus, gpus)
    told, folder = command.run(space, options, place, inner_folds, name, repeats, verdict=verdict, quiet=quiet)
    print(told)
    mlflow_runs.log_search(folder, seconds=run_store.TRACK_SECONDS)


@_command("ensemble", folders=("runs", "without_scalp"))
def ensemble(
    runs: Annotated[list[str], Argument(metavar="RUN...", help="Runs, or files or folders of models.")],
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="DIR", help="The folder to write to. Default: models/ensemble."),
    ] = None,
    out_of_fold: Annotated[
        bool,
        Option("--out-of-fold", help="RUN... are cross-validations (cv-KEY): score the mean of each of their folds."),
    ] = False,
    without_scalp: WithoutScalp = None,
    debug: Debug = False,
) -> None:
    """Join several networks into one model, their mean.

    predict, serve and the page take the file like any other.
    """
    if out_of_fold:
        from brainseg.commands.several import ensemble_folds

        print(ensemble_folds.run(runs, output or Path("metrics/ensemble"), without_scalp))
        return
    from brainseg.commands.several import ensemble as command

    print(command.run(runs, output or Path("models/ensemble"), without_scalp))


@_command("teach")
def teach(
    runs: Annotated[
        list[str], Argument(metavar="RUN...", help="Cross-validations (cv-KEY), or runs with train.subset=all.")
    ],
    output: Annotated[Path, Option("--output", "-o", metavar="DIR", help="The folder to write to.")] = Path(
        "soft_masks"
    ),
    debug: Debug = False,
) -> None:
    """Write what networks answer together, to teach another.

    Of a cross-validation a file for each fold, without its test patients: train.soft_masks takes them.
    """
    from brainseg.commands.several import teaching as command

    print(command.run(runs, output))


@_command("release", folders=("runs", "numbers", "without_scalp"))
def release(
    name: Annotated[str, Argument(metavar="NAME", help="What it is called: fast, default or best.")],
    runs: Annotated[list[str], Argument(metavar="RUN...", help="Runs with train.subset=all; of several the mean.")],
    numbers: Annotated[Path, Option("--numbers", metavar="DIR", help="The cross-validation of their recipe.")] = Path(
        "metrics/cross_validation"
    ),
    int8: Annotated[bool, Option("--int8", help="The one in 8-bit integers: smaller and faster.")] = False,
    without_scalp: WithoutScalp = None,
    debug: Debug = False,
) -> None:
    """Release networks that were trained on all patients.

    models/released/NAME.onnx has the rule and numbers of their recipe out of fold; make push puts it into weights/.
    """
    from brainseg.commands.several import release as command

    print(command.run(name, runs, numbers, "int8" if int8 else "float32", without_scalp))
    command.keep(name)


@_command("card")
def card(
    output: Annotated[Path, Option("--output", "-o", metavar="FILE", help="The file to write.")] = Path(
        "docs/reference/model-card.md"
    ),
    debug: Debug = False,
) -> None:
    """Write the model card from the model and its numbers."""
    from brainseg.reporting import card_file

    print(card_file.write(output))


@_command("register")
def register(
    new_line: Annotated[
        bool,
        Option(
            "--new-line",
            help="Start again with other patients or another protocol, on which the champion cannot be compared.",
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Make the exported model the champion in MLflow.

    The model is refused if it is worse than the present champion.
    """
    from brainseg.tracking import registry

    print(registry.run(new_line=new_line))


@_command("track")
def track(debug: Debug = False) -> None:
    """Log to MLflow the results that are not there yet.

    For results that DVC restored from its cache, and after a time without the tracking server.
    """
    from brainseg.data import inputs
    from brainseg.tracking import mlflow_runs, run_store

    inputs.verify_results()  # what is logged are the numbers that the stages made
    if (mlflow_runs.FOLDS / "summary.json").exists():  # which no stage makes
        mlflow_runs.read_cross_validation(mlflow_runs.FOLDS)
    searches = [path.parent for path in sorted(mlflow_runs.SEARCHES.glob("*/summary.json"))]
    for folder in searches:
        mlflow_runs.read_search(folder)
    logs: dict[str, Callable[..., bool]] = {
        "metrics/training.csv": functools.partial(mlflow_runs.log_training, once=True),
        "metrics/evaluation.json": functools.partial(mlflow_runs.log_evaluation, once=True),
        "metrics/report.html": mlflow_runs.log_figures,
        "metrics/cross_validation/summary.json": mlflow_runs.log_cross_validation,
    }
    logs |= {str(folder): functools.partial(mlflow_runs.log_search, folder) for folder in searches}
    there = [log for path, log in logs.items() if Path(path).exists()]
    if there:
        run_store.check_store(run_store.TRACK_SECONDS)
    done = [log(seconds=run_store.TRACK_SECONDS) for log in there]
    if not all(done):
        what, fix = "some results could not be logged", "read the warning above and try again"
        raise errors.MachineError(run_store.store_name(), what, fix)
    print(f"The runs are in {run_store.store_name()}; make ui shows them.")


@_command("verify-data")
def verify_data(debug: Debug = False) -> None:
    """Read cache, results and model again, byte by byte."""
    from brainseg.experiments import integrity

    print(integrity.run())
