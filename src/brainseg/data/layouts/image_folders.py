"""Two folders side by side, ``images/`` and ``masks/``: slices or volumes, a mask named as its image."""

import re
from collections import defaultdict
from pathlib import PurePosixPath

from brainseg import config
from brainseg.data.layouts import finding, pairing, patient_rules
from brainseg.data.layouts.finding import Found, Listing
from brainseg.data.layouts.pairing import PairedFiles
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
    """Patients are, unless ``download.patient`` says otherwise, folders, else volumes, else names before the number."""
    tops = _find_tops(listing)
    if not tops:
        raise DataError(listing.root, "holds no folders images/ and masks/", "set download.path to where they are")
    all_images, all_masks = (_list(listing, top) for top in tops)
    known = {key for key, _ in all_images}
    if known and not any(key in known or _MASK_END.sub("", key) in known for key, _ in all_masks):  # image_1, mask_1
        all_images, all_masks = (
            [(_START.sub(r"\1", key), name) for key, name in pairs] for pairs in (all_images, all_masks)
        )
    images, doubles = finding.keep_first(all_images)
    masks, more = finding.keep_first(
        (key if key in images else _MASK_END.sub("", key), name) for key, name in all_masks
    )
    volumes = {key for key, name in images.items() if pairing.is_volume(listing.root, name)}
    patients, remarks = _name_patients(listing, images, volumes, params, PurePosixPath(tops[0]).name)
    built: list[PairedFiles | Problem] = [*doubles, *more]
    for key, image in sorted(images.items()):
        if sequence := _find_other_sequence(pairing.find_stem(image), key in volumes):
            built.append(finding.describe_sequence(image, sequence))
            continue
        order = 1 if key in volumes or params.patient in ("each_image", "each_volume") else pairing.find_number(image)
        built.append(_build(image, masks.get(key, ""), patients.get(key, ""), order, key in volumes))
    built += pairing.find_lonely(masks, images)
    return finding.sort_out(listing, built, {}, remarks)


def _build(image: str, mask: str, patient: str, order: int, is_volume: bool) -> PairedFiles | Problem:
    if not mask:
        return Problem(image, "has no mask of its name", "add it, or move the image away")
    return PairedFiles(patient, order, image, mask, is_volume)


def _find_tops(listing: Listing) -> tuple[str, str] | None:
    """The two folders, side by side; None unless there is one of each, and at one place."""
    both = list(find_places(listing).values())
    if len(both) != 1 or any(len(kind) > 1 for kind in both[0]):
        return None
    return both[0][0][0], both[0][1][0]


def find_places(listing: Listing) -> dict[str, tuple[list[str], list[str]]]:
    """Each folder that holds folders of images and of masks → those; ``""`` is the top."""
    folders = {str(PurePosixPath(*parts[:end])) for parts in _list_parts(listing) for end in range(1, len(parts))}
    homes: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for each in sorted(folders):
        home, _, name = each.rpartition("/")
        for kind, words in enumerate((IMAGES, MASKS)):
            homes[home][kind].extend([each] if name.lower() in words else [])
    return {home: found for home, found in homes.items() if all(found)}


def _list_parts(listing: Listing) -> set[tuple[str, ...]]:
    return {PurePosixPath(name).parts for name in listing.names}


def _list(listing: Listing, top: str) -> list[tuple[str, str]]:
    """Path below the folder, without ending, and file, of all images."""
    names = [name for name in listing.names if name.startswith(f"{top}/") and name.lower().endswith(pairing.ENDINGS)]
    return [(pairing.split_name(name.removeprefix(f"{top}/"))[0], name) for name in pairing.drop_voxels(names)]


def _find_other_sequence(stem: str, is_volume: bool) -> str:
    """Another sequence than FLAIR that a name ends in, or that stands before the number of a slice; else empty."""
    match = None if is_volume else _SLICE.fullmatch(stem)
    named = [finding.split_sequence(name)[1] for name in (stem, match["patient"] if match else "")]
    return next((name for name in named if name not in ("", finding.FLAIR)), "")


def _name_patients(
    listing: Listing, images: dict[str, str], volumes: set[str], params: config.Download, top: str
) -> tuple[dict[str, str], list[str]]:
    """Key → patient, and what was assumed.

    Raises:
        DataError: names or folders that do not tell patients apart.
    """
    if params.patients:
        return {key: key for key in images}, []
    if params.patient != "folder":
        named = patient_rules.find_patients({("", key): name for key, name in images.items()}, params.patient)
        return {key: patient for (_, key), patient in named.items()}, []
    if deep := [name for key, name in images.items() if key.count("/") > 1]:
        what = f"lies in several folders, as {len(deep) - 1:,} others: which of them is the patient?"
        fix = (
            f'set download.patient: "{top}/([^/]+)/", which is the first of them, or another expression with one group'
        )
        raise DataError(listing.root / deep[0], what, fix)
    found = {key: PurePosixPath(key).parent.name for key in images if "/" in key}
    alone = [key for key in volumes if key not in found]
    subjects = patient_rules.find_subjects({key: images[key] for key in alone})
    found |= subjects or {key: finding.split_sequence(key)[0] or key for key in alone}
    flat = [key for key in images if key not in found]
    numbers = defaultdict(list)
    for key in flat:
        match = _SLICE.fullmatch(key)
        numbers[match["patient"] if match else ""].append(key)
    if flat and ("" in numbers or len(numbers) < 2 or len(numbers) == len(flat)):
        what = f"holds slices whose names do not say which are of one patient, such as {' and '.join(flat[:2])}"
        fix = "set download.patient: each_image if each is of another patient, or a regular expression with one group"
        raise DataError(listing.root / PurePosixPath(images[flat[0]]).parent, what, fix)
    found |= {key: patient for patient, keys in numbers.items() for key in keys}
    names = finding.name_patients(found.values())
    shown = f"{', '.join(sorted(numbers)[:3])}{', ...' if len(numbers) > 3 else ''}"
    remarks = [f"patients are the names before the number: {shown}"] if numbers else []
    return {key: names[patient] for key, patient in found.items()}, remarks
