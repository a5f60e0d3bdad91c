"""One's own images and masks, slices or volumes, in patient folders or flat, paired by what their names share.

``download.images`` and ``download.masks`` are patterns relative to ``download.path``: ``*`` any text, ``?`` one
character, ``**/`` any folders; without an ending, any of ENDINGS. What the wildcards match is the pair's
key: with images ``images/*`` and masks ``masks/*``, or images ``**/*`` and masks ``**/*_mask.*``, the image
``a_7.png`` finds its mask by ``a_7``. An image pattern that ends in ``/`` matches folders, each one DICOM series.
Files of other endings, and hidden ones, are no data. ``patients.csv`` at the top (columns patient, institution) may say
where patients come from.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from brainseg import config, files, imaging, nifti, scans
from brainseg.archive import Pair
from brainseg.errors import DataError, Problem, raise_all

INSTITUTION = "unknown"
PATIENTS = "patients.csv"
SINGLE = (".png", ".jpg", ".jpeg")  # never of several pages
ENDINGS = (*imaging.SUFFIXES, *nifti.SUFFIXES)
_WILDCARDS = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)", "?": r"([^/])"}

Key = tuple[str, ...]  # the folders that wildcards match, then what they match in the name


class Slice(NamedTuple):
    """A pair that was found, slices or volumes; ``image`` and ``mask`` are relative to the folder."""

    patient: str
    number: int
    image: str
    mask: str


def pairs(params: config.Download) -> Iterator[Pair]:
    """The folder's pairs, sorted by patient and slice number.

    The slice number is the last number in the image's name, or counts a volume's axial slices from feet to head. The
    bytes of slices are taken as they are; what is in them is checked when they are decoded.

    Raises:
        DataError: everything that has no partner, two, no patient or no number, in one list; at the end everything
            that is wrong with volumes.
    """
    if params.path is None:
        raise DataError("params.yaml", "download.path is null", "set it to the folder that holds your images and masks")
    root = files.project_root() / Path(params.path).expanduser()
    if not root.is_dir():
        raise DataError(root, "is not a folder", "set download.path to the folder that holds your images and masks")
    found, problems = find(root, params), []
    institutions = _institutions(root, {each.patient for each in found})
    for each in tqdm(found, desc="pack", unit="pairs", mininterval=0.5, disable=None):
        place = each.patient, institutions.get(each.patient, INSTITUTION)
        try:
            if _is_volume(root, each.image):
                yield from _slices(root, each, place)
            else:
                yield _pair(root, each, place, params.patient)
        except DataError as error:
            problems += error.problems
    raise_all(problems)


def _pair(root: Path, found: Slice, place: tuple[str, str], rule: str) -> Pair:
    """A slice: both files' bytes."""
    image, mask = Path(found.image), Path(found.mask)
    mask_name = mask.name if mask.name != image.name else f"{mask.stem}_mask{mask.suffix}"
    pair = Pair(*place, found.number, image.name, mask_name, _read(root / image), _read(root / mask))
    if rule == "each_volume":
        imaging.decode(pair.image, str(root / image))  # a damaged file is no slice either
        fix = "set download.patient: folder, a regular expression, or each_image"
        raise DataError(root / image, "is a single slice and no volume", fix)
    if rule == "each_image" and imaging.is_deep(pair.image):
        what = "has more than 8 bits, whose window needs the other slices of its patient"
        raise DataError(root / image, what, "set download.patient: folder or a regular expression, or save 8 bits")
    return pair


def _slices(root: Path, found: Slice, place: tuple[str, str]) -> Iterator[Pair]:
    """A volume's axial slices."""
    readers, paths = (scans.read_image, scans.read_labels), (root / found.image, root / found.mask)
    read: list[scans.Scan] = []
    problems: list[Problem] = []
    for reader, path in zip(readers, paths, strict=True):
        try:
            read.append(reader(path, str(path)))
        except DataError as error:
            problems += error.problems
    raise_all(problems)
    image, mask = read
    raise_all(scans.problems(image, mask, str(paths[1])))
    name = _split(PurePosixPath(found.image).name)[0]
    for number, (pixels, labels) in enumerate(zip(image.voxels, mask.voxels, strict=True), 1):
        names = f"{name}_{number:04}.npy", f"{name}_{number:04}_mask.npy"
        yield Pair(*place, number, *names, imaging.encode(pixels), imaging.encode(labels), image.spacing)


def _is_volume(root: Path, image: str) -> bool:
    path = root / image
    if path.is_dir() or scans.is_volume(path.name):
        return True
    return path.suffix.lower() in (".tif", ".tiff") and imaging.has_pages(path)


