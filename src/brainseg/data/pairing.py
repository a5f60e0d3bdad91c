"""Images and masks below a folder, paired by what their names share; all that stands in the way, at once.

``download.images`` and ``download.masks`` are patterns relative to ``download.path``: ``*`` any text, ``?`` one
character, ``**/`` any folders; without an ending, any of ENDINGS. What the wildcards match is the pair's
key: with images ``images/*`` and masks ``masks/*``, or images ``**/*`` and masks ``**/*_mask.*``, the image
``a_7.png`` finds its mask by ``a_7``. An image pattern that ends in ``/`` matches folders, each one DICOM series.
Files of other endings, and hidden ones, are no data; nor is what lies beside the folders that the patterns name.
"""

import os
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from brainseg import config
from brainseg.errors import Problem, raise_all
from brainseg.io import nifti, pictures, scans

SINGLE = (".png", ".jpg", ".jpeg")  # never of several pages
ENDINGS = (*pictures.SUFFIXES, *nifti.SUFFIXES)
_WILDCARDS = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)", "?": r"([^/])"}

Key = tuple[str, ...]  # the folders that wildcards match, then what they match in the name


class Found(NamedTuple):
    """A pair, slices or volumes; ``image`` and ``mask`` are relative to the folder."""

    patient: str
    number: int
    image: str
    mask: str
    is_volume: bool


class Scope(NamedTuple):
    """What the command line says beside ``download``.

    ``no_images``: pattern of further files that are no images; ``base``: folder, ending in ``/``, below which the
    regular expression for patients sees the path; ``patients``: the folder of patients.csv, which may name others too.
    """

    no_images: str | None = None
    base: str = ""
    patients: Path | None = None


ALL = Scope()


def find(root: Path, params: config.Download, scope: Scope = ALL) -> list[Found]:
    """The pairs below ``root``, sorted by patient and slice number; all problems at once."""
    patterns = {"download.images": params.images, "download.masks": params.masks}
    outside = {key: each for key, each in patterns.items() if each.startswith("/") or ".." in each.split("/")}
    fix = "write it relative to download.path, without .."
    raise_all([Problem(key, f"{each} leads out of download.path", fix) for key, each in outside.items()])
    names, folders, problems = _images_below(root, set(map(fixed, patterns.values())))
    masks = _by_key(names, params.masks)
    others = _by_key(names, scope.no_images) if scope.no_images else {}
    taken = {name for matched in (masks, others) for found in matched.values() for name in found}
    if params.images.endswith("/"):
        images, faults = _series(root, params.images, folders, taken)
        problems += faults
    else:
        images = _by_key([name for name in names if name not in taken], params.images)
    if not images:
        kinds = "folder" if params.images.endswith("/") else "TIF, PNG, JPEG or NIfTI"
        what = f"no {kinds} fits download.images ({params.images})"
        fix = "set download.images to where they are, below download.path; of DICOM series to folders: 'scans/*/'"
        problems.append(Problem("", what, fix))
    problems += _partner_problems(images, masks)
    found = []
    for key, (image, *_) in images.items():
        is_volume = _is_volume(root, image)
        patient = _patient(key, image.removeprefix(scope.base), params.patient)
        number = 1 if is_volume or params.patient in ("each_image", "each_volume") else _number(image)
        found.append(Found(patient, number, image, masks.get(key, [""])[0], is_volume))
    problems += _identity_problems(found, params.patient)
    raise_all([problem._replace(path=str(root / problem.path)) for problem in problems])
    return sorted(found)


def _is_volume(root: Path, image: str) -> bool:
    path = root / image
    if path.is_dir() or scans.is_volume(path.name):
        return True
    return path.suffix.lower() in (".tif", ".tiff") and pictures.has_pages(path)


