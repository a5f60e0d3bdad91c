"""Draw docs/images/rooms.svg from the layers in pyproject.toml, and docs/images/stages.svg from dvc.yaml.

``python -m tools.draw_architecture`` writes both; a test holds them against the code.
"""

import re
import tomllib
from pathlib import Path

from brainseg import config
from brainseg.experiments import planning

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/images"
WIDTH, ROW, GAP, MARGIN = 720, 46, 8, 16
STYLE = (
    "rect{fill:#eef2f4;stroke:#546e7a;rx:6px}text{font:15px sans-serif;fill:#263238;text-anchor:middle}"
    ".small{font-size:12px;fill:#546e7a}path{stroke:#546e7a;stroke-width:1.5;fill:none;marker-end:url(#tip)}"
)
TIP = '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">\
<path d="M0 0L8 4L0 8z" style="fill:#546e7a;stroke:none;marker-end:none"/></marker></defs>'
HELD = {  # what a room alone may touch
    "models": "Keras; TensorFlow, JAX", "training": "Keras", "tracking": "MLflow", "server": "FastAPI",
    "io": "pydicom, nibabel", "export": "onnx", "reporting": "Matplotlib", "evaluation": "NumPy, SciPy",
    "inference": "ONNX Runtime",
    "experiments": "DVC", "tuning": "Optuna", "data": "OpenCV, scikit-learn", "cli": "Typer",
}  # fmt: skip
WRITES = {
    "download": "slices.zip", "preprocess": "images, masks", "brains": "brain masks", "split": "split.csv",
    "train": "unet.weights.h5", "evaluate": "numbers, tables", "render": "pictures, report", "export": "unet.onnx",
}  # fmt: skip
PLACES = {  # column, row of each stage
    "download": (0, 1), "preprocess": (1, 1), "brains": (2, 0), "split": (2, 2), "train": (3, 1), "evaluate": (4, 1),
    "render": (5, 0), "export": (5, 2),
}  # fmt: skip


def draw_rooms() -> str:
    """The rooms of the package, each on its layer: what is above may use what is below."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    parts = []
    for row, layer in enumerate(layers):
        rooms = layer.split(" | ")
        width = (WIDTH - 2 * MARGIN - GAP * (len(rooms) - 1)) / len(rooms)
        for place, room in enumerate(rooms):
            parts.append(
                _box(MARGIN + place * (width + GAP), MARGIN + row * (ROW + GAP), width, room, HELD.get(room, ""))
            )
    return _picture(parts, 2 * MARGIN + len(layers) * (ROW + GAP) - GAP)


def draw_stages() -> str:
    """The stages of dvc.yaml, and which writes what another reads."""
    stages = config.read_yaml(ROOT / "dvc.yaml")["stages"]
    made = {out: name for name, stage in stages.items() for out in planning.list_outs(stage)}
    before = {name: {made[dep] for dep in stage["deps"] if dep in made} for name, stage in stages.items()}
    width, height = 100, 3 * (ROW + 3 * GAP)
    step = (WIDTH - 2 * MARGIN - width) / max(column for column, _ in PLACES.values())
    corner = {name: (MARGIN + column * step, MARGIN + row * height / 3) for name, (column, row) in PLACES.items()}
    parts = [_box(*corner[name], width, name, WRITES[name]) for name in stages]
    for name, near in before.items():
        for other in sorted(near - {far for one in near for far in _reach(one, before)}):
            (x, y), (to_x, to_y) = corner[other], corner[name]
            middle = ROW / 2
            parts.append(f'<path d="M{x + width:.0f} {y + middle:.0f}L{to_x:.0f} {to_y + middle:.0f}"/>')
    return _picture([TIP, *parts], 2 * MARGIN + height - 3 * GAP)


def _reach(name: str, before: dict[str, set[str]]) -> set[str]:
    """The stages that come before one, near or far."""
    return before[name] | {far for near in before[name] for far in _reach(near, before)}


def _box(x: float, y: float, width: float, name: str, below: str) -> str:
    centre = x + width / 2
    words = f'<text x="{centre:.0f}" y="{y + (20 if below else 28):.0f}">{name}</text>'
    words += f'<text class="small" x="{centre:.0f}" y="{y + 37:.0f}">{below}</text>' if below else ""
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{ROW}"/>{words}'


def _picture(parts: list[str], height: float) -> str:
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    background = f'<path d="M0 0H{WIDTH}V{height:.0f}H0z" style="fill:#fff;stroke:none;marker-end:none"/>'
    body = "\n".join([f"<style>{STYLE}</style>", background, *parts])
    return re.sub(r"[ \t]+\n", "\n", f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{body}\n</svg>\n')


PICTURES = {"rooms.svg": draw_rooms, "stages.svg": draw_stages}


def main() -> None:
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
