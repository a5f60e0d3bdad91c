"""`brainseg check`: what a run would do, need and take, before DVC starts. Nothing is made or trained.

What is certain to end the run fails. What is estimated, or may turn out well, warns: a server that does not answer yet,
memory, a result that DVC's run cache may have.
"""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from brainseg import config, errors, files, hardware
from brainseg.commands import expected_data, needs, speed
from brainseg.commands.expected_data import ExpectedData
from brainseg.commands.findings import Finding, show_bytes, show_minutes
from brainseg.errors import BrainsegError, DataError, MachineError
from brainseg.experiments import integrity, planning, repro, variants
from brainseg.experiments.planning import Plan
from brainseg.models import backend

TABLE, SPLIT = expected_data.TABLE, Path("data/splits/split.csv")


def run(recipe: str | None = None, settings: Sequence[str] = (), *, time: bool = False) -> None:
    """Print one line for each thing, as `brainseg doctor` does. The project is the current folder.

    Args:
        recipe, settings: as for ``repro.run``.
        time: measure for a minute how long the training would take; else the time is told where it is known.

    Raises:
        ExceptionGroup: of all faults with which the run would end, in the order of the lines.
    """
    root, failed = Path(), list[BrainsegError]()

    def say(subject: str, look: Callable[[], Any], *, certain: bool = True) -> Any:
        """What ``look`` finds, after its lines are printed; None if it raises, which fails where it is ``certain``."""
        try:
            found = look()
        except BrainsegError as error:
            failed.extend([error] if certain else [])
            first, *others = error.problems
            more = f" and {len(others):,} more" if others else ""
            told = f"{errors.printable(f'{first.path}: {first.what}')}{more}"
            print(Finding(subject, told, "" if certain else first.fix, fails=certain), flush=True)
            return None
        for finding in found[1]:
            print(errors.redact(str(finding)), flush=True)
        return found[0]

    merged = say("parameters", partial(check_parameters, recipe, settings, root))
    is_sound = say("project", partial(check_project, root))
    plan = say("stages", partial(check_stages, merged), certain=False) if merged and is_sound else None
    if merged and plan:
        params, nothing = config.check(merged, root / "params.yaml"), ExpectedData("")
        data = say("data", partial(check_data, params, plan, root)) or nothing
        from_lgg = plan.runs("download") and params.download.source == "kaggle"
        fetched = say("source", check_source) if from_lgg else 0
        subsets = say("split", partial(check_split, params, plan, data, root)) or {}
        measured = params.download.source != "folder"  # of own volumes the size on disk is at most what is told
        say("disk", partial(check_disk, params, data, fetched or 0, plan, root), certain=measured)
        say("memory", partial(check_memory, params, data, plan, subsets), certain=False)
        if plan.runs("train"):
            say("training", partial(check_training, params))
            say("time", partial(check_time, params, subsets, root, measure=time and not failed))
    if failed:
        raise ExceptionGroup("brainseg check", failed)


Answer = tuple[Any, list[Finding]]  # what the next checks need, and the lines


def check_parameters(recipe: str | None, settings: Sequence[str], root: Path) -> Answer:
    """All of params.yaml with a recipe and settings; of a queue's the first, when all are valid.

    Raises:
        DataError: every fault of names and values.
    """
    found = variants.expand(settings, recipe, repro.load_recipe(recipe, root) if recipe else {}, root)
    overrides, merged = found[0]
    changed = [f"{name}={value}" for name, value in config.flatten(overrides).items()]
    told = f"valid, with {errors.show_some(changed, 6)}" if changed else "params.yaml is valid"
    told += f"; so are those of all {len(found)} runs of the queue, below is the first" if len(found) > 1 else ""
    return merged, [Finding("parameters", told)]