def fixed(pattern: str) -> str:
    """The folder, relative, that all lies in what the pattern matches: ``scans`` of ``scans/*/flair.nii``."""
    *folders, _ = PurePosixPath(pattern).parts
    plain = next((i for i, part in enumerate(folders) if "*" in part or "?" in part), len(folders))
    return str(PurePosixPath(*folders[:plain]))


def _images_below(root: Path, starts: set[str]) -> tuple[list[str], list[str], list[Problem]]:
    """Names of the image files in the folders ``starts`` or below, and of the folders there that hold files, sorted.

    Links to folders are refused, links to files if they lead outside.
    """
    names, holders, problems = [], [], []
    unread: list[OSError] = []
    tops = sorted(start for start in starts if not any(_is_below(start, other) for other in starts - {start}))
    for top in tops:
        parts = [part for part in (PurePosixPath(top), *PurePosixPath(top).parents) if part.name]
        faults = ((part.as_posix(), _fault(root / part, root)) for part in parts if (root / part).is_symlink())
        problems += [Problem(name, *fault) for name, fault in faults if fault]
    for folder, folders, entries in (found for top in tops for found in os.walk(root / top, onerror=unread.append)):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        if any(not entry.startswith(".") for entry in entries):
            holders.append(Path(folder).relative_to(root).as_posix())
        for path in (Path(folder, entry) for entry in (*folders, *sorted(entries))):
            name = path.relative_to(root).as_posix()
            if not _may_hold_images(path):
                continue
            if fault := _fault(path, root):
                problems.append(Problem(name, *fault))
            elif path.is_file():
                names.append(name)
    problems += [Problem(os.path.relpath(error.filename or root, root), *unreadable(error)) for error in unread]
    return names, holders, problems


def _is_below(name: str, other: str) -> bool:
    return PurePosixPath(name).is_relative_to(other)


def _series(
    root: Path, pattern: str, holders: list[str], masks: set[str]
) -> tuple[dict[Key, list[str]], list[Problem]]:
    """Key → the folders that ``pattern`` matches, but those that hold masks; faults of the files in them."""
    homes = {str(PurePosixPath(name).parent) for name in masks}
    images = _by_key([name for name in _series_folders(holders, pattern) if name not in homes], pattern)
    inside = (path for image, *_ in images.values() for path in sorted((root / image).rglob("[!.]*")))
    faults = {path: fault for path in inside if (fault := _fault(path, root))}
    return images, [Problem(path.relative_to(root).as_posix(), *fault) for path, fault in faults.items()]


def _may_hold_images(path: Path) -> bool:
    """By its name, or as a folder; a link that leads nowhere may have been one."""
    named = path.name.lower().endswith(ENDINGS)
    return not path.name.startswith(".") and (named or os.path.isdir(path) or not os.path.exists(path))


def _fault(path: Path, root: Path) -> tuple[str, str] | None:
    if not path.name.isprintable():  # so is a name that is not UTF-8: it comes as lone surrogates
        return "has characters in its name that cannot be printed", "rename it"
    if os.path.islink(path) and os.path.isdir(path):
        return "is a link to a folder, which is not followed", "put the folder itself here"
    if os.path.islink(path) and not (os.path.exists(path) and path.resolve().is_relative_to(root.resolve())):
        return "is a link that leads nowhere or outside", "put the file itself here"
    try:
        size = path.stat().st_size
    except OSError as error:
        return unreadable(error)
    if path.is_file() and not os.access(path, os.R_OK):
        return "cannot be read", "check its permissions"
    if path.is_file() and path.suffix.lower() in SINGLE and size > pictures.MAX_BYTES:
        return f"holds {size:,} bytes, at most {pictures.MAX_BYTES:,} are accepted", "crop or resize the image"
    return None


def unreadable(error: OSError) -> tuple[str, str]:
    return f"cannot be read ({error.strerror})", "check that it is there, and its permissions"


