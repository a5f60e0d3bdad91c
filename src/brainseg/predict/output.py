"""A folder of answers: masks, overlays, summary.csv, and the journal by which a run that was cut short goes on.

Whatever a case is called, its files lie in the folder. A case is answered once its line is in the journal; that comes
last, so a kill loses the case it hits and no other.
"""

import csv
import hashlib
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import filelock

from brainseg import files
from brainseg.errors import DataError, MachineError, RunError

COLUMNS = (
    *("case", "source", "kind", "channels", "slices", "slices_with_tumour", "largest_slice", "area_mm2", "area_pixels"),
    *("volume_ml", "mean_probability", "warnings", "seconds", "mask", "overlay", "model", "variant"),
)
SUMMARY, JOURNAL, LOCK = "summary.csv", ".predict.jsonl", ".lock"
_HEAD = {"brainseg predict": 1}
_LONGEST = 100  # bytes of a name's part; a temporary beside it adds some
_DEEPEST = 8  # folders


class Record(NamedTuple):
    """A line of the journal. ``files`` are relative to the folder, ``row`` is that of summary.csv."""

    name: str
    source: str  # absolute, or what stands for it
    model: str  # which model and rule answered
    digest: str  # of the input's bytes
    files: list[str]
    row: dict[str, Any]


