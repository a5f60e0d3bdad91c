"""One's own images and masks, TIF or PNG, in patient folders or flat, paired by what their names share.

``download.images`` and ``download.masks`` are patterns relative to ``download.path``: ``*`` any text, ``?`` one
character, ``**/`` any folders; without an ending, any of TIF and PNG. What the wildcards match is the pair's
key: with images ``images/*`` and masks ``masks/*``, or images ``**/*`` and masks ``**/*_mask.*``, the image
``a_7.png`` finds its mask by ``a_7``. Files that are neither TIF nor PNG, and hidden ones, are no data.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from brainseg import config, files, imaging
from brainseg.archive import Pair
from brainseg.errors import DataError, Problem, raise_all

INSTITUTION = "unknown"
_WILDCARDS = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)", "?": r"([^/])"}

Key = tuple[str, ...]  # the folders that wildcards match, then what they match in the name


class Slice(NamedTuple):
    """A pair that was found; ``image`` and ``mask`` are relative to the folder."""

    patient: str
    number: int
    image: str
    mask: str


def pairs(params: config.Download) -> Iterator[Pair]:
    """The folder's pairs, sorted by patient and slice number.

    The slice number is the last number in the image's name. The bytes are taken as they are; what is in
    them is checked when they are decoded.

    Raises:
        DataError: everything that has no partner, two, no patient or no number, in one list.
    """
    if params.path is None:
        raise DataError("params.yaml", "download.path is null", "set it to the folder that holds your images and masks")
    root = files.project_root() / Path(params.path).expanduser()
    if not root.is_dir():
        raise DataError(root, "is not a folder", "set download.path to the folder that holds your images and masks")
    for found in tqdm(find(root, params), desc="pack", unit="slices", mininterval=0.5, disable=None):
        image, mask = Path(found.image), Path(found.mask)
        mask_name = mask.name if mask.name != image.name else f"{mask.stem}_mask{mask.suffix}"
        data = _read(root / image), _read(root / mask)
        yield Pair(found.patient, INSTITUTION, found.number, image.name, mask_name, *data)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, *_unreadable(error)) from None


def find(root: Path, params: config.Download) -> list[Slice]:
    """The pairs below ``root``, sorted by patient and slice number; all problems at once."""
    names, problems = _images_below(root)
    masks = _by_key(names, params.masks)
    taken = {name for found in masks.values() for name in found}
    images = _by_key([name for name in names if name not in taken], params.images)
    if not images:
        what = f"no TIF or PNG fits download.images ({params.images})"
        problems.append(Problem("", what, "set download.path and download.images to where they are"))
    problems += _partner_problems(images, masks)
    slices = []
    for key, (image, *_) in images.items():
        patient, number = _patient(key, image, params.patient), _number(image, params.patient)
        slices.append(Slice(patient, number, image, masks.get(key, [""])[0]))
    problems += _identity_problems(slices, params.patient)
    raise_all([problem._replace(path=str(root / problem.path)) for problem in problems])
    return sorted(slices)


def _images_below(root: Path) -> tuple[list[str], list[Problem]]:
    """Names of the image files, sorted. Links to folders are refused, links to files if they lead outside."""
    names, problems = [], []
    unread: list[OSError] = []
    for folder, folders, entries in os.walk(root, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for path in (Path(folder, entry) for entry in (*folders, *sorted(entries))):
            name = path.relative_to(root).as_posix()
            if not _may_hold_images(path):
                continue
            if fault := _fault(path, root):
                problems.append(Problem(name, *fault))
            elif path.is_file():
                names.append(name)
    problems += [Problem(os.path.relpath(error.filename or root, root), *_unreadable(error)) for error in unread]
    return names, problems


def _may_hold_images(path: Path) -> bool:
    """By its name, or as a folder; a link that leads nowhere may have been one."""
    named = path.name.lower().endswith(imaging.SUFFIXES)
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
    if path.is_file() and size > imaging.MAX_BYTES:
        return f"holds {size:,} bytes, at most {imaging.MAX_BYTES:,} are accepted", "crop or resize the image"
    return None


def _unreadable(error: OSError) -> tuple[str, str]:
    return f"cannot be read ({error.strerror})", "check that it is there, and its permissions"


def _by_key(names: list[str], pattern: str) -> dict[Key, list[str]]:
    """Key → the names that ``pattern`` matches with it."""
    where = PurePosixPath(f"{pattern}/*" if pattern.endswith("**") else pattern)
    ending = where.suffix.lower() if where.suffix.lower() in (".*", *imaging.SUFFIXES) else ""
    folders = _expression("".join(f"{part}/" for part in where.parent.parts))
    stem = _expression(where.name.removesuffix(where.suffix) if ending else where.name)
    found = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        in_folder, in_stem = folders.fullmatch(name[: -len(path.name)]), stem.fullmatch(path.stem)
        if in_folder and in_stem and ending in ("", ".*", path.suffix.lower()):
            folder = "/".join(group.strip("/") for group in in_folder.groups() if group)
            found[folder, *in_stem.groups()].append(name)
    return found


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*|\?)", pattern)
    return re.compile("".join(_WILDCARDS.get(part) or re.escape(part) for part in parts), re.DOTALL)


def _patient(key: Key, image: str, rule: str) -> str:
    """The patient's id, empty if ``rule`` finds none."""
    if rule == "folder":
        return PurePosixPath(key[0]).name
    if rule == "each_image":
        return "_".join(part for part in key if part).replace("/", "_")
    match = re.search(rule, image)
    return (match[1] or "").replace("/", "_") if match else ""


def _number(image: str, rule: str) -> int:
    """The last number in the name, -1 if there is none."""
    numbers = re.findall(r"[0-9]{1,18}", PurePosixPath(image).stem)
    return 1 if rule == "each_image" else int(numbers[-1]) if numbers else -1


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


def _identity_problems(slices: list[Slice], rule: str) -> list[Problem]:
    """Images of no patient or no number, two folders of one name, two slices of one number."""
    problems = []
    nobody = [found.image for found in slices if not found.patient]
    if nobody:
        what = f"and {len(nobody) - 1:,} more belong to no patient by download.patient: {rule}"
        problems.append(Problem(nobody[0], what, "set it to a regular expression on the path, or to each_image"))
    first: dict[tuple[str, int], str] = {}
    homes: dict[str, str] = {}
    for patient, number, image, _ in slices:
        if number < 0:
            what = "has no number in its name, so slices have no order"
            problems.append(Problem(image, what, "number the slices, or set download.patient: each_image"))
        elif patient and first.setdefault((patient, number), image) != image:
            what = f"and {first[patient, number]} are both slice {number} of patient {patient}"
            problems.append(Problem(image, what, "end their names with different numbers"))
        home = str(PurePosixPath(image).parent)
        if rule == "folder" and patient and homes.setdefault(patient, home) != home:
            problems.append(Problem(image, f"and {homes[patient]} would be one patient, {patient}", "rename a folder"))
    return problems
