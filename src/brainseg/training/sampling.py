"""Which slices an epoch trains on, and in which order: a pure function of the seed and the epoch's number."""

from functools import partial

import numpy as np

OF_PATIENTS = 4  # with 1 more: the second number of the seeds of each patient's own order; 0 to 2 are used above


def sample_epoch(
    has_tumour: np.ndarray, epoch: int, seed: int, batch_size: int, tumour_share: float | None,
    patients: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Positions of the samples of one epoch, in whole batches.

    An epoch has as many samples as there are slices, rounded down to whole batches (at least one). ``tumour_share`` of
    them are slices with tumour. Of the slices with tumour each is used once before any is used again, across epochs
    too; the same holds for the others. With ``patients`` each patient is used once before any is used again, and of its
    slices in the same way: those with few slices with tumour are seen as often as the others (as in Buda et al., 2019).

    Args:
        has_tumour: (N,) bool, one for each training slice.
        epoch: counted from 0.
        seed: of the order.
        batch_size: samples of a batch.
        tumour_share: share of slices with tumour; None: their share among the slices.
        patients: (N,) the patient of each slice; None: slices are drawn alike, whosever they are.

    Returns:
        (samples,) int64 positions into ``has_tumour``.
    """
    total = max(batch_size, len(has_tumour) // batch_size * batch_size)
    tumour, empty = np.flatnonzero(has_tumour), np.flatnonzero(~has_tumour)
    share = has_tumour.mean() if tumour_share is None else tumour_share
    if len(tumour) == 0 or len(empty) == 0:
        share = float(len(tumour) > 0)
    n_tumour = round(share * total)
    n_empty = total - n_tumour
    kinds = (tumour, epoch * n_tumour, n_tumour, (seed, 1)), (empty, epoch * n_empty, n_empty, (seed, 0))
    take = _take_turns if patients is None else partial(_take_patients, patients)
    rows = np.concatenate([take(*kind) for kind in kinds])
    return np.random.default_rng((seed, 2, epoch)).permutation(rows)


def _take_turns(rows: np.ndarray, start: int, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """``count`` entries, from ``start`` on, of an endless sequence of random permutations of ``rows``."""
    if count == 0:
        return rows[:0]
    first, last = start // len(rows), (start + count - 1) // len(rows)
    turns = [np.random.default_rng((*seed, turn)).permutation(rows) for turn in range(first, last + 1)]
    offset = start - first * len(rows)
    return np.concatenate(turns)[offset : offset + count]


def _take_patients(
    patients: np.ndarray, rows: np.ndarray, start: int, count: int, seed: tuple[int, ...]
) -> np.ndarray:  # fmt: skip
    """The same, where a turn has one row of each patient: the next of an endless sequence of its own permutations."""
    if count == 0:
        return rows[:0]
    own = _group(rows, patients[rows])
    first, last = start // len(own), (start + count - 1) // len(own)
    turns = np.empty((last - first + 1, len(own)), rows.dtype)
    for turn, taken in enumerate(turns, first):
        for position, place in enumerate(np.random.default_rng((*seed, turn)).permutation(len(own))):
            taken[position] = _take_turns(own[place], turn, 1, (seed[0], OF_PATIENTS + seed[1], int(place)))[0]
    offset = start - first * len(own)
    return turns.ravel()[offset : offset + count]


def _group(rows: np.ndarray, patients: np.ndarray) -> list[np.ndarray]:
    """The rows of each patient, in their order, patients sorted."""
    _, codes = np.unique(patients, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(codes[order])) + 1)
