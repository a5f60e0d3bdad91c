"""Each value of ``download.source`` selects its source."""

import pytest

from brainseg import config
from brainseg.data import folder, kaggle, sources
from brainseg.data.phantom import cohort


@pytest.mark.parametrize("source", ["kaggle", "folder", "phantom"])
def test_every_source_of_the_params_is_wired(source, monkeypatch):
    for module, pairs in ((kaggle, kaggle.pairs), (folder, folder.pairs), (cohort, cohort.pairs)):
        monkeypatch.setattr(module, pairs.__name__, lambda *_, name=module.__name__: name)
    drawn = config.Phantom(patients=1, slices=1, size=64, seed=0)
    download = config.Download(source=source, path=None, images="*", masks="*", patient="folder")
    assert source in sources.pairs(download, drawn).split(".")
