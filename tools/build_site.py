"""The page as a static site that computes in the browser: any web server has it, GitHub Pages too, under any path.

``python -m tools.build_site [OUT] [--model models/unet.onnx]``. Beside the page lie the model, the prose of its card,
the examples, and a service worker that keeps all of it for use without the network.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainseg import errors, files
from brainseg.errors import IntegrityError
from brainseg.inference.onnx_session import Session
from brainseg.reporting import model_card
from brainseg.server import examples
from tools import build_page

OUT, MODEL, PATIENTS = Path("site"), Path("models/unet.onnx"), Path(examples.RELEASED)
WORKER = "sw.js"
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'"
)
# Formats that are never read, and what only a graphics card needs: fetched when they are, and not kept.
NOT_KEPT = ("lerc-", "zstd-", "jpeg-", "webimage-", "ort.webgpu", "asyncify", "licences.md")


def run(out: Path = OUT, model: Path = MODEL, web: Path = build_page.WEB, patients: Path = PATIENTS) -> str:
    """Build the site and say what was done. An earlier one stays where a build fails.

    Args:
        patients: the examples of the release; where there are none, or the model is not of LGG, phantoms.

    Raises:
        IntegrityError: there is no model, or it or the examples are damaged.
        MachineError: Node.js is not to be had, or a tool fails.
    """
    session = Session(model)
    environment = build_page.find_environment(web)
    with files.replacing(out) as built:
        build_page.build(web, built, environment, "--mode", "site")
        (built / "model").mkdir()
        (built / "model/unet.onnx").write_bytes(session.content)
        card = model_card.render_markdown(model_card.parse_facts(session.facts, model))
        (built / "model/card.md").write_text(card, encoding="utf-8")
        _write_examples(built / "examples", find_examples(patients, session.facts["model"]))
        _add_policy(built / "index.html")
        (built / ".nojekyll").touch()  # GitHub Pages takes the files as they are
        _write_worker(web / WORKER, built)
        size = sum(path.stat().st_size for path in built.rglob("*") if path.is_file())
    return f"built {out}: {size / 1e6:.0f} MB, for any web server"


def find_examples(patients: Path, model: Mapping[str, Any]) -> list[examples.Example]:
    """Never the patients of this folder's data: they are somebody's own."""
    if model["protocol"].get("source") != "kaggle":
        return examples.find_phantoms()
    with errors.guard(patients, examples.PULL, IntegrityError):
        return examples.read_released(patients, model["weights_sha256"]) or examples.find_phantoms()


def _write_examples(folder: Path, found: Sequence[examples.Example]) -> None:
    folder.mkdir()
    for each in found:
        assert each.read is not None
        (folder / f"{each.id}.{'zip' if each.kind == 'slices' else 'tif'}").write_bytes(each.read())
    (folder / "list.json").write_text(json.dumps([examples.describe(each) for each in found]), encoding="utf-8")


def _add_policy(page: Path) -> None:
    """The page's own policy: a host of static files sends none."""
    html, mark = page.read_text(encoding="utf-8"), '<meta charset="utf-8" />'
    tag = f'{mark}\n    <meta http-equiv="Content-Security-Policy" content="{POLICY}" />'
    page.write_text(html.replace(mark, tag, 1), encoding="utf-8")


def _write_worker(template: Path, site: Path) -> None:
    """The service worker, with the files that it keeps and a version that changes with any of them."""
    found = sorted(path for path in site.rglob("*") if path.is_file() and not path.name.startswith("."))
    kept = [path for path in found if not path.name.startswith(NOT_KEPT) and "asyncify" not in path.name]
    lines = "".join(f"{files.sha256(path)}  {path.relative_to(site).as_posix()}\n" for path in kept)
    names = ["./", *(path.relative_to(site).as_posix() for path in kept if path.name != "index.html")]
    source = template.read_text(encoding="utf-8")
    source = source.replace("__VERSION__", hashlib.sha256((lines + source).encode()).hexdigest()[:16])
    (site / WORKER).write_text(source.replace("__FILES__", json.dumps(names, indent=1)), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the page as a static site that computes in the browser.")
    parser.add_argument("out", type=Path, nargs="?", default=OUT)
    parser.add_argument("--model", type=Path, default=MODEL)
    given = parser.parse_args()
    errors.run(lambda: print(run(given.out, given.model)))
