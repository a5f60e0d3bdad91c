"""Which patients are shown, and every pixel of the error pictures."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from brainseg.reporting import gallery


def tables(dice: list[float], subset: str = "test") -> tuple[pd.DataFrame, pd.DataFrame]:
    """A patient for each Dice with two slices; the second has the larger union."""
    names = [f"{subset}{i}" for i in range(len(dice))]
    patients = pd.DataFrame({"patient": names, "subset": subset, "dice": dice})
    rows = [(2 * i + k, name, subset, 9 + k, 5 + 5 * k, 1, 1, 0.9) for i, name in enumerate(names) for k in (0, 1)]
    return patients, pd.DataFrame(rows, columns=["row", "patient", "subset", "slice", "tp", "fp", "fn", "dice"])


@pytest.mark.parametrize(
    ("patients", "count", "groups"),
    [
        (0, 12, ""), (1, 12, "m"), (2, 12, "bw"), (3, 12, "bmw"), (5, 12, "bbmww"), (22, 1, "." * 10 + "m" + "." * 11),
        (22, 2, "b" + "." * 20 + "w"), (22, 12, "b.........m." + "w" * 10),
        (12, 12, "bbbbbmwwwwww"), (14, 12, "bbbb..m" + "w" * 7),
    ],
)  # fmt: skip
def test_groups(patients, count, groups):
    assert "".join(name[:1] or "." for name in gallery._assign_groups(patients, count)) == groups


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_at_most_so_many_patients_each_once(count):
    picked = gallery.pick(*tables(list(np.linspace(0, 1, 40))), count)
    assert len(picked) == picked["patient"].nunique() == count
    assert picked["volume_dice"].is_monotonic_decreasing


def test_the_slice_is_the_one_with_most_tumour_or_predicted_pixels():
    assert (gallery.pick(*tables([0.1, 0.2, 0.3]), 12)["slice"] == 10).all()


def test_only_test_patients_with_a_defined_dice():
    parts = [tables([0.9, np.nan, 0.1]), tables([1.0, 1.0], "val")]
    patients, slices = (pd.concat(kind) for kind in zip(*parts, strict=True))
    assert gallery.pick(patients, slices, 12)["patient"].tolist() == ["test0", "test2"]


def test_a_patient_in_two_subsets_is_shown_by_its_test_slices():
    """A slice-level split puts slices of one patient into several subsets."""
    parts = [tables([0.5]), tables([0.7], "val")]
    patients, slices = (pd.concat(kind).assign(patient="P") for kind in zip(*parts, strict=True))
    picked = gallery.pick(patients, slices, 12)
    assert picked[["subset", "volume_dice"]].values.tolist() == [["test", 0.5]]


def random_masks(side=40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (side, side), dtype=np.uint8), *(rng.random((2, side, side)) < 0.3)


def pixels(picture: np.ndarray, colour: str) -> int:
    return int((picture[..., :3] == np.round(255 * np.array(to_rgb(colour)))).all(axis=-1).sum())


def counts(truth, prediction) -> dict[str, int]:
    kinds = {gallery.TP: truth & prediction, gallery.FP: ~truth & prediction, gallery.FN: truth & ~prediction}
    return {colour: int(where.sum()) for colour, where in kinds.items()}


def test_error_colours_are_fixed():
    assert (gallery.TP, gallery.FP, gallery.FN) == ("#56B4E9", "#D55E00", "#F0E442")


def test_error_pixels_equal_the_counts():
    flair, truth, prediction = random_masks()
    picture = gallery.draw_errors(flair, truth, prediction)
    assert {colour: pixels(picture, colour) for colour in gallery.ERRORS} == counts(truth, prediction)
    background = ~truth & ~prediction
    assert (picture[background] == flair[background, None] // 2).all()


@pytest.mark.parametrize(("side", "dpi", "zoom"), [(40, 60, 3), (64, 110, 3), (61, 50, 2)])
def test_error_pixels_equal_the_counts_in_the_file(side, dpi, zoom, tmp_path):
    """Each pixel becomes zoom x zoom of the PNG, and no other picture uses the three colours."""
    flair, truth, prediction = random_masks(side)
    picked = gallery.pick(*tables([0.5, 0.4]), 12)
    images = np.repeat(flair[..., None], 3, -1)
    rows = gallery.build_rows(picked, np.stack([images] * 2), np.stack([truth] * 2), np.stack([prediction] * 2))
    gallery.draw_gallery(rows, tmp_path / "a.png", dpi)
    with Image.open(tmp_path / "a.png") as image:
        drawn = np.asarray(image)
    below_the_key = drawn[int(gallery.LINE * 2.3 * side * zoom / gallery.CELL) :]
    found = {colour: pixels(below_the_key, colour) / zoom**2 / 2 for colour in gallery.ERRORS}
    assert found == counts(truth, prediction)


def test_mask_and_border_are_marked_and_nothing_else():
    """A pixel has four direct neighbours, and twelve within two steps."""
    picture, mask = np.full((9, 9, 3), 100, np.uint8), np.zeros((9, 9), np.uint8)
    mask[4, 4] = 1
    outlined = gallery.draw_outline(picture, mask, "white", 1)
    assert pixels(outlined, "white") == 4 and (outlined[4, 4] == 100).all()
    marked = gallery.draw_mask(picture, mask)
    assert pixels(marked, gallery.MASK) == 12 and (marked != 100).any(axis=-1).sum() == 13
    assert (gallery.draw_mask(picture, 0 * mask) == picture).all()
    assert (picture == 100).all()


@pytest.mark.parametrize(("side", "shown"), [(64, 64), (256, 256), (300, 150), (1024, 256)])
def test_large_grids_are_shown_smaller(side, shown):
    picked = gallery.pick(*tables([0.5]), 12)
    mask = np.zeros((1, side, side), bool)
    (row,) = gallery.build_rows(picked, np.zeros((1, side, side, 3), np.uint8), mask, mask)
    assert {cell.shape for cell in row.cells} == {(shown, shown, 3)}


def test_an_undefined_slice_and_no_patient(tmp_path):
    patients, slices = tables([0.5])
    picked = gallery.pick(patients, slices.assign(dice=np.nan), 12)
    mask = np.zeros((1, 16, 16), bool)
    (row,) = gallery.build_rows(picked, np.zeros((1, 16, 16, 1), np.uint8), mask, mask)
    assert row.right == "Dice: volume 0.50, slice undefined"
    gallery.draw_gallery([], tmp_path / "a.png", 50)
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_have_a_row_each_and_the_same_bytes(channels, tmp_path):
    image, mask = np.full((32, 32, channels), 90, np.uint8), np.zeros((32, 32), np.uint8)
    mask[8:16, 8:16] = 1
    examples = {name: (np.stack([image] * 4), np.stack([mask] * 4)) for name in ("rotation", "all")}
    heights = []
    for drawn in (examples, examples, {"all": examples["all"]}):
        gallery.draw_augmentations(image, mask, drawn, tmp_path / f"{len(heights)}.png", 50)
        with Image.open(tmp_path / f"{len(heights)}.png") as picture:
            heights.append(picture.height)
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    assert heights[0] > heights[2]
