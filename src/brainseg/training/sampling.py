"""Which slices an epoch trains on, and in which order: a pure function of the seed and the epoch's number."""

import numpy as np


def sample_epoch(
    has_tumour: np.ndarray, epoch: int, seed: int, batch_size: int, tumour_share: float | None
) -> np.ndarray:
    """Positions of the samples of one epoch, in whole batches.

    An epoch has as many samples as there are slices, rounded down to whole batches (at least one). ``tumour_share`` of
    them are slices with tumour. Of the slices with tumour each is used once before any is used again, across epochs
    too; the same holds for the others.

    Args:
        has_tumour: (N,) bool, one for each training slice.
        epoch: counted from 0.
        seed: of the order.
        batch_size: samples of a batch.
        tumour_share: share of slices with tumour; None: their share among the slices.

    Returns:
        (samples,) int64 positions into ``has_tumour``.
    """
    total = max(batch_size, len(has_tumour) // batch_size * batch_size)
    tumour, empty = np.flatnonzero(has_tumour), np.flatnonzero(~has_tumour)
    share = has_tumour.mean() if tumour_share is None else tumour_share
    if len(tumour) == 0 or len(empty) == 0:
        share = float(len(tumour) > 0)
    n_tumour = round(share * total)
    rows = np.concatenate([
        _take_turns(tumour, epoch * n_tumour, n_tumour, (seed, 1)),
        _take_turns(empty, epoch * (total - n_tumour), total - n_tumour, (seed, 0)),
    ])  # fmt: skip
    return np.random.default_rng((seed, 2, epoch)).permutation(rows)


def _take_turns(rows: np.ndarray, start: int, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """``count`` entries, from ``start`` on, of an endless sequence of random permutations of ``rows``."""
    if count == 0:
        return rows[:0]
    first, last = start // len(rows), (start + count - 1) // len(rows)
    turns = [np.random.default_rng((*seed, turn)).permutation(rows) for turn in range(first, last + 1)]
    offset = start - first * len(rows)
    return np.concatenate(turns)[offset : offset + count]
