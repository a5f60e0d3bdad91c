"""What is kept of an executed notebook does not change from run to run, and its pictures are small."""

import base64
import io

import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

from brainseg.errors import RunError
from tools import run_notebook


def encode(picture: Image.Image, **metadata) -> str:
    png = io.BytesIO()
    picture.save(png, "PNG", **metadata)
    return base64.b64encode(png.getvalue()).decode()


def executed(run: str) -> nbformat.NotebookNode:
    """A notebook as a kernel leaves it; ``run``: what differs from run to run."""
    v4 = nbformat.v4
    noise = np.random.default_rng(1).integers(0, 255, (40, 1500, 4), np.uint8)
    image = {"image/png": encode(Image.fromarray(noise, "RGBA"), dpi=(len(run), 100))}
    outputs = [
        v4.new_output("stream", name="stderr", text=f"warning at {run}"),
        v4.new_output("stream", name="stdout", text=f"/somewhere/brainseg-tour-{run}/metrics/report.html\n"),
        v4.new_output(
            "stream", name="stdout", text=f"epoch 1/6  loss 0.969  {len(run)} images/s  {len(run)} min left\n"
        ),
        v4.new_output("execute_result", data=image, execution_count=len(run)),
    ]
    cells = [v4.new_markdown_cell("# title", id="title"), v4.new_code_cell("1 + 1", id="sum", outputs=outputs)]
    return v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python", "version": run}})


def test_two_runs_leave_the_same_bytes():
    first, second = executed("a1b"), executed("c2d3e")
    for notebook in (first, second):
        run_notebook.clean(notebook)
        nbformat.validate(notebook)
    assert nbformat.writes(first) == nbformat.writes(second)
    cell = first.cells[1]
    assert [output.get("text") for output in cell.outputs] == [
        "WORK/metrics/report.html\n",
        "epoch 1/6  loss 0.969\n",
        None,
    ]
    assert cell.execution_count == cell.outputs[-1].execution_count == 1


def test_what_is_clean_stays_as_it_is():
    notebook = executed("a1b")
    run_notebook.clean(notebook)
    text = nbformat.writes(notebook)
    run_notebook.clean(notebook)
    assert nbformat.writes(notebook) == text


def test_a_changed_cell_has_another_digest():
    notebook = executed("a1b")
    run_notebook.clean(notebook)
    assert notebook.metadata.executed.sha256 == run_notebook.digest(notebook)
    notebook.cells[0].source += "!"
    assert notebook.metadata.executed.sha256 == run_notebook.digest(notebook)
    notebook.cells[1].source += " + 1"
    assert notebook.metadata.executed.sha256 != run_notebook.digest(notebook)


def test_a_picture_keeps_a_thin_outline_on_white():
    drawn = np.zeros((400, 1400, 4), np.uint8)
    drawn[:, :700] = np.random.default_rng(1).integers(0, 255, (400, 700, 1), np.uint8)
    drawn[:, :700, 3] = 255
    drawn[:, 300:304] = 230, 159, 0, 255
    small = Image.open(io.BytesIO(run_notebook.shrink(base64.b64decode(encode(Image.fromarray(drawn, "RGBA"))))))
    assert small.size == (700, 200) and small.mode == "P"
    pixels = np.asarray(small.convert("RGB"), int)
    assert np.abs(pixels[:, 151].mean(axis=0) - (230, 159, 0)).max() < 30 and (pixels[:, -5] > 250).all()


def test_a_cell_that_fails_is_named_and_the_notebook_stays(tmp_path, monkeypatch):
    path = tmp_path / "tour.ipynb"
    nbformat.write(executed("a1b"), path)
    before = path.read_bytes()

    def fail(client, **_):
        client.on_cell_execute(cell=client.nb.cells[1], cell_index=1)
        raise CellExecutionError("traceback", "KeyError", "'dice'")

    monkeypatch.setattr(run_notebook.NotebookClient, "execute", fail)
    with pytest.raises(RunError, match="the cell sum ended with KeyError: 'dice'"):
        run_notebook.run(path)
    assert path.read_bytes() == before
