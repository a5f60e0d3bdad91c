"""The released model out of weights/, without DVC: for an image that shall not hold it.

``python tools/copy_released.py FOLDER [NAME...]`` in the project's folder copies files that ``make pull`` fetches; the
ONNX files, if none is named as ``dvc.lock`` names it, or a ``.dvc`` file beside it.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainseg import errors, files
from brainseg.errors import IntegrityError

NAMES = ("models/unet.onnx", "models/unet.int8.onnx")


def copy(root: Path, out: Path, names: Sequence[str] = NAMES) -> list[Path]:
    """Copy files that dvc.lock or a ``.dvc`` file names from weights/ into ``out``, their digests checked.

    Raises:
        IntegrityError: neither names one, or weights/ has it not, or with other bytes.
    """
    known = {
        each["path"]: each["md5"] for stage in _read(root / "dvc.lock")["stages"].values() for each in stage["outs"]
    }
    for name in names:
        if (tracked := root / f"{name}.dvc").is_file():
            known[name] = _read(tracked)["outs"][0]["md5"]
    copied = []
    for name in names:
        md5 = known.get(name, "")
        source = root / "weights/files/md5" / md5[:2] / md5[2:]
        if not md5 or not source.is_file():
            raise IntegrityError(name, "is not in weights/", "check out the repository whole")
        content = source.read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise IntegrityError(source, "has other bytes than dvc.lock says", "check out the repository again")
        with files.replacing(out / Path(name).name) as temporary:
            temporary.write_bytes(content)
        copied.append(out / Path(name).name)
    return copied


def _read(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    errors.run(lambda: print(*copy(Path(), Path(sys.argv[1]), sys.argv[2:] or NAMES), sep="\n"))
