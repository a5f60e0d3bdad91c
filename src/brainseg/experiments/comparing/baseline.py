"""The run that is missing when two runs were tested on different patients: the one, on the patients of the other."""

import contextlib
import shlex
from pathlib import Path
from typing import Any

from brainseg import config
from brainseg.errors import BrainsegError, DataError
from brainseg.experiments import repro, revision, variants
from brainseg.experiments.comparison import Scores, describe_one_split

# Who is tested, and on what masks and grid. The rest is what runs are compared for.
PATIENTS = ("download.", "phantom.", "split.", "preprocess.foreground", "preprocess.size")
AFTERWARDS = ("render.", "export.")  # no score depends on them


def suggest(a: Scores, b: Scores, root: Path = Path()) -> str:
    """What to do about runs with other patients: the one command that makes the missing run and compares it.

    Of a committed run and a quick try it is the committed run on the patients of the try: the run with more test
    patients is made again, which takes less time than the other way round. Its values are set beside those of
    params.yaml, whatever that holds now, and the workspace stays as it is.
    """
    kept, other = (a, b) if len(a.patients) < len(b.patients) else (b, a)
    with contextlib.suppress(DataError):  # params.yaml cannot be read, or cannot have these values
        theirs, wanted = _flatten(kept), _mix(kept, other)
        if not theirs or not _flatten(other) or wanted == _flatten(other):
            return describe_one_split(a, b)
        if wanted == theirs:
            return f"compare other runs with {kept.name}: apart from its patients it has the parameters of {other.name}"
        made, command = _find_or_make(wanted, root)
        compare = shlex.join(["brainseg", "compare", *(made if side is other else side.name for side in (a, b))])
        return f"compare with {other.name} on the patients of {kept.name}: {command}{compare}"
    return describe_one_split(a, b)


def _flatten(run: Scores) -> dict[str, Any]:
    """The parameters that its scores depend on."""
    return {key: value for key, value in config.flatten(run.params).items() if not key.startswith(AFTERWARDS)}


def _mix(kept: Scores, other: Scores) -> dict[str, Any]:
    """The parameters of ``other`` with the patients of ``kept``."""
    return _flatten(other) | {key: value for key, value in _flatten(kept).items() if key.startswith(PATIENTS)}


def _find_or_make(wanted: dict[str, Any], root: Path) -> tuple[str, str]:
    """The name of a run of these parameters, and the command that makes it: none if it is an experiment already.

    Raises:
        DataError: params.yaml cannot have them.
    """
    path = root / "params.yaml"
    now = config.read_yaml(path)
    before = config.flatten(now)
    names = variants.Names(root)
    places = (before, names.committed)  # of both, since the command may be typed after `brainseg restore`
    other = {key: value for key, value in wanted.items() if not all(_is_set(place, key, value) for place in places)}
    changes = variants.nest(other)
    params = config.merge(now, changes)
    config.check(params, path)
    name = names.describe(params)
    if name in names.taken and _was_made_with(name, wanted, root):
        return name, ""
    name = names.choose(params)
    return name, shlex.join(["dvc", "exp", "run", "--temp", "-n", name, *repro.options(changes)]) + " && "


def _is_set(now: dict[str, Any], key: str, value: Any) -> bool:
    """Whether params.yaml has the value, or leaves it to the machine."""
    return key in now and (now[key] == value or (key in revision.MACHINE and now[key] == "auto"))


def _was_made_with(name: str, wanted: dict[str, Any], root: Path) -> bool:
    try:
        made = config.flatten(revision.params(revision.reader(name, root)))
    except BrainsegError:  # it waits in the queue
        return False
    return all(made.get(key, value) == value for key, value in wanted.items())
