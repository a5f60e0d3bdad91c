"""The canonical archive of raw slices: the same slices give the same bytes, whatever the data came from.

The first member is ``index.csv`` (columns ``INDEX``, and those of ``FURTHER`` that hold anything); the others
are sorted by name. They are stored without compression, dated 1980-01-01, mode 0644. A file keeps its bytes and is
named ``<patient>/<original file name>``; a slice of a volume, which has no file of its own, is in NumPy's format.
On disk the bytes lie in the index's order (patient, numeric slice, image before mask), so that a volume
is one sequential read and writing needs the memory of one pair.
"""

import errno
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from brainseg import files
from brainseg.data import csv_tables
from brainseg.errors import DataError, IntegrityError, MachineError
from brainseg.io import untrusted_zip

INDEX = ("patient", "institution", "slice", "image", "mask")
SPACING, IMAGE_FILE, MASK_FILE = "spacing", "image_file", "mask_file"
FURTHER = (SPACING, IMAGE_FILE, MASK_FILE)  # left out where no slice has them, so archives of LGG keep their digest
_INDEX_NAME = "index.csv"
_DATE = (1980, 1, 1, 0, 0, 0)
_REGULAR_0644 = 0o100644 << 16
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class Pair(NamedTuple):
    """One slice: its image and mask as the original files' bytes. Names are file names, without a folder.

    ``image_file`` and ``mask_file``: the user's own files below ``download.path``, for the faults that are found later.
    """

    patient: str
    institution: str
    slice: int
    image_name: str
    mask_name: str
    image: bytes
    mask: bytes
    spacing: str = ""  # "row x column x slice" in mm, or empty
    image_file: str = ""
    mask_file: str = ""


def write(path: Path, pairs: Iterable[Pair], note: str = "") -> str:
    """Write the canonical archive; an earlier one stays until the last pair is written.

    Args:
        path: the archive.
        pairs: sorted by patient, then slice; taken one at a time.
        note: the archive's comment, what :func:`read_note` gives back.

    Returns:
        A one-line summary.

    Raises:
        DataError: no pairs, pairs out of order, or two members with the same name.
        MachineError: the disk is full or cannot be written.
        Whatever ``pairs`` raises: then nothing is kept.
    """
    with guard_space(path.parent), files.replacing(path) as temporary:
        with _create_zip(temporary) as archive:
            archive.comment = note.encode()
            index = pd.DataFrame(_write_pairs(archive, pairs, path.parent), columns=[*INDEX, *FURTHER])
            if index.empty:
                raise DataError(path, "there is no pair of image and mask", "check params.yaml: download")
            index = index[[*INDEX, *(column for column in FURTHER if index[column].any())]]
            _add_member(archive, _INDEX_NAME, index.to_csv(index=False, lineterminator="\n").encode())
            # zipfile writes its directory in the order of this list when it closes.
            archive.infolist().sort(key=lambda member: (member.filename != _INDEX_NAME, member.filename))
        size = temporary.stat().st_size
    return f"{path}: {index.patient.nunique():,} patients, {len(index):,} slices, {size / 2**20:,.0f} MiB"


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open an archive to read.

    Raises:
        IntegrityError: not a zip archive.
    """
    try:
        return zipfile.ZipFile(path)
    except (*untrusted_zip.DAMAGE_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is a seek to where damaged bytes point
            raise
        raise IntegrityError(path, f"is not a zip archive ({error})", "run: dvc repro -f download") from None


def read_note(path: Path) -> str:
    """The note of an archive. Raises IntegrityError: see :func:`open_zip`."""
    with open_zip(path) as archive:
        return archive.comment.decode(errors="replace")


def read_index(archive: zipfile.ZipFile | Path) -> pd.DataFrame:
    """The archive's table of slices: columns ``INDEX`` and ``FURTHER``, ``slice`` int64, the others text.

    Raises:
        IntegrityError: not an archive that :func:`write` wrote.
    """
    if not isinstance(archive, zipfile.ZipFile):
        with open_zip(archive) as opened:
            return read_index(opened)
    try:
        with archive.open(_INDEX_NAME) as handle:
            types = {name: "int64" if name == "slice" else "str" for name in (*INDEX, *FURTHER)}
            table = csv_tables.read_csv(handle, dtype=types, keep_default_na=False)
            return table.assign(**{name: table.get(name, "") for name in FURTHER})[[*INDEX, *FURTHER]]
    except (KeyError, *untrusted_zip.DAMAGE_ERRORS, OSError) as error:
        what = f"has no index of slices ({error})"
        raise IntegrityError(archive.filename, what, "run: dvc repro -f download") from None


def require_space(folder: Path, needed: int) -> None:
    """Raise MachineError unless the disk that holds ``folder`` has ``needed`` bytes free."""
    free = files.free_bytes(folder)
    if needed > free:
        raise MachineError(folder, f"{needed:,} bytes needed, {free:,} free", "free some space and run again")


@contextmanager
def guard_space(folder: Path, needed: int = 2**20) -> Iterator[None]:
    """Call :func:`require_space` before the block; a disk that fails in the block raises MachineError too."""
    require_space(folder, needed)
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FAULTS:
            raise
        place = error.filename or folder
        what = f"{error.strerror} ({needed:,} bytes needed, {files.free_bytes(place):,} free)"
        raise MachineError(place, what, "free some space, check its permissions, and run again") from None


@contextmanager
def _create_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip to write to. If the block fails, its error is raised, not that of closing a zip on a full disk."""
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
    try:
        yield archive
    except BaseException:
        with suppress(OSError):
            archive.close()
        raise
    archive.close()


def _write_pairs(archive: zipfile.ZipFile, pairs: Iterable[Pair], folder: Path) -> Iterator[tuple]:
    """Store each pair and yield its row of the index."""
    last = ("", -1)
    known: set[str] = set()
    for pair in pairs:
        image, mask = f"{pair.patient}/{pair.image_name}", f"{pair.patient}/{pair.mask_name}"
        if (pair.patient, pair.slice) <= last:
            what = "is out of order or has the number of another slice"
            raise DataError(image, what, "number the patient's slices")
        if image == mask or {image, mask} & known:
            raise DataError(image, f"or {mask} is there twice", "give the patient's files different names")
        with guard_space(folder, len(pair.image) + len(pair.mask)):
            _add_member(archive, image, pair.image)
            _add_member(archive, mask, pair.mask)
        last = (pair.patient, pair.slice)
        known |= {image, mask}
        yield pair.patient, pair.institution, pair.slice, image, mask, pair.spacing, pair.image_file, pair.mask_file


def _add_member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    member = zipfile.ZipInfo(name, _DATE)
    member.create_system = 3  # Unix, also when written on Windows
    member.external_attr = _REGULAR_0644
    archive.writestr(member, data)