def check_project(root: Path) -> Answer:
    """Clean up after a killed run, as ``brainseg repro`` does.

    Raises:
        DataError: no repository. MachineError: a stage of a killed run goes on.
    """
    integrity.check_git(root)
    repro.clean_up(root)
    repro.check_patients(root)
    try:
        repro.refuse_running(root)
    except MachineError as error:  # or a queue, which does not work here
        return True, [Finding("project", f"{error}", "wait until it ends, if it works in this folder")]
    return True, []


def check_stages(merged: dict) -> Answer:
    plan = planning.make(merged)
    words = {"runs": "would run", "cached": "from DVC's cache", "up to date": "up to date"}
    lines = []
    for state, word in words.items():
        these = [f"{each.name} ({each.why})" if each.why else each.name for each in plan.stages if each.state == state]
        lines += [Finding("stages", f"{word}: {', '.join(these)}")] if these else []
    return plan, lines


def check_data(params: config.Params, plan: Plan, root: Path) -> Answer:
    data = expected_data.find_prepared(plan, root)
    if data is None:
        from brainseg.commands import data_source  # imports pandas

        data = data_source.look(params, plan, root)
    return data, [Finding("data", data.told)]


def check_source() -> Answer:
    """The bytes of LGG to be fetched. Raises MachineError, IntegrityError: see data_source.reach_lgg."""
    from brainseg.commands import data_source  # imports pandas

    source = data_source.reach_lgg()
    fix = "none, the download tries for a minute" if source.warning else ""
    told = "; ".join(filter(None, (source.told, source.warning)))
    return source.fetched, [Finding("source", told, fix)]


def check_split(params: config.Params, plan: Plan, data: ExpectedData, root: Path) -> Answer:
    """Slices of each subset: of the split that is there, of the one that would be made, or about as many.

    Raises:
        DataError: the slices cannot be split so.
    """
    if plan.runs("preprocess") or not (root / TABLE).is_file():
        return _estimate_subsets(params.split, data, plan), []
    if not plan.runs("split") and (root / SPLIT).is_file():
        return expected_data.count_subsets(root / SPLIT), []
    from brainseg.data import dataset, splitting  # imports scikit-learn, which takes a second

    table = splitting.split(dataset.read_slices(root / TABLE), params.split)
    counts = table["subset"].value_counts().to_dict()
    told = ", ".join(f"{name} {counts.get(name, 0):,} slices" for name in dataset.SUBSETS)
    return counts, [Finding("split", told)]


def _estimate_subsets(split: config.Split, data: ExpectedData, plan: Plan) -> dict[str, int]:
    """About as many slices as each subset will have; nothing where their number is not known.

    Raises:
        DataError: there are fewer patients than ``split`` asks for, or its file is missing.
    """
    own = files.project_root() / (split.file or "")
    if plan.runs("split") and not own.exists():
        raise DataError(own, "there is no such file", "correct split.file, or set it to null")
    if not data.slices:
        return {}
    patients = split.patients or data.patients
    if patients > data.patients:
        what = f"split.patients is {patients}, there are {data.patients}"
        raise DataError("params.yaml", what, "lower it, or set it to null")
    test = 1 / split.folds
    shares = {"train": (1 - test) * (1 - split.val_fraction), "val": (1 - test) * split.val_fraction, "test": test}
    return {name: round(share * data.slices * patients / data.patients) for name, share in shares.items()}


def check_disk(params: config.Params, data: ExpectedData, fetched: int, plan: Plan, root: Path) -> Answer:
    """Raises MachineError: a file system has too little space."""
    lines, faults, about = [], [], "about" if data.slices else "at least"
    for need in needs.measure_disks(params, data, fetched, plan, root):
        parts = ", ".join(f"{name} {show_bytes(size)}" for name, size in need.parts.items() if size >= 2**20)
        if need.bytes > need.free:
            what = f"{about} {show_bytes(need.bytes)} needed ({parts}), {show_bytes(need.free)} free"
            faults.append(errors.Problem(str(need.place), what, "free some space and run again"))
        told = f"{about} {show_bytes(need.bytes)} needed, {show_bytes(need.free)} free in {need.place}"
        lines.append(Finding("disk", f"{told}{f' ({parts})' if parts else ''}"))
    errors.raise_all(faults, MachineError)
    return None, lines


