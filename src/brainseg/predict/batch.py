"""``brainseg predict``: outline every case, one after another, each only once.

The next case is read while the network works on the present one. A case that cannot be outlined is reported and
skipped, and reported again at the end and in the table. Several cases are decoded in a process of their own, so that a
file that kills it or never ends costs that case alone.
"""

import hashlib
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tqdm import tqdm

from brainseg import __version__, errors, files
from brainseg.errors import BrainsegError, DataError, MachineError, Problem, RunError
from brainseg.inference import cases, chosen_rule
from brainseg.inference.answers import lesions, overlays
from brainseg.inference.chosen_rule import RuleChoice
from brainseg.inference.decoding import Decoders
from brainseg.inference.outlining import Outliner
from brainseg.io import itk
from brainseg.io.dicom import seg_writer, slice_header
from brainseg.io.folders import PassedOver
from brainseg.predict import case_files, discover, output
from brainseg.predict.case_files import Reader
from brainseg.predict.discover import Source
from brainseg.predict.output import Record, ResultFolder

SUMMARY_EVERY = 5  # seconds between two writes of summary.csv; the journal is always up to date
TOLD = ("link", discover.NO_SLICES, discover.MISSING)  # kinds of what is passed over that are named without --verbose
NAMED = 3  # files, or entries of such a kind, that are named; the rest is counted
DECODE_SECONDS = 60.0  # time limit for a tiny file
DECODE_RATE = 2 * 2**20  # each such number of bytes adds a second: the file may lie on a slow disk

FindKept = Callable[[str, str], Record | None]  # by name and digest: the earlier answer, if it is the wanted one


class Inputs(NamedTuple):
    """Arguments of the command. ``paths``: FLAIR or three channels. ``pre``, ``post``: series of the same case."""

    paths: list[str]
    pre: str | None = None
    post: str | None = None
    each_picture: bool = False


class Wanted(NamedTuple):
    """What is asked for besides masks. ``rule``: in place of the model's. ``maps``: probability maps."""

    rule: RuleChoice = RuleChoice()
    maps: bool = False


class Job(NamedTuple):
    """A case to outline: its sources by role. The result takes the place, name and form of FLAIR."""

    parts: dict[str, Source]

    @property
    def flair(self) -> Source:
        return self.parts["flair"]

    @property
    def label(self) -> str:
        more = (f"{role}: {source.label}" for role, source in self.parts.items() if role != "flair")
        return "; ".join([self.flair.label, *more])


class LoadedCase(NamedTuple):
    """A case that is ready (``case``), was done before (``kept``), or cannot be read (``fault``)."""

    job: Job
    name: str = ""
    digest: str = ""
    case: cases.Case | None = None
    kept: Record | None = None
    fault: Exception | None = None
    seconds: float = 0.0


class RunResults(NamedTuple):
    """The results of all cases. ``kind``: of the error for all problems together."""

    records: list[Record]
    kept: int
    problems: list[Problem]
    kind: type[BrainsegError]
    passed: Sequence[PassedOver] = ()

    def __str__(self) -> str:
        found = sum(bool(record.row["slices_with_tumour"]) for record in self.records)
        words = [f"{_count(len(self.records), 'case')} answered, {found:,} with tumour"]
        words += [f"{self.kept:,} of them kept from before"] if self.kept else []
        words += [_count(len(self.problems), "error")] if self.problems else []
        kinds = Counter(each.kind for each in self.passed).most_common()
        shown = "; ".join(f"{kind}: {count:,}" for kind, count in kinds)
        words += [f"{len(self.passed):,} passed over ({shown}; --verbose lists them)"] if kinds else []
        return ", ".join(words)


