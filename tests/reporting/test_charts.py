"""Charts: the same bytes each time, and a picture for every unusual table."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brainseg.reporting import charts
from tests.support.small_run import training

DPI = 50


def patients(dice, tumour=None, names=None, institutions=None) -> pd.DataFrame:
    n = len(dice)
    return pd.DataFrame(
        {
            "patient": names or [f"P{i}" for i in range(n)],
            "institution": institutions or ["A", "B"] * (n // 2) + ["A"] * (n % 2),
            "tumour_pixels": tumour or [100 * (i + 1) for i in range(n)],
            "dice": dice,
        }
    )


def curve() -> pd.DataFrame:
    t = np.arange(1, 20) / 20
    return pd.DataFrame(
        {"threshold": t, "dice": 1 - (t - 0.5) ** 2, "iou": 0.5, "precision": t, "recall": 1 - t, "test_dice": t}
    )


def bins(count) -> pd.DataFrame:
    lower = np.arange(10) / 10
    counted = pd.DataFrame({"lower": lower, "upper": lower + 0.1, "count": count})
    frequency = (lower + 0.05).tolist()
    return counted.assign(mean_probability=frequency, observed_frequency=frequency).mask(counted["count"] == 0).assign(
        lower=lower, upper=lower + 0.1, count=count
    )  # fmt: skip


def pairs(a, b) -> pd.DataFrame:
    return pd.DataFrame({"patient": [f"P{i}" for i in range(len(a))], "a": a, "b": b})


CHARTS = {
    "curves": lambda path: charts.draw_curves(training(5), 4, path, DPI),
    "threshold": lambda path: charts.draw_threshold(curve(), 0.45, path, DPI),
    "patients": lambda path: charts.draw_patients(patients([0.9, 0.5, 0.1]), path, DPI),
    "size": lambda path: charts.draw_size(patients([0.9, 0.5, 0.1]), path, DPI),
    "calibration": lambda path: charts.draw_calibration(bins(1000), path, DPI),
    "folds": lambda path: charts.draw_folds(patients([0.9, 0.5, 0.1]).assign(fold=[0, 1, 1]), path, DPI),
    "paired": lambda path: charts.draw_pairs(pairs([0.9, 0.5], [0.8, 0.6]), ("A", "B"), path, DPI),
}
ODD = {
    "one epoch": lambda path: charts.draw_curves(training(1), None, path, DPI),
    "no volume Dice": lambda path: charts.draw_curves(training(3).assign(val_volume_dice=np.nan), 1, path, DPI),
    "threshold at the edge": lambda path: charts.draw_threshold(curve(), 0.99, path, DPI),
    "undefined curve": lambda path: charts.draw_threshold(curve().assign(dice=np.nan, iou=np.nan), 0.5, path, DPI),
    "one patient": lambda path: charts.draw_patients(patients([0.5]), path, DPI),
    "none defined": lambda path: charts.draw_patients(patients([np.nan, np.nan]), path, DPI),
    "folds: undefined": lambda path: charts.draw_folds(patients([np.nan, 0.5]).assign(fold=[0, 1]), path, DPI),
    "folds: many patients": lambda path: charts.draw_folds(patients([0.5] * 300).assign(fold=0), path, DPI),
    "pairs: none defined": lambda path: charts.draw_pairs(pairs([np.nan], [0.5]), ("A", "B"), path, DPI),
    "pairs: many": lambda path: charts.draw_pairs(pairs([0.5] * 300, [0.6] * 300), ("$x_", "<i>" * 90), path, DPI),
    "many patients": lambda path: charts.draw_patients(patients([0.5] * 300), path, DPI),
    "names": lambda path: charts.draw_patients(
        patients([0.1, 0.2, 0.3], names=["$x_", "a\nb\\", "<i>" * 90], institutions=["", "_no", "$"]), path, DPI
    ),
    "many institutions": lambda path: charts.draw_size(
        patients([0.5] * 12, institutions=[f"I{i}" for i in range(12)]), path, DPI
    ),
    "no tumour": lambda path: charts.draw_size(patients([0.0, 0.5], tumour=[0, 5000]), path, DPI),
    "size of one": lambda path: charts.draw_size(patients([0.5]), path, DPI),
    "size of none": lambda path: charts.draw_size(patients([np.nan]), path, DPI),
    "no pixels": lambda path: charts.draw_calibration(bins(0), path, DPI),
    "empty bins": lambda path: charts.draw_calibration(bins([9, 0, 0, 1, 0, 0, 0, 0, 0, 2]), path, DPI),
}


@pytest.mark.parametrize("name", ["folds", "paired"])  # the others: test_rendering
def test_same_bytes_whatever_the_users_style(name, tmp_path):
    CHARTS[name](tmp_path / "a.png")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.bbox": "tight"}):
        CHARTS[name](tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_date_version_or_path_in_the_file(tmp_path):
    CHARTS["patients"](tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert set(image.info) <= {"dpi"}


@pytest.mark.parametrize("name", ODD)
def test_odd_tables(name, tmp_path, recwarn):
    ODD[name](tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == round(charts.WIDTH * DPI)
    assert not [w for w in recwarn if issubclass(w.category, UserWarning | RuntimeWarning)]


def test_a_point_has_the_same_colour_in_both_figures_of_patients(tmp_path):
    """The institution with most patients is blue, whatever the order of the rows."""
    table = patients([0.9, 0.8, 0.7], institutions=["Z", "Z", "A"])
    for chart in (charts.draw_patients, charts.draw_size):
        chart(table, tmp_path / "a.png", DPI)
        chart(table.iloc[::-1], tmp_path / "b.png", DPI)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_institution_has_one_colour_in_all_charts(tmp_path, monkeypatch):
    """A has most patients, B most patients with a defined Dice."""
    seen, scatter = [], charts.Axes.scatter

    def noted(*arguments, **look):
        seen.append((look["label"], look["color"], look["marker"]))
        return scatter(*arguments, **look)

    monkeypatch.setattr(charts.Axes, "scatter", noted)
    table = patients([np.nan, np.nan, 0.5, 0.6, 0.7], institutions=list("AAABB"))
    for chart in (charts.draw_patients, charts.draw_size, charts.draw_folds):
        chart(table.assign(fold=0), tmp_path / "a.png", DPI)
    assert seen == 3 * [("A", charts.SERIES[0], "o"), ("B", charts.SERIES[1], "s")]


def test_a_patient_who_lost_is_vermillion(tmp_path, monkeypatch):
    drawn, plot = [], charts.Axes.plot

    def noted(*arguments, **look):
        drawn.append((arguments[1], look["color"]))
        return plot(*arguments, **look)

    monkeypatch.setattr(charts.Axes, "plot", noted)
    charts.draw_pairs(pairs([0.9, 0.5, 0.7], [0.8, 0.6, 0.7]), ("A", "B"), tmp_path / "a.png", DPI)
    assert drawn == [((0.5, 0.6), charts.BLUE), ((0.7, 0.7), charts.BLUE), ((0.9, 0.8), charts.VERMILLION)]


def test_colours_are_okabe_and_itos():
    published = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"}
    assert set(charts.SERIES) - {charts.BLACK} == published - {charts.YELLOW}
    assert len(charts.SERIES) == len(charts.MARKERS) == len(set(charts.MARKERS))


def test_short_names():
    assert charts.shorten("TCGA_DU_7018_19911220") == "TCGA_DU_7018_19911220"
    assert charts.shorten("a\nb\x00c") == "a·b·c"
    assert charts.shorten("x" * 300) == "x" * 25 + "…"
