"""HTML pages from the templates of this package, with escaping and one common style, and how numbers are written."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from brainseg.inference.probabilities import Calibration

if TYPE_CHECKING:
    from jinja2 import Template


def load_template(name: str, **filters: Callable) -> "Template":
    """The template ``name``, which may include ``page.css``. An undefined variable in it is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # who prints a table alone does not wait for it

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(filters)
    return environment.get_template(name)


def format_number(value: float | None, unit: str = "") -> str:
    """A number with three decimals, or with one decimal and a unit of length; or "undefined"."""
    if value is None or math.isnan(value):
        return "undefined"
    return f"{value:.1f} {unit}" if unit else f"{value:.3f}"


def describe_calibration(calibration: Calibration) -> str:
    """What is done to the network's probabilities; empty: nothing."""
    parts = [f"temperature {calibration.temperature:g}"] if calibration.temperature != 1 else []
    parts += [f"bias {calibration.bias:+g}"] if calibration.bias else []
    parts += [f"skew {calibration.skew:+g}"] if calibration.skew else []
    return ", ".join(parts)