class Answers:
    """See the module. ``opened`` makes one."""

    def __init__(self, home: Path):
        self.home = home
        self._records = _read(home / JOURNAL)
        self._of = {record.source: record.name for record in self._records.values()}
        self._old = _Taken(self._records)
        self._new = _Taken(())
        lines = [json.dumps(_HEAD), *(json.dumps(record._asdict()) for record in self._records.values())]
        files.write_text(home / JOURNAL, "".join(f"{line}\n" for line in lines))  # without a line that was cut short

    def name(self, wanted: PurePosixPath, source: str, digest: str) -> str:
        """What a case is called: as before, else by its path, with a number where that name is another's."""
        parts = (part[:-4] if part.lower().endswith(".zip") else part for part in wanted.parts[-_DEEPEST:])
        plain = "/".join(map(_safe, parts)) or "case"
        number = 1
        name = self._of.get(source, plain)
        while not self._is_free(name, source, digest):
            number += 1
            name = f"{plain}-{number}"
        self._new.add(name)
        return name

    def parts(self, names: list[str]) -> list[str]:
        """Names of files in one folder: safe, and all different."""
        taken, found = _Taken(()), []
        for name in map(_safe, names):
            number, own = 1, name
            while taken.hinders(own):
                number += 1
                own = f"{name}-{number}"
            taken.add(own)
            found.append(own)
        return found

    def kept(self, name: str, model: str, digest: str) -> Record | None:
        """The answer of this very model to these very bytes, if all of it is still there."""
        record = self._records.get(name)
        if not record or (record.model, record.digest) != (model, digest):
            return None
        return record if all((self.home / file).is_file() for file in record.files) else None

    def place(self, relative: str) -> Path:
        """Where a file of an answer goes; its folder is made.

        Raises:
            DataError: a link there leads out of the folder.
        """
        path = self.home / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(self.home.resolve()) or path.is_symlink():
            raise DataError(path, "is reached through a link", "name a new folder: -o DIR")
        return path

    def add(self, record: Record) -> None:
        """Count a case as answered; what an earlier answer of it left, beside the new files, is removed."""
        with (self.home / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(record._asdict()) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        earlier = self._records.get(record.name)
        self._records[record.name] = record
        self._remove(set(earlier.files) - set(record.files) if earlier else ())

    def drop(self, source: str, digest: str) -> None:
        """Take back an answer to other bytes than a source has now, which cannot be answered; empty is not known."""
        changed = [each for each in self._records.values() if each.source == source and digest not in ("", each.digest)]
        for name in (record.name for record in changed):
            with (self.home / JOURNAL).open("a", encoding="utf-8") as journal:
                journal.write(json.dumps({"dropped": name}) + "\n")
            self._remove(self._records.pop(name).files)

    def write_summary(self) -> None:
        """All answers of the folder, those of earlier calls too, sorted by their names."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        for _, record in sorted(self._records.items()):
            if all((self.home / file).is_file() for file in record.files):
                table.writerow(record.row)
        files.write_text(self.home / SUMMARY, text.getvalue())

    def _is_free(self, name: str, source: str, digest: str) -> bool:
        """Whether no other case has this name, nor one that would be a folder of it, or in it."""
        if self._new.hinders(name):
            return False
        record = self._records.get(name)
        if record:
            return source == record.source or digest == record.digest
        return not self._old.hinders(name)

    def _remove(self, relative: Iterable[str]) -> None:
        for each in relative:
            path = self.home / each
            path.unlink(missing_ok=True)
            with suppress(OSError):  # another answer's files are there
                path.parent.rmdir()


class _Taken:
    """Names that are given away, and the folders above them."""

    def __init__(self, names: Iterable[str]):
        self._names: set[str] = set()
        self._above: set[str] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self._names.add(_key(name))
        self._above |= _above(name)

    def hinders(self, name: str) -> bool:
        return _key(name) in self._names or _key(name) in self._above or not self._names.isdisjoint(_above(name))


def _above(name: str) -> set[str]:
    return {str(parent) for parent in PurePosixPath(_key(name)).parents} - {"."}


@contextmanager
def opened(home: Path) -> Iterator[Answers]:
    """The folder, for one process at a time; it is made, or is empty, or of this command.

    Raises:
        DataError: it holds other things. RunError: another process writes there.
        MachineError: it cannot be written to.
    """
    if home.exists() and not home.is_dir():
        raise DataError(home, "is a file", "name a folder: -o DIR")
    try:
        home.mkdir(parents=True, exist_ok=True)
        others = {path.name for path in home.iterdir()} - {LOCK}
        if others and not _is_ours(home / JOURNAL):
            raise DataError(home, "holds other things, which would be mixed with the answers", "name a new one: -o DIR")
        with filelock.FileLock(home / LOCK, timeout=0):
            yield Answers(home)
    except filelock.Timeout:
        raise RunError(
            home, "is written to by another brainseg predict", "wait for it, or name another: -o DIR"
        ) from None
    except PermissionError as error:
        raise MachineError(error.filename or home, "cannot be written to", "check its permissions") from None


def _is_ours(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as journal:
            return json.loads(journal.readline()) == _HEAD
    except (OSError, ValueError):
        return False


def _read(path: Path) -> dict[str, Record]:
    """Name → its last record; a last line that was cut short is no record."""
    records: dict[str, Record] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else ():
        try:
            found = json.loads(line)
            if "dropped" in found:
                records.pop(found["dropped"], None)
            elif all(_is_inside(each) for each in (found["name"], *found["files"])):
                records[found["name"]] = Record(**found)
        except (ValueError, TypeError, KeyError):
            continue
    return records


def _is_inside(relative: str) -> bool:
    return not relative.startswith("/") and ".." not in relative.split("/")


def _safe(part: str) -> str:
    """One part of a path: printable, of no special meaning to a shell, a table or any file system, not too long."""
    text = unicodedata.normalize("NFC", part)
    text = "".join("_" if not c.isprintable() or c in '\\/:*?"<>|' else c for c in text).strip(" ")
    text = re.sub(r"^[-.=+@~]+", "_", text).rstrip(".") or "_"
    if len(text.encode()) <= _LONGEST:
        return text
    mark = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return text.encode()[: _LONGEST - 9].decode("utf-8", "ignore") + "-" + mark


def _key(name: str) -> str:
    """What some file systems take for the same name."""
    return unicodedata.normalize("NFC", name).casefold()
