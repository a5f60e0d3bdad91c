"""Images and masks below a folder, paired by what their names share; all faults are reported at once.

``download.images`` and ``download.masks`` are patterns relative to ``download.path``: ``*`` matches any text, ``?`` one
character, ``**/`` any folders; a pattern without an ending matches any of ENDINGS, and of masks DICOM where nothing
else matches. What the wildcards match is the pair's key: with images ``images/*`` and masks ``masks/*``, or images
``**/*`` and masks ``**/*_mask.*``, the image ``a_7.png`` finds its mask by ``a_7``. An image
pattern that ends in ``/`` matches folders, each one DICOM series.
Ignored are hidden files, files with other endings, and all outside the folders that the patterns name.
"""

import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from brainseg import config
from brainseg.data.layouts import patient_rules
from brainseg.data.layouts.patient_rules import Key
from brainseg.errors import Problem, printable, raise_all
from brainseg.io import nifti, pictures, scans
from brainseg.io.folders import Walk

SINGLE_PAGE = (".png", ".jpg", ".jpeg")  # formats that hold one page
ENDINGS = (*pictures.SUFFIXES, *scans.SUFFIXES)
SEG_ENDING = ".dcm"  # of masks alone: DICOM images are folders
_MANY = 4  # files without a partner that are told in one line if none has one
_WILDCARDS = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)", "?": r"([^/])"}

K = TypeVar("K")


class PairedFiles(NamedTuple):
    """A pair, slices or volumes; all files are relative to the folder.

    ``pre`` and ``post`` are volumes beside the FLAIR ``image``, or empty; ``volumes``: which of a file's ``sequences``
    volumes are its channels, empty for a file of one; ``any_label``: each label of the mask above 0 is tumour;
    ``mixed``: some of them are known not to be.
    """

    patient: str
    number: int
    image: str
    mask: str
    is_volume: bool
    pre: str = ""
    post: str = ""
    volumes: tuple[int, ...] = ()
    sequences: int = 0
    institution: str = ""
    any_label: bool = False
    mixed: bool = False


class Scope(NamedTuple):
    """What ``brainseg evaluate`` sets in addition to ``download``.

    ``no_images``: pattern of other files that are not images; ``base``: folder, ending in ``/``, from which on the
    regular expression for patients sees the path; ``patients``: the folder of patients.csv, which may then name
    patients without images too; ``are_answers``: the masks may be those of ``brainseg predict``, see _assign_answers.
    """

    no_images: str | None = None
    base: str = ""
    patients: Path | None = None
    are_answers: bool = False


ALL = Scope()


def find(root: Path, params: config.Download, scope: Scope = ALL) -> list[PairedFiles]:
    """The pairs below ``root``, sorted by patient and slice number.

    With ``download.patients`` identities are not checked: the patients are placeholders until the table is applied.

    Raises:
        DataError: all faults at once.
    """
    patterns = {"download.images": params.images, "download.masks": params.masks}
    outside = {key: each for key, each in patterns.items() if each.startswith("/") or ".." in each.split("/")}
    fix = "write it relative to download.path, without .."
    raise_all([Problem(key, f"{each} leads out of download.path", fix) for key, each in outside.items()])
    names, folders, problems = _list_images(root, set(map(find_fixed_folder, patterns.values())))
    masks = _match_masks(names, params.masks)
    others = _match_masks(names, scope.no_images) if scope.no_images else {}
    taken = {name for matched in (masks, others) for found in matched.values() for name in found}
    if params.images.endswith("/"):
        images, faults = _find_series(root, params.images, folders, taken)
        problems += faults
    else:
        images = _match_names([name for name in _drop_segs(names) if name not in taken], params.images)
    if not images:
        kinds = "folder" if params.images.endswith("/") else "picture or volume"
        what = f"no {kinds} fits download.images ({params.images})"
        fix = "set download.images to where they are, below download.path; of DICOM series to folders: 'scans/*/'"
        problems.append(Problem("", what, fix))
    if scope.are_answers:
        masks, faults = _assign_answers(root, masks, images, find_fixed_folder(params.masks) + "/")
        problems += faults
    problems += _check_partners(images, masks, params)
    firsts = {key: image for key, (image, *_) in images.items()}
    patients = patient_rules.find_patients(firsts, params.patient, scope.base)
    found = []
    for key, image in firsts.items():
        whole = is_volume(root, image)
        number = 1 if whole or params.patient in ("each_image", "each_volume") else find_number(image)
        found.append(PairedFiles(patients[key], number, image, masks.get(key, [""])[0], whole))
    problems += [] if params.patients else check_identities(found, params.patient)
    raise_all([problem._replace(path=str(root / problem.path)) for problem in dict.fromkeys(problems)])
    return sorted(found)


