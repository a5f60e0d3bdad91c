"""The process that opens uploaded files. Its memory is limited, and the server kills it when it takes too long.

For each file it reads one line of JSON, ``{"path", "kind", "name"}``, and answers with one line of JSON and the voxels'
bytes, if any. What the libraries print is thrown away, because it may quote a header.
"""

import json
import os
import resource
import struct
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil

from brainseg.errors import BrainsegError, DataError, IntegrityError, Problem
from brainseg.inference import cases
from brainseg.io import dicom_slice, pictures, untrusted_zip
from brainseg.server.limits import MAX_BODY, MAX_PARTS, MEMORY

_ZIP_FIX = "zip the files of one DICOM series, at most 96 MiB of them, or send the files themselves"
_IGNORED = (".txt", ".json", ".csv", ".xml", ".md", ".html", ".pdf", ".inf", ".exe")  # and hidden files, see below
_NO_MEMORY = "needs more memory than one file may use"


def main() -> None:
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    _prepare()
    _send(sink, {"ready": True})
    for line in source:
        request = json.loads(line)
        voxels: memoryview | bytes = b""
        try:
            head, voxels = _decode(Path(request["path"]), request["kind"], request["name"])
        except MemoryError:
            head = {"status": 413, "problems": [[request["name"], _NO_MEMORY, "crop or resample it"]]}
        except BrainsegError as error:
            head = {"status": 422, "problems": [list(problem) for problem in error.problems]}
        _send(sink, head, voxels)
        del voxels  # free them before the next file


def _prepare() -> None:
    """Load what decoding needs, then limit the memory on top of that, and the files in a zip."""
    import nibabel  # noqa: F401
    import pydicom.filereader
    import pydicom.pixels  # noqa: F401
    from PIL import Image

    Image.preinit()
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    # A zip may hold what could be sent without it. The limits for data archives are different.
    untrusted_zip.MAX_MEMBERS, untrusted_zip.MAX_MEMBER_BYTES, untrusted_zip.MAX_TOTAL_BYTES = (
        MAX_PARTS,
        dicom_slice.MAX_BYTES,
        MAX_BODY,
    )


def _decode(path: Path, kind: str, name: str) -> tuple[dict[str, Any], memoryview]:
    if kind == "tif":
        _check_directories(path, name)
    case = cases.read(_unpack(path, name) if kind == "zip" else path, name)
    voxels = case.voxels
    head: dict[str, Any] = {
        "kind": case.kind,
        "channels": case.channels,
        "shape": voxels.shape,
        "dtype": voxels.dtype.str,
    }
    if case.volume is not None:
        geometry = case.volume.geometry
        head["volume"] = {"spacing": case.volume.spacing, "affine": geometry.affine.tolist(), "shape": geometry.shape}
    return head, np.ascontiguousarray(voxels).reshape(-1).view(np.uint8).data


def _check_directories(path: Path, name: str) -> None:
    """Refuse a TIF whose chain of pages is a circle. Pillow stops at the repeated page and reports no error."""
    data = path.read_bytes()
    order = "<" if data.startswith(b"II") else ">"
    seen: set[int] = set()
    with suppress(struct.error):  # the chain leaves the file; io.pictures reports that
        at = struct.unpack_from(order + "I", data, 4)[0]
        while at and len(seen) <= pictures.MAX_PAGES:
            if at in seen:
                raise DataError(name, "is damaged (its pages follow each other in a circle)", "save it again")
            seen.add(at)
            entries = struct.unpack_from(order + "H", data, at)[0]
            at = struct.unpack_from(order + "I", data, at + 2 + 12 * entries)[0]


def _unpack(path: Path, name: str) -> Path:
    """Unpack a zip's DICOM files into a folder, each checked. They get numbers; their own names are not used."""
    folder = path.with_suffix("")
    folder.mkdir()
    try:
        store = untrusted_zip.UntrustedZip(path)
        with closing(store):
            for number, member in enumerate(sorted(member for member in store.sizes if not _is_ignored(member)), 1):
                data = store.read(member)
                if data[128:132] != b"DICM":
                    raise DataError(f"{name}, file {number}", "is not DICOM", "zip only the files of one DICOM series")
                (folder / f"{number:04d}.dcm").write_bytes(data)
    except IntegrityError as error:
        raise DataError("", problems=[Problem(name, _remove_names(p.what), _ZIP_FIX) for p in error.problems]) from None
    if not any(folder.iterdir()):
        raise DataError(name, "is a zip without DICOM files", _ZIP_FIX)
    return folder


def _remove_names(what: str) -> str:
    """``what`` without zipfile's own words and without file names, because both may contain a patient's name."""
    start = what.partition(" (")[0]
    verb = next((verb for verb in ("collides with", "overlaps") if start.startswith(verb)), "")
    return f"has a file that {verb} another one" if verb else start


def _is_ignored(member: str) -> bool:
    """Whether this is a file that systems and exports put next to the slices."""
    parts = member.lower().split("/")
    return (
        parts[-1] == "dicomdir" or parts[-1].endswith(_IGNORED) or any(p.startswith((".", "__macosx")) for p in parts)
    )


def _send(sink: BinaryIO, head: dict, voxels: bytes | memoryview = b"") -> None:
    sink.write(json.dumps(head | {"bytes": len(voxels)}).encode() + b"\n")
    sink.write(voxels)
    sink.flush()


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)
