"""A process that decodes and, of files with certain names, does what a hostile file could make it do."""

import os
import time
from pathlib import Path

from brainseg.inference import cases, decoding_worker
from brainseg.inference.cases import Case


def decode(request: dict[str, str]) -> Case:
    path = Path(request["path"])
    if path.name.startswith("kill"):
        os.kill(os.getpid(), 9)
    if path.name.startswith("hang"):
        time.sleep(60)
    if path.name.startswith("fill"):
        bytearray(2**40)
    if path.name.startswith("recurse"):
        raise RecursionError("DOE^JANE")
    return cases.read(path, request["name"])


if __name__ == "__main__":
    decoding_worker.run(decode, 2**30)
