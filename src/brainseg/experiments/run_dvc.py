"""``python -m brainseg.experiments.run_dvc COMMAND``: DVC, then a check of results against dvc.lock.

DVC takes what its cache holds as it is. Both are one process, so that a kill ends both.

Where the disk cannot share blocks between files, DVC makes results hard links into its cache (``cache.type``), so that
an experiment in a folder of its own needs no second copy of the data. Those of the project's folder become copies here:
what damages one of two copies leaves the other to mend it from.
"""

import sys
from pathlib import Path

from dvc.cli import main as run_dvc

from brainseg import errors, files
from brainseg.data import inputs
from brainseg.experiments import integrity


def main() -> None:
    """Check the results that the command names, else all. End with DVC's code if that is not 0.

    Raises:
        DataError: something is to be fetched into a folder that is in no Git repository.
        IntegrityError: a result is not what a stage made.
    """
    command = sys.argv[1:]
    if command[0] == "pull":
        integrity.check_git(Path())
    if code := run_dvc(command):
        sys.exit(code)
    made = inputs.read_lock()
    for path in made:
        files.give_own_copy(Path(path))
    inputs.verify([path for path in made if path in command] or made)


if __name__ == "__main__":
    errors.run(main)
