"""What DVC would run with some parameters, and why. Nothing is run, and params.yaml stays as it is."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from brainseg import config, errors
from brainseg.data import inputs
from brainseg.errors import MachineError

SECONDS = 30.0  # for DVC: it reads large files that it has not seen since they were written
LINKS = ("reflink", "symlink")  # with which a result in the project's folder takes no second place: see ``run_dvc``
_SHOWN = 2  # reasons for a stage


class StagePlan(NamedTuple):
    """A stage: ``cached`` has its results brought back from DVC's cache; ``why`` it runs, else empty."""

    name: str
    state: Literal["up to date", "cached", "runs"]
    why: str = ""


class Plan(NamedTuple):
    """All stages in the order of dvc.yaml; DVC's cache, and whether the workspace gets copies of what is in it."""

    stages: list[StagePlan]
    cache: Path
    copies: bool

    def runs(self, name: str) -> bool:
        return any(stage.state == "runs" for stage in self.stages if stage.name == name)


class _Answer(NamedTuple):
    """Of DVC: for each changed stage what has changed, its cache, and whether it copies."""

    status: dict[str, list[Any]]
    cache: Path
    copies: bool


def make(params: Mapping[str, Any]) -> Plan:
    """Ask DVC for its status, and put ``params``, nested as in params.yaml, in the place of that file.

    The project is the current folder, from which DVC names files.

    Raises:
        MachineError: DVC does not answer in time, or refuses.
        IntegrityError: dvc.lock is damaged.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError

    declared, locked = config.read_yaml(Path("dvc.yaml"))["stages"], inputs.read_stages()
    try:
        answer = errors.limit(SECONDS, _ask_dvc)
    except TimeoutError as error:
        raise MachineError("dvc status", str(error), "see what it waits for: dvc status -v") from None
    except (DvcException, LockError) as error:
        raise MachineError("dvc status", " ".join(str(error).split()), "run it to see more: dvc status -v") from None
    made_by = {path: name for name, stage in declared.items() for path in list_outs(stage)}
    plans: dict[str, StagePlan] = {}

    def plan(name: str) -> StagePlan:
        if name not in plans:
            stage = declared[name]
            before = {dep: plan(made_by[dep]) for dep in _list_paths(stage.get("deps", [])) if dep in made_by}
            values = _find_other_values(stage, locked[name], params) if name in locked else ["it has not run yet"]
            plans[name] = _judge(name, answer.status.get(name, []), values, before, _list_uncached(stage))
        return plans[name]

    return Plan([plan(name) for name in declared], answer.cache, answer.copies)


def _ask_dvc() -> _Answer:
    from dvc.repo import Repo
    from dvc_objects.fs.generic import test_links

    with Repo() as repo:
        cache = repo.cache.local
        beside = str(Path("dvc.yaml").resolve())
        first = test_links(cache.cache_types, cache.fs, cache.path, repo.fs, beside)[:1]
        return _Answer(repo.status(), Path(cache.path), copies=not set(first) & set(LINKS))


def _judge(
    name: str, changes: Iterable[Any], values: list[str], before: Mapping[str, StagePlan], kept_nowhere: set[str]
) -> StagePlan:
    """A stage's plan from DVC's ``changes`` and the parameters that differ.

    Args:
        before: the stages that make its inputs, by the paths of these. What one that does not run has changed counts,
            as after a run that was killed between the two.
        kept_nowhere: outs that DVC's cache does not have: git may, or a run makes them again.
    """
    parts = [each for each in changes if isinstance(each, Mapping)]
    deps, outs = (
        {path: how for part in parts for path, how in part.get(kind, {}).items() if isinstance(how, str)}
        for kind in ("changed deps", "changed outs")
    )
    reasons = [*values, *(path for path in deps if path not in before)]
    reasons += [path for path in deps if path in before and before[path].state == "up to date"]
    reasons += ["its command" for each in changes if each == "changed command"]
    if reasons:
        return StagePlan(name, "runs", errors.show_some(reasons, _SHOWN))
    if after := [stage.name for stage in before.values() if stage.state == "runs"]:
        return StagePlan(name, "runs", f"after {after[-1]}")
    if gone := [path for path, how in outs.items() if how == "not in cache"]:
        return StagePlan(name, "runs", f"{errors.show_some(gone, 1)} not here")
    if other := [f"{path} {how}" for path, how in outs.items() if path in kept_nowhere]:
        return StagePlan(name, "runs", errors.show_some(other, 1))
    return StagePlan(name, "cached" if outs else "up to date")


def _find_other_values(stage: Mapping[str, Any], locked: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """The parameters of a stage whose values are not those of its last run."""
    asked = stage.get("params", [])
    then = config.flatten(locked.get("params", {}).get("params.yaml", {}))
    now = {key: value for key, value in config.flatten(params).items() if inputs.is_asked(key, asked)}
    missing = object()
    return [key for key in {**now, **then} if now.get(key, missing) != then.get(key, missing)]


def list_outs(stage: Mapping[str, Any]) -> list[str]:
    """The paths of all that a stage of dvc.yaml writes."""
    return _list_paths(out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, []))


def _list_uncached(stage: Mapping[str, Any]) -> set[str]:
    outs = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, []) if isinstance(out, Mapping)]
    return {path for out in outs for path, options in out.items() if options.get("cache") is False}


def _list_paths(entries: Iterable[Any]) -> list[str]:
    """The paths of deps or outs in dvc.yaml, with their options or without."""
    return [path for entry in entries for path in ([entry] if isinstance(entry, str) else entry)]
