"""The folder of results: masks, overlays, its tables, and the journal with which an interrupted run continues.

All files stay in the folder, whatever the names of the cases are. A case is done when its line is in the journal. The
line is written last, so that a killed run loses only the case in work. It begins with its own digest and holds those of
the case's files: what does not fit is outlined again, the rest stays.
"""

import csv
import hashlib
import io
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from brainseg import files
from brainseg.errors import DataError, MachineError, RunError
from brainseg.inference.answers import lesions

COLUMNS = (
    *("case", "source", "kind", "channels", "slices", "slices_with_tumour", "largest_slice", "area_mm2", "area_pixels"),
    *(
        "volume_ml",
        "volume_ml_low",
        "volume_ml_high",
        "mean_probability",
        "warnings",
        "seconds",
        "mask",
        "seg",
        "overlay",
        "probabilities",
        "model",
    ),
    *("variant", "error"),
)
NUMBERS = ("slices", "slices_with_tumour", "area_pixels")  # of the columns
LESION_COLUMNS = ("case", *lesions.COLUMNS)
SUMMARY, LESIONS, JOURNAL, LOCK = "summary.csv", "lesions.csv", ".predict.jsonl", ".lock"
_HEAD = b'{"brainseg predict": 2}'  # the journal's first line
_LONGEST = 100  # bytes of one part of a name; the name of its temporary is longer
_DEEPEST = 8  # folders in a name


class Record(NamedTuple):
    """A line of the journal. ``files`` are relative to the folder, ``row`` is the row of summary.csv.

    ``digests``: sha256 of each of the files, ``stamps``: its size and the time of its writing; ``ResultFolder.add``
    takes them. ``lesions``: the case's rows of lesions.csv without its name; None in the line of an earlier version,
    which did not measure them.
    """

    name: str
    source: str  # names the input files; see batch
    model: str  # names the model and its rule; see batch
    digest: str  # of the bytes of the input
    files: list[str]
    row: dict[str, Any]
    digests: Sequence[str] = ()
    lesions: list[dict[str, Any]] | None = None
    stamps: Sequence[Sequence[int]] = ()