def _by_key(names: list[str], pattern: str) -> dict[Key, list[str]]:
    """Key → the names that ``pattern`` matches with it."""
    where = PurePosixPath(re.sub(r"\*\*/?$", "**/*", pattern))
    wanted, ending = (where.name, "") if pattern.endswith("/") else split_name(where.name, ".*")
    folders, stem = _expression("".join(f"{part}/" for part in where.parent.parts)), _expression(wanted)
    found = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        own, suffix = (path.name, "") if pattern.endswith("/") else split_name(path.name)
        in_folder, in_stem = folders.fullmatch(name[: -len(path.name)]), stem.fullmatch(own)
        if in_folder and in_stem and ending in ("", ".*", suffix):
            folder = "/".join(group.strip("/") for group in in_folder.groups() if group)
            found[folder, *in_stem.groups()].append(name)
    return found


def _series_folders(holders: list[str], pattern: str) -> list[str]:
    """Folders that may be a series: those that hold files; without ``**`` also those above them, never the top."""
    if "**" in pattern:
        return [name for name in holders if name != "."]
    above = {str(parent) for name in holders for parent in (PurePosixPath(name), *PurePosixPath(name).parents)}
    return sorted(above - {"."})


def split_name(name: str, *more: str) -> tuple[str, str]:
    """A name and its ending in lower case, which is one of ENDINGS or ``more``, or empty."""
    ending = max((end for end in (*ENDINGS, *more) if name.lower().endswith(end)), key=len, default="")
    return name[: len(name) - len(ending)], ending


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*|\?)", pattern)
    return re.compile("".join(_WILDCARDS.get(part) or re.escape(part) for part in parts), re.DOTALL)


def _patient(key: Key, image: str, rule: str) -> str:
    """The patient's id, empty if ``rule`` finds none."""
    if rule == "folder":
        return PurePosixPath(key[0]).name
    if rule in ("each_image", "each_volume"):
        return "_".join(part for part in key if part).replace("/", "_")
    match = re.search(rule, image)
    return (match[1] or "").replace("/", "_") if match else ""


def _number(image: str) -> int:
    """The last number in the name, -1 if there is none."""
    numbers = re.findall(r"[0-9]{1,18}", PurePosixPath(image).stem)
    return int(numbers[-1]) if numbers else -1


def _partner_problems(images: dict[Key, list[str]], masks: dict[Key, list[str]]) -> list[Problem]:
    problems = []
    for key, (image, *doubles) in images.items():
        partners = masks.get(key, [])
        if not partners:
            problems.append(Problem(image, "has no mask", "add it, or set download.masks to the masks' pattern"))
        if len(partners) > 1:
            problems.append(Problem(image, f"has two masks: {', '.join(partners)}", "keep one"))
        problems += [Problem(double, f"is a second {image}", "keep one or rename it") for double in doubles]
    for key, (mask, *_) in masks.items():
        if key not in images:
            problems.append(Problem(mask, "is a mask without image", "add the image or remove the mask"))
    return problems


def _identity_problems(slices: list[Found], rule: str) -> list[Problem]:
    """Images of no patient or no number, two folders of one name, two slices of one number, more beside a volume."""
    problems = []
    nobody = [found.image for found in slices if not found.patient]
    if nobody:
        what = f"and {len(nobody) - 1:,} more belong to no patient by download.patient: {rule}"
        problems.append(
            Problem(nobody[0], what, "set it to a regular expression on the path, to each_volume or each_image")
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
            problems.append(Problem(image, what, "keep one volume of each patient, or correct download.patient"))
        elif patient and first.setdefault((patient, number), image) != image:
            what = f"and {first[patient, number]} are both slice {number} of patient {patient}"
            problems.append(Problem(image, what, "end their names with different numbers"))
        home = str(PurePosixPath(image).parent)
        if rule == "folder" and patient and homes.setdefault(patient, home) != home:
            problems.append(Problem(image, f"and {homes[patient]} would be one patient, {patient}", "rename a folder"))
    return problems
