"""What `brainseg repro -S` asks for: an experiment, or one for each value of a sweep, each named by what it changes.

``train.loss=jaccard train.learning_rate=0.001`` is ``jaccard-lr0.001``. A name tells what differs from the last commit,
DVC's own names (`gaunt-ruby`) do not; MLflow's runs have it too.
"""

import itertools
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from brainseg import config
from brainseg.errors import DataError, Problem, raise_all

ALONE = ""  # the value says which parameter it is of
# Words for parameters in names. The others go by the last part of their key.
WORDS = {
    "download.patients": "patient_table",
    "download.source": ALONE,
    "phantom.patients": "phantoms",
    "phantom.seed": "phantom_seed",
    "phantom.size": "phantom_size",
    "preprocess.window": "percentiles",
    "split.seed": "split_seed",
    "split.test_fold": "fold",
    "split.val_fraction": "val",
    "train.batch_size": "bs",
    "train.device": ALONE,
    "train.engine": ALONE,
    "train.initial_weights": "weights",
    "train.soft_masks": "soft",
    "train.learning_rate": "lr",
    "train.loss": ALONE,
    "train.loss_reduction": "reduction",
    "train.loss_smooth": "smooth",
    "train.optimizer": ALONE,
    "train.precision": ALONE,
    "train.schedule": ALONE,
    "train.subset": ALONE,
    "train.weight_decay": "wd",
    "network.name": ALONE,
    "evaluate.seed": "evaluate_seed",
    "render.patients": "shown",
    "export.calibration_slices": "calibration",
}
NOTHING = "unchanged"  # the name of a run of the committed parameters
LONGEST_PART, LONGEST = 40, 60  # characters


class Variant(NamedTuple):
    """An experiment: its name and the values that it sets, nested as in params.yaml."""

    name: str
    overrides: dict[str, dict[str, Any]]


def plan(settings: Sequence[str], recipe: str | None, overrides: dict, root: Path) -> list[Variant]:
    """The experiments that ``settings`` ask for; several where one has several values.

    Args:
        settings: as DVC's -S, ``train.learning_rate=0.001,0.004``. recipe: its name. overrides: its values.

    Raises:
        DataError: see ``expand``.
    """
    whole = config.merge(config.read_yaml(root / "params.yaml"), overrides)
    pairs = expand(settings, recipe, overrides, root) if settings else [(overrides, whole)]
    names, given, known = Names(root), read_settings(settings), set(config.flatten(overrides))
    return [Variant(names.choose(merged, given, recipe, known), each) for each, merged in pairs]


def expand(settings: Sequence[str], recipe: str | None, overrides: dict, root: Path) -> list[tuple[dict, dict]]:
    """What each run that ``settings`` ask for replaces in params.yaml, and the whole of it with that.

    Args:
        settings, recipe, overrides: see ``plan``.

    Raises:
        DataError: every fault of names and values at once, each by where it was set, with the nearest name.
    """
    path, (given, problems) = root / "params.yaml", _read_all(settings)
    params = config.read_yaml(path)
    places = {name: str(root / "recipes" / f"{recipe}.yaml") for name in config.flatten(overrides)}
    places |= {name: f"-S {name}" for name in given}
    changes = [nest(dict(zip(given, values, strict=True))) for values in itertools.product(*given.values())]
    pairs = []
    for each in (config.merge(overrides, change) for change in changes):
        pairs.append((each, config.merge(params, each)))
        try:
            config.check(pairs[-1][1], path)
        except DataError as error:
            problems += [_name_place(problem, places) for problem in error.problems]
    raise_all(list(dict.fromkeys(problems)))
    return pairs


def _name_place(problem: Problem, places: Mapping[str, str]) -> Problem:
    """The problem by the place where the first of its parameters that is in ``places`` was set."""
    names = re.findall(r"[a-z]+\.[a-z_]+", problem.what)
    return problem._replace(path=next((places[name] for name in names if name in places), problem.path))


def read_settings(settings: Iterable[str]) -> dict[str, list[Any]]:
    """``["train.epochs=3", "train.seed=1,2"]`` → ``{"train.epochs": [3], "train.seed": [1, 2]}``.

    Raises:
        DataError: one names no parameter, or has another form, or a value that DVC, which has Hydra read it, cannot.
    """
    found, problems = _read_all(settings)
    raise_all(problems)
    return found


def _read_all(settings: Iterable[str]) -> tuple[dict[str, list[Any]], list[Problem]]:
    """What can be read, and the faults of the others."""
    found: dict[str, list[Any]] = {}
    problems: list[Problem] = []
    for setting in settings:
        key, is_set, text = setting.partition("=")
        try:
            if not is_set:
                raise DataError(f"-S {setting}", "is no parameter with its value", "write -S train.loss=jaccard")
            _check_name(key, text)
            found[key] = _read_values(key, text)
        except DataError as error:
            problems += error.problems
    return found, problems