def is_volume(root: Path, image: str) -> bool:
    path = root / image
    if path.is_dir() or scans.kind_of(path.name):
        return True
    return path.suffix.lower() in (".tif", ".tiff") and pictures.has_pages(path)


def find_fixed_folder(pattern: str) -> str:
    """The folder, relative, that holds everything the pattern can match: ``scans`` of ``scans/*/flair.nii``."""
    *folders, _ = PurePosixPath(pattern).parts
    return str(PurePosixPath(*folders[: count_plain(folders)]))


def count_plain(parts: Sequence[str]) -> int:
    """How many parts of a pattern come before the first wildcard."""
    return next((i for i, part in enumerate(parts) if "*" in part or "?" in part), len(parts))


def _list_images(root: Path, starts: set[str]) -> tuple[list[str], list[str], list[Problem]]:
    """Names of the image files at or below the folders ``starts``, names of the folders that hold files, and faults.

    Links are followed; a folder that is reached twice is read once, and named on stderr.
    """
    names, holders, problems = [], [], []
    tops = sorted(start for start in starts if not any(_is_below(start, other) for other in starts - {start}))
    for top in tops:
        parts = [part for part in (PurePosixPath(top), *PurePosixPath(top).parents) if part.name]
        faults = ((part.as_posix(), check_path(root / part)) for part in parts if (root / part).is_symlink())
        problems += [Problem(name, *fault) for name, fault in faults if fault]
    walks = [(Walk(), top) for top in tops]  # one each: images and masks may be two links to one folder
    for folder, folders, entries in (found for walk, top in walks for found in walk.folders([root / top])):
        if entries:
            holders.append(folder.relative_to(root).as_posix())
        for path in (folder / entry for entry in (*folders, *entries)):
            name = path.relative_to(root).as_posix()
            if not _may_hold_images(path):
                continue
            if fault := check_path(path):
                problems.append(Problem(name, *fault))
            elif path.is_file():
                names.append(name)
    for each in (each for walk, _ in walks for each in walk.passed if each.kind == "link"):
        print(f"WARNING {printable(each.label)}: {printable(each.why)}", file=sys.stderr)
    problems += [
        Problem(os.path.relpath(error.filename or root, root), *describe_read_error(error))
        for walk, _ in walks
        for error in walk.unread
    ]
    return names, holders, problems


def _is_below(name: str, other: str) -> bool:
    return PurePosixPath(name).is_relative_to(other)


def _find_series(
    root: Path, pattern: str, holders: list[str], masks: set[str]
) -> tuple[dict[Key, list[str]], list[Problem]]:
    """Key → the folders that ``pattern`` matches, except those that hold masks; faults of the files in them."""
    homes = {str(PurePosixPath(name).parent) for name in masks}
    images = _match_names([name for name in _list_series_folders(holders, pattern) if name not in homes], pattern)
    inside = (path for image, *_ in images.values() for path in sorted((root / image).rglob("[!.]*")))
    faults = {path: fault for path in inside if (fault := check_path(path))}
    return images, [Problem(path.relative_to(root).as_posix(), *fault) for path, fault in faults.items()]


def _may_hold_images(path: Path) -> bool:
    """Whether it has an image's ending or is a folder; a broken link counts, since its target may have been one."""
    named = path.name.lower().endswith((*ENDINGS, SEG_ENDING))
    return not path.name.startswith(".") and (named or os.path.isdir(path) or not os.path.exists(path))


def check_path(path: Path) -> tuple[str, str] | None:
    if not path.name.isprintable():  # also a name that is not UTF-8, which Python gives as lone surrogates
        return "has characters in its name that cannot be printed", "rename it"
    if os.path.islink(path) and not os.path.exists(path):
        return "is a link that leads nowhere", "fetch what it leads to, or remove the link"
    try:
        size = path.stat().st_size
    except OSError as error:
        return describe_read_error(error)
    if path.is_file() and not os.access(path, os.R_OK):
        return "cannot be read", "check its permissions"
    if path.is_file() and path.suffix.lower() in SINGLE_PAGE and size > pictures.MAX_BYTES:
        return f"holds {size:,} bytes, at most {pictures.MAX_BYTES:,} are accepted", "crop or resize the image"
    return None


def describe_read_error(error: OSError) -> tuple[str, str]:
    return f"cannot be read ({error.strerror})", "check that it is there, and its permissions"


