"""From the archive to arrays on one square grid: images, binary masks and a table of the slices.

Patients are read by a pool of threads (decoding, resizing and reading release Python's lock) and written in order, so
that memory does not grow with their number. All images of a patient are held at once if they have more than 8 bits,
since they share one intensity window.
"""

import hashlib
import itertools
import re
import sys
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from brainseg import config, files, hardware
from brainseg.data import archive
from brainseg.errors import BrainsegError, DataError, IntegrityError, Problem, raise_all
from brainseg.io import grid, intensity, pictures, spacing, untrusted_zip
from brainseg.io.grid import SQUARE, PixelSize

USUAL = ({1}, {255}, {65535})  # labels of tumour in masks that have no other
_SHOWN = 8  # values that a message names
_NAME_LABELS = "name the labels that are tumour: preprocess.foreground; threshold a grey picture"
_ANY_LABEL = "_labels.npy"  # end of a mask of which ``folder`` knows that each label above 0 is tumour
_MIXED = "_classes.npy"  # and of one with labels of which it knows that some are not
_MOST_LABELS = 8  # parts that a tumour may have; a parcellation of the brain has dozens
# a member that ``folder`` made of a volume
_VOLUME_MEMBER = re.compile(r"(.+)_[0-9]{4,}(_mask|_labels|_classes)?\.npy")


class PreparedSlice(NamedTuple):
    """A slice on the grid.

    ``image`` (S, S, 3) uint8; of more than 8 bits it keeps its type and size until its volume's window is known;
    ``mask`` (S, S) uint8 in {0, 1}; ``digest`` of the original pixels; ``extent``: length of the longer side, in mm
    where the spacing is known; ``labels``: the values of the original mask except 0; ``jpeg``: the mask was one.
    """

    image: np.ndarray
    mask: np.ndarray
    digest: str
    constant: bool
    extent: float
    labels: frozenset[int]
    jpeg: bool


def run(path: Path, params: config.Preprocess, out: Path) -> str:
    """Write ``images.npy`` (N, S, S, 3), ``masks.npy`` (N, S, S) and ``slices.csv`` into ``out``, in the index's order.

    Warns on stderr about constant images, identical images of a patient, and labels that no mask has.

    Raises:
        DataError: every fault of every slice: missing, unreadable, sizes that differ, masks of several labels where
            none are named, patients that share an image.
        IntegrityError: ``path`` is not what download wrote; all other faults are listed with it.
    """
    index = archive.read_index(path)
    shape = (len(index), params.size, params.size)
    with (
        files.replacing(out / "images.npy") as images_path,
        files.replacing(out / "masks.npy") as masks_path,
        files.replacing(out / "slices.csv") as table_path,
    ):
        with open(images_path, "wb") as images, open(masks_path, "wb") as masks:
            _write_header(images, (*shape, 3))
            _write_header(masks, shape)
            facts = _convert(path, index, params, images, masks)
        columns = ["patient", "institution", "slice"]
        table = index[columns].assign(tumour_pixels=facts["tumour_pixels"], source=index["image"])
        grid_mm = facts["extent"] / params.size
        table["spacing"] = [_convert_spacing(*each) for each in zip(index["spacing"], grid_mm, strict=True)]
        table.to_csv(table_path, index_label="row", lineterminator="\n")
    _warn(index.assign(**facts), params.foreground or [])
    patients, tumour = table["patient"].nunique(), int((table["tumour_pixels"] > 0).sum())
    side = params.size
    return f"{out}: {len(table):,} slices of {patients:,} patients at {side}x{side}, {tumour:,} with tumour"


