"""From the archive to arrays on one square grid: images, binary masks and a table of the slices.

Patients are read by a pool of threads (decoding, resizing and reading release Python's lock) and written in order, so
that memory does not grow with their number. All images of a patient are held at once if they have more than 8 bits,
since they share one intensity window.
"""

import csv
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, TextIO

import cv2
import numpy as np
from tqdm import tqdm

from brainseg import config, files, hardware
from brainseg.data.archive import Archive, Row
from brainseg.data.findings import ANY_LABEL, MIXED, USUAL, VOLUME_MEMBER, Findings, SliceFacts, name_own_files, show
from brainseg.data.stored_zip import Member
from brainseg.errors import BrainsegError, DataError, IntegrityError, Problem, raise_all
from brainseg.io import grid, intensity, pictures, spacing
from brainseg.io.grid import SQUARE, PixelSize

_NAME_LABELS = "name the labels that are tumour: preprocess.foreground; threshold a grey picture"
_MOST_LABELS = 8  # parts that a tumour may have; a parcellation of the brain has dozens


class PreparedSlice(NamedTuple):
    """A slice on the grid.

    ``image`` (S, S, 3) uint8; of more than 8 bits it keeps its type and size until its volume's window is known;
    ``mask`` (S, S) uint8 in {0, 1}; ``extent``: length of the longer side, in mm where the spacing is known.
    """

    image: np.ndarray
    mask: np.ndarray
    extent: float
    facts: SliceFacts


class Outs(NamedTuple):
    """The files that preprocess writes, open: two arrays and a table."""

    images: BinaryIO
    masks: BinaryIO
    table: TextIO


Outcome = PreparedSlice | BrainsegError


def run(path: Path, params: config.Preprocess, out: Path) -> str:
    """Write ``images.npy`` (N, S, S, 3), ``masks.npy`` (N, S, S) and ``slices.csv`` into ``out``, in the index's order.

    Warns on stderr about constant images, identical images of a patient, and labels that no mask has.

    Raises:
        DataError: every fault of every slice: missing, unreadable, sizes that differ, masks of several labels where
            none are named, patients that share an image.
        IntegrityError: ``path`` is not what download wrote; faults that were found before are listed with it.
    """
    with Archive(path) as source, _open_outs(out) as outs:
        shape = (sum(1 for _ in source.rows()), params.size, params.size)
        _write_header(outs.images, (*shape, 3))
        _write_header(outs.masks, shape)
        found = _convert(source, params, outs, shape[0])
    found.warn()
    side = params.size
    told = f"{found.slices:,} slices of {found.patients:,} patients at {side}x{side}, {found.tumour:,} with tumour"
    return f"{out}: {told}"


@contextmanager
def _open_outs(out: Path) -> Iterator[Outs]:
    """Files that take their place when the block succeeds."""
    with (
        files.replacing(out / "images.npy") as images_path,
        files.replacing(out / "masks.npy") as masks_path,
        files.replacing(out / "slices.csv") as table_path,
        open(images_path, "wb") as images,
        open(masks_path, "wb") as masks,
        open(table_path, "w", newline="", encoding="utf-8") as table,
    ):
        yield Outs(images, masks, table)


def _convert(source: Archive, params: config.Preprocess, outs: Outs, count: int) -> Findings:
    """Write all slices and return what was found in them."""
    cv2.setNumThreads(1)  # the pool's threads are the parallelism
    found, faults, own = Findings(params.foreground or ()), list[BrainsegError](), dict[str, str]()
    table, workers = csv.writer(outs.table, lineterminator="\n"), min(8, hardware.processors())
    table.writerow(("row", "patient", "institution", "slice", "tumour_pixels", "source", "spacing"))
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=count, desc="preprocess", unit="slices", mininterval=0.5, disable=None) as bar,
    ):
        prepare = partial(_prepare_patient, source, params=params)
        for rows, outcomes in _map_in_order(pool, prepare, _until_damaged(source, faults), ahead=2 * workers):
            first = found.slices
            found.add_patient(rows, [None if isinstance(each, BrainsegError) else each.facts for each in outcomes])
            wrong = [each for each in outcomes if isinstance(each, BrainsegError)]
            faults += wrong
            own |= name_own_files(rows) if wrong else {}
            if not faults:
                _write_patient(outs, table, first, rows, outcomes, params.size)
            bar.update(len(rows))
    problems, sharing = found.find_shared(source)
    shared = [DataError("", problems=problems)] if problems else []
    _raise_faults([*faults, *shared], {**own, **name_own_files(sharing)})
    return found


def _until_damaged(source: Archive, faults: list[BrainsegError]) -> Iterator[tuple[list[Row], dict[str, Member]]]:
    """The patients of an archive; what keeps it from being read on becomes a fault, and they end."""
    try:
        yield from source.patients()
    except IntegrityError as error:
        faults.append(error)


def _write_patient(
    outs: Outs, table: Any, first: int, rows: list[Row], outcomes: list[PreparedSlice], size: int
) -> None:
    """Write the slices of a patient, of which the ``first`` is the so many-th of all."""
    for number, (row, each) in enumerate(zip(rows, outcomes, strict=True), first):
        outs.images.write(each.image.data)
        outs.masks.write(each.mask.data)
        sides = _convert_spacing(row.spacing, each.extent / size)
        table.writerow((number, *row[:3], each.facts.tumour_pixels, row.image, sides))


