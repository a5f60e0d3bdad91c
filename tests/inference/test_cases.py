"""What is read as one case, and series that are combined."""

import numpy as np
import pytest
from PIL import Image

from brainseg.errors import DataError
from brainseg.inference import cases
from tests.support import dicom_series, nifti_files

FLAIR_ALONE = ["FLAIR"] * 3


def test_a_picture_a_tif_of_pages_a_nifti_and_a_dicom_folder(tmp_path):
    pages = [Image.fromarray(np.full((16, 12), k, np.uint8)) for k in range(4)]
    pages[0].save(tmp_path / "one.png")
    pages[0].save(tmp_path / "many.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "scan.nii").write_bytes(nifti_files.encode(np.zeros((10, 12, 9), np.int16)))
    dicom_series.save_series(tmp_path / "series", np.zeros((3, 12, 10), np.uint16))
    found = {name: cases.read(tmp_path / name, name) for name in ("one.png", "many.tif", "scan.nii", "series")}
    assert [each.kind for each in found.values()] == ["picture", "tif", "nifti", "dicom"]
    assert found["one.png"].voxels.shape == (1, 16, 12) and found["many.tif"].voxels[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert all(each.channels == FLAIR_ALONE for each in found.values())
    assert found["one.png"].pixel == (1, 1) and found["scan.nii"].pixel == found["scan.nii"].volume.spacing[:2]


def test_three_channels_are_the_models(tmp_path):
    colours = np.zeros((16, 12, 3), np.uint8)
    colours[3, 4, 2] = 1
    Image.fromarray(colours).save(tmp_path / "a.png")
    assert cases.read(tmp_path / "a.png", "a").channels == ["pre-contrast", "FLAIR", "post-contrast"]


def test_gray_saved_as_rgb_is_flair_alone(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (16, 12, 9)).astype(np.uint8)
    thrice = np.stack([gray] * 3, -1)
    pages = [Image.fromarray(page) for page in np.moveaxis(thrice, 2, 0)]
    for name in ("a.png", "a.jpg", "one.tif"):
        pages[0].save(tmp_path / name)
    pages[0].save(tmp_path / "many.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "4d.nii").write_bytes(nifti_files.encode(thrice.astype(np.float32)))
    rgb24 = np.ascontiguousarray(thrice).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    (tmp_path / "rgb.nii").write_bytes(nifti_files.encode(rgb24))
    for path in (path for path in tmp_path.iterdir() if path.is_file()):
        assert cases.read(path, path.name).channels == FLAIR_ALONE, path.name


def test_gray_saved_as_rgb_is_a_series_of_one_channel(tmp_path):
    flair, post = nifti_case(tmp_path, 2, "flair"), nifti_case(tmp_path, 3, "post")
    thrice = post._replace(voxels=np.stack([post.voxels] * 3, -1))
    assert cases.combine({"flair": flair, "post": thrice}, "both").voxels[0, 0, 0].tolist() == [2, 2, 3]


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        cases.read(tmp_path / "gone.png", "gone.png")


@pytest.mark.parametrize(
    ("name", "fix"),
    [("a.MNC", "mri_convert"), ("a.raw", "name its header")],
)
def test_other_kinds_of_volumes_are_refused_with_what_makes_a_nifti(tmp_path, name, fix):
    (tmp_path / name).write_bytes(b"voxels")
    with pytest.raises(DataError, match="is of a kind that is not read") as caught:
        cases.read(tmp_path / name, f"in/{name}")
    assert fix in caught.value.problems[0].fix


def nifti_case(tmp_path, value: int, name: str, **options) -> cases.Case:
    path = tmp_path / f"{name}.nii"
    path.write_bytes(nifti_files.encode(np.full((10, 12, 9), value, np.int16), **options))
    return cases.read(path, name)


def test_series_of_one_place_become_channels_and_flair_fills_what_is_missing(tmp_path):
    flair, post = nifti_case(tmp_path, 2, "flair"), nifti_case(tmp_path, 3, "post")
    whole = cases.combine({"flair": flair, "post": post}, "both")
    assert whole.voxels[0, 0, 0].tolist() == [2, 2, 3] and whole.channels == ["FLAIR", "FLAIR", "post-contrast"]
    assert whole.volume.geometry.shape == flair.volume.geometry.shape
    assert cases.combine({"flair": flair}, "one") is flair


def test_series_that_do_not_belong_together_are_refused(tmp_path):
    flair = nifti_case(tmp_path, 2, "flair")
    moved = nifti_files.AFFINE.copy()
    moved[0, 3] += 50
    others = {
        "elsewhere": nifti_case(tmp_path, 1, "moved", affine=moved),
        "is \\(12, 10, 8\\)": flair._replace(voxels=flair.voxels[..., :8]),
        "uint8": flair._replace(voxels=flair.voxels.astype(np.uint8)),
        "three channels": flair._replace(voxels=np.stack([flair.voxels, flair.voxels, flair.voxels + 1], -1)),
        "different kinds": flair._replace(volume=None),
    }
    for why, other in others.items():
        with pytest.raises(DataError, match=why):
            cases.combine({"flair": flair, "pre": other}, "x")
    for parts in ({"pre": flair}, {"flair": flair, "t2": flair}):
        with pytest.raises(DataError):
            cases.combine(parts, "x")


def test_numbered_slices_are_paired_by_their_numbers():
    def series(kind: str, numbers: tuple[int, ...]) -> cases.Case:
        return cases.make_case("x", kind, np.zeros((3, 8, 8), np.uint8), None)._replace(numbers=numbers)

    flair = series("slices", (1, 2, 3))
    for same in (series("slices", (1, 2, 3)), series("tif", ())):  # pages are numbered from 1
        assert cases.combine({"flair": flair, "pre": same}, "x").numbers == (1, 2, 3)
    for pre, given in ((series("slices", (5, 6, 7)), flair), (series("tif", ()), series("slices", (2, 3, 4)))):
        with pytest.raises(DataError, match="x, pre-contrast: has other slice numbers than the FLAIR"):
            cases.combine({"flair": given, "pre": pre}, "x")
