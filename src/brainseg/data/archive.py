"""The canonical archive of raw slices: the same slices give the same bytes, whatever the data came from.

The first member is ``index.csv`` (columns ``INDEX``, and those of ``FURTHER`` that hold anything); the others
are sorted by name. They are stored without compression, dated 1980-01-01, mode 0644. A file keeps its bytes and is
named ``<patient>/<original file name>``; a slice of a volume, which has no file of its own, is in NumPy's format.
On disk the bytes lie in the index's order (patient, numeric slice, image before mask), so that a volume
is one sequential read; writing needs the memory of one pair, reading that of one patient's rows of the index.
"""

import csv
import errno
import io
import itertools
import operator
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import pandas as pd

from brainseg import files
from brainseg.data import stored_zip
from brainseg.data.stored_zip import DAMAGE_ERRORS, Member, SpooledDirectory, StoredZip
from brainseg.errors import DataError, IntegrityError, MachineError, printable

INDEX = ("patient", "institution", "slice", "image", "mask")
SPACING, IMAGE_FILE, MASK_FILE = "spacing", "image_file", "mask_file"
FURTHER = (SPACING, IMAGE_FILE, MASK_FILE)  # left out where no slice has them, so archives of LGG keep their digest
_INDEX_NAME = "index.csv"
_AGAIN = "run: dvc repro -f download"
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


class Row(NamedTuple):
    """A row of the index. ``image`` and ``mask`` are names of members; for the others see :class:`Pair`."""

    patient: str
    institution: str
    slice: int
    image: str
    mask: str
    spacing: str = ""
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
        with (
            tempfile.TemporaryFile(dir=temporary.parent) as spool,
            tempfile.TemporaryFile("w+", newline="", encoding="utf-8", dir=temporary.parent) as rows,
            _create_zip(temporary, directory := SpooledDirectory(spool)) as archive,
        ):
            archive.comment = note.encode()
            counts = _write_pairs(archive, directory, pairs, path.parent, rows)
            if not counts.slices:
                raise DataError(path, "there is no pair of image and mask", "check params.yaml: download")
            _add_index(archive, rows, counts.further)
        size = temporary.stat().st_size
    return f"{path}: {counts.patients:,} patients, {counts.slices:,} slices, {size / 2**20:,.0f} MiB"


