"""``python -m brainseg.experiments.run_dvc COMMAND``: DVC, then a check of results against dvc.lock.

DVC takes what its cache holds as it is. Both are one process, so that a kill ends both.

Where the disk cannot share blocks between files, DVC makes results hard links into its cache (``cache.type``), so that
an experiment in a folder of its own needs no second copy of the data. Those of the project's folder become copies here:
what damages one of two copies leaves the other to mend it from.
"""

import os
import sys
from pathlib import Path

from dvc.cli import main as run_dvc

from brainseg import config, errors, files
from brainseg.data import inputs
from brainseg.errors import IntegrityError
from brainseg.experiments import integrity


def main() -> None:
    """Check the results or released files (``.dvc``) that the command names, else all results.

    Ends with DVC's code if that is not 0.

    Raises:
        DataError: something is to be fetched into a folder that is in no Git repository.
        IntegrityError: a result is not what a stage made, or a released model not what was released.
    """
    command = sys.argv[1:]
    if command[0] == "pull":
        integrity.check_git(Path())
    tracked = [Path(word) for word in command if word.endswith(".dvc")]
    for each in tracked:  # in a DVC project of its own, which the folder is
        run(["--cd", str(each.parent), *(each.name if word == str(each) else word for word in command)])
        check_tracked(each)
    if tracked:
        return
    run(command)
    made = inputs.read_lock()
    for path in made:
        files.give_own_copy(Path(path))
    inputs.verify([path for path in made if path in command] or made)


def run(command: list[str]) -> None:
    """DVC in this process, whose folder stays. Ends it with DVC's code if that is not 0."""
    here = Path.cwd()
    try:
        code = run_dvc(command)
    finally:
        os.chdir(here)
    if code:
        sys.exit(code)


def check_tracked(path: Path) -> None:
    """Refuse a file that is not what its ``.dvc`` file says. Raises IntegrityError: naming both digests."""
    for out in config.read_yaml(path)["outs"]:
        file = path.with_name(out["path"])
        files.give_own_copy(file)
        if (found := inputs.md5(file)) != out["md5"]:
            what = f"its MD5 is {found}, {path} says {out['md5']}"
            raise IntegrityError(file, what, f"rm -f {file}, then: make pull")


if __name__ == "__main__":
    errors.run(main)