class ResultFolder:
    """The folder of results, see the module. ``open_folder`` creates it."""

    def __init__(self, home: Path):
        self.home = home
        self._records, damaged = _read_journal(home / JOURNAL)
        if damaged:
            # Without the line that replaced or dropped it an earlier result would stand again, but its files are gone.
            gone = [name for name, record in self._records.items() if self._find_changed(record)]
            for name in gone:
                del self._records[name]
            what = f"{damaged:,} of its lines are damaged or of an earlier version"
            what += f"; no longer as written: {', '.join(gone)}" if gone else ""
            fix = "what has no line any more is outlined again when its files are given"
            print(f"WARNING {home / JOURNAL}: {what}; {fix}", file=sys.stderr, flush=True)
        self._of = {record.source: record.name for record in self._records.values()}
        self._old = _UsedNames(self._records)
        self._new = _UsedNames(())
        self._proven: set[str] = set()  # cases whose files are as they were written, by digest, in this run
        self._failed: dict[str, dict[str, Any]] = {}
        self._apart: list[dict[str, Any]] = []
        with files.replacing(home / JOURNAL) as temporary:  # drops incomplete and damaged lines
            lines = (_write_line(record._asdict()) for record in self._records.values())
            temporary.write_bytes(b"".join([_HEAD, b"\n", *lines]))

    def name(self, wanted: PurePosixPath, source: str, digest: str) -> str:
        """The name of a case: its earlier name, else its path, with a number if another case has that name."""
        parts = (part[:-4] if part.lower().endswith(".zip") else part for part in wanted.parts[-_DEEPEST:])
        plain = "/".join(map(_make_safe, parts)) or "case"
        number = 1
        name = self._of.get(source, plain)
        while not self._is_free(name, source, digest):
            number += 1
            name = f"{plain}-{number}"
        self._new.add(name)
        return name

    def parts(self, names: list[str]) -> list[str]:
        """Safe and different names for the files of one folder."""
        taken, found = _UsedNames(()), []
        for name in map(_make_safe, names):
            own = _add_number(name, taken.conflicts)
            taken.add(own)
            found.append(own)
        return found

    def kept(self, name: str, model: str, digest: str) -> Record | None:
        """The earlier result of the same model for the same bytes, if all its files are as they were written."""
        record = self._records.get(name)
        if not record or (record.model, record.digest) != (model, digest) or record.lesions is None:
            return None
        if changed := self._find_changed(record):
            what = "is not as it was written, so its case is outlined again"
            print(f"WARNING {self.home / changed}: {what}", file=sys.stderr, flush=True)
            return None
        self._proven.add(name)
        return record

    def place(self, relative: str) -> Path:
        """The path for a file of a result. Creates its folder.

        Raises:
            DataError: a link there leads out of the folder.
        """
        path = self.home / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(self.home.resolve()) or path.is_symlink():
            raise DataError(path, "is reached through a link", "name a new folder: -o DIR")
        return path

    def add(self, record: Record) -> None:
        """Record a case as done. Remove the files of its earlier result that the new one does not have."""
        if not record.digests:
            digests = [files.sha256(self.home / file) for file in record.files]
            record = record._replace(digests=digests, stamps=[_stamp(self.home / file) for file in record.files])
        self._append(record._asdict())
        earlier = self._records.get(record.name)
        self._records[record.name] = record
        self._proven.add(record.name)
        self._remove(set(earlier.files) - set(record.files) if earlier else ())

    def drop(self, source: str, digest: str) -> None:
        """Remove the result of a source whose bytes have changed and cannot be read. An empty digest is not known."""
        changed = [each for each in self._records.values() if each.source == source and digest not in ("", each.digest)]
        for name in (record.name for record in changed):
            self._append({"dropped": name})
            self._remove(self._records.pop(name).files)

    def fail(self, row: dict[str, Any]) -> None:
        """Add a case that has no result in this run to the table. The next run tries it again."""
        self._failed[row["case"]] = row

    def tell(self, row: dict[str, Any]) -> None:
        """Add what is no case to the table, in a row of its own also where a case has its name."""
        self._apart.append(row)

    def expect_change(self, name: str) -> None:
        """Say that a case's files will be written again: until ``add`` its earlier numbers may be of other files."""
        self._proven.discard(name)

    def write_summary(self, *, is_last: bool = True) -> None:
        """Write all results of the folder, those of earlier calls too, and what failed in this one, sorted by name.

        Numbers stand beside the files that they are of: what is not as it was written is left out, and at last named.
        """
        there = {name: each for name, each in self._records.items() if self._is_there(each, is_last)}
        rows = {name: record.row for name, record in there.items()}
        rows |= {name: rows.get(name, {}) | row for name, row in self._failed.items()}
        for row in self._apart:
            name = _add_number(row["case"], rows.__contains__)
            rows[name] = row | {"case": name}
        self._write_table(SUMMARY, COLUMNS, (row for _, row in sorted(rows.items())))
        found = ({"case": name, **row} for name, record in sorted(there.items()) for row in record.lesions or ())
        self._write_table(LESIONS, LESION_COLUMNS, found)

    def _is_there(self, record: Record, tell: bool) -> bool:
        """Whether all files of a case are there as they were written: by size and time, else by their content."""
        paths = [self.home / file for file in record.files]
        if not all(map(os.path.isfile, paths)):
            return False
        if record.name in self._proven or [_stamp(path) for path in paths] == [list(each) for each in record.stamps]:
            return True
        if changed := self._find_changed(record):
            what = f"is not as it was written, so {record.name} is left out of the tables: give its images again"
            if tell:
                print(f"WARNING {self.home / changed}: {what}", file=sys.stderr, flush=True)
            return False
        self._proven.add(record.name)
        return True

    def _write_table(self, name: str, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        files.write_text(self.home / name, text.getvalue())

    def _is_free(self, name: str, source: str, digest: str) -> bool:
        """Whether no other case has this name, a name inside it, or the name of a folder above it."""
        if self._new.conflicts(name):
            return False
        record = self._records.get(name)
        if record:
            return source == record.source or digest == record.digest
        return not self._old.conflicts(name)

    def _append(self, content: dict[str, Any]) -> None:
        path = self.home / JOURNAL
        with files.name_full_disk(path, nothing_else=True), path.open("ab") as journal:
            journal.write(_write_line(content))
            journal.flush()
            os.fsync(journal.fileno())

    def _find_changed(self, record: Record) -> str | None:
        """The first of its files that is missing, cannot be read, or is not as it was written."""
        for file, digest in zip(record.files, record.digests, strict=True):
            try:
                if files.sha256(self.home / file) != digest:
                    return file
            except OSError:
                return file
        return None

    def _remove(self, relative: Iterable[str]) -> None:
        for each in relative:
            path = self.home / each
            path.unlink(missing_ok=True)
            with suppress(OSError):  # the folder holds files of another result
                path.parent.rmdir()


class _UsedNames:
    """Names in use, and the folders above them."""

    def __init__(self, names: Iterable[str]):
        self._names: set[str] = set()
        self._above: set[str] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self._names.add(_normalise(name))
        self._above |= _parent_folders(name)

    def conflicts(self, name: str) -> bool:
        return (
            _normalise(name) in self._names
            or _normalise(name) in self._above
            or not self._names.isdisjoint(_parent_folders(name))
        )


def _parent_folders(name: str) -> set[str]:
    return {str(parent) for parent in PurePosixPath(_normalise(name)).parents} - {"."}


@contextmanager
def open_folder(home: Path) -> Iterator[ResultFolder]:
    """Open the folder for one process at a time. It must be new, empty, or written by this command.

    Raises:
        DataError: it holds other things. RunError: another process writes there.
        MachineError: it cannot be written to.
    """
    if home.exists() and not home.is_dir():
        raise DataError(home, "is a file", "name a folder: -o DIR")
    try:
        home.mkdir(parents=True, exist_ok=True)
        others = [path for path in home.iterdir() if path.name != LOCK and not files.is_temporary(path.name, JOURNAL)]
        if others and not (home / JOURNAL).is_file():
            raise DataError(home, "holds other things, which would be mixed with the results", "name a new one: -o DIR")
        what = "is in use by another brainseg predict"
        with files.hold(home / LOCK, RunError(home, what, "wait for it, or name another folder: -o DIR")):
            yield ResultFolder(home)
    except PermissionError as error:
        raise MachineError(error.filename or home, "cannot be written to", "check its permissions") from None


def _read_journal(path: Path) -> tuple[dict[str, Record], int]:
    """Read the journal.

    Returns:
        Name → its last record, of the lines that their digests prove; and the number of the others.
    """
    records: dict[str, Record] = {}
    head, *lines = path.read_bytes().split(b"\n") if path.is_file() else [_HEAD]
    damaged = int(head != _HEAD)
    for line in filter(None, lines):
        digest, _, text = line.partition(b" ")
        if hashlib.sha256(text).hexdigest().encode() != digest:
            damaged += 1
            continue
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            found = json.loads(text)
            if "dropped" in found:
                records.pop(found["dropped"], None)
                continue
            record = Record(**found)
            if _is_sound(record):
                records[record.name] = record
                continue
        damaged += 1
    return records, damaged


def _write_line(content: dict[str, Any]) -> bytes:
    """A line of the journal: the digest of its content, and the content as JSON."""
    text = json.dumps(content).encode()
    return f"{hashlib.sha256(text).hexdigest()} ".encode() + text + b"\n"


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _is_sound(record: Record) -> bool:
    """Whether it is as ``ResultFolder.add`` writes it; a digest does not tell who made it."""
    paths = (record.name, *record.files)
    texts = (*paths, *record.digests, record.source, record.model, record.digest)
    cells = (*record.row.values(), *(value for lesion in record.lesions or () for value in lesion.values()))
    return (
        all(isinstance(text, str) for text in texts)
        and all(map(_is_inside, paths))
        and len(record.digests) == len(record.files)
        and all(isinstance(number, int) for stamp in record.stamps for number in stamp)
        and record.row.keys() <= set(COLUMNS)
        and all(isinstance(record.row[column], int) for column in NUMBERS)
        and all(lesion.keys() <= set(lesions.COLUMNS) for lesion in record.lesions or ())
        and all(str(value).isprintable() for value in cells)
    )


def _add_number(name: str, is_taken: Callable[[str], bool]) -> str:
    """``name``, or ``name-2`` and so on: the first that is not taken."""
    number, own = 1, name
    while is_taken(own):
        number += 1
        own = f"{name}-{number}"
    return own


def _is_inside(relative: str) -> bool:
    return relative.isprintable() and not relative.startswith("/") and ".." not in relative.split("/")


def _make_safe(part: str) -> str:
    """Make one part of a path printable, safe for shells, tables and all file systems, and not too long."""
    text = unicodedata.normalize("NFC", part)
    text = "".join("_" if not c.isprintable() or c in '\\/:*?"<>|' else c for c in text).strip(" ")
    text = re.sub(r"^[-.=+@~]+", "_", text).rstrip(".") or "_"
    if len(text.encode()) <= _LONGEST:
        return text
    mark = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return text.encode()[: _LONGEST - 9].decode("utf-8", "ignore") + "-" + mark


def _normalise(name: str) -> str:
    """The form in which names are compared: some file systems ignore case and the composition of characters."""
    return unicodedata.normalize("NFC", name).casefold()
