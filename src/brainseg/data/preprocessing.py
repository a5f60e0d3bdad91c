"""From the archive to arrays on one square grid: images, binary masks and a table of the slices.

Patients are read by a pool of threads (decoding, resizing and reading release Python's lock) and written in order, so
that memory stays flat however many there are. Of a patient whose images have more than 8 bits all are held at once,
since they share a window.
"""

import hashlib
import itertools
import re
import sys
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from brainseg import config, files, hardware
from brainseg.data import archive
from brainseg.errors import BrainsegError, DataError, IntegrityError, Problem, raise_all
from brainseg.io import grid, intensity, pictures, spacing, untrusted_zip
from brainseg.io.grid import SQUARE, Pixel

_OF_VOLUME = re.compile(r"(.+)_[0-9]{4,}(_mask)?\.npy")  # a member that ``folder`` made of a volume


class Slice(NamedTuple):
    """A slice on the grid, or on the way to it.

    ``image`` (S, S, 3) uint8, or as deep and large as it was until its volume's window is known; ``mask`` (S, S) uint8
    in {0, 1}; ``digest`` of the pixels as they were; ``extent`` of the longer side, in mm where the spacing is known;
    ``labels``: the values of the mask but 0.
    """

    image: np.ndarray
    mask: np.ndarray
    digest: str
    constant: bool
    extent: float
    labels: frozenset[int]


def run(path: Path, params: config.Preprocess, out: Path) -> str:
    """Write ``images.npy`` (N, S, S, 3), ``masks.npy`` (N, S, S) and ``slices.csv`` into ``out``, in the index's order.

    Warns on stderr of constant images, of identical ones within a patient, and of labels that nobody has.

    Raises:
        DataError: every fault of every slice: missing, unreadable, sizes that differ, masks that are not
            binary, patients that share an image.
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
        table["spacing"] = [_on_grid(*each) for each in zip(index["spacing"], grid_mm, strict=True)]
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
        _opened(path) as source,
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(index), desc="preprocess", unit="slices", mininterval=0.5, disable=None) as bar,
    ):
        results = _in_order(pool, partial(_read_patient, source, params=params), patients, ahead=2 * workers)
        for row, each in zip(index.index, itertools.chain.from_iterable(results), strict=True):
            bar.update()
            if isinstance(each, BrainsegError):
                faults.append(each)
                continue
            facts[row] = int(np.count_nonzero(each.mask)), *each[2:]
            if not faults:
                images.write(each.image)
                masks.write(each.mask)
    known = pd.DataFrame(facts.values(), columns=["tumour_pixels", *Slice._fields[2:]], index=list(facts))
    if shared := _shared(index.join(known.astype({"constant": bool}), how="inner")):
        faults.append(DataError("", problems=shared))
    _raise_gravest(faults)
    return known


def _read_patient(
    source: zipfile.ZipFile, members: list[tuple[str, str, str]], params: config.Preprocess
) -> list[Slice | BrainsegError]:
    """A patient's slices on the grid. Deep ones wait until all are read, for they share a window.

    Args:
        members: names of image and mask, spacing.
    """
    outcomes: list[Slice | BrainsegError] = []
    for image_name, mask_name, cell in members:
        try:
            outcomes.append(read_slice(source, image_name, mask_name, params, _pixel(cell)))
        except (DataError, IntegrityError) as error:
            outcomes.append(error)
    read = {i: each for i, each in enumerate(outcomes) if isinstance(each, Slice)}
    if not read:
        return outcomes
    first = next(iter(read))
    if params.foreground is None and len(frozenset().union(*(each.labels for each in read.values()))) > 1:
        what = "and other masks of the patient differ: tumour is 1 in some and 255 in others"
        outcomes[first] = DataError(
            members[first][1], what, "save them alike, or name the labels: preprocess.foreground"
        )
    if all(each.image.dtype == np.uint8 for each in read.values()):
        return outcomes
    kinds = {_kind(each.image) for each in read.values()}
    if len(kinds) > 1:
        what = f"and other slices of the patient are of different kinds ({'; '.join(sorted(kinds))})"
        outcomes[first] = DataError(members[first][0], what, "save all slices of a patient alike")
        return outcomes
    ends = intensity.window([each.image for each in read.values()], (params.window[0], params.window[1]))
    for i, each in read.items():
        if isinstance(outcomes[i], Slice):
            image = grid.resize_image(intensity.to_uint8(each.image, ends), params.size, _pixel(members[i][2]))
            outcomes[i] = each._replace(image=image)
    return outcomes


def _raise_gravest(faults: list[BrainsegError]) -> None:
    """Raise one error for all: of changed bytes if there are any, else of bad data."""
    kind = IntegrityError if any(isinstance(fault, IntegrityError) for fault in faults) else DataError
    raise_all(_gathered([problem for fault in faults for problem in fault.problems]), kind)


def _gathered(problems: list[Problem]) -> list[Problem]:
    """Of the slices of one volume those with one and the same way out become one problem, named by the volume."""
    groups: dict[tuple, list[Problem]] = {}
    for problem in problems:
        volume = _OF_VOLUME.fullmatch(problem.path)
        key = (volume[1], volume[2], problem.fix) if volume else (problem,)
        groups.setdefault(key, []).append(problem)
    return [
        first if not others else Problem(key[0], f"{first.what}; so {len(others) + 1} of its slices", first.fix)
        for key, (first, *others) in groups.items()
    ]


def read_slice(
    source: zipfile.ZipFile, image_name: str, mask_name: str, params: config.Preprocess, pixel: Pixel = SQUARE
) -> Slice:
    """Decode, check and resize one pair of members; an image of more than 8 bits is left as it is.

    Raises:
        DataError: all that is wrong with the two.
        IntegrityError: the same, if the archive was changed.
    """
    decoded: list[np.ndarray] = []
    faults: list[BrainsegError] = []
    for name in (image_name, mask_name):
        try:
            decoded.append(pictures.decode(_member(source, name), name, lossless=name == mask_name))
        except (DataError, IntegrityError) as error:
            faults.append(error)
    _raise_gravest(faults)
    image, mask = decoded
    raise_all(check_pair(image, mask, mask_name, params.foreground))
    digest = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
    if params.foreground is None:
        labels = frozenset({int(mask.max())} - {0})
    else:
        labels = frozenset(np.flatnonzero(np.bincount(mask.ravel())).tolist()) - {0}
        mask = np.isin(mask, params.foreground).view(np.uint8)
    constant, extent = bool(image.min() == image.max()), float(max(np.multiply(mask.shape, pixel)))
    shown = grid.selected(image, params.channels)
    shown = grid.resize_image(shown, params.size, pixel) if shown.dtype == np.uint8 else shown
    return Slice(shown, grid.resize_mask(mask, params.size, pixel), digest, constant, extent, labels)


def check_pair(image: np.ndarray, mask: np.ndarray, name: str, foreground: list[int] | None = None) -> list[Problem]:
    """What is wrong with a mask: its shape beside the image's, its values unless ``foreground`` says what they mean."""
    if mask.ndim != 2:
        return [Problem(name, f"the mask has shape {mask.shape}, must have one channel", "save it as grayscale")]
    if mask.shape != image.shape[:2]:
        what = f"the mask has shape {mask.shape}, its image {image.shape}"
        return [Problem(name, what, "pair each image with the mask drawn on it")]
    if not np.issubdtype(mask.dtype, np.integer) or mask.min() < 0:
        return [Problem(name, f"the mask holds {mask.dtype} numbers", "save it with whole numbers from 0 up")]
    if foreground is not None:
        return []
    top = mask.max()
    if top in (0, 1, 255) and np.count_nonzero(mask == top) == (np.count_nonzero(mask) or mask.size):
        return []
    values = np.unique(mask)
    shown = ", ".join(str(value) for value in values[:8]) + (", ..." if len(values) > 8 else "")
    what = f"the mask holds {len(values)} values ({shown}), must hold 0 and 1 or 0 and 255"
    return [Problem(name, what, "threshold it, and save it without loss; or name its labels: preprocess.foreground")]


