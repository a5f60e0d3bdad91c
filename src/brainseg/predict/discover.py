"""Find the cases in files, folders, zips, and patterns of them.

- A volume (NIfTI, NRRD, MetaImage, MGH), in one file or in two, and a TIF of several pages, is a case.
- The DICOM files of a folder are one case for each series among them. A DICOMDIR is its folder.
- Pictures of one folder whose names differ only in the number at their end, such as ``NAME_1.tif`` to ``NAME_24.tif``,
  are the slices of one volume, in the order of their numbers. Any other picture is a case of its own.
- ``*_mask.*`` and ``*_seg.*`` are masks and no inputs.

Links are followed, and a folder is read once. Hidden files and other files in a folder are passed over, and listed.
Nothing is decoded here.
"""

import glob
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from brainseg import files
from brainseg.errors import BrainsegError, Problem, guard
from brainseg.inference import numbered
from brainseg.io import itk, nifti, pictures, scans, zips
from brainseg.io.dicom import dicomdir, multiframe, series_reader, slice_header, transfer_syntax
from brainseg.io.folders import PassedOver, Walk

ENDINGS = (*scans.SUFFIXES, *pictures.SUFFIXES)
NO_SLICES, MISSING = "DICOM without slices", "missing file"  # kinds of what is passed over
_WHOLE = tuple(end for end in scans.SUFFIXES if end not in nifti.PAIR_SUFFIXES)  # a pair's endings mean much else, too
_NOT_DICOM = (*series_reader.OTHER_SUFFIXES, *_WHOLE, ".zip")


