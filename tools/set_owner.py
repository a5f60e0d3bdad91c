"""Write the owner of the public repository into every address of it: ``python -m tools.set_owner NAME``.

The one place is ``Source`` in pyproject.toml: who it names now is replaced by NAME there and in all other files.
"""

import re
import sys
from pathlib import Path

import nbformat

from brainseg import errors
from brainseg.errors import DataError
from brainseg.experiments import demo
from tools import build_wheel, run_notebook

NAME = re.compile(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,38}")  # what GitHub allows
ADDRESS = r"(github\.com/|githubusercontent\.com/|research\.google\.com/github/)%s(/brainseg(?![\w-]))"


def run(owner: str, root: Path = Path()) -> str:
    """Replace the owner in all tracked files and say in how many.

    Raises:
        DataError: ``owner`` cannot be the name of one.
    """
    if not NAME.fullmatch(owner):
        raise DataError(owner, "is no name of an owner", "name the user or organisation as it stands in its address")
    address = re.compile((ADDRESS % re.escape(find_owner(root))).encode())
    changed = 0
    for name in demo.list_tracked(root):
        path = root / name
        before = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        after = address.sub(rb"\g<1>%s\g<2>" % owner.encode(), before)
        if after != before:
            path.write_bytes(_sign(before, after) if path.suffix == ".ipynb" else after)
            changed += 1
    return f"{owner}: {changed} files changed"


def find_owner(root: Path = Path()) -> str:
    """Who the repository belongs to, by pyproject.toml."""
    return build_wheel.find_source(root).split("/")[-2]


def _sign(before: bytes, after: bytes) -> bytes:
    """A notebook with the digest of its new code. Its outputs are still those of it: an address moves none of them."""
    notebooks = [nbformat.reads(text.decode(), as_version=nbformat.NO_CONVERT) for text in (before, after)]
    old, new = (run_notebook.digest(each).encode() for each in notebooks)
    return after.replace(old, new)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.set_owner NAME")
    errors.run(lambda: print(run(sys.argv[1])))
