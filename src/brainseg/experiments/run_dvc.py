"""``python -m brainseg.experiments.run_dvc COMMAND``: DVC, then a check of results against dvc.lock.

DVC takes what its cache holds as it is. Both are one process, so that a kill ends both.
"""

import sys

from dvc.cli import main as run_dvc

from brainseg import errors
from brainseg.data import inputs


def main() -> None:
    """Check the results that the command names, else all. End with DVC's code if that is not 0.

    Raises:
        IntegrityError: a result is not what a stage made.
    """
    command = sys.argv[1:]
    if code := run_dvc(command):
        sys.exit(code)
    made = inputs.read_lock()
    inputs.verify([path for path in made if path in command] or made)


if __name__ == "__main__":
    errors.run(main)