def run(inputs: Inputs, out: Path, predictor: Outliner, *, wanted: Wanted | None = None, verbose: bool = False) -> None:
    """Outline all cases into ``out`` and print what was done.

    Args:
        wanted: the default is the model's rule and no maps.
        verbose: print a line for each file and folder that is passed over; else for the first of some kinds alone.

    Raises:
        DataError: names every path and case that failed, after all others were done.
        RunError: the same, if an answer was not a number, or memory or time did not suffice.
        DataError, RunError, MachineError: ``out`` cannot be used (see output.open_folder), or the disk is full.
    """
    wanted = wanted or Wanted()
    predictor = chosen_rule.apply(predictor, wanted.rule)
    with output.open_folder(out) as folder, files.temporary_beside(out / "unpacked") as scratch:
        jobs, problems, passed = _find_jobs(inputs, scratch, out)
        if not jobs and not problems:
            raise _describe_nothing(inputs.paths, passed)
        _print_problems(problems)
        for row in _list_apart(jobs, problems, passed):
            folder.tell(row)
        first = [each for kind in TOLD for each in [one for one in passed if one.kind == kind][:NAMED]]
        for each in passed if verbose else first:
            _print_line(f"passed over {errors.printable(each.label)}: {errors.printable(each.why)}")
        try:
            done = _process_all(jobs, folder, predictor, scratch, wanted.maps)._replace(passed=passed)
        finally:
            folder.write_summary()
    done.problems[:0] = problems
    marks = [f"of the model: {mark}" for mark in predictor.facts["marks"]]
    remarks = [*chosen_rule.remarks(predictor.facts), *_tell_several_series(jobs)]
    marks += [f"of these answers: {remark}" for remark in remarks]
    print(f"{done}: {out / output.SUMMARY}", *marks, overlays.DISCLAIMER, sep="\n", flush=True)
    errors.raise_all(done.problems, done.kind)


def _find_jobs(inputs: Inputs, scratch: Path, out: Path) -> tuple[list[Job], list[Problem], list[PassedOver]]:
    """Jobs in order, problems of the paths, and what was passed over."""
    series = {"pre": inputs.pre, "post": inputs.post}
    roles = {"flair": inputs.paths} | {role: [path] for role, path in series.items() if path}
    found = {
        role: discover.find(paths, scratch, skip=out, each_picture=inputs.each_picture) for role, paths in roles.items()
    }
    problems = [problem for each in found.values() for problem in each.problems]
    passed = [one for each in found.values() for one in each.passed]
    if len(found) == 1 or not found["flair"].sources:
        return [Job({"flair": source}) for source in found["flair"].sources], problems, passed
    for role, each in found.items():
        if len(each.sources) != 1 and not problems:
            name = "FLAIR" if role == "flair" else role
            what = f"{name} is {len(each.sources):,} cases; with --pre or --post it must be one"
            problems.append(Problem(", ".join(roles[role]), what, "name one file, or a folder of one series"))
    return [] if problems else [Job({role: each.sources[0] for role, each in found.items()})], problems, passed


def _list_apart(jobs: list[Job], problems: list[Problem], passed: list[PassedOver]) -> Iterator[dict[str, Any]]:
    """Rows of what is no case: paths that cannot be used, and folders whose DICOM files are no slices."""
    for problem in problems:
        yield case_files.make_failed_row(case_files.to_cell(problem.path), problem.path, [problem])
    root = _common_folder([job.flair.place for job in jobs])
    without: dict[str, list[Problem]] = defaultdict(list)
    for each in passed:
        if each.kind == discover.NO_SLICES:
            without[each.label].append(Problem(each.label, each.why, ""))
    for label, reasons in without.items():
        yield case_files.make_failed_row(case_files.to_cell(_shorten(label, root)), label, reasons)


def _tell_several_series(jobs: list[Job]) -> list[str]:
    """A remark if a folder holds several series: they may be the contrasts of one study."""
    places = Counter(job.flair.place.parent for job in jobs if job.flair.is_one_of_several)
    if not places:
        return []
    what = f"each of {places.total():,} series that share {_count(len(places), 'folder')} is taken as FLAIR"
    return [f"{what}; of one study, put each into a folder of its own, and give FLAIR with --pre and --post"]


def _describe_nothing(paths: list[str], passed: list[PassedOver]) -> DataError:
    """That there is nothing to outline, and what there is instead."""
    names = [f"{each.label.rpartition('/')[2]} ({each.why})" for each in passed]
    there = f" but {errors.show_some(names, NAMED)}" if names else ", nor anything else"
    what = f"there is no image or volume{there}"
    fix = "name TIF, PNG, JPEG, NIfTI, NRRD, MetaImage, MGH or DICOM files, or folders, zips or patterns of them"
    if any(each.kind == "mask" for each in passed):
        fix += "; what is a scan in spite of a mask's name: the file itself"
    return DataError(", ".join(paths), what, fix)