def _convert(
    path: Path, index: pd.DataFrame, params: config.Preprocess, images: BinaryIO, masks: BinaryIO
) -> pd.DataFrame:
    """Write all slices and return what is known of each: tumour_pixels, digest, constant, extent, labels."""
    cv2.setNumThreads(1)  # the pool's threads are the parallelism
    columns = ["image", "mask", "spacing"]
    patients = [list(rows[columns].itertuples(index=False)) for _, rows in index.groupby("patient", sort=False)]
    facts, faults, workers = {}, [], min(8, hardware.processors())
    with (
        archive.open_zip(path) as source,
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(index), desc="preprocess", unit="slices", mininterval=0.5, disable=None) as bar,
    ):
        results = _map_in_order(pool, partial(_prepare_patient, source, params=params), patients, ahead=2 * workers)
        for row, each in zip(index.index, itertools.chain.from_iterable(results), strict=True):
            bar.update()
            if isinstance(each, BrainsegError):
                faults.append(each)
                continue
            facts[row] = int(np.count_nonzero(each.mask)), *each[2:]
            if not faults:
                images.write(each.image)
                masks.write(each.mask)
    known = pd.DataFrame(facts.values(), columns=["tumour_pixels", *PreparedSlice._fields[2:]], index=list(facts))
    if shared := _find_shared(index.join(known.astype({"constant": bool}), how="inner")):
        faults.append(DataError("", problems=shared))
    _raise_faults(faults, _name_own_files(index))
    return known


def _name_own_files(index: pd.DataFrame) -> dict[str, str]:
    """Member → the user's own file, where the archive knows it."""
    both = (("image", archive.IMAGE_FILE), ("mask", archive.MASK_FILE))
    named = (zip(index[member], index[own], strict=True) for member, own in both)
    return {member: own for pairs in named for member, own in pairs if own}


def _prepare_patient(
    source: zipfile.ZipFile, members: list[tuple[str, str, str]], params: config.Preprocess
) -> list[PreparedSlice | BrainsegError]:
    """A patient's slices on the grid, or the fault of each. The window of deep images needs all of them.

    Args:
        members: names of image and mask, and spacing.
    """
    outcomes: list[PreparedSlice | BrainsegError] = []
    for image_name, mask_name, cell in members:
        try:
            outcomes.append(prepare_slice(source, image_name, mask_name, params, _read_pixel(cell)))
        except (DataError, IntegrityError) as error:
            outcomes.append(error)
    read = {i: each for i, each in enumerate(outcomes) if isinstance(each, PreparedSlice)}
    if not read:
        return outcomes
    first = next(iter(read))
    labels = sorted(frozenset().union(*(each.labels for each in read.values())))
    if params.foreground is None and (what := _describe_labels(labels, members[first][1])):
        outcomes[first] = DataError(members[first][1], what, _NAME_LABELS)
    if all(each.image.dtype == np.uint8 for each in read.values()):
        return outcomes
    kinds = {_describe_pixels(each.image) for each in read.values()}
    if len(kinds) > 1:
        what = f"and other slices of the patient are of different kinds ({'; '.join(sorted(kinds))})"
        outcomes[first] = DataError(members[first][0], what, "save all slices of a patient in the same way")
        return outcomes
    ends = intensity.find_window([each.image for each in read.values()], (params.window[0], params.window[1]))
    for i, each in read.items():
        if isinstance(outcomes[i], PreparedSlice):
            image = grid.resize_image(intensity.to_uint8(each.image, ends), params.size, _read_pixel(members[i][2]))
            outcomes[i] = each._replace(image=image)
    return outcomes


def _describe_labels(labels: list[int], mask_name: str) -> str:
    """What is wrong with the labels of all masks of a patient, where none are named; empty if nothing is."""
    if not mask_name.endswith(_ANY_LABEL):
        what = f"and other masks of the patient hold different values above 0 ({_show(labels)})"
        return what if len(labels) > 1 else ""
    what = (
        f"and other masks of the patient hold {len(labels)} labels ({_show(labels)}), more than the parts of a tumour"
    )
    return what if len(labels) > _MOST_LABELS else ""


