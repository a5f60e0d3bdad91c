"""``brainseg predict``: an answer to every case that is given, one after another, each done once.

The next case is read while the network is at work on the last. A case that cannot be answered is reported and passed
over, and told again at the end.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from brainseg import __version__, errors, files
from brainseg.errors import BrainsegError, DataError, MachineError, Problem, RunError
from brainseg.inference import cases, overlays
from brainseg.inference.outlining import Outliner
from brainseg.predict import case_files, discover, output
from brainseg.predict.discover import Source
from brainseg.predict.output import Answers, Record

EVERY = 5  # seconds between two states of summary.csv; the journal is always up to date


class Given(NamedTuple):
    """What the command line names: ``paths`` hold FLAIR or three channels; ``pre`` and ``post`` go with one case."""

    paths: list[str]
    pre: str | None = None
    post: str | None = None
    each_picture: bool = False


class Job(NamedTuple):
    """A case to be answered: its sources by role. FLAIR's place, name and form are the answer's."""

    parts: dict[str, Source]

    @property
    def flair(self) -> Source:
        return self.parts["flair"]

    @property
    def label(self) -> str:
        more = (f"{role}: {source.label}" for role, source in self.parts.items() if role != "flair")
        return "; ".join([self.flair.label, *more])


class Read(NamedTuple):
    """A case that is ready to be answered (``case``), was answered before (``kept``), or cannot be (``fault``)."""

    job: Job
    name: str = ""
    digest: str = ""
    case: cases.Case | None = None
    kept: Record | None = None
    fault: Exception | None = None
    seconds: float = 0.0


class Done(NamedTuple):
    """What came of all cases."""

    records: list[Record]
    kept: int
    problems: list[Problem]

    def __str__(self) -> str:
        found = sum(bool(record.row["slices_with_tumour"]) for record in self.records)
        words = [f"{len(self.records):,} cases answered, {found:,} with tumour"]
        words += [f"{self.kept:,} of them kept from before"] if self.kept else []
        words += [f"{len(self.problems):,} faults"] if self.problems else []
        return ", ".join(words)


def run(given: Given, out: Path, predictor: Outliner) -> None:
    """Answer all that is given into ``out``, and say what was done.

    Raises:
        DataError: every path and case that could not be answered, after all others were.
        DataError, RunError, MachineError: ``out`` cannot be used (see output.opened), or the disk is full.
    """
    with output.opened(out) as folder, files.beside(out / "unpacked") as scratch:
        jobs, problems, ignored = _jobs(given, scratch, out)
        _tell(problems)
        if ignored:
            print(f"{ignored:,} masks among the inputs (*_mask.*, *_seg.*) are passed over")
        try:
            done = _answered(jobs, folder, predictor, scratch)
        finally:
            folder.write_summary()
    done.problems[:0] = problems
    marks = [f"of the model: {mark}" for mark in predictor.facts["marks"]]
    print(f"{done}: {out / output.SUMMARY}", *marks, overlays.DISCLAIMER, sep="\n", flush=True)
    errors.raise_all(done.problems)


def _jobs(given: Given, scratch: Path, out: Path) -> tuple[list[Job], list[Problem], int]:
    """Jobs in order, what is wrong with the paths, and how many masks were left out."""
    series = {"pre": given.pre, "post": given.post}
    roles = {"flair": given.paths} | {role: [path] for role, path in series.items() if path}
    found = {
        role: discover.find(paths, scratch, skip=out, each_picture=given.each_picture) for role, paths in roles.items()
    }
    problems = [problem for each in found.values() for problem in each.problems]
    ignored = sum(each.ignored for each in found.values())
    if not problems and not found["flair"].sources:
        what = "there is no TIF, PNG, JPEG, NIfTI, DICOM or zip of them"
        problems.append(Problem(", ".join(given.paths), what, "name files, folders, zips or patterns of them"))
    if len(found) == 1:
        return [Job({"flair": source}) for source in found["flair"].sources], problems, ignored
    for role, each in found.items():
        if len(each.sources) != 1 and not problems:
            what = (
                f"{'FLAIR' if role == 'flair' else role} is {len(each.sources):,} cases; with --pre or --post it is one"
            )
            problems.append(Problem(", ".join(roles[role]), what, "name one file, or a folder of one series"))
    return [] if problems else [Job({role: each.sources[0] for role, each in found.items()})], problems, ignored


def _answered(jobs: list[Job], folder: Answers, predictor: Outliner, scratch: Path) -> Done:
    """All jobs, one after another."""
    records: list[Record] = []
    problems: list[Problem] = []
    kept, written = 0, time.monotonic()
    with tqdm(total=len(jobs), unit="case", desc="predict", disable=None) as bar:
        for read in _ahead(jobs, folder, _identity(predictor.facts), scratch):
            try:
                if read.fault:
                    raise read.fault
                record = _again(read.kept, read, folder) if read.kept else _answer(read, folder, predictor, bar)
            except Exception as error:  # one case's fault, of whatever kind, must not end the others' night
                fault = errors.as_fault(error)
                if isinstance(fault, MachineError) and isinstance(error, OSError):
                    raise  # the disk is full, or the folder is gone
                folder.drop(_identity_of(read.job), read.digest)
                problems += _named(fault, read.job)
                _tell(_named(fault, read.job))
            else:
                records.append(record)
                kept += bool(read.kept)
                _say(_line(record, bool(read.kept)))
            bar.update()
            if time.monotonic() - written > EVERY:
                folder.write_summary()
                written = time.monotonic()
    return Done(records, kept, problems)


def _ahead(jobs: list[Job], folder: Answers, model: str, scratch: Path) -> Iterator[Read]:
    """Each job, read; the next one in a thread while the caller works on this one."""
    root = _root([job.flair.place for job in jobs])
    with ThreadPoolExecutor(1) as thread:
        ready = None
        for job in jobs:
            coming = thread.submit(_read, job, job.flair.place.relative_to(root), folder, model, scratch)
            if ready:
                yield ready.result()
            ready = coming
        if ready:
            yield ready.result()


def _root(places: list[PurePosixPath]) -> PurePosixPath:
    """The folder that all lie in."""
    above = [place.parent.parts for place in places]
    shared = next((n for n, parts in enumerate(zip(*above, strict=False)) if len(set(parts)) > 1), None)
    return PurePosixPath(*above[0][: min(map(len, above)) if shared is None else shared]) if above else PurePosixPath()


def _read(job: Job, wanted: PurePosixPath, folder: Answers, model: str, scratch: Path) -> Read:
    """Never raises: what is wrong comes with the answer, so that the next job is read all the same."""
    begun, digest = time.monotonic(), ""
    try:
        parts = {role: source.digest(scratch) for role, source in job.parts.items()}
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        name = folder.name(wanted, _identity_of(job), digest)
        if kept := folder.kept(name, model, digest):
            return Read(job, name, digest, kept=kept)
        read = {role: case_files.read(source, scratch) for role, source in job.parts.items()}
        case = read["flair"] if len(read) == 1 else cases.combined(read, job.flair.label)
        return Read(job, name, digest, case, seconds=time.monotonic() - begun)
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in case_files.FULL:
            what = f"cannot be read ({error.strerror or type(error).__name__})"
            error = DataError(job.label, what, "check that it is there, and its permissions")
        return Read(job, digest=digest, fault=error)


def _again(record: Record, read: Read, folder: Answers) -> Record:
    """An answer of before; of the same bytes at another place it is an answer too."""
    if record.source != _identity_of(read.job):
        record = record._replace(
            source=_identity_of(read.job), row=record.row | {"source": case_files.cell(read.job.label)}
        )
        folder.add(record)
    return record


def _answer(read: Read, folder: Answers, predictor: Outliner, bar: tqdm) -> Record:
    """Answer a case, and write all that belongs to it."""
    assert read.case is not None
    begun = time.monotonic()
    name, source, case = read.name, read.job.flair, read.case

    def progress(done: int, total: int) -> None:
        bar.set_postfix_str(f"{name[-40:]} {done}/{total}", refresh=False)
        bar.update(0)

    given, warnings = case_files.answer(case, source, predictor, progress)
    row = case_files.row(name, read.job.label, source, case, given, warnings, predictor.facts)
    row["seconds"] = f"{read.seconds + time.monotonic() - begun:.2f}"
    written = case_files.write(folder, name, source, case, given, row)
    record = Record(name, _identity_of(read.job), _identity(predictor.facts), read.digest, written, row)
    folder.add(record)
    return record


def _identity(facts: dict) -> str:
    """Which model answers, by which rule and code."""
    return json.dumps([facts["model"]["weights_sha256"], facts["variant"], facts["rule"], __version__])


def _identity_of(job: Job) -> str:
    """The same for the same files, from wherever they are named."""
    parts = []
    for role, source in job.parts.items():
        own = source.files[0].name if source.form == "file" else f"{source.place.name}/{source.files[0].ending}"
        parts.append(f"{role}: {source.form} {source.place.parent}/{own}")
    return "; ".join(parts)


def _named(fault: BrainsegError, job: Job) -> list[Problem]:
    """The fault's problems; one that names no file, for it is a bug or there is no memory, names the case."""
    if fault.code == BrainsegError.code or isinstance(fault, RunError):
        return [Problem(job.label, problem.what, problem.fix) for problem in fault.problems]
    return fault.problems


def _tell(problems: list[Problem]) -> None:
    for line in DataError("", problems=problems).lines() if problems else []:
        tqdm.write(line, file=sys.stderr)


def _say(text: str) -> None:
    """A line on stdout, whatever characters that can show."""
    coding = sys.stdout.encoding or "utf-8"
    tqdm.write(text.encode(coding, "backslashreplace").decode(coding))


def _line(record: Record, kept: bool) -> str:
    """What is said of a case when it is done."""
    row = record.row
    words = [f"tumour on {row['slices_with_tumour']} of {row['slices']} slices" if row["slices"] > 1 else
             "tumour" if row["slices_with_tumour"] else "no tumour"]  # fmt: skip
    if row["slices_with_tumour"]:
        words.append(f"{row['volume_ml']} ml" if row["volume_ml"] else f"largest area {row['area_pixels']:,} pixels")
    words.append("kept" if kept else f"{row['seconds']} s")
    return f"{record.name}: {', '.join(words)}" + (f" [{row['warnings']}]" if row["warnings"] else "")
