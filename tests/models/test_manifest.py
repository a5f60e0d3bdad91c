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


def test_any_wrong_bit_is_found(tmp_path):
    """Of the fingerprints too: else patients that were trained on would be taken for new ones."""
    path = tmp_path / "unet.json"
    manifest.write(path, manifest.Manifest.model_validate(run_files.manifest(seen=["0" * 64])))
    whole = path.read_bytes()
    before = manifest.read(path)
    for place in range(0, 8 * len(whole), 13):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            assert manifest.read(path) == before  # another space
        except IntegrityError:
            continue


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


def test_data_are_checked_by_the_digests_that_the_manifest_has(tmp_path):
    """Early manifests have none of slices.csv and brains.npy; one of the others that is missing is a fault."""
    names = ("images_sha256", "masks_sha256", "brains_sha256", "slices_sha256", "split_sha256")
    here = {name: name[0] * 64 for name in names}
    model = manifest.Manifest.model_validate(run_files.manifest()).model_copy(update={"data": here})
    manifest.check_data(model, here, tmp_path)
    for name in names:
        with pytest.raises(IntegrityError, match=f"{name} is 0, the model was trained with {name[0] * 64}"):
            manifest.check_data(model, here | {name: "0"}, tmp_path)
        early = model.model_copy(update={"data": {key: value for key, value in here.items() if key != name}})
        if name in ("slices_sha256", "brains_sha256"):
            manifest.check_data(early, here, tmp_path)
        else:
            with pytest.raises(IntegrityError, match="trained with None"):
                manifest.check_data(early, here, tmp_path)
