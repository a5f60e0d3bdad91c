"""The server's ``decoding_worker``: less memory, kinds that the bytes of an upload told, and zips."""

import gzip
import struct
import zlib
from contextlib import closing, suppress
from pathlib import Path

from brainseg.errors import DataError, IntegrityError, Problem
from brainseg.inference import cases, decoding_worker
from brainseg.inference.cases import Case
from brainseg.io import mgh, pictures, untrusted_zip
from brainseg.io.dicom import slice_header, transfer_syntax
from brainseg.server.limits import MAX_BODY, MAX_PARTS, MEMORY

_ZIP_FIX = "zip the files of one DICOM series, at most 96 MiB of them, or send the files themselves"
_IGNORED = (".txt", ".json", ".csv", ".xml", ".md", ".html", ".pdf", ".inf", ".exe")  # and hidden files, see below


def main() -> None:
    # A zip may hold what could be sent without it. The limits for data archives are different.
    untrusted_zip.MAX_MEMBERS, untrusted_zip.MAX_MEMBER_BYTES, untrusted_zip.MAX_TOTAL_BYTES = (
        MAX_PARTS,
        min(slice_header.MAX_FRAMES_BYTES, MAX_BODY),  # the reader holds a file of one slice to less
        MAX_BODY,
    )
    decoding_worker.run(_decode, MEMORY)


def _decode(request: decoding_worker.Request) -> Case:
    path, kind, name = Path(request["path"]), request["kind"], request["name"]
    if kind == "tif":
        _check_directories(path, name)
    if kind == "gzip" and _is_mgz(path):
        path = path.rename(path.parent / "1.mgz")
    return cases.read(_unpack(path, name) if kind == "zip" else path, name)


def _is_mgz(path: Path) -> bool:
    with suppress(OSError, EOFError, zlib.error), gzip.open(path) as stream:
        return mgh.is_mgh(stream.read(16))
    return False


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
    """Unpack a zip's files into a folder. They get numbers; their own names are not used.

    The reader passes over those that are not DICOM, unless their name says that they are: those are damaged.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    written: dict[Path, str] = {}
    shapes: set[str] = set()  # of the names of slices
    try:
        store = untrusted_zip.UntrustedZip(path)
        with closing(store):
            for number, member in enumerate(sorted(member for member in store.sizes if not _is_ignored(member)), 1):
                data = store.read(member)
                shape = slice_header.shape_of_name(member)
                if transfer_syntax.is_dicom(data) or shape.endswith(slice_header.ENDINGS):
                    shapes.add(shape)
                written[folder / f"{number:04d}"] = shape
                (folder / f"{number:04d}").write_bytes(data)
    except IntegrityError as error:
        raise DataError("", problems=[Problem(name, _remove_names(p.what), _ZIP_FIX) for p in error.problems]) from None
    for file, shape in written.items():
        if shape in shapes:
            file.rename(file.with_suffix(".dcm"))
    if not shapes:
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


if __name__ == "__main__":
    main()
