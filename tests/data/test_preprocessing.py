"""From the archive to arrays: the right pixels in the right order, and every fault in one list."""

import io
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brainseg import config, hardware
from brainseg.data import archive, dataset, preprocessing, splitting
from brainseg.errors import DataError, IntegrityError
from brainseg.io import intensity, pictures

RNG = np.random.default_rng(0)


def params(size: int = 32, **changes) -> config.Preprocess:
    values = {"size": size, "channels": "all", "foreground": None, "window": [0.5, 99.5]}
    return config.Preprocess(**values | changes)


def png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def tif(*pages) -> bytes:
    buffer = io.BytesIO()
    first, *rest = [Image.fromarray(np.asarray(page, np.uint8)) for page in pages]
    first.save(buffer, format="TIFF", save_all=bool(rest), append_images=rest)
    return buffer.getvalue()


def noise(height: int = 32, width: int = 32) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def square(height: int = 32, width: int = 32, value: int = 255) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[8:16, 8:24] = value
    return mask


def pair(patient: str = "A", number: int = 1, image=None, mask=None) -> archive.Pair:
    """Bytes are taken as they are, arrays become PNG."""
    image, mask = noise() if image is None else image, square() if mask is None else mask
    image, mask = (data if isinstance(data, bytes) else png(data) for data in (image, mask))
    return archive.Pair(patient, "X", number, f"{number}.png", f"{number}_mask.png", image, mask)


@pytest.fixture
def preprocess(tmp_path):
    """Archive the pairs, run the stage, and open what it wrote."""

    def run(*pairs: archive.Pair, size: int = 32, **changes):
        archive.write(tmp_path / "slices.zip", pairs)
        run.summary = preprocessing.run(tmp_path / "slices.zip", params(size, **changes), tmp_path / "out")
        images, masks = (np.load(tmp_path / "out" / f"{name}.npy", allow_pickle=False) for name in ("images", "masks"))
        table = pd.read_csv(tmp_path / "out" / "slices.csv", dtype={"patient": str}, keep_default_na=False)
        return images, masks, table

    return run


def faults(preprocess, *pairs, **changes) -> list[str]:
    with pytest.raises(DataError) as error:
        preprocess(*pairs, **changes)
    return [f"{problem.path}: {problem.what}" for problem in error.value.problems]


