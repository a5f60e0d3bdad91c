"""What preprocess finds in all slices together: what is unusual, and images that patients share.

Of each slice nine bytes are kept, so that memory hardly grows with their number; of those that are unusual, the names.
"""

import bisect
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from brainseg.data.archive import Archive, Row
from brainseg.errors import Problem

USUAL = ({1}, {255}, {65535})  # labels of tumour in masks that have no other
ANY_LABEL = "_labels.npy"  # end of a mask of which ``folder`` knows that each label above 0 is tumour
MIXED = "_classes.npy"  # and of one with labels of which it knows that some are not
VOLUME_MEMBER = re.compile(r"(.+)_[0-9]{4,}(_mask|_labels|_classes)?\.npy")  # that ``folder`` made of a volume
_SHOWN = 8  # values that a message names


class SliceFacts(NamedTuple):
    """What is known of a slice that was read.

    ``digest``: sha256 of the original pixels; ``is_constant``: all of them are equal; ``labels``: the values of the
    original mask except 0; ``is_jpeg``: the mask was one; ``tumour_pixels``: on the grid.
    """

    digest: bytes
    is_constant: bool
    labels: frozenset[int]
    is_jpeg: bool
    tumour_pixels: int


class Findings:
    """Filled patient by patient, in the order of the archive's index.

    Args:
        foreground: the labels that count as tumour, if they are named.
    """

    def __init__(self, foreground: Iterable[int]):
        self.patients = self.slices = self.tumour = 0
        self._foreground = frozenset(foreground)
        # the first eight bytes of each: two of 400,000 images share them by chance once in 10^8 times
        self._digests = array("Q")
        self._is_telling = bytearray()  # read, and not constant
        self._ends = array("Q")  # of each patient
        self._labels: set[int] = set()
        self._of_patients: set[frozenset[int]] = set()  # labels of patients whose masks have one meaning
        self._of_whole: set[int] = set()  # labels of masks in which any is tumour
        self._jpegs = 0
        self._blank_volumes: Counter[str] = Counter()
        self._blank_names: dict[str, None] = {}
        self._repeated_names: dict[str, None] = {}
        self._without_tumour: list[tuple[str, frozenset[int]]] = []

    def add_patient(self, rows: list[Row], facts: list[SliceFacts | None]) -> None:
        """Add the slices of a patient; None: one that could not be read."""
        self.patients += 1
        self.slices += len(rows)
        self._ends.append(self.slices)
        seen: set[bytes] = set()
        for row, each in zip(rows, facts, strict=True):
            self._digests.append(0 if each is None else int.from_bytes(each.digest[:8]))
            self._is_telling.append(each is not None and not each.is_constant)
            if each is not None:
                self._add_slice(row, each, seen)
        read = [(row, each) for row, each in zip(rows, facts, strict=True) if each is not None]
        labels = frozenset().union(*(each.labels for _, each in read))
        self._labels |= labels
        if labels and self._foreground and not labels & self._foreground:
            self._without_tumour.append((rows[0].patient, labels))
        if whole := [each.labels for row, each in read if row.mask.endswith(ANY_LABEL)]:
            self._of_whole.update(*whole)
        else:
            self._of_patients.add(labels)

    def _add_slice(self, row: Row, facts: SliceFacts, seen: set[bytes]) -> None:
        self.tumour += facts.tumour_pixels > 0
        self._jpegs += facts.is_jpeg
        if facts.is_constant and VOLUME_MEMBER.fullmatch(row.image):
            self._blank_volumes[row.patient] += 1
        elif facts.is_constant:
            self._blank_names[row.image_file or row.image] = None
        elif facts.digest in seen:
            self._repeated_names[row.image_file or row.image] = None
        seen.add(facts.digest)

    def find_shared(self, source: Archive) -> tuple[list[Problem], list[Row]]:
        """Images that several patients have, and their rows: the model could be tested on what it was trained on."""
        groups = self._group_equal()
        wanted = {number for group in groups for number in group}
        rows = {number: row for number, row in enumerate(source.rows() if groups else ()) if number in wanted}
        what = "are the same image in different patients"
        problems = [
            Problem(", ".join(rows[number].image for number in group), what, "keep one of them") for group in groups
        ]
        return problems, list(rows.values())

    def _group_equal(self) -> list[list[int]]:
        """Numbers of slices with the same image, of more than one patient each; by the first of each."""
        digests, is_telling = np.frombuffer(self._digests, np.uint64), np.frombuffer(self._is_telling, bool)
        ordered = np.sort(digests[is_telling])
        several = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        numbers: Iterable[int] = np.flatnonzero(is_telling & np.isin(digests, several)) if len(several) else ()
        groups: dict[int, list[int]] = {}
        for number in numbers:
            groups.setdefault(int(digests[number]), []).append(int(number))
        return [group for group in groups.values() if self._find_patient(group[0]) != self._find_patient(group[-1])]

    def _find_patient(self, number: int) -> int:
        """The patient of a slice, counted from 0."""
        return bisect.bisect_right(self._ends, number)

    def warn(self) -> None:
        """Print on stderr what is unusual but not an error."""
        for told in self._describe():
            print(f"WARNING {told}", file=sys.stderr)

    def _describe(self) -> Iterator[str]:
        for patient, count in self._blank_volumes.items():
            yield f"{patient}: every pixel has the same value in {count} slices"
        if self._foreground:
            yield from self._describe_foreground()
        else:
            yield from self._describe_labels()
        for what, names in {
            "every pixel has the same value": self._blank_names,
            "the same image as another of the patient": self._repeated_names,
        }.items():
            yield from (f"{name}: {what}" for name in names)

    def _describe_labels(self) -> Iterator[str]:
        if self._of_whole:
            yield f"preprocess.foreground: each label above 0 was taken as tumour: {show(self._of_whole)}"
        if odd := self._of_patients - {frozenset(), *map(frozenset, USUAL)}:
            shown = show(frozenset().union(*odd))
            yield f"preprocess.foreground: masks hold {shown} as their only value above 0, which was taken as tumour"
        yield from self._describe_jpegs()

    def _describe_foreground(self) -> Iterator[str]:
        yield from self._describe_jpegs()
        for label in sorted(self._foreground - self._labels):
            yield f"preprocess.foreground: no mask holds {label}"
        for patient, labels in self._without_tumour:
            shown = ", ".join(map(str, sorted(labels)))
            yield f"{patient}: no tumour, its labels are {shown}: preprocess.foreground"

    def _describe_jpegs(self) -> Iterator[str]:
        if self._jpegs:
            yield f"{self._jpegs:,} masks are JPEG, taken as black and white: save masks as PNG or TIF"


def name_own_files(rows: Iterable[Row]) -> Mapping[str, str]:
    """Member → the user's own file, where the archive knows it."""
    named = (pair for row in rows for pair in ((row.image, row.image_file), (row.mask, row.mask_file)))
    return {member: own for member, own in named if own}


def show(values: Iterable[int]) -> str:
    """Up to eight values, the smallest first: ``0, 1, 4, ...``."""
    ordered = sorted(values)
    return ", ".join(map(str, ordered[:_SHOWN])) + (", ..." if len(ordered) > _SHOWN else "")
