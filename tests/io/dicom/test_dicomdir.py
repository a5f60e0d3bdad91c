"""DICOMDIR: what it lists is an extra, and costs nothing where it cannot be read."""

import pytest

from brainseg.errors import DataError, MachineError, RunError
from brainseg.io.dicom import dicomdir, slice_header


@pytest.mark.parametrize("failure", [DataError, MachineError, RunError])
def test_one_that_cannot_be_read_names_no_missing_file(tmp_path, monkeypatch, failure):
    def fail(*_):
        raise failure("DICOMDIR", "what", "fix")

    monkeypatch.setattr(slice_header, "read_dataset", fail)
    assert dicomdir.find_missing(tmp_path / "DICOMDIR") == []