def test_pixels_at_the_same_size_are_unchanged(preprocess):
    image, mask = noise(), square()
    images, masks, table = preprocess(pair(image=image, mask=mask))
    np.testing.assert_array_equal(images[0], image)
    np.testing.assert_array_equal(masks[0], mask // 255)
    assert images.dtype == masks.dtype == np.uint8
    assert ",".join(table.columns) == "row,patient,institution,slice,tumour_pixels,source,spacing"
    assert table.to_numpy().tolist() == [[0, "A", "X", 1, 128, "A/1.png", ""]]


def test_many_slices_keep_their_order(preprocess):
    pairs = [pair(f"P{n // 10}", n % 10, image=np.full((32, 32), n) + np.eye(32, dtype=int)) for n in range(100)]
    images, _, table = preprocess(*pairs)
    assert images[:, 0, 1, 0].tolist() == list(range(100))
    assert table["source"].tolist() == [f"P{n // 10}/{n % 10}.png" for n in range(100)]
    assert "100 slices of 10 patients at 32x32, 100 with tumour" in preprocess.summary


def test_twice_gives_the_same_bytes(preprocess, tmp_path):
    pairs = [pair(number=n) for n in range(40)]
    written = []
    for _ in range(2):
        preprocess(*pairs, size=64)
        written.append([(tmp_path / "out" / name).read_bytes() for name in ("images.npy", "masks.npy", "slices.csv")])
    assert written[0] == written[1]


def test_gray_becomes_three_equal_channels(preprocess):
    images, _, _ = preprocess(pair(image=noise()[..., 0]))
    assert (images[..., 0] == images[..., 1]).all() and (images[..., 0] == images[..., 2]).all()


@pytest.mark.parametrize("channels", ["all", "flair", "gray"])
def test_channels_of_a_colour_image(preprocess, channels):
    image = noise()
    images, _, _ = preprocess(pair(image=image), channels=channels)
    mean = np.rint(image.mean(axis=2)).astype(np.uint8)
    expected = {"all": image, "flair": image[..., [1, 1, 1]], "gray": np.dstack([mean] * 3)}[channels]
    np.testing.assert_array_equal(images[0], expected)


@pytest.mark.parametrize("channels", ["all", "flair", "gray"])
def test_one_channel_fills_all_three(preprocess, channels):
    gray = noise()[..., 0]
    images, _, _ = preprocess(pair(image=gray), channels=channels)
    np.testing.assert_array_equal(images[0], np.dstack([gray] * 3))


def deep(number: int, pixels: np.ndarray, patient: str = "A") -> archive.Pair:
    return pair(patient, number, image=pictures.encode(pixels))


def test_a_volume_of_more_than_8_bits_shares_one_window(preprocess):
    """The ends are percentiles of the values above the lowest; those of a single slice would differ."""
    volume = RNG.integers(1, 4000, (3, 32, 32)).astype(np.uint16)
    volume[:, :8] = 0  # air
    volume[2] //= 2  # a darker slice stays darker
    images, _, _ = preprocess(*(deep(n, pixels) for n, pixels in enumerate(volume)), window=[1, 99])
    low, high = np.percentile(volume[volume > 0], [1, 99])
    expected = np.rint(255 * np.clip((volume - low) / (high - low), 0, 1))
    np.testing.assert_array_equal(images[..., 0], expected)
    assert (images[:, :8] == 0).all() and images.max() == 255
    other, _, _ = preprocess(*(deep(n, pixels) for n, pixels in enumerate(volume)), window=[0, 100])
    assert (other != images).any()


def test_each_channel_has_its_window(preprocess):
    volume = RNG.normal(size=(2, 32, 32, 3)).astype(np.float32) * [1, 10, 100] + [0, 5, -500]
    images, _, _ = preprocess(*(deep(n, pixels.astype(np.float32)) for n, pixels in enumerate(volume)))
    assert images.max(axis=(0, 1, 2)).tolist() == [255, 255, 255]
    assert np.abs(images.mean(axis=(0, 1, 2)) - 127).max() < 12


def test_a_constant_volume_of_floats_is_black(preprocess):
    images, _, _ = preprocess(deep(1, np.full((32, 32), 7.5, np.float32)))
    assert not images.any()


def test_slices_of_one_patient_are_of_one_kind(preprocess):
    found = faults(preprocess, pair(), deep(2, noise()[..., 0].astype(np.uint16)), pair("B", mask=square(16, 32)))
    assert found[0].startswith("A/1.png: and other slices of the patient are of different kinds (uint16, one channel; ")
    assert found[1].startswith("B/1_mask.png: the mask has shape")


def test_labels_are_merged(preprocess):
    mask = np.zeros((32, 32), np.uint8)
    mask[0, :5] = 1, 2, 3, 4, 200
    for labels, tumour in (([1, 2, 4], 3), ([3], 1), ([200, 1], 2), ([9], 0)):
        _, masks, table = preprocess(pair(mask=mask), foreground=labels)
        assert table["tumour_pixels"].tolist() == [tumour]
        np.testing.assert_array_equal(masks[0], np.isin(mask, labels))


def test_without_named_labels_one_value_is_tumour_and_an_unusual_one_is_told(preprocess, capsys):
    _, masks, _ = preprocess(pair(mask=square(value=4)), pair("B", mask=square()), pair("C", mask=square(value=1)))
    np.testing.assert_array_equal(masks[0], square() > 0)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING preprocess")]
    told = "WARNING preprocess.foreground: masks hold 4 as their only value above 0, which was taken as tumour"
    assert warnings == [told]


def test_several_values_are_refused_until_labels_are_named(preprocess):
    mask = square(value=4)
    mask[0, :2] = 1, 233
    assert "the mask holds 4 values (0, 1, 4, 233)" in faults(preprocess, pair(mask=mask))[0]
    assert "preprocess.foreground" in str(fixes(preprocess, pair(mask=mask)))


def test_masks_of_one_patient_mean_the_same(preprocess):
    mixed = pair(mask=square(value=1)), pair(number=2, mask=square(value=255)), pair("B", mask=square(value=255))
    assert faults(preprocess, *mixed) == [
        "A/1_mask.png: and other masks of the patient hold different values above 0 (1, 255)"
    ]


def test_labels_above_255_are_named_like_others(preprocess):
    mask = square(value=1).astype(np.uint16) * 1001
    mask[0, 0] = 2
    _, masks, _ = preprocess(pair(mask=pictures.encode(mask)), foreground=[1001])
    np.testing.assert_array_equal(masks[0], mask == 1001)


def drawn(mode: str) -> bytes:
    """A square as a mask of another kind of picture."""
    picture = Image.fromarray(square())
    if mode == "palette":
        picture = Image.fromarray(square(value=1), "P")
        picture.putpalette([0, 0, 0, 128, 0, 0])
    elif mode == "black second":
        picture = Image.fromarray(1 - square(value=1), "P")
        picture.putpalette([255, 255, 255, 0, 0, 0])
    elif mode == "red":
        picture = Image.fromarray(np.stack([square(), 0 * square(), 0 * square()], -1))
    elif mode in ("I;16", "F"):
        picture = Image.fromarray(square().astype(np.uint16) * 257 if mode == "I;16" else square(value=1).astype("f4"))
    else:
        picture = picture.convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF" if mode == "F" else "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1", "I;16", "F", "palette", "black second", "red"])
def test_masks_of_other_kinds_of_pictures_are_the_same_mask(preprocess, mode):
    _, masks, _ = preprocess(pair(mask=drawn(mode)))
    np.testing.assert_array_equal(masks[0], square() > 0)


def test_indices_of_a_palette_are_labels(preprocess):
    _, masks, _ = preprocess(pair(mask=drawn("palette")), foreground=[1])
    np.testing.assert_array_equal(masks[0], square() > 0)
    _, masks, _ = preprocess(pair(mask=drawn("palette")), foreground=[38])  # the grey of its colour
    assert not masks.any()


def test_a_jpeg_is_a_mask_where_it_is_black_and_white_alone(preprocess, capsys):
    blocks = np.zeros((32, 32), np.uint8)
    blocks[8:24, 8:24] = 250  # whole blocks of JPEG, which change by a grey level at most
    buffer = io.BytesIO()
    Image.fromarray(blocks).save(buffer, format="JPEG", quality=95)
    _, masks, _ = preprocess(pair(mask=buffer.getvalue()))
    np.testing.assert_array_equal(masks[0], blocks > 0)
    assert "WARNING 1 masks are JPEG" in capsys.readouterr().err


def fixes(preprocess, *pairs) -> list[str]:
    with pytest.raises(DataError) as error:
        preprocess(*pairs)
    return [problem.fix for problem in error.value.problems]


def test_spacing_is_that_of_the_grid(preprocess):
    pairs = [
        pair(image=noise(64, 48), mask=square(64, 48))._replace(spacing="0.5 x 0.6 x 5"),
        pair("B", image=noise(16, 16), mask=np.zeros((16, 16)))._replace(spacing="2 x 2 x 3.3"), pair("C"),
    ]  # fmt: skip
    _, _, table = preprocess(*pairs)
    assert table["spacing"].tolist() == ["1 x 1 x 5", "1 x 1 x 3.3", ""]


def test_p2_masks_of_grey_jpegs_of_fractions_and_of_colours_are_refused(preprocess):
    buffer = io.BytesIO()
    Image.fromarray(square()[:, ::-1] // np.arange(1, 33, dtype=np.uint8)).save(buffer, format="JPEG", quality=50)
    assert "is a JPEG, which changed the mask" in faults(preprocess, pair(mask=buffer.getvalue()), foreground=[255])[0]
    soft = np.full((32, 32), 0.25, np.float32)
    assert "holds the values 0.25, labels must" in faults(preprocess, pair(mask=pictures.encode(soft)))[0]
    assert "colours beside black" in faults(preprocess, pair(mask=noise()))[0]


def test_pixels_that_are_not_square_become_square(preprocess):
    """16 x 64 pixels of 4 x 1 mm are a square of 64 mm; the tumour keeps its shape in mm."""
    mask = np.zeros((16, 64), np.uint8)
    mask[4:8, 16:32] = 255  # 16 x 16 mm
    _, masks, table = preprocess(pair(image=noise(16, 64), mask=mask)._replace(spacing="4 x 1 x 5"), size=64)
    assert table["spacing"].tolist() == ["1 x 1 x 5"]
    rows, columns = masks[0].any(axis=1).sum(), masks[0].any(axis=0).sum()
    assert (rows, columns) == (16, 16)


def volume_pair(number: int, mask: np.ndarray) -> archive.Pair:
    """A pair with the names that ``folder`` gives to slices of a volume."""
    return deep(number, noise()[..., 0].astype(np.uint16))._replace(
        image_name=f"case_{number:04}.npy", mask_name=f"case_{number:04}_mask.npy", mask=pictures.encode(mask)
    )


def test_a_volume_with_many_values_is_one_fault_and_pictures_are_one_each(preprocess):
    labels = np.arange(1024).reshape(32, 32).astype(np.uint8) // 16
    found = faults(preprocess, *(volume_pair(n, labels) for n in range(1, 7)), pair("B", mask=labels))
    assert found[0].startswith("A/case: the mask holds 16 values (0, 1, 2") and found[0].endswith(
        "; the same fault in 6 slices"
    )
    assert len(found) == 2 and found[1].startswith("B/1_mask.png")
    assert len(faults(preprocess, *(pair(number=n, mask=labels) for n in range(1, 8)))) == 7


def test_labels_that_no_mask_has_are_a_warning(preprocess, capsys):
    preprocess(pair(mask=square(value=1)), pair("B", mask=square(value=2)), pair("C", mask=np.zeros((32, 32))),
               foreground=[1, 9])  # fmt: skip
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING")]
    assert lines == [
        "WARNING preprocess.foreground: no mask holds 9",
        "WARNING B: no tumour, its labels are 2: preprocess.foreground",
    ]


def test_empty_slices_of_a_volume_are_counted(preprocess, capsys):
    blank = [volume_pair(n, np.zeros((32, 32), np.uint8)) for n in (1, 2)]
    blank = [each._replace(image=pictures.encode(np.zeros((32, 32), np.uint16))) for each in blank]
    preprocess(*blank, volume_pair(3, square()))
    assert "WARNING A: every pixel has the same value in 2 slices\n" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_the_window_is_numpys_percentiles(dtype):
    rng = np.random.default_rng(1)
    slices = [rng.integers(-30000 if dtype == "int16" else 0, 32000, (9, 8)).astype(dtype) for _ in range(3)]
    slices[0][:2] = np.min(slices)
    values = np.stack(slices).astype(np.float64)
    expected = np.percentile(values[values > values.min()], [1, 99.5])
    found = intensity.find_window(slices, (1, 99.5))
    np.testing.assert_allclose([found.low[0], found.high[0]], expected, rtol=1e-6)


def test_the_window_does_not_wrap():
    found = intensity.find_window([np.array([[-32768, -30000], [-30000, 30000], [30000, 30000]], np.int16)], (0, 50))
    assert (found.low[0], found.high[0]) == (-30000, 30000)


def test_old_outputs_stay_when_data_are_bad(preprocess, tmp_path):
    preprocess(pair())
    before = (tmp_path / "out" / "images.npy").read_bytes()
    faults(preprocess, pair(mask=b""))
    assert (tmp_path / "out" / "images.npy").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images.npy", "masks.npy", "slices.csv"]


def test_changed_archive_is_an_integrity_error(preprocess, tmp_path):
    preprocess(pair())
    path = tmp_path / "slices.zip"
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"A/1\.png"):
        preprocessing.run(path, params(), tmp_path / "out")
    path.write_bytes(data[:100])
    with pytest.raises(IntegrityError):
        preprocessing.run(path, params(), tmp_path / "out")


def test_changed_bytes_bad_data_and_shared_images_are_one_list(preprocess, tmp_path):
    """A flipped byte, a mask that is not binary, two patients with one image: all at once, and code 4."""
    image, path = noise(), tmp_path / "slices.zip"
    grey = square(value=7) + np.eye(32, dtype=np.uint8)
    cohort = [pair(), pair(number=2, mask=grey), pair(number=3, image=image), pair("B", 1, image=image)]
    shared = "A/3.png, B/1.png: are the same image in different patients"
    binary = "A/2_mask.png: the mask holds 4 values (0, 1, 7, 8), of which one may be tumour"
    assert faults(preprocess, *cohort) == [binary, shared]
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"A/1\.png: changed inside") as error:
        preprocessing.run(path, params(), tmp_path / "out")
    assert [f"{problem.path}: {problem.what}" for problem in error.value.problems][1:] == [binary, shared]