def _prepare_patient(
    source: Archive, patient: tuple[list[Row], Mapping[str, Member]], params: config.Preprocess
) -> tuple[list[Row], list[Outcome]]:
    """A patient's slices on the grid, or the fault of each. The window of deep images needs all of them."""
    rows, members = patient
    outcomes: list[Outcome] = []
    for row in rows:
        try:
            outcomes.append(_prepare_slice(source, row, members, params))
        except (DataError, IntegrityError) as error:
            outcomes.append(error)
    return rows, _share_window(rows, outcomes, params)


def _share_window(rows: list[Row], outcomes: list[Outcome], params: config.Preprocess) -> list[Outcome]:
    """Check what a patient's masks hold together; give images of more than 8 bits one window, and resize them."""
    read = {i: each for i, each in enumerate(outcomes) if isinstance(each, PreparedSlice)}
    if not read:
        return outcomes
    first = next(iter(read))
    labels = sorted(frozenset().union(*(each.facts.labels for each in read.values())))
    if params.foreground is None and (what := _describe_labels(labels, rows[first].mask)):
        outcomes[first] = DataError(rows[first].mask, what, _NAME_LABELS)
    if all(each.image.dtype == np.uint8 for each in read.values()):
        return outcomes
    kinds = {_describe_pixels(each.image) for each in read.values()}
    if len(kinds) > 1:
        what = f"and other slices of the patient are of different kinds ({'; '.join(sorted(kinds))})"
        outcomes[first] = DataError(rows[first].image, what, "save all slices of a patient in the same way")
        return outcomes
    ends = intensity.find_window([each.image for each in read.values()], (params.window[0], params.window[1]))
    for i, each in read.items():
        if isinstance(outcomes[i], PreparedSlice):
            image = grid.resize_image(intensity.to_uint8(each.image, ends), params.size, _read_pixel(rows[i].spacing))
            outcomes[i] = each._replace(image=image)
    return outcomes


def _describe_labels(labels: list[int], mask_name: str) -> str:
    """What is wrong with the labels of all masks of a patient, where none are named; empty if nothing is."""
    if not mask_name.endswith(ANY_LABEL):
        what = f"and other masks of the patient hold different values above 0 ({show(labels)})"
        return what if len(labels) > 1 else ""
    what = f"and other masks of the patient hold {len(labels)} labels ({show(labels)}), more than the parts of a tumour"
    return what if len(labels) > _MOST_LABELS else ""


def _raise_faults(faults: list[BrainsegError], own: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raise one error for all faults, by ``own`` files: IntegrityError if any fault is one, else DataError."""
    kind = IntegrityError if any(isinstance(fault, IntegrityError) for fault in faults) else DataError
    raise_all(_group_by_volume([problem for fault in faults for problem in fault.problems], own), kind)


def _group_by_volume(problems: list[Problem], own: Mapping[str, str]) -> list[Problem]:
    """Problems with the same fix in slices of one volume become one problem, named by the volume."""
    groups: dict[tuple, list[Problem]] = {}
    for problem in problems:
        volume = VOLUME_MEMBER.fullmatch(problem.path)
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


def _prepare_slice(
    source: Archive, row: Row, members: Mapping[str, Member], params: config.Preprocess
) -> PreparedSlice:
    """Decode, check and resize the pair of a row; an image of more than 8 bits is not resized.

    Raises:
        DataError: every fault of the two.
        IntegrityError: the same, if the archive was changed.
    """
    decoded: list[np.ndarray] = []
    faults: list[BrainsegError] = []
    for name, decode in ((row.image, pictures.decode), (row.mask, pictures.decode_labels)):
        try:
            if name not in members:
                raise DataError(name, "is missing from the archive", "add the file, then: dvc repro download")
            data = source.read(members[name])
            decoded.append(decode(data, name))
        except (DataError, IntegrityError) as error:
            faults.append(error)
    _raise_faults(faults)
    image, mask = decoded  # and ``data`` are the bytes of the mask, which comes second
    labels = frozenset(_find_labels(mask))
    if params.foreground is None and row.mask.endswith(ANY_LABEL):
        mask = (mask > 0).view(np.uint8)
    raise_all(check_pair(image, mask, row.mask, params.foreground))
    pixel = _read_pixel(row.spacing)
    digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
    if params.foreground is not None:
        mask = np.isin(mask, params.foreground).view(np.uint8)
    constant, extent = bool(image.min() == image.max()), float(max(np.multiply(mask.shape, pixel)))
    shown = grid.select_channels(image, params.channels)
    shown = grid.resize_image(shown, params.size, pixel) if shown.dtype == np.uint8 else shown
    prepared = grid.resize_mask(mask, params.size, pixel)
    facts = SliceFacts(digest, constant, labels, pictures.is_jpeg(data), int(np.count_nonzero(prepared)))
    return PreparedSlice(shown, prepared, extent, facts)


def check_pair(image: np.ndarray, mask: np.ndarray, name: str, foreground: list[int] | None = None) -> list[Problem]:
    """Faults of a mask: another shape than its image; where no labels are named, values that can be none."""
    if mask.shape != image.shape[:2]:
        what = f"the mask has shape {mask.shape}, its image {image.shape}"
        return [Problem(name, what, "pair each image with the mask drawn on it")]
    labels = _find_labels(mask)
    has_background = bool(np.count_nonzero(mask) < mask.size)
    is_mixed = bool(labels) and name.endswith(MIXED)
    if foreground is not None or (not is_mixed and ((has_background and len(labels) <= 1) or set(labels) in USUAL)):
        return []
    values = ([0] if has_background else []) + labels
    what = f"the mask holds {len(values)} values ({show(values)}), "
    what += "of which one may be tumour" if has_background else "and none is 0, the background"
    what = f"{what}; some are none by dataset.json" if is_mixed else what
    return [Problem(name, what, _NAME_LABELS)]


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


def _write_header(handle: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": shape})
