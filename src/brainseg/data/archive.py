"""The canonical archive of raw slices: the same bytes whatever the data came from.

``index.csv`` (columns ``INDEX``, and ``spacing`` where it is known) is the first member, then all members sorted by
name, stored without compression, dated 1980-01-01, mode 0644, original bytes unchanged, named ``<patient>/<original
file name>``; slices of a volume, which have no file of their own, in NumPy's format.
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
from brainseg.errors import DataError, IntegrityError, MachineError

INDEX = ("patient", "institution", "slice", "image", "mask")
SPACING = "spacing"  # a further column, left out where no slice has one: then the bytes are those they always were
_INDEX_NAME = "index.csv"
_DATE = (1980, 1, 1, 0, 0, 0)
_REGULAR_0644 = 0o100644 << 16
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class Pair(NamedTuple):
    """One slice: its image and mask as the original files' bytes. Names are file names, without a folder."""

    patient: str
    institution: str
    slice: int
    image_name: str
    mask_name: str
    image: bytes
    mask: bytes
    spacing: str = ""  # "row x column x slice" in mm, or empty


def write(path: Path, pairs: Iterable[Pair]) -> str:
    """Write the canonical archive; an earlier one stays until the last pair is in.

    Args:
        path: the archive.
        pairs: sorted by patient, then slice; taken one at a time.

    Returns:
        A one-line summary.

    Raises:
        DataError: no pairs, pairs out of order, or two members of one name.
        MachineError: the disk is full or cannot be written.
        Whatever ``pairs`` raises: then nothing is kept.
    """
    with room(path.parent), files.replacing(path) as temporary:
        with _new_zip(temporary) as archive:
            index = pd.DataFrame(_written(archive, pairs, path.parent), columns=[*INDEX, SPACING])
            if index.empty:
                raise DataError(path, "there is not one pair of image and mask", "check params.yaml: download")
            if not index[SPACING].any():
                index = index[list(INDEX)]
            _store(archive, _INDEX_NAME, index.to_csv(index=False, lineterminator="\n").encode())
            # The list is the zip's directory, written on closing.
            archive.infolist().sort(key=lambda member: (member.filename != _INDEX_NAME, member.filename))
        size = temporary.stat().st_size
    return f"{path}: {index.patient.nunique():,} patients, {len(index):,} slices, {size / 2**20:,.0f} MiB"


def read_index(archive: zipfile.ZipFile | Path) -> pd.DataFrame:
    """The archive's table of slices: columns ``INDEX`` and ``spacing``, ``slice`` int64, the others text.

    Raises:
        IntegrityError: not an archive that :func:`write` has written.
    """
    if not isinstance(archive, zipfile.ZipFile):
        try:
            with zipfile.ZipFile(archive) as opened:
                return read_index(opened)
        except zipfile.BadZipFile as error:
            raise IntegrityError(archive, f"is not a zip archive ({error})", "run: dvc repro download") from None
    try:
        with archive.open(_INDEX_NAME) as handle:
            types = {name: "int64" if name == "slice" else "str" for name in (*INDEX, SPACING)}
            table = pd.read_csv(handle, dtype=types, keep_default_na=False)
            return table.assign(**{SPACING: table.get(SPACING, "")})[[*INDEX, SPACING]]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        what = f"has no index of slices ({error})"
        raise IntegrityError(archive.filename, what, "run: dvc repro download") from None


def require(folder: Path, needed: int) -> None:
    """Raise MachineError unless the disk that holds ``folder`` has ``needed`` bytes free."""
    free = files.free_bytes(folder)
    if needed > free:
        raise MachineError(folder, f"{needed:,} bytes needed, {free:,} free", "free some space and run again")


@contextmanager
def room(folder: Path, needed: int = 2**20) -> Iterator[None]:
    """As :func:`require` before the block; a disk that fails within it is named with the same numbers."""
    require(folder, needed)
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FAULTS:
            raise
        what = f"{error.strerror} ({needed:,} bytes needed, {files.free_bytes(folder):,} free)"
        raise MachineError(folder, what, "free some space, check its permissions, and run again") from None


@contextmanager
def _new_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip to write to. When the block fails, its error counts, not that of closing a zip on a full disk."""
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
    try:
        yield archive
    except BaseException:
        with suppress(OSError):
            archive.close()
        raise
    archive.close()


def _written(archive: zipfile.ZipFile, pairs: Iterable[Pair], folder: Path) -> Iterator[tuple]:
    """Store each pair and give its row of the index."""
    last = ("", -1)
    known: set[str] = set()
    for pair in pairs:
        image, mask = f"{pair.patient}/{pair.image_name}", f"{pair.patient}/{pair.mask_name}"
        if (pair.patient, pair.slice) <= last:
            raise DataError(image, "is out of order or has another's slice number", "number the patient's slices")
        if image == mask or {image, mask} & known:
            raise DataError(image, f"or {mask} comes twice", "give the patient's files different names")
        with room(folder, len(pair.image) + len(pair.mask)):
            _store(archive, image, pair.image)
            _store(archive, mask, pair.mask)
        last = (pair.patient, pair.slice)
        known |= {image, mask}
        yield pair.patient, pair.institution, pair.slice, image, mask, pair.spacing


def _store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    member = zipfile.ZipInfo(name, _DATE)
    member.create_system = 3  # Unix, also when written on Windows
    member.external_attr = _REGULAR_0644
    archive.writestr(member, data)