def test_a_damaged_header_and_a_bad_mask_before_it_are_one_list(preprocess, tmp_path):
    """What follows the header cannot be found, and the patient just before it (B) is not known to be whole."""
    grey, path = square(value=7) + np.eye(32, dtype=np.uint8), tmp_path / "slices.zip"
    faults(preprocess, pair("A", mask=grey), pair("B"), pair("C"), pair("D", mask=grey))
    with zipfile.ZipFile(path) as whole:
        place = whole.getinfo("C/1.png").header_offset
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as error:
        preprocessing.run(path, params(), tmp_path / "out")
    assert {f"{problem.path}: {problem.what}" for problem in error.value.problems} == {
        f"{path}: is damaged (no stored member starts at byte {place:,})",
        "A/1_mask.png: the mask holds 4 values (0, 1, 7, 8), of which one may be tumour",
    }
    assert error.value.code == 4 and not (tmp_path / "out/images.npy").exists()


def test_p1_missing_members_are_all_listed(preprocess, tmp_path):
    whole, lacking = tmp_path / "slices.zip", tmp_path / "lacking.zip"
    preprocess(*(pair(number=n) for n in range(1, 5)))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(lacking, "w") as target:
        for name in source.namelist():
            if name not in ("A/2.png", "A/2_mask.png", "A/4_mask.png"):
                target.writestr(name, source.read(name))
    with pytest.raises(DataError) as error:
        preprocessing.run(lacking, params(), tmp_path / "out")
    assert [problem.path for problem in error.value.problems] == ["A/2.png", "A/2_mask.png", "A/4_mask.png"]
    assert all("missing" in problem.what for problem in error.value.problems)


