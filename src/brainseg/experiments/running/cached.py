"""Files of DVC's cache that travel between machines: each is named by its MD5, so it is known when it has arrived."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from brainseg import files
from brainseg.data import inputs
from brainseg.errors import IntegrityError

OBJECTS, RUNS = "files/md5", "runs"  # below DVC's cache: contents by their MD5, and which run had which results
OBJECT = re.compile(rf"{OBJECTS}/([0-9a-f]{{2}}/[0-9a-f]{{30}}(\.dir)?)")
RUN = re.compile(rf"{RUNS}/[0-9a-f]{{2}}/[0-9a-f]{{64}}/[0-9a-f]{{64}}")


def name(md5: str) -> str:
    """The path of an object below the cache."""
    return f"{OBJECTS}/{md5[:2]}/{md5[2:]}"


def find_missing(cache: Path, md5s: Iterable[str]) -> list[str]:
    return [md5 for md5 in dict.fromkeys(md5s) if not (cache / name(md5)).is_file()]


def list_objects(cache: Path, md5s: Iterable[str]) -> Iterator[str]:
    """The objects of outs that the cache has, by their MD5s; of a folder also the files in it."""
    for md5 in dict.fromkeys(md5s):
        path = cache / name(md5)
        if path.is_file():
            yield md5
            if md5.endswith(".dir"):
                yield from list_objects(cache, (entry["md5"] for entry in json.loads(path.read_bytes())))


def list_runs(cache: Path, since: float) -> Iterator[str]:
    """What DVC has noted of runs since then, in seconds since 1970: paths below the cache."""
    for path in (cache / RUNS).glob("*/*/*"):
        if RUN.fullmatch(found := path.relative_to(cache).as_posix()) and path.stat().st_mtime >= since:
            yield found


def keep(cache: Path, path: str, file: Path) -> None:
    """Move a file that another machine has sent to its place below the cache, if nothing is there.

    Raises:
        IntegrityError: its name is none, or its bytes are not those of its name.
    """
    found = OBJECT.fullmatch(path)
    if not found and not RUN.fullmatch(path):
        raise IntegrityError(path, "was sent, and is no file of DVC's cache", "report this: it is a bug")
    if found and inputs.md5(file) != found[1].replace("/", "").removesuffix(".dir"):
        raise IntegrityError(path, "was damaged on its way", "run again")
    target = cache / path
    if target.exists():
        return
    with files.replacing(target) as written:
        shutil.copyfile(file, written)
        if found:
            os.chmod(written, 0o444)  # as DVC does
