"""The server's ``decoding_worker``: less memory, kinds that the bytes of an upload told, and zips."""

import gzip
import struct
import zlib
from contextlib import closing, suppress
from pathlib import Path

from brainseg.errors import BrainsegError, DataError, IntegrityError, Problem, raise_all
from brainseg.inference import cases, decoding_worker, numbered
from brainseg.inference.cases import Case
from brainseg.io import itk, mgh, nifti, pictures, scans, untrusted_zip
from brainseg.io.dicom import slice_header
from brainseg.server.limits import MAX_BODY, MAX_PARTS, MEMORY
from brainseg.server.spooled import name_file, read_number, retell

_ZIP_FIX = (f"zip the files of one DICOM series, or the numbered pictures of one patient, at most {MAX_BODY // 2**20} "
            "MiB of them; or send the files themselves")  # fmt: skip
_HEAD = 352  # bytes: a NIfTI-1 header and its magic string
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
    """Read the file or the files of a request. What is said of them has none of the names that they have here."""
    path, name = Path(request["path"]), request["name"]
    count = len(list(path.iterdir())) if path.is_dir() else 1
    try:
        if request["kind"] != "zip":
            return _retell(_read(path, request["kind"], name), count)
        files = _unpack(path, name)
        count = len(files)
        return _retell(_read_members(files, path.with_suffix(""), name), count)
    except BrainsegError as error:
        error.problems = [
            Problem(retell(p.path, count), retell(p.what, count), p.fix) for p in error.problems
        ]  # fmt: skip
        raise


def _retell(case: Case, count: int) -> Case:
    return case._replace(remarks=tuple(retell(each, count) for each in case.remarks), no_seg=retell(case.no_seg, count))


def _read(path: Path, kind: str, name: str) -> Case:
    if kind == "slices":
        paths = sorted(path.iterdir())
        return _read_slices(paths, [read_number(each.stem) for each in paths], name)
    if kind == "tif":
        _check_directories(path, name)
    if kind == "gzip" and _is_mgz(path):
        path = path.rename(path.parent / "1.mgz")
    return cases.read(path, name)


def _read_slices(paths: list[Path], numbers: list[int], name: str) -> Case:
    """Read the slices of one volume, in order. Raises DataError with all that are faulty."""
    read, problems = [], []
    for path, number in zip(paths, numbers, strict=True):
        label = f"{name}, slice {number}"
        try:
            _check_directories(path, label)
            case = cases.read(path, label)
            if len(case.voxels) > 1:
                raise DataError(label, "has several pages", "send a TIF of several pages alone, it is a volume")
            read.append(case)
        except DataError as error:
            problems += error.problems
    raise_all(problems)
    return numbered.stack(read, numbers, name)


def _is_mgz(path: Path) -> bool:
    with suppress(OSError, EOFError, zlib.error), gzip.open(path) as stream:
        return mgh.is_mgh(stream.read(16))
    return False


def _is_volume(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    return nifti.is_head(head) or itk.is_head(head) or mgh.is_mgh(head)


def _check_directories(path: Path, name: str) -> None:
    """Refuse a TIF whose chain of pages is a circle. Pillow stops at the repeated page and reports no error."""
    data = path.read_bytes()
    if not data.startswith((b"II", b"MM")):
        return
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


def _unpack(path: Path, name: str) -> dict[Path, str]:
    """Unpack a zip's files into a folder beside it. They get names of ours; gives those that they had."""
    folder = path.with_suffix("")
    folder.mkdir()
    files: dict[Path, str] = {}
    try:
        store = untrusted_zip.UntrustedZip(path)
        with closing(store):
            for number, member in enumerate(sorted(member for member in store.sizes if not _is_ignored(member)), 1):
                file = folder / name_file(number)
                file.write_bytes(store.read(member))
                files[file] = member
    except IntegrityError as error:
        told = dict.fromkeys(_describe_fault(problem, path) for problem in error.problems)
        raise DataError("", problems=[Problem(name, what, _ZIP_FIX) for what in told]) from None
    return files


def _read_members(files: dict[Path, str], folder: Path, name: str) -> Case:
    """Read the DICOM series of a zip; where there is none, its picture, or its numbered pictures as one volume.

    The reader of DICOM passes over files that are not DICOM, unless their name says that they are: those are damaged.
    """
    shapes = {
        slice_header.shape_of_name(member)
        for file, member in files.items()
        if slice_header.is_dicom(file) or member.lower().endswith(slice_header.ENDINGS)
    }
    if not shapes:
        return _read_pictures(files, name)
    for file, member in files.items():
        if slice_header.shape_of_name(member) in shapes:
            file.rename(file.with_suffix(".dcm"))
    return cases.read(folder, name)


def _read_pictures(files: dict[Path, str], name: str) -> Case:
    """Read the one picture of a zip, or its numbered pictures as one volume. They may be screenshots of a volume."""
    if any(scans.kind_of(member) or _is_volume(file) for file, member in files.items()):
        raise DataError(name, "is a zip that holds a volume", "send the volume itself")
    images = [(file, member) for file, member in files.items() if member.lower().endswith(pictures.SUFFIXES)]
    if not images:
        raise DataError(name, "is a zip without DICOM files and pictures", _ZIP_FIX)
    order = numbered.order([member for _, member in images])
    if order is None:
        what = "is a zip of several pictures, which are not the numbered slices of one patient"
        raise DataError(name, what, _ZIP_FIX)
    paths = [images[place][0] for place in order.places]
    if len(paths) == 1:
        _check_directories(paths[0], name)
        case = cases.read(paths[0], name)
    else:
        case = _read_slices(paths, order.numbers, name)
    others = len(files) - len(images)
    which = "1 file that is no picture" if others == 1 else f"{others:,} files that are no pictures"
    told = [f"passed over {which}"] if others else []
    return case._replace(remarks=(*case.remarks, *numbered.describe_masks(order.masks), *told))


def _describe_fault(problem: Problem, path: Path) -> str:
    """What is wrong with a zip, without zipfile's own words and without file names: both may hold a patient's name."""
    if "are accepted" in problem.what:  # the limits of a file and of all together are one here
        return f"is a zip of more than {MAX_BODY // 2**20} MiB, unpacked"
    start = problem.what.partition(" (")[0]
    if problem.path == str(path):
        return start
    verb = next((verb for verb in ("collides with", "overlaps") if start.startswith(verb)), "")
    return f"contains a file that {f'{verb} another one' if verb else start}"


def _is_ignored(member: str) -> bool:
    """Whether this is a file that systems and exports put next to the slices."""
    parts = member.lower().split("/")
    return (
        parts[-1] == "dicomdir" or parts[-1].endswith(_IGNORED) or any(p.startswith((".", "__macosx")) for p in parts)
    )


if __name__ == "__main__":
    main()
