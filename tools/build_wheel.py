"""Build the wheel that people install: the package with its page and the released model, which needs no clone.

``python -m tools.build_wheel [OUT]`` builds from a copy of what git tracks, so nothing else that lies about gets in. On
PyPI the README has no repository around it: its links and pictures get addresses there.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from brainseg import __version__, errors, files
from brainseg.errors import MachineError
from brainseg.experiments import demo
from tools import build_page, copy_released

OUT, PACKAGE = Path("dist"), Path("src/brainseg")
MODEL = "models/unet.onnx"
TERMS = """\
unet.onnx in this folder and data/brains/lgg.xz are made from the data set LGG MRI Segmentation (Buda et al. 2019,
doi:10.1016/j.compbiomed.2019.05.002) and have its terms: CC BY-NC-SA 4.0, not for commercial use,
https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode. Research use only, not for clinical use.
"""
LINK = re.compile(r"""(?P<before>\]\(|src=")(?![a-z]+:|#)(?P<path>[^)\s"]+)""")
PICTURES = (".png", ".svg")


def run(out: Path = OUT, root: Path = Path()) -> str:
    """Build the wheel into ``out`` and say its name and size.

    Raises:
        IntegrityError: the released model is not in weights/, or damaged. MachineError: the page or the wheel cannot be
            built.
    """
    build_page.run(root / build_page.WEB)
    with tempfile.TemporaryDirectory(prefix="brainseg-wheel-") as folder:
        tree, built = Path(folder) / "tree", Path(folder) / "dist"
        demo.copy_tracked(root, tree)
        shutil.copytree(build_page.PAGE, tree / PACKAGE / "server/page")
        copy_released.copy(root, tree / PACKAGE / "released", [MODEL])
        (tree / PACKAGE / "released/LICENSE.txt").write_text(TERMS, encoding="utf-8")
        readme = tree / "README.md"
        readme.write_text(absolute(readme.read_text(encoding="utf-8"), find_source(root)), encoding="utf-8")
        _build(tree, built)
        (wheel,) = built.glob("*.whl")
        with files.replacing(out / wheel.name) as temporary:
            shutil.copyfile(wheel, temporary)
    return f"built {out / wheel.name}: {(out / wheel.name).stat().st_size / 1e6:.1f} MB"


def find_source(root: Path = Path()) -> str:
    """The address of the repository, from pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Source"]


def absolute(text: str, source: str) -> str:
    """Markdown whose relative links lead to this version in the repository ``source``."""

    def link(found: re.Match[str]) -> str:
        kind = "raw" if found["path"].endswith(PICTURES) else "blob"
        return f"{found['before']}{source}/{kind}/v{__version__}/{found['path']}"

    return LINK.sub(link, text)


def _build(tree: Path, out: Path) -> None:
    """uv's builder, or pip's where there is no uv; their words go to stderr."""
    if uv := shutil.which("uv"):
        command = [uv, "build", "--quiet", "--wheel", "--out-dir", str(out), str(tree)]
    else:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(tree)]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        fix = "check the network or proxy: hatchling is fetched to build with"
        raise MachineError("wheel", f"{Path(command[0]).name} ended with {done.returncode}, see above", fix)


if __name__ == "__main__":
    errors.run(lambda: print(run(*map(Path, sys.argv[1:2]))))
