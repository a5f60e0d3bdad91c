"""``examples/own-data/draw.py``, which is a script and lies in no package."""

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples/own-data"


def _load():
    spec = importlib.util.spec_from_file_location("own_data_draw", FOLDER / "draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


draw = _load()
