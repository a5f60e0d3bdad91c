"""A search as files that Git keeps: a table, three pictures, and a page."""

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainseg import files
from brainseg.evaluation import tables
from brainseg.experiments.comparing import comparison_page
from brainseg.reporting import charts, pages
from brainseg.tuning import trials
from brainseg.tuning.outcome import Outcome, describe

FOLDER = Path("metrics/tune")
DPI = 110
PICTURES = {
    "history": "Each trial in its order. The line is the best so far; a trial that was stopped is shown where it was.",
    "parallel": "Each line is a trial that came to its end, from one parameter to the next; the bluer, the better.",
    "importance": "The share of the variance between the trials that came to their end that a parameter alone explains "
    "(fANOVA); the rest is of several together, and of chance.",
}


def write(o: Outcome, watched: pd.DataFrame) -> Path:
    """Write ``metrics/tune/NAME/``: trials.csv, summary.json, pictures, report.html. Return the page.

    Args:
        watched: trial, epoch, dice: what the trials told while they trained.
    """
    folder = o.study.root / FOLDER / o.study.name
    with files.replacing(folder) as new:
        new.mkdir()
        files.write_text(new / "trials.csv", tables.to_text(o.table))
        files.write_text(new / "summary.json", json.dumps(summarise(o), indent=1, allow_nan=False) + "\n")
        draw_history(o.table, watched, new / "history.png")
        draw_parallel(o.table, new / "parallel.png")
        if o.importance:
            draw_importance(o.importance, new / "importance.png")
        files.write_text(new / "report.html", render(o, new))
    return folder / "report.html"


def summarise(o: Outcome) -> dict[str, Any]:
    """What is not in the table."""
    return {
        "inner_folds": [o.study.folds, o.study.inner_folds],
        "fixed": o.fixed,
        "best": o.best,
        "dice": round(o.score, 6),
        "default_with_other_seeds": [round(score, 6) for score in o.repeats],
        "importance": {name: round(share, 4) for name, share in o.importance.items()},
        "verdict": comparison_page.describe_run(o.verdict) | {"a": o.verdict.a} if o.verdict else None,
    }


def render(o: Outcome, pictures: Path) -> str:
    drawn = {
        name: base64.b64encode((pictures / f"{name}.png").read_bytes()).decode()
        for name in PICTURES
        if (pictures / f"{name}.png").exists()
    }
    columns = [name for name in o.table.columns if name not in ("experiments", "reason")]
    template = pages.load_template("tuning.html.j2", shown=_show)
    return template.render(
        name=o.study.name, sentences=describe(o), captions=PICTURES, pictures=drawn, columns=columns,
        rows=o.table[columns].to_numpy(object).tolist(),
    )  # fmt: skip


def _show(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def draw_history(table: pd.DataFrame, watched: pd.DataFrame, path: Path) -> None:
    """The objective by trial; those that were stopped at their last validation Dice, in grey."""
    ordered = table.sort_values("trial")
    ended = ordered[ordered["state"] == "done"]
    stopped = watched[watched["trial"].isin(ordered.loc[ordered["state"] == "stopped", "trial"])]
    last = stopped.sort_values("epoch").groupby("trial")["dice"].last()
    with charts.open_figure(path, DPI, charts.WIDTH, 3.2) as figure:
        ax = figure.subplots()
        ax.scatter(last.index, last, color=charts.GREY, marker="x", label="stopped")
        ax.scatter(ended["trial"], ended["dice"], color=charts.BLUE, label="to its end")
        ax.step(ended["trial"], ended["dice"].cummax(), where="post", color=charts.ORANGE, label="best so far")
        ax.set(xlabel="trial", ylabel="volume Dice")
        ax.legend(loc="lower right")


def draw_parallel(table: pd.DataFrame, path: Path) -> None:
    """A line for each trial that came to its end, over one axis for each parameter, the objective last."""
    ended = table[table["state"] == "done"]
    names = [name for name in table.columns if name not in trials.NO_PARAMETERS]
    axes = [*names, "dice"]
    scaled = np.stack([_scale(ended[name]) for name in axes], axis=1)
    with charts.open_figure(path, DPI, charts.WIDTH, 3.8) as figure:
        ax = figure.subplots()
        for line in scaled[np.argsort(scaled[:, -1])]:
            ax.plot(line, color=charts.BLUE, alpha=0.15 + 0.85 * line[-1] ** 2, linewidth=1.5)
        for place, name in enumerate(axes):
            low, high = _label_ends(ended[name])
            ax.text(place, -0.06, low, ha="center", va="top", fontsize=8)
            ax.text(place, 1.04, high, ha="center", va="bottom", fontsize=8)
        ax.set_xticks(range(len(axes)), [name.rpartition(".")[2] for name in axes], rotation=25, ha="right", fontsize=9)
        ax.tick_params(axis="x", pad=16)
        ax.set(yticks=[], ylim=(-0.02, 1.02))
        ax.grid(visible=True, axis="x")
        ax.spines["left"].set_visible(False)


def _scale(column: pd.Series) -> np.ndarray:
    """Between 0 and 1: numbers by their place, by their logarithm where they span a decade; words by their order."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        order = sorted(column.astype(str).unique())
        return column.astype(str).map(order.index).to_numpy(float) / max(1, len(order) - 1)
    values = column.to_numpy(float)
    if values.min() > 0 and values.max() / values.min() > 10:
        values = np.log(values)
    return (values - values.min()) / (np.ptp(values) or 1)


def _label_ends(column: pd.Series) -> tuple[str, str]:
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        order = sorted(column.astype(str).unique())
        return order[0], order[-1]
    return f"{column.min():.3g}", f"{column.max():.3g}"


def draw_importance(importance: dict[str, float], path: Path) -> None:
    names = list(importance)[::-1]
    with charts.open_figure(path, DPI, charts.WIDTH, 0.8 + 0.3 * len(names)) as figure:
        ax = figure.subplots()
        ax.barh(names, [importance[name] for name in names], color=charts.BLUE)
        ax.set(xlabel="share of the variance")
        ax.grid(visible=False, axis="y")
