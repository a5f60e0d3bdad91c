"""Run notebooks/tour.ipynb and write into it what its cells show, for those who read it on GitHub: `make notebook`.

What is kept is the same on each run on one kind of machine: no times, temporary folders, messages on stderr or versions
of the kernel. Pictures are made small. The digest of the code is kept as well, so that a test can tell when the outputs
are those of other code.
"""

import base64
import hashlib
import io
import os
import re
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from brainseg import errors, files
from brainseg.errors import RunError

NOTEBOOK = Path("notebooks/tour.ipynb")
SOURCES = Path(__file__).parents[1] / "src"
WIDTH, COLOURS = 700, 64  # of a picture: pixels, and enough to tell tissues and outlines apart
TEMPORARY = re.compile(r"\S*/brainseg-tour-\w+")  # the notebook's own name for this folder is WORK
SPEED = re.compile(r" +\d+ images/s +\d+ min left$", re.MULTILINE)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def run(path: Path = NOTEBOOK) -> str:
    """Execute the notebook in its folder and replace its outputs. Say how long it took, and its slowest cell.

    Raises:
        RunError: a cell ended with an error; the notebook stays as it was.
    """
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    seconds = execute(notebook, path)
    clean(notebook)
    files.write_text(path, nbformat.writes(notebook) + "\n")
    slowest = max(seconds, key=lambda name: seconds[name])
    size = f"{path.stat().st_size / 1024:.0f} KiB"
    return f"{path}: {size}, {sum(seconds.values()):.0f} s; the slowest cell, {slowest}, {seconds[slowest]:.0f} s"


def execute(notebook: nbformat.NotebookNode, path: Path) -> dict[str, float]:
    """Run all cells in the notebook's folder; return the seconds of each code cell.

    The kernel is this environment's, and imports the code beside this file, not what happens to be installed.
    """
    started: dict[str, float] = {}
    seconds: dict[str, float] = {}

    def start(cell: nbformat.NotebookNode, **_: object) -> None:
        started[cell.id] = time.monotonic()

    def end(cell: nbformat.NotebookNode, **_: object) -> None:
        seconds[cell.id] = time.monotonic() - started[cell.id]

    client = NotebookClient(
        notebook, timeout=1500, startup_timeout=120, kernel_name="python3", record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}}, on_cell_execute=start, on_cell_executed=end,
    )  # fmt: skip
    try:
        client.execute(env=os.environ | {"PYTHONPATH": str(SOURCES)})
    except CellExecutionError as error:
        what = f"the cell {list(started)[-1]} ended with {error.ename}: {error.evalue}"
        raise RunError(path, what, "put the cell right, then make notebook") from error
    return seconds


def clean(notebook: nbformat.NotebookNode) -> None:
    """Leave of an executed notebook what does not change from run to run. To clean it again changes nothing."""
    for number, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = number
        cell.outputs = [_clean_output(each, number) for each in cell.outputs if each.get("name") != "stderr"]
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}, "executed": {"sha256": digest(notebook)}}
    )


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def digest(notebook: nbformat.NotebookNode) -> str:
    """Of the code of all cells: each output depends on all the cells before it."""
    return hashlib.sha256("\0".join(cell.source for cell in code_cells(notebook)).encode()).hexdigest()


def _clean_output(output: nbformat.NotebookNode, number: int) -> nbformat.NotebookNode:
    if "execution_count" in output:
        output.execution_count = number
    if "text" in output:
        output.text = SPEED.sub("", TEMPORARY.sub("WORK", output.text))
    if "image/png" in output.get("data", {}):
        output.data["image/png"] = base64.b64encode(shrink(base64.b64decode(output.data["image/png"]))).decode()
    return output


def shrink(png: bytes) -> bytes:
    """A PNG of ``COLOURS`` and at most ``WIDTH``, on white and without metadata; one that is so already as it is.

    The colours are those that cover all that is there. The most frequent ones would be greys, without a thin outline.
    """
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P" and picture.width <= WIDTH and not picture.info:
        return png
    opaque = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA")).convert("RGB")
    if opaque.width > WIDTH:
        size = WIDTH, round(opaque.height * WIDTH / opaque.width)
        opaque = opaque.resize(size, Image.Resampling.LANCZOS)
    small = io.BytesIO()
    opaque.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=2).save(small, "PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    errors.run(lambda: print(run()))