def _kind(pixels: np.ndarray) -> str:
    return f"{pixels.dtype.name}, {'three channels' if pixels.ndim == 3 else 'one channel'}"


def _pixel(cell: str) -> Pixel:
    """Height and width of a pixel in mm; square where nothing is known."""
    sides = spacing.read(cell)
    return sides[:2] if sides else SQUARE


def _on_grid(cell: str, pixel: float) -> str:
    """The spacing with square pixels of the grid, ``pixel`` mm wide."""
    sides = spacing.read(cell)
    return spacing.write((pixel, pixel, sides[2])) if sides else ""


def _in_order(pool: ThreadPoolExecutor, function: Callable, tasks: Iterable, ahead: int) -> Iterator:
    """``pool.map`` with at most ``ahead`` results in memory."""
    waiting: deque[Future] = deque()
    for task in tasks:
        waiting.append(pool.submit(function, task))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except untrusted_zip.DAMAGE as error:
        raise IntegrityError(path, f"is not a zip archive ({error})", "run: dvc repro -f download") from None


def _member(source: zipfile.ZipFile, name: str) -> bytes:
    try:
        return source.read(name)
    except KeyError:
        raise DataError(name, "is missing from the archive", "add the file, then: dvc repro download") from None
    except untrusted_zip.DAMAGE as error:
        raise IntegrityError(name, f"changed inside the archive ({error})", "run: dvc repro -f download") from None


def _shared(slices: pd.DataFrame) -> list[Problem]:
    """Images that several patients have: the model would be tested on what it was trained on."""
    telling = slices[~slices["constant"]]
    groups = telling.groupby("digest")["patient"].nunique()
    repeated = telling[telling["digest"].isin(groups.index[groups > 1])]
    return [
        Problem(", ".join(group["image"]), "are the same image in different patients", "keep one of them")
        for _, group in repeated.groupby("digest", sort=False)
    ]


def _warn(slices: pd.DataFrame, foreground: list[int]) -> None:
    """Say on stderr what is odd but no error."""
    telling, blank = slices[~slices["constant"]], slices[slices["constant"]]
    of_volume = blank["image"].str.fullmatch(_OF_VOLUME.pattern)
    for patient, count in blank[of_volume]["patient"].value_counts(sort=False).items():
        print(f"WARNING {patient}: every pixel has the same value in {count} slices", file=sys.stderr)
    if foreground:
        labels = slices.groupby("patient")["labels"].agg(lambda found: frozenset().union(*found))
        for label in sorted(set(foreground).difference(*labels)):
            print(f"WARNING preprocess.foreground: no mask holds {label}", file=sys.stderr)
        for patient in labels.index[[bool(found) and not found & set(foreground) for found in labels]]:
            shown = ", ".join(map(str, sorted(labels[patient])))
            print(f"WARNING {patient}: no tumour, its labels are {shown}: preprocess.foreground", file=sys.stderr)
    for what, names in {
        "every pixel has the same value": blank.loc[~of_volume, "image"],
        "the same image as another of the patient": telling.loc[telling.duplicated(["patient", "digest"]), "image"],
    }.items():
        for name in names:
            print(f"WARNING {name}: {what}", file=sys.stderr)


def _write_header(handle: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": shape})
