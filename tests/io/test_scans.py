"""Own volumes, from a folder to slices: NIfTI in any orientation, DICOM series, TIFs of several pages."""

import io
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainseg import config
from brainseg.data import archive, folder, preprocessing
from brainseg.data.phantom import cohort
from brainseg.errors import DataError
from brainseg.io import pictures, scans, volumes

nibabel = pytest.importorskip("nibabel")
from tests.support.nifti_files import ORIENTATIONS, nifti  # noqa: E402


def head(seed: int, slices: int = 5, height: int = 12, width: int = 10, dtype: str = "int16") -> np.ndarray:
    """Axial slices (S, H, W) in display order."""
    return np.random.default_rng(seed).integers(0, 200, (slices, height, width)).astype(dtype)


def outline(shape: tuple[int, ...], *labels: int) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for number, label in enumerate(labels):
        mask[1 + number, 2:5, 1:7] = label
    return mask


def slices_of(root: Path, **changes) -> list[archive.Pair]:
    """The pairs of a folder; patterns and patients for volumes in images/ and masks/, except for ``changes``."""
    flat = {"images": "images/*", "masks": "masks/*", "patient": "each_volume"}
    return list(folder.pairs(config.Download(source="folder", path=str(root), **flat | changes)))


def stacked(pairs: list[archive.Pair], kind: str) -> np.ndarray:
    return np.stack([pictures.decode(getattr(pair, kind), "a") for pair in pairs])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_volume_comes_as_axial_slices_in_every_orientation(tmp_path, orientation):
    voxels, mask = head(0), outline((5, 12, 10), 1, 1)
    nifti(tmp_path / "images/a.nii.gz", voxels, orientation)
    nifti(tmp_path / "masks/a.nii.gz", mask, ORIENTATIONS[7])
    pairs = slices_of(tmp_path)
    np.testing.assert_array_equal(stacked(pairs, "image"), voxels)
    np.testing.assert_array_equal(stacked(pairs, "mask"), mask)
    assert [(pair.patient, pair.slice, pair.spacing) for pair in pairs] == [
        ("a", n, "1.1 x 0.9 x 5") for n in range(1, 6)
    ]


