"""Where slices come from: LGG, a folder of the user, or phantoms."""

from collections.abc import Iterator

from brainseg import config
from brainseg.data import folder, kaggle
from brainseg.data.archive import Pair
from brainseg.data.phantom import cohort as phantoms


def pairs(download: config.Download, phantom: config.Phantom) -> Iterator[Pair]:
    """The pairs of ``download.source``, sorted by patient and slice, drawn or read one at a time.

    A source may find a fault only after its last pair, so an archive is good only if all pairs were taken.
    """
    if download.source == "kaggle":
        return kaggle.pairs()
    if download.source == "folder":
        return folder.pairs(download)
    return phantoms.pairs(phantom)