class File(NamedTuple):
    """A file on the disk, or a member of a zip file."""

    path: Path
    member: str = ""

    @property
    def label(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        return self.member.rsplit("/", 1)[-1] if self.member else self.path.name

    @property
    def folder(self) -> PurePosixPath:
        """Absolute path of the folder; a zip counts as a folder with its name."""
        own = os.path.abspath(self.path)
        return PurePosixPath(own, self.member).parent if self.member else PurePosixPath(own).parent

    @contextmanager
    def on_disk(self, scratch: Path, name: str = "") -> Iterator[Path]:
        """A path to read it from, under ``guard``. A member of a zip is unpacked, and removed after the block.

        ``name``: that the unpacked file must have, since another file names it.
        """
        with guard(self.label):
            if not self.member:
                yield self.path
                return
            target = scratch / (name or f"member{self.ending}")  # not the name in the zip, which may be unsafe
            try:
                zips.unpack(self.path, self.member, target)
                yield target
            finally:
                target.unlink(missing_ok=True)

    @property
    def ending(self) -> str:
        """One of ENDINGS, or empty."""
        return max((end for end in ENDINGS if self.name.lower().endswith(end)), key=len, default="")

    @property
    def stem(self) -> str:
        """The name without its ending, if that is one of ENDINGS."""
        return self.name[: len(self.name) - len(self.ending)]


class Source(NamedTuple):
    """A case that is not read yet."""

    place: PurePosixPath  # folder and name, absolute, without an ending; zips count as folders
    label: str  # its name in errors and in the table
    form: str  # "file", "slices" (pictures of one volume) or "series" (DICOM)
    files: tuple[File, ...]  # slices in order; a header and its voxels
    numbers: tuple[int, ...] = ()  # for slices: the numbers in their names
    remarks: tuple[str, ...] = ()  # for the reader of the answer
    is_one_of_several: bool = False  # series of a folder

    def digest(self, scratch: Path) -> str:
        """SHA-256 over the bytes of all files, in order, and the numbers of slices, which decide their neighbours."""
        whole = hashlib.sha256(" ".join([self.form, *map(str, self.numbers)]).encode())
        for file in self.files:
            with file.on_disk(scratch) as path:
                whole.update(bytes.fromhex(files.sha256(path)))
        return whole.hexdigest()


class FoundCases(NamedTuple):
    """Cases, problems, and what belongs to neither: masks, what is hidden, other files, links to what is read."""

    sources: list[Source]
    problems: list[Problem]
    passed: list[PassedOver]


def find(paths: Sequence[str], scratch: Path, *, skip: Path | None = None, each_picture: bool = False) -> FoundCases:
    """Find the cases, sorted by place. A problem with one path or zip does not hide the others.

    Args:
        paths: files, folders, zips, or patterns (``*``, ``?``, ``**``).
        scratch: an empty folder, where members of zips are unpacked to look at them.
        skip: a folder to leave out if it lies in another one: the folder of results.
        each_picture: numbered pictures are separate cases too.
    """
    problems: list[Problem] = []
    walk = Walk(skip)
    expanded = [(_to_folder(path), is_named) for path, is_named in _expand(paths, problems)]
    alone = {path for path, is_named in expanded if is_named}
    folders = _gather_folders([path for path, _ in expanded], walk, problems)
    named = {file for inside in folders.values() for file in inside.values() if not file.member and file.path in alone}
    sources: list[Source] = []
    missing = _find_missing(folders)
    for place, inside in sorted(folders.items()):
        ordered = [file for _, file in sorted(inside.items())]
        found, here = _divide_folder(ordered, named, scratch, each_picture, problems)
        walk.passed += here
        if any(source.form == "series" for source in found):
            found = [_remark(source, missing.get(place, "")) for source in found]
            missing.pop(place, None)
        sources += found
    walk.passed += [PassedOver(str(place), MISSING, why) for place, why in missing.items()]
    passed = list(dict.fromkeys(walk.passed))  # a folder that was named twice is listed twice
    return FoundCases(sorted(sources, key=lambda source: (source.place, source.label)), problems, passed)


def _gather_folders(paths: Iterable[Path], walk: Walk, problems: list[Problem]) -> dict[PurePosixPath, dict[str, File]]:
    """By folder and name, the files at or below the paths; each only where it was found first."""
    folders: dict[PurePosixPath, dict[str, File]] = defaultdict(dict)
    first: dict[tuple[str, str], File] = {}  # by real folder and name
    for file in _list_files(paths, walk, problems):
        own = first.setdefault((os.path.realpath(file.path.parent), f"{file.path.name}:{file.member}"), file)
        if own.folder == file.folder:
            folders[file.folder].setdefault(file.name, file)
        else:
            walk.passed.append(PassedOver(file.label, "link", f"is the same file as {own.label}, which is read"))
    return folders


def _divide_folder(
    inside: list[File], named: set[File], scratch: Path, each_picture: bool, problems: list[Problem]
) -> tuple[list[Source], list[PassedOver]]:
    """The cases among the files of one folder, which are sorted, and what is passed over."""
    stems = {file.stem for file in inside}
    answers = {file for file in inside if _is_mask(file, file in named, stems)}
    rest = [file for file in inside if file not in answers]
    told: dict[File, PassedOver] = {}
    found = list(_group_cases(rest, named, scratch, each_picture, problems, told))
    used = {file for source in found for file in source.files}
    passed = [PassedOver(file.label, "mask", "is a mask, by its name") for file in sorted(answers)]
    others = (told.get(file) or PassedOver(file.label, "other file", "is no image") for file in rest)
    return found, passed + [each for file, each in zip(rest, others, strict=True) if file not in used]


def _to_folder(path: Path) -> Path:
    """The folder of a DICOMDIR, any other path itself."""
    return path.parent if dicomdir.is_one(path) and os.path.isfile(path) else path


def _find_missing(folders: dict[PurePosixPath, dict[str, File]]) -> dict[PurePosixPath, str]:
    """By folder, what a DICOMDIR in it or above it names and that is not there."""
    lists = [file for inside in folders.values() for file in inside.values() if dicomdir.is_one(file.path)]
    found: dict[PurePosixPath, list[str]] = defaultdict(list)
    for file in lists:
        for path in dicomdir.find_missing(file.path):
            found[File(path).folder].append(path.name)
    return {place: f"lacks {series_reader.count_files(names, 'named in DICOMDIR')}" for place, names in found.items()}


def _remark(source: Source, remark: str) -> Source:
    return source._replace(remarks=(remark,)) if remark and source.form == "series" else source


def _expand(paths: Sequence[str], problems: list[Problem]) -> Iterator[tuple[Path, bool]]:
    """Existing paths, and whether each was named itself and not matched by a pattern."""
    for text in paths:
        path = Path(os.path.expanduser(text))
        if os.path.lexists(path):
            yield path, True
            continue
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(text) else []
        if not matches:
            what = "matches no file or folder" if glob.has_magic(text) else "is not there"
            problems.append(Problem(text, what, "correct the path; put a pattern in quotes"))
        yield from ((Path(match), False) for match in matches)


def _list_files(paths: Iterable[Path], walk: Walk, problems: list[Problem]) -> Iterator[File]:
    """Files at or below the paths and in their zips, first what was named itself."""
    tops = [path for path in paths if os.path.isdir(path)]  # unlike Path.is_dir it raises nothing
    for path in (path for path in paths if not os.path.isdir(path)):
        if os.path.isfile(path):
            yield from _list_file(path, walk, problems)
        else:
            problems.append(Problem(str(path), "is no file and no folder", "name a file or a folder"))
    for folder in walk.folders(tops):
        for path in (folder.path / name for name in folder.names):
            if os.path.isfile(path):
                yield from _list_file(path, walk, problems)
            elif os.path.islink(path) and (File(path).ending or not path.name.lower().endswith(_NOT_DICOM)):
                what = "is a link that leads nowhere"
                problems.append(Problem(str(path), what, "fetch what it leads to, or remove the link"))
            elif not os.path.lexists(path):  # it was listed: its folder may be read and not entered
                problems.append(Problem(str(path), "cannot be read", "check the permissions of its folder"))
            else:
                walk.passed.append(PassedOver(str(path), "other file", "is no file of data"))
    fix = "check its permissions"
    problems += [Problem(str(error.filename), f"cannot be read ({error.strerror})", fix) for error in walk.unread]


def _list_file(path: Path, walk: Walk, problems: list[Problem]) -> list[File]:
    return _list_members(path, walk, problems) if path.name.lower().endswith(".zip") else [File(path)]


def _list_members(path: Path, walk: Walk, problems: list[Problem]) -> list[File]:
    try:
        with guard(path):
            inside = [File(path, name) for name in zips.list_names(path)]
    except BrainsegError as error:
        problems += error.problems
        return []
    hidden = {file for file in inside if zips.is_hidden(file.member)}
    walk.passed += [PassedOver(file.label, "hidden", "is hidden") for file in sorted(hidden)]
    return [file for file in inside if file not in hidden]


def _is_mask(file: File, is_named: bool, stems: set[str]) -> bool:
    """Whether it is a mask, ``X_mask.tif``. If it was named itself, then only beside X (a shell expands ``*.tif``)."""
    image = numbered.find_image_stem(file.stem) if file.ending else None
    return image is not None and (not is_named or image in stems)


def _group_cases(
    inside: list[File],
    named: set[File],
    scratch: Path,
    each_picture: bool,
    problems: list[Problem],
    told: dict[File, PassedOver],
) -> Iterator[Source]:
    """Group the files of one folder into cases. ``told`` receives the DICOM files that are none, and why."""
    halves = {file: _find_other_half(file, inside, scratch) for file in inside if file.ending in scans.IN_TWO_SUFFIXES}
    voxels = {other for file, other in halves.items() if other and file.ending in itk.DETACHED_SUFFIXES}
    paired = {file for file, other in halves.items() if other} | voxels
    others = [file for file in inside if not file.name.lower().endswith(_NOT_DICOM) and file not in paired]
    series = [file for file in others if not dicomdir.is_one(Path(file.name))]
    marked = {file for file in series if _is_dicom(file, scratch, problems)}
    if marked:
        yield from _group_series(series, named, scratch, told)
    images = [file for file in inside if file.ending in pictures.SUFFIXES]
    stacks = [] if each_picture else list(_group_slices(images, scratch))
    yield from stacks
    used = {file for stack in stacks for file in stack.files} | set(series if marked else [])
    for file in inside:
        other = halves.get(file)
        if file.ending in nifti.PAIR_SUFFIXES and file not in named and not other:  # they have many other meanings
            continue
        if file in voxels or (file.ending.startswith(".img") and other in halves):  # the header makes the case
            continue
        if file not in used and (file.ending or file in named):
            yield Source(file.folder / file.stem, file.label, "file", (file, other) if other else (file,))


def _find_other_half(file: File, inside: list[File], scratch: Path) -> File | None:
    """The other file of a volume that lies in two, in the same folder or zip; None as well if the header is damaged."""
    try:
        if not file.member:
            other = scans.find_other_half(file.path, file.label)
            return File(other) if other else None
        if file.ending not in itk.DETACHED_SUFFIXES:
            names = nifti.other_names(file.name)
        else:
            with file.on_disk(scratch) as path, path.open("rb") as header:
                names = [itk.find_voxels(header.read(itk.MAX_HEADER), file.label)]
    except BrainsegError:
        return None  # the reader reports the reason
    return next((each for each in inside if each.path == file.path and each.name in names), None)


def _is_dicom(file: File, scratch: Path, problems: list[Problem]) -> bool:
    """By how the file begins, or by its name, so that a damaged file is reported."""
    if file.name.lower().endswith(slice_header.ENDINGS):
        return True
    try:
        with file.on_disk(scratch) as path, path.open("rb") as handle:
            return transfer_syntax.is_dicom(handle.read(transfer_syntax.HEAD))
    except BrainsegError as error:
        problems += error.problems
    return False


def _group_series(
    inside: list[File], named: set[File], scratch: Path, told: dict[File, PassedOver]
) -> Iterator[Source]:
    """One case for each series among the files of a folder, in the order of their first files.

    Slices that each name a series of their own, but are numbered as one and lie in one stack, are one series. Files
    that name no series belong to the only series, or make a case of their own if there are several. The reader
    refuses both. Files that are no slices go with the first series; the reader passes them over and says so. Where
    there is no series, they are told here.
    """
    found: dict[str, list[File]] = defaultdict(list)
    strangers: dict[File, slice_header.StrangerError] = {}
    for file in inside:
        uid = _read_series_uid(file, scratch)
        if isinstance(uid, str):
            found[uid].append(file)
        else:
            strangers[file] = uid
    if not found and named.isdisjoint(strangers):
        told |= _tell_strangers(strangers)
        return
    unnamed = found.pop("", [])
    first = [own[0] for own in found.values()]
    if all(len(own) == 1 for own in found.values()) and _is_one_stack(first, scratch):
        found = {"": first}
    if strangers:
        next(iter(found.values()), unnamed).extend(strangers)
    if len(found) < 2:
        found = {"": sorted([*unnamed, *(file for own in found.values() for file in own)], key=lambda f: f.name)}
    elif unnamed:
        found[""] = unnamed
    folder = inside[0].folder
    label = inside[0].label[: -len(inside[0].name)].rstrip("/:") or "."
    if len(found) == 1:
        yield Source(folder, label, "series", tuple(found[""]))
        return
    for number, own in enumerate(found.values(), 1):  # no names from UIDs, which may hold a date
        name = f"series-{number}"
        series_label = f"{label} ({name}: {own[0].name}, ...)"
        yield Source(folder / name, series_label, "series", tuple(own), is_one_of_several=True)


def _tell_strangers(strangers: dict[File, slice_header.StrangerError]) -> dict[File, PassedOver]:
    """One entry for all files of a folder that are of one kind."""
    kinds: dict[str, list[File]] = defaultdict(list)
    for file, stranger in strangers.items():
        if isinstance(stranger, slice_header.NoSliceError):
            kinds[stranger.kind].append(file)
    told: dict[File, PassedOver] = {}
    for kind, files_of_kind in kinds.items():
        names = [file.name for file in files_of_kind]
        label = files_of_kind[0].label[: -len(names[0])].rstrip("/:") or "."
        entry = PassedOver(label, NO_SLICES, f"holds {series_reader.count_files(names, kind)}")
        told |= dict.fromkeys(files_of_kind, entry)
    return told


def _read_series_uid(file: File, scratch: Path) -> str | slice_header.StrangerError:
    """The UID of the series, empty if it cannot be read; or why the file is no slice of any."""
    try:
        with file.on_disk(scratch) as path:
            return slice_header.read_series_uid(path, file.label)
    except slice_header.StrangerError as stranger:
        damaged = type(stranger) is slice_header.StrangerError and file.name.lower().endswith(slice_header.ENDINGS)
        return "" if damaged else stranger
    except BrainsegError:
        return ""  # the reader reports the reason


def _is_one_stack(inside: list[File], scratch: Path) -> bool:
    """Whether slices that each name a series of their own are one volume."""
    headers = []
    try:
        for file in inside:
            with file.on_disk(scratch) as path:
                headers += multiframe.read_headers(path, file.label)[0]
    except BrainsegError:
        return False
    return series_reader.is_one_stack(headers)


def _group_slices(images: list[File], scratch: Path) -> Iterator[Source]:
    """Group two or more pictures of one page whose names differ only in the number at their end."""
    groups: dict[tuple[str, str], list[tuple[int, File]]] = defaultdict(list)
    for file in images:
        if found := numbered.split_number(file.stem):
            groups[found[0], file.ending].append((found[1], file))
    for (prefix, ending), slices in groups.items():
        numbers, inside = zip(*sorted(slices), strict=True)
        if len(slices) < 2 or any(_has_pages(file, scratch) for file in inside):
            continue
        folder, name = inside[0].folder, prefix.rstrip("_-. ")
        whole = name in ("", folder.name, folder.stem)  # the folder of a zip is named X.zip
        label = inside[0].label[: -len(inside[0].name)] + f"{prefix}*{ending}"
        yield Source(folder if whole else folder / name, label, "slices", inside, numbers)


def _has_pages(file: File, scratch: Path) -> bool:
    if not file.ending.startswith(".tif"):
        return False
    try:
        with file.on_disk(scratch) as path:
            return pictures.has_pages(path)
    except BrainsegError:
        return False  # the reader reports the reason