def check_training(params: config.Params) -> Answer:
    """Engine, device and precision, as far as they are known without the engine. Raises MachineError: not here."""
    train, lines = params.train, []
    if importlib.util.find_spec(train.engine) is None:
        fix = f"pip install {train.engine}, or set train.engine"
        raise MachineError(train.engine, "this engine is not installed", fix)
    gpus = hardware.list_gpus()
    if train.device == "gpu" and not gpus:
        lines.append(Finding("training", "train.device is gpu, and nvidia-smi names none", "set train.device: auto"))
    there = 1 if train.device == "cpu" else max(1, len(gpus))
    if train.devices != "auto" and train.devices > there:
        lines.append(Finding("training", f"train.devices is {train.devices}, of {there}", "set train.devices: auto"))
    if train.devices == "auto" and train.batch_size % there:
        told = f"train.batch_size is {train.batch_size}, which {there} GPUs cannot share equally"
        lines.append(Finding("training", told, config.suggest_equal_parts(train.batch_size, there)))
    if (train.device == "cpu" or not gpus) and train.precision != "auto":
        cost = backend.explain_emulation(train.precision, train.engine, "cpu")
        lines += [Finding("training", cost, backend.EMULATION_REMEDY)] if cost else []
    fold = getattr(params.split, config.fold_parameter(params.split.inner_folds))
    config.require_all(train.model_dump(), -1 if params.split.file else fold)
    return None, lines


def check_memory(params: config.Params, data: ExpectedData, plan: Plan, subsets: dict[str, int]) -> Answer:
    """Raises MachineError: a stage needs more than the machine has."""
    evaluated = subsets.get("val", 0) + subsets.get("test", 0)
    found = needs.measure_memory(params, data, plan, evaluated)
    on_gpu = []
    if "train" in found and params.train.device != "cpu" and hardware.list_gpus():
        on_gpu = [Finding("memory", f"about {show_bytes(found.pop('train'))} for train, on the GPU and beside it")]
    if not found:
        return None, on_gpu
    memory, stage = hardware.memory(), max(found, key=lambda name: found[name])
    need = found[stage]
    told = f"about {show_bytes(need)} for {stage}, {show_bytes(memory.available)} free of {show_bytes(memory.total)}"
    batch = needs.fit_batch(params, memory.total) if stage == "train" else 0
    lower = f"set train.batch_size: {batch}, or a smaller network" if batch else "use a larger machine, or less data"
    if need > memory.total:
        what = f"needs about {show_bytes(need)} of memory, there are {show_bytes(memory.total)}"
        raise MachineError(stage, what, f"{lower}; this is an estimate: brainseg repro tries it")
    return None, [*on_gpu, Finding("memory", told, "close other programs" if need > memory.available else "")]


def check_time(params: config.Params, subsets: dict[str, int], root: Path, *, measure: bool) -> Answer:
    """How long the training would take: measured now, or known."""
    if not subsets.get("train"):
        return None, [Finding("time", "not known before the slices are counted")]
    if measure:
        train = params.train
        backend.start(
            train.engine, device=train.device, precision=train.precision, threads=train.threads, devices=train.devices,
            warn=False,
        )  # fmt: skip
        from brainseg.commands import timing  # imports Keras, which reads the name of its engine at import

        found = timing.estimate(params, subsets)
        rates = speed.Speed(found.trained, found.validated, f"measured over {found.steps} steps")
    elif (known := speed.recall(params, root)) is None:
        return None, [Finding("time", "not known for this machine; brainseg check --time measures it in a minute")]
    else:
        rates = known
    minutes = speed.count_minutes(params, subsets, rates.trained, rates.validated)
    told = (
        f"about {show_minutes(minutes)} of training: {params.train.epochs} epochs of {subsets['train']:,} slices, "
        f"{rates.trained:.0f} images/s ({rates.source})"
    )
    return None, [Finding("time", told)]
