"""A diagram of the network, drawn from the model's list of layers (manifest ``layers``).

Consecutive layers of one resolution form a block. Blocks are placed from left to right in the order of computation;
a block with a lower resolution is placed lower, so a U-Net has the shape of a U.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle

from brainseg.models.manifest import Layer, Manifest
from brainseg.reporting import charts

WIDTH, LEVEL = 8.0, 1.2  # inches: width of the figure, height of one resolution
WIDEST, SLOT, GAP = 2.4, 0.8, 0.45  # widest block, least room per block, gap between two; all scaled to the width
HALF = 0.16  # half of a block's height, as a share of LEVEL
TIMES = "\N{MULTIPLICATION SIGN}"
NEXT: dict[str, Any] = {"color": charts.BLACK, "linewidth": 1.5}
SKIP: dict[str, Any] = {"color": charts.VERMILLION, "linewidth": 1.5, "linestyle": (0, (4, 3))}


@dataclass
class LayerBlock:
    """Layers of one resolution. ``sources``: indices of the earlier blocks that are its inputs."""

    size: tuple[int, int]
    layers: list[Layer] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)

    @property
    def channels(self) -> int:
        """The most frequent number of output channels of its layers; the last one if several are as frequent."""
        widths = [layer.shape[-1] for layer in self.layers]
        return max(reversed(widths), key=widths.count)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def convolutions(self) -> int:
        return sum("Conv" in layer.type for layer in self.layers)


def group_layers(layers: Sequence[Layer]) -> list[LayerBlock]:
    """Group ``layers`` in order of computation."""
    made: list[LayerBlock] = []
    home: dict[str, int] = {}
    for layer in layers:
        sources = sorted({home[name] for name in layer.inputs if name in home})
        size = (layer.shape[-3], layer.shape[-2])
        if not sources or made[sources[-1]].size != size:
            made.append(LayerBlock(size))
            place = len(made) - 1
        else:
            place = sources[-1]
        home[layer.name] = place
        made[place].layers.append(layer)
        made[place].sources += [s for s in sources if s != place and s not in made[place].sources]
    return made


def draw_network(manifest: Manifest, path: Path, dpi: int) -> None:
    """Draw the blocks with shapes, parameters and connections; ``manifest`` is models/unet.json."""
    drawn = group_layers(manifest.layers)
    sizes = sorted({block.size for block in drawn}, reverse=True)
    with charts.open_figure(path, dpi, WIDTH, 1.1 + LEVEL * len(sizes)) as figure:
        ax = figure.subplots()
        ax.set_axis_off()
        boxes = _place_boxes(drawn, sizes)
        for place, (block, box) in enumerate(zip(drawn, boxes, strict=True)):
            _draw_block(ax, block, box)
            for source in block.sources:
                _connect(ax, boxes[source], box, skip=source != place - 1)
        ax.set(xlim=(boxes[0].x - 0.45, boxes[-1].at(1) + 0.45), ylim=(0.15 - len(sizes), 0.3))
        name, layers = manifest.network.name, len(manifest.layers)
        ax.set_title(f"{name}: {manifest.parameters:,} parameters in {layers} layers", fontsize=13, loc="center")
        handles = [Line2D([], [], label="next block", **NEXT), Line2D([], [], label="skip connection", **SKIP)]
        note = f"a box: pixels {TIMES} channels, convolutions, parameters"
        figure.legend(handles=handles, loc="outside lower center", ncols=2, title=note)


class Box(NamedTuple):
    """The place of a block: left edge, width, and the height of its middle."""

    x: float
    width: float
    y: float

    def at(self, share: float) -> float:
        return self.x + share * self.width


def _place_boxes(drawn: list[LayerBlock], sizes: list[tuple[int, int]]) -> list[Box]:
    """Boxes from left to right: the width follows the channels, with a minimum; the height follows the resolution."""
    widest = max(block.channels for block in drawn)
    boxes, x = [], 0.0
    for block in drawn:
        width = max(0.12, WIDEST * block.channels / widest)
        room = max(SLOT, width)
        boxes.append(Box(x + (room - width) / 2, width, -sizes.index(block.size)))
        x += room + GAP
    return boxes


def _draw_block(ax: Axes, block: LayerBlock, box: Box) -> None:
    colour = charts.SKY if block.convolutions else "#d9d9d9"
    ax.add_patch(
        Rectangle((box.x, box.y - HALF), box.width, 2 * HALF, facecolor=colour, edgecolor=charts.BLUE, linewidth=1.2)
    )
    shape = TIMES.join(map(str, (*block.size, block.channels)))
    ax.text(box.at(0.5), box.y - HALF - 0.05, shape, ha="center", va="top", fontsize=10, fontweight="bold")
    if block.convolutions:
        text = f"{block.convolutions} conv\n{_format_count(block.parameters)}"
        ax.text(box.at(0.5), box.y - HALF - 0.21, text, ha="center", va="top", fontsize=10, linespacing=1.2)


def _connect(ax: Axes, source: Box, target: Box, skip: bool) -> None:
    """Draw an arrow: a skip connection straight, one downwards to the top of the next box, one upwards to its side."""
    right, look = source.at(1), SKIP if skip else NEXT
    if skip:
        start, end, bend = (right, source.y + 0.06), (target.x, target.y + 0.06), "arc3"
    elif source.y > target.y:
        start, end, bend = (right, source.y - 0.08), (target.at(0.25), target.y + HALF), "angle,angleA=0,angleB=90"
    else:
        start, end, bend = (source.at(0.75), source.y + HALF), (target.x, target.y - 0.08), "angle,angleA=90,angleB=0"
    shape: dict[str, Any] = {"arrowstyle": "-|>", "connectionstyle": bend, "mutation_scale": 13}
    ax.add_patch(FancyArrowPatch(start, end, shrinkA=1, shrinkB=1, **shape, **look))


def _format_count(number: int) -> str:
    for unit, name in ((1_000_000, " M"), (1_000, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(number)