def _institutions(root: Path, patients: set[str]) -> dict[str, str]:
    """Patient → institution, as ``patients.csv`` says; none where there is no such file."""
    path = root / PATIENTS
    if not path.exists():
        return {}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(path, f"cannot be read ({error})", "write a CSV of patient, institution") from None
    if not {"patient", "institution"} <= set(table.columns):
        what = f"has the columns {', '.join(table.columns)}"
        raise DataError(path, what, "give it the columns patient and institution")
    problems = [
        Problem(f"{path}: {patient}", "no such patient among the images", "correct or remove the line")
        for patient in sorted(set(table["patient"]) - patients)
    ]
    twice = table.loc[table["patient"].duplicated(), "patient"]
    problems += [Problem(f"{path}: {patient}", "comes twice", "name each patient once") for patient in twice]
    raise_all(problems)
    return {patient: name or INSTITUTION for patient, name in zip(table["patient"], table["institution"], strict=True)}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, *_unreadable(error)) from None


def find(root: Path, params: config.Download) -> list[Slice]:
    """The pairs below ``root``, sorted by patient and slice number; all problems at once."""
    names, folders, problems = _images_below(root)
    masks = _by_key(names, params.masks)
    taken = {name for found in masks.values() for name in found}
    homes = {str(PurePosixPath(name).parent) for name in taken}
    candidates = (
        [name for name in _series_folders(folders, params.images) if name not in homes]
        if params.images.endswith("/")
        else [name for name in names if name not in taken]
    )
    images = _by_key(candidates, params.images)
    if not images:
        kinds = "folder" if params.images.endswith("/") else "TIF, PNG, JPEG or NIfTI"
        what = f"no {kinds} fits download.images ({params.images})"
        problems.append(Problem("", what, "set download.path and download.images to where they are"))
    problems += _partner_problems(images, masks)
    if params.images.endswith("/"):
        inside = (path for image, *_ in images.values() for path in sorted((root / image).rglob("[!.]*")))
        links = {path: fault for path in inside if (fault := _fault(path, root))}
        problems += [Problem(path.relative_to(root).as_posix(), *fault) for path, fault in links.items()]
    slices = []
    for key, (image, *_) in images.items():
        patient, number = _patient(key, image, params.patient), _number(root, image, params.patient)
        slices.append(Slice(patient, number, image, masks.get(key, [""])[0]))
    volumes = {found.image for found in slices if _is_volume(root, found.image)}
    problems += _identity_problems(slices, volumes, params.patient)
    raise_all([problem._replace(path=str(root / problem.path)) for problem in problems])
    return sorted(slices)


def _images_below(root: Path) -> tuple[list[str], list[str], list[Problem]]:
    """Names of the image files and of the folders that hold files, sorted.

    Links to folders are refused, links to files if they lead outside.
    """
    names, holders, problems = [], [], []
    unread: list[OSError] = []
    for folder, folders, entries in os.walk(root, onerror=unread.append):
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
    problems += [Problem(os.path.relpath(error.filename or root, root), *_unreadable(error)) for error in unread]
    return names, holders, problems


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
        return _unreadable(error)
    if path.is_file() and not os.access(path, os.R_OK):
        return "cannot be read", "check its permissions"
    if path.is_file() and path.suffix.lower() in SINGLE and size > imaging.MAX_BYTES:
        return f"holds {size:,} bytes, at most {imaging.MAX_BYTES:,} are accepted", "crop or resize the image"
    return None


def _unreadable(error: OSError) -> tuple[str, str]:
    return f"cannot be read ({error.strerror})", "check that it is there, and its permissions"


def _by_key(names: list[str], pattern: str) -> dict[Key, list[str]]:
    """Key → the names that ``pattern`` matches with it."""
    where = PurePosixPath(re.sub(r"\*\*/?$", "**/*", pattern))
    wanted, ending = (where.name, "") if pattern.endswith("/") else _split(where.name, ".*")
    folders, stem = _expression("".join(f"{part}/" for part in where.parent.parts)), _expression(wanted)
    found = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        own, suffix = (path.name, "") if pattern.endswith("/") else _split(path.name)
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


def _split(name: str, *more: str) -> tuple[str, str]:
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


def _number(root: Path, image: str, rule: str) -> int:
    """The last number in the name, -1 if there is none; 1 for a volume, which has all its patient's slices."""
    if rule in ("each_image", "each_volume") or _is_volume(root, image):
        return 1
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


def _identity_problems(slices: list[Slice], volumes: set[str], rule: str) -> list[Problem]:
    """Images of no patient or no number, two folders of one name, two slices of one number, more beside a volume."""
    problems = []
    nobody = [found.image for found in slices if not found.patient]
    if nobody:
        what = f"and {len(nobody) - 1:,} more belong to no patient by download.patient: {rule}"
        problems.append(
            Problem(nobody[0], what, "set it to a regular expression on the path, to each_volume or each_image")
        )
    whole = {found.patient: found.image for found in slices if found.image in volumes}
    first: dict[tuple[str, int], str] = {}
    homes: dict[str, str] = {}
    for patient, number, image, _ in slices:
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