def test_p2_sizes_differ(preprocess):
    found = faults(preprocess, pair(mask=square(32, 40)), pair(number=2), pair(number=3, mask=square(16, 32)))
    assert found == [
        "A/1_mask.png: the mask has shape (32, 40), its image (32, 32, 3)",
        "A/3_mask.png: the mask has shape (16, 32), its image (32, 32, 3)",
    ]


@pytest.mark.parametrize("value", [1, 255])
def test_p2_zero_one_and_zero_255_masks_are_fine(preprocess, value):
    _, masks, _ = preprocess(pair(mask=square(value=value)), pair(number=2, mask=np.full((32, 32), value)))
    assert masks.sum(axis=(1, 2)).tolist() == [128, 1024]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.maximum(square(), 1), "2 values (1, 255)"),
        (square() // np.arange(1, 33, dtype=np.uint8), "(0, 10, 11, 12, 13, 14, 15, 17, ...)"),
        (np.full((32, 32), 128), "1 values (128)"),
    ],
    ids=["no background", "soft", "constant"],
)
def test_p2_mask_not_binary(preprocess, mask, said):
    (fault,) = faults(preprocess, pair(mask=mask))
    assert said in fault


def test_p4_constant_image_is_a_warning(preprocess, capsys):
    blank = np.zeros((32, 32, 3))
    images, _, _ = preprocess(pair(image=blank), pair(number=2), pair("B", 1, image=blank))
    assert len(images) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING")]
    assert lines == [f"WARNING {name}: every pixel has the same value" for name in ("A/1.png", "B/1.png")]


