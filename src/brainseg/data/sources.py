"""Where slices come from: LGG, a folder of the user, or phantoms."""

from collections.abc import Iterator
from pathlib import Path

from brainseg import config, files
from brainseg.data import archive, folder, kaggle
from brainseg.data.archive import Pair
from brainseg.data.layouts import recognition
from brainseg.data.phantom import cohort as phantoms
from brainseg.errors import DataError


def pairs(download: config.Download, phantom: config.Phantom) -> Iterator[Pair]:
    """The pairs of ``download.source``, sorted by patient and slice, drawn or read one at a time.

    A source may find a fault only after its last pair, so an archive is good only if all pairs were taken.
    """
    if download.source == "kaggle":
        return kaggle.pairs()
    if download.source == "folder":
        return folder.pairs(download)
    return phantoms.pairs(phantom)


def describe_table(download: config.Download) -> str:
    """The digest of ``download.patients``, for the archive's note; empty without.

    Raises:
        DataError: it is no file.
    """
    if download.source != "folder" or not download.patients:
        return ""
    return f"download.patients {files.sha256(recognition.find_table(download.patients))}"


def check_table(download: config.Download, path: Path) -> None:
    """Refuse an archive whose cases were given to patients by another table. DVC does not watch files of users.

    Raises:
        DataError: the table has changed, or is no file.
    """
    told = describe_table(download)
    if told and path.is_file() and archive.read_note(path) != told:
        what = f"has changed since {path} was made with it: cases may be of other patients"
        raise DataError(recognition.find_table(download.patients or ""), what, "dvc repro -f download")
