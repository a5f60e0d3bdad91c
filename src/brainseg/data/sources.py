"""Where slices come from: LGG, a folder of one's own, or phantoms."""

from collections.abc import Iterator

from brainseg import config
from brainseg.data import folder, kaggle
from brainseg.data.archive import Pair
from brainseg.data.phantom import cohort as phantoms


def pairs(download: config.Download, phantom: config.Phantom) -> Iterator[Pair]:
    """The pairs of ``download.source``, sorted by patient and slice, drawn or read one at a time.

    A source that can be verified raises at the end at the latest: an archive is good only if all pairs came.
    """
    if download.source == "kaggle":
        return kaggle.pairs()
    if download.source == "folder":
        return folder.pairs(download)
    return phantoms.pairs(phantom)
