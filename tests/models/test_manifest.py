"""models/unet.json: read whole or refused, and written to the byte."""

import json

import pytest

from brainseg.errors import IntegrityError
from brainseg.models import manifest
from tests.support import run_files
from tests.support.locked import released_manifest


def test_what_is_read_is_written_to_the_byte(tmp_path):
    """The released model is older than ``onednn``, which must not appear in it."""
    path = tmp_path / "unet.json"
    path.write_text(json.dumps(released_manifest(run_files.ROOT), indent=1) + "\n")
    manifest.write(tmp_path / "again.json", manifest.read(path))
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_an_exported_model_carries_neither_layers_nor_patients():
    model = manifest.Manifest.model_validate(run_files.manifest())
    assert model.exported() == {
        name: part for name, part in run_files.manifest().items() if name not in ("seen", "layers")
    }


@pytest.mark.parametrize(("change", "what"), [
    ({"format": 2}, "format: Input should be 3"), ({"more": 1}, "more: Extra inputs"),
    ({"contract": {"size": [256]}}, "contract.size"), ({"network": {"depth": None}}, "network.depth"),
])  # fmt: skip
def test_another_manifest_is_refused_by_its_key(change, what, tmp_path):
    path = tmp_path / "unet.json"
    path.write_text(json.dumps(run_files.manifest(**change)))
    with pytest.raises(IntegrityError, match=f"not a manifest of this version: .*{what}") as error:
        manifest.read(path)
    assert error.value.problems[0].fix == manifest.REMEDY
