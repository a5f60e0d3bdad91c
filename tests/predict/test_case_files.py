"""A case from its files: what is unpacked from a zip lies side by side and overwrites nothing."""

import zipfile

import numpy as np
import pytest

from brainseg.inference import cases
from brainseg.predict import case_files, discover

pytest.importorskip("SimpleITK")
from tests.support import itk_files, nifti_files

VOXELS = np.random.default_rng(0).integers(0, 250, (8, 9, 10)).astype(np.int16)


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
def test_voxels_named_as_the_unpacked_header_do_not_overwrite_it(tmp_path, ending):
    path = itk_files.write(tmp_path / f"a.{ending}", VOXELS, nifti_files.AFFINE)
    whole = cases.read(path, "a")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"a.{ending}", path.read_text().replace("a.raw", f"member.{ending}"))
        archive.write(tmp_path / "a.raw", f"member.{ending}")
    (tmp_path / "scratch").mkdir()
    found = discover.find([str(tmp_path / "a.zip")], tmp_path / "scratch")
    [source] = [source for source in found.sources if source.files[0].name == f"a.{ending}"]
    case = case_files.read(source, tmp_path / "scratch", cases.read)
    np.testing.assert_array_equal(case.voxels, whole.voxels)
    assert not list((tmp_path / "scratch").iterdir())
