"""Numbered pictures: those of one folder whose names differ in the number at their end alone are slices of one volume.

``X_mask.tif`` and ``X_seg.tif`` are masks and no inputs.
"""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from brainseg import errors
from brainseg.errors import DataError
from brainseg.inference import cases
from brainseg.inference.cases import Case
from brainseg.io import pictures

_MASK = re.compile(r"[_.](mask|seg)$", re.IGNORECASE)  # 3D Slicer writes X.seg.nrrd
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})", re.DOTALL)
_SHOWN = 3  # slices that a remark names


def find_image_stem(stem: str) -> str | None:
    """Of a name without its ending that says mask, the name of its image; else None."""
    mark = _MASK.search(stem)
    return stem[: mark.start()] if mark else None


def split_number(stem: str) -> tuple[str, int] | None:
    """A name without its ending as what stands before its number, and the number; None if it ends in none."""
    found = _NUMBERED.fullmatch(stem)
    return (found[1], int(found[2])) if found else None


class Order(NamedTuple):
    """The images among some pictures: their ``places``, by their ``numbers``. ``masks``: how many are none."""

    places: list[int]
    numbers: list[int]
    masks: int


def order(names: Sequence[str]) -> Order | None:
    """Put the slices of one volume in order, by their names, which may have folders. A single image has any name.

    None: there is no image, or they are not of one volume.
    """
    found: list[tuple[int, int]] = []
    groups, others, masks = set(), 0, 0
    for place, name in enumerate(names):
        ending = next((end for end in pictures.SUFFIXES if name.lower().endswith(end)), "")
        stem = name[: len(name) - len(ending)]
        folder, _, own = stem.rpartition("/")
        if find_image_stem(own) is not None:
            masks += 1
        elif split := split_number(own):
            groups.add((folder, split[0], ending))
            found.append((split[1], place))
        else:
            others += 1
            found.append((1, place))
    if len(found) != 1 and (others or len(groups) != 1):
        return None
    found.sort()
    return Order([place for _, place in found], [number for number, _ in found], masks)


def stack(slices: Sequence[Case], numbers: Sequence[int], name: str, fix: str = "") -> Case:
    """The case of slices that were read one by one.

    Args:
        slices: in order, each of one picture. numbers: ascending, for each slice.
        name: what errors call the volume. fix: what else a user can do, after "or".

    Raises:
        DataError: two of one number, or of different sizes or types.
    """
    alternative = f", or {fix}" if fix else ""
    double = next((a for a, b in itertools.pairwise(numbers) if a == b), None)
    if double is not None:
        what = f"are slices of which several are number {double}"
        raise DataError(name, what, f"give each its own number{alternative}")
    kinds = {(case.voxels.shape[1:], case.voxels.dtype.name) for case in slices}
    if len(kinds) > 1:
        shown = ", ".join(f"{' x '.join(map(str, shape))} {kind}" for shape, kind in sorted(kinds))
        remedy = f"save them in the same size and type{alternative}"
        raise DataError(name, f"are slices of different kinds: {shown}", remedy)
    voxels = np.concatenate([case.voxels for case in slices])
    remarks = (*cases.join_remarks(slices), *_describe_lone(numbers))
    return cases.make_case(name, "slices", voxels, None, remarks)._replace(numbers=tuple(numbers))


def describe_masks(count: int) -> list[str]:
    """That masks lay beside the images, without their names."""
    files = "1 file that is a mask by its name" if count == 1 else f"{count:,} files that are masks by their names"
    return [f"left out {files}"] if count else []


def _describe_lone(numbers: Sequence[int]) -> list[str]:
    """That slices whose numbers, ascending, have no neighbour are not cleaned as parts of a volume."""
    there = set(numbers)
    lone = [number for number in numbers if there.isdisjoint((number - 1, number + 1))]
    if not lone:
        return []
    shown = errors.show_some([str(number) for number in lone], _SHOWN)
    which = f"{len(lone):,} of {len(numbers):,} slices have no neighbours ({shown})"
    return [f"by their numbers {which}: each is taken alone"]