def test_p4_all_zero_mask_is_counted(preprocess):
    _, masks, table = preprocess(pair(mask=np.zeros((32, 32))), pair(number=2))
    assert table["tumour_pixels"].tolist() == [0, 128]
    assert not masks[0].any()
    assert "1 with tumour" in preprocess.summary


def test_p5_every_bad_file_is_listed(preprocess):
    bad = {
        "empty": b"",
        "neither": b"this is text, not an image",
        "cut short": tif(noise(64, 64))[:3000],
        "page": tif(noise(), noise()),
        "1 x 1": tif(noise(1, 1)),
    }
    pairs = [pair(number=n, image=data) for n, data in enumerate(bad.values(), 1)]
    pairs += [pair(number=n + 5, mask=data) for n, data in enumerate(bad.values(), 1)]
    found = faults(preprocess, *pairs, pair(number=20))
    assert [fault.split(":")[0] for fault in found] == [
        *(f"A/{n}.png" for n in range(1, 6)), *(f"A/{n}_mask.png" for n in range(6, 11))
    ]  # fmt: skip
    for fault, said in zip(found, [*bad, *bad], strict=True):
        assert said in fault


def test_p6_identical_images(preprocess, capsys):
    image = noise()
    preprocess(pair(image=image), pair(number=2, image=image))
    assert "WARNING A/2.png: the same image as another of the patient" in capsys.readouterr().err
    (fault,) = faults(preprocess, pair(image=image), pair("B", 1), pair("B", 2, image=image))
    assert fault == "A/1.png, B/2.png: are the same image in different patients"


