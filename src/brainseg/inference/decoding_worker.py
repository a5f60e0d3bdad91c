"""The process that opens strangers' files: what kills it, fills its memory or never ends costs that file alone.

For each file it reads one line of JSON, ``{"path", "name", "kind"}``, and answers with one line of JSON and the voxels'
bytes, if any. What the libraries print is thrown away, because it may quote a header.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil

from brainseg.errors import BrainsegError, guard
from brainseg.inference import cases
from brainseg.inference.cases import Case
from brainseg.io import itk

MEMORY = 8 * 2**30  # bytes for one file: twice what the largest accepted volume takes, 2**27 values as float64

Request = dict[str, str]


def run(decode: Callable[[Request], Case], memory: int) -> None:
    """Decode until stdin is closed.

    Args:
        decode: reads the file of a request.
        memory: bytes that decoding one file may use, on top of the libraries.
    """
    with suppress(BrokenPipeError, KeyboardInterrupt):
        _answer(decode, memory)


def _answer(decode: Callable[[Request], Case], memory: int) -> None:
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    _limit(memory, _load_libraries)
    _send(sink, {"ready": True})
    for line in source:
        request = json.loads(line)
        if itk.is_itk(request["path"]) and "SimpleITK" not in sys.modules:
            _limit(memory, itk.load)
        voxels: memoryview | bytes = b""
        try:
            with guard(request["name"]):
                head, voxels = _pack(decode(request))
        except BrainsegError as error:
            head = {"code": error.code, "problems": error.problems}
        _send(sink, head, voxels)
        del voxels  # free them before the next file


def _load_libraries() -> None:
    import nibabel  # noqa: F401
    import pydicom.filereader
    import pydicom.pixels  # noqa: F401
    from PIL import Image

    Image.preinit()


def _limit(memory: int, load: Callable[[], object]) -> None:
    """Load libraries, then limit the memory on top of them. SimpleITK, which is large, waits for its first file."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    with suppress(BrainsegError):  # a library that is missing is told for the file that needs it
        load()
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + memory, hard))


def _pack(case: Case) -> tuple[dict[str, Any], memoryview]:
    voxels = case.voxels
    head: dict[str, Any] = {
        "kind": case.kind,
        "channels": case.channels,
        "shape": voxels.shape,
        "dtype": voxels.dtype.str,
        "remarks": case.remarks,
        "origin": case.origin,
        "no_seg": case.no_seg,
        "numbers": case.numbers,
    }
    if case.volume is not None:
        geometry = case.volume.geometry
        place = {"affine": geometry.affine.tolist(), "shape": geometry.shape}
        head["volume"] = {"spacing": case.volume.spacing, "doubt": case.volume.doubt, **place}
    return head, np.ascontiguousarray(voxels).reshape(-1).view(np.uint8).data


def _send(sink: BinaryIO, head: dict[str, Any], voxels: bytes | memoryview = b"") -> None:
    sink.write(json.dumps(head | {"bytes": len(voxels)}).encode() + b"\n")
    sink.write(voxels)
    sink.flush()


if __name__ == "__main__":
    free = psutil.virtual_memory().available  # beyond it the system would end a process, not always this one
    run(lambda request: cases.read(Path(request["path"]), request["name"]), min(MEMORY, free))
    sys.exit(0)
