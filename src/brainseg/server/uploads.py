"""The parts of an upload, held in memory. Their bytes tell their kind; file names are not kept.

A volume may come in two parts, a header and its voxels, which need no mark: the header is told by its bytes. Of several
pictures the names are read for three things: the number at their end, which orders slices, whether they say mask, and
their folder, as slices of one volume lie in one. No file is written under such a name.
"""

import posixpath
import shutil
import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from brainseg.errors import DataError
from brainseg.inference import numbered
from brainseg.inference.cases import ROLES
from brainseg.io import itk, mgh
from brainseg.io.dicom import transfer_syntax
from brainseg.server import spooled
from brainseg.server.limits import MAX_BODY, MAX_PARTS
from brainseg.server.progress import Progress
from brainseg.server.refusals import Refusal

FILE, FLAIR = "file", "flair"
DICOM, ZIP, SLICES = "dicom", "zip", "slices"
PICTURES = ("png", "tif", "jpeg")
SUFFIXES = {
    "png": ".png",
    "tif": ".tif",
    "jpeg": ".jpg",
    "nifti": ".nii",
    "gzip": ".nii.gz",
    "nrrd": ".nrrd",
    "metaimage": ".mha",
    "mgh": ".mgh",
    DICOM: ".dcm",
    ZIP: ".zip",
}

_HEAD = 352  # bytes: a NIfTI-1 header and its magic string
_MAGIC = {b"\x89PNG\r\n\x1a\n": "png", b"II*\0": "tif", b"MM\0*": "tif", b"\xff\xd8\xff": "jpeg", b"\x1f\x8b": "gzip",
          b"PK\x03\x04": ZIP, b"PK\x05\x06": ZIP}  # fmt: skip
_NIFTI = {b"\x5c\x01\0\0": 344, b"\0\0\x01\x5c": 344, b"\x1c\x02\0\0": 4, b"\0\0\x02\x1c": 4}  # to the magic's place
_OTHERS = {b"%PDF": "a PDF", b"%!PS": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript", b"<": "a web page, SVG or XML",
           b"GIF8": "a GIF", b"BM": "a BMP", b"RIFF": "a WebP or other RIFF file", b"MZ": "a program",
           b"\x7fELF": "a program", b"#!": "a script", b"II+\0": "a BigTIFF", b"MM\0+": "a BigTIFF"}  # fmt: skip
_ACCEPTED = ("send a PNG, TIF or JPEG picture, a NIfTI, NRRD, MetaImage or MGH volume, its header and voxels together "
             "if they are two files, or DICOM files of one series or numbered pictures of one patient, which may be "
             "zipped")  # fmt: skip
_SEVERAL = ("send one file at a time, several DICOM files of one series, pictures of one patient whose names differ in "
            "the number at their end alone (X_1.tif, X_2.tif), or a header with its voxels (.hdr and .img, .mhd or "
            ".nhdr and .raw)")  # fmt: skip


class Part(NamedTuple):
    """The files that were sent for one role."""

    kind: str  # a key of SUFFIXES, pair or SLICES
    files: list[BinaryIO]
    size: int  # bytes of all of them
    names: tuple[str, ...] = ()  # of a header and the file of its voxels, as one names the other; else numbers
    left_out: int = 0  # masks that were sent beside their images


class _InMemory(MultiPartParser):
    spool_max_size = MAX_BODY + 1  # no body is this large, so nothing is written to disk