def _process_all(
    jobs: list[Job], folder: ResultFolder, predictor: Outliner, scratch: Path, with_maps: bool
) -> RunResults:
    """Do all jobs, one after another."""
    records: list[Record] = []
    problems: list[Problem] = []
    kept, written = 0, time.monotonic()
    kind: type[BrainsegError] = DataError
    key = _model_key(predictor)
    with tqdm(total=len(jobs), unit="case", desc="predict", disable=None) as bar, _open_reader(jobs) as reader:

        def find_kept(name: str, digest: str) -> Record | None:
            record = folder.kept(name, key, digest)
            return record if record and _is_whole(record, with_maps) else None

        for read in _read_ahead(jobs, folder, find_kept, scratch, reader):
            try:
                record = _answer(read, folder, predictor, bar, with_maps)
            except Exception as error:  # an error in one case must not stop the others
                fault, own = _fail(error, read, folder)
                problems += own
                kind = RunError if isinstance(fault, RunError) else kind
            else:
                records.append(record)
                kept += bool(read.kept)
                _print_line(_describe(record, bool(read.kept)))
            bar.update()
            if time.monotonic() - written > SUMMARY_EVERY:
                folder.write_summary(is_last=False)
                written = time.monotonic()
    return RunResults(records, kept, problems, kind)


def _answer(read: LoadedCase, folder: ResultFolder, predictor: Outliner, bar: tqdm, with_maps: bool) -> Record:
    """The result of a case, kept or new. Raises what reading or outlining it raises."""
    if read.fault:
        raise read.fault
    return _reuse(read.kept, read, folder) if read.kept else _process(read, folder, predictor, bar, with_maps)


def _fail(error: Exception, read: LoadedCase, folder: ResultFolder) -> tuple[BrainsegError, list[Problem]]:
    """Print and note why a case has no result; return that as an error and its problems.

    Raises:
        OSError: ``error`` itself, if no other case could be answered either.
    """
    fault = errors.as_brainseg_error(error)
    if isinstance(fault, MachineError) and isinstance(error, OSError):
        raise error  # the disk is full, or the folder is gone
    own = error.problems if isinstance(error, BrainsegError) else _name_case(fault, read.job)
    folder.drop(_source_key(read.job), read.digest)
    folder.fail(case_files.make_failed_row(read.name, read.job.label, own))
    _print_problems(own, type(fault) if isinstance(fault, RunError | MachineError) else DataError)
    return fault, own


@contextmanager
def _open_reader(jobs: list[Job]) -> Iterator[Reader]:
    """What decodes files: a process of its own, unless there is one case alone, with which no other can be lost.

    A single one that third-party code decodes has it, too: if that crashed, the command would end without a word.
    """
    if len(jobs) < 2 and not any(_needs_codec(source) for job in jobs for source in job.parts.values()):
        yield cases.read
        return
    made: list[Decoders] = []

    def read(path: Path, name: str) -> cases.Case:
        if not made or not made[-1].alive:  # it takes a second to start, for nothing if all results are kept
            made.append(Decoders(1, lambda size: DECODE_SECONDS + size / DECODE_RATE))
        return made[-1].read(path, name)

    try:
        yield read
    finally:
        for decoders in made:
            decoders.close()


def _needs_codec(source: Source) -> bool:
    """Whether SimpleITK, or a codec of compressed DICOM, may be needed. Members of a zip are not looked at."""
    if source.form == "file":
        return itk.is_itk(source.files[0].name)
    return source.form == "series" and any(
        file.member or slice_header.name_compression(file.path) for file in source.files
    )


def _read_ahead(
    jobs: list[Job], folder: ResultFolder, find_kept: FindKept, scratch: Path, reader: Reader
) -> Iterator[LoadedCase]:
    """Read each job; a thread reads the next one while the caller works on this one."""
    root = _common_folder([job.flair.place for job in jobs])
    with ThreadPoolExecutor(1) as thread:
        ready = None
        for job in jobs:
            coming = thread.submit(_load, job, job.flair.place.relative_to(root), folder, find_kept, scratch, reader)
            if ready:
                yield ready.result()
            ready = coming
        if ready:
            yield ready.result()


