"""Real LGG slices for tests: ``BRAINSEG_TEST_LGG`` names a zip or a folder of all patients or of some."""

import os
from pathlib import Path

import pytest

from brainseg.data import kaggle
from brainseg.io import untrusted_zip


def archive() -> tuple[Path, dict[str, kaggle.ExpectedPatient]]:
    """Where it is and what ``lgg.csv`` says of the patients that it holds; skips the calling test when unset."""
    if not (place := os.environ.get("BRAINSEG_TEST_LGG")):
        pytest.skip("needs BRAINSEG_TEST_LGG, a zip or folder of LGG patients")
    store = untrusted_zip.open_files(Path(place).absolute())
    store.close()
    folders = {part for name in store.sizes for part in Path(name).parts[:-1]}
    return store.path, {patient: row for patient, row in kaggle.read_table().items() if patient in folders}


def whole_archive() -> Path:
    """Where it is; skips the calling test unless it holds all patients."""
    path, table = archive()
    if len(table) < len(kaggle.read_table()):
        pytest.skip("needs all LGG patients in BRAINSEG_TEST_LGG")
    return path