class Archive:
    """An archive to read.

    Raises:
        IntegrityError: it is not a zip archive; for each method: not an archive that :func:`write` wrote.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = StoredZip(path)
        except DAMAGE_ERRORS as error:
            raise IntegrityError(path, f"is not a zip archive ({error})", _AGAIN) from None
        self.note = self._zip.comment.decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def rows(self) -> Iterator[Row]:
        """The rows of the index, sorted by patient and slice. That they are whole is known after the last."""
        try:
            member = self._zip.read_first()
            if member.name != _INDEX_NAME:
                raise zipfile.BadZipFile(f"there is no {_INDEX_NAME}")
            reader = csv.reader(self._zip.read_lines(member), strict=True)
            header = tuple(next(reader, ()))
            if header[: len(INDEX)] != INDEX or not set(header[len(INDEX) :]) <= set(FURTHER):
                raise zipfile.BadZipFile(f"its columns are {', '.join(header)}")
            for cells in reader:
                values: dict[str, Any] = dict(zip(header, cells, strict=True))
                yield Row(**values | {"slice": int(values["slice"])})
        except (csv.Error, *DAMAGE_ERRORS) as error:
            raise IntegrityError(self.path, f"has no index of slices ({error})", _AGAIN) from None

    def patients(self) -> Iterator[tuple[list[Row], dict[str, Member]]]:
        """The rows of each patient, and the members that are there by their names, which may lack some."""
        folders = itertools.groupby(self._scan(), lambda member: member.name.rpartition("/")[0])
        folder, members = next(folders, (None, iter(())))
        for patient, rows in itertools.groupby(self.rows(), operator.attrgetter("patient")):
            named = list(rows)
            found = {member.name: member for member in members} if folder == patient else {}
            if unknown := found.keys() - {name for row in named for name in (row.image, row.mask)}:
                raise self._error(min(unknown), "is in no row of the archive's index")
            if folder == patient:
                folder, members = next(folders, (None, iter(())))
            yield named, found
        if folder is not None:
            what = folder or next(members).name  # of a member in no folder
            raise self._error(what, "is in no row of the archive's index, or not at its place")

    def read(self, member: Member) -> bytes:
        """The bytes of a member."""
        try:
            return self._zip.read(member)
        except DAMAGE_ERRORS as error:
            raise self._error(member.name, f"changed inside the archive ({error})") from None

    def _scan(self) -> Iterator[Member]:
        try:
            yield from (member for member in self._zip.scan() if member.name != _INDEX_NAME)
        except DAMAGE_ERRORS as error:
            raise self._error(self.path, f"is damaged ({error})") from None

    @staticmethod
    def _error(what: str | Path, why: str) -> IntegrityError:
        return IntegrityError(what, why, _AGAIN)


def read_note(path: Path) -> str:
    """The note of an archive. Raises IntegrityError: not a zip archive."""
    with Archive(path) as archive:
        return archive.note


def read_index(path: Path) -> pd.DataFrame:
    """All rows of an archive at once: columns ``INDEX`` and ``FURTHER``, ``slice`` int64, the others text.

    Raises:
        IntegrityError: not an archive that :func:`write` wrote.
    """
    with Archive(path) as archive:
        return pd.DataFrame(archive.rows(), columns=[*INDEX, *FURTHER])


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


class _Counts(NamedTuple):
    """``further``: which of the columns ``FURTHER`` hold anything."""

    patients: int
    slices: int
    further: frozenset[str]


@contextmanager
def _create_zip(path: Path, directory: SpooledDirectory) -> Iterator[zipfile.ZipFile]:
    """A zip to write to. If the block fails, its error is raised, not that of closing a zip on a full disk."""
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
    archive.filelist = directory  # type: ignore[assignment]  # it appends to it, and iterates over it when it closes
    try:
        yield archive
    except BaseException:
        archive.filelist = []  # it closes without a directory, which may have failed itself
        with suppress(OSError):
            archive.close()
        raise
    archive.close()


def _write_pairs(
    archive: zipfile.ZipFile, directory: SpooledDirectory, pairs: Iterable[Pair], folder: Path, rows: IO[str]
) -> _Counts:
    """Store each pair, and write its row with all columns to ``rows``."""
    table, further = csv.writer(rows, lineterminator="\n"), set[str]()
    patients = slices = 0
    known: set[str] = set()  # members of the patient
    last: tuple[str, int] | None = None
    for pair in pairs:
        if last is None or pair.patient != last[0]:
            directory.end_group(archive)
            known.clear()
            patients += 1
        row = _check(pair, last, known)
        with guard_space(folder, len(pair.image) + len(pair.mask)):
            archive.writestr(stored_zip.describe(row.image), pair.image)
            archive.writestr(stored_zip.describe(row.mask), pair.mask)
        table.writerow(row)
        slices += 1
        known |= {row.image, row.mask}
        further |= {column for column in FURTHER if getattr(row, column)}
        last = pair.patient, pair.slice
    directory.end_group(archive)
    return _Counts(patients, slices, frozenset(further))


def _check(pair: Pair, last: tuple[str, int] | None, known: set[str]) -> Row:
    """The row of a pair. Raises DataError: it does not follow ``last``, or its names are ``known``."""
    image, mask = f"{pair.patient}/{pair.image_name}", f"{pair.patient}/{pair.mask_name}"
    if last is not None and (pair.patient, pair.slice) <= last:
        what = "is out of order or has the number of another slice"
        raise DataError(image, what, "number the patient's slices")
    if image == mask or {image, mask} & known:
        raise DataError(image, f"or {mask} is there twice", "give the patient's files different names")
    row = Row(pair.patient, pair.institution, pair.slice, image, mask, pair.spacing, pair.image_file, pair.mask_file)
    if any("\r" in cell for cell in row if isinstance(cell, str)):  # which csv does not quote before Python 3.13
        what = "or its patient or institution has a carriage return in its name"
        raise DataError(printable(image), what, "take it out of the name")
    return row


def _add_index(archive: zipfile.ZipFile, rows: IO[str], further: frozenset[str]) -> None:
    """Add the index of the ``rows`` that were written, without the columns that hold nothing."""
    columns = [number for number, name in enumerate(Row._fields) if name in INDEX or name in further]
    if rows.tell() > zipfile.ZIP64_LIMIT:  # some millions of slices
        what = f"would have an index of {rows.tell() / 2**30:.1f} GiB, at most 2 are possible"
        raise DataError(archive.filename or "", what, "divide the data")
    rows.seek(0)
    with (
        archive.open(stored_zip.describe(_INDEX_NAME), "w") as member,
        io.TextIOWrapper(member, "utf-8", newline="") as text,
    ):
        table = csv.writer(text, lineterminator="\n")
        table.writerow(Row._fields[number] for number in columns)
        table.writerows([cells[number] for number in columns] for cells in csv.reader(rows))
