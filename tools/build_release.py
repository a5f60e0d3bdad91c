"""The files of a release, which a workflow puts on its page: ``python -m tools.build_release v1.2.3 OUT``.

The wheel, the released model out of weights/, the digests of both in SHA256SUMS, and in NOTES.md what the changelog
says of this version.
"""

import re
import sys
from pathlib import Path

from brainseg import __version__, config, errors, files
from brainseg.errors import DataError, Problem
from tools import build_wheel, copy_released, set_owner

MODELS = (*copy_released.NAMES, "models/unet.weights.h5", "models/unet.json")
PLACEHOLDER = "OWNER"


def run(tag: str, out: Path, root: Path = Path()) -> str:
    """Make the files of a release in ``out``, which must be empty or not be there. Say what was made.

    Raises:
        DataError: the project does not say of itself that it is this version, or something else is in ``out``. Others:
            see build_wheel.run.
    """
    check(tag, root)
    if out.exists() and any(out.iterdir()):
        raise DataError(out, "is not empty, and all in it would be released", f"remove {out}")
    out.mkdir(parents=True, exist_ok=True)
    build_wheel.run(out, root)
    copy_released.copy(root, out, MODELS)
    made = sorted(path for path in out.iterdir() if not path.name.startswith("."))
    sums = "".join(f"{files.sha256(path)}  {path.name}\n" for path in made)
    files.write_text(out / "SHA256SUMS", sums)
    files.write_text(out / "NOTES.md", read_notes(root) + "\n")
    return f"{tag}: {', '.join(path.name for path in made)} in {out}"


def check(tag: str, root: Path = Path()) -> None:
    """Whether all places that name a version name this one, and the addresses lead somewhere.

    Raises:
        DataError: with all that do not.
    """
    cited = str(config.read_yaml(root / "CITATION.cff")["version"])
    owner = "is still a placeholder in the addresses", "python -m tools.set_owner NAME"
    wrong = [
        (tag != f"v{__version__}", "src/brainseg/__init__.py", f"has version {__version__}", f"release v{__version__}"),
        (cited != __version__, "CITATION.cff", f"has version {cited}", f"write {__version__} there"),
        (not read_notes(root), "CHANGELOG.md", f"has no section '## {__version__}'", "name what was unreleased so"),
        (set_owner.find_owner(root) == PLACEHOLDER, PLACEHOLDER, *owner),
    ]
    errors.raise_all([Problem(*words) for is_wrong, *words in wrong if is_wrong], DataError)


def read_notes(root: Path = Path()) -> str:
    """The changelog's section of this version, without its heading; empty if there is none."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(__version__)}\b[^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: make release TAG=v1.2.3")
    errors.run(lambda: print(run(sys.argv[1], Path(sys.argv[2]))))