async def read(request: Request, progress: Progress | None = None) -> dict[str, Part]:
    """Read a form. The keys are ``file`` only; or ``flair``, and optionally ``pre`` and ``post``.

    ``progress`` is told how much has come.

    Raises:
        Refusal: no form, no file, too many files, an empty file, or a kind that is not accepted.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        fix = "send the file as a part named file: curl -F file=@..."
        raise Refusal(415, "the request is not a multipart form", fix)
    parser = _InMemory(
        request.headers, _count(request, progress or Progress()), max_files=MAX_PARTS, max_fields=0, max_part_size=2**10
    )  # fmt: skip
    try:
        items = (await parser.parse()).multi_items()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise Refusal(413, f"more than {MAX_PARTS:,} files", "zip the series, or convert it to NIfTI") from None
        what = "the form is damaged, or has parts that are not files"
        raise Refusal(400, what, "send parts with a file name: curl -F file=@...") from None
    except UnicodeError:  # Python has charsets that decode no text
        raise Refusal(400, "the form's charset is not for text", "send it as UTF-8, or name no charset") from None
    uploads = [(name, upload) for name, upload in items if isinstance(upload, UploadFile)]
    try:
        return _group_parts(uploads)
    except BaseException:
        for _, upload in uploads:
            upload.file.close()
        raise


async def _count(request: Request, progress: Progress) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        progress.received += len(chunk)
        yield chunk


def _group_parts(uploads: list[tuple[str, UploadFile]]) -> dict[str, Part]:
    by_role: dict[str, list[UploadFile]] = {}
    for name, upload in uploads:
        by_role.setdefault(name, []).append(upload)
    roles = set(by_role)
    if roles != {FILE} and not (FLAIR in roles and roles <= set(ROLES)):
        raise Refusal(400, "the form has no part named file, or parts of other names",
                      "name the part file; or name the parts flair and, if you have them, pre and post")  # fmt: skip
    return {role: _make_part(role, found) for role, found in by_role.items()}


def _make_part(role: str, uploads: list[UploadFile]) -> Part:
    if len(uploads) == 2 and all(upload.size for upload in uploads) and (pair := _find_pair(role, uploads)):
        return pair
    kinds = []
    for number, upload in enumerate(uploads, 1):
        label = f"{role}, number {number} of {len(uploads)}" if len(uploads) > 1 else role
        if not upload.size:
            raise Refusal(400, f"{label}: is empty", "send a file with content, or leave it out")
        kinds.append(detect_kind(upload.file.read(_HEAD), label))
        upload.file.seek(0)
    if len(uploads) > 1 and set(kinds) <= set(PICTURES):
        return _stack_pictures(role, uploads, kinds)
    (kind, *others) = sorted(set(kinds))
    if others or (kind != DICOM and len(uploads) > 1):
        raise Refusal(400, f"{role}: several files, which are neither all DICOM nor all pictures", _SEVERAL)
    return _to_part(kind, uploads)


def _stack_pictures(role: str, uploads: list[UploadFile], kinds: list[str]) -> Part:
    """The numbered pictures of one patient, in order, without the masks among them.

    Raises:
        Refusal: their names do not tell a number, or are of several patients.
    """
    order = numbered.order([posixpath.normpath((upload.filename or "").replace("\\", "/")) for upload in uploads])
    if order is None:
        raise Refusal(400, f"{role}: several pictures, which are not the numbered slices of one patient", _SEVERAL)
    images = [uploads[place] for place in order.places]
    if len(images) == 1:
        return _to_part(kinds[order.places[0]], images)._replace(left_out=order.masks)
    names = tuple(
        spooled.name_slice(at, number, SUFFIXES[kinds[place]])
        for at, (place, number) in enumerate(zip(order.places, order.numbers, strict=True), 1)
    )
    return _to_part(SLICES, images)._replace(names=names, left_out=order.masks)


def _to_part(kind: str, uploads: list[UploadFile]) -> Part:
    return Part(kind, [upload.file for upload in uploads], sum(upload.size or 0 for upload in uploads))


def _find_pair(role: str, uploads: list[UploadFile]) -> Part | None:
    """Two files of which one is a header that has its voxels in the other; None if there is none.

    Raises:
        Refusal: the header leads elsewhere, or cannot be read.
    """
    for header, voxels in (uploads, uploads[::-1]):
        head = header.file.read(itk.MAX_HEADER)
        header.file.seek(0)
        names: tuple[str, ...] = ()
        begin = _inflate(head)
        if begin[:4] in _NIFTI and begin[_NIFTI[begin[:4]] :].startswith((b"ni1", b"ni2")):
            names = "1.hdr", "1.img"
        elif itk.is_head(head):
            try:
                own = itk.find_voxels(head, role)
            except DataError as error:
                raise Refusal(415, str(error), error.problems[0].fix) from None
            names = (f"{own}.{'nhdr' if itk.is_nrrd(head) else 'mhd'}", own) if own else ()
        if names:
            return Part("pair", [header.file, voxels.file], (header.size or 0) + (voxels.size or 0), names)
    return None


def _inflate(head: bytes) -> bytes:
    """How a file begins; of gzip the first ``_HEAD`` bytes that are in it, nothing if it is damaged."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    with suppress(zlib.error):
        return zlib.decompressobj(wbits=31).decompress(head, _HEAD)
    return b""


def detect_kind(head: bytes, label: str) -> str:
    """The key of SUFFIXES that matches a file's first ``_HEAD`` bytes; ``label`` names the file in errors.

    Raises:
        Refusal: none matches, or more than one.
    """
    found = {kind for magic, kind in _MAGIC.items() if head.startswith(magic)}
    if head[:4] in _NIFTI and head[_NIFTI[head[:4]] :].startswith((b"n+1", b"n+2", b"ni1", b"ni2")):
        found.add("nifti")
    if itk.is_head(head):
        found.add("nrrd" if itk.is_nrrd(head) else "metaimage")
    if mgh.is_mgh(head):
        found.add("mgh")
    if transfer_syntax.is_dicom(head):
        found.add(DICOM)
    other = next((name for magic, name in _OTHERS.items() if head.lstrip().startswith(magic)), "")
    if len(found) == 1 and not other:
        return found.pop()
    what = f"is {other}" if other else "looks like two kinds of file" if found else "is not of an accepted kind"
    raise Refusal(415, f"{label}: {what}", _ACCEPTED)


@contextmanager
def spool(part: Part, folder: Path) -> Iterator[Path]:
    """Write the part's files to ``folder`` for the block. Gives the path of the file, or the folder of several.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir()
    try:
        ending = SUFFIXES.get(part.kind, "")
        names = part.names or [spooled.name_file(number, ending) for number in range(1, len(part.files) + 1)]
        paths = [folder / name for name in names]
        for path, file in zip(paths, part.files, strict=True):
            with path.open("xb") as copy:
                shutil.copyfileobj(file, copy, 2**20)
        yield folder if part.kind in (DICOM, SLICES) else paths[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
