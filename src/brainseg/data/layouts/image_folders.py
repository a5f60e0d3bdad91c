"""Two folders side by side, ``images/`` and ``masks/``: slices or volumes, a mask named as its image."""

import re
from collections import defaultdict
from pathlib import PurePosixPath

from brainseg import config
from brainseg.data import pairing
from brainseg.data.layouts import finding
from brainseg.data.layouts.finding import Found, Listing
from brainseg.data.pairing import PairedFiles
from brainseg.errors import DataError, Problem

IMAGES = ("images", "image", "imgs", "img", "scans", "volumes")
MASKS = ("masks", "mask", "labels", "label", "segmentations", "segmentation", "seg", "annotations", "gt")
_MASK_END = re.compile(r"[-_ .]?(mask|masks|seg|segmentation|label|labels|gt)$", re.IGNORECASE)
_START = re.compile(r"(^|/)(image|img|scan|mask|seg|segmentation|label|gt)[-_ .]?(?=[^/]+$)", re.IGNORECASE)
_SLICE = re.compile(r"(?P<patient>.*?)[-_ .]*(?:(?:slice|img|z|s)[-_ .]*)?(?P<number>[0-9]{1,18})", re.IGNORECASE)


def recognise(listing: Listing) -> str:
    """Why it is this layout; empty if it is not."""
    tops = _find_tops(listing)
    if not tops:
        return ""
    images, masks = (_list(listing, top) for top in tops)
    return f"{len(images):,} images in {tops[0]}/, {len(masks):,} files in {tops[1]}/" if images and masks else ""


def read(listing: Listing, params: config.Download) -> Found:
    """Patients are, unless ``download.patient`` says otherwise, volumes, else folders, else names before the number."""
    tops = _find_tops(listing)
    if not tops:
        raise DataError(listing.root, "holds no folders images/ and masks/", "set download.path to where they are")
    images, masks = (_list(listing, top) for top in tops)
    if images and not any(key in images or _MASK_END.sub("", key) in images for key in masks):  # image_1 and mask_1
        images, masks = ({_START.sub(r"\1", key): name for key, name in files.items()} for files in (images, masks))
    masks = {(key if key in images else _MASK_END.sub("", key)): name for key, name in masks.items()}
    volumes = {key for key, name in images.items() if pairing.is_volume(listing.root, name)}
    patients = _name_patients(listing, images, volumes, params.patient)
    built: list[PairedFiles | Problem] = []
    for key, image in sorted(images.items()):
        order = 1 if key in volumes or params.patient in ("each_image", "each_volume") else pairing.find_number(image)
        built.append(_build(image, masks.get(key, ""), patients.get(key, ""), order, key in volumes))
    fix = "add the image, or remove the mask"
    built += [Problem(name, "is a mask without image", fix) for key, name in masks.items() if key not in images]
    return finding.sort_out(listing, built, {})


def _build(image: str, mask: str, patient: str, order: int, is_volume: bool) -> PairedFiles | Problem:
    if not mask:
        return Problem(image, "has no mask of its name", "add it, or move the image away")
    return PairedFiles(patient, order, image, mask, is_volume)


def _find_tops(listing: Listing) -> tuple[str, str] | None:
    """The two folders, side by side; None unless there is one of each, and at one place."""
    folders = {str(PurePosixPath(*parts[:end])) for parts in _list_parts(listing) for end in range(1, len(parts))}
    homes: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for each in sorted(folders):
        home, _, name = each.rpartition("/")
        for kind, words in enumerate((IMAGES, MASKS)):
            homes[home][kind].extend([each] if name.lower() in words else [])
    both = [found for found in homes.values() if all(found)]
    if len(both) != 1 or any(len(kind) > 1 for kind in both[0]):
        return None
    return both[0][0][0], both[0][1][0]


def _list_parts(listing: Listing) -> set[tuple[str, ...]]:
    return {PurePosixPath(name).parts for name in listing.names}


def _list(listing: Listing, top: str) -> dict[str, str]:
    """Path below the folder, without ending → file, of all images."""
    names = (name for name in listing.names if name.startswith(f"{top}/") and name.lower().endswith(pairing.ENDINGS))
    return {pairing.split_name(name.removeprefix(f"{top}/"))[0]: name for name in names}


def _name_patients(listing: Listing, images: dict[str, str], volumes: set[str], rule: str) -> dict[str, str]:
    """Key → patient.

    Raises:
        DataError: slices right in the folder whose names do not tell patients apart.
    """
    if rule != "folder":
        return {key: pairing.find_patient(("", key), name, rule) for key, name in images.items()}
    found = {key: key.replace("/", "_") for key in volumes}
    found |= {key: PurePosixPath(key).parent.name for key in images if key not in volumes and "/" in key}
    flat = [key for key in images if key not in found]
    numbers = defaultdict(list)
    for key in flat:
        match = _SLICE.fullmatch(key)
        numbers[match["patient"] if match else ""].append(key)
    if flat and ("" in numbers or len(numbers) < 2 or len(numbers) == len(flat)):
        what = f"holds slices whose names do not say which are of one patient, such as {' and '.join(flat[:2])}"
        fix = "set download.patient: each_image if each is of another patient, or a regular expression with one group"
        raise DataError(listing.root / PurePosixPath(images[flat[0]]).parent, what, fix)
    return found | {key: patient for patient, keys in numbers.items() for key in keys}