def _match_names(names: list[str], pattern: str) -> dict[Key, list[str]]:
    """Key → the names that ``pattern`` matches with it."""
    where = PurePosixPath(re.sub(r"\*\*/?$", "**/*", pattern))
    wanted, ending = (where.name, "") if pattern.endswith("/") else split_name(where.name, ".*")
    folders, stem = _compile_pattern("".join(f"{part}/" for part in where.parent.parts)), _compile_pattern(wanted)
    found = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        own, suffix = (path.name, "") if pattern.endswith("/") else split_name(path.name)
        in_folder, in_stem = folders.fullmatch(name[: -len(path.name)]), stem.fullmatch(own)
        if in_folder and in_stem and ending in ("", ".*", suffix):
            folder = "/".join(group.strip("/") for group in in_folder.groups() if group)
            found[folder, *in_stem.groups()].append(name)
    return {key: drop_voxels(names) for key, names in found.items()}


def drop_voxels(names: list[str]) -> list[str]:
    """``names`` without the .img whose .hdr is there."""
    there = set(names)
    return [
        name for name in names
        if not (split_name(name)[1].startswith(".img") and there.intersection(nifti.other_names(name)))
    ]  # fmt: skip


def _match_masks(names: list[str], pattern: str) -> dict[Key, list[str]]:
    """As ``_match_names``; of DICOM only if nothing else matches: `brainseg predict` writes a SEG beside NIfTI."""
    return _match_names(_drop_segs(names), pattern) or _match_names(names, pattern)


def _drop_segs(names: list[str]) -> list[str]:
    return [name for name in names if not name.lower().endswith(SEG_ENDING)]


def _list_series_folders(holders: list[str], pattern: str) -> list[str]:
    """Folders that may be a series: those that hold files; without ``**`` also their parents, but never the top."""
    if "**" in pattern:
        return [name for name in holders if name != "."]
    above = {str(parent) for name in holders for parent in (PurePosixPath(name), *PurePosixPath(name).parents)}
    return sorted(above - {"."})


def split_name(name: str, *more: str) -> tuple[str, str]:
    """A name without its ending, and the ending in lower case: the longest of those read and ``more``, or empty."""
    ending = max((end for end in (*ENDINGS, SEG_ENDING, *more) if name.lower().endswith(end)), key=len, default="")
    return name[: len(name) - len(ending)], ending


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*|\?)", pattern)
    return re.compile("".join(_WILDCARDS.get(part) or re.escape(part) for part in parts), re.DOTALL)


def find_number(image: str) -> int:
    """The last number in the name, -1 if there is none."""
    numbers = re.findall(r"[0-9]{1,18}", PurePosixPath(image).stem)
    return int(numbers[-1]) if numbers else -1


def _assign_answers(
    root: Path, answers: dict[Key, list[str]], images: dict[Key, list[str]], base: str
) -> tuple[dict[Key, list[str]], list[Problem]]:
    """Answers of ``brainseg predict`` under the keys of their images, and those that may be of several images.

    It leaves out the folders that all its inputs share, and gives numbered slices a folder of their own. So an answer
    without an image of its key belongs to the only image of its file name that lies in folders named as its own.

    Args:
        base: the folder, relative and ending in ``/``, that holds the answers.
    """
    keys = {image: key for key, (image, *_) in images.items()}
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image in keys:
        by_stem[find_stem(image)].append(image)
    assigned: dict[Key, list[str]] = defaultdict(list)
    problems = []
    for key, names in answers.items():
        above = (key[0].rpartition("/")[0], *key[1:])
        known = next((each for each in (key, above) if each in images), None)
        for name in names:
            own = name.removeprefix(base)
            likely = [] if known else [each for each in by_stem[find_stem(name)] if _fits(own, root / each)]
            if len(likely) > 1:
                what = f"may be the mask of {likely[0]} and of {likely[1]}: brainseg predict leaves out shared folders"
                fix = "outline all of them in one call, or name the folder of its own images alone"
                problems.append(Problem(name, what, fix))
            else:
                assigned[keys[likely[0]] if likely else known or key].append(name)
    return assigned, problems


def find_stem(name: str) -> str:
    """A file's name without folders and ending."""
    return split_name(PurePosixPath(name).name)[0]


def _fits(answer: str, image: Path) -> bool:
    """Whether the image's folders end with those of an answer, or with those above a folder of numbered slices."""
    folders, whole = PurePosixPath(answer).parent.parts, image.parent.parts
    of_slices = bool(folders) and find_stem(answer).startswith(folders[-1])
    return any(whole[len(whole) - len(own) :] == own for own in (folders, *([folders[:-1]] if of_slices else [])))


