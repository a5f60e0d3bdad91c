"""Charts of a run. Each function draws one figure from a table; equal tables give equal bytes.

Widths are in inches. Text is large enough to read when a page scales the picture to a phone.
Colours: Okabe and Ito, Color Universal Design (2008), which colour-blind readers can distinguish.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, SymmetricalLogLocator

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, BLACK, GREY = "#E69F00", "#56B4E9", "#F0E442", "#222222", "#767676"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, BLACK)
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
WIDTH = 6.8
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e6e6e6",
    "lines.linewidth": 2,
    "legend.frameon": False,
    "text.parse_math": False,  # a patient called $x$ is text
}


@contextmanager
def open_figure(path: Path, dpi: float, width: float, height: float, *, arrange: bool = True) -> Iterator[Figure]:
    """A white figure of ``width`` x ``height`` inches, saved when the block ends.

    ``arrange``: matplotlib makes room for labels. The user's matplotlibrc is ignored, and the file holds neither a
    date nor a version.
    """
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained" if arrange else None)
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, format="png", dpi=dpi, metadata={"Software": None})


def shorten(text: object, width: int = 26) -> str:
    """The text as one printable line of at most ``width`` characters."""
    line = "".join(c if c.isprintable() else "·" for c in str(text))
    return line if len(line) <= width else f"{line[: width - 1]}…"


def draw_curves(training: pd.DataFrame, kept_epoch: int | None, path: Path, dpi: int) -> None:
    """Loss, Dice, IoU, accuracy and learning rate by epoch; ``training`` is metrics/training.csv."""
    panels = {
        "Loss": ("loss", "val_loss"),
        "Dice": ("dice", "val_dice", "val_volume_dice"),
        "IoU": ("iou", "val_iou"),
        "Pixel accuracy": ("binary_accuracy", "val_binary_accuracy"),
        "Learning rate": ("learning_rate",),
    }
    with open_figure(path, dpi, WIDTH, 7.6) as figure:
        axes = figure.subplots(3, 2).ravel()
        for ax, (title, columns) in zip(axes, panels.items(), strict=False):
            _draw_epochs(ax, training, columns, kept_epoch)
            ax.set_title(title)
        axes[4].set_xlabel("epoch")
        axes[5].set_axis_off()
        axes[5].legend(*axes[1].get_legend_handles_labels(), loc="center", fontsize=12, labelspacing=0.9)


def _draw_epochs(ax: Axes, training: pd.DataFrame, columns: tuple[str, ...], kept_epoch: int | None) -> None:
    looks = (("training", BLUE, "-"), ("validation, slices", ORANGE, "-"), ("validation, volumes", VERMILLION, "--"))
    if kept_epoch is not None:
        ax.axvline(kept_epoch, color=GREY, linestyle=":", label=f"kept (epoch {kept_epoch})")
    marker = "o" if len(training) < 3 else None
    for column, (label, colour, line) in zip(columns, looks, strict=False):
        if column in training:
            ax.plot(training["epoch"], training[column], line, color=colour, label=label, marker=marker)
    ax.set_xlim(0, 1.04 * training["epoch"].max())
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def draw_threshold(curve: pd.DataFrame, chosen: float, path: Path, dpi: int) -> None:
    """Scores by threshold, with the chosen one marked; ``curve`` is metrics/threshold_curve.csv."""
    series = {"dice": "Dice, mean of volumes", "iou": "IoU, mean of volumes",
              "precision": "precision, pooled pixels", "recall": "recall, pooled pixels"}  # fmt: skip
    with open_figure(path, dpi, WIDTH, 4.4) as figure:
        ax = figure.subplots()
        for (column, label), colour, line in zip(series.items(), SERIES, ("-", "-.", "--", ":"), strict=False):
            ax.plot(curve["threshold"], curve[column], line, color=colour, label=label)
        ax.plot(curve["threshold"], curve["test_dice"], color=GREY, linewidth=1, label="Dice, test (not used)")
        ax.axvline(chosen, color=BLACK, linewidth=1.2)
        on_left = chosen > 0.6
        ax.annotate(f" chosen: {chosen:.3g} ", (chosen, 0.02), xycoords=("data", "axes fraction"),
                    ha="right" if on_left else "left")  # fmt: skip
        ax.set(xlabel="threshold on the probability", ylabel="score", xlim=(0, 1), ylim=(None, 1))
        figure.legend(loc="outside lower center", ncols=2)


def draw_patients(per_patient: pd.DataFrame, path: Path, dpi: int) -> None:
    """Test patients sorted by Dice, coloured by institution; rows of metrics/per_patient.csv."""
    table = per_patient.sort_values(["dice", "patient"], na_position="first").reset_index(drop=True)
    named = len(table) <= 60
    with open_figure(path, dpi, WIDTH, 1.7 + min(12.0, 0.25 * len(table))) as figure:
        ax = figure.subplots()
        known = table["dice"].dropna()
        for place in known.index:
            ax.plot((0, known[place]), (place, place), color="#d4d4d4", linewidth=1, zorder=1)
        _scatter_by_institution(
            ax, _sort_institutions(per_patient), table, table["dice"], pd.Series(table.index, table.index)
        )
        for place in table.index[table["dice"].isna()]:
            ax.text(0.01, place, "undefined: no tumour, none predicted", va="center", fontsize=9, color=GREY)
        if len(known):
            ax.axvline(known.mean(), color=BLACK, linewidth=1.2, label=f"mean {known.mean():.3f}")
            ax.axvline(known.median(), color=BLACK, linewidth=1.2, ls="--", label=f"median {known.median():.3f}")
        ax.set_yticks(table.index if named else [], [shorten(p) for p in table["patient"]] if named else [], fontsize=9)
        ax.set(xlabel="Dice of the volume", xlim=(-0.02, 1.02), ylim=(-0.7, len(table) - 0.3))
        ax.grid(axis="y", visible=False)
        figure.legend(loc="outside upper center", ncols=4, columnspacing=1.2, handletextpad=0.5)


def draw_folds(per_patient: pd.DataFrame, path: Path, dpi: int) -> None:
    """Volume Dice of the patients of each fold, its mean marked; ``per_patient`` has a column fold."""
    table = per_patient.dropna(subset=["dice"]).sort_values(["fold", "patient"])
    place = table["fold"] + 0.28 * (table.groupby("fold").cumcount() % 9 / 4 - 1)  # side by side
    with open_figure(path, dpi, WIDTH, 4.4) as figure:
        ax = figure.subplots()
        _scatter_by_institution(ax, _sort_institutions(per_patient), table, place, table["dice"])
        for number, group in table.groupby("fold"):
            mean = group["dice"].mean()
            ax.plot((number - 0.4, number + 0.4), (mean, mean), color=BLACK, zorder=4)
            ax.annotate(f"{mean:.3f}", (number, 1.03), ha="center", fontsize=10)
        ax.axhline(table["dice"].mean(), color=GREY, linewidth=1.2, ls="--", label=f"all: {table['dice'].mean():.3f}")
        ax.set(xlabel="fold that was left out", ylabel="Dice of the volume", ylim=(-0.04, 1.1))
        ax.set_xticks(sorted(table["fold"].unique()))
        ax.grid(axis="x", visible=False)
        figure.legend(loc="outside upper center", ncols=6, columnspacing=1.2, handletextpad=0.3)


def draw_pairs(table: pd.DataFrame, sides: tuple[str, str], path: Path, dpi: int) -> None:
    """Volume Dice of each patient with two models, joined by a line; ``table`` has columns patient, a, b."""
    table = table.dropna(subset=["a", "b"]).sort_values(["a", "patient"]).reset_index(drop=True)
    named, many = len(table) <= 120, len(table) > 60
    with open_figure(path, dpi, WIDTH, 1.4 + min(18.0, (0.15 if many else 0.25) * len(table))) as figure:
        ax = figure.subplots()
        for place, row in table.iterrows():
            ax.plot((row["a"], row["b"]), (place, place), color=BLUE if row["b"] >= row["a"] else VERMILLION, zorder=1)
        ax.scatter(table["a"], table.index, 60, facecolors="white", edgecolors=BLACK, label=f"A: {shorten(sides[0])}")
        ax.scatter(table["b"], table.index, 16, color=BLACK, label=f"B: {shorten(sides[1])}", zorder=2)
        for column, line in (("a", "--"), ("b", "-")):
            if len(table):
                ax.axvline(table[column].mean(), color=BLACK, linewidth=1, ls=line, label=f"mean of {column.upper()}")
        names = [shorten(patient) for patient in table["patient"]] if named else []
        ax.set_yticks(table.index if named else [], names, fontsize=6.5 if many else 9)
        ax.tick_params(labeltop=many)
        least = min(table["a"].min(), table["b"].min()) if len(table) else 0
        ax.set(xlabel="Dice of the volume", xlim=(least - 0.04, 1.02), ylim=(-0.7, len(table) - 0.3))
        ax.grid(axis="y", visible=False)
        figure.legend(loc="outside upper center", ncols=2, columnspacing=1.2, handletextpad=0.5)


def draw_size(per_patient: pd.DataFrame, path: Path, dpi: int) -> None:
    """Tumour volume and Dice, one point per test patient; rows of metrics/per_patient.csv."""
    table = per_patient.dropna(subset=["dice"])
    with open_figure(path, dpi, WIDTH, 4.6) as figure:
        ax = figure.subplots()
        _scatter_by_institution(ax, _sort_institutions(per_patient), table, table["tumour_pixels"], table["dice"])
        if (table["tumour_pixels"] > 0).all():
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:  # a log axis has no place for a patient without tumour
            ax.set_xscale("symlog", linthresh=10)
            ax.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=10))
        ax.xaxis.set_major_formatter(EngFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set(xlabel="tumour volume in pixels of all slices (log)", ylabel="Dice of the volume", ylim=(-0.04, 1.04))
        if len(table):
            figure.legend(loc="outside upper center", ncols=5, columnspacing=1.2, handletextpad=0.3)


def _sort_institutions(per_patient: pd.DataFrame) -> list[str]:
    """Institutions, most patients first; counted over all patients, so that each has the same colour in every chart."""
    counts = per_patient["institution"].astype(str).value_counts()
    return sorted(counts.index, key=lambda name: (-counts[name], name))


def _scatter_by_institution(ax: Axes, names: list[str], table: pd.DataFrame, x: pd.Series, y: pd.Series) -> None:
    """Points with a colour and shape per institution; if there are many, the smallest ones share the last."""
    place = table["institution"].astype(str).map(names.index).clip(upper=len(SERIES) - 1)
    for i in sorted(place.unique()):
        here = place == i
        label = "others" if i == len(SERIES) - 1 < len(names) - 1 else shorten(names[i], 14) or "unnamed"
        label = label.replace("_", " _", label.startswith("_"))  # matplotlib hides labels that begin with _
        ax.scatter(x[here], y[here], 46, color=SERIES[i], marker=MARKERS[i], label=label, zorder=3,
                   edgecolors="white", linewidths=0.6)  # fmt: skip


def draw_calibration(bins: pd.DataFrame, path: Path, dpi: int) -> None:
    """Predicted probability and observed frequency, with counts; ``bins`` is metrics/calibration.csv."""
    filled = bins[bins["count"] > 0]
    with open_figure(path, dpi, WIDTH, 6.2) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        top.plot((0, 1), (0, 1), color=GREY, linestyle="--", linewidth=1.2, label="perfect")
        if "count_before" in bins:
            own = bins[bins["count_before"] > 0]
            style = {"color": GREY, "linewidth": 1.2, "label": "before calibration"}
            top.plot(own["mean_probability_before"], own["observed_frequency_before"], ".-", **style)
        top.plot(filled["mean_probability"], filled["observed_frequency"], "o-", color=BLUE, label="the model")
        top.set(ylabel="pixels that are tumour", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        top.legend(loc="upper left")
        width = bins["upper"] - bins["lower"]
        bottom.bar(bins["lower"], bins["count"], width, align="edge", color=SKY, edgecolor="white")
        if len(filled):
            bottom.set_yscale("log", nonpositive="clip")
            bottom.set_ylim(0.5 * filled["count"].min(), 3 * filled["count"].max())
            bottom.yaxis.set_major_formatter(EngFormatter())
            bottom.yaxis.set_minor_formatter(NullFormatter())
        bottom.set(xlabel="predicted probability of tumour", ylabel="pixels (log)")
        bottom.grid(axis="x", visible=False)