def test_three_channels_and_8_bits_come_as_they_are(tmp_path):
    """Phantoms as TIFs and as NIfTI volumes give the same arrays."""
    drawn = list(cohort.pairs(config.Phantom(patients=2, slices=5, size=64, seed=1)))
    for name in sorted({pair.patient for pair in drawn}):
        mine = [pair for pair in drawn if pair.patient == name]
        nifti(tmp_path / f"images/{name}.nii.gz", stacked(mine, "image"), ORIENTATIONS[29], rows=0.9)
        nifti(tmp_path / f"masks/{name}.nii.gz", stacked(mine, "mask") // 255, ORIENTATIONS[11], rows=0.9)
    settings = config.Preprocess(size=64, channels="all", foreground=None, window=[0.5, 99.5])
    for name, pairs in (("tif", drawn), ("nifti", slices_of(tmp_path))):
        archive.write(tmp_path / f"{name}.zip", pairs)
        preprocessing.run(tmp_path / f"{name}.zip", settings, tmp_path / name)
    for array in ("images.npy", "masks.npy"):
        assert (tmp_path / "tif" / array).read_bytes() == (tmp_path / "nifti" / array).read_bytes()


def test_labels_depth_and_spacing_reach_the_arrays(tmp_path):
    voxels = head(3, dtype="float32") * 7.5
    nifti(tmp_path / "images/a.nii", voxels)
    nifti(tmp_path / "masks/a.nii", outline((5, 12, 10), 1, 2, 4))
    archive.write(tmp_path / "slices.zip", slices_of(tmp_path))
    settings = config.Preprocess(size=32, channels="all", foreground=[1, 4], window=[0, 100])
    preprocessing.run(tmp_path / "slices.zip", settings, tmp_path / "out")
    images = np.load(tmp_path / "out/images.npy")
    masks = np.load(tmp_path / "out/masks.npy")
    assert images.shape == (5, 32, 32, 3) and images.max() == 255
    assert masks.any(axis=(1, 2)).tolist() == [False, True, False, True, False]
    lines = (tmp_path / "out/slices.csv").read_text().splitlines()
    assert lines[1] == "0,a,unknown,1,0,a/a_0001.npy,0.4125 x 0.4125 x 5"


def tif(path: Path, pages: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(page) for page in pages]
    buffer = io.BytesIO()
    first.save(buffer, "TIFF", save_all=True, append_images=others)
    path.write_bytes(buffer.getvalue())


def test_pages_of_a_tif_are_a_volume_without_a_place(tmp_path):
    voxels, mask = head(1, dtype="uint16"), outline((5, 12, 10), 255)
    tif(tmp_path / "images/b.tif", voxels)
    tif(tmp_path / "masks/b.tif", mask)
    pairs = slices_of(tmp_path)
    np.testing.assert_array_equal(stacked(pairs, "image"), voxels)
    np.testing.assert_array_equal(stacked(pairs, "mask"), mask)
    assert {pair.spacing for pair in pairs} == {""}


def test_a_dicom_series_with_a_nifti_mask(tmp_path):
    pytest.importorskip("pydicom")
    from brainseg.io import nifti as files
    from brainseg.io.dicom import series_reader
    from tests.support.dicom_series import save, series

    (tmp_path / "scans").mkdir()
    volume = series_reader.read_series(save(tmp_path / "scans/p1", series()), "p1")
    labels = (volume.voxels > np.median(volume.voxels)).astype(np.uint8)
    (tmp_path / "masks").mkdir()
    files.write(tmp_path / "masks/p1.nii.gz", labels, volume.geometry)
    pairs = slices_of(tmp_path, images="scans/*/")
    np.testing.assert_array_equal(stacked(pairs, "image"), volume.voxels)
    np.testing.assert_array_equal(stacked(pairs, "mask"), labels)
    assert pairs[0].patient == "p1" and pairs[0].spacing
    save(tmp_path / "scans/p1/more", series())
    with pytest.raises(DataError, match="scans/p1: holds 2 folders of DICOM files"):
        slices_of(tmp_path, images="scans/*/")


def test_everything_wrong_with_volumes_is_one_list(tmp_path):
    nifti(tmp_path / "images/elsewhere.nii", head(0))
    nifti(tmp_path / "masks/elsewhere.nii", outline((5, 12, 10), 1), shift=3.0)
    nifti(tmp_path / "images/fine.nii", head(1))
    nifti(tmp_path / "masks/fine.nii", outline((5, 12, 10), 1))
    nifti(tmp_path / "images/shorter.nii", head(2))
    nifti(tmp_path / "masks/shorter.nii", outline((4, 12, 10), 1))
    nifti(tmp_path / "images/unplaced.nii", head(3))
    tif(tmp_path / "masks/unplaced.tif", outline((5, 12, 10), 1))
    nifti(tmp_path / "images/wrong.nii", head(4, dtype="float32") * np.nan)
    nifti(tmp_path / "masks/wrong.nii", outline((5, 12, 10), 1))
    with pytest.raises(DataError) as caught:
        archive.write(tmp_path / "raw/slices.zip", slices_of(tmp_path))
    found = {Path(p.path).relative_to(tmp_path).as_posix(): p.what for p in caught.value.problems}
    assert found["masks/elsewhere.nii"].startswith("lies elsewhere in space")
    assert found["masks/shorter.nii"] == "has 4 x 12 x 10 axial slices, rows and columns, its image 5 x 12 x 10"
    assert "one with a place in space and one without" in found["masks/unplaced.tif"]
    assert "NaN" in found["images/wrong.nii"]
    assert len(found) == 4 and not (tmp_path / "raw").exists()


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_the_command_for_a_mask_whose_header_was_lost_gives_it_the_place_of_its_image(tmp_path, orientation, dtype):
    nifti(tmp_path / "images/it's 1.nii", head(0, slices=9), orientation)
    expected = nifti(tmp_path / "expected.nii", outline((9, 12, 10), 1), orientation)
    lost = nibabel.Nifti1Image(np.asarray(nibabel.load(expected).dataobj).astype(dtype), np.eye(4), dtype=dtype)
    (tmp_path / "masks").mkdir()
    nibabel.save(lost, tmp_path / "masks/it's 1.nii")
    with pytest.raises(DataError, match="its header was lost") as caught:
        slices_of(tmp_path)
    _, _, code, *arguments = shlex.split("python -c " + caught.value.problems[0].fix.partition("python -c ")[2])
    assert not arguments
    exec(code, {})
    assert stacked(slices_of(tmp_path), "mask").sum() == outline((9, 12, 10), 1).sum()
    found, wanted = (scans.read_labels(path, "a") for path in (tmp_path / "masks/it's 1.nii", expected))
    np.testing.assert_array_equal(found.voxels, wanted.voxels)


def test_a_patient_has_one_volume_and_nothing_beside_it(tmp_path):
    """Two scans of one patient, given as two patients, would be in train and test: no fix advises that."""
    for name in ("p1_day1", "p1_day2"):
        nifti(tmp_path / f"images/{name}.nii", head(0))
        nifti(tmp_path / f"masks/{name}.nii", outline((5, 12, 10), 1))
    tif(tmp_path / "images/p1_7.tif", head(0, dtype="uint8")[:1])
    tif(tmp_path / "masks/p1_7.tif", outline((5, 12, 10), 1)[:1])
    with pytest.raises(DataError) as caught:
        slices_of(tmp_path, patient="(p1)_")
    assert [(Path(p.path).name, p.what) for p in caught.value.problems] == [
        ("p1_7.tif", "and images/p1_day2.nii, a volume, are both of patient p1"),
        ("p1_day1.nii", "and images/p1_day2.nii, a volume, are both of patient p1"),
    ]
    assert "each_volume" not in caught.value.problems[0].fix
    for name in ("images/p1_7.tif", "masks/p1_7.tif"):
        (tmp_path / name).unlink()
    assert len(slices_of(tmp_path)) == 10


@pytest.mark.parametrize("rule", ["folder", "each_volume", "(p[0-9])"])
def test_pages_of_a_tif_need_no_number(tmp_path, rule):
    for name in ("p1", "p2"):
        tif(tmp_path / f"{name}/brain.tif", head(0, dtype="uint16"))
        tif(tmp_path / f"{name}/brain_mask.tif", outline((5, 12, 10), 1))
    pairs = slices_of(tmp_path, images="**/*", masks="**/*_mask.*", patient=rule)
    assert [pair.slice for pair in pairs] == [1, 2, 3, 4, 5] * 2


def test_a_single_slice_has_no_window(tmp_path):
    tif(tmp_path / "images/a.tif", head(0, dtype="uint16")[:1])
    tif(tmp_path / "masks/a.tif", outline((5, 12, 10), 1)[:1])
    with pytest.raises(DataError, match=r"images/a\.tif: has more than 8 bits"):
        slices_of(tmp_path, patient="each_image")


def test_a_series_may_lie_deeper_and_masks_beside_it(tmp_path):
    """Exports nest folders. The folder of a mask, and the top one with its patients.csv, are not series."""
    pytest.importorskip("pydicom")
    from tests.support.dicom_series import save_series

    voxels = head(2, dtype="uint16")
    (tmp_path / "patients.csv").write_text("patient,institution\np1,North\n")
    save_series(tmp_path / "p1/study/series", voxels)
    path = tmp_path / "p1.nii.gz"
    straight = np.diag([-0.75, -1.25, 5.0, 1.0])
    straight[:2, 3] = 30, 40
    nibabel.save(nibabel.Nifti1Image(outline((5, 12, 10), 1).swapaxes(0, 2), straight), path)
    pairs = slices_of(tmp_path, images="*/", masks="*.nii.gz")
    np.testing.assert_array_equal(stacked(pairs, "image"), voxels)
    assert pairs[0].institution == "North"
    (tmp_path / "p1/study/series/link.dcm").symlink_to(tmp_path / "nowhere.dcm")
    with pytest.raises(DataError, match=r"p1/study/series/link\.dcm: is a link that leads nowhere"):
        slices_of(tmp_path, images="*/", masks="*.nii.gz")


def test_each_volume_wants_volumes(tmp_path):
    tif(tmp_path / "images/a.tif", head(0, dtype="uint8")[:1])
    tif(tmp_path / "masks/a.tif", outline((5, 12, 10), 1)[:1])
    with pytest.raises(DataError, match=r"images/a\.tif: is a single slice, not a volume"):
        slices_of(tmp_path)
    assert len(slices_of(tmp_path, patient="each_image")) == 1
    (tmp_path / "images/a.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"images/a\.tif: is empty"):
        slices_of(tmp_path)


def test_patients_csv_names_institutions(tmp_path):
    for name in ("a", "b"):
        nifti(tmp_path / f"images/{name}.nii", head(0))
        nifti(tmp_path / f"masks/{name}.nii", outline((5, 12, 10), 1))
    (tmp_path / "patients.csv").write_text("patient,age,institution\na,50,North\n")
    assert {pair.patient: pair.institution for pair in slices_of(tmp_path)} == {"a": "North", "b": "unknown"}
    for text, what in (
        ("patient,site\na,North\n", "has the columns patient, site"),
        (
            "patient,institution\nc,North\na,x\na,y\n",
            "patients.csv: c: no such patient.*patients.csv: a: is there twice",
        ),
        ("", "cannot be read"),
    ):
        (tmp_path / "patients.csv").write_text(text)
        with pytest.raises(DataError, match=what):
            slices_of(tmp_path)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_mask_goes_back_onto_its_volume(tmp_path, orientation):
    """A prediction on axial slices, written in the geometry of the input, has every voxel in its place."""
    from brainseg.io import nifti as files

    voxels, mask = head(0), outline((5, 12, 10), 1, 1)
    path = nifti(tmp_path / "a.nii.gz", voxels, orientation)
    volume = files.read_image(path, "a")
    files.write(tmp_path / "b.nii.gz", mask, volume.geometry)
    image, answer = nibabel.load(path), nibabel.load(tmp_path / "b.nii.gz")
    assert image.shape == answer.shape
    np.testing.assert_allclose(answer.affine, image.affine, atol=1e-5)
    values = np.asarray(image.dataobj)[np.asarray(answer.dataobj) == 1]
    assert sorted(values) == sorted(voxels[mask == 1])
    assert volumes.same_place(files.read_labels(tmp_path / "b.nii.gz", "b"), volume)
    np.testing.assert_array_equal(volumes.to_file_order(mask, volume.geometry), np.asarray(answer.dataobj))