def _check_partners(
    images: dict[Key, list[str]], masks: dict[Key, list[str]], params: config.Download
) -> list[Problem]:
    if len(images) + len(masks) >= _MANY and not set(images) & set(masks):
        return [_describe_strangers(images, masks, params)] if images else []
    problems = []
    for key, (image, *doubles) in images.items():
        partners = masks.get(key, [])
        if not partners:
            problems.append(
                Problem(
                    image,
                    "has no mask",
                    "add it, or set download.masks to the masks' pattern, whose * must match the same as the image's",
                )
            )
        if len(partners) > 1:
            problems.append(Problem(image, f"has two masks: {', '.join(partners)}", "keep one"))
        what = f"and {image} match the pattern with the same text, so a mask cannot be assigned"
        problems += [Problem(double, what, "keep one, or rename it") for double in doubles]
    return problems + find_lonely({key: mask for key, (mask, *_) in masks.items()}, images)


def find_lonely(masks: Mapping[K, str], cases: Iterable[K]) -> list[Problem]:
    """The masks, key → file, whose key is none of ``cases``."""
    known, fix = set(cases), "add the image, or remove the mask"
    return [Problem(name, "is a mask without image", fix) for key, name in masks.items() if key not in known]


def _describe_strangers(images: dict[Key, list[str]], masks: dict[Key, list[str]], params: config.Download) -> Problem:
    """One problem for patterns by which no image has a mask."""
    sides = []
    for key, pattern, found in (("images", params.images, images), ("masks", params.masks, masks)):
        places = Counter(name.rpartition("/")[0].split("/")[0] for names in found.values() for name in names)
        shown = [f"{count:,} in {place or '.'}/" for place, count in places.most_common(3)]
        shown += [f"{sum(places.values()):,} in all"] if len(places) > 3 else []
        sides.append(f"download.{key} ({pattern}) fits {' and '.join(shown) or 'none'}")
    examples = [
        f"in {names[0]} the wildcards match {' and '.join(repr(part) for part in key)}"
        for key, names in (*list(images.items())[:1], *list(masks.items())[:1])
    ]
    what = f"no image has a mask: {', '.join([*sides, *examples])}"
    own = [_spell_out(params.images, images), _spell_out(params.masks, masks)]
    alike = " and ".join(own if all(own) else ("images/*", "masks/*"))
    fix = f"set download.images and download.masks so that each * matches the same text in both, as {alike}"
    return Problem("", what, fix)


def _spell_out(pattern: str, found: dict[Key, list[str]]) -> str:
    """The pattern with the file's name instead of wildcards in it; empty if files have several names, or one folder."""
    names = {PurePosixPath(name).name for each in found.values() for name in each}
    home = PurePosixPath(pattern).parent
    return str(home / names.pop()) if len(names) == 1 and len(found) > 1 and "*" in str(home) else ""


def check_identities(
    slices: list[PairedFiles], rule: str, by_folder: bool = True, names: str = "download.patient"
) -> list[Problem]:
    """Images without patient or number, and different images of one patient that contradict each other.

    Those are slices of the same number, anything beside a volume and, with ``by_folder``, folders of the same name.

    Args:
        names: where patients are named, and corrected.
    """
    problems = []
    unassigned = [found.image for found in slices if not found.patient]
    if unassigned:
        what = f"and {len(unassigned) - 1:,} more belong to no patient by download.patient: {rule}"
        problems.append(
            Problem(unassigned[0], what, "set it to a regular expression on the path, to each_volume or each_image")
        )
    whole = {found.patient: found.image for found in slices if found.is_volume}
    first: dict[tuple[str, int], str] = {}
    homes: dict[str, str] = {}
    for patient, number, image, *_ in slices:
        if number < 0:
            what = "has no number in its name, so slices have no order"
            problems.append(Problem(image, what, "number the slices, or set download.patient: each_image"))
        elif patient and whole.get(patient, image) != image:
            what = f"and {whole[patient]}, a volume, are both of patient {patient}"
            problems.append(Problem(image, what, f"keep one volume of each patient, or correct {names}"))
        elif patient and first.setdefault((patient, number), image) != image:
            what = f"and {first[patient, number]} are both slice {number} of patient {patient}"
            problems.append(Problem(image, what, "end their names with different numbers"))
        home = str(PurePosixPath(image).parent)
        if by_folder and rule == "folder" and patient and homes.setdefault(patient, home) != home:
            problems.append(Problem(image, f"and {homes[patient]} have the same patient, {patient}", "rename a folder"))
    return problems