def _check_name(key: str, text: str) -> None:
    if key in config.list_names():
        return
    nearest = config.suggest_name(key)
    what = f"{key} is not a parameter" + (f" (did you mean {nearest}?)" if nearest else "")
    fix = f"write -S {nearest.split(' or ')[0]}={text}" if nearest else "params.yaml names all of them"
    raise DataError(f"-S {key}={text}", what, fix)


def _read_values(key: str, text: str) -> list[Any]:
    """The values of a setting, more than one if it is a sweep."""
    from dvc.utils.hydra import to_hydra_overrides
    from hydra.errors import HydraException

    try:
        (setting,) = to_hydra_overrides([f"{key}={text}"])
        if not setting.is_sweep_override():
            return [setting.value()]
        return [value for each in setting.sweep_string_iterator() for value in _read_values(key, each)]
    except HydraException:
        quoted = shlex.quote(f"{key}={literal(text)}")
        raise DataError(f"-S {key}={text}", "has a value that DVC cannot read", f"write -S {quoted}") from None


def literal(value: Any) -> str:
    """A value in Hydra's grammar, which DVC uses: only a quote is escaped, a backslash elsewhere stands for itself."""
    return '"{}"'.format(value.replace('"', '\\"')) if isinstance(value, str) else json.dumps(value)


def nest(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``{"train.epochs": 3}`` to ``{"train": {"epochs": 3}}``."""
    nested: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        block, _, key = name.partition(".")
        nested.setdefault(block, {})[key] = value
    return nested


class Names:
    """Gives experiments names that nothing else has."""

    def __init__(self, root: Path):
        from brainseg.experiments import revision

        try:
            committed = config.parse_yaml(revision.reader("HEAD", root)("params.yaml"), "HEAD:params.yaml")
        except DataError:  # the commit has none, or a damaged one
            committed = {}
        self.committed, self.taken = config.flatten(committed), list_taken(root)

    def choose(
        self, params: dict, given: Iterable[str] = (), recipe: str | None = None, known: Iterable[str] = ()
    ) -> str:
        """A name for a run of ``params`` that nothing has yet; where something has it, ``-2`` and so on is added.

        Args:
            given: keys that are named although the commit has their values, and first.
            recipe: named in place of the keys that are ``known`` from it.
        """
        name = self.describe(params, given, recipe, known)
        others = (f"{name}-{number}" for number in itertools.count(2))
        chosen = next(each for each in itertools.chain([name], others) if each not in self.taken)
        self.taken.add(chosen)
        return chosen

    def describe(
        self, params: dict, given: Iterable[str] = (), recipe: str | None = None, known: Iterable[str] = ()
    ) -> str:
        """What differs from the commit, see ``choose``."""
        values = config.flatten(params)
        changed = (key for key, value in values.items() if self.committed.get(key, value) != value)
        keys = dict.fromkeys([*given, *(key for key in changed if key not in known)])
        parts = [_clean(recipe)] if recipe else []
        return _join(parts + [describe_value(key, values[key]) for key in keys]) or NOTHING


def describe_value(key: str, value: Any) -> str:
    """``("train.learning_rate", 0.001)`` → ``lr0.001``, ``("evaluate.tta", False)`` → ``no_tta``.

    Letters, digits, ``_``, and within numbers ``.`` and ``-``: what Git allows in the name of a reference.
    """
    last = key.rpartition(".")[2]
    word = WORDS.get(key, last)
    if value is None or value is False:
        part = f"no_{word or last}"
    elif value is True:
        part = word or last
    elif isinstance(value, str):
        text = _clean(value.rstrip("/").rpartition("/")[2])
        part = text if word == ALONE and value != "auto" else f"{word or last}_{text}"
    else:
        part = (word or last) + re.sub(r"[^0-9e.-]+", "_", json.dumps(value)).strip("_")
    return part[:LONGEST_PART].rstrip("_.-")


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_-")[:LONGEST_PART]


def _join(parts: Sequence[str]) -> str:
    """The parts with dashes between them; of too many the first, and the number of the others."""
    for shown in range(len(parts), 0, -1):
        rest = len(parts) - shown
        name = "-".join([*parts[:shown], *([f"and-{rest}-more"] if rest else [])])
        if len(name) <= LONGEST:
            return name
    return ""


def list_taken(root: Path) -> set[str]:
    """Names of branches, tags and experiments, also of those that wait in DVC's queue or run."""
    from dvc.repo import Repo
    from dvc.repo.experiments.utils import exp_refs

    with Repo(str(root)) as repo:
        queue = repo.experiments.celery_queue
        waiting = {entry.name for entry in itertools.chain(queue.iter_queued(), queue.iter_active())}
        made = {reference.name for reference in exp_refs(repo.scm)}
        return {"workspace", "HEAD", *repo.scm.list_branches(), *repo.scm.list_tags()} | made | waiting
