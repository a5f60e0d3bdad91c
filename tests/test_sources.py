"""``download.source`` leads to its source."""

import pytest

from brainseg import config, folder, kaggle, phantom, sources


@pytest.mark.parametrize("source", ["kaggle", "folder", "phantom"])
def test_every_source_of_the_params_is_wired(source, monkeypatch):
    for module in (kaggle, folder, phantom):
        monkeypatch.setattr(module, "pairs", lambda *_, name=module.__name__: name)
    drawn = config.Phantom(patients=1, slices=1, size=64, seed=0)
    download = config.Download(source=source, path=None, images="*", masks="*", patient="folder")
    assert sources.pairs(download, drawn) == f"brainseg.{source}"