def _common_folder(places: list[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that holds all places."""
    above = [place.parent.parts for place in places]
    shared = next((n for n, parts in enumerate(zip(*above, strict=False)) if len(set(parts)) > 1), None)
    return PurePosixPath(*above[0][: min(map(len, above)) if shared is None else shared]) if above else PurePosixPath()


def _shorten(label: str, root: PurePosixPath) -> str:
    """A folder as the cases below ``root`` are named; any other as it is."""
    place = PurePosixPath(os.path.abspath(label))
    return str(place.relative_to(root)) if root in place.parents else label


def _load(
    job: Job, wanted: PurePosixPath, folder: ResultFolder, find_kept: FindKept, scratch: Path, reader: Reader
) -> LoadedCase:
    """Read one job. Never raises: an error is part of the result, so that the next job is still read."""
    start, name, digest = time.monotonic(), "", ""
    try:
        parts = {role: source.digest(scratch) for role, source in job.parts.items()}
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        name = folder.name(wanted, _source_key(job), digest)
        if kept := find_kept(name, digest):
            return LoadedCase(job, name, digest, kept=kept)
        read = {role: case_files.read(source, scratch, reader) for role, source in job.parts.items()}
        case = read["flair"] if len(read) == 1 else cases.combine(read, job.flair.label)
        return LoadedCase(job, name, digest, case, seconds=time.monotonic() - start)
    except Exception as error:
        return LoadedCase(job, name or folder.name(wanted, _source_key(job), digest), digest, fault=error)


def _is_whole(record: Record, with_maps: bool) -> bool:
    """Whether it has the maps, if wanted, and lacks no SEG for want of a library that is there now."""
    lacked = seg_writer.NO_LIBRARY in str(record.row.get("warnings")) and seg_writer.is_available()
    return not lacked and bool(record.row.get("probabilities") or not with_maps)


def _reuse(record: Record, read: LoadedCase, folder: ResultFolder) -> Record:
    """Use an earlier result again, also for the same bytes at another place."""
    if record.source != _source_key(read.job):
        record = record._replace(
            source=_source_key(read.job), row=record.row | {"source": case_files.to_cell(read.job.label)}
        )
        folder.add(record)
    return record


def _process(read: LoadedCase, folder: ResultFolder, predictor: Outliner, bar: tqdm, with_maps: bool) -> Record:
    """Outline a case and write all its files."""
    assert read.case is not None
    start = time.monotonic()
    name, source, case = read.name, read.job.flair, read.case

    def progress(done: int, total: int) -> None:
        bar.set_postfix_str(f"{name[-40:]} {done}/{total}", refresh=False)
        bar.update(0)

    result, warnings = case_files.segment(case, source, predictor, progress)
    row = case_files.make_row(name, read.job.label, source, case, result, warnings, predictor.facts)
    numbers = case.slice_numbers
    found, cut = lesions.find_largest(case, result.mask, result.probability, numbers)
    case_files.add_warnings(row, cut)
    row["seconds"] = f"{read.seconds + time.monotonic() - start:.2f}"
    folder.expect_change(name)
    written = case_files.write(folder, name, source, case, result, predictor.facts, row, with_maps)
    key, rows = _model_key(predictor), [lesions.format_row(lesion) for lesion in found]
    record = Record(name, _source_key(read.job), key, read.digest, written, row, lesions=rows)
    folder.add(record)
    return record


def _model_key(predictor: Outliner) -> str:
    """Names the file of the model, its rule and the version of the code: what a result depends on."""
    return json.dumps([predictor.digest, predictor.facts["rule"], __version__])


def _source_key(job: Job) -> str:
    """Names the files of a job. The same for the same files, whatever the current folder is."""
    parts = []
    for role, source in job.parts.items():
        own = source.files[0].name if source.form == "file" else f"{source.place.name}/{source.files[0].ending}"
        parts.append(f"{role}: {source.form} {source.place.parent}/{own}")
    return "; ".join(parts)


def _name_case(fault: BrainsegError, job: Job) -> list[Problem]:
    """The problems of a bug or of missing memory, which name no file, with the name of the case."""
    return [Problem(job.label, problem.what, problem.fix) for problem in fault.problems]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)


def _print_problems(problems: list[Problem], kind: type[BrainsegError] = DataError) -> None:
    for line in kind("", problems=problems).lines() if problems else []:
        tqdm.write(line, file=sys.stderr)


def _print_line(text: str) -> None:
    """Print a line on stdout, with escapes for the characters that its encoding does not have."""
    coding = sys.stdout.encoding or "utf-8"
    tqdm.write(text.encode(coding, "backslashreplace").decode(coding))


def _describe(record: Record, kept: bool) -> str:
    """The line that is printed when a case is done."""
    row = record.row
    several = row["slices"] > 1
    words = [f"no tumour on {row['slices']} slices" if several else "no tumour"]
    if row["slices_with_tumour"]:
        words = [f"tumour on {row['slices_with_tumour']} of {row['slices']} slices" if several else "tumour"]
        words.append(f"{row['volume_ml']} ml" if row["volume_ml"] else f"largest area {row['area_pixels']:,} pixels")
    words.append("kept" if kept else f"{row['seconds']} s")
    return f"{record.name}: {', '.join(words)}" + (f" [{row['warnings']}]" if row["warnings"] else "")