def _raise_faults(faults: list[BrainsegError], own: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raise one error for all faults, by ``own`` files: IntegrityError if any fault is one, else DataError."""
    kind = IntegrityError if any(isinstance(fault, IntegrityError) for fault in faults) else DataError
    raise_all(_group_by_volume([problem for fault in faults for problem in fault.problems], own), kind)


def _group_by_volume(problems: list[Problem], own: Mapping[str, str]) -> list[Problem]:
    """Problems with the same fix in slices of one volume become one problem, named by the volume."""
    groups: dict[tuple, list[Problem]] = {}
    for problem in problems:
        volume = _VOLUME_MEMBER.fullmatch(problem.path)
        key = (volume[1], volume[2], problem.fix) if volume else (problem,)
        groups.setdefault(key, []).append(problem)
    named = []
    for key, (first, *others) in groups.items():
        path = ", ".join(dict.fromkeys(own.get(member, member) for member in first.path.split(", ")))
        if others:
            path = own.get(first.path, str(key[0]))
            first = first._replace(what=f"{first.what}; the same fault in {len(others) + 1} slices")
        named.append(first._replace(path=path))
    return named


def prepare_slice(
    source: zipfile.ZipFile, image_name: str, mask_name: str, params: config.Preprocess, pixel: PixelSize = SQUARE
) -> PreparedSlice:
    """Decode, check and resize one pair of members; an image of more than 8 bits is not resized.

    Raises:
        DataError: every fault of the two.
        IntegrityError: the same, if the archive was changed.
    """
    decoded: list[np.ndarray] = []
    faults: list[BrainsegError] = []
    for name, decode in ((image_name, pictures.decode), (mask_name, pictures.decode_labels)):
        try:
            data = _read_member(source, name)
            decoded.append(decode(data, name))
        except (DataError, IntegrityError) as error:
            faults.append(error)
    _raise_faults(faults)
    image, mask = decoded  # and ``data`` are the bytes of the mask, which comes second
    labels = frozenset(_find_labels(mask))
    if params.foreground is None and mask_name.endswith(_ANY_LABEL):
        mask = (mask > 0).view(np.uint8)
    raise_all(check_pair(image, mask, mask_name, params.foreground))
    digest = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
    if params.foreground is not None:
        mask = np.isin(mask, params.foreground).view(np.uint8)
    constant, extent = bool(image.min() == image.max()), float(max(np.multiply(mask.shape, pixel)))
    shown = grid.select_channels(image, params.channels)
    shown = grid.resize_image(shown, params.size, pixel) if shown.dtype == np.uint8 else shown
    prepared = grid.resize_mask(mask, params.size, pixel)
    return PreparedSlice(shown, prepared, digest, constant, extent, labels, jpeg=pictures.is_jpeg(data))


def check_pair(image: np.ndarray, mask: np.ndarray, name: str, foreground: list[int] | None = None) -> list[Problem]:
    """Faults of a mask: another shape than its image; where no labels are named, values that can be none."""
    if mask.shape != image.shape[:2]:
        what = f"the mask has shape {mask.shape}, its image {image.shape}"
        return [Problem(name, what, "pair each image with the mask drawn on it")]
    labels = _find_labels(mask)
    has_background = bool(np.count_nonzero(mask) < mask.size)
    is_mixed = bool(labels) and name.endswith(_MIXED)
    if foreground is not None or (not is_mixed and ((has_background and len(labels) <= 1) or set(labels) in USUAL)):
        return []
    values = ([0] if has_background else []) + labels
    what = f"the mask holds {len(values)} values ({_show(values)}), "
    what += "of which one may be tumour" if has_background else "and none is 0, the background"
    what = f"{what}; some are none by dataset.json" if is_mixed else what
    return [Problem(name, what, _NAME_LABELS)]


def _show(values: list[int]) -> str:
    return ", ".join(map(str, values[:_SHOWN])) + (", ..." if len(values) > _SHOWN else "")


def _find_labels(mask: np.ndarray) -> list[int]:
    """The values of a mask except 0, ascending."""
    top = int(mask.max())
    if np.count_nonzero(mask == top) == np.count_nonzero(mask):  # most masks have one, and this is fast
        return [top] if top else []
    return (np.flatnonzero(np.bincount(mask.ravel())[1:]) + 1).tolist()


def _describe_pixels(pixels: np.ndarray) -> str:
    return f"{pixels.dtype.name}, {'three channels' if pixels.ndim == 3 else 'one channel'}"


def _read_pixel(cell: str) -> PixelSize:
    """Height and width of a pixel in mm; square where the spacing is not known."""
    sides = spacing.parse_cell(cell)
    return sides[:2] if sides else SQUARE


def _convert_spacing(cell: str, pixel: float) -> str:
    """The spacing on the grid, whose pixels are square and ``pixel`` mm wide."""
    sides = spacing.parse_cell(cell)
    return spacing.format_cell((pixel, pixel, sides[2])) if sides else ""


def _map_in_order(pool: ThreadPoolExecutor, function: Callable, tasks: Iterable, ahead: int) -> Iterator:
    """``pool.map`` with at most ``ahead`` results in memory."""
    waiting: deque[Future] = deque()
    for task in tasks:
        waiting.append(pool.submit(function, task))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_member(source: zipfile.ZipFile, name: str) -> bytes:
    try:
        return source.read(name)
    except KeyError:
        raise DataError(name, "is missing from the archive", "add the file, then: dvc repro download") from None
    except (*untrusted_zip.DAMAGE_ERRORS, OSError) as error:
        raise IntegrityError(name, f"changed inside the archive ({error})", "run: dvc repro -f download") from None


def _find_shared(slices: pd.DataFrame) -> list[Problem]:
    """Images that several patients have: the model could be tested on images that it was trained on."""
    telling = slices[~slices["constant"]]
    groups = telling.groupby("digest")["patient"].nunique()
    repeated = telling[telling["digest"].isin(groups.index[groups > 1])]
    return [
        Problem(", ".join(group["image"]), "are the same image in different patients", "keep one of them")
        for _, group in repeated.groupby("digest", sort=False)
    ]


def _warn(slices: pd.DataFrame, foreground: list[int]) -> None:
    """Print on stderr what is unusual but not an error."""
    telling, blank = slices[~slices["constant"]], slices[slices["constant"]]
    of_volume = blank["image"].str.fullmatch(_VOLUME_MEMBER.pattern)
    for patient, count in blank[of_volume]["patient"].value_counts(sort=False).items():
        print(f"WARNING {patient}: every pixel has the same value in {count} slices", file=sys.stderr)
    labels = slices.groupby("patient")["labels"].agg(lambda found: frozenset().union(*found))
    whole = slices["mask"].str.endswith(_ANY_LABEL)
    if not foreground and (taken := frozenset().union(*slices.loc[whole, "labels"])):
        shown = _show(sorted(taken))
        print(f"WARNING preprocess.foreground: each label above 0 was taken as tumour: {shown}", file=sys.stderr)
    single = labels.drop(slices.loc[whole, "patient"].unique())
    if not foreground and (odd := set(single) - {frozenset(), *map(frozenset, USUAL)}):
        shown = _show(sorted(frozenset().union(*odd)))
        what = f"masks hold {shown} as their only value above 0, which was taken as tumour"
        print(f"WARNING preprocess.foreground: {what}", file=sys.stderr)
    if count := int(slices["jpeg"].sum()):
        print(f"WARNING {count:,} masks are JPEG, taken as black and white: save masks as PNG or TIF", file=sys.stderr)
    if foreground:
        for label in sorted(set(foreground).difference(*labels)):
            print(f"WARNING preprocess.foreground: no mask holds {label}", file=sys.stderr)
        for patient in labels.index[[bool(found) and not found & set(foreground) for found in labels]]:
            shown = ", ".join(map(str, sorted(labels[patient])))
            print(f"WARNING {patient}: no tumour, its labels are {shown}: preprocess.foreground", file=sys.stderr)
    own = _name_own_files(slices)
    for what, names in {
        "every pixel has the same value": blank.loc[~of_volume, "image"],
        "the same image as another of the patient": telling.loc[telling.duplicated(["patient", "digest"]), "image"],
    }.items():
        for name in dict.fromkeys(own.get(name, name) for name in names):
            print(f"WARNING {name}: {what}", file=sys.stderr)


def _write_header(handle: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": shape})