def test_p7_one_slice_gaps_and_numeric_order(preprocess):
    pairs = [pair("A", 7), *(pair("B", number) for number in (1, 2, 10, 30))]
    _, _, table = preprocess(*pairs)
    assert table["slice"].tolist() == [7, 1, 2, 10, 30]
    assert table["row"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("unit", ["patient", "slice"])
def test_slices_numbered_by_date_and_time_are_split_as_others(preprocess, tmp_path, unit):
    """14 digits, from the archive to the split."""
    settings = {"unit": unit, "folds": 3, "test_fold": 0, "val_fraction": 0.3, "patients": None, "file": None}
    cohort = [pair(f"P{n // 3}", n % 3) for n in range(18)]
    found = []
    for first in (1, 20190314235958):
        _, _, written = preprocess(*(each._replace(slice=each.slice + first) for each in cohort))
        read = dataset.read_slices(tmp_path / "out/slices.csv")
        assert read["slice"].tolist() == written["slice"].tolist() == [first, first + 1, first + 2] * 6
        found.append(splitting.split(read, config.Split(**settings, seed=1)))
    pd.testing.assert_frame_equal(*found)
    assert set(found[0]["subset"]) == {"train", "val", "test"}


def test_memory_hardly_grows_with_the_slices(tmp_path, monkeypatch):
    """3,600 slices more: a list of their rows would take 1.1 MB, and zipfile's of their files takes 3.3 MB."""
    monkeypatch.setattr(hardware, "processors", lambda: 1)  # as many patients at a time on every machine
    mask, peaks = png(np.eye(8) * 255), []
    for patients in (20, 20, 200):  # the first time brings what stays
        pairs = (pair(f"P{n // 20:03}", n % 20, noise(8, 8), mask) for n in range(20 * patients))
        archive.write(tmp_path / "slices.zip", pairs)
        tracemalloc.start()
        preprocessing.run(tmp_path / "slices.zip", params(), tmp_path / "out")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 700_000
